"""A saved transform applied to files: images, labels, points and surfaces."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

from bundle.data import stem
from bundle.formats import (
    check_writable,
    grid_problems,
    is_point_file,
    load_image,
    read_points,
    read_transform,
    save_image,
    written_type,
)
from bundle.formats.images import WRITTEN_SUFFIXES
from bundle.formats.nibabel_files import TIME_STEP
from bundle.formats.point_files import SUPPORTED
from bundle.formats.problems import dimensions
from bundle.formats.voxels import SEGMENT_NAMES, few_values
from bundle.geometry import Transform, apply_affine, inside_grid, voxel_grid, warp_native
from bundle.system import DataWarning, exists, spelt_otherwise
from bundle.system.limits import is_same_file, size

NOT_REACHED = 0.1
"""Distance (mm) to which the inverse may approach a point that counts as not reached; less in very fine fields."""
LISTED = 10  # most points whose numbers a line lists
LABEL_MODES = ("nearest", "gaussian")  # how labels are resampled
LOST = {TIME_STEP: "the step from volume to volume", SEGMENT_NAMES: "what its segments are called"}


@dataclass(frozen=True, eq=False)
class Pull:
    """A transform and the direction in which it is used.

    Attributes:
        transform: as it was read.
        inverse: False if it leads from the reference's world to the moving image's; True if the other way.
    """

    transform: Transform
    inverse: bool

    def to_moving(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map points ``(3, ...)`` of the reference's world to the moving image's; also which ones it covers."""
        return self._backward(points) if self.inverse else self._forward(points)

    def to_reference(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map points ``(3, ...)`` of the moving image's world to the reference's; also which ones it covers."""
        return self._forward(points) if self.inverse else self._backward(points)

    def _forward(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.transform(points), self.transform.covers(points)

    def _backward(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.transform.inverse_at(points)
        reached = (self.transform(found) - points).norm(dim=0) < self.transform.scale * NOT_REACHED
        return found, reached & self.transform.covers(found)


def apply_transform(
    transform: str | Path,
    moving: Sequence[str | Path],
    output: str | Path,
    reference: str | Path | None = None,
    inverse: bool = False,
    label: str | None = None,
    moving_grid: str | Path | None = None,
) -> list[str]:
    """Apply a saved transform to files; images are interpolated once.

    The transform takes a point of the reference, the fixed image, to the point of the moving image that is shown there.
    Images are resampled onto the reference's grid. Points and surfaces of the moving image move the other way, to where
    the resampled image shows them.

    Args:
        transform: a file that ``bundle.formats.read_transform`` reads.
        moving: images, and files of points and surfaces, in the moving image's world.
        output: file; or a folder, which ends in ``/`` or is there, where the files keep their names.
        reference: image whose grid the images get; points in voxels are written in its voxels.
        inverse: the transform leads from the moving image to the reference instead.
        label: one of ``LABEL_MODES`` for labels; None for images, which are interpolated linearly.
        moving_grid: image in whose voxels a CSV gives its points.

    Returns:
        What was done, a line per file.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: for files that do not fit together, in one line.
    """
    if label is not None and label not in LABEL_MODES:
        raise ValueError(f"label is {label!r}; expected {' or '.join(LABEL_MODES)}")
    if moving_grid is not None and reference is None:
        raise ValueError("moving_grid needs a reference: the image in whose voxels moved points are written")
    others = {"transform": transform, "reference": reference, "image of moving_grid": moving_grid}
    targets = _targets([Path(path) for path in moving], output, others)
    pull = Pull(read_transform(transform), inverse)
    grid = None if reference is None else _load(reference)
    before = None if moving_grid is None else _load(moving_grid)
    images = [path for path in targets if not is_point_file(path)]
    if grid is None and images:
        raise ValueError(f"{images[0]} needs a reference: the image whose grid it should get, such as the fixed image")
    lines = []
    for path, target in targets.items():
        if grid is not None and path in images:
            done = _resample(pull, path, target, grid, label)
        else:
            done = _move_points(pull, path, target, before, grid)
        lines.append(f"{path} -> {target}: {done}")
    return lines


def _targets(moving: Sequence[Path], to: str | Path, others: Mapping[str, str | Path | None]) -> dict[Path, Path]:
    """Where the result of every file goes; problems are refused before anything is computed."""
    missing = [f"{path}{spelt_otherwise(path)}" for path in moving if not exists(path)]
    if missing or not moving:
        raise FileNotFoundError(f"not found: {', '.join(missing) or 'no file was given'}")
    output = Path(to)
    if len(moving) == 1 and not output.is_dir() and not str(to).endswith("/"):
        targets = {moving[0]: output}
    elif output.is_file() or (not output.exists() and output.name.lower().endswith(WRITTEN_SUFFIXES)):
        what = "a file" if output.is_file() else "a file by its name"
        raise ValueError(f"{output} is {what}; the results of {len(moving)} files go into a folder")
    else:
        targets = {path: output / _kept_name(path) for path in moving}
    for path, target in targets.items():
        if not is_point_file(path):
            _check_image(target)
        for what, file in {"moving file": path, **others}.items():
            if file is not None and is_same_file(target, Path(file)):
                raise ValueError(f"{target} is the {what} itself; give another output")
    if len(set(targets.values())) < len(targets):
        raise ValueError("two of the files have the same name; give each an output of its own")
    return targets


def _check_image(target: Path) -> None:
    """Refuse a file that is neither a point file nor written as an image, such as a surface in another format."""
    try:
        check_writable(target)
    except ValueError as error:
        raise ValueError(f"{error}; points and surfaces are read from {SUPPORTED}") from error


def _kept_name(path: Path) -> str:
    """Name of a file; formats that are only read, such as the folder of a DICOM series, become NIfTI."""
    return path.name if path.name.lower().endswith(WRITTEN_SUFFIXES) or is_point_file(path) else f"{stem(path)}.nii.gz"


def _load(path: str | Path, label: bool = False) -> MetaTensor:
    """Load an image with a usable grid."""
    if not exists(path):
        raise FileNotFoundError(f"image not found: {path}{spelt_otherwise(path)}")
    image = load_image(str(path), "label" if label else "image")
    problems = grid_problems(image.shape[1:], np.asarray(image.affine), str(path), dimensions(image.shape[1:]))
    if problems:
        raise ValueError("; ".join(problems))
    return image


def _resample(pull: Pull, path: Path, target: Path, grid: MetaTensor, label: str | None) -> str:
    image = _load(path, label is not None)
    dtype = written_type(target, np.dtype(image.meta["stored_type"]), image.numpy())
    affine, shape = np.asarray(grid.affine, dtype=float), tuple(grid.shape[1:])
    points = apply_affine(affine, voxel_grid(shape))
    moved, covered = pull.to_moving(points)
    share = 100 * float(covered.float().mean())
    # Points that an inverse does not cover come from beyond the fixed image, where there is nothing; a transform that
    # ends within the reference would leave a seam there.
    if share == 0 or (not pull.inverse and share < 100):
        raise ValueError(
            f"the grid of the transform covers {share:.3g} % of the reference; give a reference within the image that "
            "the transform was made for"
        )
    if label is None and (values := few_values(image.numpy())):
        listed = ", ".join(f"{value:.0f}" for value in values)
        note = f"its values are {listed}, as those of a label"
        warnings.warn(f"{path}: {note}, and interpolation makes others; --label keeps them", DataWarning, stacklevel=2)
    for key, what in LOST.items():
        if found := image.meta.get(key):
            warnings.warn(f"{path}: {what}, {found}, is not kept", DataWarning, stacklevel=2)
    displacement, moving_affine = moved - points, np.asarray(image.affine, dtype=float)
    if not inside_grid(apply_affine(np.linalg.inv(moving_affine), moved), image.shape[1:]).any():
        raise ValueError(
            f"{path}: no voxel of the reference comes from within it by the transform; give an image that lies where "
            "the moving one of the transform does"
        )
    given = image.as_tensor(), moving_affine, displacement, affine
    warped = warp_native(*given) if label is None else warp_label(*given, label)
    save_image(warped.numpy(), affine, dtype, target)
    volumes = f"{len(warped)} x " if len(warped) > 1 else ""
    return f"{volumes}{size(shape)}, {dtype}"


def _move_points(pull: Pull, path: Path, target: Path, before: MetaTensor | None, grid: MetaTensor | None) -> str:
    planar = before is not None and before.shape[3] == 1
    file = read_points(path, None if before is None else np.asarray(before.affine, dtype=float), planar=planar)
    moved, covered = pull.to_reference(torch.as_tensor(file.points.T))
    outside = ~covered.numpy()
    file.write(target, moved.T.numpy(), outside, None if grid is None else np.asarray(grid.affine, dtype=float))
    count = f"{len(outside)} points"
    if not outside.any():
        return count
    numbers = (np.flatnonzero(outside) + 1).tolist()
    listed = ", ".join(map(str, numbers[:LISTED])) + (", ..." if len(numbers) > LISTED else "")
    return f"{count}, {len(numbers)} of them outside the volume of the transform (number {listed})"


def warp_label(
    label: torch.Tensor, moving_affine: np.ndarray, displacement: torch.Tensor, fixed_affine: np.ndarray, mode: str
) -> torch.Tensor:
    """Resample a label onto the fixed grid.

    ``"nearest"`` takes the nearest voxel. ``"gaussian"`` takes the structure with the largest share of a voxel,
    ``argmax_k (G * [m = k])(T(x))``. Along each moving axis, the Gaussian has half the coarser of the two voxel sizes.
    Contours stay smooth. What is thinner than about two thirds of the coarser voxel is lost everywhere; the nearest
    voxel would hit or miss it by chance.

    Args:
        label: ``(1, *moving_shape)`` integer map, or ``(channels, *moving_shape)`` with a structure per channel.
        moving_affine: ``(4, 4)`` voxel-to-world.
        displacement: ``(3, *fixed_shape)``, mm, RAS.
        fixed_affine: ``(4, 4)`` voxel-to-world.
        mode: one of ``LABEL_MODES``.

    Returns:
        ``(channels, *fixed_shape)``, values of the label; 0 where the moving label has no data.
    """
    if mode == "nearest":
        return warp_native(label, moving_affine, displacement, fixed_affine, "nearest")
    # Edges of a fixed voxel, in moving voxels: a Gaussian of half of each has these widths along the moving axes.
    edges = np.linalg.solve(moving_affine[:3, :3], fixed_affine[:3, :3])
    sigma = 0.5 * np.maximum(1, np.linalg.norm(edges, axis=1))

    def part(mask: torch.Tensor) -> torch.Tensor:
        """Share of every fixed voxel that a structure fills."""
        smooth = gaussian_filter(mask.numpy().astype(np.float32), sigma, mode="nearest")
        return warp_native(torch.as_tensor(smooth)[None], moving_affine, displacement, fixed_affine)[0]

    if len(label) > 1:
        return torch.cat([warp_label(one[None], moving_affine, displacement, fixed_affine, mode) for one in label])
    winner = torch.zeros(displacement.shape[1:], dtype=label.dtype)
    largest, total = torch.zeros(winner.shape), torch.zeros(winner.shape)
    for value in label[label != 0].unique():
        share = part(label[0] == value)
        winner = torch.where(share > largest, value, winner)
        largest, total = torch.maximum(largest, share), total + share
    # The rest of a voxel is background, also beyond the moving label.
    return torch.where(1 - total > largest, 0, winner)[None]
