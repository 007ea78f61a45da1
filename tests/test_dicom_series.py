"""Series of DICOM as scanners and archives leave them: sorted out, in order, in place, or refused with a reason."""

import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_toys import (
    RAS_TO_LPS,
    edit,
    oblique_affine,
    write_directory,
    write_emission,
    write_multiframe,
    write_report,
    write_series,
    write_ultrasound,
)
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    JPEGLSLossless,
    OphthalmicTomographyImageStorage,
    RLELossless,
    SegmentationStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from bundle.__main__ import dicom_series
from bundle.data import check_data
from bundle.dicom import read_folder, read_series
from bundle.dicom.frames import Damaged, read_frames
from bundle.formats import LoadPaird, load_image
from bundle.system import DataWarning, sources

AFFINE = oblique_affine()
SHAPE = (8, 6, 7)
STUDY = "1.2.3.4"
LOCALIZER = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}


def voxels(seed=0, shape=SHAPE, dtype=np.uint16):
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(max(limits.min, -3000), min(limits.max, 4000), shape, dtype=dtype)


def refusal(folder):
    with pytest.raises(ValueError) as caught:
        load_image(str(folder))
    with pytest.raises(ValueError) as other:
        read_series(folder)
    message = str(caught.value)
    assert message == str(other.value)
    assert message.startswith(f"{folder}: ") and "\n" not in message
    assert "Phantom^One" not in message
    return message.removeprefix(f"{folder}: ")


# --- order and place --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_voxels_and_affine_are_those_of_the_volume_and_of_simpleitk(tmp_path, seed):
    """Random oblique grids, thickness that is not the distance, instance numbers that say nothing of the order."""
    random = np.random.default_rng(seed)
    affine = oblique_affine(random.uniform(0.3, 4, 3), random.uniform(-300, 300, 3), random.uniform(-180, 180, 3))
    numbers = random.permutation(SHAPE[2]) + 1
    array = voxels(seed)
    files = write_series(
        tmp_path / "s", array, affine, SliceThickness=9, InstanceNumber=lambda number: int(numbers[number])
    )
    series = read_series(tmp_path / "s")
    assert series.files == tuple(files)
    assert (series.shape, series.fault, series.notes) == (SHAPE, "", ())
    np.testing.assert_allclose(series.affine, affine, atol=1e-6)
    image = load_image(tmp_path / "s")
    np.testing.assert_array_equal(image[0].numpy(), array)
    np.testing.assert_allclose(image.affine.numpy(), affine, atol=1e-6)
    other = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "s")))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(other).T, array)
    point = (3, 1, 5)
    np.testing.assert_allclose(
        RAS_TO_LPS[:3, :3] @ (image.affine.numpy() @ [*point, 1])[:3],
        other.TransformIndexToPhysicalPoint(point),
        atol=1e-5,
    )


def test_what_is_known_of_a_series(tmp_path):
    uids = {name: generate_uid() for name in ("study", "frame")}
    write_series(tmp_path / "T2 axial", voxels(), AFFINE, **uids, SeriesNumber=7, Modality="CT")
    series = read_series(tmp_path)
    header = dcmread(series.files[0])
    assert (series.uid, series.study, series.frame) == (header.SeriesInstanceUID, uids["study"], uids["frame"])
    assert (series.modality, series.description, series.number) == ("CT", "T2 axial", 7)
    assert str(series) == "7 CT T2 axial (8 x 6 x 7)"


def test_rounded_positions_are_even(tmp_path, capfd):
    files = write_series(tmp_path / "s", voxels(), AFFINE)
    for path in files:
        edit(path, ImagePositionPatient=[round(float(value), 1) for value in dcmread(path).ImagePositionPatient])
    np.testing.assert_allclose(load_image(tmp_path / "s").affine.numpy(), AFFINE, atol=0.05)
    assert capfd.readouterr().err == ""


def test_a_single_slice_is_planar_and_lies_where_itk_puts_it(tmp_path):
    (path,) = write_series(tmp_path / "s", voxels(shape=(8, 6, 1)), AFFINE)
    image, other = load_image(tmp_path / "s"), sitk.ReadImage(str(path))
    assert image.shape == (1, 8, 6, 1)
    expected = np.eye(4)
    expected[:3, :3] = np.reshape(other.GetDirection(), (3, 3)) * other.GetSpacing()
    expected[:3, 3] = other.GetOrigin()
    np.testing.assert_allclose(image.affine.numpy(), RAS_TO_LPS @ expected, atol=1e-6)
    edit(path, ImagePositionPatient=None, ImageOrientationPatient=None)
    assert load_image(tmp_path / "s").shape == (1, 8, 6, 1)


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "tags", "stored"),
    [
        (np.uint8, {}, "uint8"),
        (np.uint16, {}, "uint16"),
        (np.int16, {}, "int16"),
        (np.uint16, {"BitsStored": 12, "HighBit": 11}, "uint16"),
        (np.int16, {"SOPClassUID": CTImageStorage, "RescaleSlope": 1, "RescaleIntercept": -1024}, "int32"),
        (np.uint16, {"RescaleSlope": lambda number: 1 + number / 4, "RescaleIntercept": lambda n: -n}, "float32"),
        (np.uint16, {"RescaleSlope": lambda number: 1 + 40 * number, "RescaleIntercept": -3}, "int32"),
        (np.uint16, {"SOPClassUID": UltrasoundImageStorage, "RescaleSlope": 2, "RescaleIntercept": 5}, None),
    ],
)
def test_values_are_those_of_pydicom_and_simpleitk(tmp_path, dtype, tags, stored):
    files = write_series(tmp_path / "s", voxels(dtype=dtype), AFFINE, **tags)
    image = load_image(tmp_path / "s")
    for number, path in enumerate(files):
        header = dcmread(path)
        values = header.pixel_array.T * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0))
        np.testing.assert_allclose(image[0, ..., number].numpy(), values, rtol=1e-6)
        np.testing.assert_allclose(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0].T, values, rtol=1e-6)
    assert stored in (None, image.meta["stored_type"])


