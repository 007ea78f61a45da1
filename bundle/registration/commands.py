"""Another registration program in place of the network: a command that reads two images and writes a transform."""

from __future__ import annotations

import math
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from torch import nn

from bundle.data import images_of, split_pair
from bundle.formats import read_transform, save_image
from bundle.geometry import apply_affine, voxel_grid
from bundle.registration.adaptation import one_by_one
from bundle.system import brief
from bundle.system.fingerprints import programs_of

FIELDS = ("{fixed}", "{moving}", "{output}")
THREADS = ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
"""Environment variables that tell programs how many threads to use: as many as torch uses here."""


class CommandInferer(Inferer):
    """Register every pair with a command, such as ANTs, so that the same code measures it on the same pairs.

    The command gets the two images as the network would: initially aligned, on one grid, in [0, 1], as NIfTI. It writes
    a transform that leads from fixed points to moving ones, in a format of ``bundle.formats.read_transform``. The given
    network is not used.

    Args:
        command: program and arguments, a list or a line as in a shell. ``{fixed}`` and ``{moving}`` become the files of
            the images, ``{output}`` a path without a suffix for what the command writes.
        loss: rates the result, with the terms ``"loss"`` and ``"similarity"``.
        pixdim: spacing of the pair's grid, mm.
        transforms: files that the command writes; a fixed point passes through them in this order.
        minutes: longest time of one pair, after which the command and what it started are ended; None is no limit.

    Raises:
        ValueError: when the command lacks one of the three fields.
    """

    does_not_count = ("minutes",)  # a result that is there took less

    def __init__(
        self,
        command: str | Sequence[str],
        loss: nn.Module,
        pixdim: float,
        transforms: Sequence[str] = ("{output}.nii.gz",),
        minutes: float | None = None,
    ) -> None:
        super().__init__()
        self.command = shlex.split(command) if isinstance(command, str) else [str(part) for part in command]
        self.programs = programs_of(self.command)  # an edited program leads to other results
        missing = [field for field in FIELDS if not any(field in part for part in self.command)]
        if missing:
            raise ValueError(f"the command {' '.join(self.command)!r} lacks {', '.join(missing)}")
        self.loss = loss
        self.pixdim = pixdim
        self.transforms = list(transforms)
        self.minutes = minutes

    def __call__(
        self, inputs: torch.Tensor, network: nn.Module, *args: Any, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Register a batch of pairs.

        Args:
            inputs: joined pairs ``(batch, 2 * channels, X, Y, Z)``.
            network: not used.
            args: not supported.
            labels: joined labels for a loss with a label term.
            kwargs: not supported.

        Returns:
            As ``AdaptationInferer``, without the entries about steps. ``seconds`` include writing the images and
            reading the transform.

        Raises:
            ValueError: for slices, and when the command fails, takes too long, or writes no transform that can be read
                or that has a finite loss.
        """
        if args or kwargs:
            raise ValueError("CommandInferer takes a joined pair, a network and labels, nothing else")
        if inputs.ndim != 5:
            raise ValueError("a command registers volumes; register slices by the network")
        return one_by_one(self._register, inputs, labels)

    def _register(self, pair: torch.Tensor, labels: torch.Tensor | None) -> dict[str, torch.Tensor]:
        start = time.perf_counter()
        ddf = self._ddf(pair)
        seconds = time.perf_counter() - start
        with torch.no_grad():
            before, after = (self.loss(field, pair, labels) for field in (torch.zeros_like(ddf), ddf))
        if not after["loss"].isfinite():
            raise ValueError(
                f"the transform of {self.command[0]} has a loss of {after['loss'].item():g}, expected a number; "
                "if the images have masks, it moves them apart: leave them out, or look at what it does"
            )
        return {
            "ddf": ddf,
            "losses": after["loss"].reshape(1, 1),
            "loss_identity": before["loss"][None],
            "seconds": torch.tensor([seconds]),
            "step_seconds": torch.tensor([math.nan]),
            "similarity": torch.stack([before["similarity"], after["similarity"]])[None],
        }

    def _ddf(self, pair: torch.Tensor) -> torch.Tensor:
        """Field of one pair, ``u(x) = A^-1 T(A x) - x`` in voxels, with ``A`` the affine of the grid."""
        affine = np.diag([self.pixdim] * 3 + [1.0])
        voxels = voxel_grid(pair.shape[2:])
        with tempfile.TemporaryDirectory() as folder:
            paths = {"output": str(Path(folder) / "output")}
            for side, image in zip(("moving", "fixed"), split_pair(images_of(pair)), strict=True):
                paths[side] = str(Path(folder) / f"{side}.nii.gz")
                save_image(image[0].cpu().numpy(), affine, np.dtype(np.float32), paths[side])
            self._run(paths)
            points = apply_affine(affine, voxels)
            for name in self.transforms:
                try:
                    points = read_transform(filled(name, paths))(points)
                except FileNotFoundError as error:
                    raise ValueError(
                        f"{self.command[0]} wrote no {name}; name the files that it writes as transforms"
                    ) from error
        return (apply_affine(np.linalg.inv(affine), points) - voxels)[None].to(pair)

    def _run(self, paths: dict[str, str]) -> None:
        """Run the command, with as many threads as torch uses."""
        environment = {**os.environ, **dict.fromkeys(THREADS, str(torch.get_num_threads()))}
        try:
            done, said = self._finished([filled(part, paths) for part in self.command], environment)
        except OSError as error:
            raise ValueError(
                f"cannot run {self.command[0]} ({brief(error)}); is it installed and on the PATH?"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise ValueError(
                f"{self.command[0]} was ended after {self.minutes:g} minutes; "
                "see why it hangs, or give it more by command_minutes"
            ) from error
        if done:
            last = (said.strip().splitlines() or ["without a word"])[-1]
            raise ValueError(f"{self.command[0]} failed with status {done}: {last}")

    def _finished(self, command: list[str], environment: dict[str, str]) -> tuple[int, str]:
        """Status of a command and what it said; if it takes too long or the run is stopped, all it started is ended."""
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # with a group of its own, that programs which it starts belong to
        ) as running:
            try:
                said, _ = running.communicate(timeout=None if self.minutes is None else 60 * self.minutes)
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(running.pid, signal.SIGKILL)
                raise
        return running.returncode, said


def filled(text: str, paths: dict[str, str]) -> str:
    """A part of a command with paths in place of its fields; other braces stay."""
    for name, path in paths.items():
        text = text.replace(f"{{{name}}}", path)
    return text
