"""One channel for every structure that the labels of a pair share."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from bundle.data.layouts import SIDES
from bundle.data.structures import Correspondence, by_name, corresponding, mixed_form, one_patient


class LabelChannelsd(Transform):
    """Give the labels of a pair one channel per structure, the same structures on both sides.

    An integer map becomes one channel per value found in either label. A label that already has a channel per structure
    is made binary and cut to the channels that both sides have. For labels with named structures (``fixed_structures``,
    ``moving_structures``), the channels are those that :func:`corresponding` gives; if nothing corresponds, the labels
    are left out. ``data["structures"]`` says what the channels are: names, label values, or channel numbers from 0.

    Args:
        structures: names, values or channel numbers to keep, in this order; None keeps all. A structure that a label
            lacks is a channel of zeros; a named one that the pair does not share is zeros on both sides. Between
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
        """Convert ``fixed_label`` and ``moving_label`` if both are there.

        Raises:
            ValueError: when one label is an integer map and the other has channels; when the two share none of
                the chosen numbers; when names are chosen and a label has none.
        """
        output = dict(data)
        if not all(f"{side}_label" in data for side in SIDES):
            return output
        fixed, moving = (data[f"{side}_label"] for side in SIDES)
        if problem := mixed_form([data["pair_id"]], len(fixed), len(moving)):
            raise ValueError(problem)
        chosen = self._chosen(data, fixed, moving)
        output["structures"] = [structure.name for structure in chosen]
        for side, label in zip(SIDES, (fixed, moving), strict=True):
            if chosen:
                channels = [structure_mask(label.as_tensor(), getattr(structure, side)) for structure in chosen]
                output[f"{side}_label"] = MetaTensor(torch.stack(channels).float(), affine=label.affine)
            else:
                del output[f"{side}_label"]
        return output

    def _chosen(self, data: Mapping[Hashable, Any], fixed: MetaTensor, moving: MetaTensor) -> list[Correspondence]:
        """The structures to keep, in their order."""
        if fixed.shape[0] > 1:
            numbers = list(range(min(fixed.shape[0], moving.shape[0])))
        else:
            numbers = sorted({*values_of(fixed), *values_of(moving)})
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
        # Without names, a number stands for itself, even if only one label has the channel.
        return [
            same.get(k, Correspondence(k, None, None) if by_name(data) else Correspondence(k, k, k))
            for k in self.structures
        ]

    def _check_names(self, data: Mapping[Hashable, Any]) -> None:
        """Whether there are names to choose by; within a patient, the names of one label are enough."""
        without = [side for side in SIDES if f"{side}_structures" not in data]
        if len(without) > one_patient(data):
            raise ValueError(
                f"pair {data['pair_id']}: the structures are {self.structures}, but nothing names those of "
                f"{' and '.join(f'{side}_label' for side in without)}; name them in structures.json or the datalist, "
                "or choose by number"
            )

    def _check_channels(self, pair_id: str, shared: Sequence[int], fixed: int, moving: int) -> None:
        """Check that labels with these numbers of channels share a chosen one."""
        if not set(self.structures or ()) & set(shared):
            raise ValueError(
                f"pair {pair_id}: none of the structures {self.structures} (channels, counted from 0) is in both "
                f"labels: fixed_label has {fixed} channels and moving_label {moving}; name channels that both have"
            )

    def _check_values(self, pair_id: str, found: Sequence[int]) -> None:
        """Check that integer maps with these values hold a chosen one."""
        chosen = set(self.structures or ())
        if 0 in chosen or not chosen & set(found):
            raise ValueError(
                f"pair {pair_id}: the structures are {self.structures} but the labels are integer maps with the "
                f"values {', '.join(map(str, found))} on the background 0; name some of these values"
            )


def values_of(label: torch.Tensor) -> list[int]:
    """Values of an integer map, without the background 0."""
    return [int(value) for value in label.unique() if value != 0]


def structure_mask(label: torch.Tensor, number: int | None) -> torch.Tensor:
    """Where a label shows a structure.

    Args:
        label: ``(1, *shape)`` integer map, or ``(channels, *shape)`` with a channel per structure.
        number: its value in the map, or its channel from 0; None for a structure that the label lacks.

    Returns:
        Boolean, ``shape``; false everywhere for a channel that the label does not have.
    """
    if number is None or len(label) > 1 and number >= len(label):
        return torch.zeros_like(label[0], dtype=torch.bool)
    return label[0] == number if len(label) == 1 else label[number] > 0
