"""Test-time adaptation as a MONAI inferer, for a network or a bare displacement field."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import repeat
from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn
from torch.optim import Optimizer

from bundle.registration.adaptation import (
    INITIAL_ALIGNMENT,
    STOPPED,
    BestState,
    OptimizerFactory,
    check_finite,
    inner_loop,
    one_by_one,
)
from bundle.registration.memory import check_memory, turn
from bundle.registration.networks import RegistrationNetwork

Correction = Callable[[nn.Module, torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]
"""Network before the steps, joined pair -> what is done to a DDF of the pair."""


class AdaptationInferer(Inferer):
    """Adapt a copy of the network to every pair, then predict its DDF (Baum et al. 2022, section 3.1).

    The result is the DDF with the lowest finite loss among the start and the states after each step. So steps that make
    the loss worse, or numbers that are no longer finite, cost only their time. If the initial alignment has a lower
    loss than all of these states, nothing moves: ``u = 0``. Similar images and a smooth field do not overrule anatomy,
    though: with an anatomy term, that of the initial alignment must be as low as that of the start, which has not
    followed any errors of the maps yet. Switch this off for a network that knows more than the loss, such as one
    trained with labels whose steps follow image similarity alone.

    Each pair of a batch is adapted on its own, from the same start, so no result depends on another.

    Args:
        loss: the label-free objective of the steps, with the terms ``"loss"`` and ``"similarity"``.
        optimizer: parameters -> optimiser, with the settings of meta-training's inner loop.
        steps: gradient steps per pair; 0 uses the network as it is.
        tolerance: stop early once a step lowers the loss by less than this fraction; None never stops early.
        memory_gib: memory that a pair may take; None for all that is free on the device.
        at_once: how many threads of this process may adapt on one device at a time; the others wait.
        keep_alignment: whether the initial alignment is the result if its loss is the lowest.
        correction: (network, pair) -> what is done to the DDFs of the network, at the start and after each step
            (``FieldCorrection``); None for nothing.
    """

    does_not_count = ("memory_gib", "at_once")  # a result that is there is the same whatever it was allowed to take

    def __init__(
        self,
        loss: nn.Module,
        optimizer: OptimizerFactory,
        steps: int = 5,
        tolerance: float | None = None,
        memory_gib: float | None = None,
        at_once: int = 1,
        keep_alignment: bool = True,
        correction: Correction | None = None,
    ) -> None:
        super().__init__()
        if steps < 0:
            raise ValueError(f"steps is {steps}; expected 0 (no adaptation) or more")
        if at_once < 1:
            raise ValueError(f"at_once is {at_once}; expected 1 thread or more")
        self.loss = loss
        self.optimizer = optimizer
        self.steps = steps
        self.tolerance = tolerance
        self.memory_gib = memory_gib
        self.at_once = at_once
        self.keep_alignment = keep_alignment
        self.correction = correction

    def __call__(
        self,
        inputs: torch.Tensor,
        network: nn.Module,
        *args: Any,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """Register a batch of pairs.

        Args:
            inputs: joined pairs ``(batch, 2, *shape)``, or ``(batch, 4, *shape)`` with masks.
            network: joined pair -> DDF.
            args: not supported.
            labels: joined labels ``(batch, 2 * structures, *shape)`` for a loss with a label term, which only
                ``PreparePair(adapt_to_labels=True)`` passes on.
            kwargs: not supported.

        Returns:
            A dictionary. ``ddf`` ``(batch, dims, *shape)`` in voxels, and ``inverse_ddf`` for a velocity field
                without a correction.
            ``losses`` ``(batch, steps + 1)``, before each step and after the last one, NaN for steps not taken.
            ``loss_identity`` ``(batch,)``, the loss without any displacement.
            ``best_step`` ``(batch,)``, the state that gave ``ddf``, an index of ``losses`` or ``INITIAL_ALIGNMENT``.
            ``stopped`` ``(batch,)``, an index of ``STOPPED``.
            ``seconds`` ``(batch,)`` per pair.
            ``step_seconds`` ``(batch,)``, the adaptation's share of them per gradient step taken, NaN without a step.
            ``similarity`` ``(batch, 2)``, the loss's similarity term without any displacement and with ``ddf``.

        Raises:
            ValueError: when given more than a pair and a network, or a pair that does not fit into the memory.
            FloatingPointError: when the loss of the start is not finite.
        """
        if args or kwargs:
            raise ValueError("AdaptationInferer takes a joined pair, a network and labels, nothing else")
        with turn(inputs.device, self.at_once):
            return one_by_one(partial(self._register, network=network), inputs, labels)

    def _register(self, pair: torch.Tensor, labels: torch.Tensor | None, network: nn.Module) -> dict[str, torch.Tensor]:
        start = time.perf_counter()
        with torch.inference_mode(False):
            # What is made in inference mode cannot take part in a gradient; its copy can.
            pair = pair.clone()
            labels = labels if labels is None else labels.clone()
            network, optimizer = self._start(network, pair)
            check_memory(lambda pair: self._one_step(pair, labels, network, optimizer), pair, self.memory_gib)
            corrected = self.correction(network, pair) if self.correction else nn.Identity()
        best, versions = BestState(), repeat((pair, labels), self.steps)
        ddf: torch.Tensor | None = None

        def loss(predicted: torch.Tensor, *rest: Any) -> dict[str, torch.Tensor]:
            return self.loss(corrected(predicted), *rest)

        with closing(inner_loop(network, loss, optimizer, versions)) as states:
            for state in states:
                terms = state.terms
                if not terms:
                    # Reading a value waits for the device, so the clock measures work done, not work queued.
                    best.losses.tolist()
                    adapted = time.perf_counter()
                    with torch.no_grad():
                        ddf = corrected(state.network(pair))
                        terms = self.loss(ddf, pair, labels)
                best.visit(state.network, terms["loss"])
                if best.visited == 1:
                    anatomy = _anatomy(terms)
                if self.tolerance is not None and best.stalls(self.tolerance):
                    adapted = time.perf_counter()
                    break
        check_finite(best.losses[:1])
        taken = best.taken
        with torch.no_grad():
            if best.stopped or best.step < taken:
                best.restore(state.network)
                ddf = None
            if ddf is None:
                ddf = corrected(state.network(pair))
                terms = self.loss(ddf, pair, labels)
            losses = pair.new_full((1, self.steps + 1), torch.nan)
            losses[0, : len(best.losses)] = best.losses
            outputs = {"ddf": ddf}
            own_inverse = self.correction is None
            if own_inverse and isinstance(state.network, RegistrationNetwork) and state.network.integration_steps:
                outputs["inverse_ddf"] = state.network.inverse(pair)
            identity = self.loss(torch.zeros_like(ddf), pair, labels)
        if not terms["loss"].isfinite():
            check_finite(best.losses)
        best_step = best.step
        if self.keep_alignment and _whole(identity) < _whole(terms) and _anatomy(identity) <= anatomy:
            outputs = {name: torch.zeros_like(field) for name, field in outputs.items()}
            terms, best_step = identity, INITIAL_ALIGNMENT
        return {
            **outputs,
            "losses": losses,
            "loss_identity": identity["loss"][None],
            "best_step": torch.tensor([best_step]),
            "stopped": torch.tensor([STOPPED.index(best.stopped)]),
            "seconds": torch.tensor([time.perf_counter() - start]),
            "step_seconds": torch.tensor([(adapted - start) / taken if taken else math.nan]),
            "similarity": torch.stack([identity["similarity"], terms["similarity"]])[None],
        }

    def _start(self, network: nn.Module, pair: torch.Tensor) -> tuple[nn.Module, OptimizerFactory]:
        """From what the steps on a pair start, and by which optimiser."""
        return network, self.optimizer

    def _one_step(
        self, pair: torch.Tensor, labels: torch.Tensor | None, network: nn.Module, optimizer: OptimizerFactory
    ) -> None:
        """One gradient step, which takes the most memory, and the prediction after it; no value is read."""
        *_, last = inner_loop(network, self.loss, optimizer, repeat((pair, labels), min(self.steps, 1)))
        with torch.no_grad():
            self.loss(last.network(pair), pair, labels)


def _whole(terms: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return terms.get("whole", terms["loss"])


def _anatomy(terms: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The anatomy term of a loss, 0 for a loss without one."""
    return terms["anatomy"].detach() if "anatomy" in terms else terms["loss"].new_zeros(())


