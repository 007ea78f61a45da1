"""A carried label as a DICOM segmentation; the only user of highdicom, which not every environment has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from bundle.dicom.common import (
    EMPTY_IF_UNKNOWN,
    MAKER,
    MODEL,
    SERIAL,
    SERIES_NUMBERS,
    first_header,
    share,
    share_patient_and_study,
    version,
)
from bundle.dicom.files import read_header
from bundle.dicom.series import Series
from bundle.dicom.spatial_registration import decimals
from bundle.system.on_demand import highdicom

DESCRIPTION = "segmentation carried by registration"


def segmentation(label: np.ndarray, fixed: Series) -> Dataset:
    """A label on the fixed grid as a binary segmentation that refers to the fixed image, a segment per structure.

    Args:
        label: ``(channels, X, Y, Z)``: one channel of values, or a channel per structure.
        fixed: series on whose grid it lies.

    Returns:
        Segments are named ``structure 3`` after the value, or after the number of the channel, from 0.

    Raises:
        ValueError: when the label is empty.
    """
    names, pixels = _segments(label)
    if not pixels.any():
        raise ValueError("the carried label has no voxel within the fixed image, there is nothing to segment")
    if len(fixed.files) == 1:
        # The frames of a multi-frame image may be in any order, and highdicom expects the pixels in the same order.
        pixels = pixels[np.argsort(fixed.frames)]
    images = [_source(file, fixed) for file in fixed.files]
    made = highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=pixels,
        segmentation_type="BINARY",
        segment_descriptions=[_description(number, name) for number, name in enumerate(names, start=1)],
        series_instance_uid=generate_uid(prefix=None),
        series_number=SERIES_NUMBERS["segmentation"],
        sop_instance_uid=generate_uid(prefix=None),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MODEL,
        software_versions=version(),
        device_serial_number=SERIAL,
        content_label="SEGMENTATION",
        content_description=DESCRIPTION,
        series_description=DESCRIPTION,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    share_patient_and_study(made, first_header(fixed))
    return made


def _source(file: Path, fixed: Series) -> Dataset:
    """Header of a slice with all that highdicom asks for; what is missing is measured, or left empty."""
    image = read_header(file)
    # highdicom refuses headers with half a date, an unknown character set, or no sex of the patient, and quotes what
    # they say; the true values are put into the object that it makes.
    for name in EMPTY_IF_UNKNOWN:
        setattr(image, name, None)
    image.SpecificCharacterSet = "ISO_IR 192"
    if "TransferSyntaxUID" not in image.file_meta:
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    known = Dataset()
    share(known, image, ("SliceThickness",))
    if len(fixed.files) > 1 and not known.get("SliceThickness"):
        image.SliceThickness = decimals(np.linalg.norm(fixed.affine[:3, 2:3], axis=0))[0]
    return image


def _segments(label: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of the structures and their pixels: ``(slices, rows, columns)`` of numbers from 1, or a channel each."""
    if len(label) > 1:
        structures = label > 0.5
        return [f"structure {number}" for number in range(len(label))], structures.transpose(3, 2, 1, 0)
    values, places = np.unique(label[0], return_inverse=True)
    numbers = np.cumsum(values != 0) * (values != 0)
    kind = np.uint8 if len(values) < 256 else np.uint16
    names = [f"structure {value:.0f}" for value in values[values != 0]]
    return names, numbers.astype(kind)[places].reshape(label[0].shape).transpose(2, 1, 0)


def _description(number: int, name: str) -> Any:
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.AnatomicalStructure,
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=MODEL, version=version(), family=codes.DCM.ArtificialIntelligence
        ),
    )
