"""Simulated DICOM series, as scanners and archives leave them."""

import shutil

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    BasicTextSRStorage,
    EnhancedMRImageStorage,
    EnhancedUSVolumeStorage,
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    NuclearMedicineImageStorage,
    generate_uid,
)

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def oblique_affine(spacing=(0.9, 1.1, 2.5), origin=(-40.0, 25.0, 60.0), degrees=(12.0, -20.0, 33.0)):
    """``(4, 4)`` voxel-to-world, mm, RAS, of a turned grid; right-handed."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        one = np.eye(3)
        one[[first, first, second, second], [first, second, first, second]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        turn = one @ turn
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = origin
    return affine


def write_series(folder, voxels, affine, study=None, frame=None, **tags):
    """Write a volume as a series of single-frame MR images, one file a slice.

    Args:
        folder: where to; created.
        voxels: ``(X, Y, Z)``, whole numbers of 8 or 16 bits; slices lie along the last axis.
        affine: ``(4, 4)`` voxel-to-world, mm, RAS; a shear between slices goes into the slices' positions.
        study: StudyInstanceUID; None makes one.
        frame: FrameOfReferenceUID; None makes one.
        tags: further attributes by keyword, of every slice; a function is called with the slice's number.

    Returns:
        The files in the order of the slices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = RAS_TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    along = lps[:3, :3] / spacing
    shared = {
        "SOPClassUID": MRImageStorage,
        "StudyInstanceUID": study or generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": frame or generate_uid(),
        "PositionReferenceIndicator": "",
        "PatientName": "Phantom^One",
        "PatientID": "P1",
        "PatientBirthDate": "19500101",
        "PatientSex": "M",
        "StudyDate": "20200131",
        "StudyTime": "120000",
        "StudyID": "1",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "Manufacturer": "Phantom",
        "Modality": "MR",
        "PatientPosition": "HFS",
        "SeriesNumber": 1,
        "SeriesDescription": folder.name,
        "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
        "ScanningSequence": "SE",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "EchoTime": 10.0,
        "RepetitionTime": 100.0,
        "EchoTrainLength": 1,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": voxels.shape[1],
        "Columns": voxels.shape[0],
        "BitsAllocated": 8 * voxels.itemsize,
        "BitsStored": 8 * voxels.itemsize,
        "HighBit": 8 * voxels.itemsize - 1,
        "PixelRepresentation": int(voxels.dtype.kind == "i"),
        "PixelSpacing": [spacing[1], spacing[0]],
        "SliceThickness": spacing[2],
        "ImageOrientationPatient": [round(value, 12) for value in along[:, :2].T.ravel()],
    }
    files = []
    for number in range(voxels.shape[2]):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        position = (lps @ [0, 0, number, 1])[:3]
        own = {
            "InstanceNumber": number + 1,
            "ImagePositionPatient": [round(value, 8) for value in position],
            "PixelData": np.ascontiguousarray(voxels[:, :, number].T).tobytes(),
        }
        for keyword, value in {**shared, **own, **tags}.items():
            setattr(data, keyword, value(number) if callable(value) else value)
        data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        if len(data.PixelData) % 2:
            data.PixelData += b"\0"
        # Files of an archive have names that say nothing of their order.
        path = folder / f"{data.SOPInstanceUID.rsplit('.', 1)[-1]}.dcm"
        data.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def write_multiframe(path, voxels, affine, order, kind=EnhancedMRImageStorage, rescale=None, **tags):
    """Write a volume as one multi-frame image with functional groups.

    Args:
        path: of the file; its folder is created.
        voxels: as in ``write_series``.
        affine: the same.
        order: number of the slice in each frame.
        kind: its SOP class.
        rescale: function from a slice's number to its slope and intercept.
        tags: as in ``write_series``.
    """
    slices = [dcmread(file) for file in write_series(path.parent / "slices", voxels, affine, **tags)]
    shutil.rmtree(path.parent / "slices")
    image = slices[0].copy()
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = kind
    measures = {keyword: slices[0][keyword].value for keyword in ("PixelSpacing", "SliceThickness")}
    shared = {"PixelMeasuresSequence": measures}
    shared["PlaneOrientationSequence"] = {"ImageOrientationPatient": slices[0].ImageOrientationPatient}
    image.SharedFunctionalGroupsSequence = [_groups(shared)]
    own = []
    for number in order:
        groups = {"PlanePositionSequence": {"ImagePositionPatient": slices[number].ImagePositionPatient}}
        if rescale:
            slope, intercept = rescale(number)
            groups["PixelValueTransformationSequence"] = {"RescaleSlope": slope, "RescaleIntercept": intercept}
        own.append(_groups(groups))
    image.PerFrameFunctionalGroupsSequence = own
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(image, keyword)
    image.NumberOfFrames = len(own)
    image.PixelData = b"".join(slices[number].PixelData for number in order)
    image.save_as(path, enforce_file_format=True)


