"""The results of a pair of DICOM series as DICOM objects."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import Transform
from pydicom.dataset import Dataset

from bundle.data import SIDES
from bundle.dicom import Series, read_series
from bundle.dicom.common import lacking, write_objects
from bundle.dicom.derived import warped_series
from bundle.dicom.encapsulated import encapsulated_pdf
from bundle.dicom.segmentation import segmentation
from bundle.dicom.series import patient_of
from bundle.dicom.spatial_registration import registration_object
from bundle.formats.dicom_volume import is_dicom_image
from bundle.formats.loading import file_of
from bundle.results.inverse import pair_transform
from bundle.results.outputs import check_beside
from bundle.system import DataWarning, brief, whole_folder
from bundle.system.files import is_occupied

TITLE = "Quality of the registration"


class NoObjects(ValueError):
    """No result of a pair can be written as DICOM."""


def series_of(image: MetaTensor) -> Series | None:
    """The DICOM series that an image was read from; None if it comes from somewhere else."""
    path = file_of(image)
    volume = path and (Path(path).is_dir() or image.shape[-1] > 1)
    return read_series(path) if volume and is_dicom_image(Path(path)) else None


def check_one_patient(fixed: Series, moving: Series) -> None:
    """Refuse images of two patients, which one DICOM object would mix.

    Raises:
        ValueError: if they are; it names no patient.
    """
    if patient_of(fixed) != patient_of(moving):
        raise ValueError(
            "the fixed and the moving series have different PatientIDs, expected one patient: a DICOM result belongs "
            "to one; register without DICOM results, or correct the headers"
        )


class DicomOutputsd(Transform):
    """Adds ``dicom`` to a pair: DICOM objects by the names of their files.

    ``registration.dcm`` and ``warped/<number>.dcm`` need two series. ``segmentation.dcm`` of a carried label and
    ``report.dcm`` of a page (``bundle.pages.QualityPdfd``) need a fixed image that is a series. All but the warped
    series belong to the fixed image's study.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Make the objects of one pair after ``bundle.results.NativeOutputsd``.

        Raises:
            ValueError: for series of different patients.

        Warns:
            DataWarning: naming what is not written, and why.
        """
        fixed, moving = (series_of(data[f"native_{side}_image"]) for side in SIDES)
        if fixed is not None and moving is not None:
            check_one_patient(fixed, moving)
        reasons = _reasons(data, fixed, moving)
        for kinds in TOLD_TOGETHER:
            for reason in filter(None, dict.fromkeys(reasons.get(kind, "") for kind in kinds)):
                _say(data, " and ".join(kind for kind in kinds if reasons[kind] == reason), reason)
        objects: dict[str, Dataset] = {}
        for what in (what for what, reason in reasons.items() if not reason):
            try:
                objects |= MAKERS[what](data, fixed, moving)
            except Exception as error:  # a header may lack or hold things that the code does not expect
                _say(data, what, brief(error))
        return {**data, "dicom": objects}


def _reasons(data: Mapping[Hashable, Any], fixed: Series | None, moving: Series | None) -> dict[str, str]:
    """Each object of a pair, with the reasons why it cannot be written; no reason if it can."""
    absent = {
        "registration": {"fixed": _lacking(fixed), "moving": _lacking(moving)},
        "warped series": {"fixed": _lacking(fixed, images=False), "moving": _lacking(moving, place=False)},
    }
    if "warped_label" in data:
        absent["segmentation"] = {"fixed": _lacking(fixed)}
    if "pdf" in data and fixed is not None:
        absent["report"] = {"fixed": "" if fixed.study else "has no StudyInstanceUID"}
    reasons = {
        what: " and ".join(f"the {side} image {reason}" for side, reason in sides.items() if reason)
        for what, sides in absent.items()
    }
    if not reasons.get("segmentation", "none") and not data["warped_label"].any():
        reasons["segmentation"] = "the carried label has no voxel in the fixed image"
    return reasons


def _lacking(series: Series | None, images: bool = True, place: bool = True) -> str:
    """What keeps objects from referring to the images and the position of a series; empty if nothing does."""
    if series is None:
        return "is not a DICOM series"
    found = [
        lacking(series) if images else "",
        "" if series.frame or not place else "has no frame of reference, or several",
    ]
    return " and ".join(filter(None, found))


def _say(data: Mapping[Hashable, Any], what: str, reason: str) -> None:
    warnings.warn(f"pair {data['pair_id']}: no DICOM {what}: {reason}", DataWarning, stacklevel=3)


def _registration(data: Mapping[Hashable, Any], fixed: Series, moving: Series) -> dict[str, Dataset]:
    return {"registration.dcm": registration_object(pair_transform(data), fixed, moving)}


def _warped(data: Mapping[Hashable, Any], fixed: Series, moving: Series) -> dict[str, Dataset]:
    warped = data["warped_image"]
    whole = np.dtype(warped.meta.get("stored_type", np.float32)).kind in "iub"
    slices = warped_series(warped[0].numpy(), whole, fixed, moving)
    digits = len(str(warped.shape[-1]))
    return {f"warped/{number:0{digits}}.dcm": made for number, made in enumerate(slices, start=1)}


def _segmentation(data: Mapping[Hashable, Any], fixed: Series, _: Series | None) -> dict[str, Dataset]:
    return {"segmentation.dcm": segmentation(data["warped_label"].numpy(), fixed)}


def _report(data: Mapping[Hashable, Any], fixed: Series, _: Series | None) -> dict[str, Dataset]:
    return {"report.dcm": encapsulated_pdf(data["pdf"], TITLE, fixed)}


TOLD_TOGETHER = (("registration", "warped series"), ("segmentation",), ("report",))
MAKERS: dict[str, Callable[..., dict[str, Dataset]]] = {
    "registration": _registration,
    "warped series": _warped,
    "segmentation": _segmentation,
    "report": _report,
}


def save_objects(objects: Mapping[str, Dataset], folder: Path, images: Sequence[MetaTensor] = ()) -> None:
    """Write objects to a folder of their own, which is complete or not there.

    Args:
        objects: objects by path below the folder.
        folder: new, or empty.
        images: images as they were read, whose folders get nothing.

    Raises:
        FileExistsError: when there is something in it.
        ValueError: when it lies in the folder of an image.
    """
    check_beside(folder, map(file_of, images))
    if is_occupied(folder):
        raise FileExistsError(f"{folder} is not empty; give the DICOM files a folder of their own")
    with whole_folder(folder) as partial:
        write_objects(objects, partial)
