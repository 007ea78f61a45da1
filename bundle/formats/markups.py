"""Points of 3D Slicer: markups (``.mrk.json``) and the older lists of fiducials (``.fcsv``).

The formats are those of https://slicer.readthedocs.io/en/latest/developer_guide/modules/markups.html.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from bundle.formats.tables import Row, Table, replace_numbers, value_of
from bundle.geometry.correspondence import NamedPoints
from bundle.geometry.spaces import known_space, swap_space
from bundle.system.limits import Refused
from bundle.system.text import load_json

FLAG = "outside the volume"
SHAPES = ("Plane", "ROI")  # markups that are defined by more than their points
# Columns of a .fcsv, id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID: 3D Slicer goes by their order.
POSITION, LABEL, DESCRIPTION = (1, 2, 3), 11, 12
SLICER_3 = re.compile(r"^#\s*(Fiducial List file|columns\s*=\s*label,)", re.MULTILINE)
"""Comments of 3D Slicer 3, whose columns are label,x,y,z,sel,vis and whose points are RAS."""
LAST_RAS_VERSION = (4, 10)  # fiducials of later versions are in LPS if the file does not say


def read_markups(content: bytes) -> NamedPoints:
    """Control points of all markups of a file, except those without a position.

    Args:
        content: content of the file.

    Raises:
        ValueError: when it holds no markups, or a position is not valid.
    """
    document = _load(content)
    placed = list(_placed(document))
    points = np.array([swap_space(_position(point), space) for point, space in placed]).reshape(-1, 3)
    names = [str(point.get("label") or "") for point, _ in placed]
    return NamedPoints(points, names, sum(len(_points(markup)) for markup in document["markups"]) - len(placed))


def replace_markups(content: bytes, points: np.ndarray, outside: np.ndarray | None) -> bytes:
    """Markups with other positions, and without measured values, which 3D Slicer computes again.

    Args:
        content: content of the file that was read.
        points: ``(n, 3)``, mm, RAS.
        outside: ``(n,)``, whether each lay outside the volume; its description then says so. None: no flags.

    Returns:
        Content of the new file, in the coordinate systems of the old one.
    """
    document = _load(content)
    flags = np.zeros(len(points), dtype=bool) if outside is None else outside
    for (point, space), new, flag in zip(_placed(document), points, flags, strict=True):
        point["position"] = swap_space(new, space).tolist()
        if flag:
            point["description"] = _flagged(str(point.get("description") or ""))
    for markup in document["markups"]:
        measurements = markup.get("measurements")
        for measurement in measurements if isinstance(measurements, list) else []:
            if isinstance(measurement, dict):
                measurement.pop("value", None)
    return (json.dumps(document, indent=4, ensure_ascii=False) + "\n").encode("utf-8")


def _flagged(description: str) -> str:
    return description if FLAG in description else "; ".join(filter(None, (description, FLAG)))


def _load(content: bytes) -> dict[str, Any]:
    """Parse a file of markups, and refuse those that their points alone do not define."""
    try:
        document = load_json(content)
    except Refused:
        raise
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"not valid JSON ({reason}), expected markups of 3D Slicer") from error
    markups = document.get("markups") if isinstance(document, dict) else None
    if not isinstance(markups, list) or not all(isinstance(markup, dict) for markup in markups) or not markups:
        raise ValueError('no list "markups" in the JSON, expected markups of 3D Slicer')
    for markup in markups:
        if markup.get("type") in SHAPES:
            raise ValueError(
                f"a markup of type {markup['type']}, whose shape does not follow from its points; expected point "
                "lists, lines, angles or curves"
            )
        units = markup.get("coordinateUnits", "mm")
        if (units[0] if isinstance(units, list) and units else units) != "mm":
            raise ValueError(f"its coordinateUnits are {units!r}, expected mm")
        _points(markup)
    return document


def _points(markup: dict[str, Any]) -> list[dict[str, Any]]:
    points = markup.get("controlPoints", [])
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise ValueError("controlPoints of a markup are not a list of objects, expected [{...}, ...]")
    return points


def _placed(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Control points that have a position, and their space; 3D Slicer marks other positions as undefined."""
    for markup in document["markups"]:
        space = known_space(markup.get("coordinateSystem", "LPS"))
        for point in _points(markup):
            if point.get("positionStatus", "defined") == "defined" and "position" in point:
                yield point, space


