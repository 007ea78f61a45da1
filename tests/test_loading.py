"""Files -> volumes: pictures and slices have three axes like everything else, columns first."""

import itk
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundle.formats import LoadPaird, load_image
from bundle.system import DataWarning

PIXELS = (np.arange(60).reshape(5, 12) * 4).astype(np.uint8)  # 5 rows, 12 columns


def save(path, mode):
    picture = Image.fromarray(PIXELS)
    if mode == "I;16":
        picture = Image.fromarray(PIXELS.astype(np.uint16) * 200)
    elif mode == "F":
        picture = Image.fromarray(PIXELS / np.float32(8))
    elif mode == "P":
        picture.putpalette([255 - value // 3 for value in range(768)])
    elif mode != "L":
        picture = picture.convert(mode)
    picture.save(path)
    return str(path)


@pytest.mark.parametrize(
    "name, mode, factor",
    [
        ("a.png", "L", 1),
        ("a.PNG", "L", 1),
        ("a.bmp", "L", 1),
        ("a.tif", "L", 1),
        ("a.tiff", "F", 0.125),
        ("a.png", "I;16", 200),
    ],
)
def test_a_picture_is_one_slice_with_the_identity_as_affine(tmp_path, name, mode, factor):
    image = load_image(save(tmp_path / name, mode))
    assert image.shape == (1, 12, 5, 1)
    assert image.meta["mode"] == mode
    np.testing.assert_allclose(image[0, ..., 0].numpy(), PIXELS.T.astype(float) * factor)
    np.testing.assert_array_equal(image.affine.numpy(), np.eye(4))


def test_a_palette_is_colours_of_an_image_and_indices_of_a_label(tmp_path):
    path = save(tmp_path / "a.png", "P")
    data = LoadPaird(["fixed_image", "fixed_label"])({"fixed_image": path, "fixed_label": path})
    np.testing.assert_array_equal(data["fixed_label"][0, ..., 0].numpy(), PIXELS.T)
    # The palette of the file runs from bright to dark.
    np.testing.assert_allclose(data["fixed_image"][0, ..., 0].numpy(), 255 - PIXELS.T.astype(float), atol=1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_become_grey(tmp_path, mode):
    image = load_image(save(tmp_path / "a.png", mode))
    assert (image.shape, image.meta["mode"]) == ((1, 12, 5, 1), "L")
    np.testing.assert_allclose(image[0, ..., 0].numpy(), PIXELS.T, atol=1)


def test_a_jpeg_is_read_as_it_was_compressed(tmp_path):
    image = load_image(save(tmp_path / "a.jpg", "L"))
    np.testing.assert_allclose(image[0, ..., 0].numpy(), PIXELS.T, atol=12)


def test_several_pictures_in_a_file_are_refused(tmp_path):
    picture = Image.fromarray(PIXELS)
    picture.save(tmp_path / "a.tif", save_all=True, append_images=[picture, picture])
    with pytest.raises(ValueError, match="a.tif: cannot be read.*holds 3 pictures, expected one"):
        LoadPaird(["fixed_image"])({"fixed_image": str(tmp_path / "a.tif")})


@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 1)])
def test_a_slice_of_nifti_keeps_its_affine(tmp_path, shape):
    affine = np.diag([0.5, 0.7, 3, 1])
    affine[:3, 3] = (4, 5, 6)
    nib.save(nib.Nifti1Image(PIXELS.T.reshape(shape), affine), tmp_path / "a.nii.gz")
    image = load_image(str(tmp_path / "a.nii.gz"))
    assert image.shape == (1, 12, 5, 1)
    np.testing.assert_allclose(image.affine.numpy(), affine, rtol=1e-6)
    np.testing.assert_array_equal(image[0, ..., 0].numpy(), PIXELS.T)


def test_a_planar_affine_is_set_into_four_by_four(tmp_path):
    picture = itk.image_from_array(PIXELS)
    picture.SetSpacing([0.5, 1.5])
    picture.SetOrigin([3.0, 7.0])
    itk.imwrite(picture, str(tmp_path / "a.nrrd"))
    image = load_image(str(tmp_path / "a.nrrd"))
    expected = np.diag([-0.5, -1.5, 1, 1])  # LPS -> RAS
    expected[:2, 3] = -3, -7
    np.testing.assert_allclose(image.affine, expected)
    assert image.shape == (1, 12, 5, 1)


def test_an_unreadable_file_is_named(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match=r"a.png: cannot be read, damaged or not an image"):
        LoadPaird("image")({"image": str(tmp_path / "a.png")})


def test_a_volume_stays_as_it_is(tmp_path, fixed_grid, save_nifti):
    array = fixed_grid.smooth_image()
    image = load_image(save_nifti(tmp_path / "a.nii.gz", array, fixed_grid.affine))
    np.testing.assert_array_equal(image[0].numpy(), array)


def test_forms_that_disagree_are_warned_of_and_the_sform_is_taken(tmp_path, fixed_grid):
    image = nib.Nifti1Image(np.zeros(fixed_grid.shape, np.uint8), fixed_grid.affine)
    image.set_sform(fixed_grid.affine, code=1)
    shifted = fixed_grid.affine.copy()
    shifted[:3, 3] += [0, 3, 4]
    image.set_qform(shifted, code=1)
    nib.save(image, tmp_path / "a.nii")
    with pytest.warns(DataWarning, match="a.nii: sform and qform disagree by up to 5 mm; the sform is used"):
        loaded = load_image(str(tmp_path / "a.nii"))
    np.testing.assert_allclose(loaded.affine.numpy(), fixed_grid.affine, atol=1e-5)


@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1)])
def test_forms_that_agree_or_stand_alone_are_not_warned_of(tmp_path, fixed_grid, codes, recwarn):
    image = nib.Nifti1Image(np.zeros(fixed_grid.shape, np.uint8), fixed_grid.affine)
    image.set_sform(fixed_grid.affine, code=codes[0])
    image.set_qform(fixed_grid.affine, code=codes[1])
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(load_image(str(tmp_path / "a.nii")).affine.numpy(), fixed_grid.affine, atol=1e-4)
    assert not [warning for warning in recwarn if warning.category is DataWarning]


@pytest.mark.parametrize("shape", [(6, 5, 4, 2), (6, 5, 4, 1, 2)])
def test_a_file_of_several_volumes_keeps_its_place_without_a_qform(tmp_path, fixed_grid, shape):
    image = nib.Nifti1Image(np.zeros(shape, np.uint8), fixed_grid.affine)
    image.set_qform(None, code=0)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(load_image(str(tmp_path / "a.nii")).affine.numpy(), fixed_grid.affine, atol=1e-5)
