"""A coarse field beside the network: interpolated exactly, moved alone, and never learned."""

import copy
from functools import partial

import pytest
import torch
from meta_toys import make_trainer
from monai.losses import BendingEnergyLoss
from torch import nn

from bundle.meta import first_order_maml, reptile
from bundle.registration import AdaptationInferer, Moving, RegistrationLoss, RegistrationNetwork, ResidualField, adapt

SHAPE = (17, 13, 9)
MOVING = Moving(partial(torch.optim.Adam, lr=0.3), ["residual"])


class Shift(nn.Module):
    """``u_0 = w``, one shift along the first axis, and how often it was asked for."""

    def __init__(self, weight=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.calls = []

    def forward(self, pair):
        self.calls.append(torch.is_grad_enabled() and self.weight.requires_grad)
        axis = torch.eye(pair.ndim - 2)[0].reshape(1, -1, *[1] * (pair.ndim - 2))
        return self.weight * axis.expand(len(pair), -1, *pair.shape[2:])

    def __deepcopy__(self, memo):
        copied = Shift(self.weight.item())
        copied.calls = self.calls  # of all copies
        return copied


def blob(centre, shape=SHAPE):
    grid = torch.stack(torch.meshgrid(*[torch.arange(float(size)) for size in shape], indexing="ij"))
    return torch.exp(-((grid - torch.tensor(centre).reshape(-1, *[1] * len(shape))) ** 2).sum(0) / 18)[None, None]


@pytest.mark.parametrize(("shape", "points"), [((17, 13, 9), (5, 3, 4)), ((12, 7), (4, 3))])
def test_control_points_are_interpolated_linearly_up_to_the_outermost_voxels(shape, points):
    network = ResidualField(Shift(0.5), points)
    slopes = torch.arange(1.0, len(shape) + 1)
    # Linear interpolation gives back a field that is linear in the position, 0 to 1 along every axis.
    coarse, fine = (
        torch.stack(torch.meshgrid(*[torch.linspace(0, 1, size) for size in sizes], indexing="ij"))
        for sizes in (points, shape)
    )
    with torch.no_grad():
        network.residual.copy_(torch.tensordot(torch.diag(slopes), coarse, dims=1))
    expected = torch.tensordot(torch.diag(slopes), fine, dims=1)
    expected[0] += 0.5
    torch.testing.assert_close(network(torch.zeros(2, 2, *shape)), expected.expand(2, *expected.shape))


def test_a_known_translation_is_found_and_the_network_stays():
    pair = torch.cat([blob((6.5, 6.0, 4.0)), blob((8.0, 6.0, 4.0))], dim=1)
    network = ResidualField(Shift(0.25), (3, 3, 3))
    before = copy.deepcopy(network.state_dict())
    loss = RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), 0.01)
    result = AdaptationInferer(loss, MOVING, steps=40)(pair, network)
    assert result["losses"][0, -1] < 0.02 * result["losses"][0, 0]
    # Halfway down the slopes, where the image says where it is: 1.5 voxels back, though the network goes forward.
    assert result["ddf"][0, 0, (5, 11), 6, 4].tolist() == pytest.approx([-1.5, -1.5], abs=0.2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.residual.any()
    assert not network.residual.requires_grad
    assert network.network.weight.requires_grad


def test_the_network_runs_once_per_pair_and_without_gradients():
    pair = torch.cat([blob((6.5, 6.0, 4.0)), blob((8.0, 6.0, 4.0))], dim=1)
    network = ResidualField(Shift(0.25), (3, 3, 3))
    loss = RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), 0.01)
    register = AdaptationInferer(loss, MOVING, steps=5, memory_gib=1e6)
    first, second = register(pair, network), register(pair + 0.0, network)
    assert network.network.calls == [False, False]
    assert torch.equal(first["ddf"], second["ddf"])


def test_every_version_has_an_output_of_its_own():
    network = ResidualField(Shift(0.25), (3, 3, 3))
    pairs = [torch.rand(1, 2, *SHAPE) for _ in range(3)]
    loss = RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), 0.01)
    adapt(network, loss, MOVING, [(pair, None) for pair in pairs])
    assert network.network.calls == [False] * 3


def test_all_weights_move_where_the_residual_field_is_not_named():
    network = ResidualField(Shift(0.25), (3, 3, 3))
    pair = torch.cat([blob((6.5, 6.0, 4.0)), blob((8.0, 6.0, 4.0))], dim=1)
    loss = RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), 0.01)
    result = adapt(network, loss, partial(torch.optim.Adam, lr=0.1), [(pair, None)] * 2)
    assert result.network.network.weight.item() == pytest.approx(0.05, abs=0.01)
    assert not result.network.residual.any()


def test_a_real_network_is_bit_identical_and_pairs_do_not_depend_on_each_other(local_net):
    network = ResidualField(RegistrationNetwork(local_net), (3, 3, 3))
    before = copy.deepcopy(network.state_dict())
    pairs = torch.rand(2, 2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    register = AdaptationInferer(RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), 0.01), MOVING, steps=3)
    together = register(pairs, network)
    assert torch.equal(register(pairs[1:], network)["ddf"], together["ddf"][1:])
    assert (together["losses"].diff() < 0).all()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Distance(nn.Module):
    """``L = mean_x (u(x) - t)^2 / 2`` of the first component, with the target ``t`` of the pair."""

    def forward(self, ddf, pair, labels=None):
        return {"loss": 0.5 * (ddf[:, 0] - pair.mean()).square().mean()}


def meta_trainer(network, **settings):
    targets = [[{"target": torch.full((1, 2, 5, 5), 3.0)}]]
    return make_trainer(network, [], loss_function=Distance(), train_data_loader=targets, **settings)


def test_meta_updates_move_the_network_by_the_gradient_beside_the_adapted_field():
    network = ResidualField(Shift(1.0), (2, 2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    # The mean over the voxels weighs each of the four control points by a quarter: u goes by 0.4 x 2 / 4.
    moving = Moving(partial(torch.optim.SGD, lr=1.6), ["residual"])
    trainer = meta_trainer(network, optimizer=optimizer, inner_optimizer=moving, inner_steps=1, rule=first_order_maml)
    trainer.run()
    pair = torch.full((1, 2, 5, 5), 3.0)
    adapted = adapt(ResidualField(Shift(1.0), (2, 2)), Distance(), moving, [(pair, None)]).network
    left = (adapted(pair)[0, 0] - 3.0).mean().item()
    assert -2 < left < -1
    assert network.network.weight.item() == pytest.approx(1.0 - 0.5 * left, abs=1e-6)
    assert not network.residual.any()


def test_reptile_learns_nothing_from_a_field_that_starts_at_zero():
    with pytest.raises(ValueError, match="Reptile learns nothing.*residual.*bilevel.yaml") as error:
        meta_trainer(ResidualField(Shift(1.0), (2, 2)), inner_optimizer=MOVING, rule=reptile)
    assert "\n" not in str(error.value)


def test_control_points_are_of_two_or_three_axes():
    with pytest.raises(ValueError, match=r"control_points is \[4\]; expected a number for each of 2 or 3 axes"):
        ResidualField(Shift(), (4,))


def test_control_points_are_as_many_as_the_axes_of_the_pair():
    field = ResidualField(nn.Identity(), (4, 4))
    with pytest.raises(
        ValueError, match=r"control_points is \[4, 4\]; expected a number for each of the 3 axes of the"
    ):
        field(torch.zeros(1, 2, 8, 8, 8))
