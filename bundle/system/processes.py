"""The processes of a run: one, unless ``torchrun`` started more. Every room may use this file; it uses none of them.

Without a process group, every function behaves as in a group of one process.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import cycle, islice, zip_longest
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from ignite import distributed as idist
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from bundle.system.threads import CHOSEN_BY_USER, allowed_cores, started

Item = TypeVar("Item")

MISSING = object()


def count() -> int:
    """Number of processes that have joined."""
    return idist.get_world_size()


def number() -> int:
    """Number of this process, from 0."""
    return idist.get_rank()


def is_first() -> bool:
    """Whether this process writes what only one process may write."""
    return number() == 0


def device() -> torch.device:
    """The GPU of this process, by its number on this machine; the CPU where there are no GPUs.

    Raises:
        ValueError: when the machine has fewer GPUs than processes.
    """
    local, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if gpus and local >= gpus:
        raise ValueError(
            f"process {local + 1} of this machine has no GPU of its own, there are {gpus}; "
            f"expected {gpus} processes or fewer"
        )
    return torch.device("cuda", local) if gpus else torch.device("cpu")


def check_device(device: Any) -> None:
    """Refuse a device that this machine does not have.

    Args:
        device: its name, such as ``cuda:0``, or a ``torch.device``.

    Raises:
        ValueError: saying what there is.
    """
    gpus = torch.cuda.device_count()
    there = " or ".join(["cpu", *(f"cuda:{k}" for k in range(gpus))])
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device is {device!r}; expected {there}") from error
    if found.type == "cuda" and (found.index or 0) >= gpus:
        raise ValueError(f"device is {found}, and torch finds {gpus or 'no'} GPU here; expected {there}")


def only_deterministic(wanted: bool) -> None:
    """Make torch use only operations that give the same bits in every run, in the whole process; False changes nothing.

    Torch would refuse the gradient of ``grid_sample`` on a GPU, but its order of sums varies only for the gradient of
    the image, and here only fields have gradients. So torch is told to warn instead, and the warning is hidden.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads this when it is first used
        warnings.filterwarnings("ignore", message="grid_sampler_[23]d_backward_cuda does not have a deterministic")
        torch.use_deterministic_algorithms(True, warn_only=True)


def launch(processes: int, words: Sequence[str]) -> None:
    """Run ``python -m bundle`` in several processes of this machine, by the launcher of ``torchrun``.

    They divide the cores, unless ``OMP_NUM_THREADS`` says otherwise. A signal goes on to all of them, and if one fails,
    the others are ended.

    Args:
        processes: how many.
        words: the command line after the program's name, the same for each.

    Raises:
        ValueError: for fewer than one, or more than one for each GPU or, without any, for each core.
        SystemExit: with the exit code of the first that failed, which has said why.
    """
    gpus = torch.cuda.device_count()
    most = gpus or max(1, int(allowed_cores()))
    if not 1 <= processes <= most:
        raise ValueError(f"--processes is {processes}; expected 1 to {most}, one for each {'GPU' if gpus else 'core'}")
    os.environ.setdefault(CHOSEN_BY_USER, str(max(1, int(allowed_cores() / processes))))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the process has said what was wrong
    config = LaunchConfig(
        1, 1, processes, run_id="bundle", rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0
    )
    try:
        elastic_launch(config, sys.executable)("-m", "bundle", *words)
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        sys.exit(first.exitcode if first.exitcode > 0 else 128 - first.exitcode)
    except SignalException as stopped:
        sys.exit(128 + int(stopped.sigval))


def join(device: torch.device, minutes: float, quiet: bool = False) -> None:
    """Join the processes that ``torchrun`` started, if it did: NCCL for GPUs, gloo for CPUs.

    Args:
        device: where this process computes.
        minutes: how long it waits for the slowest process before it gives up.
        quiet: only the first process logs its progress; the others log warnings and errors.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "RANK" in os.environ:
        # Not by ignite, which would take the process number from SLURM although torchrun has set it.
        dist.init_process_group(dist.get_default_backend_for_device(device), timeout=timedelta(minutes=minutes))
        idist.sync()
    if quiet and not is_first():
        logging.disable(logging.INFO)


def leave() -> None:
    """Leave the group that ``join`` entered."""
    idist.finalize()


def check_joined() -> None:
    """Refuse processes that would all do the whole run in one folder.

    Raises:
        ValueError: when ``torchrun`` started several and the configuration does not join them.
    """
    if started() > count():
        raise ValueError(
            f"{started()} processes were started, and the configuration does not join them; "
            "expected configs/overlays/multi_gpu_train.yaml or multi_gpu_inference.yaml in --config_file, or in "
            "--config of python -m bundle train"
        )


def check_alone() -> None:
    """Refuse several processes where one does the whole run.

    Raises:
        ValueError: when ``torchrun`` started several.
    """
    if started() > 1:
        raise ValueError(
            f"{started()} processes were started, and a map network is trained by one; start it without torchrun, "
            "other folds beside it with their own --device and --output_dir"
        )


def share(items: Sequence[Item], even: bool = False) -> list[Item]:
    """The items of this process: items are dealt to the processes in turn.

    Args:
        items: the same in every process.
        even: deal the first items again until every process has equally many.
    """
    again = islice(cycle(items), -len(items) % count() if even else 0)
    return [*items, *again][number() :: count()]


def place(turn: int) -> int:
    """Place, from 0, in the whole list of the item that ``share`` deals to this process in a turn."""
    return number() + turn * count()


def gather(own: Sequence[Item]) -> list[Item]:
    """Results of all processes, in the order in which ``share`` dealt the items. Every process has to call it."""
    shares: Any = idist.all_gather(list(own))
    return [item for turn in zip_longest(*shares, fillvalue=MISSING) for item in turn if item is not MISSING]


def from_first(make: Callable[[], Item]) -> Item:
    """The result of a function in the first process, given to all. Every process has to call it."""
    content = [make() if is_first() else None]
    if count() > 1:  # ignite's broadcast takes tensors and texts only
        dist.broadcast_object_list(content, src=0)
    return content[0]  # type: ignore[return-value]


def total(tensor: torch.Tensor) -> torch.Tensor:
    """Sum of the processes' tensors. Every process has to call it."""
    return idist.all_reduce(tensor)


def start_alike(network: torch.nn.Module) -> None:
    """Give every process's network the weights and buffers of the first. Every process has to call it."""
    for tensor in network.state_dict().values():
        tensor.copy_(idist.broadcast(tensor))


def is_first_to_fail() -> bool:
    """Whether this process is the first to ask: the others fail because one did, and need not report it."""
    if started() == 1:
        return True
    try:
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            timeout=timedelta(seconds=5),
            wait_for_workers=False,
        )
        return store.add("bundle/failed", 1) == 1
    except (RuntimeError, KeyError):  # nobody is left to ask
        return True
