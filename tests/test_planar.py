"""Slices on their way from files to results: the same as volumes, in the plane and in the format of the input."""

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from bundle.data import PreparePair
from bundle.evaluation import PairMetricsd
from bundle.results import NativeOutputsd, SavePaird

itk = pytest.importorskip("itk")

CONFIG = "inference_2d.yaml"
GRID = [64, 32]  # columns, rows
AFFINE = np.diag([-0.5, 0.25, 2, 1])


def picture(columns, rows, shift=(0, 0)):
    """Smooth 8-bit picture ``(rows, columns)`` of waves, its content moved by ``shift`` (columns, rows)."""
    x, y = np.meshgrid(np.arange(columns) - shift[0], np.arange(rows) - shift[1])
    return np.rint(128 + 60 * np.sin(x / 5) * np.cos(y / 7) + 50 * np.sin(x / 11 + y / 9)).astype(np.uint8)


def write_pair(folder, suffix=".png", kind=np.uint8, moving_shape=(128, 64)):
    """Pictures of one grid of 128 x 64; the moving one's content lies 6 columns to the right and 4 rows up."""
    folder.mkdir(exist_ok=True)
    arrays = {"fixed": picture(128, 64), "moving": picture(*moving_shape, (6, -4))}
    pair = {"pair_id": "a_to_b"}
    for side, array in arrays.items():
        pair[f"{side}_image"] = str(folder / f"{side}{suffix}")
        if suffix == ".nii.gz":
            nib.save(
                nib.Nifti1Image(array.T[..., None].astype(kind), np.diag([-0.5, 0.25, 2, 1])), pair[f"{side}_image"]
            )
        else:
            Image.fromarray(array.astype(kind)).save(pair[f"{side}_image"])
    return pair


def registered(pair, content, ddf=(3.0, -2.0), **settings):
    """The chain of ``inference_2d.yaml`` on a grid of half the pixels, with a constant DDF for a network."""
    settings = {"spatial_size": GRID, **settings}
    data = dict(content(CONFIG, "preprocessing", **settings)(pair))
    batch = {key: value[None] for key, value in data.items() if isinstance(value, torch.Tensor)}
    images, _labels = PreparePair(spatial_dims=2)(batch, "cpu")
    assert images.shape == (1, 2, *GRID)
    field = torch.tensor(ddf).reshape(2, 1, 1).expand(2, *GRID)
    seconds = {"seconds": torch.tensor(1.0), "step_seconds": torch.tensor(1.0)}
    data["pred"] = {"ddf": field, "losses": torch.tensor([1.0]), "loss_identity": 2.0, **seconds}
    score = PairMetricsd(None, None, "cpu", steps=0, point_grid=(400, 400))
    return score(NativeOutputsd()(data))


@pytest.mark.parametrize(
    "suffix, kind",
    [(".png", np.uint8), (".png", np.uint16), (".tif", np.float32), (".bmp", np.uint8), (".nii.gz", np.float32)],
)
def test_the_warped_image_is_the_fixed_one_in_the_format_of_the_input(tmp_path, content, suffix, kind):
    pair = write_pair(tmp_path / "in", suffix, kind)
    SavePaird(tmp_path / "out")(registered(pair, content))
    path = tmp_path / f"out/a_to_b/warped_image{suffix}"
    if suffix == ".nii.gz":
        warped = nib.load(path).get_fdata()[..., 0].T
        np.testing.assert_allclose(nib.load(path).affine, AFFINE)
    else:
        warped = np.asarray(Image.open(path))
        assert warped.dtype == kind
    assert warped.shape == (64, 128)
    inside = np.s_[4:-4, :-6]
    np.testing.assert_allclose(
        warped[inside], picture(128, 64)[inside], atol=0 if kind in (np.uint8, np.uint16) else 1e-3
    )


def test_a_jpeg_comes_back_as_jpeg(tmp_path, content):
    SavePaird(tmp_path / "out")(registered(write_pair(tmp_path / "in", ".jpg"), content))
    warped = np.asarray(Image.open(tmp_path / "out/a_to_b/warped_image.jpg"), dtype=float)
    assert np.abs(warped - picture(128, 64))[4:-4, :-6].mean() < 4


def test_the_displacement_is_a_field_of_one_slice_that_itk_applies(tmp_path, content):
    pair = write_pair(tmp_path / "in")
    SavePaird(tmp_path / "out")(registered(pair, content))
    path = tmp_path / "out/a_to_b/displacement.nii.gz"
    image = nib.load(path)
    assert image.shape == (128, 64, 1, 1, 3)
    np.testing.assert_array_equal(image.affine, np.eye(4))
    assert int(image.header["intent_code"]) == 1007
    # 6 columns to the right and 4 rows up, in LPS.
    np.testing.assert_allclose(image.get_fdata()[40, 30, 0, 0], [-6, 4, 0], atol=1e-4)
    # ITK by itself would take a file of one slice for a planar image, whose vectors have two components.
    reader = itk.ImageFileReader[itk.Image[itk.Vector[itk.F, 3], 3]].New(FileName=str(path))
    reader.Update()
    field = reader.GetOutput()
    moving = itk.image_from_array(np.asarray(Image.open(pair["moving_image"]), dtype=np.float32)[None])
    moving.SetDirection(field.GetDirection())
    warper = itk.WarpImageFilter[type(moving), type(moving), type(field)].New(Input=moving, DisplacementField=field)
    warper.SetOutputParametersFromImage(field)
    warper.Update()
    theirs = itk.array_from_image(warper.GetOutput())[0]
    ours = np.asarray(Image.open(tmp_path / "out/a_to_b/warped_image.png"), dtype=float)
    inside = np.s_[5:-1, :-7]
    assert np.abs(ours - theirs)[inside].max() <= 0.51  # ours is rounded


