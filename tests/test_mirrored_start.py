"""The start as the mean of the pair's and its mirror image's: what one side gets and not the other is halved."""

from functools import partial

import pytest
import torch
from monai.bundle import ConfigParser
from monai.losses import BendingEnergyLoss
from torch import nn

from bundle.registration import AdaptationInferer, RegistrationLoss, RegistrationNetwork
from bundle.system import BUNDLE_ROOT

SHAPE = (16, 8, 8)


def mirrored(ddf, axis):
    flipped = ddf.flip(2 + axis)
    return torch.cat([-part if index == axis else part for index, part in enumerate(flipped.split(1, dim=1))], dim=1)


def pair(seed=0):
    return torch.rand(1, 2, *SHAPE, generator=torch.Generator().manual_seed(seed))


def inferer(steps, axis, lr=0.01):
    loss = RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), 0.01)
    optimizer = partial(torch.optim.Adam, lr=lr)
    return AdaptationInferer(loss, optimizer, steps=steps, keep_alignment=False, mirror_axis=axis)


@pytest.fixture
def network(local_net):
    return RegistrationNetwork(local_net)


class Shift(nn.Module):
    """``u = w`` everywhere, whatever the images show."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, pair):
        return self.weight.reshape(1, 3, 1, 1, 1).expand(1, 3, *pair.shape[2:])


@pytest.mark.parametrize("axis", [0, 1])
def test_the_start_is_the_mean_of_both(network, axis):
    with torch.no_grad():
        expected = (network(pair()) + mirrored(network(pair().flip(2 + axis)), axis)) / 2
    result = inferer(0, axis)(pair(), network)
    assert torch.allclose(result["ddf"], expected, atol=1e-6)
    assert not torch.allclose(result["ddf"], inferer(0, None)(pair(), network)["ddf"], atol=1e-3)


def test_a_mirrored_pair_starts_from_the_mirrored_field(network):
    register = inferer(0, 0)
    straight, other = (register(images, network)["ddf"] for images in (pair(), pair().flip(2)))
    assert torch.allclose(other, mirrored(straight, 0), atol=1e-6)


def test_a_shift_to_one_side_is_an_error_that_the_mirror_image_takes_away():
    field = inferer(0, 0)(pair(), Shift([2.0, 1.0, -3.0]))["ddf"]
    assert field[0, :, 3, 3, 3].tolist() == [0.0, 1.0, -3.0]


def test_the_steps_go_on_from_there_and_what_the_mirror_image_added_stays():
    ramp = torch.arange(16.0).reshape(1, 1, 16, 1, 1).expand(1, 1, *SHAPE)
    images = torch.cat([ramp, ramp + 2], dim=1)
    result = inferer(2, 0, lr=0.5)(images, Shift([3.0, 0.0, 0.0]))
    # From 0 in place of 3, and Adam's step on a ramp is its learning rate: half a voxel towards the other image.
    assert result["ddf"][0, 0, 3, 3, 3].item() == pytest.approx(1.0, abs=1e-2)
    assert result["losses"][0, 0].item() == pytest.approx(4.0)
    assert result["losses"][0, 2].item() < result["losses"][0, 1].item() < 4.0


def test_the_losses_are_those_of_the_fields_that_the_steps_reach(network):
    register = inferer(2, 0)
    result = register(pair(), network)
    assert result["losses"][0, result["best_step"]].item() == pytest.approx(
        register.loss(result["ddf"], pair())["loss"].item(), abs=1e-6
    )


def test_a_velocity_field_with_a_mirror_image_has_no_inverse_of_its_own(local_net):
    network = RegistrationNetwork(local_net, integration_steps=3)
    assert "inverse_ddf" in inferer(0, None)(pair(), network)
    assert "inverse_ddf" not in inferer(0, 0)(pair(), network)


@pytest.mark.parametrize(
    ("files", "weights", "axis"),
    [
        ([], None, 0),
        (["presets/cpu", "overlays/mr_trus"], None, 0),
        (["presets/hippocampus_mr"], None, None),
        ([], "elsewhere/models/model.pt", None),
        (["overlays/2d"], None, None),
    ],
)
def test_what_ships_for_the_prostate_starts_from_both(files, weights, axis):
    paths = [str(BUNDLE_ROOT / f"configs/{name}.yaml") for name in ["inference", *files]]
    own = {} if weights is None else {"weights": weights}
    parser = ConfigParser({**ConfigParser.load_config_files(paths), "map_weights": None, **own})
    assert parser.get_parsed_content("inferer").mirror_axis == axis
