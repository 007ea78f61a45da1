"""NRRD and MetaImage as they come; SimpleITK reads the sound ones, and what it reads of the others is no image."""

import gzip
import zlib

import itk
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from test_places import LONGER, Lengths, affines, at_random, itk_place, loaded

from bundle.formats import load_image, save_image
from bundle.formats.images import read_image

VOXELS = np.random.default_rng(0).integers(0, 120, (4, 3, 5)).astype(np.int16)
TYPES = {
    "signed char": "int8",
    "uchar": "uint8",
    "short": "int16",
    "unsigned short int": "uint16",
    "int32": "int32",
    "uint": "uint32",
    "longlong": "int64",
    "ulonglong": "uint64",
    "float": "float32",
    "double": "float64",
}
SPACES = {
    "left-posterior-superior": (1, 1, 1),
    "LPS": (1, 1, 1),
    "RAS": (-1, -1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "LAS": (1, -1, 1),
    "scanner-xyz": (1, 1, 1),
}
ENCODINGS = {
    "raw": bytes,
    "gzip": gzip.compress,
    "gz": gzip.compress,
    "hex": lambda content: content.hex().encode(),
}


def numbers(values):
    return f"({','.join(repr(float(value)) for value in values)})"


def nrrd(path, affine, space, kind, encoding, big, listed, detached, end="\n"):
    """A file of one image; ``listed`` says which axis of length 1 is a list: the first, the last or None."""
    dtype = np.dtype(TYPES[kind]).newbyteorder(">" if big else "<")
    shape, directions = list(VOXELS.shape), [numbers(affine[:3, axis]) for axis in range(3)]
    kinds = ["domain"] * 3
    if listed is not None:
        for values, one in ((shape, 1), (directions, "none"), (kinds, "list")):
            values.insert(listed, one)
    content = VOXELS.astype(dtype).tobytes(order="F")
    if encoding == "ascii":
        content = (" ".join(map(str, VOXELS.astype(dtype).ravel(order="F").tolist())) + "\n").encode()
    else:
        content = ENCODINGS[encoding](content)
    head = {
        "type": kind,
        "dimension": len(shape),
        "space": space,
        "sizes": " ".join(map(str, shape)),
        "space directions": " ".join(directions),
        "kinds": " ".join(kinds),
        "endian": "big" if big else "little",
        "encoding": encoding,
        "space origin": numbers(affine[:3, 3]),
    }
    if detached:
        head["data file"] = "voxels.bin"
        path.with_name("voxels.bin").write_bytes(content)
    text = "".join(
        f"{line}{end}" for line in ["NRRD0005", "# made", *(f"{key}: {value}" for key, value in head.items())]
    )
    path.write_bytes((text + end).encode() + (b"" if detached else content))
    return path


def same(image, path):
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T.squeeze()
    np.testing.assert_array_equal(image[0].numpy(), theirs)
    np.testing.assert_allclose(image.affine, itk_place(path), rtol=1e-6, atol=1e-6)


@settings(at_random, max_examples=50 * LONGER)
@given(
    affine=Lengths.flatmap(affines),
    space=st.sampled_from(sorted(SPACES)),
    kind=st.sampled_from(sorted(TYPES)),
    encoding=st.sampled_from(["ascii", *ENCODINGS]),
    big=st.booleans(),
    listed=st.sampled_from([None, 0, 3]),
    detached=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_any_nrrd_is_the_image_of_simpleitk(tmp_path, affine, space, kind, encoding, big, listed, detached, end):
    path = tmp_path / ("a.nhdr" if detached else "a.nrrd")
    nrrd(path, affine, space, kind, encoding, big, listed, detached, end)
    image, said = loaded(path)
    same(image, path)
    # By the words of the header: its space counts the axes of the world in these directions.
    lps = np.diag([*SPACES[space], 1]) @ affine
    np.testing.assert_allclose(image.affine, np.diag([-1, -1, 1, 1]) @ lps, rtol=1e-6, atol=1e-6)
    assert not said


META_TYPES = {"MET_SHORT": "int16", "MET_UCHAR": "uint8", "MET_FLOAT": "float32", "MET_UINT": "uint32"}


def meta(path, content, name="LOCAL", kind="MET_SHORT", **fields):
    """A MetaImage; its content is in its own file, or in the one that is named."""
    head = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "0 0 0",
        "ElementSpacing": "1 1 1",
        "DimSize": " ".join(map(str, VOXELS.shape)),
        "ElementType": kind,
        **fields,
        "ElementDataFile": name,
    }
    text = "".join(f"{key} = {value}\n" for key, value in head.items())
    path.write_bytes(text.encode() + (content if name == "LOCAL" else b""))
    return path


def values(array):
    return " ".join(repr(float(value)) for value in array)


@settings(at_random, max_examples=40 * LONGER)
@given(
    affine=Lengths.flatmap(affines),
    kind=st.sampled_from(sorted(META_TYPES)),
    big=st.booleans(),
    compressed=st.booleans(),
    where=st.sampled_from(["LOCAL", "voxels.raw", "LIST", "%02d.raw 1 5 1", "%02d.raw 1", "%02i.raw"]),
    orientation=st.sampled_from(["RAI", "LPS", "???"]),
)
def test_any_meta_image_is_the_image_of_simpleitk(tmp_path, affine, kind, big, compressed, where, orientation):
    array = VOXELS.astype(np.dtype(META_TYPES[kind]).newbyteorder(">" if big else "<"))
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    fields = {
        "TransformMatrix": values((affine[:3, :3] / lengths).T.ravel()),
        "Offset": values(affine[:3, 3]),
        "ElementSpacing": values(lengths),
        "BinaryDataByteOrderMSB": big,
        "AnatomicalOrientation": orientation,
    }
    content = array.tobytes(order="F")
    if compressed and where in ("LOCAL", "voxels.raw"):
        content = zlib.compress(content)
        fields |= {"CompressedData": "True", "CompressedDataSize": len(content)}
    (tmp_path / "voxels.raw").write_bytes(content)
    for number in range(5):
        (tmp_path / f"{number + 1:02d}.raw").write_bytes(array[..., number].tobytes(order="F"))
    path = meta(tmp_path / "a.mhd", content, where, kind, **fields)
    if where == "LIST":
        path.write_bytes(path.read_bytes() + b"".join(b"%02d.raw\n" % number for number in range(1, 6)))
    same(loaded(path)[0], path)


RAW = VOXELS.tobytes(order="F")
SQUEEZED = zlib.compress(RAW)
SIZED = {"CompressedData": "True", "CompressedDataSize": len(SQUEEZED)}
CUT = {
    "damaged": (
        SQUEEZED[:50] + bytes(20) + SQUEEZED[70:],
        "LOCAL",
        SIZED,
        "its compressed voxels are damaged; copy it",
    ),
    "size of less": (SQUEEZED, "LOCAL", {**SIZED, "CompressedDataSize": 40}, "its voxels need 120 bytes, and "),
    "no size": (SQUEEZED, "LOCAL", {"CompressedData": "True"}, "no CompressedDataSize says how long they are"),
    "elsewhere": (SQUEEZED[:40], "voxels.raw", {"CompressedData": "True"}, "its voxels need 120 bytes, and "),
    "no list": (RAW, "LIST", {}, "its voxels need 120 bytes, and 0 are there"),
    "pattern": (RAW[:24], "voxels%d.raw 1 4 1", {}, "its voxels need 120 bytes, and 96 are there"),
    "no step": (RAW, "voxels%d.raw 1 4", {}, "its list of slices has no step; write 'voxels%d.raw 1 4 1'"),
    "step 0": (RAW, "voxels%d.raw 1 4 0", {}, "its list of slices has no step; write 'voxels%d.raw 1 4 1'"),
    "empty line": (RAW[:24], "LIST\nvoxels1.raw\n\nvoxels2.raw\nvoxels3.raw\nvoxels4.raw", {}, "has an empty line"),
    "files of volumes": (RAW, "LIST 3D\nvoxels1.raw", {}, "its LIST 3D is a list of files of all its axes"),
    "missing": (RAW[:24], "voxels%d.raw 1 5 1", {}, "its voxels are in voxels5.raw, which is not there"),
}


@pytest.mark.parametrize("name", CUT)
def test_voxels_that_are_not_all_there_are_named(tmp_path, name):
    """In their place ITK hands on what is in memory."""
    content, where, fields, said = CUT[name]
    for number in ("", 1, 2, 3, 4):
        (tmp_path / f"voxels{number}.raw").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.mhd: .*{said}"):
        load_image(meta(tmp_path / "a.mhd", content, where, **fields))


def test_a_list_of_slices_whose_last_line_has_no_end_is_refused(tmp_path):
    """ITK reads the slice of that line from memory, in silence."""
    (tmp_path / "a.raw").write_bytes(RAW[:24])
    path = meta(tmp_path / "a.mhd", b"", "LIST" + 5 * "\na.raw")
    assert load_image(path).shape == (1, *VOXELS.shape)
    path.write_bytes(path.read_bytes().rstrip())
    with pytest.raises(ValueError, match="a.mhd: its list of files has .* the last line no end"):
        load_image(path)


@pytest.mark.parametrize("name", ["A.MHA", "A.MHD"])
def test_a_meta_image_in_capitals_is_read(tmp_path, name):
    path = meta(tmp_path / name.lower(), RAW).rename(tmp_path / name)
    np.testing.assert_array_equal(read_image(path).channels[0], VOXELS)


@pytest.mark.parametrize("name", ["A.MHA", "A.NRRD", "A.1.Nii.Gz"])
def test_an_image_in_capitals_is_written(tmp_path, name):
    save_image(VOXELS[None], np.eye(4), VOXELS.dtype, tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / name).channels[0], VOXELS)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("where", ["a.raw", "/nowhere/a.raw", "C:\\data\\a.raw"])
