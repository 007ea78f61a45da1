"""Measures of a pair that are distances between corresponding points."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from bundle.data import SIDES
from bundle.evaluation.landmarks import (
    Landmarks,
    doubtful_points,
    file_landmarks,
    label_landmarks,
    native_affine,
    point_errors,
    reached_points,
    target_registration_error,
)
from bundle.evaluation.measures import WHEN, root_mean_square
from bundle.evaluation.overlap import structure_channels
from bundle.formats import has_landmarks
from bundle.geometry import centroids, moving_to_fixed, transform_points

Errors = dict[str, dict[str, float]]
"""Name -> ``before`` and ``after``, mm."""


def root_mean_squares(errors: Errors) -> dict[str, float]:
    """``root_mean_square`` before and after, over the points that have both."""
    kept = [entry for entry in errors.values() if np.isfinite(list(entry.values())).all()]
    return {when: root_mean_square([entry[when] for entry in kept]) for when in WHEN}


def landmark_metrics(
    data: Mapping[Hashable, Any], channels: Sequence[int], point_grid: Sequence[int] | None
) -> dict[str, Any]:
    """Distances of the landmarks of a pair, before and after registration.

    The pull-back field takes a fixed point ``p`` to the moving image, where it is compared with its moving point ``q``:
    ``|T(p) - q|``. Points come from files, and from centroids of channels of the labels.

    Args:
        data: a pair after ``bundle.results.NativeOutputsd``.
        channels: channels of its labels that are landmarks.
        point_grid: ``(columns, rows)`` of a grid over each whole image; distances of the points of files are then also
            given in its pixels. None leaves out all distances in pixels.

    Returns:
        ``tre_mm``: the distance of every landmark. ``tre_rms_mm``: over the landmarks that both images have, the same
        before and after. ``warped_centroid_mm`` and ``warped_centroid_rms_mm``: ``warped_centroid_errors`` of the
        channels. ``lost_landmarks``: name -> reason. With a ``point_grid``, the distances of ``pixel_distances``.
        Entries for which the pair has no points are left out.

    Raises:
        ValueError: when the points of files do not correspond.
    """
    sources = [label_landmarks(data, channels)] if channels else []
    files = [file_landmarks(data)] if has_landmarks(data) else []
    if not sources + files:
        return {}
    errors: Errors = {}
    lost: dict[str, str] = {}
    pixels: dict[str, dict[str, float]] = {}
    for points in sources + files:
        reached = reached_points(data, points.fixed)
        errors |= point_errors(points, reached)
        lost |= doubtful_points(data, points, reached["after"])
        if point_grid is not None and points in files:
            pixels = pixel_distances(data, points, reached, point_grid)
    found: dict[str, Any] = {"tre_mm": errors, "tre_rms_mm": root_mean_squares(errors)}
    if channels:
        warped = warped_centroid_errors(data, channels)
        found |= {"warped_centroid_mm": warped, "warped_centroid_rms_mm": root_mean_squares(warped)}
        lost |= _vanished(errors, warped, lost)
    return found | {"lost_landmarks": lost} | pixels


def warped_centroid_errors(data: Mapping[Hashable, Any], channels: Sequence[int]) -> Errors:
    """Distance of the centroid of the *warped* label from that of the fixed label, as Baum et al. 2022, section 3.4.

    It is measured in the fixed image. For a field that shrinks the warped label by a factor ``s``,
    ``T(p) = q0 + s (p - p0)``, it is ``1 / s`` of the distance between the points (``point_errors``), however large.

    Args:
        data: a pair after ``bundle.results.NativeOutputsd``, with labels that have a channel per structure.
        channels: channels that are landmarks.

    Returns:
        Channel -> mm; NaN if it has no voxels.
    """
    affine = native_affine(data, "fixed")
    target = centroids(structure_channels(data["native_fixed_label"].as_tensor().cpu(), channels), affine)
    errors: Errors = {str(channel): {} for channel in channels}
    for when, name in zip(WHEN, ("aligned", "warped"), strict=True):
        # A landmark of a few voxels hardly moves under nearest-neighbour interpolation; linear weights do.
        weights = data[f"{name}_label_weights"].as_tensor().cpu()[list(channels)]
        for channel, error in zip(
            channels, target_registration_error(centroids(weights, affine), target).tolist(), strict=True
        ):
            errors[str(channel)][when] = error
    return errors


def _vanished(errors: Errors, warped: Errors, lost: Mapping[str, str]) -> dict[str, str]:
    """Landmarks that both images have but a warped label lacks, with what was wrong with them before."""
    found = {}
    for name, entry in warped.items():
        gone = [when for when in WHEN if np.isnan(entry[when]) and not np.isnan(errors[name][when])]
        if gone:
            what = f"vanishes in the warped label {' and '.join(gone)} registration"
            found[name] = f"{lost[name]}, {what}" if name in lost else what
    return found


def pixel_distances(
    data: Mapping[Hashable, Any], points: Landmarks, reached: Mapping[str, np.ndarray], point_grid: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Mean distances of the points of slices, in pixels.

    Park et al. 2021, section 3, take the moving points into the fixed image, where the warped image shows them, and
    compare them with the fixed points: ``|phi^-1(q) - p|``, the opposite direction of ``point_errors``.

    Args:
        data: a pair after ``bundle.results.NativeOutputsd``.
        points: points of the pair.
        reached: ``reached_points`` of the fixed points.
        point_grid: ``(columns, rows)`` of a grid over each whole image.

    Returns:
        ``distance_px`` (pixels of the moving image), ``distance_grid_px`` (pixels of ``point_grid``), both in the
        moving image, and ``distance_fixed_grid_px`` in the fixed image; each ``before`` and ``after``.
    """
    affines = {side: native_affine(data, side) for side in SIDES}
    alignment = np.asarray(data["initial_alignment"], dtype=float)
    back = (
        transform_points(np.linalg.inv(alignment), points.moving),
        moving_to_fixed(points.moving, data["displacement"].as_tensor(), affines["fixed"], alignment),
    )
    scale = {side: np.divide(point_grid, data[f"native_{side}_image"].shape[1:3]) for side in SIDES}
    return {
        "distance_px": _mean_pixels(reached, points.moving, affines["moving"], np.ones(2)),
        "distance_grid_px": _mean_pixels(reached, points.moving, affines["moving"], scale["moving"]),
        "distance_fixed_grid_px": _mean_pixels(
            dict(zip(WHEN, back, strict=True)), points.fixed, affines["fixed"], scale["fixed"]
        ),
    }


def _mean_pixels(
    reached: Mapping[str, np.ndarray], target: np.ndarray, affine: np.ndarray, scale: np.ndarray
) -> dict[str, float]:
    """Mean in-plane distance of points ``(n, 3)``, mm, from their targets, in pixels times ``scale``."""
    pixels = np.linalg.inv(affine[:3, :3])[:2] * scale[:, None]
    return {
        when: float(target_registration_error(points @ pixels.T, target @ pixels.T).mean())
        for when, points in reached.items()
    }
