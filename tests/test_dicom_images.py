"""Warped series, segmentations and reports as other readers see them."""

import re
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_checks import FIXED, FIXED_SHAPE, MOVING, check_conformance, check_modules, itk_series, written
from dicom_toys import RAS_TO_LPS, write_multiframe, write_series
from pydicom.pixels import apply_modality_lut
from pydicom.uid import CTImageStorage, MRImageStorage, SecondaryCaptureImageStorage, UltrasoundImageStorage

from bundle.dicom.derived import stored_voxels, warped_series
from bundle.dicom.encapsulated import encapsulated_pdf
from bundle.dicom.segmentation import segmentation
from bundle.dicom.series import read_series

pytest_plugins = ["dicom_checks"]

BUNDLE = Path(__file__).parents[1] / "bundle"


def write_warped(voxels, whole, fixed, moving, folder):
    folder.mkdir()
    return [
        written(made, folder / f"{number:02d}.dcm")
        for number, made in enumerate(warped_series(voxels, whole, fixed, moving))
    ]


@pytest.fixture(scope="module")
def warped_voxels():
    return np.random.default_rng(5).uniform(-120.3, 870.9, FIXED_SHAPE).astype(np.float32)


@pytest.mark.parametrize("whole", [True, False])
def test_sitk_reads_the_warped_series_on_the_fixed_grid(pair, warped_voxels, whole, tmp_path):
    slices = write_warped(warped_voxels, whole, pair.fixed, pair.moving, tmp_path / "warped")
    read = itk_series(tmp_path / "warped")
    assert read.GetSize() == FIXED_SHAPE
    for voxel in ((0, 0, 0), (13, 0, 0), (0, 10, 0), (0, 0, 6), (13, 10, 6)):
        expected = (RAS_TO_LPS @ FIXED @ [*voxel, 1])[:3]
        np.testing.assert_allclose(read.TransformIndexToPhysicalPoint(voxel), expected, atol=1e-4)
    slope = float(slices[0].get("RescaleSlope", 1))
    assert slope == 1 if whole else slope < 0.02
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(read).transpose(2, 1, 0), warped_voxels, atol=slope / 2 * (1 + 1e-6)
    )


