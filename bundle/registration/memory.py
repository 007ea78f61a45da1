"""Estimate how much memory a registration will take before it starts, and give threads turns on a device."""

from __future__ import annotations

import math
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

# Torch has no public way to run without values; its own counters of memory and operations use these functions.
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from bundle.system.limits import size

GIB = 2**30
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
SPARE_BYTES_PER_VOXEL = 4000
"""More than a step of LocalNet with 32 channels takes: if this much is free, nothing needs to be estimated."""
KERNEL_BYTES_PER_VOXEL, KERNEL_SHARE = 170, 0.2
"""Memory that kernels take beyond the tensors, as shares of the pair's voxels and of the tensors.

Fitted to the peak memory of LocalNet with 8, 16 and 32 channels on a CPU, and right within 10 %; up to a quarter too
much for what ships, with maps and without."""


_changed = threading.Condition()
_running: Counter[str] = Counter()


class TensorMeter(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive at the same time within this context.

    Attributes:
        peak: largest number so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count the storage that it allocated."""
        output = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self._known:
                storage = tensor.untyped_storage()
                self._known[storage] = True
                self._count(storage.nbytes())
                weakref.finalize(storage, self._count, -storage.nbytes())
        self.peak = max(self.peak, self._now)
        return output

    def _count(self, count: int) -> None:
        self._now += count


def peak_bytes(call: Callable[[torch.Tensor], Any], pair: torch.Tensor) -> int:
    """Memory that a call will take, from tensors without values; this costs a second, and no memory.

    Args:
        call: what is done with a pair; followed until it first reads a value, or picks voxels by theirs.
        pair: joined pair ``(batch, 2, *shape)``.
    """
    meter = TensorMeter()
    unknown = DataDependentOutputException, DynamicOutputShapeException
    with suppress(*unknown), FakeTensorMode(allow_non_fake_inputs=True), meter:
        call(torch.empty(pair.shape, dtype=pair.dtype, device=pair.device))
    return int((1 + KERNEL_SHARE) * meter.peak + KERNEL_BYTES_PER_VOXEL * pair[:, 0].numel())


def free_bytes(device: torch.device) -> int:
    """Free memory of a device; for the CPU, what the machine and a container around it have left."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    free = math.inf
    with suppress(OSError, StopIteration):
        free = 1024 * _entry(MEMINFO, "MemAvailable:")
    with suppress(OSError, StopIteration, ValueError):
        limit, used = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        # Files that were read are kept in memory, and count as used, until something else needs it.
        free = min(free, limit - used + _entry(CGROUP / "memory.stat", "inactive_file"))
    return int(min(free, 2**62))


def _entry(path: Path, name: str) -> int:
    """The number behind a name in a file of the kernel."""
    lines = (line.split() for line in path.read_text().splitlines())
    return next(int(words[1]) for words in lines if words[:1] == [name])


def check_memory(call: Callable[[torch.Tensor], Any], pair: torch.Tensor, limit_gib: float | None) -> None:
    """Refuse a registration that would not fit, before it fills the memory.

    Args:
        call: the registration, as in ``peak_bytes``.
        pair: joined pair ``(batch, 2, *shape)``.
        limit_gib: memory that it may take; None for all that is free.

    Raises:
        ValueError: with the estimate, and a spacing, or a size of slices, that would fit.
    """
    free = free_bytes(pair.device) if limit_gib is None else int(limit_gib * GIB)
    if pair[:, 0].numel() * SPARE_BYTES_PER_VOXEL < free:
        return
    needed = peak_bytes(call, pair)
    if needed > free:
        coarser = math.ceil(20 * (needed / max(free, 1)) ** (1 / (pair.ndim - 2))) / 20
        volumes = f"a pixdim {coarser:g} times as large (cpu.yaml takes 2.4 mm)"
        grid = volumes if pair.ndim == 5 else f"a spatial_size {coarser:g} times as small"  # slices are resized
        raise ValueError(
            f"registering {size(pair.shape[2:])} voxels takes about {needed / GIB:.1f} GiB, of which {free / GIB:.1f} "
            f"are free; take {grid}, or a machine with more memory"
        )


@contextmanager
def turn(device: torch.device, at_once: int) -> Iterator[None]:
    """Wait until fewer than ``at_once`` threads have their turn on a device, then take one."""
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
