"""Voxel grids in world space.

Conventions used everywhere in the bundle:

* world coordinates are millimetres in RAS (what a NIfTI affine gives); ITK's LPS only appears in files;
* an affine ``A`` is 4x4 and maps voxel indices to world: ``p = A x``;
* a DDF is a pull-back field ``u`` in voxels of the grid it lives on, channel ``c`` along array axis ``c``:
  the value at fixed voxel ``x`` comes from ``x + u(x)``;
* a displacement is the same thing in millimetres of world space: the fixed point ``p`` comes from ``p + d(p)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from bundle.geometry.affines import HALF_VOXEL

LINEAR = {2: "bilinear", 3: "trilinear"}
"""What torch calls linear interpolation, by the number of spatial axes."""


def voxel_grid(shape: Sequence[int], device: torch.device | str = "cpu") -> torch.Tensor:
    """Voxel indices of every voxel of a grid.

    Args:
        shape: spatial shape, 2 or 3 axes.
        device: where to put the grid.

    Returns:
        Tensor ``(dims, *shape)``, voxels; channel ``c`` counts along axis ``c``. In double precision, and so are all
        world points computed from it: coordinates of a stage or a tracker can be 1e7 mm.
    """
    axes = [torch.arange(size, dtype=torch.float64, device=device) for size in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def apply_affine(affine: np.ndarray, points: torch.Tensor) -> torch.Tensor:
    """Apply a homogeneous affine to a field of points: ``q = A[:d,:d] p + A[:d,3]``.

    Args:
        affine: ``(4, 4)``.
        points: ``(dims, ...)`` coordinates in the affine's source space.

    Returns:
        Tensor of the same shape in the affine's target space.
    """
    dims = points.shape[0]
    matrix = torch.as_tensor(affine[:dims, :dims], dtype=points.dtype, device=points.device)
    offset = torch.as_tensor(affine[:dims, 3], dtype=points.dtype, device=points.device)
    return torch.tensordot(matrix, points, dims=1) + offset.reshape(-1, *[1] * (points.ndim - 1))


def sample(
    image: torch.Tensor, coordinates: torch.Tensor, mode: str = "bilinear", padding_mode: str = "zeros"
) -> torch.Tensor:
    """Interpolate an image at voxel coordinates.

    Args:
        image: ``(channels, *shape)``; a floating-point image sets the precision of the interpolation.
        coordinates: ``(dims, *out_shape)`` in voxels of ``image``.
        mode: ``"bilinear"`` (linear along every axis) or ``"nearest"``, of two that are as near the next, as in ITK.
        padding_mode: value outside the volume, ``"zeros"`` or ``"border"``.

    Returns:
        Tensor ``(channels, *out_shape)``.
    """
    if mode == "nearest":  # torch takes the even one of two; between grids half a voxel apart it skips every other
        coordinates = torch.floor(coordinates + HALF_VOXEL)
    sizes = torch.tensor(image.shape[1:], dtype=coordinates.dtype, device=coordinates.device)
    # torch's corner-aligned coordinates run from -1 to 1 with the last axis first; an axis of one voxel has no extent.
    scale = (2 / (sizes - 1).clamp(min=1)).reshape(-1, *[1] * (coordinates.ndim - 1))
    values = image if image.is_floating_point() else image.to(coordinates.dtype)
    grid = (coordinates * scale - 1).to(values.dtype).flip(0).movedim(0, -1)
    return interpolate(values[None], grid[None], mode, padding_mode)[0]


def interpolate(images: torch.Tensor, grid: torch.Tensor, mode: str, padding_mode: str) -> torch.Tensor:
    """Torch's corner-aligned ``grid_sample`` to the last bit, on all threads.

    It gives every volume of a batch to one thread, so a single one leaves the others idle. Here the points of a
    single volume are cut into a part for each thread; the parts share the volume. Where its own gradient is wanted,
    the parts would add up in another order, and nothing is cut.

    Args:
        images: ``(batch, channels, *shape)``.
        grid: ``(batch, *out_shape, dims)``, from -1 to 1, the last axis of ``shape`` first.
        mode: as in torch.
        padding_mode: as in torch.

    Returns:
        Tensor ``(batch, channels, *out_shape)``.
    """
    sampled = partial(F.grid_sample, mode=mode, padding_mode=padding_mode, align_corners=True)
    points, dims = grid[..., 0].numel(), grid.shape[-1]
    parts = next(count for count in range(torch.get_num_threads(), 0, -1) if points % count == 0)
    if parts == 1 or dims != 3 or len(images) > 1 or images.device.type != "cpu" or images.requires_grad:
        return sampled(images, grid)
    cut = grid.reshape(parts, 1, 1, points // parts, dims)
    values = sampled(images.expand(parts, *images.shape[1:]), cut)
    return values.movedim(0, 1).reshape(*images.shape[:2], *grid.shape[1:-1])


def inside_grid(voxels: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Which coordinates lie in a voxel of a grid; as in ITK, it extends half a voxel beyond its outermost centres.

    Args:
        voxels: ``(dims, ...)`` in voxels of the grid.
        shape: its spatial shape.

    Returns:
        Boolean tensor ``(...)``.
    """
    sizes = torch.tensor(shape).to(voxels).reshape(-1, *[1] * (voxels.ndim - 1))
    return ((voxels >= -HALF_VOXEL) & (voxels <= sizes - 1 + HALF_VOXEL)).all(0)


