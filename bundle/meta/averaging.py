"""The mean over the episodes of a meta-batch, which several processes may share."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bundle import processes


def mean_over_episodes(episodes: Sequence[Sequence[torch.Tensor]], like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Mean of every tensor of an episode over the episodes of all processes.

    ``mean = (sum over processes of sum_n g_n) / (sum over processes of their number of episodes)``: each episode counts
    alike, however unevenly they are spread. Sums are taken in float64, in which those of float32 numbers hardly ever
    round: the mean depends on the episodes, not on which process had which.

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
    # One message for all: the parameters are many and mostly small.
    message = processes.total(torch.cat([*(added.flatten() for added in sums), number]))
    means = (message[:-1] / message[-1]).split([tensor.numel() for tensor in like])
    return [mean.view_as(tensor).to(tensor.dtype) for mean, tensor in zip(means, like, strict=True)]
