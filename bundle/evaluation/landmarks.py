"""Corresponding points of a pair: their files, and how far apart registration leaves them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundle.data import POINT_SUFFIXES, read_points
from bundle.geometry import fixed_to_moving, moving_to_fixed, transform_points


def read_landmarks(path: str | Path, affine: np.ndarray, side: str | None = None, planar: bool = False) -> np.ndarray:
    """Read points that correspond, one by one, to those of another image.

    Args:
        path: a file of ``bundle.data.POINT_SUFFIXES``, as :func:`bundle.data.read_points` reads it.
        affine: ``(4, 4)`` voxel-to-world of the image.
        side: ``fixed`` or ``moving`` in a CSV for both images of a pair; None in a file for one image.
        planar: whether the image is a single slice.

    Returns:
        ``(n, 3)``, mm, RAS.

    Raises:
        ValueError: when the file cannot be read, or a point has no position, so that the others would not correspond.
    """
    if not str(path).lower().endswith(POINT_SUFFIXES):
        raise ValueError(f"{path}: not a file of landmarks, expected {', '.join(POINT_SUFFIXES)}")
    file = read_points(path, affine, side, planar)
    if file.unplaced:
        raise ValueError(
            f"{path}: {file.unplaced} control points have no position; place them, or delete them and the points that "
            "correspond to them"
        )
    return file.points


def target_registration_error(warped: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Distance of corresponding points: ``TRE_i = |warped_i - fixed_i|``.

    Args:
        warped: ``(n, 3)``, mm.
        fixed: ``(n, 3)``, mm, the same space.

    Returns:
        ``(n,)`` in mm; NaN where a point is missing.
    """
    return np.linalg.norm(warped - fixed, axis=1)


def has_landmarks(data: Mapping[Hashable, Any]) -> bool:
    """Whether a pair has corresponding points, in one file or in one for each image."""
    return "landmarks" in data or ("fixed_landmarks" in data and "moving_landmarks" in data)


def landmark_metrics(data: Mapping[Hashable, Any], point_grid: Sequence[int] | None) -> dict[str, Any]:
    """Distances of the corresponding points of a pair, before registration and after it.

    A fixed point ``p`` is taken to the moving image by the pull-back field and compared there with its moving point
    ``q``: ``|p + d(p) - q|``. Park et al. 2021, section 3, take the moving points into the fixed image, where the
    warped image shows them, and compare with the fixed points: the inverse, ``|phi^-1(q) - p|``.

    Args:
        data: a pair after ``bundle.registration.NativeOutputsd`` with ``landmarks``, or ``fixed_landmarks`` and
            ``moving_landmarks``.
        point_grid: ``(columns, rows)`` of a grid over each whole image in whose pixels distances are given as well;
            None leaves out all distances in pixels.

    Returns:
        ``landmarks``: for every point its distance in mm. With a ``point_grid``, means over the points:
        ``distance_px`` (pixels of the moving image), ``distance_grid_px`` (pixels of ``point_grid``), both in the
        moving image, and ``distance_fixed_grid_px`` in the fixed image.

    Raises:
        ValueError: when the points do not correspond row by row.
    """
    images = {side: data[f"native_{side}_image"] for side in ("fixed", "moving")}
    affines = {side: np.asarray(image.affine) for side, image in images.items()}
    both = "landmarks" in data
    fixed, moving = (
        read_landmarks(
            data["landmarks" if both else f"{side}_landmarks"],
            affines[side],
            side if both else None,
            planar=image.shape[3] == 1,
        )
        for side, image in images.items()
    )
    if fixed.shape != moving.shape:
        raise ValueError(
            f"pair {data['pair_id']}: {len(fixed)} fixed and {len(moving)} moving landmarks; rows must correspond"
        )
    alignment = np.asarray(data["initial_alignment"])
    displacement = data["displacement"].as_tensor()
    reached = {
        "before": transform_points(alignment, fixed),
        "after": fixed_to_moving(fixed, displacement, affines["fixed"]),
    }
    errors = {when: target_registration_error(points, moving) for when, points in reached.items()}
    found: dict[str, Any] = {
        "landmarks": {str(i): {when: float(error[i]) for when, error in errors.items()} for i in range(len(fixed))}
    }
    if point_grid is None:
        return found
    warped = {
        "before": transform_points(np.linalg.inv(alignment), moving),
        "after": moving_to_fixed(moving, displacement, affines["fixed"]),
    }
    scale = {side: np.divide(point_grid, image.shape[1:3]) for side, image in images.items()}
    return found | {
        "distance_px": _mean_pixels(reached, moving, affines["moving"], np.ones(2)),
        "distance_grid_px": _mean_pixels(reached, moving, affines["moving"], scale["moving"]),
        "distance_fixed_grid_px": _mean_pixels(warped, fixed, affines["fixed"], scale["fixed"]),
    }


def _mean_pixels(
    reached: Mapping[str, np.ndarray], target: np.ndarray, affine: np.ndarray, scale: np.ndarray
) -> dict[str, float]:
    """Mean distance of points ``(n, 3)``, mm, from their targets, in the plane, in pixels times ``scale``."""
    pixels = np.linalg.inv(affine[:3, :3])[:2] * scale[:, None]
    return {
        when: float(target_registration_error(points @ pixels.T, target @ pixels.T).mean())
        for when, points in reached.items()
    }
