"""DICOM results of the workflow and from Python: one way, which files, what is refused, nothing half-written."""

import shutil
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from dicom_checks import check_conformance, itk_series
from dicom_toys import oblique_affine, write_multiframe, write_series
from workflow_fixtures import SHAPE, SMALL, volume, write_json

from bundle import Registration, register
from bundle.dicom.common import write_objects
from bundle.formats import load_image, read_transform
from bundle.geometry import apply_affine
from bundle.pages import QualityPdfd
from bundle.results import DicomOutputsd, save_objects, series_of
from bundle.system import DataWarning

pytest_plugins = ["workflow_fixtures"]

AFFINES = {
    "fixed": oblique_affine((5.0, 5.5, 6.0), (-40.0, 25.0, 60.0), (12.0, -20.0, 33.0)),
    "moving": oblique_affine((5.5, 5.0, 6.5), (10.0, -14.0, -25.0), (5.0, -30.0, 10.0)),
}
OPTIONS = {
    "regularisation_weight": 1.0,
    "pixdim": 5.0,
    "downsampling": 1,
    "channels": 2,
    "steps": 3,
    "inner_lr": 0.01,
    "precision": SMALL["precision"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two series of one patient, one of another, and a label of the moving one as NIfTI."""
    root = tmp_path_factory.mktemp("series")
    for seed, side in ((1, "fixed"), (2, "moving")):
        image, label = volume(seed)
        write_series(root / side, np.rint(10 * image).astype(np.uint16), AFFINES[side])
        nib.save(nib.Nifti1Image(image, AFFINES[side]), root / f"{side}.nii.gz")
        nib.save(nib.Nifti1Image(label, AFFINES[side]), root / f"{side}_label.nii.gz")
    write_series(root / "other", np.rint(10 * volume(2)[0]).astype(np.uint16), AFFINES["moving"], PatientID="SECRET")
    return root


@pytest.fixture(scope="module")
def result(folder):
    torch.manual_seed(0)
    return register(
        folder / "fixed", folder / "moving", moving_label=folder / "moving_label.nii.gz", weights=None, **OPTIONS
    )


@pytest.fixture(scope="module")
def saved(result, tmp_path_factory):
    return result.save_dicom(tmp_path_factory.mktemp("saved") / "dicom")


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.dcm"))


EXPECTED = sorted(
    ["registration.dcm", "report.dcm", "segmentation.dcm", *(f"warped/{number:02d}.dcm" for number in range(1, 17))]
)


def test_everything_of_two_series_is_written_and_conforms(result, saved):
    assert names(saved) == EXPECTED
    assert sorted(path.name for path in saved.parent.iterdir()) == ["dicom"]
    for name in ("registration.dcm", "segmentation.dcm", "report.dcm", "warped/07.dcm"):
        check_conformance(saved / name)


def test_the_objects_hold_the_result(result, saved):
    points = apply_affine(result.affine, torch.rand(3, 100, dtype=torch.float64) * (torch.tensor(SHAPE)[:, None] - 1))
    moved = result.transform(points)
    assert (moved - points).norm(dim=0).min() > 50  # the centre alignment
    np.testing.assert_allclose(read_transform(saved / "registration.dcm")(points), moved, atol=1e-3)
    warped = itk_series(saved / "warped")
    np.testing.assert_allclose(sitk.GetArrayFromImage(warped).transpose(2, 1, 0), result.warped, atol=0.5001)
    segments = pydicom.dcmread(saved / "segmentation.dcm")
    assert segments.pixel_array.sum() == result.warped_label.sum() > 100
    report = pydicom.dcmread(saved / "report.dcm")
    assert report.EncapsulatedDocument.startswith(b"%PDF-")
    for name in ("fixed", "moving", "Phantom", "P1"):
        assert name.encode() not in report.EncapsulatedDocument.split(b"stream")[0]


def test_the_workflow_writes_the_same(folder, result, saved, command, tmp_path):
    pair = {
        "fixed_image": "fixed",
        "moving_image": "moving",
        "moving_label": "moving_label.nii.gz",
        "pair_id": "one",
        "patient": "A",
    }
    datalist = write_json(tmp_path / "pairs.json", {"test": [pair]})
    settings = {**OPTIONS, "dicom": True, "weights": "$None"}
    finished = command.register(tmp_path / "out", dataset_dir=folder, datalist=datalist, **settings)
    assert finished.code == 0, finished.error
    assert "Phantom" not in finished.out + finished.err
    written = tmp_path / "out/one/dicom"
    assert names(written) == EXPECTED
    assert (tmp_path / "out/one/displacement.nii.gz").exists()
    for name in ("warped/07.dcm", "segmentation.dcm"):
        ours, theirs = (pydicom.dcmread(root / name) for root in (saved, written))
        np.testing.assert_array_equal(ours.pixel_array, theirs.pixel_array)
    again = command.register(tmp_path / "out", dataset_dir=folder, datalist=datalist, **settings)
    assert "finished before: one" in again.out + again.err
    applied = command(
        "bundle",
        "apply",
        *("--transform", written / "registration.dcm"),
        *("--moving", folder / "moving"),
        *("--reference", folder / "fixed"),
        *("--output", tmp_path / "warped.nii.gz"),
    )
    assert applied.code == 0, applied.error
    difference = nib.load(tmp_path / "warped.nii.gz").get_fdata() - result.warped
    assert np.quantile(np.abs(difference), 0.99) <= 0.51  # whole numbers


def with_image(result, side, image):
    """The result as if one of its images had been read from another file."""
    kept = result.data[f"native_{side}_image"].clone()
    kept.meta["filename_or_obj"] = str(image)
    return Registration({**result.data, f"native_{side}_image": kept})


def test_only_the_fixed_image_is_dicom(result, folder, tmp_path):
    mixed = with_image(result, "moving", folder / "moving.nii.gz")
    message = "no DICOM registration and warped series: the moving image is not a DICOM series"
    with pytest.warns(DataWarning, match=message):
        mixed.save_dicom(tmp_path / "dicom")
    assert names(tmp_path / "dicom") == ["report.dcm", "segmentation.dcm"]


def test_only_the_moving_image_is_dicom(result, folder, tmp_path):
    mixed = with_image(result, "fixed", folder / "fixed.nii.gz")
    with (
        pytest.warns(DataWarning, match="no DICOM segmentation: the fixed image is not a DICOM series"),
        pytest.raises(ValueError, match="nothing to write as DICOM: the fixed image is not a DICOM series"),
    ):
        mixed.save_dicom(tmp_path / "dicom")
    assert not any(tmp_path.iterdir())


def test_a_label_that_leaves_the_fixed_image_is_said(result, tmp_path):
    empty = Registration({**result.data, "warped_label": 0 * result.data["warped_label"]})
    with pytest.warns(DataWarning, match="no DICOM segmentation: the carried label has no voxel in the fixed image"):
        empty.save_dicom(tmp_path / "dicom")
    assert "segmentation.dcm" not in names(tmp_path / "dicom")


def edited(source, folder, change):
    """A copy of a series, every header changed."""
    folder.mkdir()
    for number, path in enumerate(sorted(source.iterdir())):
        header = pydicom.dcmread(path)
        change(header, number)
        header.save_as(folder / path.name)
    return folder


def made_of(result, tmp_path, side, change):
    """Objects of the result with one of its series changed, as files, and what is said of the others."""
    folder = Path(result.data[f"native_{side}_image"].meta["filename_or_obj"])
    mixed = with_image(result, side, edited(folder, tmp_path / side, change))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        objects = DicomOutputsd()({**mixed.data, "pdf": b"%PDF-1.4 %%EOF"})["dicom"]
    write_objects(objects, tmp_path / "objects")
    said = [str(one.message) for one in caught if issubclass(one.category, DataWarning)]
    return sorted({name.split("/")[0] for name in objects}), said


ALL = ["registration.dcm", "report.dcm", "segmentation.dcm", "warped"]


@pytest.mark.parametrize(
    ("side", "attribute", "made", "said"),
    [
        ("fixed", "SliceThickness", ALL, ""),
        ("moving", "SliceThickness", ALL, ""),
        ("fixed", "StudyInstanceUID", ["warped"], "the fixed image has no StudyInstanceUID"),
        ("moving", "StudyInstanceUID", ["report.dcm", "segmentation.dcm"], "the moving image has no StudyInstanceUID"),
        ("fixed", "SOPInstanceUID", ["report.dcm", "warped"], "the fixed image has no SOPInstanceUID"),
        ("fixed", "SeriesInstanceUID", ["report.dcm", "warped"], "the fixed image has no SeriesInstanceUID"),
        ("moving", "SOPClassUID", ["report.dcm", "segmentation.dcm"], "the moving image has no SOPClassUID"),
        ("fixed", "FrameOfReferenceUID", ["report.dcm"], "the fixed image has no frame of reference, or several"),
        (
            "moving",
            "FrameOfReferenceUID",
            ["report.dcm", "segmentation.dcm", "warped"],
            "has no frame of reference, or several",
        ),
    ],
)
def test_what_headers_lack_is_measured_or_named_and_the_rest_is_made(result, tmp_path, side, attribute, made, said):
    names, warned = made_of(result, tmp_path, side, lambda header, _: header.pop(attribute))
    assert names == made
    assert all(said in one for one in warned)
    assert bool(warned) == bool(said)
    if side == "fixed" and attribute == "SliceThickness":
        segments = pydicom.dcmread(tmp_path / "objects/segmentation.dcm")
        measures = segments.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        assert measures.SliceThickness == pytest.approx(6.0, abs=1e-6)


def test_no_other_attribute_is_needed(result, tmp_path):
    """All that series have, half of it absent at a time, but for what places a slice and what is named above."""
    needed = ("PixelData", "Rows", "Columns", "BitsAllocated", "ImagePositionPatient", "ImageOrientationPatient")
    needed += ("PixelSpacing", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID")
    needed += ("SOPClassUID", "SOPInstanceUID")
    for part in range(2):
        for side in ("fixed", "moving"):

            def drop(header, _, part=part):
                for element in [one for one in header if one.keyword not in needed][part::2]:
                    del header[element.tag]

            (tmp_path / f"{part}{side}").mkdir()
            assert made_of(result, tmp_path / f"{part}{side}", side, drop) == (ALL, [])


def test_attributes_that_cannot_be_written_are_left_out(result, tmp_path):
    def spoil(header, _):
        header.EchoTime, header.PatientWeight, header.WindowCenter, header.WindowWidth = 123.25, 98.125, 97.125, 5
        header.PatientName, header.SpecificCharacterSet = "Müller", "ISO_IR 100"

    for side in ("fixed", "moving"):
        source = edited(Path(result.data[f"native_{side}_image"].meta["filename_or_obj"]), tmp_path / f"{side}0", spoil)
        for path in source.iterdir():
            content = path.read_bytes().replace(b"ISO_IR 100", b"ISO_IR 999")
            for number in (b"123.25", b"98.125", b"97.125"):
                content = content.replace(number, b"12,3.x")
            path.write_bytes(content)
        names, said = made_of(with_image(result, side, source), tmp_path, side, lambda *_: None)
        assert (names, said) == (ALL, [])
        shutil.rmtree(tmp_path / "objects")


def test_references_name_the_series_of_each_slice(result, tmp_path):
    uids = [pydicom.uid.generate_uid() for _ in range(40)]

    def scatter(header, number):
        header.SeriesInstanceUID = uids[number]

    names, said = made_of(result, tmp_path, "moving", scatter)
    assert names == ALL
    assert not said
    referred = pydicom.dcmread(tmp_path / "objects/registration.dcm")
    series = referred.StudiesContainingOtherReferencedInstancesSequence[0].ReferencedSeriesSequence
    headers = [pydicom.dcmread(path) for path in (tmp_path / "moving").iterdir()]
    expected = {(header.SeriesInstanceUID, header.SOPInstanceUID) for header in headers}
    found = {(one.SeriesInstanceUID, one.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID) for one in series}
    assert found == expected


def test_two_patients_are_refused_without_their_names(result, folder, tmp_path):
    mixed = with_image(result, "moving", folder / "other")
    with pytest.raises(ValueError, match="different PatientIDs, expected one patient") as raised:
        mixed.save_dicom(tmp_path / "dicom")
    assert "SECRET" not in str(raised.value)
    assert not any(tmp_path.iterdir())


def test_a_folder_is_complete_or_not_there(saved, tmp_path):
    objects = {name: pydicom.dcmread(saved / name) for name in ("report.dcm", "registration.dcm")}
    del objects["registration.dcm"].SOPInstanceUID
    del objects["registration.dcm"].file_meta.MediaStorageSOPInstanceUID
    with pytest.raises(AttributeError):
        save_objects(objects, tmp_path / "dicom")
    assert not any(tmp_path.iterdir())


def test_a_folder_with_something_in_it_stays_as_it_is(result, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="is not empty; give the DICOM files a folder of their own"):
        result.save_dicom(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    result.save_dicom(tmp_path / "empty")
    assert names(tmp_path / "empty") == EXPECTED


def test_objects_are_not_saved_into_the_folder_of_an_image(result, folder):
    """It had two volumes afterwards; a run into it was refused before."""
    with pytest.raises(ValueError, match="moving/out lies in .*moving, the folder of an image; give another"):
        result.save_dicom(folder / "moving/out")
    assert not (folder / "moving/out").exists()


def test_dicom_validator_finds_nothing(saved):
    pytest.importorskip("dicom_validator")
    from dicom_validator.spec_reader.edition_reader import EditionReader
    from dicom_validator.validate_iods import main

    standard = Path.home() / "dicom-validator"
    if not standard.exists() or not EditionReader(standard).get_edition("local"):
        pytest.skip("the DICOM standard is not there: run validate_iods once with a network, which downloads it")
    files = [str(saved / name) for name in ("registration.dcm", "segmentation.dcm", "report.dcm", "warped/07.dcm")]
    assert main(["--edition", "local", *files]) == 0


def test_a_report_with_many_structures_is_one_page(result):
    many = {f"structure {number}": {"before": 0.5, "after": 0.75} for number in range(60)}
    pdf = QualityPdfd()({**result.data, "metrics": result.metrics | {"dsc": many}})["pdf"]
    assert pdf.startswith(b"%PDF-")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") == 1


def test_a_file_of_frames_is_a_series_and_one_of_a_slice_is_a_picture(tmp_path):
    array = np.arange(4 * 5 * 3, dtype=np.uint16).reshape(4, 5, 3)
    write_multiframe(tmp_path / "frames.dcm", array, oblique_affine(), [2, 0, 1])
    assert series_of(load_image(tmp_path / "frames.dcm")).shape == (4, 5, 3)
    path, *_ = write_series(tmp_path / "slice", array[..., :1], oblique_affine())
    assert series_of(load_image(path)) is None
