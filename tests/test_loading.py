"""Files -> volumes: pictures and slices have three axes like everything else, columns first."""

import gzip
import os
import re
import warnings

import itk
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from PIL import Image

from bundle.data import stem
from bundle.formats import LoadPaird, found_in, in_memory, load_image
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


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_turn_for_viewers_is_told_and_not_applied_as_in_itk(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(PIXELS).save(tmp_path / name, exif=exif, quality=100)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = load_image(tmp_path / name)[0, ..., 0].numpy().T
    said = [str(one.message) for one in caught if issubclass(one.category, DataWarning)]
    told = f"{tmp_path / name}: its orientation 6, by which viewers turn or mirror it, is not applied, as in ITK"
    assert [line.startswith(told) for line in said] == [True] * (orientation == 6)
    np.testing.assert_allclose(found, sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name))))
    np.testing.assert_allclose(found, PIXELS, atol=12)


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_tiff_that_is_to_be_turned_is_refused(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "a.tif", exif=exif)
    with pytest.raises(ValueError, match=f"a.tif: its orientation is {orientation}, which tools apply differently"):
        load_image(tmp_path / "a.tif")


def test_several_pictures_in_a_file_are_refused(tmp_path):
    picture = Image.fromarray(PIXELS)
    picture.save(tmp_path / "a.tif", save_all=True, append_images=[picture, picture])
    with pytest.raises(ValueError, match="a.tif: the file holds 3 pictures, expected one"):
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


def test_gzip_is_known_by_its_content(tmp_path, fixed_grid):
    """kits19 #39: compressed files called ``.nii``, and the other way round."""
    whole = nib.Nifti1Image(fixed_grid.smooth_image(), fixed_grid.affine)
    volume = nib.MGHImage(fixed_grid.smooth_image(), fixed_grid.affine)
    for name, content in (
        ("zipped.nii", gzip.compress(whole.to_bytes())),
        ("plain.nii.gz", whole.to_bytes()),
        ("in_members.nii", gzip.compress(whole.to_bytes()[:1000]) + gzip.compress(whole.to_bytes()[1000:])),
        ("zipped.mgh", gzip.compress(volume.to_bytes())),
        ("plain.mgz", volume.to_bytes()),
    ):
        (tmp_path / name).write_bytes(content)
        image = load_image(tmp_path / name)
        np.testing.assert_array_equal(image[0].numpy(), fixed_grid.smooth_image())
        np.testing.assert_allclose(image.affine, fixed_grid.affine, atol=1e-5)


