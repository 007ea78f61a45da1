"""DICOM in: the right files in the right order at the right place, and why others are refused."""

import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_toys import RAS_TO_LPS, oblique_affine, write_series
from pydicom import dcmread
from pydicom.uid import generate_uid

from bundle.data import DataWarning, load_image
from bundle.dicom import find_series, read_series

pytest_plugins = ["workflow_fixtures"]

AFFINE = oblique_affine()
SHAPE = (12, 14, 7)


def voxels(shape=SHAPE, seed=0, kind=np.int16):
    low = -800 if kind == np.int16 else 0
    return np.random.default_rng(seed).integers(low, 2000, shape).astype(kind)


def edit(files, **tags):
    """Change attributes of files; None deletes one, a function is called with the slice's number."""
    for number, path in enumerate(files):
        data = dcmread(path)
        for keyword, value in tags.items():
            value = value(number) if callable(value) else value
            if value is None:
                delattr(data, keyword)
            else:
                setattr(data, keyword, value)
        data.save_as(path)


@pytest.mark.parametrize("kind", [np.int16, np.uint16])
def test_a_volume_lies_where_its_headers_say(tmp_path, kind):
    array = voxels(kind=kind)
    write_series(tmp_path / "s", array, AFFINE)
    image = load_image(tmp_path / "s")
    assert np.array_equal(image[0].numpy(), array)
    np.testing.assert_allclose(image.affine.numpy(), AFFINE, atol=1e-6)
    assert image.meta["stored_type"] == np.dtype(kind).name
    assert image.meta["filename_or_obj"] == str(tmp_path / "s")


def test_another_reader_sees_the_same(tmp_path):
    write_series(tmp_path / "s", voxels(), AFFINE)
    image, series = load_image(tmp_path / "s"), read_series(tmp_path / "s")
    other = sitk.ReadImage([str(path) for path in series.files])
    assert np.array_equal(sitk.GetArrayFromImage(other).transpose(2, 1, 0), image[0].numpy())
    for index in ((0, 0, 0), (11, 3, 6), (5, 13, 2)):
        point = other.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((RAS_TO_LPS @ series.affine @ [*index, 1])[:3], point, atol=1e-4)


def test_slices_are_in_the_order_of_their_places_whatever_their_numbers_and_names(tmp_path):
    array = voxels()
    files = write_series(tmp_path / "s", array, AFFINE)
    numbers = np.random.default_rng(1).permutation(len(files))
    edit(files, InstanceNumber=lambda number: int(numbers[number]) + 1)
    for number, path in zip(numbers, files, strict=True):
        path.rename(path.with_name(f"IM{number}"))
    series = read_series(tmp_path / "s")
    assert [path.name for path in series.files] == [f"IM{number}" for number in numbers]
    assert np.array_equal(load_image(tmp_path / "s")[0].numpy(), array)


def test_slices_stored_against_their_normal_make_a_volume_along_it(tmp_path):
    array, backwards = voxels(), AFFINE @ np.diag([1.0, 1.0, -1.0, 1.0])
    write_series(tmp_path / "s", array, backwards)
    image = load_image(tmp_path / "s")
    assert np.array_equal(image[0].numpy(), array[..., ::-1])
    corner = backwards @ [0, 0, SHAPE[2] - 1, 1]
    np.testing.assert_allclose(image.affine.numpy()[:, 3], corner, atol=1e-6)
    np.testing.assert_allclose(image.affine.numpy()[:3, :3], AFFINE[:3, :3], atol=1e-6)


def test_every_slice_is_scaled_by_its_own_header(tmp_path):
    array = voxels()
    slopes = np.linspace(0.5, 2.0, SHAPE[2])
    write_series(
        tmp_path / "s",
        array,
        AFFINE,
        RescaleSlope=lambda number: float(slopes[number]),
        RescaleIntercept=lambda number: -10.0 * number,
    )
    expected = array * slopes - 10.0 * np.arange(SHAPE[2])
    image = load_image(tmp_path / "s")
    np.testing.assert_allclose(image[0].numpy(), expected, rtol=1e-6, atol=1e-3)
    assert np.dtype(image.meta["stored_type"]).kind == "f"


def test_spacing_is_between_slices_not_their_thickness(tmp_path):
    files = write_series(tmp_path / "s", voxels(), AFFINE)
    edit(files, SliceThickness=9.0)
    np.testing.assert_allclose(read_series(tmp_path / "s").affine, AFFINE, atol=1e-6)


