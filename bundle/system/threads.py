"""How many processes and threads a run has: a thread for every core that is not busy."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

STAT, QUOTA = Path("/proc/stat"), Path("/sys/fs/cgroup/cpu.max")
CHOSEN_BY_USER = "OMP_NUM_THREADS"
WATCHED = 0.2
"""Seconds for which the cores are watched."""


def started() -> int:
    """How many processes ``torchrun`` started, whether or not they have joined."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


def choose_threads() -> int:
    """Let torch use one thread for every idle core, at least one, and say so if it would have used more.

    torch takes as many threads as there are cores. If other programs keep some of them busy, its threads wait for each
    other at every operation, and a step takes many times as long as with fewer threads. ``OMP_NUM_THREADS`` decides
    instead where it is set.

    Returns:
        The number before, which the end of the run sets again: the next run of this process chooses anew.
    """
    import torch  # which takes a second

    usual = torch.get_num_threads()
    if CHOSEN_BY_USER in os.environ or usual == 1:
        return usual
    idle = idle_cores()
    chosen = max(1, min(usual, math.floor(allowed_cores()), usual if idle is None else round(idle)))
    if chosen < usual:
        torch.set_num_threads(chosen)
        print(f"using {chosen} of {usual} threads: no more cores are free ({CHOSEN_BY_USER} sets another number)")
    return usual


def idle_cores() -> float | None:
    """Average number of idle cores over a moment; None if the system does not tell."""
    start, before = time.monotonic(), _idle_seconds()
    if before is None:
        return None
    time.sleep(WATCHED)
    after = _idle_seconds()
    return None if after is None else (after - before) / (time.monotonic() - start)


def _idle_seconds() -> float | None:
    """Time for which all cores together have been idle or waited for a disk."""
    try:
        _, _, _, _, idle, waiting, *_ = STAT.read_text().split(maxsplit=7)
        return (int(idle) + int(waiting)) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None


def allowed_cores() -> float:
    """Cores that this process may use: those of its affinity, fewer if its container has a smaller share."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, period = map(int, QUOTA.read_text().split())
        return max(1.0, min(cores, quota / period))
    except (OSError, ValueError):  # no container, or "max"
        return cores
