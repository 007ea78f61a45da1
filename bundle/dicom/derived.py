"""The warped volume as a series of single images derived from the moving one, on the fixed image's grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, MRImageStorage, SecondaryCaptureImageStorage, generate_uid
from pydicom.valuerep import DSfloat

from bundle.dicom.common import code, first_header, image_references, new_object, refer_to, share
from bundle.dicom.headers import TABLE
from bundle.dicom.pixels import GREY
from bundle.dicom.series import Series
from bundle.dicom.spatial_registration import decimals
from bundle.geometry import RAS_TO_LPS, spacing_of

WINDOW = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation")
OF_THE_SUBJECT = ("BodyPartExamined", "PatientPosition")
KEPT = {
    MRImageStorage: (
        *("ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime"),
        *("EchoTrainLength", "InversionTime", "FlipAngle", "MagneticFieldStrength", "SequenceName", "ProtocolName"),
        *("ContrastBolusAgent", "ContrastBolusRoute"),
    ),
    CTImageStorage: (
        *("KVP", "ConvolutionKernel", "ProtocolName", "ContrastBolusAgent", "ContrastBolusRoute", "RescaleType"),
    ),
    SecondaryCaptureImageStorage: (),
}
"""Acquisition attributes that still hold for a resampled image, by SOP class: contrast, not geometry or timing."""
EMPTY = {
    MRImageStorage: ("ScanOptions", "RepetitionTime", "EchoTime", "EchoTrainLength", "PatientPosition"),
    CTImageStorage: ("KVP", "AcquisitionNumber", "PatientPosition"),
    SecondaryCaptureImageStorage: ("PatientOrientation",),
}
"""Attributes of type 2, empty if the moving image lacks them."""
UNKNOWN = {MRImageStorage: {"ScanningSequence": "RM", "SequenceVariant": "NONE", "MRAcquisitionType": "3D"}}
"""Attributes of type 1 by SOP class, and what they get if they are missing: RM is a research mode."""
STORED = 2**16 - 1
"""Largest number of 16 bits."""


@dataclass(frozen=True, eq=False)
class Stored:
    """Voxels as 16-bit numbers, ``value = slope * number + intercept``.

    Attributes:
        numbers: int16 or uint16.
        slope: slope of the Modality LUT.
        intercept: intercept of the Modality LUT.
    """

    numbers: np.ndarray
    slope: float
    intercept: float


def stored_voxels(voxels: np.ndarray, whole: bool) -> Stored:
    """Voxels as the nearest 16-bit numbers, at most half a slope away.

    Args:
        voxels: any shape.
        whole: whether the original image has whole numbers: voxels are then rounded, as in ``warped_image.nii.gz``, if
            their range fits into 16 bits. Anything else is spread over all 16 bits.
    """
    voxels = voxels.astype(np.float64)
    low, high = float(voxels.min()), float(voxels.max())
    if whole:
        rounded = np.rint(voxels)
        for kind in (np.int16, np.uint16):
            if np.iinfo(kind).min <= rounded.min() and rounded.max() <= np.iinfo(kind).max:
                return Stored(rounded.astype(kind), 1.0, 0.0)
    # Slope and intercept are written with 16 characters: the numbers are computed from these.
    slope = float(DSfloat((high - low) / STORED or 1.0, auto_format=True))
    intercept = float(DSfloat(low, auto_format=True))
    return Stored(np.clip(np.rint((voxels - intercept) / slope), 0, STORED).astype(np.uint16), slope, intercept)


def warped_series(voxels: np.ndarray, whole: bool, fixed: Series, moving: Series) -> Iterator[Dataset]:
    """The warped image as a new series of the moving image's study, in the fixed image's frame of reference.

    MR and CT keep their SOP class, whose modules a resampled slice can fill. A slice of any other type becomes a
    Secondary Capture with added attributes of its plane (a Standard Extended SOP Class, PS3.2): classes such as
    ultrasound cannot place a slice in space, and PET needs an acquisition that a resampled slice no longer has.

    Args:
        voxels: ``(X, Y, Z)`` on the fixed grid.
        whole: whether the moving image has whole numbers.
        fixed: series whose grid and frame of reference the voxels have.
        moving: series from which the voxels come.

    Yields:
        The slices in the order of the fixed image's.
    """
    header, stored = first_header(moving), stored_voxels(voxels, whole)
    sop_class = header.SOPClassUID if header.SOPClassUID in KEPT else SecondaryCaptureImageStorage
    references, uid = image_references(moving), generate_uid(prefix=None)
    sources = [_source(reference) for reference in references]
    lps = RAS_TO_LPS @ fixed.affine
    for number in range(voxels.shape[2]):
        made = new_object(header, sop_class, "warped", f"warped: {moving.description}".strip(": "), uid)
        _describe(made, header, moving.modality)
        made.InstanceNumber = number + 1
        made.FrameOfReferenceUID, made.PositionReferenceIndicator = fixed.frame, ""
        made.SourceImageSequence = sources
        refer_to(made, [(moving, references)])
        _place(made, lps, number)
        _fill(made, stored, number)
        yield made


def _source(reference: Dataset) -> Dataset:
    item = Dataset()
    item.update(reference)
    item.PurposeOfReferenceCodeSequence = [code(codes.DCM.SourceImageForImageProcessingOperation)]
    item.SpatialLocationsPreserved = "NO"
    return item


def _describe(made: Dataset, header: Dataset, modality: str) -> None:
    """Set the kind of image, and the attributes of its acquisition that still hold."""
    sop_class = made.SOPClassUID
    made.Modality = modality
    made.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if sop_class == CTImageStorage else "OTHER"]
    if sop_class == SecondaryCaptureImageStorage:
        made.ConversionType = "WSD"
    made.DerivationDescription = "Deformed onto the grid of the fixed image by registration, interpolated linearly"
    made.DerivationCodeSequence = [code(codes.DCM.DeformedForRegistration)]
    made.BurnedInAnnotation = str(header.get("BurnedInAnnotation", "NO"))
    made.LossyImageCompression = str(header.get("LossyImageCompression", "00"))
    lossy = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")
    # The window of inverted numbers, or of those that a table gives, is not that of the values that are read.
    others = header.get("PhotometricInterpretation") == GREY[0] or TABLE in header
    share(made, header, (*lossy, *OF_THE_SUBJECT, *KEPT[sop_class], *(() if others else WINDOW)))
    if made.get("WindowCenter") is None or made.get("WindowWidth") is None:
        for name in WINDOW:
            made.pop(name, None)
    laterality = header.get("Laterality") or header.get("ImageLaterality")
    # Empty means unknown, as it is while the body part is unknown; for a body part without sides it is absent.
    if laterality or not made.get("BodyPartExamined"):
        made.Laterality = laterality
    for name in EMPTY[sop_class]:
        if name not in made:
            setattr(made, name, None)
    for name, value in UNKNOWN.get(sop_class, {}).items():
        if not made.get(name):
            setattr(made, name, value)


def _place(made: Dataset, lps: np.ndarray, number: int) -> None:
    """Position of a slice in space (PS3.3 C.7.6.2); ``lps`` is the voxel-to-world affine of the volume."""
    spacing = spacing_of(lps)
    made.ImagePositionPatient = decimals((lps @ [0, 0, number, 1])[:3])
    made.ImageOrientationPatient = decimals((lps[:3, :2] / spacing[:2]).T.ravel())
    made.PixelSpacing = decimals(spacing[[1, 0]])
    made.SliceThickness, made.SpacingBetweenSlices = decimals(spacing[[2, 2]])


def _fill(made: Dataset, stored: Stored, number: int) -> None:
    """Pixels of a slice (PS3.3 C.7.6.3), rows along the second axis of the volume."""
    pixels = stored.numbers[:, :, number].T
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = pixels.shape
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.PixelRepresentation = int(pixels.dtype == np.int16)
    # The MR module has no place for a scale, so many readers ignore it: it is written only if needed.
    if made.SOPClassUID == CTImageStorage or (stored.slope, stored.intercept) != (1, 0):
        made.RescaleIntercept, made.RescaleSlope = decimals(np.array([stored.intercept, stored.slope]))
        if "RescaleType" not in made:
            made.RescaleType = "HU" if made.SOPClassUID == CTImageStorage else "US"
    made.PixelData = np.ascontiguousarray(pixels).tobytes()