def test_compressed_voxels_that_were_changed_are_damaged(tmp_path, fixed_grid):
    content = bytearray(gzip.compress(nib.Nifti1Image(fixed_grid.smooth_image(), None).to_bytes(), compresslevel=0))
    content[5000] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(ValueError, match="a.nii.gz: cannot be read, damaged or not an image .*CRC"):
        load_image(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
def test_freesurfer_is_read(tmp_path, moving_grid, dtype):
    array = (10 * moving_grid.smooth_image()).clip(0, 255).astype(dtype)
    nib.save(nib.MGHImage(array, moving_grid.affine), tmp_path / "a.mgz")
    image = load_image(tmp_path / "a.mgz")
    np.testing.assert_array_equal(image[0].numpy(), array)
    np.testing.assert_allclose(image.affine, moving_grid.affine, atol=1e-4)
    assert image.meta["stored_type"] == dtype
    assert stem("b/a.MGZ") == "a"


def test_a_file_of_freesurfer_without_a_place_is_warned_of(tmp_path, moving_grid, recwarn):
    nib.save(nib.MGHImage(moving_grid.smooth_image(), moving_grid.affine), tmp_path / "a.mgh")
    load_image(tmp_path / "a.mgh")
    assert not [warning for warning in recwarn if issubclass(warning.category, DataWarning)]
    content = bytearray((tmp_path / "a.mgh").read_bytes())
    content[28:30] = bytes(2)
    (tmp_path / "a.mgh").write_bytes(content)
    with pytest.warns(
        DataWarning, match="a.mgh: its header has no place and no spacing; as in FreeSurfer, voxels are 1 mm"
    ):
        image = load_image(tmp_path / "a.mgh")
    np.testing.assert_array_equal(image.pixdim, [1, 1, 1])


def test_damaged_and_boundless_files_of_freesurfer_are_refused(tmp_path, fixed_grid):
    content = nib.MGHImage(fixed_grid.smooth_image(), fixed_grid.affine).to_bytes()
    huge = content[:4] + np.array([10**6] * 3, ">i4").tobytes() + content[16:]
    negative = content[:4] + np.array([-4], ">i4").tobytes() + content[8:]
    for name, spoilt, words in (
        ("cut.mgh", content[:400], "cannot be read, damaged or not an image"),
        ("short.mgh", content[:20], "shorter than the header of MGH"),
        ("huge.mgz", gzip.compress(huge), "1000000 x 1000000 x 1000000 x 1 values, more than the 1073741824"),
        ("negative.mgh", negative, "its header declares -4 x 21 x 14 x 1 voxels, expected 1 along each axis"),
    ):
        (tmp_path / name).write_bytes(spoilt)
        with pytest.raises(ValueError, match=f"{name}: .*{words}"):
            load_image(tmp_path / name)


@pytest.mark.parametrize("name", ["a.xyz", "a.nii.bz2", "a"])
def test_formats_that_are_not_read_are_named_with_those_that_are(tmp_path, name):
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(
        ValueError, match=r"a.*: not a format of images that is read; read are \.nii, \.nii\.gz, .*DICOM$"
    ):
        load_image(tmp_path / name)


OTHERS = {
    "a.mnc": (b"CDF\1", r"MINC, which is not read; convert it to NIfTI \(mnc2nii\); read are .nii"),
    "b.mnc": (b"\x89HDF\r\n", r"MINC, which is not read; convert it to NIfTI \(mnc2nii\); read are .nii"),
    "a.PAR": (b"# === DATA DESCRIPTION FILE", r"PAR/REC of Philips, which is not read; .*\(dcm2niix\); read are .nii"),
    "a.REC": (bytes(600), r"PAR/REC of Philips, which is not read; .*\(dcm2niix\); read are .nii"),
    "a.vmr": (bytes(600), "a file of BrainVoyager, which is not read"),
    "a+orig.BRIK.gz": (gzip.compress(bytes(600)), "BRIK of AFNI, which is not read"),
    "a.mif": (b"mrtrix image\n", r"an image of MRtrix, which is not read; convert it to NIfTI \(mrconvert\)"),
    "a.raw": (bytes(600), "voxels without their header; name the header"),
    "a.nii": (b"mrtrix image\n", "cannot be read, an image of MRtrix, which is not read"),
    "a.nrrd": (b"CDF\1", "cannot be read, MINC, which is not read"),
    "a.dcm": (b"# === DATA DESCRIPTION FILE", "cannot be read, PAR/REC of Philips, which is not read"),
    "b.nii": (b"a.nii" + bytes(252) + b"ustar", "cannot be read, an archive of tar; unpack it"),
    "a.tar.gz": (gzip.compress(b"a.nii" + bytes(252) + b"ustar"), "an archive of tar; unpack it$"),
    "a.gif": (b"GIF89a", "GIF, which is not read; save it as PNG"),
    **{
        f"c{suffix}": (b"", "an empty file; copy it again$")
        for suffix in ("", ".nii.gz", ".mha", ".dcm", ".png", ".npy")
    },
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_named_by_what_they_are(tmp_path, name):
    content, line = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{re.escape(name)}: .*{line}") as caught:
        load_image(tmp_path / name)
    assert "damaged" not in str(caught.value)


def test_an_image_of_nibabel_is_where_its_file_is(tmp_path, fixed_grid):
    """In memory as on the disk units and forms count."""
    image = nib.Nifti1Image(fixed_grid.smooth_image(), fixed_grid.affine)
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(
        load_image(tmp_path / "a.nii").affine, np.diag([1e-3, 1e-3, 1e-3, 1]) @ fixed_grid.affine
    )
    np.testing.assert_allclose(found_in(image).affine, load_image(tmp_path / "a.nii").affine)


def test_an_image_of_nibabel_is_where_it_was_moved_to(tmp_path, fixed_grid):
    """What was changed in place is in no header until the image is saved."""
    image = nib.Nifti1Image(fixed_grid.smooth_image(), fixed_grid.affine)
    image.affine[:, 0] *= 2
    image.affine[0, 3] -= 4
    found = found_in(image)
    assert not found.note
    np.testing.assert_allclose(found.affine, image.affine, rtol=1e-6)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(found.affine, load_image(tmp_path / "a.nii").affine)


@pytest.mark.parametrize("spacing", [(0, 0.9, 1.7), (np.nan, 0.9, 1.7)])
def test_a_spacing_that_is_missing_is_warned_of(tmp_path, fixed_grid, spacing):
    image = nib.Nifti1Image(np.ones(fixed_grid.shape, np.uint8), fixed_grid.affine)
    image.header["pixdim"][1:4], image.header["vox_offset"] = spacing, 352
    (tmp_path / "a.nii").write_bytes(image.header.binaryblock + bytes(4) + bytes(image.get_fdata().astype(np.uint8)))
    with pytest.warns(DataWarning, match="a.nii: pixdim has the spacing 1 x 0.9 x 1.7 and the sform 1.3 x 0.9 x 1.7"):
        load_image(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("spacing", "said"), [((0, 0.9, 1.7), True), ((1.3, 0.9, np.nan), True), ((1.3, 0.9, 1.7), False)]
)
def test_a_spacing_that_the_qform_alone_would_need_is_warned_of(tmp_path, spacing, said, recwarn):
    image = nib.Nifti1Image(np.ones((3, 4, 5), np.uint8), np.diag([1.3, 0.9, 1.7, 1]))
    image.set_qform(image.affine, 1)
    image.set_sform(None, 0)
    image.header["pixdim"][1:4], image.header["vox_offset"] = spacing, 352
    (tmp_path / "a.nii").write_bytes(image.header.binaryblock + bytes(4) + bytes(60 * [1]))
    load_image(tmp_path / "a.nii")
    notes = [str(warning.message) for warning in recwarn if warning.category is DataWarning]
    assert ["a.nii: its header lacks the spacing of its voxels" in note for note in notes] == [True] * said


NO_PLACE = "a.npy: an array alone has no spacing and no place; its voxels are taken as 1 mm"
WHICH_AXIS = "a.npy: an array of a slice does not say which of its axes is which; the first is taken for columns"


@pytest.mark.parametrize(
    ("shape", "kind", "said"),
    [
        ((3, 4, 5), "image", [NO_PLACE]),
        ((3, 4), "image", [WHICH_AXIS]),
        ((3, 4, 1), "label", [WHICH_AXIS]),
        ((3, 4, 5), "label", []),
    ],
)
def test_what_an_array_alone_does_not_say_is_told(tmp_path, shape, kind, said, recwarn):
    """A slice saved by NumPy beside one in PNG was registered with its transpose, in silence."""
    np.save(tmp_path / "a.npy", np.ones(shape, np.uint8))
    image = load_image(tmp_path / "a.npy", kind)
    np.testing.assert_array_equal(image.affine.numpy(), np.eye(4))
    notes = [str(warning.message) for warning in recwarn if warning.category is DataWarning]
    assert [start in note for start, note in zip(said, notes, strict=True)] == [True] * len(said)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mgz", "a.npy", "a.png", "a"])
def test_a_file_that_may_not_be_opened_is_not_called_damaged(tmp_path, name, monkeypatch):
    (tmp_path / name).write_bytes(b"anything")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # a test may run as root, who may open all files
    with pytest.raises(ValueError, match=f"{name}: a file that may not be opened; see its permissions$"):
        load_image(tmp_path / name)


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.bool, torch.float16, torch.bfloat16])
def test_a_tensor_of_any_type_is_an_image(dtype):
    values = (torch.arange(60) % 7).reshape(1, 3, 4, 5).to(dtype)
    image = in_memory(MetaTensor(values, affine=torch.diag(torch.tensor([2.0, 3, 4, 1]))), "fixed_image")
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image.numpy(), values.float().numpy())
    np.testing.assert_array_equal(np.asarray(image.affine), np.diag([2, 3, 4, 1]))


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32, torch.float64])
def test_a_volume_of_monai_needs_no_channel_axis(dtype):
    tensor = MetaTensor(torch.arange(60).reshape(3, 4, 5).to(dtype), affine=torch.diag(torch.tensor([2.0, 3, 4, 1])))
    volume, channel_first = in_memory(tensor, "fixed_image"), in_memory(tensor[None], "fixed_image")
    assert volume.shape == channel_first.shape == (1, 3, 4, 5)
    assert torch.equal(volume.as_tensor(), channel_first.as_tensor())
    np.testing.assert_array_equal(np.asarray(volume.affine), np.diag([2, 3, 4, 1]))
    assert volume.pixdim.tolist() == channel_first.pixdim.tolist() == [2, 3, 4]


