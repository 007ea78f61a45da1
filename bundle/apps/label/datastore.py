"""Images and labels of a MONAI Label datastore, by id only."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from bundle.apps.label.errors import ClientError
from bundle.data.layouts import read_patients

SERIES = re.compile(r"\d+(\.\d+)+")
"""A SeriesInstanceUID, the id of an image in a datastore over DICOMweb."""


class Store(Protocol):
    """The parts of ``monailabel.interfaces.datastore.Datastore`` that are used here."""

    def list_images(self) -> list[str]: ...  # noqa: D102
    def get_unlabeled_images(self) -> list[str]: ...  # noqa: D102
    def get_image_uri(self, image_id: str) -> str: ...  # noqa: D102
    def get_image_info(self, image_id: str) -> dict[str, Any]: ...  # noqa: D102
    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]: ...  # noqa: D102
    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]: ...  # noqa: D102


class OriginalsKept:
    """What comes before MONAI Label's ``LocalDatastore`` in a datastore whose images are links to a user's files.

    MONAI Label follows links: an image that a client uploads under a known id would overwrite the user's file, and one
    that a client deletes would be deleted there. So the link is replaced first.
    """

    _datastore: Any

    def add_image(self, image_id: str, image_filename: str, *others: Any) -> str:
        """Add an image as MONAI Label does."""
        own, suffix = self._to_id(Path(image_filename).name)  # type: ignore[attr-defined]
        self._unlink((image_id or own) + suffix)
        return super().add_image(image_id, image_filename, *others)  # type: ignore[misc]

    def remove_image(self, image_id: str) -> None:
        """Remove an image and its labels as MONAI Label does."""
        known = self._datastore.objects.get(image_id)
        if known is not None:
            self._unlink(image_id + known.image.ext)
        super().remove_image(image_id)  # type: ignore[misc]

    def _unlink(self, name: str) -> None:
        """Put an empty file in the place of a link, at once: MONAI Label forgets the labels of what is not there."""
        link = Path(self._datastore.image_path(), name)
        if link.is_symlink():
            empty = link.with_name(f".{name}.empty")
            empty.touch()
            empty.replace(link)


def numbered_otherwise(one: Mapping[str, int], other: Mapping[str, int]) -> str:
    """The first structure whose value is another one in another label, and both values; empty without any.

    3D Slicer numbers the segments of every image anew, in their order.
    """
    shared = (name for name in one if one[name] != other.get(name, one[name]))
    return next((f"{name!r} is {one[name]} and {other[name]}" for name in shared), "")


class Images:
    """Images of a datastore.

    Args:
        store: the datastore.
        folder: folder of a datastore of files, where a ``patients.csv`` may lie; None for one over DICOMweb.
        label_uri: id and tag of a label -> its file.
    """

    def __init__(self, store: Store, folder: Path | None, label_uri: Callable[[str, str], str]) -> None:
        self.store = store
        self.folder = folder
        self.label_uri = label_uri

    def file(self, image: str, name: str) -> Path:
        """File of an image, or folder of its DICOM series.

        Args:
            image: its id.
            name: name of the parameter that gave the id.

        Raises:
            ClientError: when there is no such image.
        """
        # A viewer over DICOMweb may ask for any series that it shows, listed or not.
        known = SERIES.fullmatch(image) if self.folder is None else image in self.store.list_images()
        try:
            uri = self.store.get_image_uri(image) if known else ""
        except LookupError:  # MONAI Label takes the first series found, even if there is none
            uri = ""
        if not uri or not Path(uri).exists():
            raise ClientError(
                f"{name} is {image!r}, no id of an image in the datastore; GET /datastore/?output=all lists them",
                HTTPStatus.NOT_FOUND,
            )
        return Path(uri)

    def label(self, image: str, tag: str) -> Path | None:
        """File of an image's label; None when there is none with this tag."""
        label = self.store.get_labels_by_image_id(image).get(tag)
        uri = self.label_uri(label, tag) if label else None
        return Path(uri) if uri and Path(uri).is_file() else None

    def require_label(self, image: str, tag: str) -> Path:
        """File of an image's label.

        Raises:
            ClientError: when there is none with this tag, naming the existing ones.
        """
        file = self.label(image, tag)
        if file is None:
            tags = ", ".join(sorted(self.store.get_labels_by_image_id(image))) or "none"
            raise ClientError(
                f"the moving image {image!r} has no label {tag!r} (it has: {tags}); save one, or give another 'label'",
                HTTPStatus.NOT_FOUND,
            )
        return file

    def label_names(self, image: str, tag: str) -> dict[int, str]:
        """Value -> name of the structures of a label, as given when it was saved."""
        info = self.store.get_label_info(image, tag).get("label_info") or []
        entries = [entry for entry in info if isinstance(entry, Mapping) and entry.get("name")]
        return {int(entry.get("idx", number)): str(entry["name"]) for number, entry in enumerate(entries, start=1)}

    def structures(self, image: str, tag: str) -> dict[str, int]:
        """Name -> value of the structures of a label, without names that are given twice."""
        names = self.label_names(image, tag)
        given = list(names.values())
        return {name: value for value, name in names.items() if given.count(name) == 1}

    def patients(self) -> dict[str, str]:
        """Patient of each image: from its DICOM header, from ``patients.csv`` beside the images, else the image."""
        listed = read_patients(self.folder, []) if self.folder is not None else {}
        return {
            image: str(self.store.get_image_info(image).get("PatientID") or listed.get(image, image))
            for image in self.store.list_images()
        }
