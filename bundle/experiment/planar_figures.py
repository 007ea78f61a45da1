"""Figure 4 of Park et al. 2021: planar images and their corresponding points, overlaid for every method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from bundle.experiment.curves import wrapped
from bundle.experiment.runs import NOT_REGISTERED
from bundle.formats import LoadPaird, read_landmarks, read_transform
from bundle.geometry import apply_affine, transform_points, voxel_grid, warp_native
from bundle.pages.drawing import scaled

COLUMNS = 5
PANEL = 1.7  # inches
POINT_FILES = ("landmarks", "fixed_landmarks", "moving_landmarks")
Files = Mapping[str, str | Path]


@dataclass(frozen=True, eq=False)
class Planar:
    """An image on the grid of the fixed image.

    ``image`` is ``(W, H)``, columns and rows; ``points`` are ``(n, 2)``, pixels, or None if there are none.
    """

    image: np.ndarray
    points: np.ndarray | None = None


def is_planar(path: str | Path) -> bool:
    """Whether an image is one slice."""
    return LoadPaird(["image"])({"image": path})["image"].shape[-1] == 1


def read_planar(
    files: Files, alignment: np.ndarray, folders: Mapping[str, Path]
) -> tuple[Planar, Planar, dict[str, Planar], tuple[float, ...]]:
    """Read what :func:`overlays` draws of one pair.

    Args:
        files: files of the pair: ``fixed_image``, ``moving_image`` [, ``landmarks`` or ``fixed_landmarks`` and
            ``moving_landmarks``].
        alignment: ``M``, ``(4, 4)``, fixed world to moving world, where registration started; mm, RAS.
        folders: by method, what ``bundle.results.SavePaird`` wrote for the pair.

    Returns:
        Fixed image, moving image with the initial alignment alone, results of each method, and the spacing (mm).

    Raises:
        ValueError: when an image or the points cannot be read.
    """
    images = ["fixed_image", "moving_image"]
    data = LoadPaird(images)({key: files[key] for key in images})
    fixed, moving = data["fixed_image"], data["moving_image"]
    affine, moving_affine = np.asarray(fixed.affine), np.asarray(moving.affine)
    fixed_points = _points(files, "fixed", affine)
    moving_points = _points(files, "moving", moving_affine)
    grid = apply_affine(affine, voxel_grid(fixed.shape[1:]))

    def pixels(points: np.ndarray) -> np.ndarray:
        return transform_points(np.linalg.inv(affine), points)[:, :2]

    def registered(folder: Path) -> Planar:
        (path,) = folder.glob("warped_image.*")
        image = LoadPaird(["warped_image"])({"warped_image": path})["warped_image"].numpy()[0, ..., 0]
        if moving_points is None:
            return Planar(image)
        transform = read_transform(folder / "displacement.nii.gz")
        return Planar(image, pixels(transform.inverse_at(torch.as_tensor(moving_points.T)).T.numpy()))

    start = warp_native(moving.as_tensor(), moving_affine, apply_affine(alignment, grid) - grid, affine)
    return (
        Planar(fixed.numpy()[0, ..., 0], None if fixed_points is None else pixels(fixed_points)),
        Planar(
            start.numpy()[0, ..., 0],
            None if moving_points is None else pixels(transform_points(np.linalg.inv(alignment), moving_points)),
        ),
        {name: registered(folder) for name, folder in folders.items()},
        tuple(fixed.pixdim.tolist()[:2]),
    )


def overlays(fixed: Planar, moving: Planar, results: Mapping[str, Planar], spacing: Sequence[float]) -> Figure:
    """Figure 4: the warped image in red and blue, the fixed one in green, white where they overlap.

    Points of the moving image are green dots, those of the fixed image yellow. The rows of the image go down.

    Args:
        fixed: the fixed image.
        moving: the moving image, initially aligned; the first panel.
        results: the registered moving image of each method.
        spacing: spacing of the pixels, mm.
    """
    panels = {NOT_REGISTERED: moving, **results}
    rows = -(-len(panels) // COLUMNS)
    (width, height), aspect = fixed.image.shape, spacing[1] / spacing[0]
    size = (PANEL * COLUMNS, rows * (PANEL * height * aspect / width + 0.4) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    green = scaled(fixed.image, fixed.image)
    for axis, (name, panel) in zip(axes, panels.items(), strict=False):
        purple = scaled(panel.image, moving.image)
        axis.imshow(np.stack([purple, green, purple], axis=-1).swapaxes(0, 1), aspect=aspect)
        axis.set_title(wrapped(name), fontsize=9)
        for points, colour, label in (
            (panel.points, "lime", "deformed points"),
            (fixed.points, "yellow", "fixed points"),
        ):
            if points is not None:
                axis.scatter(*points.T, s=5, c=colour, edgecolors="black", linewidths=0.3, label=label)
        # Points outside the image must not shrink it.
        axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    for axis in axes:
        axis.set_axis_off()
    handles, names = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside lower center", ncols=2)
    return figure


def _points(files: Files, side: str, affine: np.ndarray) -> np.ndarray | None:
    """Points of one image of a pair, mm, RAS; None if there are none."""
    if "landmarks" in files:
        return read_landmarks(files["landmarks"], affine, side, planar=True).points
    own = files.get(f"{side}_landmarks")
    return None if own is None else read_landmarks(own, affine, planar=True).points
