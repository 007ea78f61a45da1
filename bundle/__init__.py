"""Meta-learned image registration as a MONAI bundle."""

from bundle import console, data, evaluation, geometry, meta, registration
from bundle.api import Registration, register

__all__ = ["Registration", "console", "data", "evaluation", "geometry", "meta", "register", "registration"]
