"""Check that a loaded pair is fit for registration, that its labels lie on their images and its points correspond."""

from __future__ import annotations

import json
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.data import CacheDataset, MetaTensor
from monai.transforms import Transform

from bundle.data.layouts import SIDES
from bundle.data.structures import by_name, mixed_forms, unshared_values
from bundle.formats.images import header_shape
from bundle.formats.loading import file_of
from bundle.formats.parts import KINDS, read_part, segment_doubt
from bundle.formats.point_files import has_landmarks, pair_points
from bundle.formats.problems import extent_problems, image_problems, label_problems, other_grid, shape_problems
from bundle.formats.voxels import SEGMENT_NAMES
from bundle.system.errors import DataWarning, one_line, root_cause
from bundle.system.limits import is_same_file

LEARNED = "a network learns structures by their numbers: number them alike"


class CheckedPairs(CacheDataset):
    """``CacheDataset`` that names every pair that cannot be preprocessed, where MONAI's ends at the first.

    Arguments are those of ``CacheDataset``.

    Raises:
        ValueError: naming all problems.
    """

    def _fill_cache(self, indices: Sequence[int] | None = None) -> list[Any]:
        self._problems: list[str] = []
        items = super()._fill_cache(indices)
        _refuse(list(dict.fromkeys(self._problems)), "pairs")
        return items

    def _load_cache_item(self, idx: int) -> Any:
        try:
            return super()._load_cache_item(idx)
        except (ValueError, OSError, RuntimeError) as error:  # a transform fails as a RuntimeError of MONAI
            self._problems.append(one_line(root_cause(error)))
            return None


def check_headers(pairs: Sequence[Mapping[str, Any]], spatial_dims: int = 3) -> None:
    """Refuse pairs whose files cannot be read, or do not fit, as far as headers and lengths of files tell it at once.

    A training draws its pairs one after the other, and would end at such a file much later.

    Args:
        pairs: pairs, or single images, with the paths of their files.
        spatial_dims: 3 for volumes, 2 for planar images.

    Raises:
        ValueError: naming all problems.
    """
    parts = {
        pair[f"{prefix}{kind}"]: (kind, pair[f"{prefix}image"])
        for pair in pairs
        for prefix in ("", "fixed_", "moving_")
        for kind in KINDS
        if f"{prefix}{kind}" in pair
    }
    shapes: dict[str, tuple[int, ...]] = {}
    problems: list[str] = []
    for path in parts:
        try:
            shapes[path] = header_shape(path)
        except (ValueError, OSError) as error:
            problems.append(one_line(error))
    for path, (kind, image) in parts.items():
        own, grid = shapes.get(path, ())[1:], shapes.get(image, ())[1:]
        if own and kind == "image":
            problems += shape_problems(shapes[path], np.eye(4), path, spatial_dims)
        elif own and grid and sorted(own) != sorted(grid):  # the order of their axes may differ
            problems += other_grid(own, np.eye(4), f"{path}: the {kind}", grid, np.eye(4))
    problems += mixed_forms(pairs, {path: shape[0] for path, shape in shapes.items() if shape})
    _refuse(problems)


def check_shared_values(
    pairs: Iterable[Mapping[str, Any]],
    structures: Sequence[int | str] | None = None,
    overlapping: Sequence[int] | None = None,
) -> None:
    """Refuse pairs whose labels are integer maps without a common value, from which a label term learns nothing.

    It reads every label. Those with channels are passed by, if their header tells it.

    Args:
        pairs: pairs with the paths of their files.
        structures: values that the term compares; None: all.
        overlapping: which of these it compares by overlap, counted from 0; None: all.

    Raises:
        ValueError: naming all problems.

    Warns:
        DataWarning: about values of integer maps, which are no landmarks, of which only the centres are compared.
    """
    pairs = [pair for pair in pairs if all(f"{side}_label" in pair for side in SIDES) and not by_name(pair)]
    values: dict[str, list[float]] = {}
    problems: list[str] = []
    for path in dict.fromkeys(pair[f"{side}_label"] for pair in pairs for side in SIDES):
        try:
            if header_shape(path)[:1] in ((), (1,)) and len(label := read_part(path, "label").channels) == 1:
                values[path] = np.unique(label).tolist()
        except (ValueError, OSError) as error:
            problems.append(one_line(error))
    _refuse(problems or unshared_values(pairs, values))
    chosen = structures or sorted({int(value) for found in values.values() for value in found if value})
    centres = [] if overlapping is None else [value for k, value in enumerate(chosen) if k not in overlapping]
    if values and centres:
        warnings.warn(
            f"of {', '.join(map(str, centres))} of the integer maps the label term compares the centres alone, as of "
            "landmarks; --label_term::overlap_structures '$None' compares the overlap of all structures",
            DataWarning,
            stacklevel=2,
        )


