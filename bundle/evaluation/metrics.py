"""Accuracy of a registration on the fixed image's native grid (Baum et al. 2022, section 3.4)."""

from __future__ import annotations

import csv
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.utils import affine_to_spacing
from monai.metrics import compute_dice, compute_hausdorff_distance
from monai.transforms import Transform

from bundle.data import Timed
from bundle.geometry import centroids, fixed_to_moving, folded_voxels, log_jacobian_sd

WHEN = ("before", "after")


def target_registration_error(warped: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Distance of corresponding points: ``TRE_i = |warped_i - fixed_i|``.

    Args:
        warped: ``(n, 3)``, mm.
        fixed: ``(n, 3)``, mm, the same space.

    Returns:
        ``(n,)`` in mm; NaN where a point is missing.
    """
    return np.linalg.norm(warped - fixed, axis=1)


def root_mean_square(errors: Sequence[float] | np.ndarray) -> float:
    """``sqrt(mean(e^2))`` over the finite errors; NaN when there is none."""
    values = np.asarray(errors, dtype=float)
    values = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(values**2))) if values.size else float("nan")


def read_landmarks(path: str | Path, affine: np.ndarray) -> np.ndarray:
    """Read points from a CSV, one per row.

    The header says what the numbers are: ``x,y,z`` mm in the image's RAS world, ``i,j,k`` voxels of the image.
    A file without a header holds voxels, as the keypoints of Learn2Reg do.

    Args:
        path: the file.
        affine: ``(4, 4)`` voxel-to-world of the image.

    Returns:
        ``(n, 3)``, mm, RAS.

    Raises:
        ValueError: when the file is not such a table.
    """
    with Path(path).open(newline="") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    header = rows[0][:3] if rows else []
    voxels = header != ["x", "y", "z"]
    if header in (["x", "y", "z"], ["i", "j", "k"]):
        rows = rows[1:]
    try:
        points = np.array([[float(cell) for cell in row[:3]] for row in rows])
        if points.shape[1:] != (3,):
            raise ValueError(f"found an array of shape {points.shape}")
    except ValueError as error:
        raise ValueError(
            f"{path}: expected three numbers per row below the header x,y,z (mm, RAS) or i,j,k (voxels)"
        ) from error
    return points @ affine[:3, :3].T + affine[:3, 3] if voxels else points


def structure_channels(label: torch.Tensor, values: Sequence[int]) -> torch.Tensor:
    """Binary channels of named structures: ``(len(values), *shape)`` from an integer map or from channels.

    Args:
        label: ``(1, *shape)`` integer map, or ``(channels, *shape)``.
        values: label values of a map, channel numbers (from 0) otherwise.
    """
    if label.shape[0] == 1:
        return torch.cat([label == value for value in values]).float()
    return (label[list(values)] > 0).float()


def hausdorff_95(label: torch.Tensor, target: torch.Tensor, spacing: Sequence[float]) -> torch.Tensor:
    """95 % Hausdorff distance of every structure.

    ``HD95 = max(P95_a min_b |a - b|, P95_b min_a |a - b|)`` over the surface voxels ``a`` and ``b`` of the two.

    Args:
        label: ``(structures, *shape)``, binary.
        target: the same shape, binary.
        spacing: of the voxels, mm per axis.

    Returns:
        ``(structures,)`` in mm; NaN where a structure is missing in either.
    """
    # MONAI warns of an empty mask and calls its distance NaN or infinite, so it sees none.
    present = label.flatten(1).any(1) & target.flatten(1).any(1)
    distances = torch.full((len(label),), torch.nan)
    distances[present] = compute_hausdorff_distance(
        label[present][None], target[present][None], include_background=True, percentile=95, spacing=list(spacing)
    )[0]
    return distances


class PairMetricsd(Transform):
    """Metrics of one registered pair under ``metrics``, ready for JSON.

    Labels that are integer maps give a DSC and a 95 % Hausdorff distance per value. Labels with a channel per structure
    give both for ``structure_channels`` and a TRE between the centroids of ``landmark_channels``; landmark files give
    a TRE per point, measured in the moving image's world, where the pull-back field takes a fixed point.

    Args:
        structure_channels: channels scored by DSC and Hausdorff distance; None scores all.
        landmark_channels: channels scored by TRE; None scores all but the first.
        device: named in the metrics.
        steps: adaptation steps, named in the metrics.
    """

    def __init__(
        self,
        structure_channels: Sequence[int] | None,
        landmark_channels: Sequence[int] | None,
        device: torch.device | str,
        steps: int,
    ) -> None:
        self.structure_channels = structure_channels
        self.landmark_channels = landmark_channels
        self.device = str(device)
        self.steps = steps

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Score one pair after ``bundle.registration.NativeOutputsd``."""
        ddf = torch.as_tensor(data["pred"]["ddf"]).cpu()
        losses = [float(loss) for loss in data["pred"]["losses"] if torch.isfinite(loss)]
        folded = folded_voxels(ddf)
        metrics: dict[str, Any] = {
            "pair_id": data["pair_id"],
            "steps": self.steps,
            "device": self.device,
            "initial_alignment_mm": np.asarray(data["initial_alignment"]).tolist(),
            "loss": losses,
            "folded_voxels": folded,
            "folded_percent": 100 * folded / ddf[0].numel(),
            "log_jacobian_sd": log_jacobian_sd(ddf),
            "seconds": {
                **{
                    name.removeprefix(Timed.PREFIX): float(data[name])
                    for name in map(str, data)
                    if name.startswith(Timed.PREFIX)
                },
                "registration": float(data["pred"]["seconds"]),
            },
            "seconds_per_step": float(data["pred"]["step_seconds"]),
        }
        if "warped_label" in data and "native_fixed_label" in data:
            metrics |= self._label_metrics(data)
        if "fixed_landmarks" in data and "moving_landmarks" in data:
            metrics["landmarks"] = self._landmark_metrics(data)
        errors = [entry for key in ("tre_mm", "landmarks") for entry in metrics.get(key, {}).values()]
        if errors:
            # A landmark that registration moves out of the image must not improve the mean by its absence.
            kept = [entry for entry in errors if np.isfinite([entry["before"], entry["after"]]).all()]
            metrics["tre_rms_mm"] = {when: root_mean_square([entry[when] for entry in kept]) for when in WHEN}
        return {**data, "metrics": without_nan(metrics)}

    def _label_metrics(self, data: Mapping[Hashable, Any]) -> dict[str, Any]:
        fixed, warped, aligned = (
            data[key].as_tensor().cpu() for key in ("native_fixed_label", "warped_label", "aligned_label")
        )
        if fixed.shape[0] == 1:
            structures = [int(value) for value in np.unique(fixed.numpy()) if value != 0]
            landmarks: list[int] = []
        else:
            shared = range(min(fixed.shape[0], warped.shape[0]))
            structures = [k for k in shared if self.structure_channels is None or k in self.structure_channels]
            chosen = range(1, len(shared)) if self.landmark_channels is None else self.landmark_channels
            landmarks = [k for k in shared if k in chosen]
        metrics: dict[str, Any] = {"dsc": {}, "hd95_mm": {}}
        affine = np.asarray(data["native_fixed_image"].affine)
        if structures:
            target, spacing = structure_channels(fixed, structures), affine_to_spacing(affine)
            for when, label in zip(WHEN, (aligned, warped), strict=True):
                channels = structure_channels(label, structures)
                scores = compute_dice(channels[None], target[None])[0]
                distances = hausdorff_95(channels, target, spacing)
                for value, score, distance in zip(structures, scores.tolist(), distances.tolist(), strict=True):
                    metrics["dsc"].setdefault(str(value), {})[when] = score
                    metrics["hd95_mm"].setdefault(str(value), {})[when] = distance
        if landmarks:
            target_points = centroids(structure_channels(fixed, landmarks), affine)
            metrics["tre_mm"] = {str(value): {} for value in landmarks}
            for when, name in zip(WHEN, ("aligned", "warped"), strict=True):
                # A landmark of a few voxels hardly moves under nearest-neighbour interpolation; linear weights do.
                channels = data[f"{name}_label_weights"].as_tensor().cpu()[landmarks]
                errors = target_registration_error(centroids(channels, affine), target_points)
                for value, error in zip(landmarks, errors.tolist(), strict=True):
                    metrics["tre_mm"][str(value)][when] = error
        return metrics

    def _landmark_metrics(self, data: Mapping[Hashable, Any]) -> dict[str, Any]:
        fixed, moving = (
            read_landmarks(data[f"{side}_landmarks"], np.asarray(data[f"native_{side}_image"].affine))
            for side in ("fixed", "moving")
        )
        if fixed.shape != moving.shape:
            raise ValueError(
                f"pair {data['pair_id']}: {len(fixed)} fixed and {len(moving)} moving landmarks; rows must correspond"
            )
        alignment = np.asarray(data["initial_alignment"])
        start = fixed @ alignment[:3, :3].T + alignment[:3, 3]
        mapped = fixed_to_moving(fixed, data["displacement"].as_tensor(), np.asarray(data["native_fixed_image"].affine))
        before, after = target_registration_error(start, moving), target_registration_error(mapped, moving)
        return {
            str(i): {"before": float(b), "after": float(a)} for i, (b, a) in enumerate(zip(before, after, strict=True))
        }


def without_nan(value: Any) -> Any:
    """Copy of nested metrics with null in place of NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
