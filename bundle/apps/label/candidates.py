"""Pairs of a datastore that may be proposed for a check."""

from __future__ import annotations

from dataclasses import dataclass

from bundle.apps.label.datastore import Images
from bundle.apps.label.request import FINAL


@dataclass(frozen=True)
class Candidate:
    """A pair that may be proposed.

    Attributes:
        pair: ids of the fixed and the moving image.
        proposed: when the fixed image was last proposed, in seconds since 1970; 0 for never.
        rank: rank of the moving image among the partners of the fixed one.
    """

    pair: tuple[str, str]
    proposed: int
    rank: int


def candidates(images: Images, strategy: str) -> list[Candidate]:
    """Pairs whose fixed image waits for a person, in the order in which to register them.

    Among the partners of a fixed image, those of the same patient come first, then those with a label to carry over.
    Every fixed image gets its first partner before any gets its second.

    Args:
        images: images of the datastore.
        strategy: strategy whose proposals count.
    """
    patients, store = images.patients(), images.store
    waiting = store.get_unlabeled_images() or store.list_images()
    found = []
    for fixed in waiting:
        others = sorted(
            (other for other in patients if other != fixed),
            key=lambda other: (
                patients[other] != patients.get(fixed),
                FINAL not in store.get_labels_by_image_id(other),
                other,
            ),
        )
        proposed = int(store.get_image_info(fixed).get("strategy", {}).get(strategy, {}).get("ts", 0))
        found += [Candidate((fixed, moving), proposed, rank) for rank, moving in enumerate(others)]
    return sorted(found, key=lambda each: (each.proposed, each.rank, each.pair))
