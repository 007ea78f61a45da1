"""The objective: every term with a number worked out by hand."""

import numpy as np
import pytest
import torch
from monai.losses import BendingEnergyLoss, DiffusionLoss
from torch import nn
from toys import affine_ddf

from bundle.geometry import folded_voxels
from bundle.registration import (
    AnatomySimilarity,
    DisplacementField,
    LabelLoss,
    LocalMutualInformationLoss,
    LocalNormalizedCrossCorrelationLoss,
    MSELoss,
    RegistrationLoss,
    adapt,
)
from bundle.registration.adaptation import one_by_one

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


STILL = torch.zeros(1, 3, 24, 8, 8)


def test_label_loss_vanishes_on_equal_labels_only():
    loss = LabelLoss(scales=(1, 2), distance_weight=0.1)
    assert LabelLoss(scales=(1,))(STILL, blocks(8), blocks(8)).item() == pytest.approx(0, abs=2e-3)
    assert loss(STILL, blocks(8), blocks(8)) < loss(STILL, blocks(9), blocks(8)) < loss(STILL, blocks(11), blocks(8))


def test_distance_is_between_points_in_mm():
    near = LabelLoss(scales=(), distance_weight=0.5, pixdim=1.6)(STILL, blocks(2), blocks(14))
    assert near.item() == pytest.approx(0.5 * 1.6 * 12, rel=1e-3)


def test_coarse_scales_pull_on_labels_that_do_not_overlap():
    near, far, target = blocks(5), blocks(1), blocks(14)
    torch.testing.assert_close(OVERLAP(STILL, near, target), OVERLAP(STILL, far, target))
    wide = LabelLoss(scales=(8,), distance_weight=0.0)
    # Cubes of 8 that end at 8 and 16: only the nearer block reaches into the target's.
    assert wide(STILL, near, target) < wide(STILL, far, target)


def test_overlap_is_of_the_chosen_structures_and_distance_of_all():
    loss = LabelLoss(overlap_structures=[0], scales=(1,), distance_weight=1.0)
    # The first structure agrees, the second is 3 voxels away: no overlap lost, a mean distance of 1.5.
    assert loss(STILL, blocks(8, 5), blocks(8, 8)).item() == pytest.approx(1.5, abs=0.05)


def test_a_structure_absent_on_either_side_contributes_nothing():
    loss = LabelLoss()
    expected = loss(STILL, blocks(6), blocks(8))
    assert expected > 0.1
    torch.testing.assert_close(loss(STILL, blocks(6, None), blocks(8, 3)), expected)
    torch.testing.assert_close(loss(STILL, blocks(6, 3), blocks(8, None)), expected)


def test_no_shared_structure_fails():
    with pytest.raises(ValueError, match="no structure that both labels of the pair contain"):
        LabelLoss()(STILL, blocks(6, None), blocks(None, 6))


def test_distance_is_that_of_the_point_that_the_field_carries():
    # u(x) = (0.5 (x_0 - 3), 0, 0): the fixed point at 15.5 goes to 21.75, where the moving one is at 9.5.
    field = affine_ddf([[0.5, 0, 0], [0, 0, 0], [0, 0, 0]], [-1.5, 0, 0], (24, 8, 8))[None]
    loss = LabelLoss(scales=(), distance_weight=1.0, pixdim=2.0)(field, blocks(8), blocks(14))
    assert loss.item() == pytest.approx(2 * (21.75 - 9.5), rel=1e-4)


def test_shrinking_what_is_around_a_point_does_not_bring_it_closer():
    """The centroid of the warped label can be had without moving the point; the point cannot."""
    fixed, moving = blocks(14), blocks(8)
    # Everything in the fixed image comes from the moving block's middle, but for the fixed point itself.
    towards = (9.5 - torch.arange(24.0)).reshape(1, 1, 24, 1, 1).expand(1, 1, 24, 8, 8)
    field = torch.cat([towards, torch.zeros(1, 2, 24, 8, 8)], dim=1).clone()
    field[:, 0, 14:18] = 0
    loss = LabelLoss(scales=(), distance_weight=1.0)
    assert loss(field, moving, fixed).item() == pytest.approx(6.0, rel=1e-3)


