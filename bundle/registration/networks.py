"""From a joined pair to a DDF: the wrapper around the bare network of ``network_def``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from bundle.data import images_of, seen_of, split_pair
from bundle.geometry import LINEAR, Warp, averages, compose, enlarge_ddf, integrate, resize_ddf

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
SMALL = 20480
"""Channels times the first two lengths of an image, up to which torch does not pass a single image to oneDNN."""
PRECISIONS = ("auto", "float32", "bfloat16")
INSTANCE_NORMS = {nn.BatchNorm2d: nn.InstanceNorm2d, nn.BatchNorm3d: nn.InstanceNorm3d}


def use_instance_statistics(network: nn.Module) -> nn.Module:
    """Replace every batch normalisation by an instance normalisation that shares its weights, in place.

    Meta-training runs mini-batches of several versions of a pair and adaptation runs a single one; statistics per
    instance mean the same in both, and in training and evaluation mode. The names in the state dictionary stay.

    Args:
        network: any module; its parameters are kept, so an optimiser that holds them stays valid.

    Returns:
        The same module.

    Raises:
        ValueError: when a batch normalisation keeps running statistics, which would be lost silently.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) not in INSTANCE_NORMS:
                continue
            if child.running_mean is not None:
                raise ValueError(
                    f"normalisation layer {name!r} keeps running statistics, which adaptation to one pair cannot use; "
                    "define the network as $torch.func.replace_all_batch_norm_modules_(...) (see configs/train.yaml)"
                )
            instance = INSTANCE_NORMS[type(child)](child.num_features, eps=child.eps, affine=child.affine)
            instance.weight, instance.bias = child.weight, child.bias
            setattr(module, name, instance)
    return network


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 natively; emulation would be slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