def at_faces(volume: torch.Tensor) -> torch.Tensor:
    """Values at the faces of a volume, those of its edges and corners several times.

    Args:
        volume: any shape; an axis of one voxel has no faces.

    Returns:
        ``(n,)``; all values where no axis has faces.
    """
    faces = [volume.select(axis, end) for axis, size in enumerate(volume.shape) if size > 1 for end in (0, -1)]
    return torch.cat([face.flatten() for face in faces or [volume]])


def averages(images: torch.Tensor, size: int | list[int], stride: int | None = None, **options: Any) -> torch.Tensor:
    """Means over cubes of voxels, ``(batch, channels, *shape)``; arguments are those of torch's average pooling."""
    return (F.avg_pool3d if images.ndim == 5 else F.avg_pool2d)(images, size, stride, **options)


def resize_ddf(ddf: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Resample a DDF to a grid of another size over the same extent, scaling its vectors.

    The corner voxels of the two grids coincide, so a vector along axis ``c`` is scaled by
    ``(new_c - 1) / (old_c - 1)``; the DDF of an affine transform is reproduced exactly.

    Args:
        ddf: ``(batch, dims, *old_shape)``, voxels of the old grid.
        shape: the new spatial shape.

    Returns:
        ``(batch, dims, *shape)``, voxels of the new grid.
    """
    old = ddf.shape[2:]
    scale = ddf.new_tensor([(new - 1) / max(size - 1, 1) for new, size in zip(shape, old, strict=True)])
    resized = F.interpolate(ddf, size=tuple(shape), mode=LINEAR[len(old)], align_corners=True)
    return resized * scale.reshape(1, -1, *[1] * len(old))


def enlarge_ddf(ddf: torch.Tensor, factor: int) -> torch.Tensor:
    """Bring a DDF to a grid with ``factor`` times as many voxels along every axis, scaling its vectors.

    The centre of fine voxel ``j`` lies at ``(j + 0.5) / factor - 0.5`` of the coarse grid, as after average pooling;
    beyond the outermost coarse centres the field is constant.

    Args:
        ddf: ``(batch, dims, *shape)``, voxels of the coarse grid.
        factor: fine voxels per coarse one; 1 changes nothing.

    Returns:
        ``(batch, dims, *(factor * shape))``, voxels of the fine grid.
    """
    if factor == 1:
        return ddf
    return factor * F.interpolate(ddf, scale_factor=factor, mode=LINEAR[ddf.ndim - 2], align_corners=False)


def lift_ddf(ddf: torch.Tensor) -> torch.Tensor:
    """Turn the DDF of a slice into that of a volume of one slice, without out-of-plane motion; keep a volume's DDF.

    Args:
        ddf: ``(2, X, Y)`` or ``(3, X, Y, Z)``, voxels.

    Returns:
        ``(3, X, Y, 1)`` or ``(3, X, Y, Z)``.
    """
    return ddf if len(ddf) == 3 else torch.cat([ddf, torch.zeros_like(ddf[:1])])[..., None]


def ddf_to_displacement(
    ddf: torch.Tensor,
    ddf_affine: np.ndarray,
    fixed_affine: np.ndarray,
    fixed_shape: Sequence[int],
    alignment: np.ndarray,
) -> torch.Tensor:
    """Displacement in mm on the fixed image's own grid, initial alignment composed in.

    For a fixed voxel ``x`` with world position ``p = A_fixed x`` and network voxel ``y = N^-1 p``::

        d(x) = M N (y + u(y)) - p

    Args:
        ddf: ``(3, *network_shape)`` pull-back field ``u``, voxels of the network grid.
        ddf_affine: ``N``, ``(4, 4)`` voxel-to-world of the network grid.
        fixed_affine: ``A_fixed``, ``(4, 4)`` voxel-to-world of the fixed image.
        fixed_shape: spatial shape of the fixed image.
        alignment: ``M``, ``(4, 4)`` fixed world to moving world.

    Returns:
        ``(3, *fixed_shape)`` in mm, RAS: the fixed point ``p`` comes from the moving point ``p + d``.
    """
    voxels = voxel_grid(fixed_shape, ddf.device)
    network_voxels = apply_affine(np.linalg.inv(ddf_affine) @ fixed_affine, voxels)
    moved = network_voxels + sample(ddf, network_voxels, padding_mode="border")
    return apply_affine(alignment @ ddf_affine, moved) - apply_affine(fixed_affine, voxels)


def without_alignment(displacement: torch.Tensor, fixed_affine: np.ndarray, alignment: np.ndarray) -> torch.Tensor:
    """What a displacement adds to the initial alignment: ``u(p)`` of ``p + d(p) = M (p + u(p))``.

    Args:
        displacement: ``d``, ``(3, *fixed_shape)``, mm, RAS.
        fixed_affine: ``(4, 4)`` voxel-to-world of the fixed image.
        alignment: ``M``, ``(4, 4)`` fixed world to moving world.

    Returns:
        ``(3, *fixed_shape)`` in mm of the fixed world, RAS.
    """
    points = apply_affine(fixed_affine, voxel_grid(displacement.shape[1:], displacement.device))
    return apply_affine(np.linalg.inv(alignment), points + displacement) - points


def warp_native(
    moving: torch.Tensor,
    moving_affine: np.ndarray,
    displacement: torch.Tensor,
    fixed_affine: np.ndarray,
    mode: str = "bilinear",
) -> torch.Tensor:
    """Resample a native moving image onto the fixed grid: ``w(x) = m(A_moving^-1 (A_fixed x + d(x)))``.

    Args:
        moving: ``(channels, *moving_shape)`` native voxels.
        moving_affine: ``(4, 4)`` voxel-to-world of the moving image.
        displacement: ``(3, *fixed_shape)``, mm, RAS.
        fixed_affine: ``(4, 4)`` voxel-to-world of the fixed image.
        mode: ``"bilinear"`` for images, ``"nearest"`` for labels.

    Returns:
        ``(channels, *fixed_shape)``; zero outside the voxels of the moving image, as ITK resamples.
    """
    points = apply_affine(fixed_affine, voxel_grid(displacement.shape[1:], displacement.device)) + displacement
    voxels = apply_affine(np.linalg.inv(moving_affine), points)
    # The value at the border may be NaN, of which a factor of 0 would leave NaN.
    values = sample(moving, voxels, mode=mode, padding_mode="border")
    return values.where(inside_grid(voxels, moving.shape[1:]), 0)
