"""What a pair is: the names of its parts and the joined tensor the network sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor, list_data_collate
from monai.engines import PrepareBatch

SIDES = ("fixed", "moving")


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

    Labels are handed on when both are there; their channels are the structures the two images share. Each side is its
    image; where the pair has masks or maps, its image and its mask, of ones if it has none; then its maps.

    Args:
        spatial_dims: 3, or 2 for pairs of one slice, whose slice axis is left out here.
        adapt_to_labels: hand the labels to the inferer as well, so that the steps on a pair may use them. Label
            metrics of such a pair say nothing about accuracy.
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
    """Image, label, mask or maps of one side of a pair as a plain tensor; a mask that is missing is ones."""
    if kind == "mask" and f"{side}_mask" not in data:
        return torch.ones_like(side_tensor(data, side, "image"))
    part = data[f"{side}_{kind}"]
    return part.as_tensor() if isinstance(part, MetaTensor) else part
