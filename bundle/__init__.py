"""Meta-learned image registration as a MONAI bundle."""

from bundle import console, data, dicom, evaluation, geometry, maps, meta, processes, registration, session
from bundle.api import Registration, register

__all__ = [
    "Registration",
    "console",
    "data",
    "dicom",
    "evaluation",
    "geometry",
    "maps",
    "meta",
    "processes",
    "register",
    "registration",
    "session",
]
