"""DICOM as people have it: one way in, whatever names, preambles, links, identities and values the files have."""

import gzip
import warnings

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_toys import RAS_TO_LPS, edit, oblique_affine, write_series
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RTStructureSetStorage,
    generate_uid,
)
from test_places import LONGER

from bundle.dicom import list_series, read_folder, read_series
from bundle.formats import load_image
from bundle.system import DataWarning, sources

AFFINE = oblique_affine()
SHAPE = (6, 5, 7)
VOXELS = np.random.default_rng(0).integers(0, 4000, SHAPE, dtype=np.uint16)


def series(folder, **tags):
    return write_series(folder, VOXELS, AFFINE, **tags)


def read(folder):
    """Voxels of a folder and what is said of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = load_image(folder)
    return image, [str(one.message) for one in caught if issubclass(one.category, DataWarning)]


def dataset(path, implicit=False, little=True):
    """A file's data set alone, in another encoding."""
    buffer, data = DicomBytesIO(), Dataset()
    data.update({element.tag: element for element in dcmread(path)})
    if not little:
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    buffer.is_implicit_VR, buffer.is_little_endian = implicit, little
    write_dataset(buffer, data)
    return buffer.getvalue()


def header(syntax):
    """Preamble and meta header with a transfer syntax, or with none."""
    buffer, meta = DicomBytesIO(), Dataset()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    if syntax:
        meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    write_dataset(buffer, meta)
    return bytes(128) + b"DICM" + buffer.getvalue()


FORMS = {
    "a file": lambda path: path.read_bytes(),
    "no preamble": lambda path: path.read_bytes()[132:],
    "nothing before the magic word": lambda path: path.read_bytes()[128:],
    "explicit": dataset,
    "implicit": lambda path: dataset(path, implicit=True),
    "big endian": lambda path: dataset(path, little=False),
    "no transfer syntax": lambda path: header(None) + dataset(path),
    "no transfer syntax, implicit": lambda path: header(None) + dataset(path, implicit=True),
    "said to be implicit": lambda path: header(ImplicitVRLittleEndian) + dataset(path),
    "said to be explicit": lambda path: header(ExplicitVRLittleEndian) + dataset(path, implicit=True),
}
"""What is in a file of DICOM, by what of it is missing or not true."""


def reform(path, form, name=None):
    content = FORMS[form](path)
    path.unlink()
    (path.with_name(name) if name else path).write_bytes(content)


def test_a_scale_of_some_slices_alone_is_told(tmp_path):
    files = series(tmp_path / "s")
    for path in files[:3]:
        edit(path, RescaleSlope=1, RescaleIntercept=0)
    assert not read(tmp_path)[1]
    edit(files[0], RescaleIntercept=-1024)
    image, (said,) = read(tmp_path)
    assert "3 of 7 slices have a slope or an intercept (RescaleSlope, RescaleIntercept), which is applied to" in said
    np.testing.assert_array_equal(image[0, ..., 0].numpy(), VOXELS[..., 0] - 1024.0)
    np.testing.assert_array_equal(image[0, ..., 1:].numpy(), VOXELS[..., 1:])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_file_is_read(tmp_path, form):
    for number, path in enumerate(series(tmp_path / "s", RescaleSlope=2, RescaleIntercept=-7)):
        reform(path, form, f"IM{number:03d}" if number > 4 else None)
    image, said = read(tmp_path)
    np.testing.assert_array_equal(image[0].numpy(), VOXELS * 2.0 - 7)
    np.testing.assert_allclose(image.affine.numpy(), AFFINE, atol=1e-6)
    assert not said
    assert read_series(tmp_path).identities[0][2] == "1.2.840.10008.5.1.4.1.1.4"


