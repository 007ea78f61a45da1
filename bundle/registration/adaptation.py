"""The inner loop: a few gradient steps on one pair. Meta-training and test-time optimisation both call it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

Version = tuple[torch.Tensor, torch.Tensor | None]
"""One mini-batch of a pair: joined images ``(batch, 2, *shape)``, with masks 4 channels, and joined labels or None."""

OptimizerFactory = Callable[[Iterable[tuple[str, nn.Parameter]]], Optimizer]
"""Named parameters -> optimiser; the optimisers of torch take them so."""


@dataclass(frozen=True)
class Adaptation:
    """Result of ``adapt``.

    Attributes:
        network: the adapted copy.
        losses: ``(steps,)``, total loss before each step.
    """

    network: nn.Module
    losses: torch.Tensor


def adapt(
    network: nn.Module,
    loss: nn.Module,
    optimizer: OptimizerFactory,
    versions: Iterable[Version],
    *,
    tolerance: float | None = None,
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
        on_step: called with the step's index and its terms, before the weights change.

    Returns:
        The adapted copy and the losses before each step taken.

    Raises:
        FloatingPointError: when a loss is not finite.
    """
    with torch.inference_mode(False), torch.enable_grad():
        adapted = copy.deepcopy(network)
        stepper = optimizer(adapted.named_parameters())
        losses: list[torch.Tensor] = []
        for step, (pair, labels) in enumerate(versions):
            terms = loss(adapted(pair), pair, labels)
            if tolerance is not None and losses and losses[-1] - terms["loss"] < tolerance * losses[-1].abs():
                break
            losses.append(terms["loss"].detach())
            if on_step is not None:
                on_step(step, terms)
            stepper.zero_grad()
            terms["loss"].backward()
            stepper.step()
        stepper.zero_grad()
    history = torch.stack(losses) if losses else torch.empty(0)
    if not torch.isfinite(history).all():
        step = int((~torch.isfinite(history)).nonzero()[0])
        raise FloatingPointError(
            f"the loss became {history[step].item()} at adaptation step {step}; "
            "lower inner_lr, or check the images with `python -m bundle check_data`"
        )
    return Adaptation(adapted, history)
