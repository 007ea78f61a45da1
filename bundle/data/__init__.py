"""What a pair is and where it comes from."""

from bundle.data.augmentation import RandomPairAffine
from bundle.data.check import check_data, image_problems
from bundle.data.datalist import read_datalist, select_pairs, write_datalist
from bundle.data.pairs import PreparePair, collate_episodes, join_pair, split_pair
from bundle.data.preprocessing import CheckPaird, InitialAlignmentd, LabelChannelsd, SmoothToSpacingd, Timed
from bundle.data.simulation import simulate_dataset

__all__ = [
    "CheckPaird",
    "InitialAlignmentd",
    "LabelChannelsd",
    "PreparePair",
    "RandomPairAffine",
    "SmoothToSpacingd",
    "Timed",
    "check_data",
    "collate_episodes",
    "image_problems",
    "join_pair",
    "read_datalist",
    "select_pairs",
    "simulate_dataset",
    "split_pair",
    "write_datalist",
]
