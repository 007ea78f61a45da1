"""Meta-gradient rules: what an adapted network says about the start it came from, and the mean over episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from bundle.system import processes

MetaGradient = list[torch.Tensor]
OuterLoss = Callable[[nn.Module], torch.Tensor]


def learned(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that meta-training learns: those that require gradients."""
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


def mean_over_episodes(episodes: Sequence[Sequence[torch.Tensor]], like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Mean of every tensor of an episode over the episodes of all processes.

    ``mean = (sum over processes of sum_n g_n) / (sum over processes of their number of episodes)``: each episode counts
    equally, however unevenly they are spread. Sums are taken in float64, where sums of float32 numbers hardly ever
    round. So the mean depends on the episodes, not on which process had which.

    Args:
        episodes: tensors of each episode of this process, which may have none.
        like: tensors of the same shapes, types and device as those of an episode.

    Returns:
        The mean of each tensor, the same in every process; NaN where no process has an episode.
    """
    sums = [torch.zeros_like(tensor, dtype=torch.float64) for tensor in like]
    for episode in episodes:
        for added, tensor in zip(sums, episode, strict=True):
            added += tensor
    number = sums[0].new_tensor([len(episodes)])
    # One message for all parameters, since they are many and mostly small.
    message = processes.total(torch.cat([*(added.flatten() for added in sums), number]))
    means = (message[:-1] / message[-1]).split([tensor.numel() for tensor in like])
    return [mean.view_as(tensor).to(tensor.dtype) for mean, tensor in zip(means, like, strict=True)]
