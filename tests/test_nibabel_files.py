"""NIfTI as it comes: slopes, offsets, axes, pairs and compressions; what ITK reads otherwise is said."""

import bz2
import gzip
import io
import lzma

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from test_places import LONGER, at_random, itk_place, loaded

from bundle.formats import load_image

AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])
VOXELS = np.random.default_rng(0).integers(0, 120, (4, 3, 5)).astype(np.int16)


def nifti(path, array=VOXELS, kind=nib.Nifti1Image, **fields):
    """A file with fields of its header changed in its bytes; those of ``dim`` and ``pixdim`` by their number."""
    content = kind(array, AFFINE).to_bytes()
    header = kind.header_class.from_fileobj(io.BytesIO(content))
    for name, value in fields.items():
        for place, part in value.items() if isinstance(value, dict) else [(..., value)]:
            header[name][place] = part
    path.write_bytes(header.binaryblock + content[header.sizeof_hdr :])
    return path


def by_itk(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T.squeeze()


Scales = st.sampled_from([0.0, 1.0, 2.5, -1.0, 1e-4, 3e4, np.nan, np.inf, -np.inf])


@settings(at_random, max_examples=60 * LONGER)
@given(
    slope=Scales,
    intercept=Scales,
    dtype=st.sampled_from(["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"]),
    big=st.booleans(),
    axes=st.sampled_from([(), (1,), (1, 1), (1, 1, 1)]),
    counted=st.integers(3, 7),
)
def test_values_are_those_of_itk_or_it_is_said(tmp_path, slope, intercept, dtype, big, axes, counted):
    array = VOXELS.astype(dtype).reshape(*VOXELS.shape, *axes)
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(array.shape)
    header["dim"][0], header["dim"][len(array.shape) + 1 :] = max(counted, array.ndim), 0
    header["scl_slope"], header["scl_inter"], header["vox_offset"], header["sform_code"] = slope, intercept, 352, 1
    header["srow_x"], header["srow_y"], header["srow_z"] = AFFINE[:3]
    header["pixdim"][1:4] = 2, 3, 4
    order = ">" if big else "<"
    voxels = array.astype(array.dtype.newbyteorder(order)).tobytes(order="F")
    path = tmp_path / "a.nii"
    path.write_bytes(header.as_byteswapped(order).binaryblock + bytes(4) + voxels)
    try:
        image, said = loaded(path)
    except ValueError as error:
        assert f"scl_inter {intercept:g}, expected two numbers" in str(error)
        assert np.isfinite(slope)
        assert not np.isfinite(intercept)
        return
    assert image.shape == (1, *VOXELS.shape)
    np.testing.assert_allclose(image.affine, itk_place(path), rtol=1e-6)
    if said:
        assert "ITK, ANTs and 3D Slicer add it" in said[0]
        np.testing.assert_array_equal(image[0].numpy(), VOXELS)
    else:
        np.testing.assert_allclose(image[0].numpy(), by_itk(path), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("offset", [0, 348, -5, np.nan, 1e12])
def test_an_offset_that_tools_take_for_different_places_is_refused(tmp_path, offset):
    """For nibabel 0 is 352, for ITK the end of the header, 4 bytes before."""
    with pytest.raises(ValueError, match=r"a.nii: its voxels start at byte .*, expected 352 to .*; correct vox_offset"):
        load_image(nifti(tmp_path / "a.nii", vox_offset=offset))


def test_axes_of_a_time_series_are_channels_however_many_follow(tmp_path):
    series = np.stack([VOXELS, VOXELS + 1], -1)
    for name, array in (("a.nii", series), ("b.nii", series[..., None]), ("c.nii", series[..., None, :])):
        assert load_image(nifti(tmp_path / name, array)).shape == (2, *VOXELS.shape)


def test_a_quaternion_of_any_length_is_one_of_itk(tmp_path):
    path = nifti(tmp_path / "a.nii", quatern_b=2, quatern_c=1, qform_code=1, sform_code=0)
    np.testing.assert_allclose(loaded(path)[0].affine, itk_place(path), atol=1e-6)


def test_an_sform_that_is_none_gives_way_to_the_qform_and_it_is_said(tmp_path):
    path = nifti(tmp_path / "a.nii", srow_x=0, qform_code=1)
    image, said = loaded(path)
    np.testing.assert_allclose(image.affine, itk_place(path), atol=1e-6)
    assert "its sform is no place; the qform is used" in said[0]


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Spm99AnalyzeImage])
def test_a_pair_is_read_by_the_name_of_either_half(tmp_path, kind, end):
    image = kind(VOXELS, AFFINE)
    if kind is nib.Nifti1Pair:
        image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / f"a.img{end}")
    for half in (".hdr", ".img"):
        found = load_image(tmp_path / f"a{half}{end}")
        np.testing.assert_array_equal(found[0].numpy(), VOXELS)
        np.testing.assert_allclose(found.affine, itk_place(tmp_path / f"a.hdr{end}"), rtol=1e-6)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["a.hdr", "a.img", "a.img.gz"])