def test_voxels_of_a_nrrd_that_are_not_there_are_named(tmp_path, where):
    path = nrrd(tmp_path / "a.nhdr", np.eye(4), "LPS", "short", "raw", False, None, True)
    header = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join(f"data file: {where}".encode() if b"data" in line else line for line in header) + b"\n")
    (tmp_path / "a.raw").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="a.nhdr: its voxels are in a.raw, which is not there; copy it too"):
        load_image(path)


def test_a_spacing_of_0_is_named(tmp_path):
    with pytest.raises(ValueError, match="a.mha: spacing 2 x 2.5 x 0, expected more than 0; correct the header"):
        load_image(meta(tmp_path / "a.mha", RAW, ElementSpacing="2 2.5 0"))


@pytest.mark.parametrize("matrix", ["1 0 0 1 0 0 0 0 1", "0 0 0 0 0 0 0 0 0"])
def test_directions_that_are_none_are_not_called_damaged(tmp_path, matrix):
    with pytest.raises(ValueError, match="a.mha: its directions lie in one plane, or some have no length; correct"):
        load_image(meta(tmp_path / "a.mha", RAW, TransformMatrix=matrix))


def test_numbers_in_text_are_read_and_those_that_are_not_all_there_are_named(tmp_path):
    words = " ".join(map(str, VOXELS.ravel().tolist())).encode()
    for where in ("LOCAL", "voxels.raw"):
        (tmp_path / "voxels.raw").write_bytes(words + b"\n")
        path = meta(tmp_path / "a.mha", words + b"\n", where, BinaryData="False")
        same(loaded(path)[0], path)
        (tmp_path / "voxels.raw").write_bytes(words)
        with pytest.raises(ValueError, match="a.mha: its text ends with its last number, which ITK does not read"):
            load_image(meta(tmp_path / "a.mha", words, where, BinaryData="False"))
        (tmp_path / "voxels.raw").write_bytes(b"1 2 3\n")
        with pytest.raises(ValueError, match="a.mha: its text has 3 numbers of 60; cut short, copy it again"):
            load_image(meta(tmp_path / "a.mha", b"1 2 3\n", where, BinaryData="False"))


