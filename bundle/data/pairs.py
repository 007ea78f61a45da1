"""What a pair is: the keys that it carries along its way, and the joined tensor the network sees.

``<side>`` is fixed or moving. Images, labels and masks are MONAI tensors with the affine of their grid: the file's own
grid until ``IsotropicGridd`` and ``ResampleToMatchd`` of the preprocessing bring both sides to the fixed image's 0.8 mm
grid, the network's. World coordinates are in mm, RAS; a picture's "mm" are pixels.

key | what, shape, space, unit | added by | read by
--- | --- | --- | ---
pair_id | text, fit for a folder's name, unique | read_datalist | results, table, pages, messages of errors
patient | tuple of texts: the patients of the images, each once | read_datalist | by_name, scored_channels
task | text: the named source of the pair, where there are several | read_datalist | pairing, sampling of training
<side>_structures | number by name, of the label | read_datalist | corresponding
<side>_image | path; then (1, X, Y, Z), at last in [0, 1] on the network's grid | read_datalist; LoadPaird | PreparePair
<side>_label | path; then integers (1, X, Y, Z), then (structures, X, Y, Z) in [0, 1] | read_datalist | PreparePair
<side>_mask | path; then (1, X, Y, Z) in [0, 1], where the image counts | read_datalist; FieldOfViewMaskd | PreparePair
<side>_landmarks | path of points, those of the other side by name or row; mm, world | read_datalist | landmark_metrics
landmarks | path of the points of both sides in one file | read_datalist | landmark_metrics
native_<side>_image | (1, X, Y, Z), voxels of the file on their own grid | CopyItemsd | NativeOutputsd, pages, DICOM
native_<side>_label | (channels, X, Y, Z), as native_<side>_image | CopyItemsd | NativeOutputsd, PairMetricsd
structures | names or numbers of the label's channels | LabelChannelsd | whoever asks what they are
initial_alignment | (4, 4), fixed world to moving world, mm | InitialAlignmentd | NativeOutputsd, metrics, pages
<side>_maps | (maps, X, Y, Z) in [0, 1], network's grid | AnatomyMapsd | PreparePair, map_metrics
<side>_certainty | number from 0 to 1: how far its maps can be trusted | AnatomyMapsd | map_metrics
pred | of the inferer: ddf (3, X, Y, Z), voxels of the network's grid, losses ... | SupervisedEvaluator | postprocessing
displacement | (3, X, Y, Z), fixed image's own grid; mm: fixed p shows moving p + d(p) | NativeOutputsd | all others
warped_image | (1, X, Y, Z), fixed image's own grid | NativeOutputsd | SavePaird, pages, DICOM
warped_label | (channels, X, Y, Z), the same grid, nearest voxels | NativeOutputsd | PairMetricsd, SavePaird, pages
warped_label_weights | (channels, X, Y, Z), the same grid, in [0, 1], linear | NativeOutputsd | warped_centroid_errors
aligned_<part> | as warped_<part>, under the initial alignment alone | NativeOutputsd | PairMetricsd, pages
transform | fixed points to moving ones; mm, world | TransformsBothWaysd | SavePaird
inverse_transform | moving points to fixed ones; mm, world | TransformsBothWaysd | SavePaird
inverse_displacement | (3, X, Y, Z), moving image's own grid; mm, world | TransformsBothWaysd | SavePaird
inverse_residual_mm | mean, p95 and max of what the two miss each other by; mm | TransformsBothWaysd | PairMetricsd
seconds_<stage> | time of a stage, s | Timed | PairMetricsd
metrics | content of metrics.json | PairMetricsd, QualityVerdictd | SavePaird, table, pages
picture | PNG, bytes | PairPictured | SavePaird
page | HTML, bytes | QualityPaged | SavePaird
thumbnail | HTML of a small picture | QualityPaged | QualityIndex, SavePaird
pdf | PDF, bytes | QualityPdfd | DicomOutputsd
dicom | DICOM objects by the names of their files | DicomOutputsd | SavePaird
fingerprint | text: files and settings that the result depends on | PairDataset | SavePaird
images_at | text: where the two images lie, which it does not reveal | PairDataset | SavePaird
images | text: what is in the two images | PairDataset | SavePaird
finished | path: folder of an earlier result, in place of all else but pair_id | PairDataset | evaluator, table
error | text: why there is no result, in place of all else but pair_id | PairDataset, evaluator | table, pages
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor, list_data_collate
from monai.engines import PrepareBatch
from monai.transforms import Transform


def join_pair(moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
    """Join two images (or labels) on one grid into the network's input, moving first.

    Args:
        moving: ``(batch, channels, *shape)``.
        fixed: the same shape.

    Returns:
        ``(batch, 2 * channels, *shape)``.

    Raises:
        ValueError: when the shapes differ.
    """
    if moving.shape != fixed.shape:
        raise ValueError(
            f"moving has shape {tuple(moving.shape)} and fixed {tuple(fixed.shape)}; "
            "a pair is joined on one grid, so resample the moving image to the fixed one first"
        )
    return torch.cat([moving, fixed], dim=1)


def split_pair(joined: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split a joined pair into ``(moving, fixed)``, each ``(batch, channels, *shape)``."""
    moving, fixed = joined.chunk(2, dim=1)
    return moving, fixed