def test_a_whole_image_that_is_called_a_half_is_read(tmp_path, kind, name):
    content = kind(VOXELS, AFFINE).to_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    image, said = loaded(tmp_path / name)
    np.testing.assert_array_equal(image[0].numpy(), VOXELS)
    np.testing.assert_allclose(image.affine, AFFINE, rtol=1e-6)
    assert not said


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_place_that_only_spm_takes_is_said(tmp_path, end):
    image = nib.Spm99AnalyzeImage(VOXELS, AFFINE)
    nib.save(image, tmp_path / f"a.img{end}")
    by_itk = itk_place(tmp_path / f"a.hdr{end}")
    for name, moved in (("here", 0), ("there", -4)):
        folder = tmp_path / name
        folder.mkdir()
        image = nib.Spm99AnalyzeImage(VOXELS, by_itk)
        image.affine[0, 3] += moved
        nib.save(image, folder / "a.img")
        for half in ("a.hdr", "a.img"):
            (folder / f"{half}{end}").write_bytes((tmp_path / f"{half}{end}").read_bytes())
        found, said = loaded(folder / f"a.img{end}")
        np.testing.assert_allclose(found.affine, by_itk, rtol=1e-6)
        assert [
            f"a.mat beside it, by which SPM and nibabel go, has a place up to {-moved} mm" in one for one in said
        ] == [True] * bool(moved)
    (folder / "a.mat").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")  # FSL's
    assert not loaded(folder / f"a.img{end}")[1]


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.AnalyzeImage])
def test_a_pair_that_is_not_whole_is_named(tmp_path, kind):
    """ITK fills up what is missing."""
    nib.save(kind(VOXELS, AFFINE), tmp_path / "a.img")
    content = (tmp_path / "a.img").read_bytes()
    (tmp_path / "a.img").write_bytes(content[:-10])
    with pytest.raises(ValueError, match=r"a.hdr: .*120 bytes.* 110"):
        load_image(tmp_path / "a.hdr")
    (tmp_path / "a.img").unlink()
    with pytest.raises(ValueError, match="a.hdr: no .img file beside it; copy it too"):
        load_image(tmp_path / "a.hdr")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a", "a.nifti", "A.NII"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_nifti_is_read_whatever_it_is_called(tmp_path, name, pack, kind):
    (tmp_path / name).write_bytes(pack(kind(VOXELS, AFFINE).to_bytes()))
    np.testing.assert_array_equal(load_image(tmp_path / name)[0].numpy(), VOXELS)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.hdr.gz", "a.mgz"])
@pytest.mark.parametrize("rest", [b"", b"\n", b"\0\0", b"-- end of file --" * 99])
@pytest.mark.parametrize("members", [1, 2])
def test_bytes_after_a_compressed_file_do_not_count(tmp_path, name, rest, members):
    """As for zlib, on which ITK is built."""
    if name == "a.mgz":
        contents = {name: nib.MGHImage(VOXELS.astype(np.float32), AFFINE).to_bytes()}
    elif name == "a.nii.gz":
        contents = {name: nib.Nifti1Image(VOXELS, AFFINE).to_bytes()}
    else:
        nib.save(nib.AnalyzeImage(VOXELS, AFFINE), tmp_path / "a.img")
        contents = {f"{half.name}.gz": half.read_bytes() for half in (tmp_path / "a.hdr", tmp_path / "a.img")}
        for half in ("a.hdr", "a.img"):
            (tmp_path / half).unlink()
    for file, content in contents.items():
        half = len(content) // 2
        parts = [content] if members == 1 else [content[:half], content[half:]]
        (tmp_path / file).write_bytes(b"".join(map(gzip.compress, parts)) + rest)
    np.testing.assert_array_equal(load_image(tmp_path / name)[0].numpy(), VOXELS)


