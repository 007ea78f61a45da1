"""What makes an image or a label unfit for registration, as pure functions of array and affine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bundle.formats.voxels import fractions
from bundle.geometry import corner_distance, spacing_of
from bundle.system.limits import MOST_VALUES, size

# A planar image has three axes too: it is a volume of one slice.
AXES = 3


def image_problems(array: np.ndarray, affine: np.ndarray, name: str, spatial_dims: int = 3) -> list[str]:
    """What makes an image unfit for registration.

    Args:
        array: ``(channels, *shape)``, intensities; one channel is expected. A tensor on the CPU will do.
        affine: voxel -> world, homogeneous.
        name: name of the image in messages.
        spatial_dims: 3 for volumes, 2 for planar images, which are volumes of one slice.

    Returns:
        Problems, one line each; none when the image is fit.
    """
    array = np.asarray(array)
    problems = shape_problems(array.shape, affine, name, spatial_dims)
    if array.size:
        bad = array.size - int(np.isfinite(array).sum())
        if bad:
            problems.append(f"{name}: {bad} of {array.size} values are NaN or infinite; replace them with numbers")
        elif array.min() == array.max():
            what = "empty" if array.flat[0] == 0 else "constant"
            problems.append(f"{name}: {what} image, every value is {array.flat[0]:g}; leave it out")
    return problems


def shape_problems(shape: Sequence[int], affine: np.ndarray, name: str, spatial_dims: int) -> list[str]:
    """Those of the problems of an image that its header tells; ``shape`` is ``(channels, X, Y, Z)``."""
    problems = grid_problems(shape[1:], affine, name, spatial_dims)
    if len(shape) == AXES + 1 and shape[0] > 1:
        parts = "volumes (a time series, or colours?)" if spatial_dims == 3 else "channels"
        problems.append(f"{name}: an image of {shape[0]} {parts}, expected one channel; extract one")
    return problems


def label_problems(
    array: np.ndarray,
    affine: np.ndarray,
    name: str,
    image: tuple[Sequence[int], np.ndarray] | None = None,
    spatial_dims: int = 3,
    kind: str = "label",
) -> list[str]:
    """What makes a label or a mask unfit.

    Args:
        array: ``(channels, *shape)``: one channel of whole numbers, or one structure per channel.
        affine: voxel -> world, homogeneous.
        name: name of the label in messages.
        image: shape and affine of the image it belongs to; None if that could not be read.
        spatial_dims: 3 for volumes, 2 for planar images.
        kind: ``"label"``, or ``"mask"``, which has one channel.

    Returns:
        Problems, one line each; none if the label is fit. A single empty structure is not a problem.
    """
    array = np.asarray(array)
    problems = grid_problems(array.shape[1:], affine, name, spatial_dims)
    if not problems and image is not None:
        problems = other_grid(array.shape[1:], affine, f"{name}: the {kind}", *image)
    if kind == "mask" and array.shape[0] > 1:
        problems.append(f"{name}: a mask of {array.shape[0]} channels, expected one")
    if array.size:
        if not np.isfinite(array).all():
            problems.append(f"{name}: the {kind} has NaN or infinite values; {kind}s are whole numbers")
        elif found := fractions(array, kind):
            problems.append(f"{name}: {found}")
        elif not array.any():
            problems.append(f"{name}: the {kind} is empty, every value is 0; leave it out")
    return problems


def number_problems(channels: int, structures: Mapping[str, int], name: str) -> list[str]:
    """Structures that a label cannot have. A value that an integer map does not hold is an empty structure.

    Args:
        channels: number of channels of the label; one is an integer map.
        structures: its numbers by name.
        name: name of the label in messages.

    Returns:
        Problems, one line each.
    """
    if channels == 1:
        return [
            f"{name}: {structure} is 0, the background of an integer map; give the value of its voxels"
            for structure, number in structures.items()
            if number == 0
        ]
    return [
        f"{name}: {structure} is channel {number}, but the label has the channels 0 to {channels - 1}; correct the "
        "number, or leave the name out"
        for structure, number in structures.items()
        if number >= channels
    ]


def other_grid(
    shape: Sequence[int], affine: np.ndarray, name: str, image_shape: Sequence[int], image_affine: np.ndarray
) -> list[str]:
    """Report a label on a different grid from its image: another size, or a corner more than half a voxel away."""
    if tuple(shape) != tuple(image_shape):
        return [f"{name} is {size(shape)} and its image {size(image_shape)}; give both one grid"]
    distance = corner_distance(shape, affine, image_affine)
    if distance <= 0.5 * spacing_of(image_affine).min():
        return []
    return [f"{name} lies up to {distance:.3g} mm from its image by their affines; give both one header"]


def grid_problems(shape: Sequence[int], affine: np.ndarray, name: str, spatial_dims: int) -> list[str]:
    """What is wrong with a grid: its number of axes and voxels, its affine.

    Args:
        shape: voxels along each axis.
        affine: voxel -> world, homogeneous.
        name: name of the image in messages.
        spatial_dims: 3 for volumes, 2 for planar images, which are volumes of one slice.

    Returns:
        Problems, one line each.
    """
    unfit = _planar_shape(shape) if spatial_dims == 2 else _volume_shape(shape)
    problems = [f"{name}: {unfit}"] if unfit else []
    affine = np.asarray(affine, dtype=float)
    if affine.shape != (AXES + 1, AXES + 1):
        return [*problems, f"{name}: affine of size {size(affine.shape)}, expected {AXES + 1} x {AXES + 1}"]
    if not np.isfinite(affine).all():
        return [*problems, f"{name}: the affine has NaN or infinite values; correct the header"]
    axes, spacing = affine[:AXES, :AXES], spacing_of(affine)
    if (spacing == 0).any():
        found = size([f"{length:g}" for length in spacing])
        problems.append(f"{name}: spacing {found}, expected more than 0 (singular affine); correct the header")
    # Volume spanned by the unit axes: 1 when they are orthogonal, 0 when one lies in the plane of the others.
    elif abs(np.linalg.det(axes / spacing)) < 1e-3:
        problems.append(f"{name}: singular affine, its axes lie in one plane; correct the header")
    elif not np.allclose(affine[AXES], np.eye(AXES + 1)[AXES]):
        last = " ".join(f"{number:g}" for number in affine[AXES])
        problems.append(f"{name}: the last row of the affine is {last}, expected 0 0 0 1; is it transposed?")
    return problems


def extent_problems(shape: Sequence[int], affine: np.ndarray, name: str, pixdim: float) -> list[str]:
    """What makes an image unfit for the grid of a network: an extent of less than a voxel, or of too many.

    Args:
        shape: voxels along each axis.
        affine: voxel -> world, homogeneous.
        name: name of the image in messages.
        pixdim: spacing of the network's grid.

    Returns:
        Problems, one line each.
    """
    extent = spacing_of(affine) * shape
    if pixdim > 0 and not (extent >= pixdim).all():
        fault = "less than one voxel"
    elif pixdim > 0 and np.prod(extent / pixdim) > MOST_VALUES:
        fault = f"more than {MOST_VALUES} voxels"
    else:
        return []
    across = size([f"{length:.3g}" for length in extent])
    return [f"{name}: {across} mm, {fault} of pixdim {pixdim:g} mm; correct the spacing in the header, or pixdim"]


def dimensions(shape: Sequence[int]) -> int:
    """2 for a planar image, which has one axis of one voxel; 3 for anything else."""
    return 2 if len(shape) == AXES and list(shape).count(1) == 1 else 3


def _volume_shape(shape: Sequence[int]) -> str:
    """What makes a shape unfit for registration of volumes; empty if it is fit."""
    if len(shape) != AXES:
        return f"a {len(shape)}-D image ({size(shape)}), expected 3-D"
    if dimensions(shape) == 2 and min(shape) == 1:
        return f"{size(shape)} voxels, a single slice, expected a volume; configs/inference_2d.yaml registers slices"
    return "" if min(shape) > 1 else f"{size(shape)} voxels, expected at least 2 along each of 3 axes"


def _planar_shape(shape: Sequence[int]) -> str:
    """What makes a shape unfit for registration of planar images; empty if it is fit."""
    if len(shape) != AXES:
        return f"a {len(shape)}-D image ({size(shape)}), expected a planar image, 3-D with one slice"
    *plane, slices = shape
    if slices > 1 and dimensions(shape) == 2:
        expected = f"{size([*(length for length in shape if length > 1), 1])}"
        return f"{size(shape)} voxels, expected {expected}: the slice axis must be the third; move it there"
    if slices != 1:
        return f"{size(shape)} voxels, a volume, expected one slice; configs/inference.yaml registers volumes"
    return "" if min(plane) > 1 else f"{size(shape)} voxels, expected at least 2 along both axes of the plane"
