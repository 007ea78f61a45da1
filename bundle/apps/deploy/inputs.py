"""From the input folder to the two images and their labels."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from bundle.data import SIDES
from bundle.dicom import Series, one_volume, read_folder
from bundle.dicom.files import is_as_declared, read_header, start_of
from bundle.dicom.frames import IDENTITY
from bundle.results import check_one_patient
from bundle.system import DataWarning

SUFFIX = ".nii.gz"


@dataclass(frozen=True)
class Pair:
    """The files of a pair.

    Attributes:
        fixed: file, or folder of a DICOM series.
        moving: the same.
        fixed_label: file on the fixed grid, if there is one.
        moving_label: file on the moving grid, if there is one.
    """

    fixed: Path
    moving: Path
    fixed_label: Path | None
    moving_label: Path | None

    @property
    def is_dicom(self) -> bool:
        """Whether both images are DICOM series."""
        return self.fixed.is_dir() and self.moving.is_dir()


def has_nifti(folder: Path) -> bool:
    """Whether a folder has a pair of NIfTI files: ``fixed.nii.gz`` and ``moving.nii.gz``.

    Raises:
        ValueError: when it has only one of them, or neither these nor a DICOM image.
    """
    there = [side for side in SIDES if (folder / f"{side}{SUFFIX}").is_file()]
    if len(there) == 1:
        (missing,) = set(SIDES) - set(there)
        raise ValueError(f"{there[0]}{SUFFIX} is in {folder}, and {missing}{SUFFIX} is not; put both images there")
    if not there and not series_in(folder):
        raise ValueError(
            f"no image in {folder}: expected DICOM series, or fixed{SUFFIX} and moving{SUFFIX}; "
            "see whether -i names the right folder"
        )
    return bool(there)


def series_in(folder: Path) -> list[Series]:
    """The DICOM series of the input.

    Raises:
        ValueError: when a file is damaged, since its series is unknown; it is not named, as it may name a patient.
    """
    found, damaged = read_folder(folder)
    if damaged:
        raise ValueError(f"{len(damaged)} of the DICOM files in {folder} cannot be read; export the series again")
    return found


def listed(folder: Path, private: Path) -> Path:
    """A folder with the files of all series of the input, for MONAI Deploy's loader to list and its rules to choose.

    The loader would follow links in circles, and does not read files without a preamble or a study. So the bundle finds
    the files and gives the loader each of them once, numbered and complete.

    Args:
        folder: folder of the input.
        private: where the new folder goes, with links, or with headers in place of files that the loader cannot read.
    """
    made = private / "listed"
    made.mkdir()
    files = ((file, uids) for one in series_in(folder) for file, uids in zip(one.files, one.identities, strict=True))
    for number, (file, uids) in enumerate(files, start=1):
        link = made / f"{number:05}.dcm"
        if is_as_declared(start_of(file)) and all(uids):
            link.symlink_to(file.resolve())
        else:
            _complete(read_header(file)).save_as(link, enforce_file_format=True)
    return made


def _complete(header: Dataset) -> Dataset:
    """A header with everything that a DICOM file has to have."""
    for name in IDENTITY:
        if not header.get(name):
            setattr(header, name, SecondaryCaptureImageStorage if name == "SOPClassUID" else generate_uid(prefix=None))
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return header


def nifti_pair(folder: Path) -> Pair:
    """The pair of NIfTI files of a folder and their labels."""
    return _pair(folder, folder / f"fixed{SUFFIX}", folder / f"moving{SUFFIX}")


def series_pair(folder: Path, chosen: Mapping[str, Collection[str]], private: Path) -> Pair:
    """The two DICOM series that the selectors chose, each in a folder of its own, and NIfTI labels beside them.

    Args:
        folder: folder of the input.
        chosen: for each side the SeriesInstanceUIDs that fit its conditions.
        private: where new folders with numbered links to the files go: the files' own names may be those of patients.

    Raises:
        ValueError: when not exactly one series fits a side, or the same fits both, listing the series; when one cannot
            be registered; when they are of two patients.
    """
    found = series_in(folder)
    # Raw data and localizers may fit too, but nobody wants to register them.
    images = {one.uid for one in found if one.shape[2] > 1 and not one.localizer} or {one.uid for one in found}
    chosen = {side: images & set(chosen[side]) for side in SIDES}
    for side in SIDES:
        if len(chosen[side]) != 1:
            raise ValueError(_not_one(side, [one for one in found if one.uid in chosen[side]], found))
    if chosen["fixed"] == chosen["moving"]:
        raise ValueError(
            f"the same series fits fixed and moving: {_listed(found, chosen['fixed'])}; make the conditions under "
            "series narrower, for instance by SeriesDescription"
        )
    untold = {file for one in found for file in one.untold}
    if untold:
        what = "1 file of the input is" if len(untold) == 1 else f"{len(untold)} files of the input are"
        warnings.warn(f"{what} neither DICOM nor text; slices may be missing", DataWarning, stacklevel=2)
    fixed, moving = (_linked(found, side, chosen[side], private / side) for side in SIDES)
    check_one_patient(one_volume(fixed), one_volume(moving))
    return _pair(folder, fixed, moving)


def _pair(folder: Path, fixed: Path, moving: Path) -> Pair:
    labels = [folder / f"{side}_label{SUFFIX}" for side in SIDES]
    return Pair(fixed, moving, *(label if label.is_file() else None for label in labels))


def _not_one(side: str, fitting: Sequence[Series], found: Sequence[Series]) -> str:
    """One line: what fits and what exists. A series is named by number, modality, description and size, no patient."""
    if fitting:
        return (
            f"{len({one.uid for one in fitting})} series fit {side}: {_named(fitting)}; expected one: make the "
            f"conditions under series, {side} narrower, for instance by SeriesDescription"
        )
    return f"no series fits {side}; found: {_named(found)}; change the conditions under series, {side}"


def _listed(found: Sequence[Series], uids: Collection[str]) -> str:
    return _named([one for one in found if one.uid in uids])


def _named(series: Sequence[Series]) -> str:
    return ", ".join(map(str, series)) or "none"


def _linked(found: Sequence[Series], side: str, uids: Collection[str], folder: Path) -> Path:
    """A folder with all images of a series, including two at the same place, which the reader then refuses."""
    folder.mkdir()
    files = [file for one in found if one.uid in uids for file in one.files]
    for number, file in enumerate(files, start=1):
        (folder / f"{number:05}.dcm").symlink_to(file.resolve())
    try:
        one_volume(folder)
    except ValueError as error:
        message = str(error).replace(str(folder), "INPUT")  # the private folder is gone by the time it is read
        raise ValueError(f"{side}, series {_listed(found, uids)}: {message}") from error
    return folder
