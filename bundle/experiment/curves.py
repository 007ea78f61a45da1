"""The figures of the experiment of Baum et al. 2022, section 4, and the accuracy over steps or epochs."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.data import MetaTensor
from monai.transforms import Orientation
from PIL import Image

from bundle.data import CheckPaird
from bundle.experiment.runs import NOT_REGISTERED
from bundle.experiment.statistics import summarise
from bundle.formats import LoadPaird, read_transform
from bundle.geometry import apply_affine, voxel_grid, warp_native, without_alignment
from bundle.pages.drawing import scaled
from bundle.pages.views import slice_of_interest
from bundle.system import written_whole

WHISKERS = (10, 90)  # percentiles
DPI = 150
CELL = 1.9  # inches a slice is wide
FILES = ("fixed_image", "moving_image", "fixed_label", "moving_label")
Panels = dict[str, dict[str, dict[int, Sequence[float]]]]
ROWS = ("warped", "checkerboard", "gland", "DDF")


def boxplots(values: Mapping[str, Sequence[float]], ylabel: str) -> Figure:
    """Tukey's boxplots (Figures 2 and 3): whiskers at the 10th and 90th percentiles, dots beyond, the mean a diamond.

    Args:
        values: values of the pairs, by method; a method without any leaves a gap.
        ylabel: what the values are, with their unit.
    """
    figure = Figure(figsize=(1.2 + 1.4 * max(len(values), 2), 4.2), layout="constrained")
    axis = figure.subplots()
    axis.boxplot(
        list(values.values()),
        tick_labels=[wrapped(name) for name in values],
        whis=WHISKERS,
        widths=0.5,
        patch_artist=True,
        showmeans=True,
        boxprops={"facecolor": "#d6e4f0"},
        medianprops={"color": "#b03a2e", "linewidth": 1.6},
        meanprops={"marker": "D", "markersize": 5, "markerfacecolor": "white", "markeredgecolor": "black"},
        flierprops={"marker": ".", "markersize": 6, "markerfacecolor": "black", "markeredgecolor": "black"},
    )
    axis.set_ylabel(ylabel)
    axis.grid(axis="y", alpha=0.3)
    return figure


def method_curves(panels: Panels, xlabel: str, levels: Mapping[str, float] = MappingProxyType({})) -> Figure:
    """Mean over the pairs, and its standard error as a band, after every number of steps or epochs.

    Args:
        panels: name of the start -> title of the measure -> number of steps -> values of the pairs. A measure has one
            panel, a start one line.
        xlabel: what the numbers count.
        levels: title of the measure -> value of a dotted line.
    """
    titles = list(dict.fromkeys(title for measures in panels.values() for title in measures))
    figure = Figure(figsize=(4.2 * len(titles), 3.9), layout="constrained")
    last = max(steps for measures in panels.values() for points in measures.values() for steps in points)
    ticks = [0, *(digit * 10**power for power in range(len(str(last))) for digit in (1, 2, 5))]
    for axis, title in zip(figure.subplots(1, len(titles), squeeze=False)[0], titles, strict=True):
        for number, (start, measures) in enumerate(panels.items()):
            steps = sorted(step for step, values in measures.get(title, {}).items() if len(values))
            samples = [summarise(measures[title][step]) for step in steps]
            mean = np.array([sample.mean for sample in samples])
            error = np.array([sample.sd / np.sqrt(sample.n) for sample in samples])
            colour = f"C{number}"
            axis.plot(steps, mean, marker="o", markersize=4, color=colour, label=plain(start))
            axis.fill_between(steps, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
        if title in levels:
            axis.plot([0, last], [levels[title]] * 2, color="black", linestyle=":", linewidth=1.4)
        # Linear from 0 to 1 and logarithmic beyond: the first steps matter most, and 0 can be shown.
        axis.set_xscale("symlog", linthresh=1, linscale=0.4)
        axis.set_xticks([tick for tick in ticks if tick <= last], [str(tick) for tick in ticks if tick <= last])
        axis.set_xlabel(xlabel)
        axis.set_title(title)
        axis.grid(alpha=0.3)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(3, len(names)))
    return figure


@dataclass(frozen=True, eq=False)
class Volume:
    """An image on the grid of the fixed image.

    ``image`` and ``gland`` (bool, or None without a label) are ``(X, Y, Z)``, the axes pointing left, anterior and
    superior.
    """

    image: np.ndarray
    gland: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Registered(Volume):
    """A registered moving image and its DDF ``(3, X, Y, Z)``: mm along the axes, without the initial alignment."""

    ddf: np.ndarray


def read_volumes(
    pair: Mapping[str, str | Path], alignment: np.ndarray, folders: Mapping[str, Path]
) -> tuple[Volume, Volume, dict[str, Registered], tuple[float, ...]]:
    """Read what :func:`method_slices` draws of one pair.

    Args:
        pair: ``pair_id`` and the files ``fixed_image`` and ``moving_image`` [, ``fixed_label`` and ``moving_label``].
        alignment: ``M``, ``(4, 4)``, fixed world to moving world, where registration started; mm, RAS.
        folders: by method, what ``bundle.results.SavePaird`` wrote for the pair.

    Returns:
        Fixed image, moving image with the initial alignment alone, results of each method, and the spacing (mm).

    Raises:
        ValueError: when an image cannot be read or does not fit its label.
    """
    data = CheckPaird()(LoadPaird(list(FILES), allow_missing_keys=True)({key: pair[key] for key in pair}))
    affine = np.asarray(data["fixed_image"].affine)
    points = apply_affine(affine, voxel_grid(data["fixed_image"].shape[1:]))
    start = apply_affine(alignment, points) - points
    turned = Orientation(axcodes="LAS", labels=None)
    canonical = turned(data["fixed_image"])
    spacing = canonical.pixdim.numpy()
    axes = np.asarray(canonical.affine)[:3, :3] / spacing

    def oriented(array: torch.Tensor) -> np.ndarray:
        return turned(MetaTensor(array.numpy(), affine=affine)).numpy()

    def gland(label: torch.Tensor | None) -> np.ndarray | None:
        return None if label is None else oriented(label)[0] > 0

    def aligned(key: str, mode: str) -> torch.Tensor:
        return warp_native(data[key].as_tensor(), np.asarray(data[key].affine), start, affine, mode)

    def registered(folder: Path) -> Registered:
        names = ["warped_image", *(["warped_label"] if (folder / "warped_label.nii.gz").exists() else [])]
        warped = LoadPaird(names)({name: folder / f"{name}.nii.gz" for name in names})
        field = read_transform(folder / "displacement.nii.gz").displacement_on(affine, data["fixed_image"].shape[1:])
        ddf = oriented(without_alignment(field, affine, alignment))
        return Registered(
            oriented(warped["warped_image"])[0], gland(warped.get("warped_label")), np.tensordot(axes.T, ddf, axes=1)
        )

    fixed = Volume(oriented(data["fixed_image"])[0], gland(data.get("fixed_label")))
    moving_label = aligned("moving_label", "nearest") if "moving_label" in data else None
    moving = Volume(oriented(aligned("moving_image", "bilinear"))[0], gland(moving_label))
    results = {name: registered(folder) for name, folder in folders.items()}
    return fixed, moving, results, tuple(spacing.tolist())


def method_slices(fixed: Volume, moving: Volume, results: Mapping[str, Registered], spacing: Sequence[float]) -> Figure:
    """Figure 4: the axial slice with most of the gland, as every method registers it.

    The left column has the fixed image, the moving image and the contours of both before registration. Each method has
    the rows: warped image; checkerboard of warped and fixed; gland on the fixed image, warped red and fixed green;
    length of the DDF in mm, with arrows to scale from a fixed point to its moving point.

    Args:
        fixed: the fixed image.
        moving: the moving image, initially aligned.
        results: the registered moving image of each method.
        spacing: spacing of the voxels, mm.
    """
    index = slice_of_interest(fixed.gland, fixed.image.shape, 2)
    target = scaled(fixed.image, fixed.image)[..., index]
    width, height = (size * step for size, step in zip(target.shape, spacing, strict=False))
    size = (CELL * (1 + len(results)) + 0.8, 4 * CELL * height / width + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(4, 1 + len(results))
    lengths = {name: np.linalg.norm(volume.ddf[..., index], axis=0) for name, volume in results.items()}
    longest = max(length.max() for length in lengths.values()) or 1.0
    aspect = spacing[1] / spacing[0]

    def show(axis: Any, picture: np.ndarray, title: str = "", **style: Any) -> Any:
        axis.set_title(title, fontsize=9)
        return axis.imshow(picture.T, origin="lower", aspect=aspect, **{"cmap": "gray", "vmin": 0, "vmax": 1, **style})

    def contours(axis: Any, volume: Volume, title: str = "") -> None:
        show(axis, target, title)
        for gland, colour in ((fixed.gland, "lime"), (volume.gland, "red")):
            if gland is not None and 0 < gland[..., index].mean() < 1:
                axis.contour(gland[..., index].T.astype(float), levels=[0.5], colors=colour, linewidths=1)

    show(axes[0, 0], target, "fixed")
    show(axes[1, 0], scaled(moving.image, moving.image)[..., index], "moving")
    contours(axes[2, 0], moving, NOT_REGISTERED)
    squares = (np.indices(target.shape) // max(2, min(target.shape) // 8)).sum(0) % 2
    for column, (name, volume) in zip(axes.T[1:], results.items(), strict=True):
        warped = scaled(volume.image, moving.image)[..., index]
        show(column[0], warped, wrapped(name))
        show(column[1], np.where(squares, target, warped))
        contours(column[2], volume)
        shown = show(column[3], lengths[name], cmap="viridis", vmax=longest)
        _arrows(column[3], volume.ddf[:2, ..., index], spacing)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.set_frame_on(False)
    for axis, title in zip(axes[:, 1], ROWS, strict=True):
        axis.set_ylabel(title, fontsize=9)
    figure.colorbar(shown, cax=axes[3, 0].inset_axes((0.05, 0.5, 0.9, 0.08)), orientation="horizontal", label="mm")
    return figure


def _arrows(axis: Any, vectors: np.ndarray, spacing: Sequence[float]) -> None:
    """Arrows of in-plane vectors ``(2, X, Y)``, mm, about a dozen along the shorter side."""
    every = max(1, min(vectors.shape[1:]) // 12)
    x, y = np.meshgrid(*(np.arange(every // 2, size, every) for size in vectors.shape[1:]), indexing="ij")
    across, up = (vectors[k, x, y] / spacing[k] for k in range(2))
    axis.quiver(x, y, across, up, color="white", angles="xy", scale_units="xy", scale=1, width=0.006)


def wrapped(name: str) -> str:
    """Break a name between words into lines of at most 18 letters."""
    return textwrap.fill(plain(name), 18, break_long_words=False, break_on_hyphens=False) or name


def plain(name: str) -> str:
    """A name for matplotlib to draw letter by letter: ``$`` begins no formula, and ``_`` hides it from no legend."""
    shown = name.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def save_figure(figure: Figure, stem: Path) -> str:
    """Write ``<stem>.pdf`` and ``<stem>.png``, without dates, so that the same figure gives the same bytes.

    Returns:
        Name of the PNG.
    """
    drawn = {suffix: io.BytesIO() for suffix in (".pdf", ".png")}
    figure.savefig(drawn[".pdf"], format="pdf", dpi=DPI, metadata={"CreationDate": None})
    figure.savefig(drawn[".png"], format="png", dpi=DPI)
    # 256 colours are enough for a figure, and a third of the bytes.
    picture = Image.open(drawn[".png"]).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    drawn[".png"] = io.BytesIO()
    picture.save(drawn[".png"], format="PNG", optimize=True, dpi=(DPI, DPI))
    for suffix, buffer in drawn.items():
        with written_whole(stem.with_name(stem.name + suffix), "wb") as file:
            file.write(buffer.getvalue())
    return f"{stem.name}.png"
