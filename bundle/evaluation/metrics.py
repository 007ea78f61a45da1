"""Accuracy of a registration on the fixed image's native grid (Baum et al. 2022, section 3.4)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.utils import affine_to_spacing
from monai.metrics import compute_dice, compute_hausdorff_distance
from monai.transforms import Transform

from bundle.data import Timed, side_tensor
from bundle.evaluation.landmarks import has_landmarks, landmark_metrics, target_registration_error
from bundle.geometry import centroids, folded_voxels, lift_ddf, log_jacobian_sd, sample, voxel_grid
from bundle.registration import INITIAL_ALIGNMENT, STOPPED

WHEN = ("before", "after")


def root_mean_square(errors: Sequence[float] | np.ndarray) -> float:
    """``sqrt(mean(e^2))`` over the finite errors; NaN when there is none."""
    values = np.asarray(errors, dtype=float)
    values = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(values**2))) if values.size else float("nan")


def normalised_cross_correlation(image: torch.Tensor, other: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """``NCC = sum (a - mean a)(b - mean b) / (|a - mean a| |b - mean b|)`` of two images of one shape.

    Args:
        image: any shape.
        other: the same shape.
        mask: weights in [0, 1] of that shape; voxels of more than 0.5 count. None: all.

    Returns:
        -1 to 1; NaN for a constant image, and where fewer than two voxels count.
    """
    inside = torch.ones_like(image, dtype=torch.bool) if mask is None else mask > 0.5
    if inside.sum() < 2:
        return float("nan")
    return float(torch.corrcoef(torch.stack([image[inside], other[inside]]))[0, 1])


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
    a TRE per point, measured in the moving image's world, where the pull-back field takes a fixed point. The NCC is of
    the preprocessed images, as the network saw them, within their masks; the similarity is that term of the loss, so
    lower is better.

    Args:
        structure_channels: channels scored by DSC and Hausdorff distance; None scores all.
        landmark_channels: channels scored by TRE; None scores all but the first.
        device: named in the metrics.
        steps: adaptation steps, named in the metrics.
        point_grid: ``(columns, rows)`` of the grid in whose pixels distances of landmarks are given as well, such as
            ``(400, 400)`` (Park et al. 2021); None gives them in mm alone.
    """

    def __init__(
        self,
        structure_channels: Sequence[int] | None,
        landmark_channels: Sequence[int] | None,
        device: torch.device | str,
        steps: int,
        point_grid: Sequence[int] | None = None,
    ) -> None:
        self.structure_channels = structure_channels
        self.landmark_channels = landmark_channels
        self.device = str(device)
        self.steps = steps
        self.point_grid = point_grid

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
            "ncc": self._correlation(data, lift_ddf(ddf)),
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
        if "best_step" in data["pred"]:
            metrics["adaptation"] = adaptation_metrics(data["pred"], len(losses), self.steps)
        if "inverse_residual_mm" in data:
            metrics["inverse_residual_mm"] = data["inverse_residual_mm"]
        if "similarity" in data["pred"]:
            metrics["similarity"] = dict(zip(WHEN, map(float, data["pred"]["similarity"]), strict=True))
        if "warped_label" in data and "native_fixed_label" in data:
            metrics |= self._label_metrics(data)
        if has_landmarks(data):
            metrics |= landmark_metrics(data, self.point_grid)
        errors = [entry for key in ("tre_mm", "landmarks") for entry in metrics.get(key, {}).values()]
        if errors:
            # A landmark that registration moves out of the image must not improve the mean by its absence.
            kept = [entry for entry in errors if np.isfinite([entry["before"], entry["after"]]).all()]
            metrics["tre_rms_mm"] = {when: root_mean_square([entry[when] for entry in kept]) for when in WHEN}
        return {**data, "metrics": without_nan(metrics)}

    @staticmethod
    def _correlation(data: Mapping[Hashable, Any], ddf: torch.Tensor) -> dict[str, float]:
        """NCC of the preprocessed images, as the network saw them, where the masks overlap."""
        fixed, moving = (
            torch.cat([side_tensor(data, side, kind).cpu() for kind in ("image", "mask")])
            for side in ("fixed", "moving")
        )
        warped = sample(moving, voxel_grid(fixed.shape[1:]) + ddf, padding_mode="border")
        both = zip(WHEN, (moving, warped), strict=True)
        return {when: normalised_cross_correlation(side[0], fixed[0], side[1] * fixed[1]) for when, side in both}

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


def adaptation_metrics(pred: Mapping[str, Any], losses: int, steps: int) -> dict[str, Any]:
    """What came of the steps of a pair.

    Args:
        pred: outputs of ``bundle.registration.AdaptationInferer`` for a pair.
        losses: how many of its losses are finite.
        steps: gradient steps that were asked for.

    Returns:
        ``best_state``, whose field is the result (``initial alignment``, ``start`` or ``step k``), and its
        ``best_loss``; ``loss_identity``, that of the initial alignment; ``lost_steps``, how many led to a loss that is
        not finite or were not taken after it or a gradient that is not; where there are any, ``stopped`` says which
        and when.
    """
    step, identity = int(pred["best_step"]), float(pred["loss_identity"])
    result: dict[str, Any] = {
        "best_state": {INITIAL_ALIGNMENT: "initial alignment", 0: "start"}.get(step, f"step {step}"),
        "best_loss": identity if step == INITIAL_ALIGNMENT else float(pred["losses"][step]),
        "loss_identity": identity,
        "lost_steps": 0,
    }
    stopped = STOPPED[int(pred["stopped"])]
    if stopped:
        # A loss that is not finite is of the state behind the last finite one; a gradient belongs to that one itself.
        when = losses - (stopped == "gradient")
        result |= {"lost_steps": steps - losses + 1, "stopped": f"{stopped} not finite after {when} steps"}
    return result


def without_nan(value: Any) -> Any:
    """Copy of nested metrics with null in place of NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
