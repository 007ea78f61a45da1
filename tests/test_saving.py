"""Images in files: types, formats, all or nothing."""

import struct

import itk
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from bundle.formats import load_image, save_image, smallest_type, written_type
from bundle.formats.voxels import kept_type

TYPES = ["uint8", "int16", "uint16", "int32", "float32", "float64"]


def volume(grid, dtype="int16"):
    return (np.arange(np.prod(grid.shape)).reshape(grid.shape) % 200).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha"])
def test_an_image_comes_back_as_it_was(tmp_path, fixed_grid, name, dtype):
    path = tmp_path / "new" / name
    save_image(volume(fixed_grid)[None].astype(np.float32), fixed_grid.affine, np.dtype(dtype), path)
    image = load_image(str(path))
    np.testing.assert_array_equal(image[0].numpy(), volume(fixed_grid))
    np.testing.assert_allclose(image.affine.numpy(), fixed_grid.affine, atol=1e-5)
    assert image.meta["stored_type"] == dtype
    assert [file.name for file in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_itk_finds_the_voxels_where_we_put_them(tmp_path, moving_grid, name):
    save_image(volume(moving_grid)[None], moving_grid.affine, np.dtype("int16"), tmp_path / name)
    image = itk.imread(str(tmp_path / name))
    x, y, z = image.TransformIndexToPhysicalPoint([3, 4, 5])
    np.testing.assert_allclose([-x, -y, z], (moving_grid.affine @ [3, 4, 5, 1])[:3], atol=1e-4)
    assert itk.array_from_image(image)[5, 4, 3] == volume(moving_grid)[3, 4, 5]


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        ("uint8", [0, 2, 2, 255, 255]),
        ("int16", [-3, 2, 2, 255, 32767]),
        ("int32", [-3, 2, 2, 255, 40000]),
        ("float32", [-3.0, 1.5, 2.5, 254.6, 40000.0]),
    ],
)
def test_whole_numbers_are_rounded_and_clipped_to_their_type(tmp_path, dtype, kept):
    voxels = np.array([-3.0, 1.5, 2.5, 254.6, 40000.0], dtype=np.float32).reshape(1, 5, 1, 1)
    save_image(voxels, np.eye(4), np.dtype(dtype), tmp_path / "a.nii")
    np.testing.assert_allclose(np.asarray(nib.load(tmp_path / "a.nii").dataobj).ravel(), kept, rtol=1e-6)


def test_the_largest_whole_number_survives_single_precision(tmp_path):
    save_image(np.full((1, 2, 2, 2), 3e9, np.float32), np.eye(4), np.dtype("int32"), tmp_path / "a.nii")
    assert (np.asarray(nib.load(tmp_path / "a.nii").dataobj) == 2**31 - 1).all()


@pytest.mark.parametrize(("name", "dtype"), [("a.png", "uint8"), ("a.png", "uint16"), ("a.tif", "float32")])
def test_a_slice_becomes_a_picture(tmp_path, name, dtype):
    voxels = np.arange(12).reshape(1, 4, 3, 1)
    save_image(voxels, np.eye(4), np.dtype(dtype), tmp_path / name)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / name)), voxels[0, ..., 0].T)
    assert load_image(tmp_path / name).meta["stored_type"] == dtype


def test_channels_become_the_last_axis(tmp_path, fixed_grid):
    channels = np.stack([volume(fixed_grid), volume(fixed_grid) + 1])
    save_image(channels, fixed_grid.affine, np.dtype("int16"), tmp_path / "a.nii.gz")
    assert nib.load(tmp_path / "a.nii.gz").shape == (*fixed_grid.shape, 2)
    np.testing.assert_array_equal(load_image(str(tmp_path / "a.nii.gz")).numpy(), channels)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("a.xyz", (1, 4, 4, 4), "a.xyz: not a format that images are written in; supported are .nii, .nii.gz, .nrrd"),
        ("a.mhd", (1, 4, 4, 4), "a.mhd: not a format that images are written in"),
        ("a.png", (1, 4, 4, 4), "a.png: a picture holds one slice, the image is 4 x 4 x 4; write it as .nii.gz"),
        ("a.mha", (2, 4, 4, 4), "a.mha: 2 volumes are written as .nii.gz"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path, name, shape, message):
    with pytest.raises(ValueError, match=message):
        save_image(np.zeros(shape), np.eye(4), np.dtype("uint8"), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_older_file(tmp_path, monkeypatch):
    (tmp_path / "a.nii").write_text("older")

    def full(image, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_image(np.zeros((1, 2, 2, 2)), np.eye(4), np.dtype("uint8"), tmp_path / "a.nii")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.nii", "older")]


def test_a_scaled_file_holds_no_whole_numbers(tmp_path):
    image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "a.nii")
    assert load_image(tmp_path / "a.nii").meta["stored_type"] == "float32"


def test_scaled_values_that_single_precision_rounds_come_back_as_they_were(tmp_path):
    stored = np.arange(504, dtype=np.int16).reshape(7, 8, 9)
    values = 10**9 + stored.astype(np.int64)
    content = bytearray(nib.Nifti1Image(stored, np.eye(4)).to_bytes())
    content[112:120] = struct.pack("<2f", 1, 1e9)  # scl_slope, scl_inter
    (tmp_path / "a.nii").write_bytes(content)
    found = load_image(tmp_path / "a.nii")
    assert found.meta["stored_type"] == "float64"
    save_image(found.numpy(), np.eye(4), np.dtype(found.meta["stored_type"]), tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "b.nii.gz").dataobj), values)


