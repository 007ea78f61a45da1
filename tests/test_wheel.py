"""The wheel, in an environment of its own and far from the checkout."""

import json
import subprocess
import sys
import tomllib
import venv
import zipfile

import numpy as np
import pytest
from PIL import Image
from workflow_fixtures import ROOT, options, volume, without_checkout, write_volume

pytestmark = pytest.mark.slow
SMALL = {"steps": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of what an image of a container gets, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    names = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    source.mkdir()
    for name in names:
        subprocess.run(["cp", "-r", ROOT / name, source / name], check=True)
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Python of an environment that holds the wheel, and what it needs by a path to where that is."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    pip(sys.executable, "--python", folder / "bin/python", "install", "--no-deps", wheel)
    own = next(folder.glob("lib/python*/site-packages"))
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (own / "libraries.pth").write_text("\n".join(libraries))
    return folder


def pip(python, *arguments):
    words = [python, "-m", "pip", *arguments, "--quiet", "--no-index", "--disable-pip-version-check"]
    subprocess.run([str(word) for word in words], env=without_checkout(), check=True, capture_output=True)


def call(installed, folder, *words):
    words = [installed / "bin" / words[0], *words[1:]]
    return subprocess.run(
        [str(word) for word in words], cwd=folder, env=without_checkout(), capture_output=True, text=True, timeout=300
    )


def without(installed, *names):
    """Let libraries be missing in the environment."""
    own = next(installed.glob("lib/python*/site-packages"))
    for name in names:
        (own / f"{name}.py").write_text(f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')")
    return [own / f"{name}.py" for name in names]


def write_slices(folder):
    rng = np.random.default_rng(0)
    for name in ("fixed", "moving"):
        Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(folder / f"{name}.png")


def test_it_holds_what_runs_need_and_no_more(wheel):
    names = {name.split("/", 1)[1] for name in zipfile.ZipFile(wheel).namelist() if name.startswith("bundle/")}
    for folder in ("configs", "models"):
        beside = {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert {name for name in names if name.startswith(folder)} == beside
    package = {str(path.relative_to(ROOT / "bundle")) for path in (ROOT / "bundle").rglob("*") if path.is_file()}
    assert {name for name in package if "__pycache__" not in name} <= names
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert sorted(top for top in tops if not top.endswith(".dist-info")) == ["bundle"]


def test_a_container_runs_what_the_package_brings():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (line.partition(" ") for line in (ROOT / "Dockerfile").read_text().splitlines())
    steps = {name: rest for name, _, rest in lines if name.isupper()}
    assert json.loads(steps["ENTRYPOINT"]) == list(project["scripts"])
    assert "/source[all]" in steps["RUN"]
    assert "all" in project["optional-dependencies"]
    assert f"python:{project['requires-python'].removeprefix('>=')}-slim" in (ROOT / "Dockerfile").read_text()
    assert steps["USER"].split(":")[0] not in ("root", "0")


def test_the_command_says_which_version_it_is(installed, tmp_path):
    for words in (["meta-registration"], ["python", "-m", "bundle"]):
        finished = call(installed, tmp_path, *words, "--version")
        assert finished.stdout.startswith("meta-registration-bundle "), finished.stderr
        usage = call(installed, tmp_path, *words, "apply", "--help").stdout
        assert usage.startswith(f"usage: {' '.join(words)} apply TRANSFORM "), "the help calls it as the user did"


def test_volumes_are_registered_by_the_weights_that_it_brings(installed, tmp_path):
    for seed, name in enumerate(("fixed", "moving")):
        write_volume(tmp_path / f"{name}.nii.gz", volume(seed)[0])
    words = ["register", "fixed.nii.gz", "moving.nii.gz", "--config", "cpu.yaml", *options(SMALL)]
    finished = call(installed, tmp_path, "meta-registration", *words)
    assert finished.returncode == 0, finished.stderr
    assert list((tmp_path / "results").glob("*/displacement.nii.gz"))


def test_slices_are_registered_from_python_without_the_libraries_of_extras(installed, tmp_path):
    write_slices(tmp_path)
    script = """
from bundle import register
result = register("fixed.png", "moving.png", config_file="inference_2d.yaml", steps=1, device="cpu")
print(result.warped.shape)
"""
    blocked = without(installed, "itk", "highdicom", "tensorboard")
    try:
        finished = call(installed, tmp_path, "python", "-c", script)
        assert finished.stdout.strip().endswith("(64, 64, 1)"), finished.stderr
        (tmp_path / "a.nrrd").write_bytes(b"NRRD0004\n")
        finished = call(installed, tmp_path, "meta-registration", "register", "a.nrrd", "a.nrrd", *options(SMALL))
        assert finished.returncode
        assert "needs itk, which is not installed; pip install 'meta-registration-bundle[dicom]'" in finished.stderr
    finally:
        for file in blocked:
            file.unlink()


def test_monai_loads_its_weights(installed, tmp_path):
    script = """
import sys, pathlib, monai.bundle, bundle
root = pathlib.Path(bundle.__file__).parent
network = monai.bundle.load(name="bundle", bundle_dir=str(root.parent), device="cpu")
print(sum(parameter.numel() for parameter in network.parameters()) > 100_000)
"""
    finished = call(installed, tmp_path, "python", "-c", script)
    assert finished.stdout.strip().endswith("True"), finished.stderr
