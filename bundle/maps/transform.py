"""The maps of a pair, made once per image during preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from torch import nn

from bundle.data import SIDES, side_tensor
from bundle.maps.seen import check_unseen


class AnatomyMapsd(Transform):
    """Add ``fixed_maps`` and ``moving_maps`` to a pair on the network's grid: ``sigmoid(mean_n f_n(image))``.

    How far they can be trusted is added as ``fixed_certainty`` and ``moving_certainty`` (``certainty``).

    Several networks ``f_n`` are averaged. If they were trained on folds of the patients at hand, an image is shown to
    the network that never saw its patient: a network's maps of its own training images are too good, and a
    registration network that learns from such maps fails on those of new images.

    Args:
        reader: file of weights -> network from images ``(batch, 1, *shape)`` to logits ``(batch, maps, *shape)``
            (``bundle.maps.read_map_network``).
        weights: files of weights, one per network; ``{"fixed": [...], "moving": [...]}`` if the two images are of
            different kinds (MR and ultrasound), with the maps in the same order.
        held_out: patient -> index of the network that did not see it; None if all patients are new.
        spatial_dims: 3, or 2 for pairs of one slice.
        device: where the networks run.

    Raises:
        FileNotFoundError: for missing weights.
        ValueError: for weights of another network, or that have learned from a patient whom ``held_out`` gives them.
    """

    def __init__(
        self,
        reader: Callable[[str], nn.Module],
        weights: Sequence[str] | Mapping[str, Sequence[str]],
        held_out: Mapping[str, int] | None = None,
        spatial_dims: int = 3,
        device: torch.device | str = "cpu",
    ) -> None:
        self.held_out = held_out or {}
        of_side = weights if isinstance(weights, Mapping) else dict.fromkeys(SIDES, weights)
        numbered = dict.fromkeys(pair for names in of_side.values() for pair in enumerate(names))
        for number, file in numbered if self.held_out else ():
            check_unseen(file, [patient for patient, fold in self.held_out.items() if fold == number])
        files = dict.fromkeys(file for names in of_side.values() for file in names)
        networks = {file: reader(file).eval().requires_grad_(False).to(device) for file in files}
        self.networks: dict[str, list[nn.Module]] = {side: [networks[file] for file in of_side[side]] for side in SIDES}
        self.spatial_dims = spatial_dims
        self.device = device

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Make the maps of one pair, ``(maps, *shape)`` in [0, 1], from images ``(1, *shape)`` in [0, 1]."""
        output = dict(data)
        for side in SIDES:
            image = side_tensor(data, side, "image").to(self.device)[None]
            planar = self.spatial_dims == 2
            seen = image[..., 0] if planar else image
            with torch.no_grad():
                logits = [network(seen) for network in self._networks(side, data.get("patient", ()))]
            of_networks = torch.stack(logits)
            maps = of_networks.mean(0).sigmoid()[0].cpu()
            affine = data[f"{side}_image"].affine
            output[f"{side}_maps"] = MetaTensor(maps[..., None] if planar else maps, affine=affine)
            output[f"{side}_certainty"] = certainty(of_networks.sigmoid().mean(0)[0])
        return output

    def _networks(self, side: str, patients: Sequence[str]) -> list[nn.Module]:
        """Networks for an image of a pair, whose patients are (moving, fixed), one for both, or unknown."""
        number = self.held_out.get(patients[0 if side == "moving" else -1]) if patients else None
        return self.networks[side] if number is None else [self.networks[side][number]]


def certainty(maps: torch.Tensor) -> float:
    """How far the maps of an image can be trusted without its label: ``sum_k(p_k^2) / sum_k(p_k)``, over all voxels.

    ``p_k`` is the mean of what several networks say. It is 1 where all are sure and agree, and falls with each voxel of
    which one of them is not sure, and with each about which they disagree (Lakshminarayanan et al. 2017, Simple and
    scalable predictive uncertainty estimation using deep ensembles, section 2.4).

    Args:
        maps: mean of the networks' maps, ``(maps, *shape)`` in [0, 1].
    """
    return float(maps.square().sum() / maps.sum().clamp_min(1e-6))
