"""Threads of one process take turns on a device, so that its memory is not asked for by all of them at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_changed = threading.Condition()
_running: Counter[str] = Counter()


@contextmanager
def turn(device: torch.device, at_once: int) -> Iterator[None]:
    """Wait until fewer than ``at_once`` threads have their turn on a device, then be one of them."""
    name = str(device)
    with _changed:
        _changed.wait_for(lambda: _running[name] < at_once)
        _running[name] += 1
    try:
        yield
    finally:
        with _changed:
            _running[name] -= 1
            _changed.notify_all()
