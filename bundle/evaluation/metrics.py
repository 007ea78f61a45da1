"""Accuracy of a registration on the native grid of the fixed image (Baum et al. 2022, section 3.4)."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform

from bundle.data import SIDES, Timed, corresponding, side_tensor, values_of
from bundle.evaluation.anatomy import map_metrics
from bundle.evaluation.landmark_metrics import landmark_metrics
from bundle.evaluation.landmarks import label_landmarks, native_affine, point_errors, reached_points
from bundle.evaluation.measures import WHEN
from bundle.evaluation.overlap import missing_structures, overlap_metrics, told
from bundle.evaluation.scored import in_fixed_numbers, scored_channels
from bundle.geometry import (
    compose,
    folded_voxels,
    lift_ddf,
    log_jacobian_sd,
    native_ddf,
    sample,
    spacing_of,
    voxel_grid,
)
from bundle.registration import INITIAL_ALIGNMENT, STOPPED
from bundle.system import DataWarning


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
    values = torch.stack([image[inside], other[inside]])
    if values.shape[1] < 2 or (values.amin(1) == values.amax(1)).any():  # the mean of equal numbers may be rounded
        return float("nan")
    return float(torch.corrcoef(values)[0, 1])


class PairMetricsd(Transform):
    """Metrics of one registered pair under ``metrics``, ready for JSON.

    Labels that are integer maps give a DSC, a 95 % Hausdorff distance and a distance of centres per value. Labels with
    a channel per structure give them for ``structure_channels``, and a TRE per landmark (``scored_channels``); landmark
    files give a TRE per point. All distances of points are measured in the moving image's world, to which the pull-back
    field takes a fixed point. Folding is counted without the initial alignment, on the fixed image's own grid and
    (``network_...``) on the network's. The NCC compares the preprocessed images, as the network saw them, within their
    masks. The similarity is that term of the loss, so lower is better.

    Args:
        structure_channels: channels scored by overlap and centre; None scores all.
        landmark_channels: channels scored by TRE between patients, where only these correspond. Within one patient, and
            for None, all channels that are not structures.
        device: named in the metrics.
        steps: adaptation steps, named in the metrics.
        point_grid: ``(columns, rows)`` of a grid whose pixels are a second unit of landmark distances, such as
            ``(400, 400)`` (Park et al. 2021); None gives them in mm only.
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
        """Score one pair after ``bundle.results.NativeOutputsd``."""
        ddf = torch.as_tensor(data["pred"]["ddf"]).cpu()
        losses = [float(loss) for loss in data["pred"]["losses"] if torch.isfinite(loss)]
        alignment = np.asarray(data["initial_alignment"])
        native = native_ddf(data["displacement"].as_tensor().cpu(), native_affine(data, "fixed"), alignment)
        metrics: dict[str, Any] = {
            "pair_id": data["pair_id"],
            "steps": self.steps,
            "device": self.device,
            "initial_alignment_mm": alignment.tolist(),
            "loss": losses,
            "adaptation": adaptation_metrics(data["pred"], len(losses), self.steps),
            **folding_metrics(native),
            **{f"network_{key}": value for key, value in folding_metrics(ddf).items()},
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
        if "inverse_residual_mm" in data:
            metrics["inverse_residual_mm"] = data["inverse_residual_mm"]
        if "similarity" in data["pred"]:
            metrics["similarity"] = dict(zip(WHEN, map(float, data["pred"]["similarity"]), strict=True))
        if "disagreement" in data["pred"]:
            metrics["search_disagreement_mm"] = float(data["pred"]["disagreement"])
        metrics |= map_metrics(data, lift_ddf(ddf)) | consistency_metrics(
            data["pred"], np.asarray(data["fixed_image"].affine)
        )
        channels: list[int] = []
        scored = in_fixed_numbers(data)
        if "warped_label" in data and "native_fixed_label" in data:
            overlap, channels = self._label_metrics(scored)
            metrics |= overlap
        metrics |= landmark_metrics(scored, channels, self.point_grid)
        return {**data, "metrics": without_nan(metrics)}

    @staticmethod
    def _correlation(data: Mapping[Hashable, Any], ddf: torch.Tensor) -> dict[str, float]:
        """NCC of the preprocessed images, as the network saw them, within the overlap of the masks."""
        fixed, moving = (
            torch.cat([side_tensor(data, side, kind).cpu() for kind in ("image", "mask")]) for side in SIDES
        )
        warped = sample(moving, voxel_grid(fixed.shape[1:]) + ddf, padding_mode="border")
        both = zip(WHEN, (moving, warped), strict=True)
        return {when: normalised_cross_correlation(side[0], fixed[0], side[1] * fixed[1]) for when, side in both}

    def _label_metrics(self, data: Mapping[Hashable, Any]) -> tuple[dict[str, Any], list[int]]:
        """Overlap and centres of the structures, and which channels are landmarks."""
        fixed, moving, aligned, warped = (
            data[key].as_tensor().cpu()
            for key in ("native_fixed_label", "native_moving_label", "aligned_label", "warped_label")
        )
        landmarks: list[int] = []
        if len(fixed) == 1:
            values = values_of(fixed)
            structures = [number for _, number, _ in corresponding(data, values) if number in values]
            missing = missing_structures(fixed, moving, sorted({*structures, *values_of(moving)}))
        else:
            count = min(len(fixed), len(warped))
            structures, landmarks = scored_channels(data, count, self.structure_channels, self.landmark_channels)
            missing = missing_structures(fixed, moving, structures)
        moved = dict(zip(WHEN, (aligned, warped), strict=True))
        metrics: dict[str, Any] = overlap_metrics(
            fixed, moved, structures, spacing_of(native_affine(data, "fixed")).tolist()
        )
        if missing:
            # A DSC of 0 would blame the registration.
            metrics["dsc"] |= {name: dict.fromkeys(WHEN, np.nan) for name in metrics["dsc"] if name in missing}
            metrics["missing_structures"] = missing
            warnings.warn(f"pair {data['pair_id']}: {told(missing, metrics['dsc'])}", DataWarning, stacklevel=3)
        metrics["centre_mm"] = {}
        if structures:
            centres = label_landmarks(data, structures)
            metrics["centre_mm"] = point_errors(centres, reached_points(data, centres.fixed))
        return metrics, landmarks


def folding_metrics(ddf: torch.Tensor) -> dict[str, float]:
    """Folding of a field, and how unevenly it stretches space.

    Args:
        ddf: ``(dims, *shape)``, voxels of its own grid.

    Returns:
        ``folded_voxels``, ``folded_percent`` and ``log_jacobian_sd``.
    """
    folded = folded_voxels(ddf)
    return {
        "folded_voxels": folded,
        "folded_percent": 100 * folded / ddf[0].numel(),
        "log_jacobian_sd": log_jacobian_sd(ddf),
    }


def adaptation_metrics(pred: Mapping[str, Any], losses: int, steps: int) -> dict[str, Any]:
    """What the steps of a pair led to.

    Args:
        pred: outputs of ``bundle.registration.AdaptationInferer`` for a pair, or of another method, without steps.
        losses: how many of its losses are finite.
        steps: gradient steps that were asked for.

    Returns:
        ``best_loss``, that of the result; ``loss_identity``, the loss of the initial alignment. Where there are states
        to choose from, ``best_state``, whose field is the result (``initial alignment``, ``start`` or ``step k``);
        ``lost_steps``, how many steps led to a loss that is not finite, or were not taken because a loss or gradient
        was not finite. If there are any, ``stopped`` says which and when.
    """
    identity = float(pred["loss_identity"])
    if "best_step" not in pred:
        return {"best_loss": float(pred["losses"][-1]), "loss_identity": identity}
    step = int(pred["best_step"])
    result: dict[str, Any] = {
        "best_state": {INITIAL_ALIGNMENT: "initial alignment", 0: "start"}.get(step, f"step {step}"),
        "best_loss": identity if step == INITIAL_ALIGNMENT else float(pred["losses"][step]),
        "loss_identity": identity,
        "lost_steps": 0,
    }
    stopped = STOPPED[int(pred["stopped"])]
    if stopped:
        # A loss that is not finite belongs to the state after the last finite one, a gradient to that one itself.
        when = losses - (stopped == "gradient")
        result |= {"lost_steps": steps - losses + 1, "stopped": f"{stopped} not finite after {when} steps"}
    return result


def without_nan(value: Any) -> Any:
    """Copy of nested metrics with None in place of NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def consistency_metrics(pred: Mapping[str, Any], affine: np.ndarray) -> dict[str, Any]:
    """Metrics of the registrations of ``bundle.registration.ConsistencyInferer``; lengths in mm on the network's grid.

    Args:
        pred: outputs of the inferer for a pair: ``ddf``, and ``swapped_ddf`` or ``self_ddf`` if asked for.
        affine: ``(4, 4)`` voxel-to-world of the network's grid.

    Returns:
        ``inverse_consistency_mm``: ``mean_p |T_ba(T_ab(p)) - p|`` over all voxels, 0 if the fields undo each other or
        are zero (Christensen and Johnson 2001). ``self_displacement_mm``: ``mean`` and ``max`` of ``|T_aa(p) - p|``.
    """
    found: dict[str, Any] = {}
    if "swapped_ddf" in pred:
        there, back = (torch.as_tensor(pred[key]).cpu()[None] for key in ("ddf", "swapped_ddf"))
        found["inverse_consistency_mm"] = float(lengths(compose(there, back)[0], affine).mean())
    if "self_ddf" in pred:
        moved = lengths(torch.as_tensor(pred["self_ddf"]).cpu(), affine)
        found["self_displacement_mm"] = {"mean": float(moved.mean()), "max": float(moved.max())}
    return found


def lengths(ddf: torch.Tensor, affine: np.ndarray) -> torch.Tensor:
    """Length of every vector of a DDF, ``|A u|`` with ``A`` the linear part of its grid's affine.

    Args:
        ddf: ``(2, X, Y)`` or ``(3, X, Y, Z)``, voxels.
        affine: ``(4, 4)`` voxel-to-world.

    Returns:
        ``(X, Y, Z)``, mm.
    """
    field = lift_ddf(ddf)
    return torch.tensordot(torch.as_tensor(affine[:3, :3]).to(field), field, dims=1).norm(dim=0)
