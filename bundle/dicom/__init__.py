"""DICOM: which files are a volume and where it lies. Headers alone are read here."""

from bundle.dicom.geometry import Stack, stack_slices
from bundle.dicom.series import Series, check_file, find_series, read_series
from bundle.dicom.sorting import listing, sort_out

__all__ = ["Series", "Stack", "check_file", "find_series", "listing", "read_series", "sort_out", "stack_slices"]
