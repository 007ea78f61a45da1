"""What a pair is and where it comes from."""

from bundle.data.augmentation import RandomPairAffine
from bundle.data.check import check_data, image_problems
from bundle.data.datalist import read_datalist, require, select_pairs, write_datalist
from bundle.data.errors import WRAPPING, DataWarning, brief, one_line, root_cause
from bundle.data.field_of_view import FieldOfViewMaskd, field_of_view
from bundle.data.files import flush, moved_into_place, written_whole
from bundle.data.fingerprint import fingerprint
from bundle.data.headers import PICTURE_SUFFIXES
from bundle.data.images import read_folds, read_images
from bundle.data.layouts import POINT_SUFFIXES, SECTIONS, stem
from bundle.data.limits import exists, regular_file
from bundle.data.loading import LoadPaird, load_image
from bundle.data.lock import FolderLock
from bundle.data.mixtures import check_mixture, of_kinds, pair_kind
from bundle.data.pairs import (
    PreparePair,
    collate_episodes,
    images_of,
    join_pair,
    seen_of,
    side_tensor,
    split_pair,
)
from bundle.data.point_files import POINT_FORMATS, PointFile, is_point_file, read_points
from bundle.data.preprocessing import CheckPaird, InitialAlignmentd, LabelChannelsd, SmoothToSpacingd, Timed
from bundle.data.problems import grid_problems
from bundle.data.saving import as_stored, check_writable, nifti, save_image
from bundle.data.simulation import simulate_dataset
from bundle.data.structures import Correspondence, by_name, corresponding
from bundle.data.transform_files import displacement_image, read_transform, write_transform

__all__ = [
    "CheckPaird",
    "Correspondence",
    "DataWarning",
    "FieldOfViewMaskd",
    "FolderLock",
    "InitialAlignmentd",
    "LabelChannelsd",
    "LoadPaird",
    "PICTURE_SUFFIXES",
    "POINT_FORMATS",
    "POINT_SUFFIXES",
    "PointFile",
    "PreparePair",
    "RandomPairAffine",
    "SECTIONS",
    "SmoothToSpacingd",
    "Timed",
    "WRAPPING",
    "as_stored",
    "brief",
    "by_name",
    "check_data",
    "check_mixture",
    "check_writable",
    "collate_episodes",
    "corresponding",
    "displacement_image",
    "exists",
    "field_of_view",
    "fingerprint",
    "flush",
    "grid_problems",
    "image_problems",
    "images_of",
    "is_point_file",
    "join_pair",
    "load_image",
    "moved_into_place",
    "nifti",
    "of_kinds",
    "one_line",
    "pair_kind",
    "read_datalist",
    "read_folds",
    "read_images",
    "read_points",
    "read_transform",
    "regular_file",
    "require",
    "root_cause",
    "save_image",
    "seen_of",
    "select_pairs",
    "side_tensor",
    "simulate_dataset",
    "split_pair",
    "stem",
    "write_datalist",
    "write_transform",
    "written_whole",
]
