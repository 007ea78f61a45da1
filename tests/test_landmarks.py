"""Corresponding points: their files, and distances under fields whose answer is known."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from toys import apply

from bundle.evaluation.landmark_metrics import landmark_metrics
from bundle.formats import has_landmarks, read_landmarks
from bundle.geometry import voxel_grid

SIZE = (60, 40)  # columns, rows
POINTS = np.array([[12.0, 9.0, 0], [30.0, 20.0, 0], [41.5, 28.25, 0]])  # column, row, slice


def turn(points):
    """Fixed to moving pixels: a quarter of a radian about (30, 20), then 3 columns and -2 rows, smaller by a tenth."""
    angle, centre = 0.25, np.array([30.0, 20.0])
    matrix = 0.9 * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    moved = np.array(points, dtype=float)
    moved[:, :2] = (moved[:, :2] - centre) @ matrix.T + centre + (3.0, -2.0)
    return moved


def planar_pair(tmp_path, text, affine=None):
    """A pair of slices registered by ``turn``, with one file of points."""
    affine = np.eye(4) if affine is None else affine
    pixels = voxel_grid((*SIZE, 1)).flatten(1).T.numpy()
    shift = (turn(pixels) - pixels) @ affine[:3, :3].T
    path = tmp_path / "points.csv"
    path.write_text(text)
    image = MetaTensor(torch.zeros(1, *SIZE, 1), affine=affine)
    return {
        "pair_id": "p",
        "landmarks": str(path),
        "native_fixed_image": image,
        "native_moving_image": image,
        "initial_alignment": np.eye(4),
        "displacement": MetaTensor(torch.as_tensor(shift.T.reshape(3, *SIZE, 1), dtype=torch.float32)),
    }


def rows_of(fixed, moving):
    header = "fixed_row,fixed_col,moving_row,moving_col"
    return "\n".join([header, *(f"{f[1]},{f[0]},{m[1]},{m[0]}" for f, m in zip(fixed, moving, strict=True))])


def test_the_right_field_leaves_no_distance_in_either_direction(tmp_path):
    data = planar_pair(tmp_path, rows_of(POINTS, turn(POINTS)))
    metrics = landmark_metrics(data, [], (400, 400))
    start = np.linalg.norm(turn(POINTS) - POINTS, axis=1)
    assert metrics["distance_px"]["before"] == pytest.approx(start.mean())
    for key in ("distance_px", "distance_grid_px", "distance_fixed_grid_px"):
        assert metrics[key]["after"] == pytest.approx(0, abs=0.01)
        assert metrics[key]["before"] > 2
    assert [entry["before"] for entry in metrics["tre_mm"].values()] == pytest.approx(start)


def test_an_alignment_that_turns_goes_on_beyond_the_centres_of_the_outermost_pixels(tmp_path):
    edge = np.array([[-0.5, 20.0, 0], [59.5, 3.0, 0], [30.0, 39.5, 0], [70.0, 50.0, 0]])
    data = planar_pair(tmp_path, rows_of(edge, turn(edge)))
    matrix = np.eye(4)
    matrix[:3, 3] = turn(np.zeros(3)[None])[0]
    matrix[:3, :3] = turn(np.eye(3)).T - matrix[:3, 3:]
    metrics = landmark_metrics({**data, "initial_alignment": matrix}, [], (400, 400))
    for when in ("before", "after"):
        assert [entry[when] for entry in metrics["tre_mm"].values()] == pytest.approx([0] * 4, abs=1e-3)
        assert metrics["distance_fixed_grid_px"][when] == pytest.approx(0, abs=0.02)


def test_the_field_of_the_other_direction_is_not_taken_for_the_right_one(tmp_path):
    data = planar_pair(tmp_path, rows_of(turn(POINTS), POINTS))
    metrics = landmark_metrics(data, [], (400, 400))
    assert metrics["distance_px"]["after"] > metrics["distance_px"]["before"]
    assert metrics["distance_fixed_grid_px"]["after"] > metrics["distance_fixed_grid_px"]["before"]


def test_a_moving_point_off_its_place_is_as_far_off_in_the_moving_image_and_by_the_inverse_in_the_fixed_one(tmp_path):
    moving = turn(POINTS)
    moving[:, 0] += 1.8
    metrics = landmark_metrics(planar_pair(tmp_path, rows_of(POINTS, moving)), [], (120, 40))
    assert metrics["distance_px"]["after"] == pytest.approx(1.8, abs=1e-3)
    # Twice as many columns on the grid, as many rows.
    assert metrics["distance_grid_px"]["after"] == pytest.approx(3.6, abs=1e-3)
    # The inverse is larger by a ninth, and turned: 2 pixels under -0.25 radians.
    expected = math.hypot(2 * 2 * math.cos(0.25), 2 * math.sin(0.25))
    assert metrics["distance_fixed_grid_px"]["after"] == pytest.approx(expected, abs=0.01)


def test_pixels_do_not_depend_on_the_spacing_and_millimetres_do(tmp_path):
    affine = np.diag([-0.5, 0.25, 1.0, 1.0])
    affine[:3, 3] = (20, -7, 3)
    metrics = landmark_metrics(planar_pair(tmp_path, rows_of(POINTS, turn(POINTS)), affine), [], (400, 400))
    start = turn(POINTS) - POINTS
    assert metrics["distance_px"]["before"] == pytest.approx(np.linalg.norm(start, axis=1).mean(), rel=1e-4)
    millimetres = np.linalg.norm(start * (0.5, 0.25, 1.0), axis=1)
    assert [entry["before"] for entry in metrics["tre_mm"].values()] == pytest.approx(millimetres, rel=1e-4)


def test_distances_in_pixels_are_there_when_asked_for(tmp_path):
    metrics = landmark_metrics(planar_pair(tmp_path, rows_of(POINTS, POINTS)), [], None)
    assert list(metrics) == ["tre_mm", "tre_rms_mm", "lost_landmarks"]


@pytest.mark.parametrize(
    "text, side",
    [
        ("row,col\n9,12\n20,30\n28.25,41.5\n", None),
        ("col,row\n12,9\n30,20\n41.5,28.25\n", None),
        ("i,j\n12,9\n30,20\n41.5,28.25\n", None),
        ("12,9\n30,20\n41.5,28.25\n", None),
        ("12,9,0\n30,20,0\n41.5,28.25,0\n", None),
        ("name,moving_row,moving_col,fixed_row,fixed_col\na,0,0,9,12\nb,1,1,20,30\nc,2,2,28.25,41.5\n", "fixed"),
    ],
)
def test_pixels_of_a_slice(tmp_path, text, side):
    affine = np.diag([0.5, 2.0, 4.0, 1.0])
    affine[:3, 3] = (1, 2, 3)
    path = tmp_path / "points.csv"
    path.write_text(text)
    found = read_landmarks(path, affine, side, planar=True).points
    np.testing.assert_allclose(found, apply(affine, POINTS.T).T)


def test_millimetres_in_the_plane_of_a_slice(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("x,y\n1,2\n")
    affine = np.eye(4)
    affine[2, 3] = 7
    np.testing.assert_allclose(read_landmarks(path, affine, planar=True).points, [[1, 2, 7]])


@pytest.mark.parametrize(
    "text, side, planar, message",
    [
        ("row,col\n1,2\n", None, False, "headers i,j,k, x,y,z"),
        ("row,col\n1,2\n", "fixed", True, "headers .*fixed_row,fixed_col"),
        ("1,2,3,4\n", "fixed", True, "fixed_row,fixed_col"),
        ("row,col\n1\n", None, True, "expected numbers in every row"),
        ("row,col\n", None, True, "expected numbers in every row"),
        ("", None, True, "expected numbers in every row"),
    ],
)
def test_a_file_without_the_points_of_the_image_is_refused(tmp_path, text, side, planar, message):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_landmarks(path, np.eye(4), side, planar)


def test_points_need_both_images():
    assert has_landmarks({"landmarks": "a"}) and has_landmarks({"fixed_landmarks": "a", "moving_landmarks": "b"})
    assert not has_landmarks({"fixed_landmarks": "a"})
