"""The transform of a registered pair as an affine and a displacement, and its inverse."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform as MonaiTransform

from bundle.geometry import (
    Displacement,
    Transform,
    aligned_transform,
    apply_affine,
    ddf_to_displacement,
    lift_ddf,
    voxel_grid,
)

AFFINE_TOLERANCE = 0.002
"""How far (voxels) a DDF may be from an affine one to count as affine; a GlobalNet's is within a thousandth."""


def pair_transform(data: Mapping[Hashable, Any]) -> Transform:
    """Transform of a pair, ``T(p) = M (p + u(p))`` with ``M`` the initial alignment; one affine if the DDF is affine.

    Args:
        data: a pair after ``bundle.results.NativeOutputsd``.

    Returns:
        From the fixed image's world to the moving image's, mm, RAS.
    """
    alignment = np.asarray(data["initial_alignment"], dtype=float)
    ddf = lift_ddf(torch.as_tensor(data["pred"]["ddf"]).cpu())
    in_voxels = Displacement(ddf, np.eye(4)).affine_part()
    voxels = voxel_grid(ddf.shape[1:])
    if (apply_affine(in_voxels, voxels) - voxels - ddf).abs().max() < AFFINE_TOLERANCE:
        network = np.asarray(data["fixed_image"].affine, dtype=float)
        return Transform([alignment @ network @ in_voxels @ np.linalg.inv(network)])
    displacement, affine = data["displacement"].as_tensor(), np.asarray(data["displacement"].affine, dtype=float)
    return aligned_transform(displacement, affine, alignment)


def inverse_transform(transform: Transform, data: Mapping[Hashable, Any]) -> Transform:
    """Inverse of the transform of a pair on the moving image's grid, ``T^-1(q) = M^-1 (q + e(q))``.

    For a stationary velocity field the iteration of :meth:`bundle.geometry.Transform.inverse_at` starts from its exact
    inverse, ``exp(-v)``.

    Args:
        transform: ``pair_transform(data)``.
        data: a pair after ``bundle.results.NativeOutputsd``; with ``pred["inverse_ddf"]`` for a velocity field.

    Returns:
        From the moving image's world to the fixed image's, mm, RAS.
    """
    if transform.is_affine:
        return Transform([np.linalg.inv(transform.affine_part())])
    alignment = np.asarray(data["initial_alignment"], dtype=float)
    moving = data["native_moving_image"]
    affine, shape = np.asarray(moving.affine, dtype=float), moving.shape[1:]
    points = apply_affine(affine, voxel_grid(shape))
    start = None
    if "inverse_ddf" in data["pred"]:
        ddf = lift_ddf(torch.as_tensor(data["pred"]["inverse_ddf"]).cpu())
        network = alignment @ np.asarray(data["fixed_image"].affine, dtype=float)
        start = points + ddf_to_displacement(ddf, network, affine, shape, np.linalg.inv(alignment))
    found = apply_affine(alignment, transform.inverse_at(points, start))
    return Transform([Displacement(found - points, affine), np.linalg.inv(alignment)])


def residual(transform: Transform, inverse: Transform, affine: np.ndarray, shape: tuple[int, ...]) -> dict[str, float]:
    """Error of the inverse, ``|T^-1(T(p)) - p|`` over the voxels ``p`` of a grid that ``T`` keeps inside.

    Args:
        transform: ``T``.
        inverse: ``T^-1``.
        affine: ``(4, 4)`` voxel-to-world of the grid.
        shape: its spatial shape.

    Returns:
        ``mean``, ``p95`` (95th percentile) and ``max`` in mm; NaN when no voxel stays inside.
    """
    points = apply_affine(affine, voxel_grid(shape)).flatten(1)
    moved = transform(points)
    inside = inverse.covers(moved)
    distances = (inverse(moved[:, inside]) - points[:, inside]).norm(dim=0).numpy()
    if not len(distances):
        return dict.fromkeys(("mean", "p95", "max"), float("nan"))
    return {
        "mean": float(distances.mean()),
        "p95": float(np.percentile(distances, 95)),
        "max": float(distances.max()),
    }


class TransformsBothWaysd(MonaiTransform):
    """Adds ``transform``, ``inverse_transform``, ``inverse_displacement`` and ``inverse_residual_mm`` to a pair.

    The displacement is ``(3, *moving_shape)`` in mm (RAS): the moving point ``q`` comes from the fixed point ``q + e``.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Invert one pair after ``bundle.results.NativeOutputsd``."""
        transform = pair_transform(data)
        inverse = inverse_transform(transform, data)
        fixed, moving = data["native_fixed_image"], data["native_moving_image"]
        back = inverse.displacement_on(np.asarray(moving.affine, dtype=float), moving.shape[1:])
        return {
            **data,
            "transform": transform,
            "inverse_transform": inverse,
            "inverse_displacement": MetaTensor(back, affine=moving.affine),
            "inverse_residual_mm": residual(
                transform, inverse, np.asarray(fixed.affine, dtype=float), tuple(fixed.shape[1:])
            ),
        }
