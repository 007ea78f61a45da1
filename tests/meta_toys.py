"""A network of one weight whose episodes have a closed form."""

import torch
from torch import nn

from bundle.meta import ReptileTrainer, reptile


class OneWeight(nn.Module):
    """``f(pair) = w``."""

    def __init__(self, weight=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([float(weight)], dtype=torch.float64))

    def forward(self, pair):
        return self.weight


class Distance(nn.Module):
    """``L = (w - t)^2 / 2``, with the target ``t`` of the pair."""

    def forward(self, output, pair, labels=None):
        return {"loss": 0.5 * ((output - pair.mean()) ** 2).sum()}


def sgd(lr):
    return lambda parameters: torch.optim.SGD(parameters, lr=lr)


def targets(*episodes):
    """Loader of meta-batches: every number is the target of a pair."""
    return [
        [{"target": torch.full((1, 2, 2), float(target), dtype=torch.float64)} for target in batch]
        for batch in episodes
    ]


def prepare(item, device, non_blocking):
    return item["target"], None


def unchanged(pair, labels, seed):
    return pair, labels


def make_trainer(network, batches, optimizer=None, **settings):
    """Trainer over the given meta-batches, one epoch after the other."""
    return ReptileTrainer(
        **{
            "device": torch.device("cpu"),
            "max_epochs": 1,
            "train_data_loader": targets(*batches),
            "network": network,
            "optimizer": optimizer or torch.optim.SGD(network.parameters(), lr=0.5),
            "loss_function": Distance(),
            "prepare_batch": prepare,
            "inner_optimizer": sgd(0.1),
            "inner_steps": 3,
            "augmentation": unchanged,
            "rule": reptile,
            **settings,
        }
    )


def adapted(weight, target, steps=3, lr=0.1):
    """Weight after ``steps`` of gradient descent on ``(w - t)^2 / 2``: ``t + (w - t) (1 - lr)^steps``."""
    return target + (weight - target) * (1 - lr) ** steps
