"""Common parts of our DICOM objects: patient, study, equipment, references, dates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path

from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from bundle.dicom.files import read_header
from bundle.dicom.frames import IDENTITY
from bundle.dicom.series import Series
from bundle.system import CONFIGS

PATIENT_AND_STUDY = (
    *("SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
    *("StudyDescription", "PatientAge", "PatientSize", "PatientWeight"),
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID"),
    *("ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID"),
)
"""Attributes of a patient and a study that a result shares with its images (PS3.3 C.7.1, C.7.2)."""
EMPTY_IF_UNKNOWN = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
"""Attributes of type 2, which are written even without a value."""
SERIES_NUMBERS = {"registration": 9001, "warped": 9002, "segmentation": 9003, "report": 9004}
"""Series numbers above those of scanners; the description also says which series it is."""
MAKER, MODEL, SERIAL = "Meta-registration bundle", "meta-registration-bundle", "none"
"""Manufacturer, model and serial number in our objects; a program has no serial number."""


@cache
def version() -> str:
    """Version of the bundle."""
    return str(json.loads((CONFIGS / "metadata.json").read_text())["version"])


def first_header(series: Series) -> Dataset:
    """Header of the first slice of a series."""
    return read_header(series.files[0])


def lacking(series: Series) -> str:
    """What the images of a series lack for an object to refer to them; empty if nothing."""
    absent = [name for name, uids in zip(IDENTITY, zip(*series.identities, strict=True), strict=True) if not all(uids)]
    if absent:
        return f"has no {' and no '.join(absent)}"
    unique = len({uids[-1] for uids in series.identities}) == len(series.files)
    return "" if unique else "has several slices with one SOPInstanceUID"


def share(made: Dataset, source: Dataset, names: Iterable[str]) -> None:
    """Copy attributes to an object from another one, except those whose values cannot be read or written."""
    encodings = convert_encodings(source.get("SpecificCharacterSet", ""))
    for name in names:
        with suppress(Exception):  # every type reports a wrong value in its own way
            element = source[name]
            buffer = DicomBytesIO()
            buffer.is_little_endian, buffer.is_implicit_VR = True, False
            write_data_element(buffer, element, encodings)
            made[name] = element


def new_object(source: Dataset, sop_class: UID, kind: str, description: str, series: UID | None = None) -> Dataset:
    """A new object of this bundle, with the patient and the study of another one.

    Args:
        source: header of an image of the patient and the study.
        sop_class: SOP class of the object.
        kind: one of ``SERIES_NUMBERS``.
        description: SeriesDescription, cut off after 64 characters.
        series: SeriesInstanceUID; None makes a new one.

    Returns:
        The object with new UIDs; its own modules are still missing.
    """
    made = Dataset()
    share_patient_and_study(made, source)
    made.SOPClassUID = sop_class
    made.SOPInstanceUID = generate_uid(prefix=None)
    made.SeriesInstanceUID = series or generate_uid(prefix=None)
    made.SeriesNumber = SERIES_NUMBERS[kind]
    made.SeriesDescription = description[:64]
    made.InstanceNumber = 1
    made.Manufacturer, made.ManufacturerModelName = MAKER, MODEL
    made.DeviceSerialNumber, made.SoftwareVersions = SERIAL, version()
    now = datetime.now()
    for name in ("InstanceCreation", "Series", "Content"):
        setattr(made, f"{name}Date", now.strftime("%Y%m%d"))
        setattr(made, f"{name}Time", now.strftime("%H%M%S"))
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def share_patient_and_study(made: Dataset, source: Dataset) -> None:
    """Copy the patient and the study of another object, unchanged."""
    share(made, source, PATIENT_AND_STUDY)
    for name in EMPTY_IF_UNKNOWN:
        if name not in made:
            setattr(made, name, "")


def code(concept: Code) -> Dataset:
    """A coded concept as an item of a sequence (PS3.3 table 8.8-1)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = concept.value, concept.scheme_designator
    item.CodeMeaning = concept.meaning
    return item


def image_references(series: Series) -> list[Dataset]:
    """A reference to every image of a series (PS3.3 table 10-3)."""
    references = []
    for _, _, sop_class, instance in series.identities:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        references.append(item)
    return references


def write_objects(objects: Mapping[str, Dataset], folder: Path) -> None:
    """Write objects as files.

    Args:
        objects: objects by path below the folder.
        folder: output folder; missing folders are created.
    """
    for name, made in objects.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        made.save_as(path, enforce_file_format=True)


def refer_to(made: Dataset, references: Sequence[tuple[Series, list[Dataset]]]) -> None:
    """Fill the Common Instance Reference module (PS3.3 C.12.2): all images by series, other studies separately.

    Args:
        made: object that refers to the images; its study is set.
        references: series and their ``image_references``; a series that occurs twice is listed once.
    """
    studies: dict[str, dict[str, dict[str, Dataset]]] = {}
    for series, images in references:
        for (study, uid, _, instance), image in zip(series.identities, images, strict=True):
            studies.setdefault(study, {}).setdefault(uid, {})[instance] = image
    same = studies.pop(str(made.StudyInstanceUID), {})
    if same:
        made.ReferencedSeriesSequence = _referenced(same)
    others = []
    for study, found in studies.items():
        item = Dataset()
        item.StudyInstanceUID, item.ReferencedSeriesSequence = study, _referenced(found)
        others.append(item)
    if others:
        made.StudiesContainingOtherReferencedInstancesSequence = others


def _referenced(found: Mapping[str, Mapping[str, Dataset]]) -> list[Dataset]:
    """Items of a Referenced Series Sequence: images by series and instance."""
    items = []
    for uid, images in found.items():
        item = Dataset()
        item.SeriesInstanceUID, item.ReferencedInstanceSequence = uid, list(images.values())
        items.append(item)
    return items
