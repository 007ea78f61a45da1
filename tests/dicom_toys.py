"""Simulated DICOM series, as scanners and archives leave them."""

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

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
        voxels: ``(X, Y, Z)``, whole numbers of 16 bits; slices lie along the last axis.
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
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
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
        for keyword, value in {**shared, **tags}.items():
            setattr(data, keyword, value(number) if callable(value) else value)
        data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        data.InstanceNumber = number + 1
        data.ImagePositionPatient = [round(value, 8) for value in position]
        data.PixelData = (
            np.ascontiguousarray(voxels[:, :, number].T).astype("<i2" if voxels.dtype.kind == "i" else "<u2").tobytes()
        )
        # Files of an archive have names that say nothing of their order.
        path = folder / f"{data.SOPInstanceUID.rsplit('.', 1)[-1]}.dcm"
        data.save_as(path, enforce_file_format=True)
        files.append(path)
    return files
