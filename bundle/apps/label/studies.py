"""The folder that MONAI Label works in: simulated patients, or links to a user's images, which stay as they are."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import nibabel as nib

from bundle.data.layouts import stem
from bundle.formats import IMAGE_SUFFIXES
from bundle.simulation import simulate_dataset
from bundle.system import DataWarning, moved_into_place, whole_folder

LISTED = (".nii.gz", ".nii", ".nrrd", ".jpg", ".png", ".tif")
"""Endings of the files that MONAI Label lists, of those that the bundle reads."""
FINAL = Path("labels") / "final"
"""Where MONAI Label keeps labels that a person saved."""


def simulated_studies(folder: Path) -> Path:
    """Write simulated ultrasound of six patients as a datastore: images, labels of the gland, ``patients.csv``.

    Args:
        folder: where to write them; a folder that exists is left as it is.
    """
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary, whole_folder(folder) as made:
        source = simulate_dataset(Path(temporary) / "source", patients=6)
        (made / FINAL).mkdir(parents=True)
        for image in sorted((source / "images").iterdir()):
            shutil.move(image, made / image.name)
            # The second scan of every patient waits for the label of the first.
            if "_0" in image.name:
                label = nib.load(source / "labels" / image.name)
                nib.save(label.slicer[..., 0], made / FINAL / image.name)
        shutil.move(source / "patients.csv", made)
    return folder


def images_in(folder: Path) -> list[Path]:
    """Files of images in a folder that MONAI Label lists.

    Raises:
        FileNotFoundError: when there is none, or no folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"studies not found: {folder}; give a folder of images or the address of a server")
    files = [path for path in sorted(folder.iterdir()) if path.name.endswith(LISTED) and path.is_file()]
    if not files:
        raise FileNotFoundError(f"no image in {folder}; expected files of {', '.join(LISTED)}")
    return files


def linked_studies(images: Path, home: Path) -> Path:
    """Links to a user's images, with the labels and the ``patients.csv`` that lie beside them.

    MONAI Label writes its list and its labels into the folder of its images, and its clients may delete images. So it
    gets a folder of links: the user's stays a data set (``OriginalsKept``). Labels are copies, since saving one would
    write through a link; one that was saved before is kept, and so is an image that a client uploaded.

    Args:
        images: folder of images, with labels in ``labels/`` beside it or in it.
        home: folder of the server, which gets the folder of links; every start brings the links up to date.

    Returns:
        The folder of links.

    Raises:
        FileNotFoundError: when there is no image; nothing is written then.

    Warns:
        DataWarning: of images that the bundle reads and MONAI Label does not list, without their names.
    """
    files = images_in(images)
    others = [path for path in images.iterdir() if path.name.lower().endswith(IMAGE_SUFFIXES) and path.is_file()]
    if left := len(set(others) - set(files)):
        note = f"{left} of the images in {images} are of formats that MONAI Label does not list; convert them to NIfTI"
        warnings.warn(note, DataWarning, stacklevel=2)
    folder = home / f"studies_{hashlib.sha256(os.fsencode(images.resolve())).hexdigest()[:8]}"
    (folder / FINAL).mkdir(parents=True, exist_ok=True)
    for link in (path for path in folder.iterdir() if path.is_symlink()):
        link.unlink()
    for path in files:
        if not (folder / path.name).exists():  # a client has uploaded one of this name
            (folder / path.name).symlink_to(path.absolute())
    names = {stem(path) for path in files}
    for place in (images.parent / "labels", images / "labels"):
        for label in (path for path in sorted(place.rglob("*")) if stem(path) in names and path.is_file()):
            # labels/<tag>/ is of a server that worked in the folder itself.
            kept = folder / (FINAL if label.parent == place else Path("labels", label.parent.name)) / label.name
            _copy(label, kept, over=False)
    _copy(images / "datastore_v2.json", folder / "datastore_v2.json", over=False)
    for place in (images.parent, images):
        _copy(place / "patients.csv", folder / "patients.csv", over=True)
    return folder


def _copy(source: Path, target: Path, over: bool) -> None:
    if source.is_file() and (over or not target.exists()):
        with moved_into_place(target) as partial:
            shutil.copyfile(source, partial)
