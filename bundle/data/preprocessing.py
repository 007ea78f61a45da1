"""MONAI dictionary transforms of ours on the way from a file to the network's grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from scipy.ndimage import gaussian_filter1d

from bundle.data.pairs import SIDES
from bundle.data.structures import Correspondence, by_name, corresponding, one_patient
from bundle.geometry import initial_alignment

FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))


class LabelChannelsd(Transform):
    """Give the labels of a pair one channel per structure, the same structures on both sides.

    An integer map becomes one channel per value found in either label; a label that already has a channel per
    structure is made binary and cut to the channels both sides have. Of labels with named structures
    (``fixed_structures``, ``moving_structures``) the channels are those that :func:`corresponding` says; where nothing
    corresponds the labels are left out. ``data["structures"]`` says what the channels are: names, or label values, or
    channel numbers counted from 0.

    Args:
        structures: names, or values or channel numbers, to keep, in this order; None keeps all. A structure that a
            label lacks is a channel of zeros, and on both sides a named one that the pair does not share. Between
            patients without names, say which numbers correspond: the landmarks of one patient must not be matched to
            another's.
    """

    def __init__(self, structures: Sequence[int] | Sequence[str] | None = None) -> None:
        if structures is not None:
            listed = isinstance(structures, Sequence) and not isinstance(structures, str)
            numbers = listed and all(isinstance(k, int) and k >= 0 for k in structures)
            names = listed and all(isinstance(name, str) and name for name in structures)
            if not (numbers or names) or not structures or len(set(structures)) < len(structures):
                raise ValueError(
                    f"structures is {structures!r}; expected different channel numbers (from 0) or label values, "
                    "such as [0, 1], or names, such as [gland, apex], or None for all"
                )
        self.structures: list[Any] | None = None if structures is None else list(structures)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert ``fixed_label`` and ``moving_label`` where both are there.

        Raises:
            ValueError: when one label is an integer map and the other has channels; when the two share none of
                the chosen numbers; when names are chosen and a label has none.
        """
        output = dict(data)
        if not all(f"{side}_label" in data for side in SIDES):
            return output
        fixed, moving = (data[f"{side}_label"] for side in SIDES)
        if (fixed.shape[0] == 1) != (moving.shape[0] == 1):
            raise ValueError(
                f"pair {data['pair_id']}: fixed_label has {fixed.shape[0]} channel(s) and moving_label "
                f"{moving.shape[0]}; give both as integer maps or both with one structure per channel"
            )
        chosen = self._chosen(data, fixed, moving)
        output["structures"] = [structure.name for structure in chosen]
        for side, label in zip(SIDES, (fixed, moving), strict=True):
            if chosen:
                channels = [_binary(label.as_tensor(), getattr(structure, side)) for structure in chosen]
                output[f"{side}_label"] = MetaTensor(torch.stack(channels).float(), affine=label.affine)
            else:
                del output[f"{side}_label"]
        return output

    def _chosen(self, data: Mapping[Hashable, Any], fixed: MetaTensor, moving: MetaTensor) -> list[Correspondence]:
        """The structures to keep, in their order."""
        if fixed.shape[0] > 1:
            numbers = list(range(min(fixed.shape[0], moving.shape[0])))
        else:
            values = np.union1d(np.unique(fixed.numpy()), np.unique(moving.numpy()))
            numbers = [int(value) for value in values if value != 0]
            if not numbers:
                raise ValueError(
                    f"pair {data['pair_id']}: fixed_label and moving_label are empty, every value is 0; leave them out"
                )
        found = corresponding(data, numbers)
        if self.structures is None:
            return found
        if isinstance(self.structures[0], str):
            self._check_names(data)
            named = {structure.name: structure for structure in found}
            return [named.get(name, Correspondence(name, None, None)) for name in self.structures]
        if fixed.shape[0] > 1:
            self._check_channels(data["pair_id"], numbers, fixed.shape[0], moving.shape[0])
        else:
            self._check_values(data["pair_id"], numbers)
        same = {structure.fixed: structure for structure in found if structure.fixed == structure.moving}
        # Without names a number stands for itself, in a label that alone has the channel too.
        return [
            same.get(k, Correspondence(k, None, None) if by_name(data) else Correspondence(k, k, k))
            for k in self.structures
        ]

    def _check_names(self, data: Mapping[Hashable, Any]) -> None:
        """Whether there are names to choose by: those of one label do within a patient."""
        without = [side for side in SIDES if f"{side}_structures" not in data]
        if len(without) > one_patient(data):
            raise ValueError(
                f"pair {data['pair_id']}: the structures are {self.structures}, but nothing names those of "
                f"{' and '.join(f'{side}_label' for side in without)}; name them in structures.json or the datalist, "
                "or choose by number"
            )

    def _check_channels(self, pair_id: str, shared: Sequence[int], fixed: int, moving: int) -> None:
        """Whether labels with so many channels share a chosen one."""
        if not set(self.structures or ()) & set(shared):
            raise ValueError(
                f"pair {pair_id}: none of the structures {self.structures} (channels, counted from 0) is in both "
                f"labels: fixed_label has {fixed} channels and moving_label {moving}; name channels that both have"
            )

    def _check_values(self, pair_id: str, found: Sequence[int]) -> None:
        """Whether integer maps with these values hold a chosen one."""
        chosen = set(self.structures or ())
        if 0 in chosen or not chosen & set(found):
            raise ValueError(
                f"pair {pair_id}: the structures are {self.structures} but the labels are integer maps with the "
                f"values {', '.join(map(str, found))} on the background 0; name some of these values"
            )


