"""What the steps move: named layers follow their closed form, the others stay bit for bit and cost nothing."""

import copy
from functools import partial
from itertools import repeat

import pytest
import torch
from meta_toys import Distance, make_trainer
from monai.losses import BendingEnergyLoss
from torch import nn

from bundle.meta import first_order_maml
from bundle.registration import BestState, Moving, RegistrationLoss, RegistrationNetwork, adapt, inner_loop, moved_names

SGD = partial(torch.optim.SGD, lr=0.25)


class Sum(nn.Module):
    """``f = a + b``."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
        self.second = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))

    def forward(self, pair):
        return self.first + self.second


def versions(steps, target=7.0):
    return repeat((torch.full((1, 2, 2), target, dtype=torch.float64), None), steps)


def test_one_of_two_weights_goes_all_the_way():
    network = Sum()
    result = adapt(network, Distance(), Moving(SGD, ["sec*"]), versions(3))
    # a + b goes from 3 to 7 by a quarter of what is left in every step, and only b moves.
    assert result.network.first.item() == 1.0
    assert result.network.second.item() == 7 - 4 * 0.75**3 - 1
    assert adapt(network, Distance(), SGD, versions(1)).network.first.item() == 2.0
    assert all(parameter.requires_grad for parameter in [*network.parameters(), *result.network.parameters()])


@pytest.fixture
def network(local_net):
    return RegistrationNetwork(local_net)


def test_other_layers_stay_bit_for_bit_and_cost_no_gradients(network):
    pair = torch.rand(1, 2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    before, asked = copy.deepcopy(network.state_dict()), []
    moving = Moving(partial(torch.optim.Adam, lr=0.01), ["*output_block*", "*decode_convs.1*"])

    class Loss(RegistrationLoss):
        def forward(self, ddf, pair, labels=None):
            asked.append(len([node for node in graph(ddf.grad_fn) if "AccumulateGrad" in type(node).__name__]))
            return super().forward(ddf, pair, labels)

    result = adapt(network, Loss(nn.MSELoss(), BendingEnergyLoss(), 1.0), moving, repeat((pair, None), 3))
    after = result.network.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == moved_names(network, moving)
    assert 0 < len(moved) < 20
    assert all("output_block" in name or "decode_convs.1" in name for name in moved)
    assert set(asked) == {len(moved)}
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def graph(node):
    """Every node behind a gradient function."""
    seen, waiting = set(), [node]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return seen


def test_the_best_state_holds_what_moves_and_leaves_the_rest():
    best, network = BestState(), Sum()
    for result in inner_loop(network, Distance(), Moving(partial(torch.optim.SGD, lr=2.5), ["second"]), versions(2)):
        if result.terms:
            best.visit(result.network, result.terms["loss"])
    assert result.network.second.item() != 2.0
    best.restore(result.network)
    assert (result.network.first.item(), result.network.second.item()) == (1.0, 2.0)


def test_a_pattern_without_a_parameter_is_refused():
    with pytest.raises(ValueError, match="named 'output'; expected patterns of names such as first, second"):
        adapt(Sum(), Distance(), Moving(SGD, ["first", "output"]), versions(1))


def test_reptile_moves_the_named_layers_and_the_gradient_after_the_steps_all_of_them():
    moving = Moving(SGD, ["second"])
    network = Sum()
    make_trainer(network, [[7.0]], inner_optimizer=moving, inner_steps=1).run()
    # phi = (1, 3): half of the way there.
    assert (network.first.item(), network.second.item()) == (1.0, 2.5)
    network = Sum()
    make_trainer(network, [[7.0]], inner_optimizer=moving, inner_steps=1, rule=first_order_maml).run()
    # The gradient is (4 - 7) of either weight.
    assert (network.first.item(), network.second.item()) == (2.5, 3.5)