def test_overlap_of_soft_maps_is_best_where_they_are_equal():
    soft = torch.rand(1, 2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    loss = AnatomySimilarity(scales=(1, 2))
    assert loss(soft, soft).item() == pytest.approx(0, abs=1e-6)
    # 1 - 2 * 0.5 / (0.5^2 + 1) of maps that are half as certain, at every scale.
    assert loss(0.5 * soft, soft).item() == pytest.approx(0.2, abs=1e-5)
    assert loss(soft.flip(2), soft) > 0.05


def with_maps(moving, fixed):
    """A joined pair of black images with their masks and maps."""
    sides = [
        torch.cat([torch.zeros_like(maps[:, :1]), torch.ones_like(maps[:, :1]), maps], dim=1)
        for maps in (moving, fixed)
    ]
    return torch.cat(sides, dim=1)


def test_the_maps_that_lead_count_in_the_loss_and_all_in_the_whole():
    organ, landmark, elsewhere = torch.zeros(3, 1, 1, *SHAPE)
    organ[..., 2:5, 2:5, 2:5], landmark[..., 1, 1, 1], elsewhere[..., 8, 6, 5] = 1, 1, 1
    ones = torch.ones(1, 2, *SHAPE)  # image and mask
    joined = torch.cat([ones, organ, landmark, ones, organ, elsewhere], 1)

    def terms(leading):
        anatomy = {"anatomy": AnatomySimilarity((1,)), "anatomy_weight": 2.0, "leading_maps": leading}
        loss = RegistrationLoss(MSELoss(), BendingEnergyLoss(), 0.0, **anatomy)
        return {name: term.item() for name, term in loss(torch.zeros(1, 3, *SHAPE), joined).items()}

    assert terms([0]) == pytest.approx(
        {"loss": 0, "whole": 1, "anatomy": 0.5, "similarity": 0, "regularisation": 0}, abs=1e-4
    )
    assert terms([1]) == pytest.approx(
        {"loss": 2, "whole": 1, "anatomy": 0.5, "similarity": 0, "regularisation": 0}, abs=1e-4
    )
    assert terms(None) == pytest.approx({"loss": 1, "anatomy": 0.5, "similarity": 0, "regularisation": 0}, abs=1e-4)
    with pytest.raises(ValueError, match=r"leading_maps is \[2\] and the pair has 2 maps, counted from 0"):
        terms([2])


def test_labels_count_in_the_whole_too():
    """With labels of a new pair a result was judged without them."""
    organ, ones = torch.zeros(1, 1, *SHAPE), torch.ones(1, 2, *SHAPE)
    organ[..., 2:5, 2:5, 2:5] = 1
    settings = {
        "anatomy": AnatomySimilarity((1,)),
        "label": LabelLoss((), (1,), distance_weight=1.0),
        "label_weight": 5.0,
    }
    loss = RegistrationLoss(MSELoss(), BendingEnergyLoss(), 0.0, leading_maps=[0], **settings)
    joined, labels = torch.cat([ones, organ, ones, organ], 1), torch.cat([organ, organ.roll(2, 2)], 1)
    terms = loss(torch.zeros(1, 3, *SHAPE), joined, labels)
    assert terms["label"].item() == pytest.approx(2.0, abs=1e-3)
    assert terms["whole"].item() == pytest.approx(10.0, abs=5e-3) == terms["loss"].item()


def test_anatomy_term_is_weighted_and_added_and_its_optimum_is_the_known_shift():
    loss = RegistrationLoss(MSELoss(), BendingEnergyLoss(), 0.0, anatomy=AnatomySimilarity((1,)), anatomy_weight=3.0)
    pair = with_maps(blocks(6), blocks(10))
    values = []
    for shift in range(-6, 3):
        ddf = torch.zeros(1, 3, 24, 8, 8)
        ddf[:, 0] = shift
        terms = loss(ddf, pair)
        torch.testing.assert_close(terms["loss"], 3 * terms["anatomy"])
        values.append(terms["anatomy"].item())
    # The fixed block at 10 comes from the moving one at 6; one voxel beside it, a quarter of it is missed.
    assert values[2] == pytest.approx(0, abs=1e-4)
    assert values[1] == pytest.approx(0.25, abs=1e-4)
    assert min(values) == values[2]


def test_an_anatomy_term_without_maps_fails():
    with pytest.raises(ValueError, match="the loss has an anatomy term but the pair has no maps"):
        objective(anatomy=AnatomySimilarity())(torch.zeros(1, 3, *SHAPE), torch.zeros(1, 4, *SHAPE))


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


# --- masks ------------------------------------------------------------------------------------------------------------


def masked_pair(moving_mask=None, fixed_mask=None, shift=2.0):
    """Ramps, each followed by its mask; of ones where none is given."""
    ones = torch.ones(1, 1, *SHAPE)
    return torch.cat(
        [ramp(), ones if moving_mask is None else moving_mask, ramp(shift), ones if fixed_mask is None else fixed_mask],
        dim=1,
    )


def slab(start, stop):
    mask = torch.zeros(1, 1, *SHAPE)
    mask[:, :, start:stop] = 1
    return mask


def masked_objective(weight=10.0):
    return RegistrationLoss(MSELoss(), BendingEnergyLoss(), weight)


def test_the_similarity_is_of_the_overlap_of_warped_and_fixed_mask():
    ddf = torch.zeros(1, 3, *SHAPE)
    ddf[:, 0] = 1.0
    # warped(i) = i + 1, warped mask = layers 1 to 4, fixed mask = layers 3 to 9: layers 3 and 4 remain, off by 1.
    terms = masked_objective()(ddf, masked_pair(slab(2, 6), slab(3, 10)))
    torch.testing.assert_close(terms["similarity"], torch.tensor(1.0))
    assert terms.keys() == {"loss", "similarity", "regularisation"}


def test_masks_of_ones_are_no_masks():
    ddf = quadratic_ddf()
    plain = objective()(ddf, torch.cat([ramp(), ramp(2.0)], dim=1))
    torch.testing.assert_close(masked_objective()(ddf, masked_pair()), plain)


def test_outside_the_mask_only_the_regularisation_has_a_gradient():
    ddf = quadratic_ddf().requires_grad_()
    terms = masked_objective()(ddf, masked_pair(fixed_mask=slab(0, 6)))
    (similarity,) = torch.autograd.grad(terms["similarity"], ddf, retain_graph=True)
    (total,) = torch.autograd.grad(terms["loss"], ddf, retain_graph=True)
    (bending,) = torch.autograd.grad(10 * terms["regularisation"], ddf)
    assert similarity[:, :, :6].abs().max() > 0
    assert not similarity[:, :, 6:].any()
    torch.testing.assert_close(total[:, :, 6:], bending[:, :, 6:])
    assert bending[:, :, 6:].abs().max() > 0


def test_a_smaller_overlap_is_no_way_to_a_smaller_loss():
    """The masks' overlap changes with the field, but has no gradient."""
    ddf = torch.zeros(1, 3, *SHAPE, requires_grad=True)
    pair = masked_pair(moving_mask=slab(0, 5))
    (gradient,) = torch.autograd.grad(masked_objective(0.0)(ddf, pair)["loss"], ddf)
    # dL/du = 2 (i + u - i - 2) / n inside, whatever the mask does at its edge.
    np.testing.assert_allclose(gradient[0, 0, 1:5], -4 / (5 * np.prod(SHAPE[1:])), rtol=1e-5)
    assert not gradient[0, 0, 5:].any()


def test_masks_that_do_not_overlap_are_refused_before_a_loss_that_is_not_finite():
    pair = masked_pair(slab(0, 3), slab(5, 9))
    assert not masked_objective()(torch.zeros(1, 3, *SHAPE), pair)["loss"].isfinite()
    with pytest.raises(ValueError, match="the masks of the two images do not overlap; check fixed_mask, moving_mask"):
        one_by_one(lambda pair, labels: {"ddf": pair}, torch.cat([masked_pair(), pair]), None)


def test_a_similarity_that_takes_no_mask_is_named():
    with pytest.raises(
        ValueError, match="the pair has masks, which MSELoss does not take; choose a similarity of bundle"
    ):
        objective()(torch.zeros(1, 3, *SHAPE), masked_pair())


@pytest.fixture(scope="module")
def fan():
    """A blob that has moved by two voxels, seen through a slab; beside it a bright bar that has not moved."""
    i, j, k = torch.meshgrid(*(torch.arange(float(size)) for size in (16, 14, 14)), indexing="ij")
    moving, fixed = (torch.exp(-((i - 7) ** 2 + (j - c) ** 2 + (k - 6) ** 2) / 12) for c in (4.5, 6.5))
    mask = (j < 11).float()
    return [part[None, None] for part in (moving, fixed, mask, 3 * (j == 12).float())]


def registered(pair, similarity, steps=60):
    """Losses and field of an optimisation of the field itself."""
    loss = RegistrationLoss(similarity, BendingEnergyLoss(), 0.02)
    adaptation = adapt(
        DisplacementField(pair.shape[2:]), loss, lambda p: torch.optim.Adam(p, lr=0.05), [(pair, None)] * steps
    )
    return adaptation.losses, adaptation.network.ddf.detach()


@pytest.mark.parametrize("similarity", [MSELoss(), LocalNormalizedCrossCorrelationLoss(kernel_size=5)])
def test_an_artefact_outside_the_mask_changes_a_registration_without_it_only(fan, similarity):
    moving, fixed, mask, bar = fan
    clean, spoilt = [torch.cat([moving, fixed], dim=1), torch.cat([moving + bar, fixed + bar.roll(1, dims=3)], dim=1)]
    seen, seen_spoilt = (torch.cat([p[:, :1], mask, p[:, 1:], mask], dim=1) for p in (clean, spoilt))
    without, without_spoilt = registered(clean, similarity), registered(spoilt, similarity)
    assert (without_spoilt[1] - without[1]).abs().max() > 0.3
    (losses, ddf), (losses_spoilt, ddf_spoilt) = registered(seen, similarity), registered(seen_spoilt, similarity)
    assert losses[-1] < losses[0]
    # The first step does not move a voxel across the edge of the mask; later ones interpolate over it.
    torch.testing.assert_close(losses_spoilt[0], losses[0])
    inside = ddf[..., :10, :]
    assert (ddf_spoilt[..., :10, :] - inside).abs().mean() < 0.1 * inside.abs().mean()


def test_the_field_goes_on_smoothly_outside_the_mask(fan):
    moving, fixed, mask, _ = fan
    _, ddf = registered(torch.cat([moving, mask, fixed, mask], dim=1), MSELoss(), steps=200)
    assert ddf[:, 1, 7, 6, 6].item() < -1
    outside = ddf[..., 11:, :]
    assert outside.abs().max() > 0.05
    assert BendingEnergyLoss()(outside) < BendingEnergyLoss()(ddf)
    # No term moves the very edges of the volume.
    assert folded_voxels(ddf[0, :, 1:-1, 1:-1, 1:-1]) == 0


def test_no_leading_maps_at_all_are_refused():
    with pytest.raises(ValueError, match=r"leading_maps is \[\]; expected maps, counted from 0"):
        RegistrationLoss(MSELoss(), BendingEnergyLoss(), 0.0, leading_maps=[])


def test_maps_that_lead_where_there_are_none_are_refused():
    with pytest.raises(ValueError, match=r"leading_maps is \[0\] and there are no maps; give map_weights, or null"):
        RegistrationLoss(MSELoss(), BendingEnergyLoss(), 0.0, leading_maps=[0])
