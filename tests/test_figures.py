"""Figures of the experiment: what the artists hold, and the slices of pairs read from disk."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.collections import PolyCollection
from matplotlib.quiver import Quiver
from monai.data import MetaTensor
from PIL import Image
from toys import Grid, apply, oblique_affine, rigid

from bundle.experiment.curves import (
    Registered,
    Volume,
    boxplots,
    method_curves,
    method_slices,
    read_volumes,
    save_figure,
)
from bundle.geometry import warp_native
from bundle.results import SavePaird


def test_whiskers_are_at_the_10th_and_90th_percentile():
    axis = boxplots({"first": np.arange(101.0), "second": [1.0, 2.0, 3.0]}, "DSC").axes[0]
    whiskers, mean, fliers = axis.lines[:2], axis.lines[5], axis.lines[6]
    assert [list(line.get_ydata()) for line in whiskers] == [[25, 10], [75, 90]]
    assert list(fliers.get_ydata()) == [*range(10), *range(91, 101)]
    assert list(mean.get_ydata()) == [50]
    assert fliers.get_marker() == "."
    assert axis.get_ylabel() == "DSC"


def test_names_are_drawn_as_they_are(tmp_path):
    """``$x_{$`` was a formula, which ended the experiment after its last run, and ``_own`` was in no legend."""
    names = ["a $x_{$ b", "costs $5, not $6", "_own"]
    curves = method_curves({name: {"DSC": {0: [1.0, 2.0], 1: [2.0, 3.0]}} for name in names}, "steps")
    save_figure(boxplots(dict.fromkeys(names, [1.0, 2.0, 3.0]), "DSC"), tmp_path / "boxplots")
    save_figure(curves, tmp_path / "curves")
    shown = [text.get_text() for text in curves.legends[0].get_texts()]
    assert [text.strip().replace("\\$", "$") for text in shown] == names
    assert not any(text.count("$") - text.count("\\$") for text in shown)


def test_long_names_are_broken_between_words_and_a_method_without_values_keeps_its_place():
    axis = boxplots({"meta-registration, 5 test-time steps": [0.5, 0.6], "failed": []}, "DSC").axes[0]
    names = [label.get_text() for label in axis.get_xticklabels()]
    assert names == ["meta-registration,\n5 test-time steps", "failed"]


def test_steps_have_a_line_per_start_and_a_band_of_the_standard_error():
    curves = {
        "meta": {"DSC": {0: [0.5, 0.7], 5: [0.8, 0.8], 50: [0.9]}, "TRE (mm)": {0: [6.0], 5: [4.0]}},
        "random": {"DSC": {5: [0.6, 0.6], 0: [0.2, 0.4]}},
    }
    figure = method_curves(curves, "test-time steps", {"DSC": 0.65})
    dsc, tre = figure.axes
    assert (dsc.get_title(), tre.get_title()) == ("DSC", "TRE (mm)")
    assert [line.get_label() for line in dsc.lines[:2]] == ["meta", "random"]
    assert [axis.get_xlabel() for axis in figure.axes] == ["test-time steps"] * 2
    assert (dsc.lines[2].get_linestyle(), set(dsc.lines[2].get_ydata())) == (":", {0.65})
    assert len(tre.lines) == 2
    # The dotted line leaves the range of the steps as it is.
    assert dsc.get_xlim() == method_curves(curves, "").axes[0].get_xlim()
    np.testing.assert_allclose(dsc.lines[0].get_xydata(), [[0, 0.6], [5, 0.8], [50, 0.9]])
    np.testing.assert_allclose(dsc.lines[1].get_xydata(), [[0, 0.3], [5, 0.6]])
    np.testing.assert_allclose(tre.lines[0].get_xydata(), [[0, 6], [5, 4]])
    # SD of 0.5 and 0.7 with n - 1 is 0.1414, over sqrt(2) pairs: 0.1.
    band = next(artist for artist in dsc.collections if isinstance(artist, PolyCollection)).get_paths()[0].vertices
    at_start = band[band[:, 0] == 0][:, 1]
    np.testing.assert_allclose([at_start.min(), at_start.max()], [0.5, 0.7])
    assert band[:, 0].max() == 5  # one value has no spread


def test_steps_are_readable_from_none_to_fifty():
    axis = method_curves({"meta": {"DSC": {steps: [0.5] for steps in (0, 1, 2, 5, 10, 20, 50)}}}, "steps").axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "1", "2", "5", "10", "20", "50"]
    places = axis.transData.transform([(tick, 0.5) for tick in axis.get_xticks()])[:, 0]
    assert np.diff(places).min() > 0.05 * np.ptp(places)


def volumes(shape=(12, 10, 8)):
    voxels = np.indices(shape)
    gland = np.linalg.norm(voxels - np.reshape((6, 5, 5), (3, 1, 1, 1)), axis=0) < 3
    image = voxels[0] + 10.0 * voxels[1] + 100.0 * voxels[2]
    ddf = np.zeros((3, *shape))
    ddf[0], ddf[1], ddf[2] = 2.0, 4.0, 4.0
    results = {"still": Registered(image, gland, 0 * ddf), "moved": Registered(image[::-1], gland[::-1], ddf)}
    return Volume(image, gland), Volume(image, None), results


def test_slices_are_through_most_of_the_gland():
    fixed, moving, results = volumes()
    axes = np.array(method_slices(fixed, moving, results, (1.0, 2.0, 3.0)).axes[:12]).reshape(4, 3)
    shown = axes[0, 0].images[0].get_array()
    low, high = np.percentile(fixed.image, (0.5, 99.5))
    np.testing.assert_allclose(shown, (fixed.image[..., 5].T - low) / (high - low))
    assert axes[0, 0].get_aspect() == 2.0
    assert [axis.get_title() for axis in axes[0]] == ["fixed", "still", "moved"]
    assert [axis.get_ylabel() for axis in axes[:, 1]] == ["warped", "checkerboard", "gland", "DDF"]


def test_slices_show_the_checkerboard_of_warped_and_fixed():
    fixed, moving, results = volumes()
    axes = np.array(method_slices(fixed, moving, results, (1.0, 1.0, 1.0)).axes[:12]).reshape(4, 3)
    warped, target, board = (axes[row, column].images[0].get_array() for row, column in ((0, 2), (0, 0), (1, 2)))
    np.testing.assert_array_equal(board[:2, :2], warped[:2, :2])
    np.testing.assert_array_equal(board[:2, 2:4], target[:2, 2:4])
    np.testing.assert_array_equal(board[2:4, :2], target[2:4, :2])


def test_slices_show_the_field_in_mm_on_one_scale_with_arrows_in_voxels():
    fixed, moving, results = volumes()
    figure = method_slices(fixed, moving, results, (1.0, 2.0, 3.0))
    still, moved = figure.axes[10:12]
    # |(2, 4, 4)| = 6 mm.
    np.testing.assert_allclose(moved.images[0].get_array(), 6)
    assert still.images[0].get_clim() == moved.images[0].get_clim() == (0, 6)
    arrows = next(artist for artist in moved.collections if isinstance(artist, Quiver))
    assert set(arrows.U) == {2.0}
    assert set(arrows.V) == {2.0}


def coloured(content):
    """Number of red and of green pixels."""
    red, green, blue = np.moveaxis(np.asarray(Image.open(content).convert("RGB")).astype(int), -1, 0)
    return int(((red > 200) & (green < 60) & (blue < 60)).sum()), int(((green > 200) & (red < 60) & (blue < 60)).sum())


def test_slices_outline_the_glands_where_there_are_labels(tmp_path):
    fixed, moving, results = volumes()
    red, green = coloured(
        tmp_path / save_figure(method_slices(fixed, moving, results, (1.0, 1.0, 1.0)), tmp_path / "labelled")
    )
    assert min(red, green) > 100
    bare = {name: Registered(result.image, None, result.ddf) for name, result in results.items()}
    figure = method_slices(Volume(fixed.image, None), moving, bare, (1.0, 1.0, 1.0))
    assert coloured(tmp_path / save_figure(figure, tmp_path / "bare")) == (0, 0)


def grid_axes(grid):
    """Unit vectors of a grid's axes, as columns, in the order and direction left, anterior, superior."""
    unit = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    body = np.diag([-1, 1, 1])
    return np.stack([max([*unit.T, *-unit.T], key=lambda axis, wanted=wanted: axis @ wanted) for wanted in body], 1)


def moved_by(alignment, shift, points):
    """Displacement that an initial alignment and then a shift of the fixed points amount to, mm, RAS."""
    shifted = points + np.reshape(shift, (3, 1, 1, 1))
    return torch.as_tensor(apply(alignment, shifted) - points)


@pytest.fixture
def saved_pair(tmp_path, save_nifti):
    """A pair on oblique grids, the fixed one turned upright, registered by a known shift of 3 mm."""
    fixed = Grid(oblique_affine((1.3, 0.9, 1.7), (92, -8, 20), (-10.0, 25.0, 40.0)), (12, 10, 8))
    moving = Grid(oblique_affine((1.1, 1.2, 1.4), (-5, 10, 5), (0.0, 0.0, 0.0), mirrored=(0,)), (14, 13, 12))
    files = {"pair_id": "a"}
    for side, grid in (("fixed", fixed), ("moving", moving)):
        files[f"{side}_image"] = save_nifti(tmp_path / f"{side}.nii.gz", grid.smooth_image(), grid.affine)
        files[f"{side}_label"] = save_nifti(tmp_path / f"{side}_label.nii.gz", grid.ball(grid.centre, 4), grid.affine)
    alignment, shift = rigid((4, 0, 0), moving.centre - fixed.centre, fixed.centre), np.array([2.0, -1.0, 2.0])
    displacement = moved_by(alignment, shift, fixed.world())

    def warped(array, mode):
        return warp_native(torch.as_tensor(array)[None].double(), moving.affine, displacement, fixed.affine, mode)

    SavePaird(tmp_path / "run")(
        {
            "pair_id": "a",
            "native_fixed_image": MetaTensor(torch.zeros(1, *fixed.shape), affine=fixed.affine),
            "warped_image": warped(moving.smooth_image(), "bilinear"),
            "warped_label": warped(moving.ball(moving.centre, 4), "nearest"),
            "displacement": MetaTensor(displacement, affine=fixed.affine),
            "metrics": {},
        }
    )
    return fixed, moving, alignment, shift, files, tmp_path / "run" / "a"


def test_volumes_have_the_axes_of_the_body(saved_pair):
    grid, _, alignment, _, files, folder = saved_pair
    fixed, moving, results, spacing = read_volumes(files, alignment, {"ours": folder})
    # Turned by 92 degrees about the first axis: the second points up, the third to the back, the first to the right.
    np.testing.assert_array_equal(fixed.image, grid.smooth_image()[::-1, :, ::-1].transpose(0, 2, 1))
    np.testing.assert_array_equal(fixed.gland, grid.ball(grid.centre, 4)[::-1, :, ::-1].transpose(0, 2, 1) > 0)
    np.testing.assert_allclose(spacing, (1.3, 1.7, 0.9), rtol=1e-6)
    assert moving.image.shape == results["ours"].image.shape == fixed.image.shape


def test_the_field_is_what_registration_added_to_the_initial_alignment(saved_pair):
    grid, _, alignment, shift, files, folder = saved_pair
    field = read_volumes(files, alignment, {"ours": folder})[2]["ours"].ddf
    # The file keeps float32 of some 50 mm: 4e-6 mm.
    np.testing.assert_allclose(np.linalg.norm(field, axis=0), 3.0, atol=1e-4)
    np.testing.assert_allclose(np.tensordot(grid_axes(grid), field, axes=1)[:, 3, 4, 5], shift, atol=1e-4)


def test_the_moving_image_is_shown_where_registration_starts(saved_pair):
    grid, source, alignment, _, files, folder = saved_pair
    moving = read_volumes(files, alignment, {"ours": folder})[1]
    start = moved_by(alignment, np.zeros(3), grid.world())
    expected = warp_native(torch.as_tensor(source.smooth_image())[None], source.affine, start, grid.affine)[0].numpy()
    np.testing.assert_allclose(moving.image, expected[::-1, :, ::-1].transpose(0, 2, 1), atol=1e-3)
    # Both balls have a radius of 4 mm around the centres, which the alignment brings together.
    fixed = read_volumes(files, alignment, {})[0]
    assert (moving.gland & fixed.gland).sum() > 0.8 * (moving.gland | fixed.gland).sum()


def test_volumes_without_labels_have_no_gland(saved_pair):
    _, _, alignment, _, files, folder = saved_pair
    (folder / "warped_label.nii.gz").unlink()
    bare = {key: files[key] for key in ("pair_id", "fixed_image", "moving_image")}
    fixed, moving, results, _ = read_volumes(bare, alignment, {"ours": folder})
    assert fixed.gland is moving.gland is results["ours"].gland is None


def test_volumes_name_the_image_that_cannot_be_read(saved_pair, tmp_path):
    _, _, alignment, _, files, folder = saved_pair
    with pytest.raises(ValueError, match="nowhere.nii.gz: cannot be read"):
        read_volumes({**files, "moving_image": str(tmp_path / "nowhere.nii.gz")}, alignment, {"ours": folder})


def test_saved_figures_are_whole_and_the_same_every_time(tmp_path):
    fixed, moving, results = volumes()
    for folder in ("first", "second"):
        content = save_figure(method_slices(fixed, moving, results, (1.0, 1.0, 1.0)), tmp_path / folder / "figure_4.v2")
        assert (tmp_path / folder / content).read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / folder / "figure_4.v2.pdf").read_bytes().startswith(b"%PDF")
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == ["figure_4.v2.pdf", "figure_4.v2.png"]
    for suffix in (".png", ".pdf"):
        first, second = (tmp_path / folder / f"figure_4.v2{suffix}" for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    assert b"CreationDate" not in (tmp_path / "first" / "figure_4.v2.pdf").read_bytes()


def test_figures_leave_nothing_open(tmp_path):
    save_figure(boxplots({"a": [1.0, 2.0], "b": [2.0]}, "TRE (mm)"), tmp_path / "figure")
    assert pyplot.get_fignums() == []