@pytest.mark.parametrize("true", ["True", "t", "1"])
@pytest.mark.parametrize("separator", [" = ", ": "])
def test_a_meta_image_says_true_in_many_words(tmp_path, true, separator):
    path = meta(tmp_path / "a.mha", SQUEEZED, **{**SIZED, "CompressedData": true, "BinaryData": true})
    head, _, content = path.read_bytes().partition(b"LOCAL\n")
    path.write_bytes(head.replace(b" = ", separator.encode()) + b"LOCAL\n" + content)
    same(loaded(path)[0], path)


@pytest.mark.parametrize(("suffix", "said"), [("gipl", "GIPL"), ("vtk", "a file of VTK"), ("mnc", "MINC")])
def test_formats_whose_readers_miss_a_cut_or_mirror_the_place_are_not_read(tmp_path, suffix, said):
    path = tmp_path / f"a.{suffix}"
    itk.imwrite(itk.image_from_array(np.ascontiguousarray(VOXELS)), str(path))
    line = rf"a.{suffix}: {said}, which is not read; convert it to NIfTI \(.*\); read are .nii, .nii.gz"
    with pytest.raises(ValueError, match=line):
        load_image(path)


@pytest.mark.parametrize("name", ["a", "a.nrrd", "a.mha", "a.dcm", "a.txt"])
def test_a_picture_under_another_name_is_not_placed_by_itk(tmp_path, name):
    """As a picture it has the identity as its affine, as an image of ITK a place that is mirrored to it."""
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS[0].astype(np.uint8)), str(tmp_path / "a.png"))
    (tmp_path / "a.png").rename(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name}: .*PNG by its content; call it .png"):
        load_image(tmp_path / name)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"type: short", b"type: block\nblock size: 2"),
        (b"encoding: raw", b"encoding: bzip2"),
        (b"kinds: domain domain domain", b"kinds: domain domain list"),
    ],
)
def test_what_itk_knows_and_does_not_read_is_not_called_damaged(tmp_path, old, new):
    path = nrrd(tmp_path / "a.nrrd", np.eye(4), "LPS", "short", "raw", False, None, False)
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(ValueError, match=r"a.nrrd: of a kind that ITK does not read \(.*\); write it as NIfTI"):
        load_image(path)


