"""Meta-gradient rules: what one adapted network says about the start it came from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

MetaGradient = list[torch.Tensor]
OuterLoss = Callable[[nn.Module], torch.Tensor]


def learned(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that meta-training learns: those that ask for gradients."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def reptile(initial: nn.Module, adapted: nn.Module, outer_loss: OuterLoss) -> MetaGradient:
    """Reptile (Nichol et al. 2018): ``g = theta - phi``.

    Stepping SGD with learning rate ``epsilon`` along ``g`` is ``theta <- theta + epsilon (phi - theta)``.

    Args:
        initial: network with the meta-parameters ``theta``.
        adapted: its copy with the adapted parameters ``phi``.
        outer_loss: not evaluated by this rule.

    Returns:
        One tensor per parameter that is learned.
    """
    del outer_loss
    return [theta.detach() - phi.detach() for theta, phi in zip(learned(initial), learned(adapted), strict=True)]


def first_order_maml(initial: nn.Module, adapted: nn.Module, outer_loss: OuterLoss) -> MetaGradient:
    """First-order MAML (Finn et al. 2017): ``g = grad L(phi)`` on a mini-batch the adaptation did not use.

    Args:
        initial: not used by this rule.
        adapted: network with the adapted parameters ``phi``.
        outer_loss: network -> scalar loss on a fresh mini-batch of the same pair.

    Returns:
        One tensor per parameter that is learned; zero where the loss does not depend on it.
    """
    del initial
    parameters = learned(adapted)
    gradients = torch.autograd.grad(outer_loss(adapted), parameters, allow_unused=True)
    return [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]
