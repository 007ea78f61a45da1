"""Which pair to check next."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monailabel.interfaces.tasks.strategy import Strategy

from bundle.apps.label.datastore import Images
from bundle.apps.label.errors import ClientError
from bundle.apps.label.registrar import Registrar
from bundle.apps.label.request import FINAL

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A pair that may be proposed.

    Attributes:
        pair: ids of the fixed and the moving image.
        proposed: when the fixed image was last proposed, seconds since 1970; 0 for never.
        rank: of the moving image among the partners of the fixed one.
    """

    pair: tuple[str, str]
    proposed: int
    rank: int


def candidates(images: Images, strategy: str) -> list[Candidate]:
    """Pairs whose fixed image waits for a person, those to register first in front.

    Of the partners of a fixed image those of the same patient come first, then those that have a label to carry over.
    Every fixed image gets its first partner before any gets its second.

    Args:
        images: of the datastore.
        strategy: whose proposals count.
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


class LargestLoss(Strategy):
    """Propose the pair that registration fits worst: the largest loss after adaptation.

    Fixed images that no person has labelled come first, and those that were not proposed yet before those that were.
    Losses are those of past requests; a few that are missing are computed with every proposal, so that the server
    never registers all pairs at once.

    Args:
        registrar: of the server.
        images: of the datastore.
        at_once: most pairs that one proposal registers.
    """

    NAME = "largest_loss"

    def __init__(self, registrar: Registrar, images: Images, at_once: int = 4) -> None:
        super().__init__("The pair with the largest loss after adaptation, worst first")
        self.registrar = registrar
        self.images = images
        self.at_once = at_once

    def __call__(self, request: Mapping[str, Any], datastore: object) -> dict[str, Any] | None:
        """Propose a pair.

        Args:
            request: not used.
            datastore: the one of the images.

        Returns:
            ``id`` of the fixed image, ``moving`` (id), ``loss``; None when no two images can be registered.
        """
        found = candidates(self.images, self.NAME)
        origin = self.registrar.origin
        missing = [each for each in found if each.pair not in self.registrar.record.losses(origin)]
        for candidate in missing[: self.at_once]:
            self._register(candidate)
        losses = self.registrar.record.losses(origin)
        known = [each for each in found if each.pair in losses]
        if not known:
            return None
        worst = min(known, key=lambda each: (each.proposed, -losses[each.pair], each.pair))
        self.registrar.record.propose(worst.pair)
        fixed, moving = worst.pair
        return {"id": fixed, "moving": moving, "loss": losses[worst.pair]}

    def _register(self, candidate: Candidate) -> None:
        fixed, moving = candidate.pair
        try:
            self.registrar(candidate.pair, self.images.file(fixed, "fixed"), self.images.file(moving, "moving"))
        except ClientError as error:
            logger.warning("a pair cannot be registered (%d); it is not proposed", error.status)
