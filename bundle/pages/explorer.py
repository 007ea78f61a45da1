"""The volumes of a registered pair that its page lets people explore, small enough for one file."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.colors import to_hex

from bundle.data import is_picture, side_tensor
from bundle.evaluation.landmarks import file_landmarks, native_affine
from bundle.evaluation.overlap import structure_channels
from bundle.evaluation.quality import length_unit
from bundle.formats import has_landmarks
from bundle.geometry import (
    apply_affine,
    centroids,
    jacobian_determinant,
    native_ddf,
    sample,
    voxel_grid,
    without_alignment,
)
from bundle.pages.drawing import scaled
from bundle.pages.slices import IMAGES, LABELS, log_or_nan, samples, structures
from bundle.pages.views import Volumes

MOST_VOXELS = 250_000
"""Most voxels of a volume in a page; for larger images, a voxel of the page is the average of a block."""
PALETTES = {"difference": "RdBu_r", "displacement": "viridis", "log_jacobian": "PuOr"}


class Blocks:
    """Blocks of voxels that become one voxel of the page; they are close to cubes in mm.

    Args:
        volumes: how the arrays of the pair are turned.
    """

    def __init__(self, volumes: Volumes) -> None:
        self.volumes = volumes
        steps = np.ones(3, dtype=int)
        counts = np.array(volumes.shape)
        while np.prod(-(-counts // steps)) > MOST_VOXELS:
            steps[np.where(steps < counts, volumes.spacing * steps, np.inf).argmin()] += 1
        self.steps = tuple(int(step) for step in steps)
        self.shape = tuple(int(count) for count in -(-counts // steps))
        placed = np.diag([*steps, 1.0])
        placed[:3, 3] = (steps - 1) / 2
        self.affine = volumes.affine @ placed

    def averaged(self, turned: np.ndarray) -> np.ndarray:
        """Mean of every block of ``(X, Y, Z)``; NaN if any of its voxels is."""
        voxels = torch.as_tensor(np.ascontiguousarray(turned, dtype=np.float32))
        pooled = torch.nn.functional.avg_pool3d(voxels[None], self.steps, ceil_mode=True, count_include_pad=False)
        return pooled[0].numpy()

    def middle(self, turned: np.ndarray) -> np.ndarray:
        """The voxel in the middle of every block of ``(X, Y, Z)``."""
        return turned[np.ix_(*(self.middles(axis) for axis in range(3)))]

    def middles(self, axis: int) -> np.ndarray:
        """Index of the middle of every block along an axis."""
        step = self.steps[axis]
        return np.minimum(np.arange(self.shape[axis]) * step + step // 2, self.volumes.shape[axis] - 1)


def explored(data: Mapping[Hashable, Any], longest: float, stretch: float, names: Mapping[str, str]) -> dict[str, Any]:
    """What ``templates/explore.js`` draws, ready for JSON.

    Args:
        data: a pair after ``bundle.evaluation.QualityVerdictd``.
        longest: displacement at the end of its scale.
        stretch: log-Jacobian at the end of its scale.
        names: names of structures, by number.

    Returns:
        The grid (``shape``, ``spacing``, ``affine``; ``steps`` of the image's own voxels), the ``planes`` that it is
        seen in, where to begin (``at``), ``landmarks`` in its voxels with their errors, the scales, and ``volumes``,
        each a byte per voxel, the first axis fastest, compressed by zlib, base64: images from 0 to 255; ``bits_*`` a
        bit per structure; ``maps_*`` 0 to 255; ``u_0 .. u_2`` components of the displacement along the axes, the
        initial alignment taken out, 128 being 0 and 255 ``reach``; ``log_jacobian``, 128 being 0 and 255 ``stretch``,
        and 0 where the field folds.
    """
    native = data["native_fixed_image"]
    volumes = Volumes(np.asarray(native.affine), native.shape[1:], picture=is_picture(native))
    blocks = Blocks(volumes)
    fixed_label = volumes.turn(data["native_fixed_label"][0].numpy()) > 0 if "native_fixed_label" in data else None
    views = volumes.views(fixed_label)
    alignment = np.asarray(data["initial_alignment"])
    displacement = torch.as_tensor(np.stack([volumes.turn(component) for component in data["displacement"].numpy()]))
    # Averaged at last: the blocks at the end of an axis may be smaller, and their middle is elsewhere.
    own = without_alignment(displacement, volumes.affine, alignment)
    field = torch.as_tensor(np.stack([blocks.averaged(component) for component in own.numpy()]))
    along = volumes.along_axes(field.numpy())
    reach = float(np.abs(along).max()) or 1.0
    found = _images(data, blocks) | {f"u_{axis}": 128 + 127 * part / reach for axis, part in enumerate(along)}
    found["log_jacobian"] = _log_jacobian(displacement, blocks, alignment, stretch)
    labels = {name: _masks(data[key].numpy(), blocks) for name, key in LABELS.items() if key in data}
    for name, masks in labels.items():
        packed = np.packbits(masks, axis=0, bitorder="little")
        found |= {f"bits_{name}_{number}": eight for number, eight in enumerate(packed)}
    maps = _maps(data, blocks, field) if "fixed_maps" in data else {}
    for name, channels in maps.items():
        found |= {f"maps_{name}_{number}": 255 * channel for number, channel in enumerate(channels)}
    start = {view.across: view.index // blocks.steps[view.across] for view in views}
    return {
        "shape": blocks.shape,
        "spacing": [float(step * size) for step, size in zip(blocks.steps, volumes.spacing, strict=True)],
        "affine": blocks.affine.tolist(),
        "steps": blocks.steps,
        "counts": volumes.shape,
        "unit": length_unit(native),
        "planes": [
            {"name": v.name, "across": v.across, "axes": v.axes, "upwards": v.upwards, "letters": v.letters or ()}
            for v in views
        ],
        "at": [start.get(axis, blocks.shape[axis] // 2) for axis in range(3)],
        "landmarks": _landmarks(data, blocks, names),
        "structures": {name: len(masks) for name, masks in labels.items()},
        "maps": len(next(iter(maps.values()), ())),
        "reach": reach,
        "ends": {"difference": [-1, 1], "displacement": [0, longest], "log_jacobian": [-stretch, stretch]},
        "palettes": {key: _palette(colours) for key, colours in PALETTES.items()},
        "volumes": {name: _packed(volume) for name, volume in found.items()},
    }


def _images(data: Mapping[Hashable, Any], blocks: Blocks) -> dict[str, np.ndarray]:
    ranges = {
        name: samples(data["native_fixed_image" if name == "fixed" else "native_moving_image"][0].numpy())
        for name in IMAGES
    }
    return {
        name: 255 * scaled(blocks.averaged(blocks.volumes.turn(data[key][0].numpy())), ranges[name])
        for name, key in IMAGES.items()
    }


def _masks(label: np.ndarray, blocks: Blocks) -> np.ndarray:
    """Masks ``(structures, X, Y, Z)`` of the values of a map ``(1, ...)``, or of channels."""
    coarse = [blocks.middle(blocks.volumes.turn(channel)) for channel in label]
    masks = [channel > 0 for channel in coarse] if len(coarse) > 1 else structures(coarse[0])
    return np.stack(masks) if masks else np.zeros((0, *blocks.shape), dtype=bool)


def _log_jacobian(turned: torch.Tensor, blocks: Blocks, alignment: np.ndarray, stretch: float) -> np.ndarray:
    """Levels of the mean over every block; 0 where any voxel of it folds."""
    determinant = jacobian_determinant(native_ddf(turned, blocks.volumes.affine, alignment)).numpy()
    levels = 128 + 127 * np.clip(blocks.averaged(log_or_nan(determinant.reshape(turned.shape[1:]))) / stretch, -1, 1)
    return np.where(np.isnan(levels), 0, levels)


def _maps(data: Mapping[Hashable, Any], blocks: Blocks, field: torch.Tensor) -> dict[str, np.ndarray]:
    """Maps of the anatomy at the page's voxels, from those on the network's grid."""
    onto = np.linalg.inv(np.asarray(data["fixed_image"].affine))
    here = apply_affine(blocks.affine, voxel_grid(blocks.shape))
    places = {"fixed": ("fixed", here), "moving": ("moving", here), "warped": ("moving", here + field)}
    return {
        name: sample(side_tensor(data, side, "maps").cpu().float(), apply_affine(onto, points).float()).numpy()
        for name, (side, points) in places.items()
    }


def _landmarks(data: Mapping[Hashable, Any], blocks: Blocks, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Landmarks and structures of the fixed image in voxels, with their distances before and after registration."""
    metrics = data["metrics"]
    errors = metrics.get("centre_mm", {}) | metrics.get("tre_mm", {})
    places: dict[str, np.ndarray] = {}
    numbers = [int(name) for name in errors if name.isdigit()]
    if numbers and "native_fixed_label" in data:
        channels = structure_channels(data["native_fixed_label"].as_tensor().cpu(), numbers)
        centres = centroids(channels, native_affine(data, "fixed"))
        places |= dict(zip(map(str, numbers), np.asarray(centres), strict=True))
    # The files may be gone by the time a result in memory is saved.
    files = [Path(str(data[key])) for key in ("landmarks", "fixed_landmarks", "moving_landmarks") if key in data]
    if has_landmarks(data) and all(file.exists() for file in files):
        points = file_landmarks(data)
        places |= dict(zip(points.names, points.fixed, strict=True))
    onto = np.linalg.inv(blocks.affine)
    return [
        {"name": names.get(name, name), "at": (onto[:3, :3] @ place + onto[:3, 3]).tolist(), **errors[name]}
        for name, place in places.items()
        if name in errors and np.isfinite(place).all()
    ]


def _palette(colours: str) -> str:
    """The 256 colours of a map, as hexadecimal digits."""
    return "".join(to_hex(colour)[1:] for colour in matplotlib.colormaps[colours](np.arange(256)))


def _packed(volume: np.ndarray) -> str:
    levels = np.rint(volume).clip(0, 255).astype(np.uint8)
    return base64.b64encode(zlib.compress(levels.tobytes(order="F"))).decode()
