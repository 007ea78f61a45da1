"""What a pair is and where it comes from."""

from bundle.data.augmentation import RandomPairAffine
from bundle.data.check import check_data, image_problems
from bundle.data.datalist import read_datalist, require, select_pairs, write_datalist
from bundle.data.errors import WRAPPING, brief, one_line, root_cause
from bundle.data.files import written_whole
from bundle.data.layouts import POINT_SUFFIXES, SECTIONS
from bundle.data.loading import PICTURE_SUFFIXES, LoadPaird, load_image
from bundle.data.pairs import PreparePair, collate_episodes, join_pair, split_pair
from bundle.data.point_files import POINT_FORMATS, PointFile, is_point_file, read_points
from bundle.data.preprocessing import CheckPaird, InitialAlignmentd, LabelChannelsd, SmoothToSpacingd, Timed
from bundle.data.simulation import simulate_dataset

__all__ = [
    "CheckPaird",
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
    "brief",
    "check_data",
    "collate_episodes",
    "image_problems",
    "is_point_file",
    "join_pair",
    "load_image",
    "one_line",
    "read_datalist",
    "read_points",
    "require",
    "root_cause",
    "select_pairs",
    "simulate_dataset",
    "split_pair",
    "write_datalist",
    "written_whole",
]