@pytest.mark.parametrize("form", ["no preamble", "explicit", "implicit", "big endian"])
@pytest.mark.parametrize("part", [0.15, 0.5, 0.97])
def test_a_file_without_preamble_that_is_cut_is_missed(tmp_path, form, part):
    files = series(tmp_path / "s")
    reform(files[6], form, "IM6")
    content = (tmp_path / "s/IM6").read_bytes()
    (tmp_path / "s/IM6").write_bytes(content[: int(part * len(content))])
    with pytest.raises(ValueError, match="1 of its files cannot be read, the first is IM6; the volume may have gaps"):
        load_image(tmp_path)


def test_reports_and_directories_without_preamble_are_no_images(tmp_path):
    paths = series(tmp_path / "s")
    (tmp_path / "report").mkdir()
    (report,) = write_series(tmp_path / "report", VOXELS[..., :1], AFFINE, SOPClassUID=BasicTextSRStorage)
    data = dcmread(report)
    del data.PixelData
    data.save_as(report)
    reform(report, "implicit", "SR1")
    image, said = read(tmp_path)
    assert image.shape[1:] == SHAPE
    assert not said
    assert len(paths) == 7


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (bytes(600), "1 file beside it is neither DICOM nor text, the first IM6; if it was a slice"),
        (b"", "1 file beside it is neither DICOM nor text, the first IM6"),
        ("empty", "the first is IM6.dcm: an empty file; copy it again"),
        ("cloud", "the first is .IM6.dcm.icloud: in iCloud alone; download it"),
        (b"MELLON\nIM5\n", None),
        (b"/annex/objects/MD5E-s123--abc.dcm", "the first is IM6: a pointer to a file that is not here"),
        (b"version https://git-lfs.github.com/spec/v1\n", "the first is IM6: a pointer to a file that is not here"),
        ("gzip", "the first is IM6: compressed by gzip; decompress it"),
        ("link", "the first is IM6: a link that leads nowhere; get its content"),
    ],
)
def test_what_may_be_a_slice_is_named(tmp_path, content, said):
    files = series(tmp_path / "s")
    for number, path in enumerate(files[:6]):
        path.rename(tmp_path / f"s/IM{number}")
    last = tmp_path / "s/IM6"
    if content in ("empty", "cloud"):
        (tmp_path / ("s/IM6.dcm" if content == "empty" else "s/.IM6.dcm.icloud")).touch()
        (tmp_path / "s/.notes.txt.icloud").touch()
    elif content == "link":
        last.symlink_to(tmp_path / "nowhere")
    else:
        last.write_bytes(gzip.compress(files[6].read_bytes()) if content == "gzip" else content)
    files[6].unlink()
    (tmp_path / "s/picture.png").write_bytes(bytes(600))
    (tmp_path / "s/.DS_Store").write_bytes(bytes(600))
    try:
        image, found = read(tmp_path)
    except ValueError as error:
        found = [str(error)]
        lines, sound = list_series(tmp_path)
        assert not sound
        assert said.split(": ", 1)[1] in lines[-1]
    else:
        assert image.shape[1:] == (6, 5, 6)
    assert [said in one for one in found] == [True] if said else not found


def test_links_are_followed_and_every_file_is_read_once(tmp_path):
    files = series(tmp_path / "archive/scan")
    study = tmp_path / "study"
    (study / "inner").mkdir(parents=True)
    (study / "scan").symlink_to(tmp_path / "archive/scan")
    (study / "again").symlink_to(tmp_path / "archive")
    (study / "inner/up").symlink_to(study)
    (study / "inner/root").symlink_to(tmp_path)
    (study / "inner/self").symlink_to(study / "inner/self2")
    (study / "inner/self2").symlink_to(study / "inner")
    (study / "inner/one.dcm").symlink_to(files[2])
    (study / "inner/two.dcm").hardlink_to(files[3])
    image, said = read(study)
    np.testing.assert_array_equal(image[0].numpy(), VOXELS)
    assert not said
    before = sources({"fixed_image": str(study)})
    edit(files[0], EchoTime=20)
    assert sources({"fixed_image": str(study)}) != before


