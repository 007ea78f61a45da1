"""Corresponding points of a pair: where they come from, and how far apart they are after registration."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bundle.data import SIDES
from bundle.evaluation.measures import WHEN
from bundle.evaluation.overlap import structure_channels
from bundle.formats import pair_points
from bundle.geometry import Displacement, apply_affine, centroids, fixed_to_moving, inside_grid, transform_points


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Corresponding points of a pair.

    Attributes:
        names: names of the ``n`` points.
        fixed: ``(n, 3)``, mm, RAS, in the fixed image's world; NaN where a point is missing.
        moving: ``(n, 3)``, mm, RAS, in the moving image's world; NaN where a point is missing.
    """

    names: Sequence[str]
    fixed: np.ndarray
    moving: np.ndarray


def target_registration_error(reached: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Distance of corresponding points: ``TRE_i = |reached_i - target_i|``.

    Args:
        reached: ``(n, 3)``, mm.
        target: ``(n, 3)``, mm, the same space.

    Returns:
        ``(n,)`` in mm; NaN where a point is missing.
    """
    return np.linalg.norm(reached - target, axis=1)


def file_landmarks(data: Mapping[Hashable, Any]) -> Landmarks:
    """The points of a pair's files.

    Args:
        data: a pair with ``landmarks``, or ``fixed_landmarks`` and ``moving_landmarks``, and its native images.

    Raises:
        ValueError: when they cannot be read, or do not correspond.
    """
    grids = {side: (data[f"native_{side}_image"].shape[1:], native_affine(data, side)) for side in SIDES}
    return Landmarks(*pair_points(data, grids))


def label_landmarks(data: Mapping[Hashable, Any], structures: Sequence[int]) -> Landmarks:
    """Centroids of structures in the native labels, each in its own image's world.

    Args:
        data: a pair with ``native_fixed_label`` and ``native_moving_label``.
        structures: values of an integer map, or channels.
    """
    fixed, moving = (
        centroids(
            structure_channels(data[f"native_{side}_label"].as_tensor().cpu(), structures), native_affine(data, side)
        )
        for side in SIDES
    )
    return Landmarks([str(structure) for structure in structures], fixed, moving)


def native_affine(data: Mapping[Hashable, Any], side: str) -> np.ndarray:
    """Voxel-to-world ``(4, 4)`` of an image as read from file."""
    return np.asarray(data[f"native_{side}_image"].affine)


def reached_points(data: Mapping[Hashable, Any], fixed: np.ndarray) -> dict[str, np.ndarray]:
    """Where fixed points come from in the moving image: ``M p`` before registration, ``T(p) = M (p + u(p))`` after it.

    Args:
        data: a pair after ``bundle.results.NativeOutputsd``.
        fixed: ``p``, ``(n, 3)``, mm, RAS.

    Returns:
        ``before`` and ``after``: ``(n, 3)``, mm, RAS, in the moving image's world.
    """
    displacement, alignment = data["displacement"].as_tensor(), np.asarray(data["initial_alignment"], dtype=float)
    points = (
        transform_points(alignment, fixed),
        fixed_to_moving(fixed, displacement, native_affine(data, "fixed"), alignment),
    )
    return dict(zip(WHEN, points, strict=True))


def point_errors(points: Landmarks, reached: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """``TRE_i = |T(c_fixed,i) - c_moving,i|`` in the moving image's world.

    Only points matter, not where they come from: a landmark whose voxels vanish in the warped label still has an error.

    Args:
        points: points of a pair.
        reached: ``reached_points`` of the fixed points.

    Returns:
        Name -> ``before`` and ``after``, mm; both are NaN if the point is missing in either image.
    """
    errors = {when: target_registration_error(there, points.moving) for when, there in reached.items()}
    return {name: {when: float(error[i]) for when, error in errors.items()} for i, name in enumerate(points.names)}


def doubtful_points(data: Mapping[Hashable, Any], points: Landmarks, reached: np.ndarray) -> dict[str, str]:
    """Points that are missing in one image or lie outside one, each with the reason.

    A landmark in neither image is ignored.

    Args:
        data: a pair after ``bundle.results.NativeOutputsd``.
        points: points of the pair.
        reached: where its fixed points come from after registration, ``(n, 3)``, mm, RAS.

    Returns:
        Name -> what is wrong.
    """
    there = {side: np.isfinite(getattr(points, side)).all(1) for side in SIDES}
    displacement = Displacement(data["displacement"].as_tensor().cpu(), native_affine(data, "fixed"))
    voxels = apply_affine(np.linalg.inv(native_affine(data, "moving")), torch.as_tensor(reached.T))
    matters = {
        "missing in the fixed label": ~there["fixed"] & there["moving"],
        "missing in the moving label": there["fixed"] & ~there["moving"],
        "outside the fixed image": there["fixed"] & ~displacement.covers(torch.as_tensor(points.fixed.T)).numpy(),
        "lands outside the moving image": there["fixed"]
        & ~inside_grid(voxels, data["native_moving_image"].shape[1:]).numpy(),
    }
    found = {name: [what for what, which in matters.items() if which[i]] for i, name in enumerate(points.names)}
    return {name: ", ".join(reasons) for name, reasons in found.items() if reasons}
