"""Step sizes that are learned together with the start, one per layer (Meta-SGD, Li et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.optim import Optimizer

from bundle.meta.rules import learned
from bundle.registration import OptimizerFactory


class LearnedStepSizes(nn.Module):
    """An inner optimiser whose steps are scaled for each weight tensor ``l``.

    ``theta_{i+1,l} = theta_{i,l} - alpha_l d_{i,l}``, with ``d`` the direction that the optimiser takes (Adam's) and
    ``alpha_l = lr exp(v s_l)``, which is positive, and ``lr`` at the start, where ``s = 0``. ``v`` lets the step sizes
    learn faster than the weights, which the same outer optimiser steps.

    Args:
        network: the network whose weights are adapted.
        optimizer: named parameters -> optimiser of the inner steps with the learning rate ``lr``.
        speed: ``v``; outer Adam changes the logarithm of a step size by its own learning rate times ``v``.

    Attributes:
        log_scales: ``s``, one number for each weight tensor that is learned, in the network's order.
    """

    def __init__(self, network: nn.Module, optimizer: OptimizerFactory, speed: float = 1.0) -> None:
        super().__init__()
        self.names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        self.log_scales = nn.Parameter(learned(network)[0].new_zeros(len(self.names)))
        self.optimizer = optimizer
        self.speed = speed

    def scales(self) -> dict[str, float]:
        """``exp(v s_l)``, the step sizes as multiples of ``lr``, by the names of the weights."""
        with unset_fake_temporarily():  # they are known while tensors without values estimate the memory (check_memory)
            return dict(zip(self.names, (self.speed * self.log_scales.detach()).exp().tolist(), strict=True))

    def forward(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        """The inner optimiser of named parameters, each with its own step size.

        Raises:
            ValueError: for a parameter that the network does not have.
        """
        named, scales = list(parameters), self.scales()
        unknown = [name for name, parameter in named if parameter.requires_grad and name not in scales]
        if unknown:
            raise ValueError(f"no step size of {unknown[0]} is learned; give LearnedStepSizes the network that adapts")
        stepper = self.optimizer(named)
        scale_of = {id(parameter): scales.get(name, 1.0) for name, parameter in named}
        stepper.param_groups[:] = [
            {**group, "params": [parameter], "lr": group["lr"] * scale_of[id(parameter)]}
            for group in stepper.param_groups
            for parameter in group["params"]
        ]
        return stepper

    def meta_gradient(
        self, initial: nn.Module, adapted: nn.Module, gradients: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Gradient of the outer loss with respect to ``s``, to first order: directions are taken as constants.

        ``phi_l = theta_l - alpha_l sum_i d_{i,l}``, so ``dL/ds_l = v <g_l, phi_l - theta_l>``.

        Args:
            initial: network with the start ``theta``.
            adapted: its copy with the adapted weights ``phi``.
            gradients: ``g = dL/dphi``, one for each weight tensor that is learned.

        Returns:
            One tensor, of the shape of ``s``.
        """
        moves = (phi.detach() - theta.detach() for theta, phi in zip(learned(initial), learned(adapted), strict=True))
        products = [(gradient * move).sum() for gradient, move in zip(gradients, moves, strict=True)]
        return [self.speed * torch.stack(products).to(self.log_scales)]

    def extra_repr(self) -> str:
        """Description of the optimiser whose steps are scaled, for the settings of a run."""
        return f"{self.optimizer}, speed={self.speed}"