class SafeConv3d(nn.Conv3d):
    """``Conv3d`` that avoids two weaknesses of torch 2.13 on a CPU.

    In bfloat16, if the image is shallower than the kernel, the weight gradient (oneDNN) reads memory it never wrote: it
    is sometimes NaN or wrong. In float32, a small image alone in its batch does not go to oneDNN, but takes a path that
    is several times slower; adding an empty image to the batch avoids this, without changing output or gradients.
    """

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``(batch, channels, *shape)`` -> the same as ``Conv3d``."""
        if image.device.type != "cpu":
            return super().forward(image)
        if image.shape[2] < self.kernel_size[0] and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self(image.float())
        alone = image.shape[0] == 1 and image.shape[1:4].numel() <= SMALL and 1 < max(self.kernel_size) <= 3
        if alone and not torch.is_autocast_enabled("cpu"):
            return super().forward(torch.cat([image, torch.zeros_like(image)]))[:1]
        return super().forward(image)


class CoarseNetwork(nn.Module):
    """A network that sees images averaged over cubes of voxels, with arithmetic that suits the device.

    Weights are specific to the spacing that the network sees.

    Args:
        network: ``(batch, channels, *shape)`` -> the same shape with other channels.
        precision: ``"float32"`` or ``"bfloat16"`` for its arithmetic, or ``"auto"``: bfloat16 if the device has
            instructions for it.
        downsampling: voxels of the grid per voxel that the network sees, along every axis; 1 is the grid itself.
    """

    def __init__(self, network: nn.Module, precision: str = "float32", downsampling: int = 1) -> None:
        super().__init__()
        if downsampling < 1:
            raise ValueError(f"downsampling is {downsampling}; expected 1 (the pair's own grid) or more")
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}; expected {', '.join(PRECISIONS)}")
        self.downsampling = downsampling
        self.network = network
        # Instance normalisation drops the layout of its input; weights in channels-last order restore it at every
        # convolution, which makes a step two to three times faster on a CPU.
        for parameter in network.parameters():
            if parameter.ndim in CHANNELS_LAST:
                parameter.data = parameter.data.contiguous(memory_format=CHANNELS_LAST[parameter.ndim])
        self.precision = None if precision == "auto" else getattr(torch, precision)
        for module in network.modules():
            if type(module) is nn.Conv3d:
                module.__class__ = SafeConv3d

    def coarse(self, images: torch.Tensor) -> torch.Tensor:
        """Output of the network on its own grid, float32."""
        seen = averages(images, self.downsampling)
        precision = self.precision or (torch.bfloat16 if has_bfloat16(images.device) else torch.float32)
        with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
            output = self.network(seen.contiguous(memory_format=CHANNELS_LAST[images.ndim]))
        return output.float().contiguous()


class RegistrationNetwork(CoarseNetwork):
    """Joined pair -> DDF, ``u = exp(f(moving, fixed))``, without the exponential for 0 integration steps.

    With ``downsampling`` the network's field is enlarged to the pair's grid: loss, warp and results stay on the fine
    grid while the convolutions, which take nearly all of the time, run on the coarse one.

    Args:
        network: joined pair ``(batch, 2, *shape)`` -> field ``(batch, dims, *shape)`` in voxels; with ``sees_maps``
            the maps of each side are further channels. Its batch normalisations are replaced in place
            (``use_instance_statistics``).
        integration_steps: squarings of the stationary velocity field; 0 takes the output as the DDF itself.
        precision: as in ``CoarseNetwork``. The field is always float32.
        downsampling: as in ``CoarseNetwork``; 1 is the paper's.
        sees_maps: whether the maps of a pair are part of the network's input, or only of the loss.
    """

    def __init__(
        self,
        network: nn.Module,
        integration_steps: int = 0,
        precision: str = "float32",
        downsampling: int = 1,
        sees_maps: bool = False,
    ) -> None:
        super().__init__(use_instance_statistics(network), precision, downsampling)
        self.integration_steps = integration_steps
        self.sees_maps = sees_maps
        convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Conv3d))
        self.channels = next((module.in_channels for module in convolutions), None)

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        """Predict the DDF.

        Args:
            pair: joined pair (``bundle.data.pairs``), moving side first; masks are ignored. The shape is a multiple of
                ``downsampling``.

        Returns:
            ``(batch, dims, *shape)``, voxels of the pair's grid, pull-back on the fixed image.
        """
        return self._displacement(self._field(pair))

    def inverse(self, pair: torch.Tensor) -> torch.Tensor:
        """Predict the inverse of the DDF, ``exp(-v)`` of the stationary velocity field ``v``.

        Args:
            pair: as in ``forward``.

        Returns:
            ``(batch, dims, *shape)``, voxels of the pair's grid.

        Raises:
            ValueError: when the network predicts a displacement, whose inverse is not known.
        """
        if self.integration_steps == 0:
            raise ValueError("integration_steps is 0: the network predicts a displacement, not a velocity to invert")
        return self._displacement(-self._field(pair))

    def _field(self, pair: torch.Tensor) -> torch.Tensor:
        seen = seen_of(pair) if self.sees_maps else images_of(pair)
        if self.channels not in (None, seen.shape[1]):
            raise ValueError(
                f"the network takes {self.channels} channels and the pair has {seen.shape[1]} (2, and 2 for every "
                "map); give the map_weights that it was trained with, or weights that fit the maps, or set "
                "network_sees_maps to false for a network of images alone"
            )
        return self.coarse(seen)

    def _displacement(self, field: torch.Tensor) -> torch.Tensor:
        return enlarge_ddf(integrate(field, self.integration_steps), self.downsampling)


class FixedSizeNetwork(nn.Module):
    """Run a network that needs one image size (GlobalNet) on pairs of any size.

    The pair is resampled to ``spatial_size``, and the DDF is resampled back with its vectors scaled; the affine field
    of a GlobalNet is preserved exactly. The arithmetic is always float32: a bfloat16 affine is off by a quarter voxel.

    Args:
        network: joined pair of ``spatial_size`` -> DDF of ``spatial_size``.
        spatial_size: the size the network was built for.
        scale: factor of the DDF. Every weight of a GlobalNet's dense layer moves the whole image, so steps that suit
            convolutions take it out of view, where no gradient brings it back; a small factor makes one size suit both.
    """

    def __init__(self, network: nn.Module, spatial_size: Sequence[int], scale: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.spatial_size = tuple(spatial_size)
        self.scale = scale

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        """``(batch, 2, *shape)`` -> DDF ``(batch, dims, *shape)`` in voxels of the pair's grid."""
        mode = LINEAR[pair.ndim - 2]
        with torch.autocast(pair.device.type, enabled=False):
            resized = F.interpolate(pair.float(), size=self.spatial_size, mode=mode, align_corners=True)
            return self.scale * resize_ddf(self.network(resized), pair.shape[2:])


class GlobalThenLocal(nn.Module):
    """Two networks in series: affine first, then the rest (Hu et al. 2018, composite network).

    ``u = local(moving o global, fixed)`` composed with ``global``: the local field moves a fixed point, then the global
    one does, and the moving image is interpolated once, with the composition.

    Args:
        global_network: joined pair -> DDF of the affine part.
        local_network: joined pair -> DDF of the remaining part.
    """

    def __init__(self, global_network: nn.Module, local_network: nn.Module) -> None:
        super().__init__()
        self.global_network = global_network
        self.local_network = local_network
        self.warp = Warp()

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        """``(batch, 2, *shape)`` -> DDF ``(batch, dims, *shape)`` in voxels."""
        moving, fixed = split_pair(pair)
        global_ddf = self.global_network(pair).float()
        aligned = self.warp(moving, global_ddf)
        local_ddf = self.local_network(torch.cat([aligned, fixed], dim=1)).float()
        return compose(local_ddf, global_ddf)
