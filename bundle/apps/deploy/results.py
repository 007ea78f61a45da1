"""Write the results to the output folder, all of them or none."""

from __future__ import annotations

import warnings
from pathlib import Path

from bundle.api import Registration
from bundle.results import NoObjects
from bundle.system import DataWarning, whole_folder

NAME = "registration"


def check_output(folder: Path) -> None:
    """Refuse a folder with the results of another run.

    Raises:
        FileExistsError: when it holds results.
    """
    if (folder / NAME).exists():
        raise FileExistsError(f"{folder} has the results of another run; give an empty folder with -o")


def write_results(registration: Registration, folder: Path, dicom: bool) -> Path:
    """Write a registered pair to ``registration`` in a folder, which is complete or not there.

    Args:
        registration: the registered pair.
        folder: output folder. A container's is a mount point, so a folder inside it is moved into place.
        dicom: whether DICOM objects are written, into ``dicom`` of the results.

    Returns:
        The folder of the results.

    Raises:
        OSError: when it cannot be written.
        ValueError: when the two series are not of one patient.
    """
    check_output(folder)
    with whole_folder(folder / NAME) as made:
        registration.save(made)
        if dicom:
            try:
                registration.save_dicom(made / "dicom")
            except NoObjects as error:  # missing header entries do not prevent the other results
                warnings.warn(str(error), DataWarning, stacklevel=2)
    return folder / NAME