def write_ultrasound(path, voxels, affine, times=1, patient=None):
    """Write a volume as an Enhanced US Volume, which lies in the coordinates of its transducer (PS3.3 A.59).

    Args:
        path: of the file; its folder is created.
        voxels: as in ``write_series``.
        affine: the same, in these coordinates.
        times: how often the volume follows itself in the file.
        patient: ``(4, 4)``, where the volume lies in the patient, if that is known.
    """
    write_multiframe(path, voxels, affine, range(voxels.shape[2]), EnhancedUSVolumeStorage, Modality="US")
    image = dcmread(path)
    shared, frames = image.SharedFunctionalGroupsSequence[0], image.PerFrameFunctionalGroupsSequence
    directions = [float(number) for number in shared.PlaneOrientationSequence[0].ImageOrientationPatient]
    places = [[float(number) for number in one.PlanePositionSequence[0].ImagePositionPatient] for one in frames]
    del shared.PlaneOrientationSequence, image.FrameOfReferenceUID
    shared.PixelMeasuresSequence[0].SpacingBetweenSlices = float(np.linalg.norm(affine[:3, 2]))
    shared.update(_groups({"PlaneOrientationVolumeSequence": {"ImageOrientationVolume": directions}}))
    if patient is not None:
        lps = RAS_TO_LPS @ patient @ RAS_TO_LPS
        turned = (np.reshape(directions, (2, 3)) @ lps[:3, :3].T).ravel().round(12).tolist()
        shared.update(_groups({"PlaneOrientationSequence": {"ImageOrientationPatient": turned}}))
        image.FrameOfReferenceUID = generate_uid()
    image.VolumeFrameOfReferenceUID = generate_uid()
    image.UltrasoundAcquisitionGeometry, image.ApexPosition = "APEX", [0.0, -10.0, 0.0]
    image.VolumeToTransducerRelationship, image.VolumeToTransducerMappingMatrix = "VOLUME", np.eye(4).ravel().tolist()
    image.DimensionOrganizationType = "3D" if times == 1 else "3D_TEMPORAL"
    own = []
    for time in range(times):
        for number, place in enumerate(places):
            groups = {
                "PlanePositionVolumeSequence": {"ImagePositionVolume": place},
                "TemporalPositionSequence": {"TemporalPositionTimeOffset": 0.1 * time},
                "FrameContentSequence": {"StackID": "1", "InStackPositionNumber": number + 1},
            }
            if patient is not None:
                there = (lps @ [*place, 1])[:3].round(8).tolist()
                groups["PlanePositionSequence"] = {"ImagePositionPatient": there}
            own.append(_groups(groups))
    image.PerFrameFunctionalGroupsSequence, image.NumberOfFrames = own, len(own)
    image.PixelData *= times
    image.save_as(path, enforce_file_format=True)


def write_emission(path, voxels, affine, kind="RECON TOMO", **tags):
    """Write a volume as a reconstructed SPECT, whose slices follow each other along their normal or against it.

    Args:
        path: of the file; its folder is created.
        voxels: as in ``write_series``.
        affine: the same.
        kind: third value of ImageType.
        tags: as in ``write_series``.
    """
    slices = [dcmread(file) for file in write_series(path.parent / "slices", voxels, affine, Modality="NM", **tags)]
    shutil.rmtree(path.parent / "slices")
    image = slices[0].copy()
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = NuclearMedicineImageStorage
    image.ImageType = ["ORIGINAL", "PRIMARY", kind, "EMISSION"]
    detector = Dataset()
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
        setattr(detector, keyword, image[keyword].value)
        delattr(image, keyword)
    image.DetectorInformationSequence = [detector]
    directions = np.reshape(detector.ImageOrientationPatient, (2, 3)).astype(float)
    image.SpacingBetweenSlices = float((RAS_TO_LPS @ affine)[:3, 2] @ np.cross(*directions))
    image.NumberOfFrames = image.NumberOfSlices = len(slices)
    image.FrameIncrementPointer = 0x00540080
    if "SliceVector" not in image:
        image.SliceVector = list(range(1, len(slices) + 1))
    image.PixelData = b"".join(one.PixelData for one in slices)
    image.save_as(path, enforce_file_format=True)


def _groups(content):
    """Functional groups: ``{sequence: {keyword: value}}``, every sequence of one item."""
    groups = Dataset()
    for sequence, values in content.items():
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        setattr(groups, sequence, [item])
    return groups


def write_report(path):
    """Write a structured report, which holds no image."""
    report = FileDataset(None, {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    report.SeriesInstanceUID, report.Modality = generate_uid(), "SR"
    report.save_as(path, enforce_file_format=True)


def write_directory(path):
    """Write a DICOMDIR, whose class stands in the header of the file alone."""
    directory = FileDataset(None, {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    directory.FileSetID, directory.DirectoryRecordSequence = "", []
    directory.save_as(path, enforce_file_format=True)


def edit(path, **tags):
    """Change attributes of a file."""
    data = dcmread(path)
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    data.save_as(path)
