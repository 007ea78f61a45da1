"""The objective: every term with a number worked out by hand."""

import numpy as np
import pytest
import torch
from monai.losses import BendingEnergyLoss, DiffusionLoss
from torch import nn
from toys import affine_ddf

from bundle.registration import LabelLoss, LocalMutualInformationLoss, RegistrationLoss

SHAPE = (10, 8, 6)


def quadratic_ddf():
    """``u_0 = 0.1 i^2``, ``u_1 = 0.3 i j``, ``u_2 = 0``."""
    i, j, _ = torch.meshgrid(*(torch.arange(float(size)) for size in SHAPE), indexing="ij")
    return torch.stack([0.1 * i**2, 0.3 * i * j, torch.zeros(SHAPE)])[None]


def ramp(shift=0.0):
    return affine_ddf([[1.0, 0, 0]], [shift], SHAPE)[None]


def objective(**options):
    return RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), options.pop("regularisation_weight", 10.0), **options)


def test_bending_energy_of_a_quadratic_field():
    # |u_0,ii|^2 = 0.2^2, 2 |u_1,ij|^2 = 2 * 0.3^2, averaged over three components.
    torch.testing.assert_close(BendingEnergyLoss()(quadratic_ddf()), torch.tensor((0.04 + 0.18) / 3))


def test_regularisation_is_weighted_and_added():
    ddf = quadratic_ddf()
    pair = torch.cat([torch.full((1, 1, *SHAPE), 0.5), torch.full((1, 1, *SHAPE), 0.2)], dim=1)
    terms = objective(regularisation_weight=10.0)(ddf, pair)
    assert terms.keys() == {"loss", "similarity", "regularisation"}
    torch.testing.assert_close(terms["similarity"], torch.tensor(0.09))
    torch.testing.assert_close(terms["regularisation"], torch.tensor(0.22 / 3))
    torch.testing.assert_close(terms["loss"], torch.tensor(0.09 + 10 * 0.22 / 3))


def test_diffusion_can_take_the_place_of_bending():
    ddf = affine_ddf([[0.2, 0, 0], [0, 0, 0.4], [0, 0, 0]], [0, 0, 0], SHAPE)[None]
    loss = RegistrationLoss(nn.MSELoss(), DiffusionLoss(), 2.0)
    terms = loss(ddf, torch.zeros(1, 2, *SHAPE))
    torch.testing.assert_close(terms["loss"], torch.tensor(2 * (0.04 + 0.16) / 3))


def test_the_moving_image_is_pulled_back():
    ddf = torch.zeros(1, 3, *SHAPE)
    ddf[:, 0] = 2.0
    # warped(i) = min(i + 2, 9): it matches a fixed image of i + 2 except for the last two layers, off by 1 and 2.
    terms = objective()(ddf, torch.cat([ramp(), ramp(2.0)], dim=1))
    torch.testing.assert_close(terms["loss"], torch.tensor((1.0 + 4.0) / 10))
    unregistered = objective()(0 * ddf, torch.cat([ramp(), ramp(2.0)], dim=1))
    torch.testing.assert_close(unregistered["loss"], torch.tensor(4.0))


# Plain Dice.
OVERLAP = LabelLoss(scales=(1,), distance_weight=0.0)


