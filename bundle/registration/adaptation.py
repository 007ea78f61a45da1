"""The inner loop: a few gradient steps on one pair. Meta-training and test-time optimisation both call it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

Version = tuple[torch.Tensor, torch.Tensor | None]
"""One mini-batch of a pair: joined images ``(batch, 2, *shape)``, with masks 4 channels, and joined labels or None."""

OptimizerFactory = Callable[[Iterable[tuple[str, nn.Parameter]]], Optimizer]
"""Named parameters -> optimiser; the optimisers of torch take them so."""

STOPPED = ("", "loss", "gradient")
"""What may end the steps early by not being finite; nothing did where it is empty."""


@dataclass(frozen=True)
class Adaptation:
    """Result of ``adapt``.

    Attributes:
        network: the adapted copy.
        losses: ``(steps,)``, total loss before each step.
    """

    network: nn.Module
    losses: torch.Tensor


class BestState:
    """Weights of the lowest finite loss among the states of an adaptation, the start included.

    Every better state costs a copy of the weights; of two as good, the later is kept.

    Attributes:
        step: steps taken to the best state.
        stopped: what was not finite and ended the steps, of ``STOPPED``.
    """

    def __init__(self) -> None:
        self.step = -1
        self.stopped = ""
        self._loss = math.inf
        self._weights: list[torch.Tensor] = []

    def visit(self, step: int, network: nn.Module, loss: torch.Tensor) -> bool:
        """Look at the state after so many steps; false when its loss is not finite.

        Raises:
            FloatingPointError: when that state is the start.
        """
        value = loss.item()
        if not math.isfinite(value):
            if step == 0:
                raise not_finite(value, 0)
            self.stopped = "loss"
        elif value <= self._loss:
            self.step, self._loss = step, value
            self._weights = [tensor.detach().clone() for tensor in _state(network)]
        return not self.stopped

    def can_step(self, network: nn.Module) -> bool:
        """Whether the gradients of a network are finite."""
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        if gradients and not torch.stack([gradient.isfinite().all() for gradient in gradients]).all():
            self.stopped = "gradient"
        return not self.stopped

    def restore(self, network: nn.Module) -> None:
        """Give a network the best weights."""
        with torch.no_grad():
            for tensor, best in zip(_state(network), self._weights, strict=True):
                tensor.copy_(best)


def _state(network: nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]


def not_finite(loss: float, step: int) -> FloatingPointError:
    """The error about a loss that is not finite."""
    return FloatingPointError(
        f"the loss became {loss} at adaptation step {step}; "
        "lower inner_lr, or check the images with `python -m bundle check_data`"
    )


def adapt(
    network: nn.Module,
    loss: nn.Module,
    optimizer: OptimizerFactory,
    versions: Iterable[Version],
    *,
    tolerance: float | None = None,
    best: BestState | None = None,
    on_step: Callable[[int, dict[str, torch.Tensor]], None] | None = None,
) -> Adaptation:
    """Take one gradient step on a copy of a network for every mini-batch of a pair (Baum et al. 2022, Eq. 2).

    ``theta_0 = omega``, ``theta_{i+1} = theta_i - optimiser(grad L(theta_i; version_i))``. The network that was given
    never changes: neither weights nor buffers nor gradients nor mode. Gradients are enabled here, since evaluators
    and servers run inference without them.

    Args:
        network: joined pair -> DDF.
        loss: ``(ddf, pair, labels) -> terms`` with the total under ``"loss"``.
        optimizer: named parameters -> optimiser; called once, so its state is fresh for every pair.
        versions: one mini-batch per step; empty for no adaptation.
        tolerance: stop before a step once the loss fell by less than this fraction of its value in the step before;
            None takes every step.
        best: notes the best of the states before each step, and ends the steps at a loss or a gradient that is not
            finite. The last state is returned all the same: meta-learning goes where the steps lead.
        on_step: called with the step's index and its terms, before the weights change.

    Returns:
        The adapted copy and the losses before each step taken.

    Raises:
        FloatingPointError: when a loss is not finite; with ``best``, only the first.
    """
    with torch.inference_mode(False), torch.enable_grad():
        adapted = copy.deepcopy(network)
        stepper = optimizer(adapted.named_parameters())
        losses: list[torch.Tensor] = []
        for step, (pair, labels) in enumerate(versions):
            terms = loss(adapted(pair), pair, labels)
            if best is not None and not best.visit(step, adapted, terms["loss"]):
                break
            if tolerance is not None and losses and losses[-1] - terms["loss"] < tolerance * losses[-1].abs():
                break
            if on_step is not None:
                on_step(step, terms)
            stepper.zero_grad()
            terms["loss"].backward()
            if best is not None and not best.can_step(adapted):
                break
            losses.append(terms["loss"].detach())
            stepper.step()
        stepper.zero_grad()
    history = torch.stack(losses) if losses else torch.empty(0)
    if not torch.isfinite(history).all():
        step = int((~torch.isfinite(history)).nonzero()[0])
        raise not_finite(history[step].item(), step)
    return Adaptation(adapted, history)
