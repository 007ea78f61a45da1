"""A field optimised without a network: closed form, a known shift, no pair depending on another."""

from functools import partial

import pytest
import torch
from monai.bundle import ConfigParser
from monai.losses import BendingEnergyLoss, LocalNormalizedCrossCorrelationLoss
from torch import nn
from workflow_fixtures import INFERENCE, ROOT

from bundle.registration import (
    ClassicalInferer,
    DisplacementField,
    MSELoss,
    RegistrationLoss,
    RegistrationNetwork,
    adapt,
)
from bundle.registration.inferers import per_sum


class Distance(nn.Module):
    """``L = mean_x (u(x) - 2)^2 / 2``."""

    def forward(self, ddf, pair, labels=None):
        loss = 0.5 * ((ddf - 2) ** 2).mean()
        return {"loss": loss, "similarity": loss}


def sgd(lr):
    return partial(torch.optim.SGD, lr=lr)


def classical(steps=3, lr=0.1, loss=None):
    return ClassicalInferer(loss or Distance(), sgd(lr), steps=steps)


@pytest.mark.parametrize("shape", [(4, 5, 6), (8, 8, 8), (7, 9)])
def test_field_follows_the_loss_summed_over_the_voxels_whatever_the_grid(shape):
    dims = len(shape)
    result = classical()(torch.rand(1, 2, *shape), nn.Identity())
    # The mean is over the components too: every step takes a share lr / dims of the way left.
    expected = 2 - 2 * (1 - 0.1 / dims) ** 3
    torch.testing.assert_close(result["ddf"], torch.full((1, dims, *shape), expected))
    left = torch.tensor([2 * (1 - 0.1 / dims) ** (2 * step) for step in range(4)])
    torch.testing.assert_close(result["losses"][0], left)


def test_the_loop_is_that_of_the_adaptation():
    pair, field = torch.rand(1, 2, 4, 5, 6), DisplacementField((4, 5, 6))
    adapted = adapt(field, Distance(), per_sum(sgd(0.1), 120), [(pair, None)] * 3).network
    torch.testing.assert_close(adapted(pair), classical()(pair, nn.Identity())["ddf"])
    assert not field.ddf.any()


def test_no_steps_leave_the_images_where_they_are():
    result = classical(steps=0)(torch.rand(2, 2, 4, 5, 6), nn.Identity())
    assert result["ddf"].shape == (2, 3, 4, 5, 6)
    assert not result["ddf"].any()


def test_the_field_is_corrected_as_that_of_a_network_is():
    """``u + 1`` is corrected from ``u = 0``: 1 before the steps, and a step of a third of the learning rate on it."""
    register = ClassicalInferer(Distance(), sgd(0.1), steps=1, correction=lambda network, pair: lambda ddf: ddf + 1)
    result = register(torch.rand(1, 2, 4, 5, 6), nn.Identity())
    torch.testing.assert_close(result["losses"][0], torch.tensor([0.5, 0.5 * (1 - 0.1 / 3) ** 2]))
    torch.testing.assert_close(result["ddf"], torch.full((1, 3, 4, 5, 6), 1 + 0.1 / 3))


def blob(centre, shape=(16, 16, 16)):
    grid = torch.stack(torch.meshgrid(*[torch.arange(float(size)) for size in shape], indexing="ij"))
    return torch.exp(-((grid - torch.tensor(centre).reshape(3, 1, 1, 1)) ** 2).sum(0) / 18)[None, None]


def test_a_shifted_blob_is_found_and_pairs_do_not_depend_on_each_other():
    target = blob((8.0, 7.5, 7.5))
    pairs = torch.cat([torch.cat([blob((6.5, 7.5, 7.5)), target], 1), torch.cat([blob((9.0, 7.5, 7.5)), target], 1)])
    register = classical(300, 0.5, RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), 0.01))
    result = register(pairs, nn.Identity())
    assert (result["losses"][:, -1] < 0.1 * result["losses"][:, 0]).all()
    # Halfway down the slope, where the image says where it is.
    assert result["ddf"][0, 0, 5, 7, 7].item() == pytest.approx(-1.5, abs=0.4)
    assert result["ddf"][1, 0, 11, 7, 7].item() == pytest.approx(1.0, abs=0.4)
    torch.testing.assert_close(register(pairs[1:], nn.Identity())["ddf"], result["ddf"][1:])


