"""Which pair to check next."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.tasks.strategy import Strategy

from bundle.apps.label.candidates import Candidate, candidates
from bundle.apps.label.datastore import Images
from bundle.apps.label.errors import ClientError
from bundle.apps.label.registrar import Registrar

logger = logging.getLogger(__name__)


class LargestLoss(Strategy):
    """Propose the pair that registration fits worst: the largest loss after adaptation.

    Fixed images that no person has labelled come first, and among them those not proposed yet. Losses come from past
    requests; every proposal computes a few missing ones, so that the server never registers all pairs at once.

    Args:
        registrar: registrar of the server.
        images: images of the datastore.
        at_once: most pairs that one proposal registers.
    """

    NAME = "largest_loss"

    def __init__(self, registrar: Registrar, images: Images, at_once: int = 4) -> None:
        super().__init__("The pair with the largest loss after adaptation, worst first")
        self.registrar = registrar
        self.images = images
        self.at_once = at_once
        self.refused: set[tuple[str, str]] = set()

    def __call__(self, request: Mapping[str, Any], datastore: object) -> dict[str, Any] | None:
        """Propose a pair.

        Args:
            request: not used.
            datastore: datastore of the images.

        Returns:
            ``id`` of the fixed image, ``moving`` (id), ``loss``; None while no pair that was tried can be registered.
        """
        found = candidates(self.images, self.NAME)
        origin = self.registrar.origin
        losses = self.registrar.record.losses(origin)
        missing = [each for each in found if each.pair not in losses]
        # One image that cannot be read is a partner of all others: its pairs wait until nothing else is to be done.
        for candidate in sorted(missing, key=lambda each: each.pair in self.refused)[: self.at_once]:
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
            self.refused.add(candidate.pair)
            logger.warning("a pair cannot be registered (%d); it is not proposed", error.status)
