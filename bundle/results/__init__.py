"""From a displacement to what users keep: native images, transforms both ways, DICOM, resume, apply."""

from bundle.results.apply import apply_transform
from bundle.results.dicom_outputs import DicomOutputsd, NoObjects, check_one_patient, save_objects, series_of
from bundle.results.evaluator import PairDataset, RegistrationEvaluator
from bundle.results.inverse import TransformsBothWaysd
from bundle.results.outputs import NativeOutputsd, SavePaird
from bundle.results.resume import FinishedPairs

__all__ = [
    "DicomOutputsd",
    "FinishedPairs",
    "NativeOutputsd",
    "NoObjects",
    "PairDataset",
    "RegistrationEvaluator",
    "SavePaird",
    "TransformsBothWaysd",
    "apply_transform",
    "check_one_patient",
    "save_objects",
    "series_of",
]