def _binary(label: torch.Tensor, number: int | None) -> torch.Tensor:
    """Where a label ``(channels, *shape)`` shows the structure of a channel or, as an integer map, of a value."""
    if number is None or len(label) > 1 and number >= len(label):
        return torch.zeros(label.shape[1:], dtype=torch.bool)
    return label[0] == number if len(label) == 1 else label[number] > 0


class InitialAlignmentd(Transform):
    """Move the moving image's frame so that registration starts from the chosen alignment.

    Its affine becomes ``M^-1 A_moving``, so that resampling to the fixed grid by world position applies ``M``;
    the voxels are not touched. ``initial_alignment`` keeps ``M`` (``bundle.geometry.initial_alignment``).

    Args:
        mode: ``"world"``, ``"center"`` or ``"none"``.
    """

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Stamp the moving image, label and mask."""
        output = dict(data)
        fixed, moving = data["fixed_image"], data["moving_image"]
        alignment = initial_alignment(
            self.mode, np.asarray(fixed.affine), fixed.shape[1:], np.asarray(moving.affine), moving.shape[1:]
        )
        for key in ("moving_image", "moving_label", "moving_mask"):
            if key in data:
                stamped = data[key].clone()
                stamped.affine = torch.as_tensor(np.linalg.inv(alignment) @ np.asarray(stamped.affine))
                output[key] = stamped
        output["initial_alignment"] = alignment
        return output


class SmoothToSpacingd(MapTransform):
    """Blur finer images to the resolution of the network's grid, so that resampling does not alias speckle.

    ``sigma^2 = (s_out^2 - s_in^2) / (2 sqrt(2 ln 2))^2`` per axis, in mm (Cardoso et al. 2015, scale factor point
    spread function matching); an axis that is coarser already stays as it is.

    Args:
        keys: images ``(1, *shape)``.
        pixdim: spacing of the network's grid, mm.
        allow_missing_keys: as in MONAI.
    """

    def __init__(self, keys: str | list[str], pixdim: float, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if pixdim <= 0:
            raise ValueError(f"pixdim is {pixdim}; expected the spacing of the network's grid, more than 0 mm")
        self.pixdim = pixdim

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Smooth every image."""
        output = dict(data)
        for key in self.key_iterator(output):
            array = output[key].numpy()
            for axis, spacing in enumerate(output[key].pixdim.tolist(), start=1):
                sigma = np.sqrt(max(0.0, self.pixdim**2 - spacing**2)) / FWHM_PER_SIGMA / spacing
                if sigma > 0:
                    array = gaussian_filter1d(array, sigma, axis=axis, mode="nearest")
            output[key] = MetaTensor(torch.as_tensor(array), affine=output[key].affine)
        return output


class Timed(Transform):
    """Run a transform and note under ``seconds_<stage>`` how long it took.

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
