"""Corresponding points of a pair of images, from CSV files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from bundle.evaluation.metrics import read_landmarks as read_points


def read_landmarks(path: str | Path, affine: np.ndarray, side: str | None = None) -> np.ndarray:
    """Read points from a CSV, one per row.

    Args:
        path: the file.
        affine: ``(4, 4)`` voxel-to-world of the image.
        side: ``fixed`` or ``moving`` of a file with the columns ``<side>_row`` and ``<side>_col``, pixels of planar
            images; None for the points of one image.

    Returns:
        ``(n, 3)``, mm, RAS.
    """
    if side is None:
        return read_points(path, affine)
    with Path(path).open(newline="") as file:
        pixels = np.array([[float(row[f"{side}_col"]), float(row[f"{side}_row"]), 0] for row in csv.DictReader(file)])
    return pixels @ affine[:3, :3].T + affine[:3, 3]