def mixed(folder):
    """A volume, a second one, a localizer of three planes, a document and a text, all in one folder."""
    study = generate_uid()
    first = write_series(folder, voxels(), AFFINE, study=study, SeriesNumber=2, SeriesDescription="T2", Modality="MR")
    write_series(
        folder, voxels((8, 8, 5), 1), oblique_affine(origin=(0, 0, 0)), study=study, SeriesNumber=3, Modality="US"
    )
    localizer = generate_uid()
    for turned in ((0, 0, 0), (90, 0, 0), (0, 90, 0)):
        plane = oblique_affine(degrees=turned)
        write_series(folder, voxels((8, 8, 1)), plane, study=study, SeriesInstanceUID=localizer, SeriesNumber=1)
    report = dcmread(first[0])
    del report.PixelData, report.Rows, report.Columns
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.save_as(folder / "report.dcm")
    (folder / "notes.txt").write_text("no image")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    return first


def test_mixed_files_are_sorted_out(tmp_path):
    first = mixed(tmp_path / "study")
    found, damaged = find_series(tmp_path)
    assert damaged == []
    assert [(one.number, one.modality, one.shape) for one in found if one.is_volume] == [
        (2, "MR", SHAPE),
        (3, "US", (8, 8, 5)),
    ]
    assert len([one for one in found if not one.is_volume]) == 3
    assert set(next(one for one in found if one.number == 2).files) == set(first)


def test_two_volumes_are_refused_with_their_names_and_the_way_out(tmp_path):
    mixed(tmp_path / "study")
    with pytest.raises(
        ValueError, match=r"2 DICOM images in one folder: 2 MR 'T2' \(12 x 14 x 7\), 3 US .*dicom_series"
    ):
        load_image(tmp_path / "study")


def test_what_lies_beside_one_volume_does_not_matter(tmp_path):
    mixed(tmp_path / "study")
    for one in find_series(tmp_path)[0]:
        if one.number == 3:
            for path in one.files:
                path.unlink()
    assert np.array_equal(load_image(tmp_path / "study")[0].numpy(), voxels())


def test_echoes_at_one_place_are_images_of_their_own(tmp_path):
    uid = generate_uid()
    for echo in (10.0, 80.0):
        write_series(tmp_path / "s", voxels(seed=int(echo)), AFFINE, SeriesInstanceUID=uid, EchoTime=echo)
    found, _ = find_series(tmp_path)
    assert [one.shape for one in found] == [SHAPE, SHAPE]
    assert not any(one.problem for one in found)


def without(*numbers):
    return lambda files: [files[number].unlink() for number in numbers]


def again(files):
    """A slice that was taken twice."""
    shutil.copy(files[2], files[2].with_name("again.dcm"))
    edit([files[2].with_name("again.dcm")], SOPInstanceUID=generate_uid(), InstanceNumber=30)


def moved(files):
    position = [float(value) for value in dcmread(files[3]).ImagePositionPatient]
    normal = (RAS_TO_LPS @ AFFINE)[:3, 2] / 2.5
    edit([files[3]], ImagePositionPatient=[round(float(value), 6) for value in position + 0.6 * normal])


REFUSED = {
    "one_missing": (without(3), "1 slice is missing, the first between number 3 and number 5; export the whole series"),
    "some_missing": (without(2, 3, 5), "3 slices are missing, the first between number 2 and number 5"),
    "again": (again, "slices number 3 and number 30 lie at one place: several images"),
    "uneven": (moved, "its slices are 1.9 to 3.1 mm apart, expected even distances"),
    "no_place": (lambda files: edit(files, ImagePositionPatient=None), "its slices do not say where they lie"),
    "no_orientation": (lambda files: edit(files, ImageOrientationPatient=None), "do not say where they lie"),
    "no_spacing": (lambda files: edit(files, PixelSpacing=None), "do not say how large their pixels are"),
    "no_right_angle": (
        lambda files: edit(files, ImageOrientationPatient=[1, 0, 0, 0.5, 0.8, 0]),
        "is not two directions at a right angle",
    ),
    "zero_spacing": (lambda files: edit(files, PixelSpacing=[0, 1]), "is no number above 0"),
    "other_spacing": (lambda files: edit(files[-1:], PixelSpacing=[2, 2]), "1 of its 7 slices have another size or"),
    "colours": (lambda files: edit(files, SamplesPerPixel=3, BitsAllocated=8, Rows=9), "an image in colours"),
    "frames": (
        lambda files: edit(files[:1], NumberOfFrames=2, Rows=7) or without(*range(1, 7))(files),
        "2 frames in one",
    ),
    "cut": (lambda files: files[4].write_bytes(files[4].read_bytes()[:-20]), "1 of its .dcm files cannot be read"),
    "cut_header": (lambda files: files[4].write_bytes(files[4].read_bytes()[:500]), "1 of its .dcm files cannot be"),
    "no_dicom": (lambda files: files[4].write_text("no image"), "1 of its .dcm files cannot be read, the first is "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_volume_is_refused_with_the_reason(tmp_path, name):
    spoil, message = REFUSED[name]
    spoil(write_series(tmp_path / "s", voxels(), AFFINE))
    with pytest.raises(ValueError) as error:
        load_image(tmp_path / "s")
    assert str(error.value).startswith(f"{tmp_path / 's'}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "Phantom" not in str(error.value)


@pytest.mark.parametrize("degrees", [2.0, 15.0, -20.0])
def test_a_tilted_gantry_is_refused_with_its_angle(tmp_path, degrees):
    sheared = AFFINE.copy()
    sheared[:3, 2] += np.tan(np.radians(degrees)) * 2.5 * AFFINE[:3, 1] / 1.1
    write_series(tmp_path / "s", voxels(), sheared)
    with pytest.raises(ValueError, match=rf"sheared by {abs(degrees):.1f} degrees \(a tilted gantry\)"):
        load_image(tmp_path / "s")


def test_rounded_headers_are_no_shear_and_no_gap(tmp_path):
    """Positions to a hundredth of a millimetre and cosines to four digits, as some scanners write them."""
    files = write_series(tmp_path / "s", voxels((12, 14, 40)), AFFINE)
    for path in files:
        data = dcmread(path)
        data.ImagePositionPatient = [round(float(value), 2) for value in data.ImagePositionPatient]
        data.ImageOrientationPatient = [round(float(value), 4) for value in data.ImageOrientationPatient]
        data.save_as(path)
    series = read_series(tmp_path / "s")
    corner = np.array([11, 13, 39, 1])
    np.testing.assert_allclose(series.affine @ corner, AFFINE @ corner, atol=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"InstanceNumber": lambda number: number + 3}, "numbered from 3 to 9; slices may be missing at an end"),
        ({"ImagesInAcquisition": 9}, "7 slices, but ImagesInAcquisition is 9"),
    ],
)
def test_slices_missing_at_an_end_are_warned_of(tmp_path, change, message):
    edit(write_series(tmp_path / "s", voxels(), AFFINE), **change)
    with pytest.warns(DataWarning, match=message):
        load_image(tmp_path / "s")


