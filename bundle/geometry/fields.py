"""Deformation fields: composition, integration and Jacobians. Fields are DDFs in voxels of their own grid."""

from __future__ import annotations

import numpy as np
import torch
from monai.networks import blocks

from bundle.geometry.grids import interpolate, without_alignment


class Warp(blocks.Warp):
    """MONAI's ``Warp`` with linear interpolation, whose sampling of a pair uses all threads of a CPU.

    ``w(x) = m(x + u(x))``; beyond the border the image is constant.
    """

    def __init__(self) -> None:
        super().__init__(mode="bilinear", padding_mode="border")

    def forward(self, image: torch.Tensor, ddf: torch.Tensor) -> torch.Tensor:
        """Warp ``(batch, channels, *shape)`` by a DDF ``(batch, dims, *shape)`` in voxels.

        Raises:
            ValueError: when the DDF is of another grid.
        """
        if ddf.shape[2:] != image.shape[2:]:
            raise ValueError(f"the DDF has the grid {tuple(ddf.shape[2:])}, the image {tuple(image.shape[2:])}")
        steps = ddf.new_tensor([max(size - 1, 1) for size in ddf.shape[2:]]).reshape(-1, *[1] * (ddf.ndim - 2))
        places = (self.get_reference_grid(ddf) + ddf) * 2 / steps - 1
        return interpolate(image, places.flip(1).movedim(1, -1), "bilinear", "border")


def compose(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """DDF of applying ``first`` and then ``second`` to a fixed point.

    ``(u2 o u1)(x) = u1(x) + u2(x + u1(x))``: ``first`` moves the point ``x``, then ``second`` moves it from where it
    arrived.

    Args:
        first: ``(batch, dims, *shape)``, voxels.
        second: the same shape.
    """
    return first + Warp()(second, first)


def integrate(velocity: torch.Tensor, steps: int) -> torch.Tensor:
    """DDF of a stationary velocity field by scaling and squaring (Arsigny et al. 2006).

    Args:
        velocity: ``(batch, dims, *shape)``, voxels per unit time.
        steps: number of squarings; 0 takes the velocity itself as the displacement.

    Returns:
        ``(batch, dims, *shape)``, voxels.
    """
    if steps == 0:
        return velocity
    return blocks.DVF2DDF(num_steps=steps, mode="bilinear", padding_mode="border")(velocity)


def jacobian_determinant(ddf: torch.Tensor) -> torch.Tensor:
    """Determinant of the Jacobian of ``x -> x + u(x)`` by central differences inside, one-sided at the border.

    Args:
        ddf: ``(dims, *shape)``, voxels.

    Returns:
        ``shape``; 1 without deformation, 0 or less where the field folds.
    """
    rows = [torch.stack(torch.gradient(component)) for component in ddf]
    for axis, row in enumerate(rows):
        row[axis] += 1
    # Written out, because factorising millions of matrices takes ten times as long.
    if len(rows) == 2:
        return rows[0][0] * rows[1][1] - rows[0][1] * rows[1][0]
    return (rows[0] * torch.linalg.cross(rows[1], rows[2], dim=0)).sum(0)


def folded_voxels(ddf: torch.Tensor) -> int:
    """Number of voxels where the field folds: Jacobian determinant of 0 or less.

    Args:
        ddf: ``(dims, *shape)``, voxels.
    """
    return int((jacobian_determinant(ddf) <= 0).sum())


def log_jacobian_sd(ddf: torch.Tensor) -> float:
    """How unevenly the field stretches space: ``sqrt(mean((log det J - mean(log det J))^2))`` (Hering et al. 2023).

    The determinant has no unit, so the spacing of the grid does not matter. Folded voxels have no logarithm and are
    left out; ``folded_voxels`` counts them.

    Args:
        ddf: ``(dims, *shape)``, voxels.

    Returns:
        0 for a field that scales space evenly; NaN when every voxel folds.
    """
    determinant = jacobian_determinant(ddf)
    stretch = determinant[determinant > 0].log()
    return float((stretch - stretch.mean()).square().mean().sqrt())


def native_ddf(displacement: torch.Tensor, fixed_affine: np.ndarray, alignment: np.ndarray) -> torch.Tensor:
    """What a displacement adds to the initial alignment, as a DDF on the fixed image's own grid.

    ``v = A^-1 u`` with ``u`` of :func:`bundle.geometry.without_alignment` and ``A`` the linear part of the affine. The
    Jacobian of ``p -> p + u(p)`` in the world is ``I + (du/dx) A^-1 = A (I + dv/dx) A^-1``, so its determinant is that
    of ``v`` however oblique and anisotropic the grid is.

    Args:
        displacement: ``d``, ``(3, *fixed_shape)``, mm, RAS.
        fixed_affine: ``(4, 4)`` voxel-to-world of the fixed image.
        alignment: ``M``, ``(4, 4)`` fixed world to moving world.

    Returns:
        ``(dims, *shape)``, voxels of the fixed image, without axes of a single voxel.
    """
    field = without_alignment(displacement, fixed_affine, alignment)
    linear = torch.as_tensor(np.linalg.inv(fixed_affine[:3, :3])).to(field)
    axes = [axis for axis, size in enumerate(field.shape[1:]) if size > 1]
    return torch.tensordot(linear[axes], field, dims=1).squeeze().float()
