"""Points with names, and which points of two images correspond: by row, unless their names tell otherwise."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUMBERED = re.compile(r"(.*)[-_](\d+)")
LISTS = re.compile(r"(F|Markups[A-Za-z]*)(_\d+)?")
"""What 3D Slicer calls lists of points; it names their points F-1, F-2 ..., those of a second list F_1-1."""


@dataclass(frozen=True, eq=False)
class NamedPoints:
    """Points that were read.

    Attributes:
        points: ``(n, 3)``, mm, RAS.
        names: names of the points, empty for one without a name; None: the format has none.
        unplaced: number of further points that have no position.
        note: a line about what other programs read differently, or empty.
    """

    points: np.ndarray
    names: Sequence[str] | None = None
    unplaced: int = 0
    note: str = ""


def corresponding_rows(fixed: Sequence[str], moving: Sequence[str]) -> tuple[list[int], str]:
    """The row of the moving point that belongs to each fixed one.

    Points that have the same names on both sides, each once, correspond by name. Names that only number the points,
    by row or by the list of a program, tell nothing: these correspond by row, as do points without names.

    Args:
        fixed: names of the fixed points; empty for one without a name.
        moving: names of as many moving points.

    Returns:
        Rows, and a line about numbers in another order, or an empty one.

    Raises:
        ValueError: when points of the same row have different names, and these do not tell which others correspond.
    """
    rows = list(range(len(fixed)))
    apart = [row for row in rows if fixed[row] and moving[row] and fixed[row] != moving[row]]
    if not apart:
        return rows, ""
    (fixed_list, fixed_numbers), (moving_list, moving_numbers) = _numbering(fixed), _numbering(moving)
    by_program = LISTS.fullmatch(fixed_list) or LISTS.fullmatch(moving_list)
    if not by_program and all(fixed) and len(set(fixed)) == len(rows) and set(fixed) == set(moving):
        return [moving.index(name) for name in fixed], ""
    others = bool(fixed_numbers and moving_numbers) and fixed_list != moving_list
    if not (by_program or others or count_rows(fixed) or count_rows(moving)):
        found = _different(fixed, moving, apart[0])
        raise ValueError(f"{found}, and not every name is in both, once; give corresponding points one name, or none")
    if fixed_numbers != moving_numbers and sorted(fixed_numbers) == sorted(moving_numbers):
        row = next(row for row in rows if fixed_numbers[row] != moving_numbers[row])
        found = _different(fixed, moving, row)
        return rows, f"{found}, numbers in another order; they correspond by row: name them, or number them alike"
    return rows, ""


def _different(fixed: Sequence[str], moving: Sequence[str], row: int) -> str:
    return f"landmark {row + 1} is {moving[row]!r} here and {fixed[row]!r} in the fixed image"


def _numbering(names: Sequence[str]) -> tuple[str, list[int]]:
    """The list that all points are named after, and their numbers in it; empty if there is none."""
    found = [match for name in names if (match := NUMBERED.fullmatch(name))]
    lists = {match[1] for match in found}
    if len(found) < len(names) or len(lists) > 1:
        return "", []
    return lists.pop(), [int(match[2]) for match in found]


def count_rows(names: Sequence[str]) -> bool:
    """Whether texts are the numbers of their rows, from 0 or 1."""
    return any(list(names) == [str(start + row) for row in range(len(names))] for start in (0, 1))