def test_the_network_plays_no_part_and_stays_as_it_was(local_net):
    network = RegistrationNetwork(local_net)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pair = torch.rand(1, 2, 16, 8, 8)
    register = classical(3, 0.5, RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), 0.01))
    assert torch.equal(register(pair, network)["ddf"], register(pair, nn.Identity())["ddf"])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_works_inside_evaluators_and_servers(context, steps):
    pair = torch.rand(1, 2, 4, 5, 6)
    with context():
        result = classical(steps)(pair, nn.Identity())
    assert not result["ddf"].requires_grad
    assert torch.equal(result["ddf"], classical(steps)(pair, nn.Identity())["ddf"])


def overlay(**values):
    parser = ConfigParser()
    parser.read_config([str(INFERENCE), str(ROOT / "configs/overlays/classical.yaml")])
    parser.update(values)
    return parser


@pytest.mark.parametrize(("weight", "lr"), [(0, 0.01), (2.0, 0.01), (10.0, 0.003), (18.0, 0.03 / 18)])
def test_overlay_is_the_papers_comparison(weight, lr):
    parser = overlay(regularisation_weight=weight)
    inferer = parser.get_parsed_content("inferer")
    assert isinstance(inferer, ClassicalInferer)
    assert inferer.steps == 3000
    stepper = inferer.optimizer(nn.Linear(1, 1).named_parameters())
    assert type(stepper) is torch.optim.SGD
    assert stepper.param_groups[0]["lr"] == pytest.approx(lr)
    assert stepper.param_groups[0]["momentum"] == 0
    assert parser.get_parsed_content("weights") is None


@pytest.mark.parametrize(("size", "dims"), [(24, 3), (32, 2)])
def test_curvature_of_the_bending_energy_is_what_the_learning_rate_allows_for(size, dims):
    # The gradient of a quadratic is its matrix times the field: its repeated application finds the largest curvature.
    field = torch.randn(1, dims, *[size] * dims, generator=torch.Generator().manual_seed(0))
    for _ in range(60):
        field = (field / field.norm()).requires_grad_()
        (field,) = torch.autograd.grad(size**dims * BendingEnergyLoss()(field), field)
    inside = ((size - 2) / size) ** dims
    assert 0.93 * 32 / inside < field.norm() <= 32 / inside
    lr = [
        overlay(regularisation_weight=weight).get_parsed_content("inner_optimizer").keywords["lr"]
        for weight in (2.0, 10.0, 18.0)
    ]
    assert all(lr * weight * 32 / inside < 1.5 for lr, weight in zip(lr, (2.0, 10.0, 18.0), strict=True))


@pytest.mark.parametrize("similarity", [nn.MSELoss(), LocalNormalizedCrossCorrelationLoss(kernel_size=9)])
@pytest.mark.parametrize("weight", [2.0, 18.0])
def test_the_loss_falls_at_the_learning_rate_of_the_overlay(similarity, weight):
    # Noise has the steepest edges that an image in [0, 1] can have.
    pair = torch.rand(1, 2, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    loss = RegistrationLoss(similarity, BendingEnergyLoss(), weight)
    lr = overlay(regularisation_weight=weight).get_parsed_content("inner_optimizer").keywords["lr"]
    losses = classical(40, lr, loss)(pair, nn.Identity())["losses"][0]
    assert (losses.diff() < 0).all()


def test_the_papers_learning_rate_diverges_at_its_weight():
    pair = torch.rand(1, 2, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    losses = classical(30, 0.01, RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), 10.0))(pair, nn.Identity())
    assert losses["losses"][0, -1] > 1000 * losses["losses"][0, 0]


def test_a_masked_pair_is_registered_by_what_is_inside():
    moving, fixed, mask = blob((7.0, 8.0, 8.0)), blob((9.0, 8.0, 8.0)), torch.ones(1, 1, 16, 16, 16)
    mask[..., 12:] = 0
    artefact = 2 * torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0)) * (mask == 0)
    register = classical(100, 0.5, RegistrationLoss(MSELoss(), BendingEnergyLoss(), 0.01))
    clean, spoilt = (
        register(torch.cat([moving, mask, fixed + extra, mask], dim=1), nn.Identity()) for extra in (0, artefact)
    )
    # The moving image is clean and the fixed one is not interpolated: the artefact is not seen at all.
    assert torch.equal(clean["losses"], spoilt["losses"])
    assert torch.equal(clean["ddf"], spoilt["ddf"])
    assert clean["losses"][0, -1] < 0.5 * clean["losses"][0, 0]
    assert clean["ddf"][0, 0, 9, 8, 8] < -1
    plain = register(torch.cat([moving, fixed + artefact], dim=1), nn.Identity())
    assert (plain["ddf"] - clean["ddf"]).abs().max() > 0.3


def test_the_overlay_keeps_the_correction():
    assert overlay().get_parsed_content("inferer").correction is None
    assert overlay(centred_maps=[0]).get_parsed_content("inferer").correction.centred_maps == [0]