def test_label_term_is_weighted_and_added():
    ddf, pair = torch.zeros(1, 3, *SHAPE), torch.zeros(1, 2, *SHAPE)
    labels = torch.zeros(1, 2, *SHAPE)
    labels[0, 0, 2:6], labels[0, 1, 4:8] = 1, 1
    terms = objective(label=OVERLAP, label_weight=3.0)(ddf, pair, labels)
    # Half of either block overlaps: Dice 0.5.
    torch.testing.assert_close(terms["label"], torch.tensor(0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(terms["loss"], torch.tensor(1.5), atol=1e-5, rtol=0)


def test_labels_are_warped_with_the_image():
    ddf, labels = torch.zeros(1, 3, *SHAPE), torch.zeros(1, 2, *SHAPE)
    ddf[:, 0] = -2.0
    labels[0, 0, 2:6], labels[0, 1, 4:8] = 1, 1
    terms = objective(label=OVERLAP)(ddf, torch.zeros(1, 2, *SHAPE), labels)
    torch.testing.assert_close(terms["label"], torch.tensor(0.0), atol=1e-5, rtol=0)


def test_a_configured_label_term_without_labels_fails():
    with pytest.raises(ValueError, match="the loss has a label term but the pair has no labels"):
        objective(label=LabelLoss())(torch.zeros(1, 3, *SHAPE), torch.zeros(1, 2, *SHAPE))


def test_labels_without_a_label_term_change_nothing():
    ddf, pair = quadratic_ddf(), torch.rand(1, 2, *SHAPE)
    assert torch.equal(objective()(ddf, pair)["loss"], objective()(ddf, pair, torch.ones(1, 4, *SHAPE))["loss"])


def blocks(*starts):
    label = torch.zeros(1, len(starts), 24, 8, 8)
    for channel, start in enumerate(starts):
        if start is not None:
            label[0, channel, start : start + 4, 2:6, 2:6] = 1
    return label


def test_label_loss_vanishes_on_equal_labels_only():
    loss = LabelLoss(scales=(1, 2), distance_weight=0.1)
    assert LabelLoss(scales=(1,))(blocks(8), blocks(8)).item() == pytest.approx(0, abs=2e-3)
    assert loss(blocks(8), blocks(8)) < loss(blocks(9), blocks(8)) < loss(blocks(11), blocks(8))


def test_distance_is_between_centroids_in_mm():
    near = LabelLoss(scales=(), distance_weight=0.5, pixdim=1.6)(blocks(2), blocks(14))
    assert near.item() == pytest.approx(0.5 * 1.6 * 12, rel=1e-3)


def test_coarse_scales_pull_on_labels_that_do_not_overlap():
    near, far, target = blocks(5), blocks(1), blocks(14)
    assert OVERLAP(near, target) == OVERLAP(far, target)
    wide = LabelLoss(scales=(8,), distance_weight=0.0)
    # Cubes of 8 that end at 8 and 16: only the nearer block reaches into the target's.
    assert wide(near, target) < wide(far, target)


def test_overlap_is_of_the_chosen_structures_and_distance_of_all():
    loss = LabelLoss(overlap_structures=[0], scales=(1,), distance_weight=1.0)
    # The first structure agrees, the second is 3 voxels away: no overlap lost, a mean distance of 1.5.
    assert loss(blocks(8, 5), blocks(8, 8)).item() == pytest.approx(1.5, abs=0.05)


def test_a_structure_absent_on_either_side_contributes_nothing():
    loss = LabelLoss()
    expected = loss(blocks(6), blocks(8))
    assert expected > 0.1
    torch.testing.assert_close(loss(blocks(6, None), blocks(8, 3)), expected)
    torch.testing.assert_close(loss(blocks(6, 3), blocks(8, None)), expected)


def test_no_shared_structure_fails():
    with pytest.raises(ValueError, match="no structure that both labels of the pair contain"):
        LabelLoss()(blocks(6, None), blocks(None, 6))


def test_distance_draws_a_label_towards_its_target():
    ddf = torch.zeros(1, 3, 24, 8, 8, requires_grad=True)
    labels = torch.cat([blocks(4), blocks(16)], dim=1)
    pair = torch.zeros(1, 2, 24, 8, 8)
    objective(label=LabelLoss(scales=(), distance_weight=1.0))(ddf, pair, labels)["loss"].backward()
    # The block has to move up by 12, so the pull-back field wants to go down at its borders.
    assert ddf.grad[0, 0].sum() > 0
    # Across it, what one side wants the other takes back.
    assert ddf.grad[0, 1:].sum((1, 2, 3)).abs().max() < 1e-3 * ddf.grad[0, 0].sum()


@pytest.fixture
def texture():
    noise = torch.rand(1, 1, 18, 16, 24, generator=torch.Generator().manual_seed(0))
    return nn.functional.avg_pool3d(noise, 3, stride=1, padding=1)


def inverted_in_halves(image):
    """Inverted in the upper half: no single intensity relation holds, one per patch does."""
    result = image.clone()
    result[..., 8:, :] = 1 - result[..., 8:, :]
    return result


def test_local_mutual_information_does_not_mind_an_inverted_region(texture):
    loss = LocalMutualInformationLoss(patch_size=8)
    same, inverted = loss(texture, texture), loss(inverted_in_halves(texture), texture)
    shifted = loss(texture.roll(4, dims=4), texture)
    assert (inverted - same).abs() < 0.1 * (shifted - same)
    # SSD prefers the misaligned image to the aligned one.
    ssd = nn.MSELoss()
    assert ssd(inverted_in_halves(texture), texture) > ssd(texture.roll(4, dims=4), texture)


def test_local_mutual_information_is_the_mean_over_patches(texture):
    loss = LocalMutualInformationLoss(patch_size=8)
    other = texture.roll(1, dims=4)
    corners = [(slice(x, x + 8), slice(y, y + 8), slice(z, z + 8)) for x in (0, 8) for y in (0, 8) for z in (0, 8, 16)]
    patches = [
        torch.cat([image[(slice(None), slice(None), *corner)] for corner in corners]) for image in (other, texture)
    ]
    # The last two of 18 layers are narrower than a patch and left out.
    torch.testing.assert_close(loss(other, texture), loss.mutual_information(*patches))
    assert loss(other, texture) < 0


def test_local_mutual_information_works_in_two_dimensions_and_has_a_gradient(texture):
    image = texture[:, :, 9].clone().requires_grad_()
    LocalMutualInformationLoss(patch_size=8)(image, texture[:, :, 9]).backward()
    assert image.grad.abs().sum() > 0


def test_local_mutual_information_refuses_images_smaller_than_a_patch(texture):
    with pytest.raises(ValueError, match=r"\(18, 16, 24\) is smaller than a patch of 17 voxels; lower patch_size"):
        LocalMutualInformationLoss(patch_size=17)(texture, texture)


def test_the_loss_has_a_gradient_towards_the_fixed_image():
    ddf = torch.zeros(1, 3, *SHAPE, requires_grad=True)
    objective()(ddf, torch.cat([ramp(), ramp(2.0)], dim=1))["loss"].backward()
    # dL/du = 2 (i + u - i - 2) / n, at every voxel but those on the border, whose samples are held there.
    np.testing.assert_allclose(ddf.grad[0, 0, 1:9], -4 / np.prod(SHAPE), rtol=1e-5)
    assert not ddf.grad[0, 1:].any()
