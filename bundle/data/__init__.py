"""What a pair is and where it comes from: datalists, layouts, splits, checks, preprocessing, augmentation."""

from typing import TYPE_CHECKING

from bundle.system.on_demand import on_demand

if TYPE_CHECKING:
    from bundle.data.augmentation import RandomPairAffine
    from bundle.data.check import check_data
    from bundle.data.datalist import announce, read_datalist, write_datalist
    from bundle.data.field_of_view import FieldOfViewMaskd
    from bundle.data.fitness import (
        CheckedPairs,
        CheckPaird,
        check_headers,
        check_labels_alike,
        check_shared_values,
        parts_on_grid,
    )
    from bundle.data.images import read_folds, read_images
    from bundle.data.label_channels import LabelChannelsd, structure_mask, values_of
    from bundle.data.layouts import SECTIONS, SIDES, stem
    from bundle.data.pairing import check_mixture, of_kinds, pair_kind
    from bundle.data.pairs import (
        PreparePair,
        Timed,
        collate_episodes,
        images_of,
        is_picture,
        join_pair,
        seen_of,
        side_tensor,
        split_pair,
    )
    from bundle.data.preprocessing import InitialAlignmentd, IsotropicGridd, RobustIntensityd, SmoothToSpacingd
    from bundle.data.splits import require, select_pairs, tell_one_sided
    from bundle.data.structures import Correspondence, by_name, corresponding, one_patient
    from bundle.data.validation import default_names
else:
    __getattr__, __dir__ = on_demand(__name__, __file__)

__all__ = [
    "CheckPaird",
    "CheckedPairs",
    "Correspondence",
    "FieldOfViewMaskd",
    "InitialAlignmentd",
    "IsotropicGridd",
    "LabelChannelsd",
    "PreparePair",
    "RandomPairAffine",
    "RobustIntensityd",
    "SECTIONS",
    "SIDES",
    "SmoothToSpacingd",
    "Timed",
    "announce",
    "by_name",
    "check_data",
    "check_headers",
    "check_labels_alike",
    "check_mixture",
    "check_shared_values",
    "collate_episodes",
    "corresponding",
    "default_names",
    "images_of",
    "is_picture",
    "join_pair",
    "of_kinds",
    "one_patient",
    "pair_kind",
    "parts_on_grid",
    "read_datalist",
    "read_folds",
    "read_images",
    "require",
    "seen_of",
    "select_pairs",
    "side_tensor",
    "split_pair",
    "stem",
    "structure_mask",
    "tell_one_sided",
    "values_of",
    "write_datalist",
]
