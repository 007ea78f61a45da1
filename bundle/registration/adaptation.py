"""The inner loop: a few gradient steps on one pair. Meta-training and test-time optimisation both call it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from bundle.data import split_pair

Version = tuple[torch.Tensor, torch.Tensor | None]
"""One mini-batch of a pair: joined images ``(batch, 2, *shape)`` (4 channels with masks), and joined labels or None."""

OptimizerFactory = Callable[[Iterable[tuple[str, nn.Parameter]]], Optimizer]
"""Named parameters -> optimiser, as torch's optimisers take them."""

Objective = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], Mapping[str, torch.Tensor]]
"""``(ddf, pair, labels) -> terms`` with the total under ``"loss"``."""

STOPPED = ("", "loss", "gradient")
"""What may end the steps early by not being finite; empty if nothing did."""

INITIAL_ALIGNMENT = -1
"""Stands for the state without any displacement, where a number of steps is expected."""


@dataclass(frozen=True)
class State:
    """A state of an adaptation.

    Attributes:
        network: the adapted copy, the same object in every state; its gradients are those of the previous step.
        terms: loss terms on the mini-batch of the next step; empty for the last state, which no step follows.
    """

    network: nn.Module
    terms: Mapping[str, torch.Tensor]


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
    """Weights of the lowest finite loss among the states of an adaptation, including the start.

    If two states are equally good, the later is kept. ``visit`` does not wait for the device, so that the steps queue
    without a break; whatever asks for a number does.
    """

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._gradients: list[torch.Tensor] = []
        self._best = (torch.empty(0), torch.empty(0))
        self._finite = torch.tensor(True)
        self._weights: dict[str, torch.Tensor] = {}

    def visit(self, network: nn.Module, loss: torch.Tensor) -> None:
        """Record the next state: its loss, and whether the gradients that led to it are finite."""
        loss = loss.detach()
        step = torch.full_like(loss, len(self._losses))
        self._losses.append(loss)
        if self.visited == 1:
            self._best, self._finite = (loss, step), loss.isfinite()
            # Weights that do not move need not be stored.
            still = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
            self._weights = {name: tensor.clone() for name, tensor in _state(network).items() if name not in still}
            return
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        sound = [torch.ones_like(loss, dtype=torch.bool), *(part.isfinite().all() for part in gradients)]
        self._gradients.append(torch.stack(sound).all())
        state = _state(network)
        self._finite = self._finite & self._gradients[-1] & loss.isfinite()
        # States after a number that is not finite do not count, even if they are finite again.
        better = self._finite & (loss <= self._best[0])
        self._best = (torch.where(better, loss, self._best[0]), torch.where(better, step, self._best[1]))
        self._weights = {name: torch.where(better, state[name], best) for name, best in self._weights.items()}

    def stalls(self, tolerance: float) -> bool:
        """Whether the last step lowered the loss by less than this fraction of its previous value."""
        if self.visited < 2:
            return False
        before, now = self._losses[-2:]
        return bool(before - now < tolerance * before.abs())

    @property
    def visited(self) -> int:
        """How many states were visited."""
        return len(self._losses)

    @property
    def losses(self) -> torch.Tensor:
        """Loss of each state up to and including the first with a loss or gradient that is not finite."""
        return torch.stack(self._losses[: self.taken + 1]) if self._losses else torch.empty(0)

    @property
    def taken(self) -> int:
        """Steps before the last visited state, or before the first with a loss or gradient that is not finite."""
        return self._end[0]

    @property
    def step(self) -> int:
        """Steps taken to the best state."""
        return int(self._best[1])

    @property
    def stopped(self) -> str:
        """What was not finite and ended the steps, an entry of ``STOPPED``."""
        return self._end[1]

    @property
    def _end(self) -> tuple[int, str]:
        for step, loss in enumerate(self._losses):
            if not loss.isfinite():
                return step, "loss"
            if step < len(self._gradients) and not self._gradients[step]:
                return step, "gradient"
        return max(len(self._losses) - 1, 0), ""

    def restore(self, network: nn.Module) -> None:
        """Give a network the best weights."""
        state = _state(network)
        for name, best in self._weights.items():
            state[name].copy_(best)