@pytest.mark.parametrize(("dtype", "bits"), [(np.int16, 16), (np.int16, 12), (np.int8, 8)])
@pytest.mark.parametrize("slices", [1, SHAPE[2]])
def test_an_intercept_that_takes_the_sign_from_signed_numbers(tmp_path, dtype, bits, slices):
    """ITK #5290: "Pixel type larger than output type"."""
    array, intercept = voxels(dtype=dtype)[..., :slices].clip(-2000, 2000), 2 ** (bits - 1)
    write_series(
        tmp_path / "s", array, AFFINE, BitsStored=bits, HighBit=bits - 1, RescaleSlope=1, RescaleIntercept=intercept
    )
    image = load_image(tmp_path / "s")
    np.testing.assert_array_equal(image[0].numpy(), array.astype(np.float32) + intercept)
    assert np.dtype(image.meta["stored_type"]).kind in "iu"


def test_numbers_far_from_zero_keep_their_steps(tmp_path):
    array = voxels().astype(np.uint32) % 100 + 2_000_000_000
    write_series(tmp_path / "s", array, AFFINE)
    image = load_image(tmp_path / "s")
    np.testing.assert_array_equal(image[0].numpy(), array)
    assert image.meta["stored_type"] == "uint32"


@pytest.mark.parametrize("bits", [12, 16])
def test_what_monochrome1_shows_dark_is_low_as_in_simpleitk(tmp_path, bits):
    array = voxels() % 4000
    tags = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": bits, "HighBit": bits - 1}
    write_series(tmp_path / "s", array, AFFINE, **tags)
    found = load_image(tmp_path / "s")[0].numpy()
    np.testing.assert_array_equal(found, 2**bits - 1 - array.astype(float))
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "s"))
    np.testing.assert_array_equal(found, sitk.GetArrayFromImage(sitk.ReadImage(files)).T)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_slices(tmp_path, syntax):
    array = np.arange(16 * 12 * 4).reshape(16, 12, 4).astype(np.uint16)
    for path in write_series(tmp_path / "s", array, AFFINE):
        data = dcmread(path)
        data.compress(syntax)
        data.save_as(path)
    np.testing.assert_array_equal(load_image(tmp_path / "s")[0].numpy(), array)
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    assert refusal(tmp_path / "s").startswith(f"1 of its files cannot be read, the first is {path.name}")


def test_compression_that_is_not_read(tmp_path):
    for path in write_series(tmp_path / "s", voxels(), AFFINE):
        data = dcmread(path)
        data.file_meta.TransferSyntaxUID = HTJ2K
        data.PixelData = encapsulate([data.PixelData])
        data.save_as(path)
    assert "compressed as High-Throughput JPEG 2000" in refusal(tmp_path / "s")


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    for kind in ("SEG", "RTDOSE"):
        for path in write_series(tmp_path / "s", voxels(shape=(8, 6, 1)), AFFINE):
            edit(path, Modality=kind)
    assert refusal(tmp_path / "s") == (
        "cannot be read, a folder without a DICOM series, but with RTDOSE, SEG; name the folder of an "
        "image, or convert it to NIfTI"
    )