def test_a_file_of_frames_without_places_is_refused(tmp_path):
    files = write_series(tmp_path / "s", voxels(), AFFINE)
    edit(files[:1], NumberOfFrames=2, Rows=7)
    with pytest.raises(ValueError, match="2 frames in one file, whose places are not read"):
        load_image(files[0])


def test_a_slice_alone_is_a_planar_image(tmp_path):
    array = voxels((12, 14, 1))
    write_series(tmp_path / "s", array, AFFINE)
    image = load_image(tmp_path / "s")
    assert np.array_equal(image[0].numpy(), array)
    np.testing.assert_allclose(image.affine.numpy()[:, :2], AFFINE[:, :2], atol=1e-6)


def test_loading_says_nothing(tmp_path, capfd, recwarn):
    write_series(tmp_path / "s", voxels(), AFFINE)
    load_image(tmp_path / "s")
    assert capfd.readouterr().err == ""
    assert not [warning for warning in recwarn if "nvImageCodec" not in str(warning.message)]


def test_the_command_lists_and_sorts_out(tmp_path, command):
    mixed(tmp_path / "study")
    write_series(tmp_path / "study/more", voxels(seed=5), AFFINE, SeriesNumber=2, SeriesDescription="T2")
    without(3)(write_series(tmp_path / "study", voxels(), AFFINE, SeriesNumber=9, SeriesDescription="gap"))
    finished = command("bundle", "dicom_series", tmp_path / "study", "--output_dir", tmp_path / "sorted")
    assert (finished.code, finished.error) == (0, "")
    assert "2 MR 'T2' (12 x 14 x 7): 0.9 x 1.1 x 2.5 mm, can be registered" in finished.out
    assert "9 MR 'gap' (12 x 14 x 6): 1 slice is missing" in finished.out
    folders = sorted(path.name for path in (tmp_path / "sorted").iterdir())
    assert folders == ["1_MR_study", "1_MR_study_2", "1_MR_study_3", "2_MR_T2", "2_MR_T2_2", "3_US_study"]
    values = [load_image(tmp_path / "sorted" / name)[0].numpy() for name in ("2_MR_T2", "2_MR_T2_2")]
    assert sorted(int(array.sum()) for array in values) == sorted(int(voxels(seed=seed).sum()) for seed in (0, 5))
    assert "Phantom" not in finished.out
    again = command("bundle", "dicom_series", tmp_path / "study", "--output_dir", tmp_path / "sorted")
    assert again.code == 1
    assert again.error.startswith("error: ")
    assert "is there already; name a folder that is new" in again.error


def test_the_command_fails_where_nothing_can_be_registered(tmp_path, command):
    (tmp_path / "empty").mkdir()
    finished = command("bundle", "dicom_series", tmp_path / "empty")
    assert finished.code == 1
    assert "no DICOM images" in finished.out