def _state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, without gradients."""
    return {name: tensor.detach() for name, tensor in (*network.named_parameters(), *network.named_buffers())}


def check_finite(losses: torch.Tensor) -> None:
    """Refuse losses if one of them is not finite.

    Args:
        losses: ``(steps,)``, before each step.

    Raises:
        FloatingPointError: naming the first one and its step.
    """
    if not torch.isfinite(losses).all():
        step = int((~torch.isfinite(losses)).nonzero()[0])
        raise FloatingPointError(
            f"the loss became {losses[step].item()} at adaptation step {step}; "
            "lower inner_lr, or check the images with `python -m bundle check_data`"
        )


@contextmanager
def _with_gradients() -> Iterator[None]:
    """Enable gradients whatever the caller does: evaluators and servers run inference without them."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def inner_loop(
    network: nn.Module, loss: Objective, optimizer: OptimizerFactory, versions: Iterable[Version]
) -> Generator[State]:
    """Take one gradient step on a copy of a network for every mini-batch of a pair (Baum et al. 2022, Eq. 2).

    ``theta_0 = omega``, ``theta_{i+1} = theta_i - optimiser(grad L(theta_i; version_i))``. The given network never
    changes: neither weights nor buffers nor gradients nor mode. The optimiser decides which weights move (``Moving``
    takes some by name). After the loop, the same parameters of the copy require gradients as in the given network. The
    steps stop when the caller stops asking for states.

    Args:
        network: joined pair -> DDF.
        loss: of the DDF that the network makes.
        optimizer: named parameters -> optimiser; called once, so its state is fresh for every pair.
        versions: one mini-batch per step; empty for no adaptation.

    Yields:
        The state before each step, then the last one.
    """
    with _with_gradients():
        adapted = copy.deepcopy(network)
        stepper = optimizer(adapted.named_parameters())
    try:
        for pair, labels in versions:
            with _with_gradients():
                terms = loss(adapted(pair), pair, labels)
            yield State(adapted, terms)
            with _with_gradients():
                stepper.zero_grad()
                terms["loss"].backward()
                stepper.step()
        yield State(adapted, {})
    finally:
        stepper.zero_grad()
        for given, parameter in zip(network.parameters(), adapted.parameters(), strict=True):
            parameter.requires_grad_(given.requires_grad)


def adapt(network: nn.Module, loss: Objective, optimizer: OptimizerFactory, versions: Iterable[Version]) -> Adaptation:
    """Take all steps of ``inner_loop``, with the same arguments.

    Returns:
        The adapted copy and the losses before each step.

    Raises:
        FloatingPointError: when a loss is not finite.
    """
    losses: list[torch.Tensor] = []
    for state in inner_loop(network, loss, optimizer, versions):
        if state.terms:
            losses.append(state.terms["loss"].detach())
    history = torch.stack(losses) if losses else torch.empty(0)
    check_finite(history)
    return Adaptation(state.network, history)


def one_by_one(
    register: Callable[[torch.Tensor, torch.Tensor | None], dict[str, torch.Tensor]],
    inputs: torch.Tensor,
    labels: torch.Tensor | None,
) -> dict[str, torch.Tensor]:
    """Register every pair of a batch on its own, and join the outputs.

    Args:
        register: a batch of one joined pair and its labels -> outputs, each a batch of one.
        inputs: joined pairs ``(batch, 2 * channels, *shape)``.
        labels: joined labels ``(batch, 2 * structures, *shape)`` or None.

    Raises:
        ValueError: when the masks of a pair do not overlap.
    """
    _check_masks(inputs)
    each = [None] * len(inputs) if labels is None else [label[None] for label in labels]
    results = [register(pair[None], label) for pair, label in zip(inputs, each, strict=True)]
    return {key: torch.cat([result[key] for result in results]) for key in results[0]}


def _check_masks(pairs: torch.Tensor) -> None:
    moving, fixed = split_pair(pairs)
    if moving.shape[1] > 1 and not (moving[:, 1] * fixed[:, 1]).flatten(1).any(1).all():
        raise ValueError(
            "the masks of the two images do not overlap; check fixed_mask, moving_mask and initial_alignment"
        )