class ClassicalInferer(AdaptationInferer):
    """Optimise a DDF on every pair from zero, ``u <- u - lr * dL(u)/du`` (Baum et al. 2022, section 3.3).

    The loop is that of test-time adaptation, and the given network is not used. The learning rate applies to the loss
    summed over the voxels (``per_sum``), which makes a step independent of the size of the grid. Arguments are those of
    ``AdaptationInferer``.
    """

    def _start(self, network: nn.Module, pair: torch.Tensor) -> tuple[nn.Module, OptimizerFactory]:
        shape = pair.shape[2:]
        return DisplacementField(shape).to(pair.device), per_sum(self.optimizer, shape.numel())


class DisplacementField(nn.Module):
    """A "network" whose only weights are the DDF itself, zero at the start.

    Args:
        shape: spatial shape of the pair.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.ddf = nn.Parameter(torch.zeros(1, len(shape), *shape))

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        """The field, ``(batch, dims, *shape)`` in voxels, whatever the pairs ``(batch, 2, *shape)`` show."""
        # A copy: a view of a weight would require gradients wherever it is made.
        return torch.cat([self.ddf] * len(pair))


def per_sum(optimizer: OptimizerFactory, voxels: int) -> OptimizerFactory:
    """The same optimiser for a loss summed over the voxels: its learning rate times ``voxels``.

    The losses of this bundle are means over the voxels, so their gradient at one voxel shrinks as the grid grows. The
    learning rate of a field, such as the paper's 0.01, applies to the sum. Its steps converge while ``lr * c < 2`` with
    ``c`` the largest curvature of the sum. For MONAI's bending energy, whose second differences weigh the finest ripple
    by 4 along every axis, ``c`` is ``32 * weight`` (and a tenth more, since the energy is a mean over the voxels
    inside). Similarities of images in [0, 1] add 3 (squares) to 70 (local correlation). So 0.01 diverges from a weight
    of about 5. The stencil of DeepReg, on which the paper builds, has ``6 * weight`` and tolerates its 10.

    Args:
        optimizer: named parameters -> optimiser whose step is linear in its gradient (SGD).
        voxels: number of voxels of the grid.
    """

    def scaled(parameters: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        stepper = optimizer(parameters)
        for group in stepper.param_groups:
            group["lr"] *= voxels
        return stepper

    return scaled
