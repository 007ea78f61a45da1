"""What a field gets beyond the network's: the mean with the mirror image's, and the centre of the organ."""

from functools import partial

import pytest
import torch
from monai.bundle import ConfigParser
from monai.losses import BendingEnergyLoss
from torch import nn

from bundle.registration import AdaptationInferer, FieldCorrection, MSELoss, RegistrationLoss, RegistrationNetwork
from bundle.system import BUNDLE_ROOT

SHAPE = (16, 8, 8)


def mirrored(ddf, axis):
    flipped = ddf.flip(2 + axis)
    return torch.cat([-part if index == axis else part for index, part in enumerate(flipped.split(1, dim=1))], dim=1)


def pair(seed=0):
    return torch.rand(1, 2, *SHAPE, generator=torch.Generator().manual_seed(seed))


def inferer(steps, axis, lr=0.01):
    loss = RegistrationLoss(MSELoss(), BendingEnergyLoss(), 0.01)
    optimizer = partial(torch.optim.Adam, lr=lr)
    return AdaptationInferer(loss, optimizer, steps=steps, keep_alignment=False, correction=FieldCorrection(axis))


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


@pytest.mark.parametrize("axis", [3, -1, "left"])
def test_an_axis_that_the_images_do_not_have_is_refused(network, axis):
    with pytest.raises(ValueError, match=f"mirror_axis is {axis!r}; expected one of 0, 1, 2, or null"):
        inferer(0, axis)(pair(), network)


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


def test_a_velocity_field_with_a_correction_has_no_inverse_of_its_own(local_net):
    network = RegistrationNetwork(local_net, integration_steps=3)
    register = inferer(0, 0)
    assert "inverse_ddf" not in register(pair(), network)
    register.correction = None
    assert "inverse_ddf" in register(pair(), network)


STILL = Shift([0.0, 0.0, 0.0])


def ball(centre, radius=2.5):
    places = torch.stack(torch.meshgrid(*map(torch.arange, SHAPE), indexing="ij"))
    distance = (places - torch.tensor(centre).reshape(3, 1, 1, 1)).float().norm(dim=0)
    return (distance < radius).float()[None, None]


def with_maps(moving, fixed):
    """Joined pair of noise, masks of ones, and the maps."""
    images = pair()
    sides = [
        torch.cat([images[:, k : k + 1], torch.ones(1, 1, *SHAPE), *maps], 1) for k, maps in ((0, moving), (1, fixed))
    ]
    return torch.cat(sides, 1)


@pytest.mark.parametrize("already", [[0.0, 0.0, 0.0], [1.5, -1.0, 0.5]])
def test_the_centre_of_the_organ_goes_where_the_maps_see_it(already):
    nothing = torch.zeros(1, 1, *SHAPE)
    images = with_maps([nothing, ball((9, 4, 3))], [nothing, ball((6, 3, 4))])
    network = Shift(already)
    corrected = FieldCorrection(centred_maps=[1])(network, images)(network(images))
    # A shift of the whole: it bends nothing.
    for place in ((6, 3, 4), (0, 0, 0), (15, 7, 7)):
        assert corrected[0, :, *place].tolist() == pytest.approx([3.0, 1.0, -1.0], abs=1e-4)


def test_the_shift_alone_needs_no_start():
    def network(pair):
        raise AssertionError("a registration costs one run of the network fewer")

    images = with_maps([ball((9, 4, 3))], [ball((6, 3, 4))])
    for corrected in (FieldCorrection(centred_maps=[0])(network, images), FieldCorrection()(network, images)):
        assert corrected(STILL(images)).shape == (1, 3, *SHAPE)


def test_several_maps_make_one_organ():
    parts = [ball((4, 4, 4), 1.5), ball((10, 4, 4), 1.5)]
    other = [ball((5, 4, 4), 1.5), ball((13, 4, 4), 1.5)]
    corrected = FieldCorrection(centred_maps=[0, 1])(STILL, with_maps(other, parts))(STILL(pair()))
    assert corrected[0, :, 0, 0, 0].tolist() == pytest.approx([2.0, 0.0, 0.0], abs=1e-4)


@pytest.mark.parametrize("side", ["moving", "fixed"])
def test_nothing_is_shifted_for_an_organ_that_one_image_does_not_show(side):
    sides = {"moving": [ball((9, 4, 3))], "fixed": [ball((6, 3, 4))]}
    sides[side] = [0.4 * sides[side][0]]
    corrected = FieldCorrection(centred_maps=[0])(STILL, with_maps(**sides))(STILL(pair()))
    assert not corrected.any()


def test_the_centre_of_what_both_corrections_leave_is_that_of_the_maps(network):
    images = with_maps([ball((9, 4, 3))], [ball((6, 3, 4))])
    network.sees_maps = False
    corrected = FieldCorrection(0, [0])(network, images)
    assert corrected(network(images))[0, :, 6, 3, 4].tolist() == pytest.approx([3.0, 1.0, -1.0], abs=1e-4)


