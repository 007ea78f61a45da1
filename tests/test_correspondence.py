"""Which points of two images correspond: what their names tell, and what they do not."""

import pytest

from bundle.geometry import corresponding_rows


@pytest.mark.parametrize(
    ("fixed", "moving", "rows"),
    [
        (["A", "B", "C"], ["A", "B", "C"], [0, 1, 2]),
        (["A", "B", "C"], ["C", "A", "B"], [1, 2, 0]),
        (["L1", "L2", "L3"], ["L3", "L2", "L1"], [2, 1, 0]),
        (["nerve_1", "nerve_2"], ["nerve_2", "nerve_1"], [1, 0]),
        # Numbers of a table, the fixed ones those of its rows.
        (["1", "2", "3"], ["3", "1", "2"], [1, 2, 0]),
        (["17", "4"], ["4", "17"], [1, 0]),
    ],
)
def test_points_with_the_same_names_correspond_by_name(fixed, moving, rows):
    assert corresponding_rows(fixed, moving) == (rows, "")


@pytest.mark.parametrize(
    ("fixed", "moving"),
    [
        ([], []),
        (["", "", ""], ["", "", ""]),
        (["A", "B", "C"], ["", "", ""]),
        (["A", "", "C"], ["A", "B", ""]),
        (["A", "B", "B"], ["A", "B", "B"]),
        # Rows counted from 0 and from 1, and by one side only.
        (["0", "1", "2"], ["1", "2", "3"]),
        (["A", "B", "C"], ["1", "2", "3"]),
        # 3D Slicer's own: a second list, after a point was deleted, lists called by their users.
        (["F-1", "F-2", "F-3"], ["F_1-1", "F_1-2", "F_1-3"]),
        (["F-1", "F-2", "F-3"], ["F-1", "F-3", "F-4"]),
        (["F-1", "F-2", "F-3"], ["A", "B", "C"]),
        (["MarkupsFiducial_1", "MarkupsFiducial_2"], ["MarkupsFiducial_1", "MarkupsFiducial_3"]),
        (["fixed-1", "fixed-3"], ["moving-1", "moving-2"]),
    ],
)
def test_points_without_telling_names_correspond_by_row(fixed, moving):
    rows = list(range(len(fixed)))
    assert corresponding_rows(fixed, moving) == (rows, "")
    assert corresponding_rows(moving, fixed) == (rows, "")


@pytest.mark.parametrize(
    ("fixed", "moving"),
    [(["F-1", "F-2", "F-3"], ["F-1", "F-3", "F-2"]), (["F-1", "F-2", "F-3"], ["F_1-1", "F_1-3", "F_1-2"])],
)
def test_numbers_of_3d_slicer_in_another_order_are_told(fixed, moving):
    rows, doubt = corresponding_rows(fixed, moving)
    assert rows == [0, 1, 2]
    assert doubt.startswith(f"landmark 2 is '{moving[1]}' here and 'F-2' in the fixed image, numbers in another order;")


@pytest.mark.parametrize(
    ("fixed", "moving", "row"),
    [
        (["A", "B", "C"], ["A", "B", "D"], 3),
        (["A", "B", "B"], ["B", "A", "B"], 1),
        (["A", "B", ""], ["B", "A", ""], 1),
        (["L1", "L2"], ["T12", "L1"], 1),
        (["L-1", "L-2"], ["L-2", "L-3"], 1),
        (["5", "6", "7"], ["5", "7", "8"], 2),
        (["apex", "base"], ["tip", "bottom"], 1),
    ],
)
def test_names_that_contradict_the_rows_and_tell_no_others_are_refused(fixed, moving, row):
    expected = (
        f"landmark {row} is '{moving[row - 1]}' here and '{fixed[row - 1]}' in the fixed image, and not every name"
    )
    with pytest.raises(ValueError, match=expected):
        corresponding_rows(fixed, moving)
