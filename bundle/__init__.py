"""Meta-learned image registration as a MONAI bundle."""

from bundle import (
    data,
    dicom,
    evaluation,
    experiment,
    formats,
    geometry,
    maps,
    meta,
    pages,
    registration,
    results,
    system,
)
from bundle.api import Registration, register

__all__ = [
    "Registration",
    "data",
    "dicom",
    "evaluation",
    "experiment",
    "formats",
    "geometry",
    "maps",
    "meta",
    "pages",
    "register",
    "registration",
    "results",
    "simulation",
    "system",
]
