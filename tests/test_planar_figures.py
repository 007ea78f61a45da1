"""Overlays of planar images: colours at known pixels and points at known places."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.experiment.planar_figures import Planar, is_planar, overlays, read_planar
from bundle.formats import nifti
from bundle.results import SavePaird

SIZE = (8, 6)
# Columns to the left and rows down in RAS, as of a picture, 2 mm x 1 mm pixels.
AFFINE = np.array([[-2.0, 0, 0, 30], [0, -1, 0, 20], [0, 0, 1, 0], [0, 0, 0, 1]])


def picture(*bright):
    """Dark image with bright pixels (column, row)."""
    image = np.zeros(SIZE, dtype=np.float32)
    image[tuple(np.transpose(bright))] = 1
    return image


def offsets(axis):
    """Points of each scatter of a panel, by colour."""
    names = {(0.0, 1.0, 0.0): "green", (1.0, 1.0, 0.0): "yellow"}
    return {names[tuple(dots.get_facecolor()[0][:3])]: np.asarray(dots.get_offsets()) for dots in axis.collections}


def test_warped_is_purple_fixed_is_green_and_their_overlap_white():
    fixed, moving = Planar(picture((1, 2), (5, 3))), Planar(picture((5, 3), (6, 0)))
    figure = overlays(fixed, moving, {"Ours": Planar(picture((1, 2), (0, 5)))}, (1.0, 1.0))
    before, ours = (axis.images[0].get_array() for axis in figure.axes[:2])
    assert before.shape == (6, 8, 3)
    assert [before[row, column].tolist() for column, row in ((1, 2), (6, 0), (5, 3), (0, 5))] == [
        [0, 1, 0],
        [1, 0, 1],
        [1, 1, 1],
        [0, 0, 0],
    ]
    assert ours[5, 0].tolist() == [1, 0, 1]
    assert ours[2, 1].tolist() == [1, 1, 1]


def test_every_method_has_a_panel_and_rows_go_down():
    results = {name: Planar(picture((0, 0))) for name in ("Transfer", "Fine-tune - 10 epochs", "Ours")}
    figure = overlays(Planar(picture((0, 0))), Planar(picture((0, 0))), results, (2.0, 1.0))
    assert [axis.get_title() for axis in figure.axes] == [
        "not registered",
        "Transfer",
        "Fine-tune - 10\nepochs",
        "Ours",
        "",
    ]
    assert figure.axes[0].get_ylim() == (5.5, -0.5)
    assert figure.axes[0].get_aspect() == 0.5
    assert not any(axis.collections for axis in figure.axes)


def test_deformed_points_are_green_and_fixed_ones_yellow():
    points = np.array([[1.0, 2.0], [9.5, 3.0]])
    fixed, moving = Planar(picture((1, 2)), points), Planar(picture((1, 2)), points + 1)
    figure = overlays(fixed, moving, {"Ours": Planar(picture((1, 2)), points + 0.25)}, (1.0, 1.0))
    for axis, shift in zip(figure.axes, (1, 0.25), strict=False):
        found = offsets(axis)
        np.testing.assert_allclose(found["yellow"], points)
        np.testing.assert_allclose(found["green"], points + shift)
        # A point outside the image does not shrink it.
        assert axis.get_xlim() == (-0.5, 7.5)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["deformed points", "fixed points"]


@pytest.fixture
def saved(tmp_path):
    """A pair on other grids: the alignment shifts by (4, -3) mm, the field by (6, -5) mm in all."""
    other = AFFINE.copy()
    other[:2, 3] += (4, -3)
    files = {}
    for side, affine, bright in (("fixed", AFFINE, (3, 2)), ("moving", other, (2, 4))):
        files[f"{side}_image"] = tmp_path / f"{side}.nii.gz"
        nib.save(nifti(picture(bright)[..., None], affine), files[f"{side}_image"])
    files["landmarks"] = tmp_path / "points.csv"
    files["landmarks"].write_text("fixed_row,fixed_col,moving_row,moving_col\n2,3,4,2\n1,5,3.5,4\n")
    alignment = np.eye(4)
    alignment[:2, 3] = (4, -3)
    displacement = torch.tensor([6.0, -5.0, 0.0]).reshape(3, 1, 1, 1).expand(3, *SIZE, 1)
    SavePaird(tmp_path / "run")(
        {
            "pair_id": "a",
            "native_fixed_image": MetaTensor(torch.zeros(1, *SIZE, 1), affine=AFFINE),
            "warped_image": torch.as_tensor(picture((3, 2)))[None, ..., None],
            "displacement": MetaTensor(displacement, affine=AFFINE),
            "metrics": {},
        }
    )
    return files, alignment, tmp_path / "run" / "a"


def test_points_are_read_in_pixels_of_the_fixed_image(saved):
    files, alignment, folder = saved
    fixed, moving, results, spacing = read_planar(files, alignment, {"ours": folder})
    assert spacing == (2.0, 1.0)
    np.testing.assert_allclose(fixed.points, [[3, 2], [5, 1]], atol=1e-5)
    # The alignment undoes the other origin: the moving pixels themselves.
    np.testing.assert_allclose(moving.points, [[2, 4], [4, 3.5]], atol=1e-5)
    # The field adds (2, -2) mm, so a moving point goes back by that: one column right (2 mm each), two rows up.
    np.testing.assert_allclose(results["ours"].points, [[3, 2], [5, 1.5]], atol=1e-4)


def test_images_are_read_on_the_fixed_grid(saved):
    files, alignment, folder = saved
    fixed, moving, results, _ = read_planar(files, alignment, {"ours": folder})
    np.testing.assert_array_equal(fixed.image, picture((3, 2)))
    np.testing.assert_allclose(moving.image, picture((2, 4)), atol=1e-5)
    np.testing.assert_array_equal(results["ours"].image, picture((3, 2)))


def test_points_come_in_a_file_of_each_image_too(saved, tmp_path):
    files, alignment, folder = saved
    for side, text in (("fixed", "i,j,k\n3,2,0\n"), ("moving", "i,j,k\n2,4,0\n")):
        files[f"{side}_landmarks"] = tmp_path / f"{side}.csv"
        files[f"{side}_landmarks"].write_text(text)
    del files["landmarks"]
    fixed, moving, results, _ = read_planar(files, alignment, {"ours": folder})
    for panel, expected in ((fixed, [[3, 2]]), (moving, [[2, 4]]), (results["ours"], [[3, 2]])):
        np.testing.assert_allclose(panel.points, expected, atol=1e-4)


def test_without_points_the_images_alone_are_read(saved):
    files, alignment, folder = saved
    del files["landmarks"]
    fixed, moving, results, _ = read_planar(files, alignment, {"ours": folder})
    assert fixed.points is moving.points is results["ours"].points is None


def test_an_image_of_one_slice_is_planar(saved, tmp_path):
    assert is_planar(saved[0]["fixed_image"])
    nib.save(nifti(np.zeros((4, 4, 2), dtype=np.float32), np.eye(4)), tmp_path / "volume.nii.gz")
    assert not is_planar(tmp_path / "volume.nii.gz")
