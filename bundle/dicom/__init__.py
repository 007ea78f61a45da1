"""DICOM in and out: which series a folder holds, which can be registered, and results as DICOM objects."""

from bundle.dicom.listing import list_series
from bundle.dicom.series import Series, one_volume, read_folder, read_series

__all__ = [
    "Series",
    "list_series",
    "one_volume",
    "read_folder",
    "read_series",
]