def test_images_of_different_size_correspond_pixel_by_pixel_of_the_resized_ones(tmp_path, content):
    pair = write_pair(tmp_path / "in", moving_shape=(128, 64))
    wide = np.asarray(Image.open(pair["moving_image"]).resize((256, 64), Image.Resampling.BILINEAR))
    Image.fromarray(wide).save(pair["moving_image"])
    result = registered(pair, content)
    inside = np.s_[8:-10, 4:-4]
    difference = result["warped_image"][0, ..., 0].numpy() - picture(128, 64).T
    assert np.abs(difference[inside]).max() < 2


def test_points_are_scored_in_pixels_of_the_file_and_of_the_grid(tmp_path, content):
    pair = write_pair(tmp_path / "in")
    (tmp_path / "points.csv").write_text("fixed_row,fixed_col,moving_row,moving_col\n30,40,26,46\n20,60,16,66\n")
    pair["landmarks"] = str(tmp_path / "points.csv")
    metrics = registered(pair, content)["metrics"]
    start = {"distance_px": np.hypot(6, 4), "distance_grid_px": np.hypot(6 * 400 / 128, 4 * 400 / 64)}
    for key, before in start.items():
        assert metrics[key] == pytest.approx({"before": before, "after": 0}, abs=1e-3)
    assert metrics["distance_fixed_grid_px"] == pytest.approx(metrics["distance_grid_px"], abs=1e-3)
    assert metrics["ncc"]["before"] < 0.9 < metrics["ncc"]["after"]


def test_any_size_of_the_grid_fits_the_network(tmp_path, content):
    data = content(CONFIG, "preprocessing", spatial_size=[50, 37])(write_pair(tmp_path / "in"))
    assert data["fixed_image"].shape == data["moving_image"].shape == (1, 56, 40, 1)
    # The pixels of the grid stay where they are in the world: 128 x 64 pixels over 50 x 37, 3 and 1 padded before them.
    spacing = np.array([128 / 50, 64 / 37])
    expected = 0.5 * (spacing - 1) - spacing * (3, 1)
    np.testing.assert_allclose(data["fixed_image"].affine[:2, 3], expected, atol=1e-5)


def test_images_are_equalised_between_0_and_1(tmp_path, content):
    data = content(CONFIG, "preprocessing", spatial_size=GRID)(write_pair(tmp_path / "in"))
    for side in ("fixed", "moving"):
        image = data[f"{side}_image"].numpy()
        assert (image.min(), image.max()) == pytest.approx((0, 1), abs=0.01)
        # An equalised image has as many pixels in every tenth of its range.
        assert np.histogram(image, bins=10, range=(0, 1))[0] == pytest.approx(image.size / 10, rel=0.3)


@pytest.mark.parametrize(("mode", "moves"), [("center", False), ("world", True)])
def test_slices_with_a_position_can_start_from_it(tmp_path, content, mode, moves):
    pair = write_pair(tmp_path / "in", ".nii.gz", np.float32)
    image = nib.load(pair["moving_image"])
    shifted = AFFINE.copy()
    shifted[:3, 3] = AFFINE[:3, :3] @ (-6, 4, 0)  # as far as its content, the other way: in the world they agree
    nib.save(nib.Nifti1Image(image.get_fdata().astype(np.float32), shifted), pair["moving_image"])
    start = registered(pair, content, ddf=(0.0, 0.0), initial_alignment=mode)
    inside = np.s_[:-10, 6:-6]
    errors = np.abs(start["aligned_image"][0, ..., 0].numpy() - picture(128, 64).T)[inside]
    assert (errors.max() < 1e-2) == moves
    # The preprocessed images agree as the native ones do.
    ncc = start["metrics"]["ncc"]["before"]
    assert (ncc > 0.95) == moves


def test_masks_of_slices_are_resized_with_them_or_derived(tmp_path, content):
    pair = write_pair(tmp_path / "in")
    inside = np.zeros((64, 128), np.uint8)
    inside[16:48, 20:100] = 255
    for side in ("fixed", "moving"):
        picture = np.asarray(Image.open(pair[f"{side}_image"])) * (inside > 0)
        Image.fromarray(picture).save(pair[f"{side}_image"])
    Image.fromarray(inside).save(tmp_path / "mask.png")
    given = content(CONFIG, "preprocessing", spatial_size=GRID)(pair | {"fixed_mask": str(tmp_path / "mask.png")})
    assert "moving_mask" not in given
    derived = content(CONFIG, "preprocessing", spatial_size=GRID, field_of_view=True)(pair)
    for mask in (given["fixed_mask"], derived["fixed_mask"], derived["moving_mask"]):
        assert mask.shape == (1, *GRID, 1)
        expected = torch.zeros(1, *GRID, 1)
        expected[:, 10:50, 8:24] = 1
        # Anti-aliasing spreads the edge over two pixels.
        assert ((mask > 0.5).float() - expected).abs().sum() <= 4