def test_a_compressed_file_whose_checksum_is_wrong_is_damaged(tmp_path):
    content = bytearray(gzip.compress(nib.Nifti1Image(VOXELS, AFFINE).to_bytes()))
    content[-8] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(content + b"\n")
    with pytest.raises(ValueError, match="a.nii.gz: cannot be read, damaged .*CRC"):
        load_image(tmp_path / "a.nii.gz")


MISTAKEN = {
    "compressed by bzip2; decompress it": bz2.compress,
    "compressed by xz; decompress it": lzma.compress,
    "compressed twice by gzip; decompress it once": lambda content: gzip.compress(gzip.compress(content)),
    "a zip archive; unpack it": lambda content: b"PK\x03\x04" + content,
    "a web page, as a failed download leaves it": lambda _: b"\n<!DOCTYPE html>\n<html><head>404",
    "a pointer to a file that is not here; get its content": lambda _: b"version https://git-lfs.github.com/spec/v1\n",
}


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mgz", "a.nrrd", "a.png", "a.hdr", "a"])
@pytest.mark.parametrize("what", MISTAKEN)
def test_what_a_file_is_instead_of_an_image_is_named(tmp_path, name, what):
    (tmp_path / name).write_bytes(MISTAKEN[what](nib.Nifti1Image(VOXELS, AFFINE).to_bytes()))
    (tmp_path / "a.img").write_bytes(b"voxels")
    with pytest.raises(ValueError, match=f"{name}: .*{what}"):
        load_image(tmp_path / name)


CALLED_OTHERWISE = [
    ("a.nrrd", "a.nii.gz", "NRRD by its content; call it .nrrd"),
    ("a.nrrd", "a.mha", "NRRD by its content; call it .nrrd"),
    ("a.mha", "a.nrrd", "MetaImage by its content; call it .mha"),
    ("a.mha", "a", "MetaImage by its content; call it .mha"),
    ("a.png", "a.nii", "PNG by its content; call it .png"),
    ("a.tif", "a.nii.gz", "TIFF by its content; call it .tif"),
    ("a.nii", "a.mgz", "NIfTI by its content; call it .nii"),
    ("a.nii.gz", "a.nrrd", "NIfTI by its content; call it .nii.gz"),
    ("a.mgz", "a.nii.gz", "MGH by its content; call it .mgz"),
]


@pytest.mark.parametrize(("name", "called", "said"), CALLED_OTHERWISE)
def test_an_image_that_is_called_otherwise_is_named(tmp_path, name, called, said):
    if name == "a.mgz":
        nib.save(nib.MGHImage(VOXELS.astype(np.float32), AFFINE), tmp_path / name)
    else:
        voxels = VOXELS[..., 0].astype(np.uint8) if name[-3:] in ("png", "tif") else VOXELS
        sitk.WriteImage(sitk.GetImageFromArray(voxels.T.copy()), str(tmp_path / name))
    (tmp_path / name).rename(tmp_path / called)
    with pytest.raises(ValueError, match=f"{called}: .*{said}$"):
        load_image(tmp_path / called)


def test_a_compressed_image_of_a_format_that_is_not_is_named(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS.T.copy()), str(tmp_path / "a.nrrd"))
    (tmp_path / "a.nrrd.gz").write_bytes(gzip.compress((tmp_path / "a.nrrd").read_bytes()))
    with pytest.raises(ValueError, match=r"a.nrrd.gz: NRRD by its content; decompress it and call it \.nrrd$"):
        load_image(tmp_path / "a.nrrd.gz")
