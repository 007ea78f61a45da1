"""Which weights the steps move: all, unless an optimiser selects some by name."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.optim import Optimizer

from bundle.registration.adaptation import OptimizerFactory


@dataclass(frozen=True)
class Moving:
    """The same optimiser for the parameters whose names match; the others stay fixed and cost no gradients.

    Args:
        optimizer: named parameters -> optimiser.
        names: shell patterns for names such as ``network.output_block.layers.0.conv.weight``; each has to match.
    """

    optimizer: OptimizerFactory
    names: Sequence[str]

    def __call__(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        """Optimiser of the parameters that match. Sets in the given parameters which of them require gradients.

        Raises:
            ValueError: for a pattern that matches no name.
        """
        named = list(parameters)
        for pattern in self.names:
            if not any(fnmatchcase(name, pattern) for name, _ in named):
                examples = ", ".join(name for name, _ in named[-2:])
                raise ValueError(f"no parameter is named {pattern!r}; expected patterns of names such as {examples}")
        for name, parameter in named:
            parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in self.names))
        return self.optimizer([(name, parameter) for name, parameter in named if parameter.requires_grad])


def moved_names(network: nn.Module, optimizer: OptimizerFactory) -> set[str]:
    """Names of the parameters that the steps of an optimiser move."""
    copied = copy.deepcopy(network)
    groups = optimizer(copied.named_parameters()).param_groups
    taken = {id(parameter) for group in groups for parameter in group["params"]}
    return {name for name, parameter in copied.named_parameters() if parameter.requires_grad and id(parameter) in taken}
