"""Points of surfaces: legacy VTK and STL files. Everything but coordinates and facet normals stays unchanged.

The coordinates are LPS, as ITK and 3D Slicer from 4.11 write them, unless the title (VTK) or the header (STL) says
``SPACE=RAS``, as 3D Slicer does. Neither format has a place for flags.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from bundle.geometry.correspondence import NamedPoints
from bundle.geometry.spaces import known_space, swap_space

XML = "an XML file of VTK, which is not read; save it as legacy VTK (.vtk)"
DATASETS = (b"POLYDATA", b"UNSTRUCTURED_GRID")
TYPES: dict[bytes, np.dtype[Any]] = {b"float": np.dtype(">f4"), b"double": np.dtype(">f8")}
VTK_HEADER = re.compile(
    rb"# vtk DataFile Version [^\n]*\n(?P<title>[^\n]*)\n"
    rb"\s*(?P<kind>ASCII|BINARY)\s*\n\s*DATASET[ \t]+(?P<dataset>\w+)",
    re.IGNORECASE,
)
VTK_POINTS = re.compile(rb"^[ \t]*POINTS[ \t]+(\d{1,18})[ \t]+(\w+)[ \t]*\r?\n", re.IGNORECASE | re.MULTILINE)
VTK_KEYWORD = re.compile(rb"^[ \t]*(?!nan|inf)[a-z_]", re.IGNORECASE | re.MULTILINE)
VTK_VECTORS = re.compile(rb"^(NORMALS|VECTORS|TENSORS)[ \t]+\S+[ \t]+\w+[ \t]*\r?$", re.MULTILINE)

STL_HEADER = 84  # bytes: a text of 80, the number of facets
FACET = np.dtype([("normal", "<f4", 3), ("vertices", "<f4", (3, 3)), ("attribute", "V2")])
NUMBERS = rb"\s+(\S+)\s+(\S+)\s+(\S+)"
STL_FACET = re.compile(
    rb"\bfacet\s+normal" + NUMBERS + rb"\s+outer\s+loop" + 3 * (rb"\s+vertex" + NUMBERS) + rb"\s+endloop\s+endfacet\b",
    re.IGNORECASE,
)


def _space(header: bytes) -> str:
    named = re.search(rb"SPACE=(\w+)", header)
    return known_space(named[1].decode("ascii", "replace")) if named else "LPS"


@dataclass(frozen=True)
class Block:
    """Where the coordinates of a legacy VTK file are: bytes, number of points, type if binary, space."""

    start: int
    end: int
    count: int
    binary: np.dtype[Any] | None
    space: str


def _block(content: bytes) -> Block:
    """Find the coordinates.

    Raises:
        ValueError: when there are none, or fewer bytes than they need, before anything is allocated.
    """
    if content.lstrip()[:1] == b"<":
        raise ValueError(XML)
    header = VTK_HEADER.match(content)
    if header is None:
        raise ValueError("not a legacy VTK file, expected '# vtk DataFile Version', a title, ASCII or BINARY, DATASET")
    dataset = header["dataset"].upper()
    if dataset not in DATASETS:
        raise ValueError(f"its DATASET is {dataset.decode('ascii', 'replace')}, expected POLYDATA or UNSTRUCTURED_GRID")
    points = VTK_POINTS.search(content, header.end())
    kind = points[2].lower() if points else b""
    if points is None or kind not in TYPES:
        raise ValueError("no line with its points, expected 'POINTS <count> float' or double")
    start, count, space = points.end(), int(points[1]), _space(header["title"])
    if header["kind"].upper() == b"BINARY":
        end = start + 3 * count * TYPES[kind].itemsize
        if end > len(content):
            needed = f"{count} points need {end - start} bytes"
            raise ValueError(f"cut short: {needed}, and {len(content) - start} follow the line POINTS")
        return Block(start, end, count, TYPES[kind], space)
    keyword = VTK_KEYWORD.search(content, start)
    return Block(start, keyword.start() if keyword else len(content), count, None, space)


def read_vtk(content: bytes) -> NamedPoints:
    """Points of a legacy VTK surface or mesh, of any version, text or binary.

    Args:
        content: content of the file.

    Raises:
        ValueError: when it is another file, or cut short.
    """
    block = _block(content)
    if block.binary is not None:
        points = np.frombuffer(content[block.start : block.end], dtype=block.binary).astype(float)
        return NamedPoints(swap_space(points.reshape(-1, 3), block.space))
    words = content[block.start : block.end].split()
    if len(words) != 3 * block.count:
        needed = f"{block.count} points need {3 * block.count} numbers"
        raise ValueError(f"damaged or cut short: {needed}, and {len(words)} follow the line POINTS")
    return NamedPoints(swap_space(_numbers(words).reshape(-1, 3), block.space))


def _numbers(words: list[bytes]) -> np.ndarray:
    try:
        return np.array([float(word) for word in words])
    except ValueError as error:
        raise ValueError(f"a coordinate is not a number ({error})") from error


def replace_vtk(content: bytes, points: np.ndarray, outside: np.ndarray | None) -> bytes:
    """Legacy VTK file with other points, in the same type and space; every other byte stays.

    Scalars stay valid. Normals, vectors and tensors do not, and computing them again would need the topology: they are
    left as they are, with a warning.

    Args:
        content: content of the file that was read.
        points: ``(n, 3)``, mm, RAS.
        outside: not used: the format has no place for it.

    Returns:
        Content of the new file.
    """
    block = _block(content)
    values = swap_space(points, block.space)
    stale = sorted({name.decode() for name in VTK_VECTORS.findall(content, block.end)})
    if stale:
        warnings.warn(
            f"{' and '.join(stale)} of the surface are left as they were, though its points have moved: compute them "
            "again before use",
            stacklevel=2,
        )
    if block.binary is not None:
        new = values.astype(block.binary).tobytes()
    else:
        words = iter(repr(value).encode() for value in values.ravel().tolist())
        new = re.sub(rb"\S+", lambda _: next(words), content[block.start : block.end])
    return content[: block.start] + new + content[block.end :]


def _is_binary_stl(content: bytes) -> bool:
    """Whether an STL file is binary, by its size: the text of a binary one may begin with ``solid`` too.

    Raises:
        ValueError: when it is neither.
    """
    count = int.from_bytes(content[STL_HEADER - 4 : STL_HEADER], "little")
    if len(content) >= STL_HEADER and len(content) == STL_HEADER + count * FACET.itemsize:
        return True
    if content.lstrip()[:5].lower() == b"solid" and b"\0" not in content:
        return False
    size = f"{STL_HEADER + count * FACET.itemsize} bytes for {count} facets" if len(content) >= STL_HEADER else "more"
    raise ValueError(f"not an STL file, or cut short: {len(content)} bytes, expected {size}, or a text 'solid ...'")


def _stl_facets(content: bytes) -> list[re.Match[bytes]]:
    """Facets of an STL file in text.

    Raises:
        ValueError: when one is incomplete.
    """
    facets = list(STL_FACET.finditer(content))
    begun = len(re.findall(rb"^[ \t]*facet\b", content, re.IGNORECASE | re.MULTILINE))
    if len(facets) != begun or not re.search(rb"^[ \t]*endsolid", content, re.IGNORECASE | re.MULTILINE):
        raise ValueError(
            f"cut short or damaged: {len(facets)} of {begun} facets are whole; expected a normal and three vertices "
            "each, and endsolid"
        )
    return facets


def read_stl(content: bytes) -> NamedPoints:
    """Vertices of an STL surface, text or binary: three per facet, one after the other.

    A vertex of several facets is repeated for each.

    Args:
        content: content of the file.

    Raises:
        ValueError: when it is another file, or cut short.
    """
    if _is_binary_stl(content):
        vertices = np.frombuffer(content, dtype=FACET, offset=STL_HEADER)["vertices"].astype(float)
        return NamedPoints(swap_space(vertices.reshape(-1, 3), _space(content[:80])))
    words = [word for facet in _stl_facets(content) for word in facet.groups()[3:]]
    return NamedPoints(swap_space(_numbers(words).reshape(-1, 3), _space(content.lstrip().partition(b"\n")[0])))


def replace_stl(content: bytes, points: np.ndarray, outside: np.ndarray | None) -> bytes:
    """STL file with other vertices in the same space; the facet normals are computed from the new vertices.

    The order of the vertices stays, so a mirroring transform turns the surface inside out.

    Args:
        content: content of the file that was read.
        points: ``(3 facets, 3)``, mm, RAS.
        outside: not used: the format has no place for it.

    Returns:
        Content of the new file.
    """
    if _is_binary_stl(content):
        facets = np.frombuffer(content, dtype=FACET, offset=STL_HEADER).copy()
        facets["vertices"] = swap_space(points, _space(content[:80])).reshape(-1, 3, 3)
        facets["normal"] = _normals(facets["vertices"].astype(float))
        return content[:STL_HEADER] + facets.tobytes()
    vertices = swap_space(points, _space(content.lstrip().partition(b"\n")[0])).reshape(-1, 3, 3)
    values = np.concatenate([_normals(vertices)[:, None], vertices], axis=1).reshape(-1, 12)
    pieces, place = [], 0
    for facet, numbers in zip(_stl_facets(content), values.tolist(), strict=True):
        for group, number in enumerate(numbers, start=1):
            pieces += [content[place : facet.start(group)], repr(number).encode()]
            place = facet.end(group)
    return b"".join([*pieces, content[place:]])


def _normals(vertices: np.ndarray) -> np.ndarray:
    """Unit normals of triangles ``(n, 3 vertices, 3)``; zero for a triangle without area."""
    normals = np.cross(vertices[:, 1] - vertices[:, 0], vertices[:, 2] - vertices[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