def test_types_of_arrays_and_dicom(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 2, 2), dtype=np.int16))
    assert load_image(tmp_path / "a.npy").meta["stored_type"] == "int16"
    series = tmp_path / "series"
    series.mkdir()
    itk.imwrite(itk.image_from_array(np.zeros((8, 9), dtype=np.uint16)), str(series / "1.dcm"))
    assert load_image(series).meta["stored_type"] == "uint16"


WIDE = ["int64", "uint64", "float16", "bool", "int8"]


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("name", ["a.nii.gz", "a.npy", "a.nrrd"])
def test_wide_types_come_in_and_go_out_as_the_smallest_that_holds_them(tmp_path, name, dtype):
    """spinalcordtoolbox #4408, nibabel #1046: numpy's own types, which few tools read."""
    voxels = (np.arange(24).reshape(4, 3, 2) % 7).astype(dtype)
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, voxels)
    elif name.endswith("nrrd") and dtype not in ("float16", "bool"):
        sitk.WriteImage(sitk.GetImageFromArray(voxels.T), str(path))
    elif dtype not in ("float16", "bool"):
        nib.save(nib.Nifti1Image(voxels, np.eye(4), dtype=voxels.dtype), path)
    else:
        pytest.skip("no format for it but numpy's")
    image = load_image(path)
    np.testing.assert_array_equal(image[0].numpy(), voxels)
    stored = np.dtype(image.meta["stored_type"])
    assert stored == {"float16": "float32", "int8": "int8"}.get(dtype, "uint8")
    for target in ("b.nii.gz", "b.nrrd", "b.mha", "b.nii"):
        save_image(image.numpy(), np.eye(4), stored, tmp_path / target)
        read = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / target)))
        np.testing.assert_array_equal(read.T, voxels)
        np.testing.assert_array_equal(load_image(tmp_path / target)[0].numpy(), voxels)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ((0, 255), "uint8"),
        ((-1, 255), "int16"),
        ((0, 256), "int16"),
        ((5, 40000), "uint16"),
        ((-1, 40000), "int32"),
        ((0, 2**32 - 1), "uint32"),
        ((-1, 2**32), "float64"),
        ((0, 2**53), "float64"),
    ],
)
def test_the_smallest_type_holds_all_values(values, dtype):
    assert smallest_type(*values) == dtype
    assert kept_type(np.dtype("int64"), *values) == dtype


@pytest.mark.parametrize(
    ("name", "dtype", "values", "message"),
    [
        (
            "a.png",
            "float32",
            (0.5, 1),
            r"a.png: fractions \(float32\), expected whole numbers of the types uint8, uint16",
        ),
        (
            "a.png",
            "int16",
            (-1, 5),
            "a.png: whole numbers from -1 to 5, which no type holds exactly .*or write .nii.gz",
        ),
        ("a.bmp", "int16", (0, 300), "a.bmp: whole numbers from 0 to 300, which no type holds exactly"),
        ("a.nii", "int64", (0, 2**53 + 2), "a.nii: whole numbers from 0 to 9007199254740994, which no type holds"),
    ],
)
def test_what_no_type_of_a_format_holds_is_refused_before_it_is_made(tmp_path, name, dtype, values, message):
    array = np.array(values, dtype=np.float64).reshape(1, 2, 1, 1)
    with pytest.raises(ValueError, match=message):
        written_type(tmp_path / name, np.dtype(dtype), array)
    with pytest.raises(ValueError, match=message):
        save_image(array, np.eye(4), np.dtype(dtype), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
