"""Every file format, to read and to write."""

from bundle.formats.headers import PICTURE_SUFFIXES
from bundle.formats.loading import LoadPaird, load_image
from bundle.formats.point_files import POINT_FORMATS, PointFile, is_point_file, read_points
from bundle.formats.problems import grid_problems
from bundle.formats.saving import as_stored, check_writable, nifti, save_image
from bundle.formats.transform_files import displacement_image, read_transform, write_transform

__all__ = [
    "LoadPaird",
    "PICTURE_SUFFIXES",
    "POINT_FORMATS",
    "PointFile",
    "as_stored",
    "check_writable",
    "displacement_image",
    "grid_problems",
    "is_point_file",
    "load_image",
    "nifti",
    "read_points",
    "read_transform",
    "save_image",
    "write_transform",
]