def _position(point: dict[str, Any]) -> np.ndarray:
    position = point["position"]
    numbers = isinstance(position, list) and all(type(value) in (int, float) for value in position)
    try:
        if not numbers or len(position) != 3:
            raise ValueError
        return np.array([float(value) for value in position])
    except (ValueError, OverflowError) as error:
        name = point.get("label") or point.get("id") or "without a label"
        raise ValueError(
            f"position of the control point {name} is {str(position)[:60]}, expected three numbers"
        ) from error


def read_fiducials(content: bytes) -> NamedPoints:
    """Points of a list of fiducials, with their labels.

    Args:
        content: content of the file.

    Raises:
        ValueError: when it is not such a list, or does not say its coordinate system.
    """
    rows = Table.read(content, ",").rows
    space, label, _ = _fiducial_layout(rows)
    points, names = [], []
    for number in _fiducial_rows(rows):
        cells = rows[number][0]
        try:
            points.append([float(value_of(cells[column])) for column in POSITION])
        except (ValueError, IndexError) as error:
            line = ",".join(cells)[:60]
            raise ValueError(f"line {number + 1} is {line!r}, expected id,x,y,z,...") from error
        names.append(value_of("".join(cells[label : label + 1])))
    return NamedPoints(swap_space(np.array(points).reshape(-1, 3), space), names)


def replace_fiducials(content: bytes, points: np.ndarray, outside: np.ndarray | None) -> bytes:
    """List of fiducials with other positions.

    Args:
        content: content of the file that was read.
        points: ``(n, 3)``, mm, RAS.
        outside: ``(n,)``, whether each lay outside the volume; its description then says so. None: no flags.

    Returns:
        Content of the new file, in the coordinate system of the old one.
    """
    table = Table.read(content, ",").copy()
    rows = table.rows
    space, _, description = _fiducial_layout(rows)
    values = swap_space(points, space)
    flags = np.zeros(len(points), dtype=bool) if outside is None else outside
    for number, value, flag in zip(_fiducial_rows(rows), values, flags, strict=True):
        cells = rows[number][0]
        replace_numbers(cells, POSITION, value)
        if flag:
            cells += [""] * (description + 1 - len(cells))
            text = _flagged(value_of(cells[description]))
            quoted = '"' + text.replace('"', '""') + '"'
            cells[description] = quoted if re.search(r'[",\r\n]', text) else text
    return table.content()


def _fiducial_rows(rows: list[Row]) -> list[int]:
    """Indices of the lines that hold a point."""
    return [
        number
        for number, (cells, _) in enumerate(rows)
        if any(map(value_of, cells)) and not value_of(cells[0]).startswith("#")
    ]


def _fiducial_layout(rows: list[Row]) -> tuple[str, int, int]:
    """Space of a list of fiducials, and the columns of label and description."""
    comments = "\n".join(text for cells, _ in rows if (text := value_of(",".join(cells))).startswith("#"))
    columns = re.search(r"^#\s*columns\s*=\s*(.*)$", comments, re.MULTILINE)
    names = [name.strip() for name in columns[1].split(",")] if columns else []
    if names and names[1:4] != ["x", "y", "z"]:
        raise ValueError(f"its columns are {','.join(names)}, expected id,x,y,z,...")
    old = SLICER_3.search(comments) is not None
    label = names.index("label") if "label" in names else 0 if old else LABEL
    return _fiducial_space(comments, old), label, names.index("desc") if "desc" in names else DESCRIPTION


def _fiducial_space(comments: str, old: bool) -> str:
    """Space of a list of fiducials; if the file does not say, its version decides (3D Slicer 4.11 changed it)."""
    named = re.search(r"^#\s*CoordinateSystem\s*=\s*(\w+)", comments, re.MULTILINE)
    if named:
        return known_space(named[1])
    version = re.search(r"^#.*version\s*=\s*(\d+)\.(\d+)", comments, re.MULTILINE)
    if version is None and old:
        return "RAS"
    if version is None:
        raise ValueError(
            "no line '# CoordinateSystem = LPS' (or RAS) and none with the version, expected fiducials of 3D Slicer"
        )
    return "RAS" if (int(version[1]), int(version[2])) <= LAST_RAS_VERSION else "LPS"
