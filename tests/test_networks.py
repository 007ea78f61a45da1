"""Networks: identity at the start, instance statistics, exact affine fields at any size, composition."""

import copy
from itertools import repeat

import numpy as np
import pytest
import torch
from monai.networks.nets import GlobalNet, LocalNet
from torch import nn
from toys import affine_ddf

from bundle.api import read_configuration
from bundle.geometry import integrate
from bundle.registration import FixedSizeNetwork, GlobalThenLocal, RegistrationNetwork, adapt, use_instance_statistics
from bundle.registration.networks import SafeConv3d, has_bfloat16

SHAPE = (16, 8, 8)


class Constant(nn.Module):
    """Predicts one field for every pair and remembers the last pair."""

    def __init__(self, ddf):
        super().__init__()
        self.ddf = nn.Parameter(ddf)

    def forward(self, pair):
        self.pair = pair
        return self.ddf.expand(len(pair), *self.ddf.shape)


@pytest.fixture
def pairs():
    return torch.rand(4, 2, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_local_net_of_the_configuration_starts_as_the_identity(content, pairs):
    network = RegistrationNetwork(content("train.yaml", "network_def", channels=2))
    ddf = network(pairs[:1])
    assert ddf.shape == (1, 3, *SHAPE)
    assert not ddf.any()
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_training_and_evaluation_mode_agree(local_net, pairs):
    network = RegistrationNetwork(local_net)
    with torch.no_grad():
        training, evaluation = network.train()(pairs[:1]), network.eval()(pairs[:1])
    assert training.abs().max() > 0.01
    assert torch.equal(training, evaluation)


def test_a_batch_of_four_is_four_batches_of_one(local_net, pairs):
    network = RegistrationNetwork(local_net)
    with torch.no_grad():
        together, alone = network(pairs), torch.cat([network(pair[None]) for pair in pairs])
    assert together.std() > 0.01
    assert (together[0] - together[1]).abs().max() > 0.01
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_batch_statistics_would_not_agree(local_net, pairs):
    with torch.no_grad():
        together, alone = local_net(pairs), torch.cat([local_net(pair[None]) for pair in pairs])
    assert (together - alone).abs().max() > 1e-3


def test_names_and_parameters_of_network_def_are_kept(local_net):
    names, parameters = list(local_net.state_dict()), list(local_net.parameters())
    network = use_instance_statistics(local_net)
    assert network is local_net
    assert list(network.state_dict()) == names
    assert all(kept is original for kept, original in zip(network.parameters(), parameters, strict=True))
    assert not any(isinstance(module, nn.BatchNorm3d) for module in network.modules())


def test_flat_weights_load_into_a_wrapped_network_and_back(content, local_net, pairs):
    wrapped = RegistrationNetwork(local_net)
    other = content("inference.yaml", "network_def", channels=2)
    other.load_state_dict(local_net.state_dict())
    with torch.no_grad():
        assert torch.equal(RegistrationNetwork(other)(pairs[:1]), wrapped(pairs[:1]))


def test_running_statistics_are_refused():
    stock = LocalNet(
        spatial_dims=3,
        in_channels=2,
        num_channel_initial=2,
        extract_levels=[0, 1],
        out_channels=3,
        out_kernel_initializer="zeros",
        out_activation=None,
    )
    with pytest.raises(ValueError, match="keeps running statistics.*replace_all_batch_norm_modules_"):
        RegistrationNetwork(stock)


def test_normalisation_without_weights_is_replaced_too():
    network = nn.Sequential(nn.BatchNorm2d(2, eps=0.1, affine=False, track_running_stats=False))
    image = torch.rand(3, 2, 6, 7)
    expected = (image - image.mean((2, 3), keepdim=True)) / (image.var((2, 3), keepdim=True, correction=0) + 0.1).sqrt()
    torch.testing.assert_close(use_instance_statistics(network)(image), expected)


def test_velocity_is_integrated(pairs):
    contraction = -0.3 * np.eye(3)
    velocity = affine_ddf(contraction, 0.3 * (np.array(SHAPE) - 1) / 2, SHAPE)
    plain, integrated = (RegistrationNetwork(Constant(velocity), steps)(pairs[:1]) for steps in (0, 6))
    assert torch.equal(plain[0], velocity)
    assert torch.equal(integrated, integrate(velocity[None], 6))
    # exp(-0.3) - 1 against -0.3; scaling and squaring in 64 parts misses by 0.3^2 / 128 of the radius.
    torch.testing.assert_close(integrated[0], velocity * (1 - np.exp(-0.3)) / 0.3, atol=0.01, rtol=0)


def test_bfloat16_arithmetic_gives_a_float32_field_near_the_exact_one(local_net, pairs):
    exact, rounded = RegistrationNetwork(local_net), RegistrationNetwork(local_net, precision="bfloat16")
    with torch.no_grad():
        expected, found = exact(pairs[:1]), rounded(pairs[:1])
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    # bfloat16 keeps 8 bits: about 1 % of the field's size through some 15 layers.
    assert (found - expected).abs().mean() < 0.05 * expected.abs().max()


def test_an_image_alone_in_its_batch_gives_the_output_and_gradients_of_a_plain_convolution():
    torch.manual_seed(0)
    plain = torch.nn.Conv3d(3, 4, 3, padding=1)
    safe = copy.deepcopy(plain)
    safe.__class__ = SafeConv3d
    images = torch.rand(1, 3, 6, 5, 7)
    outputs = []
    for layer in (plain, safe):
        output = layer(images)
        output.square().sum().backward()
        outputs.append([output, layer.weight.grad, layer.bias.grad])
    for expected, found in zip(*outputs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_gradients_of_shallow_layers_are_those_of_float32(local_net, pairs):
    """The deepest level is 2 voxels deep, where torch's own bfloat16 gradient reads memory it never wrote."""
    network = RegistrationNetwork(local_net, precision="bfloat16")
    deepest = next(m for m in local_net.bottom_block.modules() if isinstance(m, torch.nn.Conv3d)).weight

    def gradient():
        network.zero_grad()
        poison = [torch.full((size,), torch.nan) for size in range(1000, 60000, 2000)]
        del poison
        network(pairs[:1]).square().mean().backward()
        assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
        return deepest.grad.clone()

    gradients = torch.stack([gradient() for _ in range(10)])
    network.precision = torch.float32
    expected = gradient()
    assert expected.abs().max() > 0
    # bfloat16 keeps 8 bits, through some 15 layers and back.
    assert all((found - expected).norm() < 0.2 * expected.norm() for found in gradients)
    assert torch.equal(gradients, gradients[:1].expand_as(gradients))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_global_net_gives_its_exact_affine_at_any_size(precision):
    size, shape = (16, 16, 16), (21, 14, 18)
    network = GlobalNet(list(size), 3, 2, 2, depth=2)
    torch.func.replace_all_batch_norm_modules_(network)
    matrix = np.array([[0.05, -0.1, 0.02], [0.1, 0.08, -0.03], [0.0, 0.06, -0.07]])
    offset = np.array([1.0, -0.5, 2.0])
    theta = np.concatenate([np.eye(3) + matrix, offset[:, None]], axis=1)
    with torch.no_grad():
        network.output_block.fc.bias.copy_(torch.as_tensor(theta.flatten()))
        ddf = RegistrationNetwork(FixedSizeNetwork(network, size), precision=precision)(torch.rand(1, 2, *shape))
    scale = (np.array(shape) - 1) / (np.array(size) - 1)
    expected = affine_ddf(scale[:, None] * matrix / scale, scale * offset, shape)
    assert expected.abs().max() > 3
    torch.testing.assert_close(ddf[0], expected, atol=1e-4, rtol=0)


def test_fixed_size_network_sees_the_pair_at_its_own_size():
    inner = Constant(torch.zeros(2, 8, 9))
    pair = affine_ddf([[1.0, 0.0], [0.0, 2.0]], [0.0, 1.0], (15, 17))[None]
    assert FixedSizeNetwork(inner, (8, 9))(pair).shape == (1, 2, 15, 17)
    torch.testing.assert_close(inner.pair[0], affine_ddf([[2.0, 0.0], [0.0, 4.0]], [0.0, 1.0], (8, 9)))


def test_global_then_local_composes_and_shows_the_local_network_the_aligned_image():
    shape = (12, 10, 8)
    shift = torch.zeros(3, *shape)
    shift[0] = 2.0
    centre = (np.array(shape) - 1) / 2
    shrink = affine_ddf(-0.25 * np.eye(3), 0.25 * centre, shape)
    global_network, local_network = Constant(shrink), Constant(shift)
    pair = affine_ddf([[1.0, 0, 0], [0, 1.0, 0]], [0.0, 5.0], shape)[None]
    composed = GlobalThenLocal(global_network, local_network)(pair)[0]
    # The point goes to x + 2 e_0 first, then towards the centre: u = 2 e_0 - (x + 2 e_0 - c) / 4.
    expected = affine_ddf(-0.25 * np.eye(3), 0.25 * centre + [1.5, 0, 0], shape)
    torch.testing.assert_close(composed[:, :10], expected[:, :10], atol=1e-5, rtol=0)
    assert torch.equal(global_network.pair, pair)
    torch.testing.assert_close(local_network.pair[0, 0], pair[0, 0] + shrink[0], atol=1e-5, rtol=0)
    assert torch.equal(local_network.pair[0, 1], pair[0, 1])


def test_composition_warps_once_what_two_warps_do_twice():
    shape = (12, 10, 8)
    centre = (np.array(shape) - 1) / 2
    fields = [affine_ddf(scale * np.eye(3), -scale * centre, shape) for scale in (-0.2, -0.3)]
    composed = GlobalThenLocal(Constant(fields[0]), Constant(fields[1]))(torch.zeros(1, 2, *shape))[0]
    # 0.8 * 0.7 - 1
    torch.testing.assert_close(composed, affine_ddf(-0.44 * np.eye(3), 0.44 * centre, shape), atol=1e-5, rtol=0)


def test_both_parts_of_a_composite_network_learn():
    parts = [Constant(0.1 * torch.ones(3, 6, 6, 6)) for _ in range(2)]
    composite = RegistrationNetwork(GlobalThenLocal(*parts))
    assert len(list(composite.parameters())) == 2
    composite(torch.rand(1, 2, 6, 6, 6)).sum().backward()
    assert all(part.ddf.grad.any() for part in parts)


@pytest.mark.parametrize("overlay", ["voxelmorph.yaml", "globalnet.yaml", "composite.yaml"])
def test_overlay_networks_run_and_agree_between_modes(content, overlay):
    torch.manual_seed(0)
    sizes = {} if overlay == "voxelmorph.yaml" else {"global_size": [32, 16, 16], "channels": 2}
    network = RegistrationNetwork(content(overlay, "network_def", spatial_dims=3, **sizes), integration_steps=2)
    shape = (32, 32, 32) if overlay == "voxelmorph.yaml" else SHAPE
    pair = torch.rand(1, 2, *shape)
    ddf = network.train()(pair)
    assert ddf.shape == (1, 3, *shape)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(pair), ddf)
    ddf.square().mean().backward()
    assert any(parameter.grad is not None for parameter in network.parameters())


def test_voxelmorph_moves_at_the_start(content):
    torch.manual_seed(0)
    network = RegistrationNetwork(content("voxelmorph.yaml", "network_def", spatial_dims=3))
    with torch.no_grad():
        assert network(torch.rand(1, 2, 32, 32, 32)).abs().max() > 1e-4


def test_a_downsampled_network_sees_averages_and_its_field_is_enlarged():
    coarse = affine_ddf(np.diag([0.1, -0.2, 0.1]), [0.5, 1.0, -1.0], (4, 4, 4))
    network = Constant(coarse)
    pair = torch.rand(1, 2, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    ddf = RegistrationNetwork(network, downsampling=3)(pair)
    assert ddf.shape == (1, 3, 12, 12, 12)
    torch.testing.assert_close(network.pair[0, 1, 2, 0, 3], pair[0, 1, 6:9, 0:3, 9:12].mean())
    # The centre of coarse voxel i is fine voxel 3 i + 1, and a vector is three times as many fine voxels.
    torch.testing.assert_close(ddf[0, :, 1::3, 1::3, 1::3], 3 * coarse, atol=1e-5, rtol=0)


def test_downsampling_below_one_is_refused():
    with pytest.raises(ValueError, match="downsampling is 0; expected 1"):
        RegistrationNetwork(nn.Identity(), downsampling=0)


@pytest.mark.parametrize("downsampling", [1, 2])
def test_the_network_sees_the_images_of_a_pair_with_masks(downsampling, pairs):
    masked = torch.stack([pairs[:, 0], torch.ones(4, *SHAPE), pairs[:, 1], torch.zeros(4, *SHAPE)], dim=1)
    network = Constant(torch.zeros(3, *(size // downsampling for size in SHAPE)))
    wrapped = RegistrationNetwork(network, downsampling=downsampling)
    field = wrapped(masked)
    seen = network.pair
    torch.testing.assert_close(field, wrapped(pairs))
    assert torch.equal(seen, network.pair)


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bfloat16_where_the_device_has_it(local_net, native, monkeypatch):
    monkeypatch.setattr("bundle.registration.networks.has_bfloat16", lambda device: native)
    seen = []
    first = next(module for module in local_net.modules() if isinstance(module, torch.nn.Conv3d))
    first.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    ddf = RegistrationNetwork(local_net, precision="auto")(torch.rand(1, 2, 16, 16, 16))
    assert (seen, ddf.dtype) == ([torch.bfloat16 if native else torch.float32], torch.float32)


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16", None])
def test_bfloat16_is_native_where_the_processor_says_so(monkeypatch, name):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, name: True})
    assert has_bfloat16(torch.device("cpu")) == (name is not None)


@pytest.mark.parametrize("overlay", ["globalnet.yaml", "composite.yaml"])
@pytest.mark.parametrize("lr", [1e-3, 2e-4])
def test_five_steps_that_suit_convolutions_do_not_take_the_image_out_of_view(overlay, lr):
    """Without the scale, the first step of a fresh GlobalNet does, and no gradient brings the image back."""
    settings = {"map_weights": None, "channels": 4, "inner_lr": lr, "precision": "float32", "window_mm": 12}
    parser = read_configuration(["train.yaml", "cpu.yaml", overlay], settings)
    torch.manual_seed(0)
    network, loss, optimizer = map(
        parser.get_parsed_content, ("registration_network", "adaptation_loss", "inner_optimizer")
    )
    image = torch.rand(1, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    fixed = torch.nn.functional.interpolate(image, size=(24, 24, 24), mode="trilinear")
    moving = fixed.roll(2, 2)
    losses = adapt(network, loss, optimizer, repeat((torch.cat([moving, fixed], 1), None), 6)).losses
    assert losses[-1] < losses[0] - 0.002
