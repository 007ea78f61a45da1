"""The weights that the server registers with."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bundle.maps import copy_weights


class ServedWeights:
    """Weights in a folder: those that training has published, else those that the server was started with.

    Args:
        folder: where published weights are, ``model.pt``, and those before them, ``model_previous.pt``.
        start: weights until then.
    """

    def __init__(self, folder: Path, start: Path) -> None:
        self.published = folder / "model.pt"
        self.previous = folder / "model_previous.pt"
        self.start = start

    @property
    def path(self) -> Path:
        """File of the weights that are served now."""
        return self.published if self.published.exists() else self.start

    def digest(self) -> str:
        """Text that stands for the weights that are served now."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()[:16]

    def publish(self, weights: Path) -> None:
        """Serve other weights from the next request on, and keep the ones before.

        Args:
            weights: file that is copied.

        Raises:
            OSError: when it cannot be written; the weights before are still served.
        """
        # The ones before are copied rather than moved: at no time is there nothing to serve.
        for source, target in ((self.path, self.previous), (weights, self.published)):
            copy_weights(source, target)
