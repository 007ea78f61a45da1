"""The losses of registered pairs, from which the next pair to check is chosen."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from bundle.system import written_whole

Pair = tuple[str, str]
"""Ids of the fixed and the moving image."""


class LossRecord:
    """Loss after adaptation of pairs, and which moving image was proposed with a fixed one; kept in a file.

    Losses can be compared only if they come from the same weights and settings; others are forgotten.

    Args:
        path: the file; a damaged one is replaced by a new one, since every loss can be computed again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.origin, self.found, self.moving = self._read()

    def _read(self) -> tuple[str, dict[Pair, float], dict[str, str]]:
        try:
            content = json.loads(self.path.read_text())
            losses = {(fixed, moving): float(loss) for fixed, moving, loss in content["losses"]}
            return str(content["origin"]), losses, dict(content["proposed"])
        except (OSError, ValueError, KeyError, TypeError):
            return "", {}, {}

    def losses(self, origin: str) -> dict[Pair, float]:
        """Losses by pair.

        Args:
            origin: text that identifies the weights and settings.
        """
        with self.lock:
            return dict(self.found) if origin == self.origin else {}

    def add(self, origin: str, pair: Pair, loss: float) -> None:
        """Record the loss of a pair."""
        with self.lock:
            if origin != self.origin:
                self.origin, self.found = origin, {}
            self.found[pair] = loss
            self._write()

    def propose(self, pair: Pair) -> None:
        """Record that a pair was proposed, so that a request need not name its moving image."""
        with self.lock:
            self.moving[pair[0]] = pair[1]
            self._write()

    def proposed(self, fixed: str) -> str:
        """Moving image that was last proposed with a fixed one; empty if there was none."""
        with self.lock:
            return self.moving.get(fixed, "")

    def _write(self) -> None:
        losses = [[*pair, loss] for pair, loss in self.found.items()]
        with written_whole(self.path) as file:
            json.dump({"origin": self.origin, "losses": losses, "proposed": self.moving}, file, indent=1)
