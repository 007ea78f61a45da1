"""Every file format, to read and to write: images, transforms, points, markups, surfaces."""

from typing import TYPE_CHECKING

from bundle.system.on_demand import on_demand

if TYPE_CHECKING:
    from bundle.formats.images import (
        IMAGE_SUFFIXES,
        PICTURE_SUFFIXES,
        check_writable,
        save_image,
        written_type,
    )
    from bundle.formats.loading import LoadPaird, in_memory, load_image
    from bundle.formats.nibabel_files import found_in
    from bundle.formats.nifti_place import displacement_image, nifti
    from bundle.formats.point_files import (
        POINT_FORMATS,
        PointFile,
        has_landmarks,
        is_point_file,
        pair_points,
        read_landmarks,
        read_points,
    )
    from bundle.formats.problems import grid_problems
    from bundle.formats.transform_files import read_transform, write_transform
    from bundle.formats.voxels import smallest_type
else:
    __getattr__, __dir__ = on_demand(__name__, __file__)

__all__ = [
    "IMAGE_SUFFIXES",
    "LoadPaird",
    "PICTURE_SUFFIXES",
    "POINT_FORMATS",
    "PointFile",
    "check_writable",
    "displacement_image",
    "found_in",
    "grid_problems",
    "has_landmarks",
    "in_memory",
    "is_point_file",
    "load_image",
    "nifti",
    "pair_points",
    "read_landmarks",
    "read_points",
    "read_transform",
    "save_image",
    "smallest_type",
    "write_transform",
    "written_type",
]
