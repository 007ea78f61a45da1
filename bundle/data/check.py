"""Check a data set before it is used: what is in it, and every problem at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bundle.data.datalist import FRACTIONS, survey
from bundle.data.layouts import KINDS, SIDES
from bundle.data.structures import differing_names, mixed_forms, unshared_values
from bundle.data.validation import Pair, Sections
from bundle.formats.parts import Grid, read_part
from bundle.formats.point_files import has_landmarks, pair_points
from bundle.formats.problems import dimensions, grid_problems, image_problems, label_problems, number_problems
from bundle.formats.voxels import SEGMENT_NAMES, Found
from bundle.geometry import spacing_of
from bundle.system.errors import printable, tried
from bundle.system.limits import exists, expanded

WIDTH = 120


@dataclass(frozen=True)
class FileFacts:
    """What one image or label file holds: size, spacing (mm; pixels for a PNG), orientation and values."""

    shape: tuple[int, ...]
    affine: np.ndarray
    orientation: str
    channels: int
    values: tuple[float, ...]  # lowest and highest intensity of an image, values of a label
    names: str = ""  # of the segments of a label, as ``bundle.formats.parts.segment_doubt`` takes them

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance between voxels along each axis."""
        return tuple(spacing_of(self.affine).tolist())


@dataclass
class Report:
    """Result of :func:`check_data`; ``str(report)`` is the table to print, ``problems`` is empty if all is well."""

    dataset_dir: Path
    sections: Sections = field(default_factory=dict)
    facts: dict[str, FileFacts] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The table, 120 columns wide; problems follow, one line each."""
        lines = [f"data set {self.dataset_dir}"]
        if self.sections:
            lines += ["", *_table(self._section_rows())]
        if any("task" in pair for pairs in self.sections.values() for pair in pairs):
            lines += ["", *_table(self._task_rows())]
        if self.facts:
            lines += ["", *_table(self._file_rows())]
        if not self.problems:
            return [*lines, "", "no problems"]
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        return [*lines, "", count, *(f"  - {printable(problem)}" for problem in self.problems)]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _section_rows(self) -> Iterator[Sequence[str]]:
        """Pairs of each section, their patients, images, and how many pairs have both labels, masks, landmarks."""
        yield ("section", "pairs", "patients", "images", "with labels", "with masks", "with landmarks")
        for section, pairs in self.sections.items():
            patients = {patient for pair in pairs for patient in pair["patient"]}
            images = {pair[f"{side}_image"] for pair in pairs for side in SIDES}
            # A pair has landmarks in one file for both images, or in one for each.
            both = [
                sum(kind in pair or (f"fixed_{kind}" in pair and f"moving_{kind}" in pair) for pair in pairs)
                for kind in KINDS[1:]
            ]
            yield (section, *(str(count) for count in (len(pairs), len(patients), len(images), *both)))

    def _task_rows(self) -> Iterator[Sequence[str]]:
        """Pairs of each task in each section."""
        counts = {section: Counter(pair.get("task", "-") for pair in pairs) for section, pairs in self.sections.items()}
        yield ("task", *(f"{section} pairs" for section in counts))
        for task in sorted(set().union(*counts.values())):
            yield (task, *(str(counted[task]) for counted in counts.values()))

    def _file_rows(self) -> Iterator[Sequence[str]]:
        """Sizes and values of the images, labels and masks; fixed and moving ones share a row if they are the same."""
        yield ("files", "count", "shape", "spacing (mm)", "orientation", "values")
        for kind in ("image", "label", "mask"):
            fixed, moving = (
                {
                    path: None
                    for pairs in self.sections.values()
                    for pair in pairs
                    if (path := pair.get(f"{side}_{kind}"))
                }
                for side in SIDES
            )
            groups = {f"fixed {kind}s": fixed, f"moving {kind}s": moving}
            for name, paths in ({f"{kind}s": fixed | moving} if fixed.keys() & moving.keys() else groups).items():
                facts = [self.facts[path] for path in paths if path in self.facts]
                if facts:
                    values = _intensities(facts) if kind == "image" else _structures(facts)
                    counted = Counter(fact.orientation for fact in facts)
                    orientations = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
                    yield (
                        name,
                        str(len(facts)),
                        _ranges([fact.shape for fact in facts]),
                        _ranges([fact.spacing for fact in facts]),
                        _first([f"{axes} ({count})" for axes, count in orientations], 2),
                        values,
                    )


def check_data(
    dataset_dir: str | Path,
    datalist: str | Path | None = None,
    *,
    pairing: str = "paired",
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    spatial_dims: int | None = None,
) -> Report:
    """Open every file that the pairs of a data set name, each once; of single images, all pairs that they form.

    Args:
        dataset_dir: folder of the data set.
        datalist: this and the next options are those of :func:`bundle.data.datalist.read_datalist`.
        pairing: see there.
        fractions: see there.
        seed: see there.
        spatial_dims: 3 for volumes, 2 for planar images; None: those of the first image that can be read.

    Returns:
        What is there, and the problems; bad data raises no error.
    """
    report = Report(expanded(dataset_dir).absolute())
    options: dict[str, Any] = {"pairing": pairing, "fractions": fractions, "limits": {}, "seed": seed}
    try:
        report.sections, report.problems = survey(dataset_dir, datalist, **options)
    except (ValueError, FileNotFoundError) as error:
        return Report(report.dataset_dir, problems=[str(error)])
    pairs = [pair for pairs in report.sections.values() for pair in pairs]
    if not (pairs or report.problems):
        report.problems.append("no pairs in the data set; list some in the datalist, or add images")
    grids, spatial_dims = _check_images(pairs, report, spatial_dims)
    _check_labels(pairs, grids, report, spatial_dims)
    known = [(path, fact) for path, fact in report.facts.items() if path not in grids]
    report.problems += unshared_values(pairs, {path: fact.values for path, fact in known if fact.channels == 1})
    report.problems += mixed_forms(pairs, {path: fact.channels for path, fact in known})
    report.problems += differing_names(pairs, {path: fact.names for path, fact in known})
    _check_landmarks(pairs, grids, report)
    return report


def _check_images(pairs: Sequence[Pair], report: Report, spatial_dims: int | None) -> tuple[dict[str, Grid], int]:
    """Open every image of the pairs; returns the valid grids, and their dimensions."""
    grids: dict[str, Grid] = {}
    for path in dict.fromkeys(pair[f"{side}_image"] for pair in pairs for side in SIDES):
        loaded = _load(path, report)
        if loaded is not None:
            array, grid = loaded.channels, (loaded.channels.shape[1:], loaded.affine)
            spatial_dims = spatial_dims or dimensions(grid[0])
            found = image_problems(array, loaded.affine, _name(path, report), spatial_dims)
            report.problems += found
            if not grid_problems(*grid, path, spatial_dims):
                grids[path] = grid
            if not found:
                report.facts[path] = _facts(loaded, (float(array.min()), float(array.max())))
    return grids, spatial_dims or 3


def _check_labels(pairs: Sequence[Pair], grids: Mapping[str, Grid], report: Report, spatial_dims: int) -> None:
    """Labels and masks, each against the image it belongs to."""
    owners = {
        (pair[f"{side}_{kind}"], pair[f"{side}_image"]): (kind, pair.get(f"{side}_structures", {}))
        for kind in ("label", "mask")
        for pair in pairs
        for side in SIDES
        if f"{side}_{kind}" in pair
    }
    for (path, image), (kind, structures) in owners.items():
        loaded = _load(path, report, kind, grids.get(image))
        if loaded is not None:
            name, array = _name(path, report), loaded.channels
            found = label_problems(array, loaded.affine, name, grids.get(image), spatial_dims, kind)
            found += number_problems(len(array), structures, name) if kind == "label" else []
            if not found:
                report.facts[path] = _facts(loaded, tuple(np.unique(array).tolist()))
            report.problems += found


def _check_landmarks(pairs: Sequence[Pair], grids: Mapping[str, Grid], report: Report) -> None:
    """Landmarks of the pairs whose images are valid."""
    for pair in pairs:
        there = all(exists(path) for key, path in pair.items() if key.endswith("landmarks"))
        if there and has_landmarks(pair) and all(pair[f"{side}_image"] in grids for side in SIDES):
            _tried(partial(pair_points, pair, {side: grids[pair[f"{side}_image"]] for side in SIDES}), report)


def _load(path: str, report: Report, kind: str = "image", grid: Grid | None = None) -> Found | None:
    """What a file holds; None if it is absent, or cannot be read, which the report says."""
    return _tried(partial(read_part, path, kind, grid), report) if exists(path) else None


def _tried(read: Callable[[], Any], report: Report) -> Any:
    """What is read; the lines about it are problems, once each."""
    found, lines = tried(read)
    named = dict.fromkeys(line.removeprefix(f"{report.dataset_dir}/") for line in lines)
    report.problems += [line for line in named if line not in report.problems]
    return found


def _facts(found: Found, values: tuple[float, ...]) -> FileFacts:
    axes, names = "".join(nib.aff2axcodes(found.affine)), found.meta.get(SEGMENT_NAMES, "")
    return FileFacts(found.channels.shape[1:], found.affine, axes, len(found.channels), values, names)


def _name(path: str, report: Report) -> str:
    full = Path(path)
    return str(full.relative_to(report.dataset_dir) if full.is_relative_to(report.dataset_dir) else full)


def _ranges(rows: Sequence[Sequence[float]]) -> str:
    """Lowest-highest value along each axis: ``31-43 x 40-59 x 24-47``."""
    axes = ((f"{min(axis):.3g}", f"{max(axis):.3g}") for axis in zip(*rows, strict=True))
    return " x ".join(low if low == high else f"{low}-{high}" for low, high in axes)


def _intensities(facts: Sequence[FileFacts]) -> str:
    return f"{min(fact.values[0] for fact in facts):.4g} to {max(fact.values[-1] for fact in facts):.4g}"


def _structures(facts: Sequence[FileFacts]) -> str:
    """Values of integer labels, or number of channels of labels with one structure per channel."""
    most, least = max(fact.channels for fact in facts), min(fact.channels for fact in facts)
    if most > 1:
        return f"{most} channels" if most == least else f"{least}-{most} channels"
    return _first([f"{value:.0f}" for value in sorted({value for fact in facts for value in fact.values})], 6)


def _first(items: Sequence[str], count: int) -> str:
    return ", ".join(items[:count]) + (f", ... ({len(items)})" if len(items) > count else "")


def _table(rows: Iterator[Sequence[str]]) -> list[str]:
    """Rows of cells in columns."""
    cells = [[cell[: WIDTH // 3] for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(c.ljust(width) for c, width in zip(row, widths, strict=True)).rstrip()[:WIDTH] for row in cells]