@pytest.mark.parametrize("name", ["fixed_image", "fixed_label"])
def test_an_array_may_have_its_channel_first(name):
    array, affine = np.arange(60).reshape(1, 3, 4, 5), np.diag([2, 3, 4, 1])
    np.testing.assert_array_equal(in_memory((array, affine), name).numpy(), array)


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32, torch.float64])
def test_a_slice_of_monai_gets_its_axes(dtype):
    plane = torch.arange(20).reshape(4, 5).to(dtype)
    for tensor in (plane, plane[None], plane[None, ..., None]):
        image = in_memory(MetaTensor(tensor), "fixed_image")
        assert image.shape == (1, 4, 5, 1)
        assert torch.equal(image.as_tensor()[0, ..., 0], plane.to(image.dtype))


def test_an_array_that_may_not_be_written_to_is_taken(recwarn):
    voxels = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    voxels.flags.writeable = False
    np.testing.assert_array_equal(in_memory((voxels, np.eye(4)), "fixed_image")[0].numpy(), voxels)
    assert not recwarn


def test_masked_arrays_are_refused():
    masked = np.ma.masked_array(np.ones((2, 2, 2)), np.eye(2, dtype=bool)[None].repeat(2, axis=0))
    with pytest.raises(ValueError, match="moving_image: a masked array, whose mask would be lost; fill it"):
        in_memory((masked, np.eye(4)), "moving_image")


def test_complex_tensors_are_refused():
    with pytest.raises(ValueError, match="fixed_image: voxels of complex numbers, expected one real"):
        in_memory(MetaTensor(torch.ones(1, 2, 2, 2, dtype=torch.cfloat)), "fixed_image")