@pytest.mark.parametrize("uids", [["FrameOfReferenceUID"], ["SeriesInstanceUID"], ["StudyInstanceUID"], None])
@pytest.mark.parametrize("every", [1, 3, 10])
def test_slices_with_a_uid_of_their_own_are_one_volume_and_it_is_said(tmp_path, uids, every):
    uids = uids or ["StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"]
    made = {uid: {group: generate_uid() for group in range(8)} for uid in uids}
    tags = {uid: (lambda number, uid=uid: made[uid][number // every]) for uid in uids}
    series(tmp_path / "s", **{"StudyInstanceUID": "1.2", "FrameOfReferenceUID": "1.3", **tags})
    image, said = read(tmp_path)
    np.testing.assert_array_equal(image[0].numpy(), VOXELS)
    count = -(-SHAPE[2] // every)
    assert len(said) == (len(uids) if count > 1 else 0)
    assert all(f"its 7 slices have {count} different {uid}s" in line for uid, line in zip(uids, said, strict=False))
    assert len(read_folder(tmp_path)[0]) == 1


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT"])
def test_an_image_beside_its_segmentation_is_no_label(tmp_path, kind):
    series(tmp_path / "s")
    assert load_image(tmp_path / "s", "label").shape[1:] == SHAPE
    (path,) = write_series(tmp_path / "other", VOXELS[..., :1], AFFINE, Modality=kind)
    path.rename(tmp_path / "s/other.dcm")
    if kind == "RTSTRUCT":
        data = dcmread(tmp_path / "s/other.dcm")
        del data.PixelData
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = RTStructureSetStorage
        data.save_as(tmp_path / "s/other.dcm")
    assert load_image(tmp_path / "s").shape[1:] == SHAPE
    for part in ("label", "mask"):
        with pytest.raises(ValueError, match=f"s: an image and {kind}, of which neither is read as a {part}; convert"):
            load_image(tmp_path / "s", part)


def test_series_that_only_look_alike_stay_apart(tmp_path):
    """Two scans of one grid, two that follow each other with numbers of their own, and pictures in no order."""
    tags = {"SeriesNumber": None, "SeriesDescription": "T2"}
    series(tmp_path / "same/a", **tags)
    series(tmp_path / "same/b", **tags)
    below = AFFINE.copy()
    below[:3, 3] += 7 * AFFINE[:3, 2]
    series(tmp_path / "next/a", **tags)
    write_series(tmp_path / "next/b", VOXELS, below, **tags)
    for number, height in enumerate((0, 1, 5)):
        place = AFFINE.copy()
        place[:3, 3] += height * AFFINE[:3, 2]
        write_series(tmp_path / f"planes/{number}", VOXELS[..., :1], place, **tags)
    for folder, shapes in (("same", [SHAPE] * 2), ("next", [SHAPE] * 2), ("planes", [(6, 5, 1)] * 3)):
        assert [one.shape for one in read_folder(tmp_path / folder)[0]] == shapes
    with pytest.raises(ValueError, match="3 images, expected one: .*; why none is a volume says: python -m bundle"):
        load_image(tmp_path / "planes")


def test_slices_of_a_volume_that_are_called_localizers_belong_to_it(tmp_path):
    files = series(tmp_path / "s")
    for path in files[:2]:
        edit(path, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    image, said = read(tmp_path)
    np.testing.assert_array_equal(image[0].numpy(), VOXELS)
    assert ["2 of its 7 slices are called localizers" in one for one in said] == [True]


# --- tiles ------------------------------------------------------------------------------------------------------------


def csa(tiles):
    """A header of Siemens (CSA2) with the number of slices in a mosaic."""
    value = str(tiles).encode().ljust(12, b"\0")
    tag = b"NumberOfImagesInMosaic".ljust(64, b"\0") + np.array([1], "<i4").tobytes() + b"US\0\0"
    item = np.array([len(value)] * 2 + [77, len(value)], "<i4").tobytes() + value
    return b"SV10\4\3\2\1" + np.array([1, 77], "<u4").tobytes() + tag + np.array([6, 1, 77], "<i4").tobytes() + item


TILES = {
    "image type": lambda data: setattr(data, "ImageType", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]),
    "count": lambda data: data.private_block(0x19, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 25),
    "csa": lambda data: data.private_block(0x29, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", csa(25)),
    "united": lambda data: data.private_block(0x65, "UIH", create=True).add_new(0x50, "DS", "25"),
    "slide": lambda data: setattr(data, "DimensionOrganizationType", "TILED_FULL"),
}


@pytest.mark.parametrize("kind", TILES)
def test_tiles_are_named_with_what_converts_them(tmp_path, kind):
    for number in range(2):
        tags = {"SeriesInstanceUID": "1.2.3", "study": "1.2", "frame": "1.4", "AcquisitionNumber": number}
        (path,) = write_series(tmp_path / "s", VOXELS[..., :1], AFFINE, InstanceNumber=number + 1, **tags)
        data = dcmread(path)
        TILES[kind](data)
        data.save_as(path)
    lines, sound = list_series(tmp_path)
    assert not sound
    said = "export one level" if kind == "slide" else "convert it to NIfTI by dcm2niix"
    assert all("tiles of one" in line and said in line for line in lines)
    next((tmp_path / "s").iterdir()).unlink()
    for what in (tmp_path, next((tmp_path / "s").iterdir())):
        with pytest.raises(ValueError, match=f"tiles of one .*{said}"):
            load_image(what)


# --- values and headers -----------------------------------------------------------------------------------------------


def test_a_slope_of_more_digits_than_dicom_allows_is_applied_without_a_preamble(tmp_path):
    short, long = b"DS\x10\x000.00001234567890", b"DS\x16\x001.2345678901234567e-05"
    for path in series(tmp_path / "s", SOPClassUID=CTImageStorage, RescaleSlope=short[4:].decode(), RescaleIntercept=0):
        content = path.read_bytes()
        assert short in content
        path.write_bytes(content.replace(short, long)[132:])
    np.testing.assert_allclose(load_image(tmp_path / "s")[0].numpy(), VOXELS * 1.23456789e-05, rtol=1e-6)


@pytest.mark.parametrize(
    ("slope", "intercept", "expected", "said"),
    [
        (b"0      ", b"5      ", (1, 5), "RescaleSlope 0 in 7 of 7 slices, taken as 1 as ITK does"),
        (b"abc    ", b"5      ", (1, 5), "RescaleSlope that is no number in 7 of 7 slices, taken as 1"),
        (b"2      ", b"abc    ", (2, 0), "RescaleIntercept that is no number in 7 of 7 slices, taken as 0"),
        (b"2      ", b"1,5    ", (2, 0), "RescaleIntercept that is no number in 7 of 7 slices, taken as 0"),
        (b"       ", b"       ", (1, 0), None),  # ITK reads any number
        (b" 2     ", b"+5.0   ", (2, 5), None),
        (b"1.5\\2.5", b"5      ", (1.5, 5), None),
        (b"-1     ", b"5e2    ", (-1, 500), None),
    ],
)
def test_slopes_and_intercepts_of_every_spelling(tmp_path, slope, intercept, expected, said):
    for path in series(tmp_path / "s", RescaleSlope="1234.56", RescaleIntercept="6543.21"):
        path.write_bytes(path.read_bytes().replace(b"1234.56", slope).replace(b"6543.21", intercept))
    image, found = read(tmp_path)
    np.testing.assert_array_equal(image[0].numpy(), VOXELS * float(expected[0]) + expected[1])
    assert [said in one for one in found] == [True] if said else not found


def test_a_table_of_values_is_not_applied_and_this_is_said(tmp_path):
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType, table.LUTData = [4, 0, 16], "US", bytes(8)
    series(tmp_path / "s", ModalityLUTSequence=[table])
    image, said = read(tmp_path)
    np.testing.assert_array_equal(image[0].numpy(), VOXELS)
    (line,) = said
    assert "7 of 7 slices have a ModalityLUTSequence" in line
    assert "not applied" in line


PALETTE = [
    (f"{colour}PaletteColorLookupTable{part}", value)
    for colour in ("Red", "Green", "Blue")
    for part, value in (("Descriptor", [256, 0, 16]), ("Data", (257 * np.arange(256)).astype("<u2").tobytes()))
]


def colours(folder, slices=SHAPE[2], **changes):
    """Indices of a palette of greys, in which index and grey are one number."""
    tags = {"PhotometricInterpretation": "PALETTE COLOR", "PixelRepresentation": 0, **dict(PALETTE), **changes}
    return write_series(folder, (VOXELS[..., :slices] % 256).astype(np.uint8), AFFINE, **tags)


def test_a_palette_of_greys_is_read(tmp_path):
    colours(tmp_path / "s")
    np.testing.assert_array_equal(read(tmp_path / "s")[0][0].numpy(), VOXELS % 256)


@pytest.mark.parametrize("slices", [1, SHAPE[2]])
def test_a_palette_of_greys_is_read_without_a_preamble(tmp_path, slices):
    for path in colours(tmp_path / "s", slices):
        path.write_bytes(path.read_bytes()[132:])
    np.testing.assert_array_equal(read(tmp_path / "s")[0][0].numpy(), VOXELS[..., :slices] % 256)


@pytest.mark.parametrize("slices", [1, SHAPE[2]])
@pytest.mark.parametrize(
    "changes",
    [
        {"BluePaletteColorLookupTableData": None},
        {"BluePaletteColorLookupTableDescriptor": None},
        {"GreenPaletteColorLookupTableData": bytes(200)},
        {"RedPaletteColorLookupTableDescriptor": [256, 0, 8]},
        {name: None for name, _ in PALETTE[1::2]} | {"SegmentedRedPaletteColorLookupTableData": bytes([0, 1, 2, 0])},
    ],
)
def test_a_palette_that_would_end_the_process_is_refused(tmp_path, slices, changes):
    colours(tmp_path / "s", slices, **changes)
    with pytest.raises(ValueError, match="s: its palette is in segments, or not as long as it says"):
        load_image(tmp_path / "s")


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"PhotometricInterpretation": "RGB"}, "its PhotometricInterpretation is RGB and it has one value per pixel"),
        ({"PhotometricInterpretation": "YBR_FULL"}, "its PhotometricInterpretation is YBR_FULL and it has one value"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "its pixels have 1 bit each, expected 8, 16 or 32"),
    ],
)
def test_numbers_that_itk_takes_for_others_are_refused(tmp_path, tags, said):
    series(tmp_path / "s", **tags)
    with pytest.raises(ValueError, match=f"s: {said}"):
        load_image(tmp_path / "s")


@pytest.mark.parametrize(
    ("every", "tags", "said"),
    [
        (False, {"PhotometricInterpretation": "MONOCHROME1"}, ["1 of 7 slices are MONOCHROME1, which are inverted"]),
        (True, {"PhotometricInterpretation": "MONOCHROME1"}, []),
        (
            True,
            {"BitsStored": 12, "HighBit": 15},
            ["its HighBit is 15 and its BitsStored 12; as in ITK, the lowest 12"],
        ),
        (True, {"BitsStored": 12, "HighBit": 11}, []),
    ],
)
def test_numbers_that_are_doubtful_are_those_of_simpleitk_and_it_is_said(tmp_path, every, tags, said):
    files = series(tmp_path / "s")
    for path in files if every else files[2:3]:
        edit(path, **tags)
    image, notes = read(tmp_path / "s")
    stacked = sitk.GetArrayFromImage(sitk.ReadImage([str(path) for path in files])).T
    np.testing.assert_array_equal(image[0].numpy(), stacked)
    assert len(notes) == len(said)
    assert all(part in note for part, note in zip(said, notes, strict=True))


def test_a_class_of_a_maker_is_no_reason_not_to_read(tmp_path):
    """GDCM reads no class that it does not know."""
    series(tmp_path / "s", SOPClassUID="1.2.3.4.5", RescaleSlope=2, RescaleIntercept=-7)
    for path in (tmp_path / "s").iterdir():
        data = dcmread(path)
        data.file_meta.MediaStorageSOPClassUID = "1.2.3.4.5"
        data.save_as(path)
    image, said = read(tmp_path)
    np.testing.assert_array_equal(image[0].numpy(), VOXELS * 2.0 - 7)
    assert not said


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "BitsAllocated"])
def test_what_a_header_lacks_without_which_nothing_is_read_is_named(tmp_path, keyword):
    path = series(tmp_path / "s")[4]
    data = dcmread(path)
    delattr(data, keyword)
    data.save_as(path)
    with pytest.raises(
        ValueError, match=f"1 of its files cannot be read, the first is .*: its header has no {keyword};"
    ):
        load_image(tmp_path)


