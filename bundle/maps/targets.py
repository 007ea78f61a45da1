"""What a map network learns: the labels of an image as soft maps."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import ImageMetaKey

from bundle.data import parts_on_grid, structure_mask, values_of
from bundle.formats.problems import image_problems
from bundle.geometry import apply_affine, centroids, voxel_grid

UNKNOWN = -1.0
"""Value of a target whose structure the label does not hold: nothing is learned from it."""


class CheckImaged(Transform):
    """Refuse a labelled image from which nothing can be learned, with every reason at once.

    Image and label are checked by the rules of pairs (``bundle.data.CheckPaird``).

    Args:
        spatial_dims: 3 for volumes, 2 for planar images.
    """

    def __init__(self, spatial_dims: int = 3) -> None:
        self.spatial_dims = spatial_dims

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Pass ``image`` ``(1, *shape)`` and ``label`` ``(channels, *shape)`` through.

        Raises:
            ValueError: naming every problem of the two.
        """
        image = data["image"]
        name = str(image.meta.get(ImageMetaKey.FILENAME_OR_OBJ, "image"))
        problems = image_problems(image.numpy(), np.asarray(image.affine), name, self.spatial_dims)
        parts = parts_on_grid(data, "", self.spatial_dims, problems)
        if problems:
            raise ValueError("; ".join(problems))
        return {**data, **parts}


class MapTargetsd(Transform):
    """Turn the ``label`` of an image into target maps in [0, 1], one channel per structure, on its own grid.

    The target of a structure is its binary label. The target of a landmark with centroid ``c`` is a heat map,
    ``exp(-|p - c|^2 / (2 s^2))``, since a network finds a spot of a few voxels by its surroundings. The target of a
    structure that the label does not hold is ``UNKNOWN`` everywhere; a label without any of them is refused.

    Args:
        structures: channels (from 0) of a label with a channel per structure, or values of an integer map.
        landmarks: which of the ``structures`` are landmarks.
        heat_map_mm: ``s``, mm.

    Raises:
        ValueError: when one of them is no list, or a landmark is not among the structures.
    """

    def __init__(self, structures: Sequence[int], landmarks: Sequence[int] = (), heat_map_mm: float = 6.0) -> None:
        for name, numbers in {"structures": structures, "landmarks": landmarks}.items():
            if not isinstance(numbers, Sequence) or isinstance(numbers, str):
                raise ValueError(f"{name} is {numbers!r}, expected a list of numbers, such as [1, 2]; [] for none")
        unknown = sorted(set(landmarks) - set(structures))
        if unknown:
            raise ValueError(f"landmarks has {unknown}, which are none of the structures {list(structures)}")
        self.structures = list(structures)
        self.landmarks = set(landmarks)
        self.heat_map_mm = heat_map_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace ``label`` ``(channels, *shape)`` by its targets ``(len(structures), *shape)``.

        Raises:
            ValueError: for a label that holds none of the structures, and for the background of an integer map as one.
        """
        label = data["label"]
        held = values_or_channels(label)
        if held.isdisjoint(self.structures) or (len(label) == 1 and 0 in self.structures):
            image = data.get("image", label).meta.get(ImageMetaKey.FILENAME_OR_OBJ, "")
            what = "is an integer map of the values" if len(label) == 1 else "shows something in the channels (from 0)"
            found = ", ".join(map(str, sorted(held)))
            raise ValueError(
                f"{image}: the structures are {self.structures}, but its label {what} {found}; name some of these"
            )
        targets = [self._target(label, structure) for structure in self.structures]
        return {**data, "label": MetaTensor(torch.stack(targets), affine=label.affine)}

    def _target(self, label: MetaTensor, structure: int) -> torch.Tensor:
        binary = structure_mask(label.as_tensor(), structure).float()
        if not binary.any():
            return torch.full_like(binary, UNKNOWN)
        return self._heat_map(binary, np.asarray(label.affine)) if structure in self.landmarks else binary

    def _heat_map(self, binary: torch.Tensor, affine: np.ndarray) -> torch.Tensor:
        centre = torch.as_tensor(centroids(binary[None], affine)[0]).reshape(-1, *[1] * binary.ndim)
        distance = (apply_affine(affine, voxel_grid(binary.shape)) - centre).square().sum(0)
        return torch.exp(-distance / (2 * self.heat_map_mm**2)).float()


def values_or_channels(label: torch.Tensor) -> set[int]:
    """What a label ``(channels, *shape)`` holds: values of an integer map, without its background 0, or channels."""
    if len(label) == 1:
        return set(values_of(label))
    return {channel for channel, part in enumerate(label) if part.any()}
