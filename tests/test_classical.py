"""A field optimised without a network: closed form, a known shift, no pair depending on another."""

from functools import partial

import pytest
import torch
from monai.bundle import ConfigParser
from monai.losses import BendingEnergyLoss
from torch import nn
from workflow_fixtures import INFERENCE, ROOT

from bundle.registration import ClassicalInferer, DisplacementField, RegistrationLoss, adapt
from bundle.registration.classical import per_sum


class Distance(nn.Module):
    """``L = mean_x (u(x) - 2)^2 / 2``."""

    def forward(self, ddf, pair, labels=None):
        return {"loss": 0.5 * ((ddf - 2) ** 2).mean()}


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


def test_overlay_is_the_papers_comparison():
    parser = ConfigParser()
    parser.read_config([str(INFERENCE), str(ROOT / "configs/classical.yaml")])
    inferer = parser.get_parsed_content("inferer")
    assert isinstance(inferer, ClassicalInferer)
    assert inferer.steps == 3000
    stepper = inferer.optimizer(nn.Linear(1, 1).named_parameters())
    assert isinstance(stepper, torch.optim.SGD)
    assert stepper.param_groups[0]["lr"] == 0.01
    assert not parser.get_parsed_content("weights")