def test_a_volume_that_its_header_says_is_larger_is_said_to_be_shorter(tmp_path):
    series(tmp_path / "s", NumberOfSlices=SHAPE[2])[6].unlink()
    assert ["6 slices of the 7 of its volume by its header" in one for one in read(tmp_path)[1]] == [True]


@pytest.mark.parametrize("digits", [1, 2, 3, 4])
def test_rounded_directions_are_set_right(tmp_path, digits):
    files = series(tmp_path / "s")
    directions = [round(float(value), digits) for value in dcmread(files[0]).ImageOrientationPatient]
    for path in files:
        edit(path, ImageOrientationPatient=directions)
    image, found = read(tmp_path)
    lengths = np.linalg.norm(image.affine.numpy()[:3, :3], axis=0)
    np.testing.assert_allclose(lengths, (0.9, 1.1, 2.5), atol=1e-6)
    np.testing.assert_allclose(image.affine.numpy()[:3, :3], AFFINE[:3, :3], atol=2 * 10.0**-digits)
    assert [("the nearest directions are used" in one) for one in found] == [True] * (digits < 3)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"ImageOrientationPatient": [0] * 6}, "ImageOrientationPatient is no two directions"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.8, 0.6, 0]}, "ImageOrientationPatient is no two directions"),
        ({"PixelSpacing": [0, 0]}, "PixelSpacing is 0 x 0 mm, expected more than 0"),
        ({"PixelSpacing": None}, r"its 7 slices have no PixelSpacing; correct its headers"),
        ({"ImagePositionPatient": None}, r"its 7 slices have no geometry \(ImagePositionPatient\)"),
        ({"InConcatenationTotalNumber": 2}, "one of 2 files that are one image together"),
    ],
)
def test_a_place_that_is_none_is_named(tmp_path, tags, said):
    series(tmp_path / "s", **tags)
    with pytest.raises(ValueError, match=said):
        load_image(tmp_path)


