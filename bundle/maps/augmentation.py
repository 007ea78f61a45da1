"""What ultrasound does to an image: echoes fade with depth, and bone, gas and calcifications cast shadows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform


class RandDepthAttenuationd(RandomizableTransform, MapTransform):
    """Let the intensities fade, or grow, with the distance from the probe: ``I(x) exp(-a (d(x) - 1/2))``.

    ``d`` runs from 0 at the probe to 1 at the far side, as in a volume whose gain over time is set too low (``a > 0``)
    or too high (``a < 0``).

    Args:
        keys: images ``(1, *shape)`` in [0, 1].
        axis: spatial axis that points away from the probe.
        attenuation: ``a`` is uniform in +- this.
        prob: probability that an image is changed.
        allow_missing_keys: as in MONAI.
    """

    def __init__(
        self,
        keys: KeysCollection,
        axis: int = 1,
        attenuation: float = 1.0,
        prob: float = 0.25,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.axis = axis
        self.attenuation = attenuation

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change every image in the same way."""
        output = dict(data)
        self.randomize(None)
        strength = self.R.uniform(-self.attenuation, self.attenuation)
        if self._do_transform:
            for key in self.key_iterator(output):
                depth = along(output[key], self.axis) / max(output[key].shape[1 + self.axis] - 1, 1)
                output[key] = output[key] * torch.exp(-strength * (depth - 0.5))
        return output


class RandShadowd(RandomizableTransform, MapTransform):
    """Darken a band beyond a random depth: ``I(x) (1 - s exp(-(l(x) - c)^2 / (2 w^2)) [d(x) > e])``.

    ``d`` is the position along the depth axis and ``l`` across it; the shadow begins at ``e`` and ``c``.

    Args:
        keys: images ``(1, *shape)``.
        axis: spatial axis that points away from the probe.
        strength: range of ``s``.
        width: range of ``w``, as a share of the size across.
        prob: probability that an image is changed.
        allow_missing_keys: as in MONAI.
    """

    def __init__(
        self,
        keys: KeysCollection,
        axis: int = 1,
        strength: Sequence[float] = (0.25, 0.8),
        width: Sequence[float] = (0.03, 0.1),
        prob: float = 0.25,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.axis = axis
        self.strength = strength
        self.width = width

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change every image in the same way."""
        output = dict(data)
        self.randomize(None)
        strength, width = self.R.uniform(*self.strength), self.R.uniform(*self.width)
        across, centre, begin = self.R.randint(2), self.R.uniform(), self.R.uniform(0, 0.8)
        if self._do_transform:
            for key in self.key_iterator(output):
                image = output[key]
                axis = [a for a in range(image.ndim - 1) if a != self.axis][across % (image.ndim - 2)]
                side = along(image, axis) / max(image.shape[1 + axis] - 1, 1)
                depth = along(image, self.axis) / max(image.shape[1 + self.axis] - 1, 1)
                band = torch.exp(-((side - centre) ** 2) / (2 * width**2)) * (depth > begin)
                output[key] = image * (1 - strength * band)
        return output


def along(image: torch.Tensor, axis: int) -> torch.Tensor:
    """Voxel indices along a spatial axis of ``(channels, *shape)``, in a shape that broadcasts against it."""
    shape = [1] * image.ndim
    shape[1 + axis] = image.shape[1 + axis]
    return torch.arange(image.shape[1 + axis], dtype=torch.float32, device=image.device).reshape(shape)