def images_of(joined: torch.Tensor) -> torch.Tensor:
    """Images ``(batch, 2, *shape)`` of a joined pair, without the masks and maps it may have."""
    return torch.cat([side[:, :1] for side in split_pair(joined)], dim=1)


def seen_of(joined: torch.Tensor) -> torch.Tensor:
    """Images and maps of a joined pair without its masks, ``(batch, 2 * (1 + maps), *shape)``, moving side first."""
    return torch.cat([side[:, [0, *range(2, side.shape[1])]] for side in split_pair(joined)], dim=1)


def collate_episodes(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Collate every pair into a batch of its own, since the pairs of a meta-batch differ in size.

    Args:
        items: preprocessed pairs, tensors ``(channels, *shape)``.

    Returns:
        One dictionary per pair, tensors ``(1, channels, *shape)``.
    """
    return [list_data_collate([item]) for item in items]


class PreparePair(PrepareBatch):
    """Preprocessed batch -> ``(joined images, joined labels or None)`` on the device.

    Labels are passed on if both are there; their channels are the structures that the two images share. Each side has
    its image; if the pair has masks or maps, also its mask (ones if it has none); then its maps.

    Args:
        spatial_dims: 3, or 2 for pairs of one slice, whose slice axis is dropped here.
        adapt_to_labels: pass the labels to the inferer as well, so that the steps on a pair may use them. Label metrics
            of such a pair say nothing about accuracy.
    """

    def __init__(self, spatial_dims: int = 3, adapt_to_labels: bool = False) -> None:
        self.spatial_dims = spatial_dims
        self.adapt_to_labels = adapt_to_labels

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Join the pair.

        Args:
            batchdata: ``fixed_image`` and ``moving_image`` ``(batch, 1, X, Y, Z)`` on one grid, optionally
                ``fixed_label`` and ``moving_label`` ``(batch, structures, X, Y, Z)``, ``fixed_mask`` and
                ``moving_mask`` ``(batch, 1, X, Y, Z)`` in [0, 1], ``fixed_maps`` and ``moving_maps``
                ``(batch, maps, X, Y, Z)`` in [0, 1].
            device: target device.
            non_blocking: as in ``torch.Tensor.to``.
            kwargs: further arguments of ``torch.Tensor.to``.

        Returns:
            Joined pair ``(batch, 2, *shape)``, with masks ``(batch, 4, *shape)``, with maps
            ``(batch, 2 * (2 + maps), *shape)``, and labels ``(batch, 2 * structures, *shape)`` or None; with
            ``adapt_to_labels`` also the positional and the named arguments of the inferer, as MONAI's engines take
            them.
        """

        def joined(*kinds: str) -> torch.Tensor:
            moving, fixed = (
                torch.cat([side_tensor(batchdata, side, kind) for kind in kinds], dim=1) for side in ("moving", "fixed")
            )
            pair = join_pair(moving, fixed).to(device=device, non_blocking=non_blocking, **kwargs)
            return pair if self.spatial_dims == 3 else pair[..., 0]

        has_masks = "fixed_mask" in batchdata or "moving_mask" in batchdata
        has_labels = "fixed_label" in batchdata and "moving_label" in batchdata
        has_maps = "fixed_maps" in batchdata
        kinds = ["image", *["mask"] * (has_masks or has_maps), *["maps"] * has_maps]
        images = joined(*kinds)
        labels = joined("label") if has_labels else None
        return (images, labels, (), {"labels": labels}) if self.adapt_to_labels else (images, labels)


def side_tensor(data: Mapping[Any, Any], side: str, kind: str) -> torch.Tensor:
    """Image, label, mask or maps of one side of a pair as a plain tensor; a missing mask is ones."""
    if kind == "mask" and f"{side}_mask" not in data:
        return torch.ones_like(side_tensor(data, side, "image"))
    part = data[f"{side}_{kind}"]
    return part.as_tensor() if isinstance(part, MetaTensor) else part


def is_picture(image: MetaTensor) -> bool:
    """Whether an image was read from a picture, whose header has no lengths and whose rows run downwards."""
    return "mode" in image.meta  # Pillow gives this for every picture


class Timed(Transform):
    """Run a transform and record under ``seconds_<stage>`` how long it took.

    Args:
        transform: the transform to run.
        stage: name of the stage.
    """

    PREFIX = "seconds_"

    def __init__(self, transform: Callable[[Any], dict[Hashable, Any]], stage: str) -> None:
        self.transform = transform
        self.stage = stage

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Apply the transform to one pair."""
        start = time.perf_counter()
        output = dict(self.transform(data))
        output[f"{self.PREFIX}{self.stage}"] = time.perf_counter() - start
        return output