@pytest.mark.parametrize(("moving", "fixed"), [(3.4, 2.6), (2.6, 3.4)])
def test_the_volume_becomes_that_of_the_maps(moving, fixed):
    shape = torch.Size((20, 20, 20))
    places = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij")).float()

    def side(centre, radius):
        distance = (places - torch.tensor(centre).reshape(3, 1, 1, 1)).norm(dim=0)
        # A soft border, so that volumes are not those of a few voxels.
        organ = torch.sigmoid(4 * (2 * radius - distance))
        return torch.stack([torch.rand(shape), torch.ones(shape), organ])[None]

    images = torch.cat([side((11.0, 9.0, 9.5), moving), side((9.0, 9.5, 9.5), fixed)], 1)
    still = STILL(images)
    ddf = FieldCorrection(centred_maps=[0], equal_volumes=True)(STILL, images)(still)
    assert ddf[0, :, 9, 9, 9].tolist() == pytest.approx([2.0, -0.5, 0.0], abs=0.25)
    # Four voxels from the centre of the fixed organ are four times the ratio of the radii from that of the moving one.
    reached = places[:, 13, 9, 9] + ddf[0, :, 13, 9, 9]
    assert reached[0].item() == pytest.approx(11.0 + 4 * moving / fixed, abs=0.15)
    # A shift and a scale bend nothing, but at the faces, beyond which the field of the first round is constant.
    assert BendingEnergyLoss()(ddf[:, :, 4:-4, 4:-4, 4:-4]).item() < 1e-8
    assert (FieldCorrection(centred_maps=[0])(STILL, images)(still)[0, 0, 13, 9, 9] - 2.0).abs() < 0.05


def test_the_centre_stays_while_the_steps_go_on(network):
    network.sees_maps = False
    images = with_maps([ball((9, 4, 3))], [ball((6, 3, 4))])
    register = inferer(2, 0)
    register.correction.centred_maps = [0]
    result = register(images, network)
    assert result["ddf"][0, :, 6, 3, 4].tolist() == pytest.approx([3.0, 1.0, -1.0], abs=1e-4)
    register.steps = 0
    assert (result["ddf"] - register(images, network)["ddf"]).abs().max() > 0.01


def test_a_map_that_the_pair_lacks_is_named():
    with pytest.raises(ValueError, match=r"centred_maps is \[2\] and the pair has 1 maps, counted from 0"):
        FieldCorrection(centred_maps=[2])(STILL, with_maps([ball((9, 4, 3))], [ball((6, 3, 4))]))


HIPPOCAMPUS, SLICES = ["presets/hippocampus_mr"], ["overlays/2d"]


@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        ([], {}, (0, [0], True, [1])),
        (["presets/cpu", "overlays/mr_trus"], {}, (0, [0], False, [])),
        ([], {"map_weights": None}, (0, [], True, [])),
        ([], {"map_weights": None, "held_maps": [1]}, (0, [], True, [1])),  # refused where the pair has no maps
        ([], {"weights": "elsewhere/models/model.pt"}, None),
        (HIPPOCAMPUS, {}, (None, [], True, [0, 1])),
        (SLICES, {}, None),
    ],
)
def test_what_ships_for_the_prostate_corrects_its_start(files, own, expected):
    paths = [str(BUNDLE_ROOT / f"configs/{name}.yaml") for name in ["inference", *files]]
    parser = ConfigParser({**ConfigParser.load_config_files(paths), **own})
    correction = parser.get_parsed_content("inferer").correction
    names = ("mirror_axis", "centred_maps", "equal_volumes", "held_maps")
    assert (correction and tuple(getattr(correction, name) for name in names)) == expected


def test_a_landmark_stays_where_the_start_takes_it():
    point, radius = (6, 3, 4), 2.0
    images = with_maps([ball((9, 4, 3))], [ball(point, 1.0)])
    held = FieldCorrection(held_maps=[0], held_radius=radius)(Shift([1.0, -2.0, 0.5]), images)
    moved = torch.tensor([3.0, -1.0, 0.0]).reshape(1, 3, 1, 1, 1).expand(1, 3, *SHAPE)
    ddf = held(moved)
    assert ddf[0, :, *point].tolist() == pytest.approx([1.0, -2.0, 0.5], abs=1e-5)
    # Two voxels away it is pulled back by exp(-1/2), far away not at all.
    share = torch.exp(torch.tensor(-0.5)).item()
    assert ddf[0, 0, 8, 3, 4].item() == pytest.approx(3.0 - 2.0 * share, abs=1e-5)
    assert ddf[0, :, 15, 3, 4].tolist() == pytest.approx([3.0, -1.0, 0.0], abs=1e-3)
    torch.testing.assert_close(held(Shift([1.0, -2.0, 0.5])(images)), Shift([1.0, -2.0, 0.5])(images))


def test_a_landmark_that_the_fixed_image_does_not_show_holds_nothing():
    images = with_maps([ball((9, 4, 3))], [0.4 * ball((6, 3, 4))])
    ddf = FieldCorrection(held_maps=[0])(STILL, images)(Shift([1.0, 0.0, 0.0])(images))
    torch.testing.assert_close(ddf, Shift([1.0, 0.0, 0.0])(images))
    with pytest.raises(ValueError, match=r"held_maps is \[1\] and the pair has 1 maps, counted from 0"):
        FieldCorrection(held_maps=[1])(STILL, images)


def test_steps_do_not_move_a_landmark_that_is_held():
    images = with_maps([ball((9, 4, 3))], [ball((6, 3, 4))])
    register = inferer(3, None, lr=0.1)
    register.correction = FieldCorrection(held_maps=[0])
    start, ddf = (register(images, Shift([1.0, 0.0, 0.0]))["ddf"] for register.steps in (0, 3))
    assert (start - ddf).abs().amax() > 0.05
    torch.testing.assert_close(start[0, :, 6, 3, 4], ddf[0, :, 6, 3, 4], atol=1e-5, rtol=0)


def test_a_pair_is_corrected_in_inference_mode_too():
    images = with_maps([ball((9, 4, 3))], [ball((6, 3, 4))])
    register = inferer(2, None, lr=0.1)
    register.correction = FieldCorrection(0, centred_maps=[0], equal_volumes=True, held_maps=[0])
    expected = register(images, Shift([1.0, 0.0, 0.0]))["ddf"]
    with torch.inference_mode():
        found = register(images, Shift([1.0, 0.0, 0.0]))["ddf"]
    assert torch.equal(found, expected)
