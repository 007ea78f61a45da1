"""Toy grids, images and fields with known answers."""

import csv
import os
import signal
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation


def oblique_affine(spacing, degrees, origin, mirrored=(), single=True):
    """Voxel-to-world affine of a spacing, a rotation (xyz Euler angles), mirrored axes; as in NIfTI if ``single``."""
    signs = [-1.0 if axis in mirrored else 1.0 for axis in range(3)]
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * spacing * signs
    affine[:3, 3] = origin
    return affine.astype(np.float32).astype(np.float64) if single else affine


def rigid(degrees, translation, centre):
    """Rigid world transform ``p -> R (p - c) + c + t``, ``(4, 4)``."""
    transform = np.eye(4)
    transform[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    transform[:3, 3] = np.add(centre, translation) - transform[:3, :3] @ centre
    return transform


class Grid:
    """An image grid: its affine and shape."""

    def __init__(self, affine, shape):
        self.affine, self.shape = affine, shape

    @property
    def centre(self):
        return (self.affine @ [*((np.array(self.shape) - 1) / 2), 1])[:3]

    def world(self):
        """World position of every voxel, ``(3, *shape)``, mm."""
        voxels = np.stack(np.meshgrid(*map(np.arange, self.shape), indexing="ij")).astype(float)
        return np.tensordot(self.affine[:3, :3], voxels, axes=1) + self.affine[:3, 3].reshape(3, 1, 1, 1)

    def smooth_image(self, centre=None):
        """``texture`` relative to a world point, by default the centre of the grid."""
        return texture(self.world() - np.reshape(self.centre if centre is None else centre, (3, 1, 1, 1)))

    def ball(self, centre, radius):
        """Ball around a world point, uint8."""
        return ball(self.world(), centre, radius)


def texture(points):
    """Smooth scalar of points ``(3, ...)`` in mm: waves of 4 mm per radian and longer, from about 20 to 180."""
    x, y, z = points
    image = 100 + 40 * np.sin(x / 4) * np.cos(y / 5) + 25 * np.sin(z / 4.5 + y / 9) + 15 * np.cos(x / 7 - z / 6)
    return image.astype(np.float32)


def ball(points, centre, radius):
    """Where points ``(3, ...)`` are within ``radius`` of ``centre``, uint8."""
    return (np.linalg.norm(points - np.reshape(centre, (3, 1, 1, 1)), axis=0) <= radius).astype(np.uint8)


def affine_ddf(matrix, offset, shape):
    """DDF of ``x -> (I + matrix) x + offset`` in voxels, ``(dims, *shape)``."""
    voxels = torch.stack(torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in shape), indexing="ij"))
    offset = torch.as_tensor(offset, dtype=torch.float64).reshape(-1, *[1] * len(shape))
    return (torch.tensordot(torch.as_tensor(matrix, dtype=torch.float64), voxels, dims=1) + offset).float()


def apply(transform, points):
    """Homogeneous ``(4, 4)`` transform of points ``(3, ...)``."""
    offset = transform[:3, 3].reshape(3, *[1] * (points.ndim - 1))
    return np.tensordot(transform[:3, :3], points, axes=1) + offset


def touch(root, *names):
    """Empty files, with their folders."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def csv_rows(path):
    """Rows of a table, as text."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def by_pair(folder, name="metrics"):
    """Rows of a run's table by their pairs."""
    return {row["pair_id"]: row for row in csv_rows(folder / f"{name}.csv")}


def killer(number):
    """Wrapper of functions: the process dies right before the n-th call of all that are wrapped."""
    counted = 0

    def deadly(function):
        def call(*args, **kwargs):
            nonlocal counted
            counted += 1
            if counted == number:
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()  # it comes to one thread of the process; this one goes no further
            return function(*args, **kwargs)

        return call

    return deadly
