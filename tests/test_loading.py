import itk
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundle.data.loading import LoadPaird, load_image

PIXELS = np.arange(1, 73, dtype=np.uint8).reshape(8, 9)  # 8 rows of 9 columns
GRID = np.array([[0.0, -1.5, 0, 4], [0.5, 0, 0, 5], [0, 0, 2, 6], [0, 0, 0, 1]])


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_a_picture_is_a_volume_of_one_slice(tmp_path, suffix):
    Image.fromarray(PIXELS).save(tmp_path / f"a.{suffix}")
    image = load_image(str(tmp_path / f"a.{suffix}"))
    np.testing.assert_array_equal(image[0, :, :, 0], PIXELS.T)
    assert image.shape == (1, 9, 8, 1)
    assert image.affine.shape == (4, 4)


def test_a_slice_keeps_its_affine(tmp_path):
    for name, array in (("flat", PIXELS), ("slice", PIXELS[..., None])):
        nib.save(nib.Nifti1Image(array, GRID), tmp_path / f"{name}.nii")
        image = load_image(str(tmp_path / f"{name}.nii"))
        np.testing.assert_array_equal(image[0, :, :, 0], PIXELS)
        np.testing.assert_allclose(image.affine[:, [0, 1, 3]], GRID[:, [0, 1, 3]], atol=1e-6)


def test_a_planar_affine_is_set_into_four_by_four(tmp_path):
    picture = itk.image_from_array(PIXELS)
    picture.SetSpacing([0.5, 1.5])
    picture.SetOrigin([3.0, 7.0])
    itk.imwrite(picture, str(tmp_path / "a.nrrd"))
    image = load_image(str(tmp_path / "a.nrrd"))
    expected = np.diag([-0.5, -1.5, 1, 1])  # LPS -> RAS
    expected[:2, 3] = -3, -7
    np.testing.assert_allclose(image.affine, expected)
    assert image.shape == (1, 9, 8, 1)


def test_a_volume_stays_as_it_is(tmp_path):
    array = np.random.default_rng(0).uniform(0, 9, (5, 6, 7)).astype(np.float32)
    nib.save(nib.Nifti1Image(array, GRID), tmp_path / "a.nii")
    image = load_image(str(tmp_path / "a.nii"))
    np.testing.assert_array_equal(image[0], array)
    np.testing.assert_allclose(image.affine, GRID, atol=1e-6)


def test_an_unreadable_file_is_named(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match=r"a.png: cannot be read, damaged or not an image"):
        LoadPaird("image")({"image": str(tmp_path / "a.png")})
