"""What the wheel holds: the package, with the configurations and weights that lie beside it in a checkout in it."""

from setuptools import find_packages, setup

BESIDE = {"bundle.configs": "configs", "bundle.models": "models"}

setup(packages=[*find_packages(include=["bundle", "bundle.*"]), *BESIDE], package_dir=BESIDE)
