"""What a pair is and where it comes from."""

from bundle.data.augmentation import RandomPairAffine
from bundle.data.check import check_data, image_problems
from bundle.data.datalist import read_datalist, require, select_pairs, write_datalist
from bundle.data.errors import WRAPPING, brief, one_line, root_cause
from bundle.data.field_of_view import FieldOfViewMaskd, field_of_view
from bundle.data.files import written_whole
from bundle.data.layouts import SECTIONS
from bundle.data.loading import PICTURE_SUFFIXES, LoadPaird, load_image
from bundle.data.pairs import PreparePair, collate_episodes, images_of, join_pair, side_tensor, split_pair
from bundle.data.preprocessing import CheckPaird, InitialAlignmentd, LabelChannelsd, SmoothToSpacingd, Timed
from bundle.data.simulation import simulate_dataset

__all__ = [
    "CheckPaird",
    "FieldOfViewMaskd",
    "InitialAlignmentd",
    "LabelChannelsd",
    "LoadPaird",
    "PICTURE_SUFFIXES",
    "PreparePair",
    "RandomPairAffine",
    "SECTIONS",
    "SmoothToSpacingd",
    "Timed",
    "WRAPPING",
    "brief",
    "check_data",
    "collate_episodes",
    "field_of_view",
    "image_problems",
    "images_of",
    "join_pair",
    "load_image",
    "one_line",
    "read_datalist",
    "require",
    "root_cause",
    "select_pairs",
    "side_tensor",
    "simulate_dataset",
    "split_pair",
    "write_datalist",
    "written_whole",
]