def check_labels_alike(images: Iterable[Mapping[str, Any]]) -> None:
    """Refuse integer maps among labels with channels: a network that learns structures by number needs one form.

    It reads every label.

    Args:
        images: labelled images with the paths of their files, and names of their structures where these are given.

    Raises:
        ValueError: naming a label of each form, or all that cannot be read.

    Warns:
        DataWarning: about a name with two numbers, or a number with two names.
    """
    forms: dict[bool, str] = {}
    named: dict[str, str] = {}
    problems: list[str] = []
    for image in images:
        path, given = image["label"], image.get("structures", {})
        try:
            label = read_part(path, "label")
        except (ValueError, OSError) as error:
            problems.append(one_line(error))
            continue
        forms.setdefault(len(label.channels) > 1, path)
        stated = json.dumps({number: name for name, number in given.items()}) if given else ""
        if names := stated or label.meta.get(SEGMENT_NAMES, ""):
            named.setdefault(names, path)
    if len(forms) > 1 and not problems:
        problems = [f"{forms[False]} is an integer map and {forms[True]} has channels; give all labels one form"]
    _refuse(problems, "labels")
    first, *others = named or [""]
    doubts = (segment_doubt(first, other, (named[first], named[other]), LEARNED) for other in others)
    if doubt := next(filter(None, doubts), ""):
        warnings.warn(doubt, DataWarning, stacklevel=2)


def _refuse(problems: Sequence[str], where: str = "files of the pairs") -> None:
    if problems:
        count = f"{len(problems)} problems in the {where}: " if len(problems) > 1 else ""
        raise ValueError(count + "; ".join(problems))


class CheckPaird(Transform):
    """Refuse what cannot be registered, with every reason at once, and put labels on the grid of their image.

    A label or mask that lies on its image (``bundle.formats.problems.label_problems``) takes the affine of the image;
    the two may differ by the rounding of headers. A mask becomes 1 where it is not 0.

    Args:
        spatial_dims: 3 for volumes, 2 for planar images, which are volumes of one slice.
        pixdim: spacing of the network's grid, mm, if it has one; with a wrong unit in a header, that grid could be
            larger than any memory.
    """

    def __init__(self, spatial_dims: int = 3, pixdim: float | None = None) -> None:
        self.spatial_dims = spatial_dims
        self.pixdim = pixdim

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Pass a loaded pair through (images and masks ``(1, *shape)``, labels ``(channels, *shape)``).

        Raises:
            ValueError: naming every problem of the pair's images, labels and masks, or of its landmarks.
        """
        problems: list[str] = []
        output = dict(data)
        for side in SIDES:
            image, name = data[f"{side}_image"], _name(data, f"{side}_image")
            problems += image_problems(image.numpy(), np.asarray(image.affine), name, self.spatial_dims)
            if self.pixdim is not None and not problems:
                problems += extent_problems(image.shape[1:], np.asarray(image.affine), name, self.pixdim)
            output |= parts_on_grid(data, f"{side}_", self.spatial_dims, problems)
        if not problems and has_landmarks(data):
            # Read again where they are measured: what is wrong with them is said before the work.
            grids = {
                side: (data[f"{side}_image"].shape[1:], np.asarray(data[f"{side}_image"].affine)) for side in SIDES
            }
            try:
                pair_points(data, grids)
            except (ValueError, FileNotFoundError) as error:
                problems.append(str(error))
        if problems:
            raise ValueError(f"pair {data['pair_id']}: " + "; ".join(problems))
        labels = (data.get(f"{side}_label") for side in SIDES)
        names = ("" if label is None else label.meta.get(SEGMENT_NAMES, "") for label in labels)
        if not by_name(data) and (doubt := segment_doubt(*names)):
            warnings.warn(f"pair {data['pair_id']}: {doubt}", DataWarning, stacklevel=1)
        return output


def parts_on_grid(
    data: Mapping[Hashable, Any], prefix: str, spatial_dims: int, problems: list[str]
) -> dict[Hashable, MetaTensor]:
    """Label and mask of one image, if there are any, on the grid of the image.

    Args:
        data: loaded data with ``<prefix>image``.
        prefix: prefix of the keys: ``fixed_``, ``moving_``, or empty for a single image.
        spatial_dims: 3 for volumes, 2 for planar images.
        problems: list to which problems are added, one line each.
    """
    image = data[f"{prefix}image"]
    output: dict[Hashable, MetaTensor] = {}
    grid = (image.shape[1:], np.asarray(image.affine))
    for kind in ("label", "mask"):
        part = data.get(f"{prefix}{kind}")
        if part is not None:
            name = _name(data, f"{prefix}{kind}")
            problems += label_problems(part.numpy(), np.asarray(part.affine), name, grid, spatial_dims, kind)
            if is_same_file(file_of(part), file_of(image)):
                problems.append(f"{name}: the file of the image itself; name a {kind}, or leave it out")
            voxels = part.as_tensor() if kind == "label" else (part.as_tensor() != 0).float()
            stored = {key: part.meta[key] for key in ("stored_type",) if key in part.meta}
            output[f"{prefix}{kind}"] = MetaTensor(voxels, affine=image.affine, meta=stored)
    return output


def _name(data: Mapping[Hashable, Any], key: str) -> str:
    """Name of a part of a pair in messages: its key, and its file if it has one."""
    return f"{key} {file_of(data[key])}".strip()