@pytest.mark.parametrize("comma", [False, True])
@pytest.mark.parametrize("number", [3, 6])
def test_a_slice_without_a_place_is_not_left_out(tmp_path, comma, number):
    """Nor is it called missing, or the shorter volume copied as a sound one."""
    path = series(tmp_path / "s")[number]
    edit(path, ImagePositionPatient=[12345.25, 1, 2] if comma else None)
    path.write_bytes(path.read_bytes().replace(b"12345.25", b"12345,25"))
    said = "ImagePositionPatient of 1 of 7 slices is absent or invalid; correct the headers"
    with pytest.raises(ValueError, match=said):
        load_image(tmp_path)
    lines, sound = list_series(tmp_path, tmp_path.parent / f"{tmp_path.name}_sorted")
    assert not sound
    assert [said in line for line in lines].count(True) == 1


def test_a_picture_in_the_series_of_a_volume_is_none_of_its_slices(tmp_path):
    tags = {"ImagePositionPatient": None, "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}
    edit(series(tmp_path / "s")[6], **tags)
    with pytest.raises(ValueError, match="1 of the 7 slices of its series have no place in space; sort them by"):
        load_image(tmp_path)
    assert list_series(tmp_path)[1]


@pytest.mark.parametrize(("between", "said"), [(2.5, False), (-2.5, False), (1.25, True), (None, False)])
def test_a_distance_that_positions_do_not_show_is_said(tmp_path, between, said):
    series(tmp_path / "s", SpacingBetweenSlices=between)
    found = read(tmp_path)[1]
    expected = "its slices are 2.5 mm apart, and SpacingBetweenSlices says 1.25 mm"
    assert [expected in one for one in found] == [True] * said


ABSENT = (
    *("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPClassUID", "SOPInstanceUID", "Modality"),
    *("SeriesNumber", "SeriesDescription", "InstanceNumber", "ImageType", "SliceThickness", "PatientID"),
    *("PhotometricInterpretation", "SamplesPerPixel", "HighBit", "PixelRepresentation", "PatientPosition"),
)


@settings(
    max_examples=15 * LONGER,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_any_series_is_the_volume_of_simpleitk_or_named(tmp_path_factory, data):
    """Order, attributes, forms of files, missing and repeated slices are drawn; SimpleITK reads the sound files."""
    folder = tmp_path_factory.mktemp("series")
    spacing = data.draw(st.tuples(*[st.floats(0.2, 6)] * 3))
    angles = data.draw(st.tuples(*[st.floats(-180, 180)] * 3))
    origin = data.draw(st.tuples(*[st.floats(-400, 400)] * 3))
    tags = {"InstanceNumber": None} if data.draw(st.booleans()) else {}
    if data.draw(st.booleans()):
        tags |= {"RescaleSlope": lambda number: 1 + number / 4, "RescaleIntercept": -9}
    files = write_series(folder / "sound", VOXELS, oblique_affine(spacing, origin, angles), **tags)
    itk_files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder / "sound"))
    expected = sitk.ReadImage(itk_files, sitk.sitkFloat32)
    absent = data.draw(st.lists(st.sampled_from(ABSENT), max_size=3, unique=True))
    lost = data.draw(st.sets(st.integers(0, SHAPE[2] - 1), max_size=2))
    twice = data.draw(st.none() | st.integers(0, SHAPE[2] - 1))
    (folder / "mixed/a").mkdir(parents=True)
    names = data.draw(st.permutations(range(SHAPE[2])))
    for number, path in enumerate(files):
        form = data.draw(st.sampled_from(sorted(FORMS)))
        source = dcmread(path)
        for keyword in absent:
            source.pop(keyword, None)
        source.save_as(path)
        content = FORMS[form](path)
        for copy in range((number not in lost) * (1 + (number == twice))):
            suffix = data.draw(st.sampled_from(("", ".dcm", ".IMA")))
            place = "mixed" if data.draw(st.booleans()) else "mixed/a"
            (folder / place / f"{names[number]}{'b' * copy}{suffix}").write_bytes(content)
    try:
        image, said = read(folder / "mixed")
    except ValueError as error:
        message = str(error)
        assert "\n" not in message
        kept = sorted(set(range(SHAPE[2])) - lost)
        gaps = kept[-1] - kept[0] + 1 > len(kept)
        assert gaps or (twice is not None and twice not in lost), message
        return
    first, last = min(set(range(SHAPE[2])) - lost), max(set(range(SHAPE[2])) - lost)
    part = expected[:, :, first : last + 1]
    # ITK runs along the normal, as we do; a left-handed volume stands upside down in both.
    np.testing.assert_allclose(image[0].numpy(), sitk.GetArrayFromImage(part).T, rtol=1e-6)
    for point in ((0, 0, 0), (5, 1, part.GetSize()[2] - 1)):
        ours = RAS_TO_LPS[:3, :3] @ (image.affine.numpy() @ [*point, 1])[:3]
        np.testing.assert_allclose(ours, part.TransformIndexToPhysicalPoint(point), atol=1e-3)
    assert said or not lost or "InstanceNumber" in absent or "InstanceNumber" in tags or max(lost) >= 7 - len(lost)