def test_a_folder_with_an_archive_names_it(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s/study.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    assert refusal(tmp_path / "s") == (
        "cannot be read, a folder without a DICOM series, but with study.zip: a zip archive; unpack it"
    )


# --- mixed folders ----------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path):
    """Everything of a study in one folder, under names without a suffix; the volume and the others."""
    volume = write_series(tmp_path / "volume", voxels(), AFFINE, STUDY, SeriesNumber=3)
    planes = [oblique_affine(degrees=degrees) for degrees in ((0, 0, 0), (90, 0, 0), (0, 90, 0))]
    uid = generate_uid()
    for number, plane in enumerate(planes):
        tags = {"SeriesInstanceUID": uid, "SeriesNumber": 1, **LOCALIZER}
        write_series(tmp_path / f"localizer{number}", voxels(shape=(5, 5, 3)), plane, STUDY, **tags)
    (mask,) = write_series(tmp_path / "mask", voxels(shape=(8, 6, 1)), AFFINE, STUDY, Modality="SEG")
    edit(mask, SOPClassUID=SegmentationStorage)
    folder = tmp_path / "mixed"
    (folder / "more").mkdir(parents=True)
    for number, path in enumerate(sorted(tmp_path.glob("*/*.dcm"))):
        path.rename(folder / ("more" if number % 3 else ".") / f"IM{number:04d}")
    write_report(folder / "SR0001.dcm")
    write_directory(folder / "DICOMDIR")
    (folder / "notes.txt").write_text("no DICOM")
    (folder / "._hidden.dcm").write_bytes(b"of macOS")
    return folder, volume


def test_a_volume_is_found_beside_localizers_reports_and_segmentations(mixed):
    folder, _ = mixed
    series = read_folder(folder)[0]
    assert [(one.number, one.shape, one.localizer) for one in series] == [
        *[(1, (5, 5, 3), True)] * 3,
        (3, SHAPE, False),
    ]
    np.testing.assert_array_equal(load_image(folder)[0].numpy(), voxels())
    assert load_image(folder).meta["filename_or_obj"] == str(folder)


def test_two_volumes_are_refused_and_listed(mixed):
    folder, _ = mixed
    write_series(folder / "again", voxels(1), AFFINE, SeriesNumber=4, SeriesDescription="T2\nagain", Modality="CT")
    assert refusal(folder) == (
        "2 volumes, expected one: 3 MR volume (8 x 6 x 7); 4 CT T2 again (8 x 6 x 7); sort them by: "
        f"python -m bundle dicom_series {folder} --output_dir OUT"
    )


@pytest.fixture
def command(capsys):
    """``python -m bundle dicom_series``: its exit code and lines."""

    def run(*options):
        with pytest.raises(SystemExit) as exit_code:
            dicom_series(*map(str, options))
        return exit_code.value.code, capsys.readouterr().out.splitlines()

    return run


def test_a_command_puts_each_volume_into_a_folder_of_its_own(mixed, tmp_path, command):
    folder, _ = mixed
    for shift in (0, 1):
        affine = AFFINE.copy()
        affine[0, 3] += shift
        write_series(
            folder / f"b{shift}", voxels(shift), affine, STUDY, SeriesNumber=5, SeriesDescription="../T2: öbl/ique"
        )
    write_series(folder / "gap", voxels(), AFFINE, STUDY, SeriesNumber=6)[3].unlink()
    failed, lines = command(folder, tmp_path / "out")
    assert not failed
    assert len(lines) == 7
    assert lines[:3] == [f"1 MR localizer{n} (5 x 5 x 3), 0.9 x 1.1 x 2.5 mm: no, a localizer" for n in range(3)]
    assert lines[3] == f"3 MR volume (8 x 6 x 7), 0.9 x 1.1 x 2.5 mm: can be registered -> {tmp_path}/out/003_volume"
    assert "no, 1 slice is missing between instance numbers 3 and 5" in lines[6]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["003_volume", "005_T2_bl_ique", "005_T2_bl_ique_series2"]
    np.testing.assert_array_equal(load_image(tmp_path / "out/003_volume")[0].numpy(), voxels())
    assert "Phantom" not in "".join(lines)


def _trus(folder, patient, study, **tags):
    tags = {"PatientID": patient, "PatientName": "Secret^Name", "SeriesDescription": "TRUS 3D", **tags}
    write_series(folder, voxels(), AFFINE, study, SeriesNumber=2, **tags)


def test_patients_and_studies_do_not_mix(tmp_path, command):
    study = {name: generate_uid() for name in ("a", "b1", "b2")}
    _trus(tmp_path / "in/x/1", "Anna7", study["a"])
    _trus(tmp_path / "in/y/1", "Bert8", study["b1"])
    _trus(tmp_path / "in/y/2", "Bert8", study["b2"])
    failed, lines = command(tmp_path / "in", tmp_path / "out")
    assert not failed
    out, size = tmp_path / "out", "2 MR TRUS 3D (8 x 6 x 7), 0.9 x 1.1 x 2.5 mm"
    assert lines == [
        "2 patients, 3 studies",
        f"{size}, patient1 in x/1: can be registered -> {out}/patient1/002_TRUS_3D",
        f"{size}, patient2/study1 in y/1: can be registered -> {out}/patient2/study1/002_TRUS_3D",
        f"{size}, patient2/study2 in y/2: can be registered -> {out}/patient2/study2/002_TRUS_3D",
    ]
    assert dcmread(next((out / "patient2/study2/002_TRUS_3D").iterdir())).StudyInstanceUID == study["b2"]
    _, lines = command(tmp_path / "in/y")
    assert [line.partition(":")[0] for line in lines] == [
        "1 patient, 2 studies",
        f"{size}, study1 in 1",
        f"{size}, study2 in 2",
    ]
    _trus(tmp_path / "in/z/1", "", study["a"])
    assert command(tmp_path / "in")[1][0] == "4 studies"  # of who knows how many patients


def test_parts_are_those_of_one_series(tmp_path, command):
    for number in (1, 2):
        uid = generate_uid()
        for echo in (10, 80):
            tags = {"EchoTime": echo, "SeriesInstanceUID": uid}
            _trus(tmp_path / f"in/{number}/{echo}", "Anna7", STUDY, FrameOfReferenceUID=f"1.2.{number}", **tags)
    command(tmp_path / "in", tmp_path / "out")
    found = {(path.name, dcmread(next(path.iterdir())).FrameOfReferenceUID) for path in (tmp_path / "out").iterdir()}
    first = {f"1.2.{n}": {name for name, frame in found if frame == f"1.2.{n}"} for n in (1, 2)}
    one, other = {"002_TRUS_3D", "002_TRUS_3D_part2"}, {"002_TRUS_3D_series2", "002_TRUS_3D_series2_part2"}
    assert sorted(map(sorted, first.values())) == sorted(map(sorted, (one, other)))


def test_the_command_writes_no_half_of_anything(mixed, tmp_path, command):
    folder, _ = mixed
    (tmp_path / "out/003_volume").mkdir(parents=True)
    with pytest.raises(ValueError, match="out/003_volume is there already; give a new output_dir"):
        dicom_series(str(folder), str(tmp_path / "out"))
    with pytest.raises(ValueError, match="whose series would be there twice; give an output_dir elsewhere"):
        dicom_series(str(folder), str(folder / "out"))
    with pytest.raises(FileNotFoundError, match="folder not found"):
        dicom_series(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="out: no DICOM series in it or below"):
        dicom_series(str(tmp_path / "out"))
    (folder / "damaged.dcm").write_bytes(b"\0" * 128 + b"DICM")
    failed, lines = command(folder)
    assert failed
    assert "damaged.dcm: cannot be read" in lines[-1]


@pytest.mark.parametrize(
    "keyword, values",
    [
        ("EchoTime", (10, 80)),
        ("TemporalPositionIdentifier", (1, 2, 3)),
        ("DiffusionBValue", (0, 500)),
        ("StudyInstanceUID", ("1.2.3", "1.2.4")),
        ("AcquisitionNumber", (4, 5)),
    ],
)
def test_echoes_and_times_of_one_series_are_volumes_of_their_own(tmp_path, keyword, values):
    uid, frame = generate_uid(), generate_uid()
    for number, value in enumerate(values):
        tags = {keyword: value, "SeriesInstanceUID": uid, "ContentTime": lambda slice: f"1200{slice:02d}"}
        files = write_series(tmp_path / "s", voxels(number), AFFINE, frame=frame, **tags)
        for path in files:
            edit(path, InstanceNumber=dcmread(path).InstanceNumber + number * SHAPE[2])
    series = read_folder(tmp_path)[0]
    assert [one.shape for one in series] == [SHAPE] * len(values)
    assert all(one.uid == uid and not one.fault and not one.notes for one in series)
    for number, one in enumerate(series):
        np.testing.assert_array_equal(dcmread(one.files[2]).pixel_array.T, voxels(number)[..., 2])
    assert f"{len(values)} volumes, expected one" in refusal(tmp_path)


def test_pairs_name_folders_of_series_and_the_check_reports_them(tmp_path):
    for number, name in enumerate(("a", "b", "c")):
        files = write_series(tmp_path / "images" / name, voxels(number), AFFINE)
    files[2].unlink()
    report = check_data(tmp_path)
    assert report.problems == [
        "images/c: 1 slice is missing between instance numbers 2 and 4, "
        f"{place(1):.4g} and {place(3):.4g} mm along the normal; send the series again"
    ]
    assert "RAS" not in report.problems
    data = LoadPaird(["fixed_image"])({"fixed_image": str(tmp_path / "images/a")})
    np.testing.assert_array_equal(data["fixed_image"][0].numpy(), voxels())


def place(number):
    """Position of a slice along the normal."""
    lps = RAS_TO_LPS @ AFFINE
    return (lps @ [0, 0, number, 1])[:3] @ lps[:3, 2] / 2.5


def test_a_result_depends_on_the_files_of_sub_folders_too(tmp_path):
    files = write_series(tmp_path / "study/series", voxels(), AFFINE)
    pair = {"fixed_image": str(tmp_path / "study")}
    before = sources(pair)
    edit(files[3], EchoTime=20)
    assert sources(pair) != before


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0.5, 15.0, -22.5])
def test_sheared_slices(tmp_path, degrees):
    affine = AFFINE.copy()
    affine[:3, 2] += np.tan(np.deg2rad(degrees)) * 2.5 * affine[:3, 1] / 1.1
    write_series(tmp_path / "s", voxels(), affine)
    message = refusal(tmp_path / "s")
    assert f"sheared by {abs(degrees):.1f} degrees (gantry tilt)" in message
    assert "resample" in message


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ([1], "1 slice is missing between instance numbers 1 and 3, "),
        ([5], "1 slice is missing between instance numbers 5 and 7, "),
        ([2, 3], "2 slices are missing between instance numbers 2 and 5, "),
        ([1, 5], "2 slices are missing, the first between instance numbers 1 and 3, "),
    ],
)
def test_missing_slices(tmp_path, missing, said):
    files = write_series(tmp_path / "s", voxels(), AFFINE)
    for number in missing:
        files[number].unlink()
    assert refusal(tmp_path / "s").startswith(said)