@pytest.mark.parametrize(("unit", "said"), [("um", True), ("cm", True), ("mm", False), ("?", False)])
def test_units_that_do_not_count_are_said(tmp_path, unit, said):
    path = nrrd(tmp_path / "a.nrrd", np.eye(4), "LPS", "short", "raw", False, None, False)
    path.write_bytes(path.read_bytes().replace(b"\n\n", f'\nspace units: "{unit}" "{unit}" "{unit}"\n\n'.encode()))
    for found in (path, meta(tmp_path / "a.mha", RAW, DistanceUnits=unit)):
        image, notes = loaded(found)
        same(image, found)
        assert [f"its header has lengths in {unit}, which count as mm" in note for note in notes] == [True] * said


@pytest.mark.parametrize(
    ("spacing", "kinds", "said"),
    [
        ("", "domain domain domain", True),
        ("spacings: 2 nan 3\n", "domain domain domain", True),
        ("spacings: 2 NaN 3\nthicknesses: 2 4 3\n", "???  ??? ???", True),
        ("spacings: 2 2 3\n", "domain domain domain", False),
        ("spacings: nan 2 3 4\n", "list domain domain domain", False),
    ],
)
def test_a_spacing_that_a_nrrd_lacks_is_told(tmp_path, spacing, kinds, said):
    """ITK and 3D Slicer take 1 mm in silence."""
    sizes = " ".join(["1"] * (len(kinds.split()) - 3) + ["3", "4", "5"])
    header = f"NRRD0004\ntype: uchar\ndimension: {len(sizes.split())}\n{spacing}sizes: {sizes}\nkinds: {kinds}\n"
    (tmp_path / "a.nrrd").write_bytes(f"{header}encoding: raw\n\n".encode() + bytes(range(60)))
    image, notes = loaded(tmp_path / "a.nrrd")
    same(image, tmp_path / "a.nrrd")
    assert ["lacks the spacing of its voxels, which are taken as 1 mm" in note for note in notes] == [True] * said


@pytest.mark.parametrize(
    ("line", "said"), [("ElementSpacing = 1 1 1\n", False), ("ElementSize = 1 1 1\n", False), ("", True)]
)
def test_a_spacing_that_a_meta_image_lacks_is_told(tmp_path, line, said):
    header = f"ObjectType = Image\nNDims = 3\nDimSize = 3 4 5\n{line}ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    (tmp_path / "a.mha").write_bytes(header.encode() + bytes(range(60)))
    image, notes = loaded(tmp_path / "a.mha")
    same(image, tmp_path / "a.mha")
    assert ["lacks the spacing of its voxels" in note for note in notes] == [True] * said


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mgz", "a.nrrd", "a.nhdr", "a.mha", "a.mhd"])
def test_compressed_voxels_are_those_that_were_written_or_none(tmp_path, name):
    """A bit of the stream changes the rest of it in silence, unless its checksum is looked at."""
    random = np.random.default_rng(0)
    voxels = (np.cumsum(random.integers(-3, 4, (16, 15, 14)), 0) + 100).astype(np.int16)
    if name == "a.mgz":
        nib.save(nib.MGHImage(voxels, np.eye(4)), tmp_path / name)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(voxels.T), str(tmp_path / name), True)
    packed = next((path for path in sorted(tmp_path.iterdir()) if path.name != name), tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / name).channels[0], voxels)
    content = packed.read_bytes()
    for number in range(60):
        place = int(random.integers(len(content) // 3, len(content) - 10))
        zeros = min(64, len(content) - place)
        change = [bytes([content[place] ^ 1 << number % 8]), bytes(zeros), bytes(len(content) - place)][number % 3]
        packed.write_bytes(content[:place] + change + content[place + len(change) :])
        try:
            found = read_image(tmp_path / name).channels[0]
        except ValueError:
            continue
        np.testing.assert_array_equal(found, voxels)
