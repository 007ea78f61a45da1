"""The two coordinate systems of point files: RAS, as everywhere in the bundle, and LPS, as in most files; and units."""

from __future__ import annotations

import numpy as np

from bundle.geometry.affines import RAS_TO_LPS

SPACES = {"RAS": "RAS", "LPS": "LPS", "0": "RAS", "1": "LPS"}
"""Names of the spaces in the files of 3D Slicer; older ones have numbers."""

MILLIMETRE = {"mm", *(f"millimet{end}" for end in ("er", "ers", "re", "res"))}
VOXEL = {"voxel", "voxels", "vox", "pixel", "pixels", "px"}
OTHER_LENGTHS = {
    *("m", "meter", "metre", "dm", "cm", "um", "\u00b5m", "\u03bcm", "micron", "microns", "nm", "inch", "in"),
    *(f"{prefix}met{end}" for prefix in ("centi", "micro") for end in ("er", "ers", "re", "res")),
}
"""Lengths other than millimetres."""
WORDS = MILLIMETRE | VOXEL | OTHER_LENGTHS | {name.lower() for name in SPACES if name.isalpha()}
"""What a table may say that its numbers are in, in small letters."""


def known_space(name: object) -> str:
    """Space of a file, from its name in the file.

    Returns:
        ``RAS`` or ``LPS``.

    Raises:
        ValueError: for any other space, such as voxels.
    """
    if str(name) not in SPACES:
        raise ValueError(f"its coordinate system is {name!r}, expected LPS or RAS")
    return SPACES[str(name)]


def swap_space(points: np.ndarray, space: str) -> np.ndarray:
    """Convert points of a file to RAS, or points in RAS to the file's space: ``LPS`` changes the signs of x and y.

    Args:
        points: ``(n, 3)``, mm.
        space: space of the file, ``LPS`` or ``RAS``.

    Returns:
        ``(n, 3)``, mm.
    """
    return points * np.diag(RAS_TO_LPS)[:3] if space == "LPS" else points
