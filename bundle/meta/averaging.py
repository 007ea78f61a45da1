"""The mean over the episodes of a meta-batch, which several processes may share."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bundle import processes


def mean_over_episodes(episodes: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    """Mean of every tensor of an episode over the episodes of all processes.

    ``mean = (sum over processes of sum_n g_n) / (sum over processes of their number of episodes)``: each episode counts
    alike, however unevenly they are spread. Sums are taken in float64, in which those of float32 numbers hardly ever
    round: the mean depends on the episodes, not on which process had which.

    Args:
        episodes: of this process, at least one; the tensors of each, of the same shapes and on one device.

    Returns:
        The mean of each tensor, in its type.
    """
    sums = [torch.stack(tensors).sum(0, dtype=torch.float64) for tensors in zip(*episodes, strict=True)]
    number = sums[0].new_tensor([len(episodes)])
    # One message for all: the parameters are many and mostly small.
    message = processes.total(torch.cat([*(tensor.flatten() for tensor in sums), number]))
    means = (message[:-1] / message[-1]).split([tensor.numel() for tensor in sums])
    return [mean.view_as(tensor).to(tensor.dtype) for mean, tensor in zip(means, episodes[0], strict=True)]