def test_uneven_distances(tmp_path):
    for number, path in enumerate(write_series(tmp_path / "s", voxels(), np.diag([-1.0, -1, 2, 1]))):
        edit(path, ImagePositionPatient=[0, 0, 2 * number + (0.8 if number == 4 else 0)])
    assert refusal(tmp_path / "s").startswith("the distances of its slices are 1.2 to 2.8 mm, expected even")


@pytest.mark.parametrize("missing", [[0, 1], [6]])
def test_a_missing_end_is_warned_of_where_numbers_tell(tmp_path, missing):
    files = write_series(tmp_path / "s", voxels(), AFFINE, ImagesInAcquisition=SHAPE[2] if missing == [6] else None)
    for number in missing:
        files[number].unlink()
    expected = (
        "6 slices of the 7 that its acquisition has"
        if missing == [6]
        else "5 slices with instance numbers 3 to 7; some may be missing at its ends"
    )
    with pytest.warns(DataWarning, match=expected):
        image = load_image(tmp_path / "s")
    np.testing.assert_array_equal(image[0].numpy(), np.delete(voxels(), missing, axis=2))


STACKS = {
    "slabs": ([0, 3, 6, 9, 30.7, 33.7, 36.7], 0),
    "overlapping slabs": ([0, 3, 6, 9, 7, 10, 13], 0),
    "beside each other": ([0, 3, 6, 9, 0, 3, 6], 40),
    "on a slope": ([0, 3, 6, 9, 16, 19, 22], 40),
}
"""Two stacks of 4 and 3 slices: height of each slice, and how far the second is aside, mm."""


