"""Meta-training: one iteration is one meta-update over a batch of episodes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import IterationEvents, SupervisedTrainer
from monai.utils import CommonKeys
from torch import nn

from bundle.data import RandomPairAffine
from bundle.meta.rules import MetaGradient, OuterLoss, learned, mean_over_episodes, reptile
from bundle.meta.step_sizes import LearnedStepSizes
from bundle.registration import OptimizerFactory, Version, check_finite, inner_loop, moved_names
from bundle.system import DataWarning, processes

Objective = Callable[[nn.Module, torch.Tensor, torch.Tensor | None], dict[str, torch.Tensor]]
"""Network, joined pair and labels -> terms with the total under ``"loss"``."""

UNSUPPORTED = ("amp", "compile", "inferer", "accumulation_steps", "iteration_update", "postprocessing", "to_kwargs")


class ReptileTrainer(SupervisedTrainer):
    """Meta-train a registration network on episodes (Baum et al. 2022, sections 2.3 and 3.1).

    For every episode a copy of the network takes ``inner_steps`` steps on random versions of its pair, or of its
    pairs in turn, which then stand for a task (Park et al. 2021); the mean of the rule's meta-gradients becomes
    ``.grad`` of the network, and the ordinary ``optimizer`` steps::

        theta.grad = mean_n g_n,   g_n = theta - phi_n  (Reptile)

    so that SGD with learning rate ``epsilon`` is Reptile, and Adam gives the variant of Park et al. 2021. Learning
    rate schedules, checkpoints and every other handler are MONAI's. The bi-level objective (Eq. 3-4) is
    ``first_order_maml`` with a separate ``inner_loss``; without inner steps, that rule is conventional training. What
    is learned are the network's parameters that require gradients, and the step sizes of the inner steps if there are
    any. A parameter that the inner steps move from the same start in every episode, such as a residual field, is not
    learned.

    If ``torchrun`` started several processes, each takes some episodes of every meta-batch, the mean is over the
    episodes of all, and all take the same step. ``DistributedDataParallel`` would have nothing to do here: it averages
    what ``backward`` leaves in the network, and here ``backward`` runs in copies that are thrown away.

    An episode with a loss, a gradient or weights that are not finite is left out of the mean and counted; if no episode
    remains, there is no update. ``state.episodes`` counts ``all`` episodes, those ``skipped``, and the updates
    ``in_a_row`` that had none left; ``state.metrics`` shows the second as ``skipped_episodes``.

    Args:
        inner_optimizer: named parameters -> optimiser of the inner steps; its state is fresh in every episode.
        inner_steps: ``k``; 10 in the paper. 0 leaves the start as it is, so that ``first_order_maml`` follows the
            gradient of ``loss_function`` itself.
        inner_loss: objective of the inner steps; None uses ``loss_function``, which the rule evaluates.
        objective: what the rule evaluates, such as ``SymmetricObjective``; None uses ``loss_function`` of the
            network's field.
        step_sizes: learned with the network; they are (part of) ``inner_optimizer``, and ``optimizer`` steps them.
        clip_gradient: largest norm of the meta-gradient over everything that is learned; a longer one is shortened.
        pairs_per_episode: how many consecutive pairs of a batch are one episode.
        augmentation: draws the mini-batches of a pair.
        rule: meta-gradient of one episode.
        seed: decides every mini-batch, together with the iteration, the episode and the step.
        kwargs: arguments of ``SupervisedTrainer``; the data loader yields lists of collated pairs
            (``bundle.data.collate_episodes``).

    Raises:
        ValueError: for an option of ``SupervisedTrainer`` that has no meaning here.
    """

    def __init__(
        self,
        *,
        inner_optimizer: OptimizerFactory,
        inner_steps: int,
        inner_loss: nn.Module | None = None,
        objective: Objective | None = None,
        step_sizes: LearnedStepSizes | None = None,
        clip_gradient: float | None = None,
        pairs_per_episode: int = 1,
        augmentation: RandomPairAffine,
        rule: Callable[[nn.Module, nn.Module, OuterLoss], MetaGradient],
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        unsupported = [name for name in UNSUPPORTED if kwargs.get(name)]
        if unsupported:
            raise ValueError(f"ReptileTrainer does not support {', '.join(unsupported)}; remove it from the trainer")
        if inner_steps < 0:
            raise ValueError(f"inner_steps is {inner_steps}; expected 0 (conventional training) or more")
        if clip_gradient is not None and clip_gradient <= 0:
            raise ValueError(f"clip_gradient is {clip_gradient}; expected a norm above 0, or null")
        super().__init__(decollate=False, **kwargs)
        self.inner_optimizer = inner_optimizer
        self.inner_steps = inner_steps
        self.inner_loss = inner_loss
        self.objective = objective
        self.step_sizes = step_sizes
        self.clip_gradient = clip_gradient
        self.pairs_per_episode = pairs_per_episode
        self.augmentation = augmentation
        self.rule = rule
        self.seed = seed
        self._check_that_something_is_learned()
        self.state.episodes = {"all": 0, "skipped": 0, "in_a_row": 0}
        self.add_event_handler(Events.STARTED, lambda engine: processes.start_alike(engine.network))

    def run(self) -> None:
        """Train, and report the episodes that were skipped.

        Raises:
            FloatingPointError: when no episode was finite for as many updates as an epoch has.
        """
        super().run()
        count = self.state.episodes
        if count["skipped"] and processes.is_first():
            skipped = f"{count['skipped']} of {count['all']} episodes were skipped"
            warnings.warn(f"{skipped}: their loss or gradient was not finite", DataWarning, stacklevel=2)

    def _check_that_something_is_learned(self) -> None:
        """Refuse what the rule cannot learn from, and a loss that would not be asked.

        Raises:
            ValueError: saying what to do.
        """
        if not callable(self.rule):
            raise ValueError(f"meta_rule is {self.rule!r}; expected a function, such as '$bundle.meta.reptile'")
        if self.rule is reptile:
            if self.inner_steps == 0:
                raise ValueError(
                    "inner_steps is 0, from which Reptile learns nothing; expected 1 or more, or conventional.yaml"
                )
            if self.step_sizes is not None or self.objective is not None:
                what = "step sizes" if self.step_sizes is not None else "a symmetric loss"
                raise ValueError(f"Reptile learns nothing of {what}: it has no outer gradient; add bilevel.yaml")
            moved = moved_names(self.network, self.inner_optimizer)
            if moved.isdisjoint(name for name, weight in self.network.named_parameters() if weight.requires_grad):
                raise ValueError(
                    f"Reptile learns nothing where the steps move {', '.join(sorted(moved))} alone, which starts anew "
                    "with every pair; add bilevel.yaml"
                )
        if self.inner_steps == 0 and self.inner_loss not in (None, self.loss_function):
            raise ValueError(
                "inner_steps is 0, and inner_loss is another loss than that of the update, for inner steps alone; "
                "expected 1 or more, or one of conventional.yaml and bilevel.yaml"
            )
        if self.step_sizes is not None:
            stepped = {id(parameter) for group in self.optimizer.param_groups for parameter in group["params"]}
            if self.inner_steps == 0:
                raise ValueError("inner_steps is 0, from which no step size is learned; expected 1 or more")
            if id(self.step_sizes.log_scales) not in stepped:
                raise ValueError("the optimizer does not step the step sizes; expected params: '@learned'")

    @property
    def _learned(self) -> list[nn.Parameter]:
        return learned(self.network) + (list(self.step_sizes.parameters()) if self.step_sizes is not None else [])

    def _iteration(self, engine: ReptileTrainer, batchdata: list[dict[str, Any]]) -> list[dict[str, torch.Tensor]]:
        engine.network.train()
        episodes = []
        starts = range(0, len(batchdata), self.pairs_per_episode)
        for turn, start in enumerate(starts):
            items = batchdata[start : start + self.pairs_per_episode]
            pairs = [engine.prepare_batch(item, engine.state.device, engine.non_blocking) for item in items]
            # The number among the episodes of all processes: what is drawn must not depend on which process has it.
            episode = processes.place(turn)
            try:
                history, gradient = self._episode(episode, pairs)
            except FloatingPointError as error:
                engine.logger.info(f"iteration {engine.state.iteration}: episode {episode} is skipped, {error}")
                continue
            # The start is trained for the last loss; the first says how good the start itself is.
            episodes.append([history[[0, -1]], *gradient])
        parameters = self._learned
        (first, last), *means = mean_over_episodes(episodes, like=[parameters[0].new_zeros(2), *parameters])
        counts = processes.total(torch.tensor([len(starts), len(episodes)], device=engine.state.device)).tolist()
        self._count(*counts)
        engine.state.output = [{CommonKeys.LOSS: last, "loss_first_step": first}]
        if not counts[1]:
            return engine.state.output
        for parameter, mean in zip(parameters, means, strict=True):
            parameter.grad = mean
        if self.clip_gradient is not None:
            nn.utils.clip_grad_norm_(parameters, self.clip_gradient)
        engine.optimizer.step()
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def _count(self, episodes: int, finite: int) -> None:
        """Note how many episodes of an update were skipped; stop if a whole epoch had no other episodes."""
        count = self.state.episodes
        count["all"] += episodes
        count["skipped"] += episodes - finite
        count["in_a_row"] = 0 if finite else count["in_a_row"] + 1
        self.state.metrics["skipped_episodes"] = count["skipped"]
        if self.state.epoch_length and count["in_a_row"] >= self.state.epoch_length:
            raise FloatingPointError(
                f"all episodes of the last {count['in_a_row']} meta-updates had a loss or gradient that is not finite; "
                "lower inner_lr or meta_lr, or check the images with `python -m bundle check_data`"
            )

    def _objective(
        self, network: nn.Module, pair: torch.Tensor, labels: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """The outer loss of a network."""
        if self.objective is not None:
            return self.objective(network, pair, labels)
        return self.loss_function(network(pair), pair, labels)

    def _episode(self, episode: int, pairs: Sequence[Version]) -> tuple[torch.Tensor, MetaGradient]:
        """Adapt to one pair, or to several in turn: losses and meta-gradient.

        The losses are those before each step, and the final one if the rule needs it.

        Raises:
            FloatingPointError: when a loss or the meta-gradient is not finite.
        """
        outer_losses: list[torch.Tensor] = []

        def version(step: int) -> Version:
            pair, labels = pairs[step % len(pairs)]
            return self.augmentation(pair, labels, (self.seed, self.state.iteration, episode, step))

        def versions() -> Iterator[Version]:
            for step in range(self.inner_steps):
                yield version(step)

        def outer_loss(network: nn.Module) -> torch.Tensor:
            images, structures = version(self.inner_steps)
            loss = self._objective(network, images, structures)["loss"]
            outer_losses.append(loss.detach())
            return loss

        losses: list[torch.Tensor] = []
        inner_loss = self.inner_loss or self.loss_function
        for state in inner_loop(self.network, inner_loss, self.inner_optimizer, versions()):
            if state.terms:
                self.state.output = [{CommonKeys.LOSS: state.terms["loss"].detach(), "inner_step": len(losses)}]
                losses.append(state.terms["loss"].detach())
                self.fire_event(IterationEvents.INNER_ITERATION_COMPLETED)
        if losses:
            check_finite(torch.stack(losses))
        gradient = self.rule(self.network, state.network, outer_loss)
        if self.step_sizes is not None:
            gradient = gradient + self.step_sizes.meta_gradient(self.network, state.network, gradient)
        history = torch.stack([*losses, *outer_losses])
        # A gradient of an inner step that is not finite shows up in the weights after it.
        if not torch.stack([part.isfinite().all() for part in (history, *gradient)]).all():
            raise FloatingPointError("the meta-gradient is not finite")
        return history, gradient
