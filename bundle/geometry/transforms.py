"""Spatial transforms in world space, from a fixed point to its moving point; mm, RAS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bundle.geometry.affines import spacing_of
from bundle.geometry.grids import apply_affine, inside_grid, sample, voxel_grid, without_alignment

FIT_POINTS = 20
"""Most points along every axis of a field to which its affine part is fitted."""

MOST_ITERATIONS = 100
"""Of an inverse."""
CLOSE_MM = 1e-3
"""Distance ``|T(p) - q|`` in mm at which an inverse is found."""
FIXED_POINT = 12
"""Fixed-point iterations before Newton's."""
DIFFERENCE = 0.2
"""Distance (mm) over which differences for a Jacobian are taken."""
FINEST = 0.1
"""Spacing (mm) of a field down to which these lengths hold; in finer ones (microscopy) they are as many voxels."""


@dataclass(frozen=True, eq=False)
class Displacement:
    """Displacements on a grid, ``p -> p + d(p)``; beyond the grid, the displacement of its border continues.

    Attributes:
        field: ``d``, ``(3, *shape)``, mm, RAS.
        affine: ``(4, 4)`` voxel-to-world of its grid.
    """

    field: torch.Tensor
    affine: np.ndarray

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """Move points ``(3, ...)``, mm, RAS."""
        field = self.field.to(points)
        return points + sample(field, self._voxels(points).reshape(3, 1, 1, -1), padding_mode="border").view_as(points)

    def covers(self, points: torch.Tensor) -> torch.Tensor:
        """Which points ``(3, ...)`` lie in a voxel of the grid."""
        return inside_grid(self._voxels(points), self.field.shape[1:])

    def affine_part(self) -> np.ndarray:
        """Affine ``(4, 4)`` closest to the field: ``min_B,t sum |d(p) - B (p - c) - t|^2`` with ``c`` its centre.

        For a field of one slice, it leaves the direction across the slice unchanged.
        """
        axes = [torch.linspace(0, size - 1, min(size, FIT_POINTS)).round().long() for size in self.field.shape[1:]]
        voxels = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        points = apply_affine(self.affine, voxels.double()).flatten(1).numpy()
        moved = self.field[(slice(None), *voxels)].double().flatten(1).cpu().numpy()
        centre, shift = points.mean(1), moved.mean(1)
        matrix = np.eye(4)
        # Directions in which the grid has no extent get the minimum-norm solution, which is 0.
        slope = np.linalg.lstsq(points.T - centre, moved.T - shift, rcond=1e-6)[0].T
        matrix[:3, :3] += slope
        matrix[:3, 3] = shift - slope @ centre
        return matrix

    def _voxels(self, points: torch.Tensor) -> torch.Tensor:
        return apply_affine(np.linalg.inv(self.affine), points)


