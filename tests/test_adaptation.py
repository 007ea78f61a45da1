"""The inner loop on a network of one weight, whose trajectory has a closed form, and its purity on a real one."""

import copy
from functools import partial
from itertools import repeat

import numpy as np
import pytest
import torch
from monai.losses import BendingEnergyLoss
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from bundle.api import read_configuration
from bundle.registration import BestState, RegistrationLoss, RegistrationNetwork, adapt, inner_loop

SHAPE = (16, 8, 8)
SGD = partial(torch.optim.SGD, lr=0.5)
ADAM = partial(torch.optim.Adam, lr=0.01)


class OneWeight(nn.Module):
    """``u = w * moving``."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, pair):
        return self.weight * pair[:, :1]


class Parabola(nn.Module):
    """``L = (u - fixed)^2 / 2``."""

    def forward(self, ddf, pair, labels=None):
        return {"loss": (ddf - pair[:, 1:]).square().mean() / 2}


def versions(target, steps):
    """Mini-batches with a moving image of 1: the loss is ``(w - target)^2 / 2``."""
    return repeat((torch.tensor([1.0, target]).reshape(1, 2, 1, 1, 1), None), steps)


PAIR = (next(iter(versions(1.0, 1)))[0],)


def states(network, loss, optimizer, batches, tolerance):
    """What an inferer makes of the states: the best, and the one that it stopped at."""
    best = BestState()
    for state in inner_loop(network, loss, optimizer, batches):
        best.visit(state.network, (state.terms or loss(state.network(*PAIR), *PAIR))["loss"])
        if tolerance is not None and best.stalls(tolerance):
            break
    return best, state


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_gradient_descent_follows_its_closed_form_exactly(steps):
    result = adapt(OneWeight(3.0), Parabola(), SGD, versions(1.0, steps))
    # w_k = c + (1 - lr)^k (w_0 - c): powers of two, exact in floating point.
    assert result.network.weight.item() == 1 + 2 * 0.5**steps
    assert result.losses.tolist() == [2 * 0.25**k for k in range(steps)]


def test_every_step_uses_its_own_mini_batch():
    targets = [1.0, -2.0, 4.0]
    batches = [next(iter(versions(target, 1))) for target in targets]
    result = adapt(OneWeight(0.0), Parabola(), SGD, batches)
    # 0 -> 0.5 -> -0.75 -> 1.625
    assert result.network.weight.item() == 1.625
    assert result.losses.tolist() == [0.5, 2.5**2 / 2, 4.75**2 / 2]


def test_the_first_step_of_adam_is_the_learning_rate():
    for target, sign in ((50.0, 1), (-0.5, -1)):
        result = adapt(OneWeight(3.0), Parabola(), ADAM, versions(target, 1))
        assert result.network.weight.item() == pytest.approx(3 + sign * 0.01, abs=1e-6)


def test_the_optimiser_is_fresh_for_every_pair():
    network = OneWeight(3.0)
    first = adapt(network, Parabola(), ADAM, versions(1.0, 4)).network.weight.item()
    adapt(network, Parabola(), ADAM, versions(-90.0, 7))
    assert adapt(network, Parabola(), ADAM, versions(1.0, 4)).network.weight.item() == first


def test_no_step_gives_an_equal_copy_and_no_losses():
    network = OneWeight(3.0)
    result = adapt(network, Parabola(), SGD, [])
    assert result.network is not network
    assert result.network.weight.item() == 3.0
    assert result.losses.shape == (0,)


@pytest.mark.parametrize("tolerance, steps", [(None, 6), (0.7, 6), (0.8, 1)])
def test_stops_when_a_step_no_longer_gains_the_tolerated_fraction(tolerance, steps):
    # Every step lowers the loss to a quarter of its value: by 75 %.
    best, end = states(OneWeight(3.0), Parabola(), SGD, versions(1.0, 6), tolerance)
    assert best.visited - 1 == steps
    assert end.network.weight.item() == 1 + 2 * 0.5**steps


def test_a_loss_that_rises_stops_at_any_tolerance():
    diverging = partial(torch.optim.SGD, lr=2.5)
    _best, end = states(OneWeight(3.0), Parabola(), diverging, versions(1.0, 6), 0.0)
    # w_1 = 1 - 1.5 * 2; the loss there is above the first, so no second step follows.
    assert end.network.weight.item() == -2.0


def test_tolerance_works_for_negative_losses():
    class Negative(Parabola):
        def forward(self, ddf, pair, labels=None):
            return {"loss": super().forward(ddf, pair)["loss"] - 10}

    # From -8 to -9.5: by 1.5 / 8, then by 0.375 / 9.5 = 4 %.
    best, _end = states(OneWeight(3.0), Negative(), SGD, versions(1.0, 6), 0.1)
    assert best.losses.tolist() == [-8.0, -9.5, -9.875]


def test_steps_are_reported_before_the_weights_change():
    loop = inner_loop(OneWeight(3.0), Parabola(), SGD, versions(1.0, 3))
    seen = [(state.network.weight.item(), [term.item() for term in state.terms.values()]) for state in loop]
    assert seen == [(3.0, [2.0]), (2.0, [0.5]), (1.5, [0.125]), (1.25, [])]


def test_a_loss_that_is_not_finite_raises_and_names_the_step():
    exploding = partial(torch.optim.SGD, lr=1e30)
    with pytest.raises(FloatingPointError, match="inf at adaptation step 1; lower inner_lr"):
        adapt(OneWeight(3.0), Parabola(), exploding, versions(1.0, 4))
    with pytest.raises(FloatingPointError, match="nan at adaptation step 0"):
        adapt(OneWeight(3.0), Parabola(), SGD, versions(float("nan"), 2))


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_works_whatever_the_caller_does_with_gradients(context):
    network = OneWeight(3.0)
    batches = list(versions(1.0, 3))
    with context():
        result = adapt(network, Parabola(), SGD, batches)
    assert result.network.weight.item() == 1.25
    assert result.network.weight.requires_grad
    assert not result.network.weight.is_inference()


def test_the_adapted_copy_carries_no_gradients():
    result = adapt(OneWeight(3.0), Parabola(), SGD, versions(1.0, 3))
    assert result.network.weight.grad is None
    assert not result.losses.requires_grad


@pytest.fixture
def network(local_net):
    """Small LocalNet with gradients and a buffer."""
    network = RegistrationNetwork(local_net)
    network.register_buffer("counter", torch.tensor([3.0, 4.0]))
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 0.25)
    return network


def pair(seed):
    return torch.rand(1, 2, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("training", [True, False])
def test_the_given_network_stays_bit_identical(network, training):
    network.train(training)
    before = copy.deepcopy(network.state_dict())
    loss = RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), 10.0)
    result = adapt(network, loss, ADAM, repeat((pair(0), None), 3))
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(p.grad, torch.full_like(p, 0.25)) for p in network.parameters())
    assert all(module.training is training for module in network.modules())
    parameters = zip(network.parameters(), result.network.parameters(), strict=True)
    assert max((given - adapted).abs().max() for given, adapted in parameters) > 0.005


def test_a_step_on_a_real_network_is_plain_torch(network):
    loss = RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), 10.0)
    reference = copy.deepcopy(network)
    optimizer = ADAM(reference.parameters())
    history = []
    for _ in range(2):
        optimizer.zero_grad()
        value = loss(reference(pair(0)), pair(0))["loss"]
        history.append(value.item())
        value.backward()
        optimizer.step()
    result = adapt(network, loss, ADAM, repeat((pair(0), None), 2))
    assert result.losses.tolist() == history
    for expected, found in zip(reference.parameters(), result.network.parameters(), strict=True):
        assert torch.equal(expected, found)


def test_labels_reach_the_loss():
    class Labelled(Parabola):
        def forward(self, ddf, pair, labels=None):
            return {"loss": (ddf - labels).square().mean() / 2}

    labels = torch.full((1, 1, 1, 1, 1), 7.0)
    result = adapt(OneWeight(3.0), Labelled(), SGD, [(torch.ones(1, 2, 1, 1, 1), labels)])
    np.testing.assert_array_equal(result.network.weight.item(), 5.0)


@pytest.mark.parametrize(("tolerance", "visited"), [(None, 4), (0.01, 2)])
def test_steps_of_registration_wait_for_the_device_only_to_stop_early(tolerance, visited):
    """Tensors without values: to read one, which on a GPU is to wait, raises; what is read at the end, too."""
    settings = {"precision": "float32", "map_weights": None, "step_sizes": None}
    parser = read_configuration("inference.yaml", settings)
    network, loss, optimizer = (
        parser.get_parsed_content(name) for name in ("registration_network", "adaptation_loss", "inner_optimizer")
    )
    best = BestState()
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(DataDependentOutputException):
        pair = torch.rand(1, 2, 48, 48, 48)
        for state in inner_loop(network, loss, optimizer, repeat((pair, None), 3)):
            best.visit(state.network, state.terms["loss"] if state.terms else loss(network(pair), pair)["loss"])
            if tolerance is not None and best.stalls(tolerance):
                break
        assert best.losses.isfinite().all()
    assert best.visited == visited


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_states_after_a_number_that_is_not_finite_do_not_count(value):
    best = BestState()
    for weight, loss in ((0.0, 3.0), (1.0, 2.0), (2.0, value), (3.0, 1.0)):
        best.visit(OneWeight(weight), torch.tensor(loss))
    assert (best.step, best.stopped, best.taken) == (1, "loss", 2)
    network = OneWeight(9.0)
    best.restore(network)
    assert network.weight.item() == 1.0