def test_a_warped_slice_says_what_it_is_and_where_it_comes_from(pair, warped_voxels, tmp_path):
    slices = write_warped(warped_voxels, True, pair.fixed, pair.moving, tmp_path / "warped")
    moving = [pydicom.dcmread(file) for file in pair.moving.files]
    for number, read in enumerate(slices):
        assert read.SOPClassUID == MRImageStorage
        assert list(read.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert read.InstanceNumber == number + 1
        assert (read.FrameOfReferenceUID, read.StudyInstanceUID) == (pair.fixed.frame, pair.moving.study)
        assert read.SeriesInstanceUID not in (pair.fixed.uid, pair.moving.uid)
        sources = [image.ReferencedSOPInstanceUID for image in read.SourceImageSequence]
        assert sources == [image.SOPInstanceUID for image in moving]
        assert read.DerivationCodeSequence[0].CodeMeaning == "Deformed for Registration"
    first = slices[0]
    assert first.SeriesDescription == "warped: moving"
    assert (first.WindowCenter, first.WindowWidth, first.EchoTime) == (450, 800, 33)
    assert (first.BodyPartExamined, first.PatientName) == ("PROSTATE", "Phantom^One")
    assert first.StudyDate == "20200131"
    assert first.ContentDate > "20250101"
    assert "Laterality" not in first  # of a prostate
    assert "TriggerTime" not in first
    assert "SliceLocation" not in first
    assert "RescaleSlope" not in first
    assert first.Manufacturer == "Meta-registration bundle"
    uids = [read.SOPInstanceUID for read in slices]
    assert len({*uids, *(image.SOPInstanceUID for image in moving)}) == len(uids) + len(moving)
    check_modules(first)
    check_conformance(tmp_path / "warped/00.dcm")


@pytest.mark.parametrize(
    ("source", "tags", "expected"),
    [
        (CTImageStorage, {"Modality": "CT", "RescaleType": "HU", "KVP": 120}, CTImageStorage),
        (UltrasoundImageStorage, {"Modality": "US", "Laterality": "L"}, SecondaryCaptureImageStorage),
    ],
    ids=["CT", "US"],
)
def test_other_kinds_of_image(pair, source, tags, expected, warped_voxels, tmp_path):
    write_series(tmp_path / "other", pair.voxels["moving"], MOVING, SOPClassUID=source, **tags)
    (first, *_) = write_warped(warped_voxels, True, pair.fixed, read_series(tmp_path / "other"), tmp_path / "warped")
    assert (first.SOPClassUID, first.Modality) == (expected, tags["Modality"])
    assert ("KVP" in first) == ("Laterality" not in tags)
    assert first.Laterality == tags.get("Laterality", "")
    values = apply_modality_lut(first.pixel_array, first).T
    np.testing.assert_allclose(values, warped_voxels[..., 0], atol=0.5)
    check_modules(first)
    check_conformance(tmp_path / "warped/00.dcm")


@pytest.mark.parametrize("kept", [True, False])
def test_the_window_of_inverted_numbers_is_left_out(pair, warped_voxels, kept, tmp_path):
    """Of MONOCHROME1 the bundle and ITK read 65535 minus the numbers that the window is of."""
    tags = {"PhotometricInterpretation": "MONOCHROME2" if kept else "MONOCHROME1", "EchoTime": 33}
    write_series(tmp_path / "m", pair.voxels["moving"], MOVING, WindowCenter=450, WindowWidth=800, **tags)
    (first, *_) = write_warped(warped_voxels, True, pair.fixed, read_series(tmp_path / "m"), tmp_path / "warped")
    assert (first.PhotometricInterpretation, first.EchoTime) == ("MONOCHROME2", 33)
    assert ("WindowCenter" in first, "WindowWidth" in first) == (kept, kept)
    check_modules(first)


@pytest.mark.parametrize(
    ("values", "whole", "kind", "slope"),
    [
        ([0, 7, 65535], True, np.uint16, 1),
        ([-1024, 7, 3000], True, np.int16, 1),
        ([-1, 7, 65535], True, np.uint16, 65536 / 65535),
        ([0.25, 0.5, 0.75], False, np.uint16, 0.5 / 65535),
        ([3.5, 3.5], False, np.uint16, 1),
        ([-1e-12, 1e12], False, np.uint16, 1e12 / 65535),
    ],
)
def test_stored_numbers_are_half_a_slope_away_at_most(values, whole, kind, slope):
    values = np.array(values, dtype=np.float64)
    stored = stored_voxels(values, whole)
    assert stored.numbers.dtype == kind
    assert stored.slope == pytest.approx(slope)
    found = stored.slope * stored.numbers.astype(float) + stored.intercept
    np.testing.assert_allclose(found, values, rtol=0, atol=0.5001 * stored.slope)
    if slope == 1:
        np.testing.assert_array_equal(found, values)


def boxes():
    """Two structures of a value each; at the faces too, and not symmetric."""
    label = np.zeros((1, *FIXED_SHAPE), np.float32)
    label[0, 2:6, 1:9, 0:3] = 3
    label[0, 7:14, 4:8, 2:6] = 7
    return label


def overlapping():
    """A channel per structure, of which two overlap and one has no voxel."""
    label = np.zeros((3, *FIXED_SHAPE), np.float32)
    label[0, 2:9, 1:9, 1:5] = 1
    label[2, 5:12, 4:10, 3:7] = 1
    return label


def planes(read):
    """Volume of every segment by plain pydicom, each frame at the voxel plane that its position says."""
    places = np.linalg.inv(RAS_TO_LPS @ FIXED)
    found = {item.SegmentNumber: np.zeros(FIXED_SHAPE, bool) for item in read.SegmentSequence}
    frames = read.pixel_array.reshape(-1, read.Rows, read.Columns)
    for frame, groups in zip(frames, read.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        voxel = places[:3, :3] @ position + places[:3, 3]
        np.testing.assert_allclose(voxel, [0, 0, round(voxel[2])], atol=1e-4)
        found[groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber][:, :, round(voxel[2])] = frame.T
    return found


@pytest.mark.parametrize(
    ("label", "structures"),
    [
        (boxes(), {"structure 3": boxes()[0] == 3, "structure 7": boxes()[0] == 7}),
        (
            boxes().astype(float) * 1e9 + (boxes() > 0),  # as many digits as in the Allen atlas
            {"structure 3000000001": boxes()[0] == 3, "structure 7000000001": boxes()[0] == 7},
        ),
        (overlapping(), {f"structure {channel}": overlapping()[channel] == 1 for channel in range(3)}),
    ],
    ids=["values", "large values", "channels"],
)
def test_segments_lie_where_the_label_does(pair, label, structures, tmp_path):
    path = tmp_path / "segmentation.dcm"
    read = written(segmentation(label, pair.fixed), path)
    names = {item.SegmentNumber: item.SegmentLabel for item in read.SegmentSequence}
    assert list(names.values()) == list(structures)
    for number, mask in planes(read).items():
        np.testing.assert_array_equal(mask, structures[names[number]])
    by_highdicom = highdicom.seg.segread(path)
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in pair.fixed.files]
    pixels = by_highdicom.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    for number, name in names.items():
        np.testing.assert_array_equal(pixels[..., number - 1].transpose(2, 1, 0) > 0, structures[name])
    assert read.FrameOfReferenceUID == pair.fixed.frame
    assert (read.StudyInstanceUID, read.PatientID) == (pair.fixed.study, "P1")
    assert {
        image.ReferencedSOPInstanceUID for image in read.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    } <= {*uids}
    assert read.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName.startswith("meta-")
    check_conformance(path)


def test_segments_of_a_multi_frame_image_lie_where_the_label_does(pair, tmp_path):
    order = np.random.default_rng(3).permutation(FIXED_SHAPE[2])
    write_multiframe(tmp_path / "frames" / "image.dcm", pair.voxels["fixed"], FIXED, order)
    path = tmp_path / "segmentation.dcm"
    written(segmentation(boxes(), read_series(tmp_path / "frames")), path)
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    found, expected = (np.argwhere(array > 0) for array in (volume.array, boxes()[0]))
    places = (volume.affine[:3, :3] @ found.T).T + volume.affine[:3, 3]
    lps = RAS_TO_LPS @ FIXED
    wanted = (lps[:3, :3] @ expected.T).T + lps[:3, 3]
    assert len(places) == len(wanted)
    np.testing.assert_allclose(places[np.lexsort(places.round(3).T)], wanted[np.lexsort(wanted.round(3).T)], atol=1e-3)


def test_headers_of_archives_do_not_stop_a_segmentation(pair, tmp_path):
    header = {"PatientBirthDate": "1950", "PatientSex": "X", "StudyDate": "", "PatientName": "A=B=C^D"}
    files = write_series(tmp_path / "odd", pair.voxels["fixed"], FIXED, **header)
    for file in files:
        slice_ = pydicom.dcmread(file)
        del slice_.AccessionNumber
        slice_.save_as(file)
    read = written(segmentation(boxes(), read_series(tmp_path / "odd")), tmp_path / "segmentation.dcm")
    assert {name: str(read[name].value) for name in header} == header
    assert read.AccessionNumber == ""
    assert read.pixel_array.sum() == (boxes() > 0).sum()


def test_a_report_holds_its_pdf(pair, tmp_path):
    for pdf in (b"%PDF-1.4 even\n%%EOF\n", b"%PDF-1.4 odd\n%%EOF\n"):
        read = written(encapsulated_pdf(pdf, "Quality of the registration", pair.fixed), tmp_path / "report.dcm")
        assert read.EncapsulatedDocument[: read.EncapsulatedDocumentLength] == pdf
        assert (read.StudyInstanceUID, read.MIMETypeOfEncapsulatedDocument) == (pair.fixed.study, "application/pdf")
        check_modules(read)
        check_conformance(tmp_path / "report.dcm")


def test_highdicom_is_used_for_segmentations_only():
    """And by the name that imports it at its first use, since not every environment has it."""
    using = {path.name for path in BUNDLE.rglob("*.py") if re.search(r"import highdicom|highdicom\.", path.read_text())}
    assert using == {"segmentation.py"}