@dataclass(frozen=True, eq=False)
class Transform:
    """Affines and displacements one after the other: ``T(p) = T_n(... T_1(p))``.

    Attributes:
        parts: ``T_1 ... T_n``; an affine is ``(4, 4)``, mm to mm, RAS.
    """

    parts: Sequence[np.ndarray | Displacement]

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """Move points ``(3, ...)``, mm, RAS."""
        for part in self.parts:
            points = part(points) if isinstance(part, Displacement) else apply_affine(part, points)
        return points

    def covers(self, points: torch.Tensor) -> torch.Tensor:
        """Which points ``(3, ...)`` lie on the grids of all displacements; all points, if there is no displacement."""
        covered = torch.ones(points.shape[1:], dtype=torch.bool, device=points.device)
        for part in self.parts:
            if isinstance(part, Displacement):
                covered &= part.covers(points)
                points = part(points)
            else:
                points = apply_affine(part, points)
        return covered

    @property
    def is_affine(self) -> bool:
        """Whether there is no displacement among the parts."""
        return not any(isinstance(part, Displacement) for part in self.parts)

    @property
    def scale(self) -> float:
        """Factor of lengths that are negligible, such as ``CLOSE_MM``: below 1 if a displacement is very fine."""
        spacing = [spacing_of(part.affine).min() for part in self.parts if isinstance(part, Displacement)]
        return float(min([FINEST, *spacing]) / FINEST)

    def affine_part(self) -> np.ndarray:
        """Affine ``(4, 4)`` of the parts, each displacement replaced by the affine closest to it."""
        matrix = np.eye(4)
        for part in self.parts:
            matrix = (part.affine_part() if isinstance(part, Displacement) else part) @ matrix
        return matrix

    def displacement_on(self, affine: np.ndarray, shape: Sequence[int]) -> torch.Tensor:
        """The transform as displacements on a grid, ``d(x) = T(A x) - A x``.

        Args:
            affine: ``A``, ``(4, 4)`` voxel-to-world of the grid.
            shape: its spatial shape.

        Returns:
            ``(3, *shape)``, mm, RAS.
        """
        points = apply_affine(affine, voxel_grid(shape))
        return self(points) - points

    def inverse_at(self, points: torch.Tensor, start: torch.Tensor | None = None) -> torch.Tensor:
        """Where points come from: solve ``T(p) = q`` for ``p``.

        The fixed-point iteration ``p <- p - a A^-1 (T(p) - q)`` with ``A`` the affine part (Chen et al. 2008 for
        ``A = I``) solves this for most points. Newton's iteration, with the Jacobian of ``T`` for ``A``, solves it
        where the field stretches space. The step ``a`` of a point is halved if a step does not bring it nearer, so the
        result is never worse than the start. An affine is inverted exactly.

        Args:
            points: ``q``, ``(3, ...)``, mm, RAS.
            start: guess of ``p``; by default ``A^-1 q``.

        Returns:
            ``p`` of the shape of ``points``; where the field folds or no point leads to ``q``, the nearest found.
        """
        back = np.linalg.inv(self.affine_part())
        target = points.flatten(1)
        found = apply_affine(back, target) if start is None else start.to(points).flatten(1).clone()
        if self.is_affine:
            return found.view_as(points)
        linear = back.copy()
        linear[:3, 3] = 0
        residual = self(found) - target
        distance = residual.norm(dim=0)
        step, close = torch.ones_like(distance), self.scale * CLOSE_MM
        for iteration in range(MOST_ITERATIONS):
            active = (distance > close).nonzero()[:, 0]
            if not len(active):
                break
            here, error = found[:, active], residual[:, active]
            change = apply_affine(linear, error) if iteration < FIXED_POINT else self._newton(here, error)
            trial = here - step[active] * change
            trial_residual = self(trial) - target[:, active]
            nearer = trial_residual.norm(dim=0) < distance[active]
            chosen = active[nearer]
            found[:, chosen], residual[:, chosen] = trial[:, nearer], trial_residual[:, nearer]
            distance[chosen] = trial_residual[:, nearer].norm(dim=0)
            step[active] = torch.where(nearer, (2 * step[active]).clamp(max=1), step[active] / 2)
        return found.view_as(points)

    def _newton(self, points: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Step ``J(p)^-1 r`` of Newton's iteration, the Jacobian by central differences."""
        apart = self.scale * DIFFERENCE
        axes = apart * torch.eye(3).to(points)
        columns = [(self(points + axis[:, None]) - self(points - axis[:, None])) / (2 * apart) for axis in axes]
        jacobian = torch.stack(columns, dim=-1).movedim(1, 0)
        # Where the field folds the Jacobian can be singular.
        return (torch.linalg.pinv(jacobian) @ residual.T[..., None])[..., 0].T


def aligned_transform(displacement: torch.Tensor, fixed_affine: np.ndarray, alignment: np.ndarray) -> Transform:
    """The transform of a field that includes an initial alignment, ``T(p) = M (p + u(p))``.

    Where the field ends, beyond the centres of its outermost voxels, ``u`` alone continues as at the border.

    Args:
        displacement: ``d(p) = T(p) - p``, ``(3, *fixed_shape)``, mm, RAS.
        fixed_affine: ``(4, 4)`` voxel-to-world of its grid.
        alignment: ``M``, ``(4, 4)``, fixed world to moving world, mm, RAS.
    """
    return Transform([Displacement(without_alignment(displacement, fixed_affine, alignment), fixed_affine), alignment])
