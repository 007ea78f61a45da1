"""The two ways of point files to count millimetres: RAS, as everywhere in the bundle, and LPS, as in most files."""

from __future__ import annotations

import numpy as np

from bundle.geometry.affines import RAS_TO_LPS

SPACES = {"RAS": "RAS", "LPS": "LPS", "0": "RAS", "1": "LPS"}
"""Names of the spaces in the files of 3D Slicer; older ones have numbers."""


def known_space(name: object) -> str:
    """Space of a file by the name it has there.

    Returns:
        ``RAS`` or ``LPS``.

    Raises:
        ValueError: for another one, such as voxels.
    """
    if str(name) not in SPACES:
        raise ValueError(f"its coordinate system is {name!r}, expected LPS or RAS")
    return SPACES[str(name)]


def swap_space(points: np.ndarray, space: str) -> np.ndarray:
    """Points of a file in RAS, or points in RAS as the file has them: ``LPS`` turns the signs of x and y.

    Args:
        points: ``(n, 3)``, mm.
        space: of the file, ``LPS`` or ``RAS``.

    Returns:
        ``(n, 3)``, mm.
    """
    return points * np.diag(RAS_TO_LPS)[:3] if space == "LPS" else points
