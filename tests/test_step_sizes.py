"""Step sizes per weight tensor: what a step is, the gradient that they learn by, and where they end on quadratics."""

import copy
import math
from functools import partial

import pytest
import torch
from ignite.engine import Engine
from meta_toys import Distance, OneWeight, make_trainer, sgd
from monai.losses import BendingEnergyLoss
from torch import nn

from bundle.meta import LearnedStepSizes, ResumableCheckpoint, first_order_maml, reptile
from bundle.registration import Moving, RegistrationLoss, RegistrationNetwork, WeightsLoader, adapt

SGD = partial(torch.optim.SGD, lr=0.1)


class TwoWeights(nn.Module):
    """``f = (a, b)``."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.second = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, pair):
        return torch.cat([self.first, self.second])


class Curved(nn.Module):
    """``L = ((a - t)^2 / 2 + 4 (b - t)^2 / 2)``: steps of 1 and of 1/4 end at ``t`` at once."""

    def forward(self, output, pair, labels=None):
        loss = 0.5 * (torch.tensor([1.0, 4.0]) * (output - pair.mean()) ** 2).sum()
        return {"loss": loss, "similarity": loss}


def versions(target, steps=1):
    return [(torch.full((1, 2, 2), float(target), dtype=torch.float64), None)] * steps


def sizes_of(network, optimizer=SGD, scales=(), speed=1.0):
    sizes = LearnedStepSizes(network, optimizer, speed)
    with torch.no_grad():
        for index, scale in enumerate(scales):
            sizes.log_scales[index] = math.log(scale) / speed
    return sizes


def trainer_of(network, sizes, batches, optimizer=None, **settings):
    optimizer = optimizer or torch.optim.SGD([*network.parameters(), *sizes.parameters()], lr=0.05)
    settings = {"inner_optimizer": sizes, "step_sizes": sizes, "rule": first_order_maml, "inner_steps": 1, **settings}
    return make_trainer(network, batches, optimizer, **settings)


@pytest.mark.parametrize("speed", [1.0, 20.0])
def test_each_weight_takes_steps_of_its_own_size(speed):
    network = TwoWeights()
    sizes = sizes_of(network, scales=(5.0, 0.5), speed=speed)
    adapted = adapt(network, Curved(), sizes, versions(2.0)).network
    # Gradients are -2 and -8.
    assert adapted.first.item() == pytest.approx(0.1 * 5 * 2)
    assert adapted.second.item() == pytest.approx(0.1 * 0.5 * 8)
    assert sizes.scales() == pytest.approx({"first": 5.0, "second": 0.5})


@pytest.mark.parametrize("fused", [False, True])
def test_they_scale_the_direction_of_adam(fused):
    network = TwoWeights()
    sizes = sizes_of(network, partial(torch.optim.Adam, lr=0.01, fused=fused), (3.0, 0.5))
    adapted = adapt(network, Curved(), sizes, versions(2.0)).network
    assert (adapted.first.item(), adapted.second.item()) == pytest.approx((0.03, 0.005), abs=1e-8)


def test_at_the_start_they_are_those_of_the_optimiser_bit_for_bit(local_net):
    network = RegistrationNetwork(local_net)
    adam, pair = partial(torch.optim.Adam, lr=0.01), torch.rand(1, 2, 16, 8, 8)
    sizes, loss = LearnedStepSizes(network, adam), RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), 0.01)
    before = copy.deepcopy(network.state_dict())
    expected, found = (adapt(network, loss, optimizer, [(pair, None)] * 2).network for optimizer in (adam, sizes))
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in expected.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not sizes.log_scales.any()
    assert list(sizes.state_dict()) == ["log_scales"]


@pytest.mark.parametrize("speed", [1.0, 3.0])
def test_their_gradient_is_that_of_the_outer_loss_after_one_step(speed):
    network, target = OneWeight(1.0), 3.0

    def outer_loss(log_scale):
        sizes = sizes_of(network, sgd(0.1), (math.exp(speed * log_scale),), speed)
        return Distance()(adapt(network, Distance(), sizes, versions(2.0)).network(None), torch.tensor(target))["loss"]

    sizes = sizes_of(network, sgd(0.1), (math.exp(speed * 0.3),), speed)
    adapted = adapt(network, Distance(), sizes, versions(2.0)).network
    gradient = first_order_maml(network, adapted, lambda net: Distance()(net(None), torch.tensor(target))["loss"])
    (found,) = sizes.meta_gradient(network, adapted, gradient)
    expected = (outer_loss(0.3 + 1e-5) - outer_loss(0.3 - 1e-5)) / 2e-5
    assert found.shape == (1,)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert found.item() < 0  # longer steps go further towards the target


def test_on_quadratics_each_ends_at_the_inverse_of_its_curvature():
    network = TwoWeights()
    sizes = LearnedStepSizes(network, SGD)
    # The targets lie on both sides of the start, which therefore stays.
    trainer_of(network, sizes, [[2.0, -2.0]] * 300, loss_function=Curved()).run()
    assert 0.1 * sizes.scales()["first"] == pytest.approx(1.0, abs=1e-3)
    assert 0.1 * sizes.scales()["second"] == pytest.approx(0.25, abs=1e-3)
    assert (network.first.item(), network.second.item()) == pytest.approx((0.0, 0.0), abs=1e-9)


def test_outer_adam_changes_their_logarithm_by_its_learning_rate_times_the_speed():
    network = TwoWeights()
    sizes = LearnedStepSizes(network, SGD, speed=20.0)
    adam = torch.optim.Adam([*network.parameters(), *sizes.parameters()], lr=0.01)
    trainer_of(network, sizes, [[2.0]], adam, loss_function=Curved()).run()
    assert sizes.scales() == pytest.approx({"first": math.exp(0.2), "second": math.exp(0.2)}, rel=1e-6)


@pytest.mark.parametrize("inside", [True, False])
def test_they_go_with_named_layers(inside):
    network = TwoWeights()
    if inside:
        sizes = optimizer = sizes_of(network, Moving(SGD, ["second"]), (5.0, 0.5))
    else:
        sizes = sizes_of(network, SGD, (5.0, 0.5))
        optimizer = Moving(sizes, ["second"])
    adapted = adapt(network, Curved(), optimizer, versions(2.0)).network
    assert (adapted.first.item(), adapted.second.item()) == pytest.approx((0.0, 0.4))
    trainer_of(network, sizes, [[2.0]], inner_optimizer=optimizer, loss_function=Curved()).run()
    assert sizes.scales()["first"] == pytest.approx(5.0)
    assert sizes.scales()["second"] > 0.51


def test_they_are_resumed_and_saved_beside_the_weights(tmp_path):
    def run(folder, epochs):
        network = TwoWeights()
        sizes = LearnedStepSizes(network, SGD)
        adam = torch.optim.Adam([*network.parameters(), *sizes.parameters()], lr=0.1)
        trainer = trainer_of(network, sizes, [[2.0], [1.0]], adam, loss_function=Curved(), max_epochs=epochs)
        parts = {"network": network, "step_sizes": sizes, "optimizer": adam}
        ResumableCheckpoint(folder, parts, {}, kept_epochs=[1]).attach(trainer)
        trainer.run()
        return network, sizes

    whole, whole_sizes = run(tmp_path / "whole", 3)
    run(tmp_path / "parts", 2)
    network, sizes = run(tmp_path / "parts", 3)
    assert torch.equal(sizes.log_scales, whole_sizes.log_scales)
    assert torch.equal(network.first, whole.first)
    assert sizes.log_scales.abs().min() > 0.1
    for name in ("model", "model_last", "model_epoch_1"):
        assert (tmp_path / f"parts/{name}_step_sizes.pt").exists()
    # The flat weights hold the network alone, as monai.bundle.load wants them.
    TwoWeights().load_state_dict(torch.load(tmp_path / "parts/model.pt"))
    loaded = LearnedStepSizes(TwoWeights(), SGD)
    loader = WeightsLoader(str(tmp_path / "parts/model_step_sizes.pt"), {"step_sizes": loaded})
    loader(Engine(lambda engine, batch: None))
    assert torch.equal(loaded.log_scales, sizes.log_scales)


def test_nothing_is_saved_where_none_are_learned(tmp_path):
    (tmp_path / "model_step_sizes.pt").touch()  # of an older run, whose weights these replace
    network = OneWeight(1.0)
    trainer = make_trainer(network, [[3.0]])
    parts = {"network": network, "optimizer": trainer.optimizer, "step_sizes": None}
    ResumableCheckpoint(tmp_path, parts, {}).attach(trainer)
    trainer.run()
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["checkpoint.pt", "model.pt", "model_last.pt"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": reptile}, "Reptile learns nothing of step sizes: it has no outer gradient; add bilevel.yaml"),
        ({"inner_steps": 0}, "inner_steps is 0, from which no step size is learned; expected 1 or more"),
        ({"optimizer": SGD(OneWeight().parameters())}, "does not step the step sizes; expected params: '@learned'"),
    ],
)
def test_what_they_cannot_be_learned_from_is_refused(settings, message):
    network = TwoWeights()
    with pytest.raises(ValueError, match=message) as error:
        trainer_of(network, LearnedStepSizes(network, SGD), [[2.0]], **settings)
    assert "\n" not in str(error.value)


def test_weights_of_another_network_are_refused():
    with pytest.raises(ValueError, match="no step size of first is learned"):
        adapt(TwoWeights(), Curved(), LearnedStepSizes(OneWeight(), SGD), versions(2.0))