def stacked(folder, heights, aside=0, **tags):
    files = write_series(folder, voxels()[..., : len(heights)], np.diag([-1.0, -1, 2, 1]), **tags)
    for number, (path, height) in enumerate(zip(files, heights, strict=True)):
        edit(path, ImagePositionPatient=[aside * (number > 3), 0, height])


@pytest.mark.parametrize("numbers", ["consecutive", "of each stack"])
@pytest.mark.parametrize("case", STACKS)
def test_parallel_stacks_of_one_series_are_volumes_of_their_own(tmp_path, command, case, numbers):
    """Two breasts, or blocks of a spine, in one series (dcm2niix #839, 3D Slicer forum 37606): no tilt, no copies."""
    told = {"consecutive": {}, "of each stack": {"InstanceNumber": [1, 2, 3, 4, 1, 2, 3].__getitem__}}[numbers]
    told |= {"AcquisitionNumber": lambda number: number // 4} if told else {}
    stacked(tmp_path / "s", *STACKS[case], **told)
    assert refusal(tmp_path / "s") == (
        "2 parallel stacks of one series, expected one: 1 MR s (8 x 6 x 4); 1 MR s (8 x 6 x 3); sort them by: "
        f"python -m bundle dicom_series {tmp_path}/s --output_dir OUT"
    )
    command(tmp_path / "s", tmp_path / "out")
    for name, part in (("001_s", slice(4)), ("001_s_part2", slice(4, 7))):
        image = load_image(tmp_path / "out" / name)
        np.testing.assert_array_equal(image[0].numpy(), voxels()[..., part])
        np.testing.assert_allclose(image.affine[:3, 2].numpy(), [0, 0, 3], atol=1e-9)


@pytest.mark.parametrize(
    ("heights", "numbers", "said"),
    [
        (
            [0, 3, 6, 36, 39, 42],
            [1, 2, 3, 4, 5, 6],
            "its slices are 3 mm apart, but 30 mm between instance numbers 3 and 4, 6 and 36 mm along the normal: 9 "
            "slices are missing, or it has 2 parallel stacks of 3 slices; send it again, or keep each stack in a "
            "folder of its own",
        ),
        (
            [0, 3, 6, 36, 39, 42],
            [1, 2, 3, 13, 14, 15],
            "9 slices are missing between instance numbers 3 and 13, 6 and 36 mm along the normal; send the series "
            "again",
        ),
        (
            [0, 3, 6, 36, 39, 42],
            [None] * 6,
            "its slices are 3 mm apart, but 30 mm between 6 and 36 mm along the normal",
        ),
        ([0, 3, 6, 12, 15, 18], [None] * 6, "1 slice is missing between 6 and 12 mm along the normal; send the series"),
        (
            [0, 3, 21.5, 24.5, 27.5],
            [1, 2, 3, 4, 5],
            "its slices are 3 mm apart, but 18.5 mm between instance numbers 2 and 3, 3 and 21.5 mm along the normal: "
            "it has 2 parallel stacks of 2 to 3 slices; keep each stack in a folder of its own",
        ),
        ([0, 5, 10, 15, 25, 35], [1, 2, 3, 4, 5, 6], "the distances of its slices are 5 to 10 mm, expected even"),
        ([0, 3, 9, 12, 15, 18], [1, 2, 4, 5, 7, 8], "1 slice is missing between instance numbers 2 and 4, 3 and 9 mm"),
    ],
)
def test_a_gap_is_one_of_missing_slices_if_numbers_say_so(tmp_path, heights, numbers, said):
    """A scanner numbers the slices of several stacks, and those of another distance, one after the other."""
    stacked(tmp_path / "s", heights, InstanceNumber=numbers.__getitem__)
    assert refusal(tmp_path / "s").startswith(said)


def test_two_slices_at_one_position(tmp_path):
    files = write_series(tmp_path / "s", voxels(), AFFINE)
    (tmp_path / "s" / "copy.dcm").write_bytes(files[3].read_bytes())
    message = refusal(tmp_path / "s")
    assert message.startswith("2 of its 8 slices lie at one position (a time series, or copies of files?)")


@pytest.mark.parametrize(
    "other",
    [
        {"ImageOrientationPatient": [1, 0, 0, 0, 0, 1]},
        {"PixelSpacing": [1.3, 0.9]},
        {"Rows": SHAPE[0], "Columns": SHAPE[1]},
    ],
)
def test_slices_that_differ_within_a_series(tmp_path, other):
    files = write_series(tmp_path / "s", voxels(), AFFINE)
    edit(files[-1], **other)
    message = refusal(tmp_path / "s")
    assert message.startswith("1 of the 7 slices of its series have another orientation, spacing or size; sort them by")


def test_a_cine_has_no_geometry(tmp_path):
    tags = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient"))
    write_series(tmp_path / "s", voxels(), AFFINE, Modality="US", **tags)
    assert refusal(tmp_path / "s").startswith("its 7 slices have no geometry (ImagePositionPatient")
    # Beside a volume it is no second one.
    write_series(tmp_path / "volume", voxels(1), AFFINE)
    np.testing.assert_array_equal(load_image(tmp_path)[0].numpy(), voxels(1))


def test_a_cine_in_one_file_has_no_geometry(tmp_path):
    content = np.zeros(8 * 6 * 30, np.uint16).tobytes()
    tags = {"NumberOfFrames": 30, "ImagePositionPatient": None, "PixelData": content}
    write_series(tmp_path / "s", voxels(shape=(8, 6, 1)), AFFINE, **tags)
    assert refusal(tmp_path / "s").startswith("its 30 slices have no geometry (ImagePositionPatient")


def test_a_file_of_frames_with_the_position_of_the_first_alone_is_no_volume(tmp_path):
    content = np.zeros(8 * 6 * 30, np.uint16).tobytes()
    tags = {"NumberOfFrames": 30, "PixelData": content, "Modality": "NM"}
    write_series(tmp_path / "s", voxels(shape=(8, 6, 1)), AFFINE, **tags)
    expected = "one file of 30 frames without a position of each; convert it to single frames"
    assert refusal(tmp_path / "s") == expected


@pytest.mark.parametrize("slices", [1, 7])
def test_colours_are_refused(tmp_path, slices):
    colours = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    content = bytes(8 * 6 * 3)
    write_series(tmp_path / "s", voxels(shape=(8, 6, slices), dtype=np.uint8), AFFINE, **colours, PixelData=content)
    assert refusal(tmp_path / "s") == "3 values per pixel (colours), expected one; convert it to grey"


@pytest.mark.parametrize("part", [0.05, 0.5, 0.99])
@pytest.mark.parametrize("name", ["3.dcm", "IM3"])
def test_a_file_cut_short(tmp_path, part, name):
    files = write_series(tmp_path / "s", voxels(shape=(40, 40, 7)), AFFINE)
    content = files[3].read_bytes()
    files[3].unlink()
    (tmp_path / "s" / name).write_bytes(content[: max(int(part * len(content)), 200)])
    assert refusal(tmp_path / "s").startswith(
        f"1 of its files cannot be read, the first is {name}; the volume may have gaps"
    )


def test_wherever_a_file_is_cut_it_is_not_taken_for_none(tmp_path):
    (path,) = write_series(tmp_path / "s", voxels(shape=(6, 6, 1)), AFFINE)
    content, cut = path.read_bytes(), tmp_path / "IM1"
    for length in range(132, len(content), 5):
        cut.write_bytes(content[:length])
        try:
            assert [frame.times for frame in read_frames(cut)] == [0], length
        except Damaged:
            continue


def test_a_single_file_cut_short(tmp_path):
    (path,) = write_series(tmp_path / "s", voxels(shape=(40, 40, 1)), AFFINE)
    path.write_bytes(path.read_bytes()[:-500])
    assert refusal(tmp_path / "s").startswith(f"1 of its files cannot be read, the first is {path.name}")


def test_an_attribute_that_does_not_matter_may_be_wrong(tmp_path):
    for path in write_series(tmp_path / "s", voxels(), AFFINE, EchoTime=1234.5):
        path.write_bytes(path.read_bytes().replace(b"1234.5", b"12a4.5"))
    np.testing.assert_array_equal(load_image(tmp_path / "s")[0].numpy(), voxels())


# --- multi-frame ------------------------------------------------------------------------------------------------------

ORDER = [4, 2, 0, 6, 5, 1, 3]


@pytest.mark.parametrize("kind", [EnhancedMRImageStorage, EnhancedCTImageStorage])
def test_a_multiframe_image_is_a_volume_whatever_the_order_of_its_frames(tmp_path, kind):
    write_multiframe(tmp_path / "s/1.dcm", voxels(), AFFINE, ORDER, kind, rescale=lambda number: (2, -7))
    image = load_image(tmp_path / "s")
    np.testing.assert_array_equal(image[0].numpy(), voxels() * 2.0 - 7)
    np.testing.assert_allclose(image.affine.numpy(), AFFINE, atol=1e-6)


def test_a_private_group_of_a_frame_says_nothing_of_its_place_or_scale(tmp_path):
    """dcm2niix: Philips repeats both in (2005,140F), and its positions there may be others."""
    file = tmp_path / "s/1.dcm"
    write_multiframe(file, voxels(), AFFINE, ORDER, rescale=lambda number: (2, -7))
    image = dcmread(file)
    for number, groups in enumerate(image.PerFrameFunctionalGroupsSequence):
        other = Dataset()
        other.ImagePositionPatient, other.PixelSpacing = [0, 0, number], [1, 1]
        other.RescaleSlope, other.RescaleIntercept, other.Rows = 3, 5, 9
        groups.private_block(0x2005, "Philips MR Imaging DD 005", create=True).add_new(0x0F, "SQ", [other])
    image.save_as(file)
    image = load_image(tmp_path / "s")
    np.testing.assert_array_equal(image[0].numpy(), voxels() * 2.0 - 7)
    np.testing.assert_allclose(image.affine.numpy(), AFFINE, atol=1e-6)


@pytest.mark.parametrize(
    ("order", "rescale", "kind", "said"),
    [
        (
            ORDER,
            lambda number: (1 + number, 0),
            EnhancedMRImageStorage,
            "the values of the frames",
        ),
        (
            ORDER,
            lambda number: (2, 0),
            OphthalmicTomographyImageStorage,
            "its kind of image has no slope",
        ),
        (ORDER * 2, None, EnhancedMRImageStorage, "2 of its 14 slices lie at one position"),
        (
            [0, 1, 2, 4, 5, 6],
            None,
            EnhancedMRImageStorage,
            f"its slices are 2.5 mm apart, but 5 mm between {place(2):.4g} and {place(4):.4g} mm along the normal: 1 "
            "slice is missing, or it has 2 parallel stacks of 3 slices; send it again, or convert it to single frames",
        ),
    ],
)
def test_multiframe_images_that_are_no_volume(tmp_path, order, rescale, kind, said):
    write_multiframe(tmp_path / "s/1.dcm", voxels(), AFFINE, order, kind, rescale)
    assert refusal(tmp_path / "s").startswith(said)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_reconstructed_spect_lies_where_its_detector_and_the_sign_of_its_spacing_say(tmp_path, mirrored):
    """dcm2niix #885: such volumes of GE came upside down. SimpleITK keeps the order of the frames."""
    affine = AFFINE.copy()
    affine[:3, 2] *= -1 if mirrored else 1
    write_emission(tmp_path / "s/1.dcm", voxels(), affine)
    image = load_image(tmp_path / "s")
    expected = voxels()[..., ::-1] if mirrored else voxels()
    np.testing.assert_array_equal(image[0].numpy(), expected)
    read = sitk.ReadImage(str(tmp_path / "s/1.dcm"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read).T, voxels())
    last = (SHAPE[2] - 1) * mirrored
    ends = [(0, 0, 0), (SHAPE[0] - 1, 2, SHAPE[2] - 1), (1, SHAPE[1] - 1, 3)]
    for x, y, z in ends:
        lps = read.TransformIndexToPhysicalPoint((x, y, abs(last - z)))
        np.testing.assert_allclose(image.affine.numpy() @ [x, y, z, 1], np.array([*lps, 1]) * (-1, -1, 1, 1), atol=1e-5)


def test_times_and_projections_of_spect_are_no_volume(tmp_path):
    times = [number // 2 + 1 for number in range(SHAPE[2])]
    write_emission(tmp_path / "gated/1.dcm", voxels(), AFFINE, "RECON GATED TOMO", SliceVector=times)
    assert refusal(tmp_path / "gated").startswith("2 of its 7 slices lie at one position (a time series")
    write_emission(tmp_path / "raw/1.dcm", voxels(), AFFINE, "TOMO")
    assert refusal(tmp_path / "raw").startswith("its 7 slices have no geometry")
    write_emission(tmp_path / "short/1.dcm", voxels(), AFFINE, SliceVector=times[:3])
    assert refusal(tmp_path / "short").startswith("its 7 slices have no geometry")


def test_an_ultrasound_volume_lies_where_its_frames_do_in_its_transducer_or_its_patient(tmp_path):
    """What no reader based on ITK does: those take its voxels for 1 mm."""
    write_ultrasound(tmp_path / "s/1.dcm", voxels(), AFFINE)
    with pytest.warns(
        DataWarning, match="it lies in the coordinates of its transducer .*; ITK takes its voxels for 1 mm"
    ):
        image = load_image(tmp_path / "s")
    np.testing.assert_array_equal(image[0].numpy(), voxels())
    np.testing.assert_allclose(image.affine.numpy(), AFFINE, atol=1e-6)
    assert sitk.ReadImage(str(tmp_path / "s/1.dcm")).GetSpacing() == (1, 1, 1)
    # A patient's coordinates may be the transducer's.
    for patient in (oblique_affine((1, 1, 1), (100, -50, 20), (70, 10, -30)), np.eye(4)):
        write_ultrasound(tmp_path / "p/1.dcm", voxels(), AFFINE, patient=patient)
        series = read_series(tmp_path / "p")
        np.testing.assert_allclose(series.affine, patient @ AFFINE, atol=1e-6)
        assert (series.notes, bool(series.frame)) == ((), True)


def test_a_volume_of_a_transducer_lies_in_no_frame_of_reference_of_a_patient(tmp_path):
    write_ultrasound(tmp_path / "s/1.dcm", voxels(), AFFINE)
    edit(tmp_path / "s/1.dcm", FrameOfReferenceUID="1.2.3")
    assert read_series(tmp_path / "s").frame == ""


def test_ultrasound_that_is_no_volume(tmp_path):
    write_ultrasound(tmp_path / "times/1.dcm", voxels(), AFFINE, times=3)
    assert refusal(tmp_path / "times").startswith("3 of its 21 slices lie at one position (a time series")
    write_ultrasound(tmp_path / "nowhere/1.dcm", voxels(), AFFINE)
    data = dcmread(tmp_path / "nowhere/1.dcm")
    for frame in data.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionVolumeSequence
    data.save_as(tmp_path / "nowhere/1.dcm")
    assert refusal(tmp_path / "nowhere").startswith("its 7 slices have no geometry (ImagePositionPatient")


@pytest.mark.parametrize("samples", [1, 3])
def test_a_cine_of_ultrasound_may_be_beside_a_volume_that_is_not_read(tmp_path, samples):
    """GE and Philips keep 3D scans in private elements beside a cine."""
    tags = {"Modality": "US", "NumberOfFrames": 4, "SOPClassUID": UltrasoundMultiFrameImageStorage}
    tags |= dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    tags |= {"SamplesPerPixel": samples, "PlanarConfiguration": 0}
    tags |= {"PhotometricInterpretation": "RGB"} if samples == 3 else {}
    content = bytes(8 * 6 * 4 * samples)
    write_series(tmp_path / "s", voxels(shape=(8, 6, 1), dtype=np.uint8), AFFINE, PixelData=content, **tags)
    assert refusal(tmp_path / "s") == (
        "its 4 slices have no geometry (ImagePositionPatient, ImageOrientationPatient, PixelSpacing), like a cine, or "
        "the pictures beside a volume in a form of its maker; export a volume with positions"
    )


@pytest.mark.parametrize("frames", [None, 1, 2])
def test_more_pixels_than_a_header_declares_are_no_single_slice(tmp_path, frames):
    """Philips: NumberOfFrames counts times, and a private element slices. An anonymiser may drop NumberOfFrames."""
    tags = {"NumberOfFrames": frames, "PixelData": bytes(8 * 6 * 2 * 6)}
    (path,) = write_series(tmp_path / "s", voxels(shape=(8, 6, 1)), AFFINE, **tags)
    expected = f"its file {path.name} holds {6 // (frames or 1)} times the pixels that its header declares"
    assert refusal(tmp_path / "s").startswith(expected)
    data = dcmread(path)
    data.NumberOfFrames, data.file_meta.TransferSyntaxUID = 6, RLELossless
    data.PixelData = encapsulate([b"\1\0\0\0" + bytes(92)] * 6)
    data.NumberOfFrames = frames
    data.save_as(path)
    assert refusal(tmp_path / "s").startswith(expected)


@pytest.mark.parametrize("slices", [1, 7])
def test_a_compressed_slice_of_zeros_ends_no_process(tmp_path, slices):
    """A broken copy leaves zeros; GDCM divides by the number of segments in them."""
    for path in write_series(tmp_path / "s", voxels(shape=(8, 6, slices)), AFFINE):
        data = dcmread(path)
        data.compress(RLELossless)
        data.save_as(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(data.PixelData[16:80], bytes(64)))
    assert refusal(tmp_path / "s").startswith(f"1 of its files cannot be read, the first is {path.name}")


def test_padding_after_the_pixels_does_not_matter(tmp_path):
    write_series(tmp_path / "s", voxels(shape=(9, 5, 7)), AFFINE, PixelData=bytes(9 * 5 * 2 + 30))
    assert read_series(tmp_path / "s").fault == ""


def test_a_directory_of_a_medium_is_named(tmp_path):
    write_directory(tmp_path / "DICOMDIR")
    assert refusal(tmp_path / "DICOMDIR") == (
        "cannot be read, a DICOMDIR, the list of what a medium holds; name the folder of an image"
    )


def test_a_series_without_a_spacing_says_so(tmp_path):
    write_series(tmp_path / "s", voxels(), AFFINE, PixelSpacing=None, ImagerPixelSpacing=[0.5, 0.5])
    assert refusal(tmp_path / "s") == "its 7 slices have no PixelSpacing; correct its headers"


def test_objects_that_are_no_images_are_named_by_their_class(tmp_path):
    (path,) = write_series(tmp_path / "s", voxels(shape=(8, 6, 1)), AFFINE, SOPClassUID="1.2.840.10008.5.1.4.1.1.4.2")
    data = dcmread(path)
    del data.PixelData
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.save_as(path)
    assert refusal(tmp_path / "s").startswith(
        "cannot be read, a folder without a DICOM series, but with MR of the class MR Spectroscopy; name the folder"
    )


# --- cost and manners -------------------------------------------------------------------------------------------------


def test_five_hundred_slices_are_sorted_in_a_moment(tmp_path):
    write_series(tmp_path / "s", np.zeros((4, 4, 500), np.uint16), AFFINE)
    start = time.process_time()
    assert read_series(tmp_path / "s").shape == (4, 4, 500)
    assert time.process_time() - start < 5


def test_pixels_that_a_header_only_claims_are_not_allocated(tmp_path):
    files = write_series(tmp_path / "s", voxels(), AFFINE, Rows=60000, Columns=60000)
    assert "cannot be read, the first is" in refusal(tmp_path / "s")
    for path in files:
        data = dcmread(path)
        data.file_meta.TransferSyntaxUID = JPEGLSLossless
        data.PixelData = encapsulate([data.PixelData])
        data.save_as(path)
    with pytest.raises(ValueError, match="its header declares 60000 x 60000 x 1 values, more than"):
        load_image(tmp_path / "s")


def test_loading_is_quiet_and_keeps_no_header(tmp_path, save_nifti, capfd, caplog):
    write_series(tmp_path / "s", voxels(), AFFINE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = load_image(tmp_path / "s")
        load_image(save_nifti(tmp_path / "a.nii.gz", voxels().astype(np.float32), AFFINE))
    assert not caplog.records
    assert capfd.readouterr().err == ""
    assert "Phantom" not in str(image.meta)


def test_folders_are_read_by_threads_at_once(tmp_path):
    for number in range(4):
        write_series(tmp_path / str(number), voxels(number), AFFINE)
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(load_image, [tmp_path / str(number % 4) for number in range(12)]))
    for number, image in enumerate(images):
        np.testing.assert_array_equal(image[0].numpy(), voxels(number % 4))


def test_a_file_of_frames_is_read_by_its_folder_and_by_itself(tmp_path):
    array = np.arange(5 * 4 * 3, dtype=np.uint16).reshape(5, 4, 3)
    write_multiframe(tmp_path / "frames" / "image.dcm", array, oblique_affine(), [2, 0, 1])
    assert np.array_equal(load_image(tmp_path / "frames")[0].numpy(), array)
    image = load_image(tmp_path / "frames" / "image.dcm")
    assert np.array_equal(image[0].numpy(), array)
    np.testing.assert_allclose(image.affine.numpy(), oblique_affine(), atol=1e-6)
