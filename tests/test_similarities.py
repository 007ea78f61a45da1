"""Similarities within a mask: what is outside counts as nothing, and a mask of ones is no mask."""

import itertools

import monai.losses
import numpy as np
import pytest
import torch
from torch import nn

from bundle.registration import (
    GlobalMutualInformationLoss,
    LocalMutualInformationLoss,
    LocalNormalizedCrossCorrelationLoss,
    MSELoss,
)
from bundle.registration.similarities import takes_mask

SHAPE = (14, 12, 16)
SIMILARITIES = {
    "mse": MSELoss(),
    "correlation": LocalNormalizedCrossCorrelationLoss(kernel_size=5),
    "gaussian_correlation": LocalNormalizedCrossCorrelationLoss(kernel_size=5, kernel_type="gaussian"),
    "information": GlobalMutualInformationLoss(num_bins=16),
    "spline_information": GlobalMutualInformationLoss("b-spline", num_bins=16),
    "local_information": LocalMutualInformationLoss(patch_size=4),
}
each_similarity = pytest.mark.parametrize("similarity", SIMILARITIES.values(), ids=SIMILARITIES)


def texture(seed, batch=1, shape=SHAPE):
    noise = torch.rand(batch, 1, *shape, generator=torch.Generator().manual_seed(seed))
    pooling = nn.functional.avg_pool3d if len(shape) == 3 else nn.functional.avg_pool2d
    return pooling(noise, 3, stride=1, padding=1, count_include_pad=False)


@pytest.fixture
def images():
    """Two images that agree in part."""
    fixed = texture(0)
    return 0.6 * fixed + 0.4 * texture(1), fixed


@pytest.fixture
def mask():
    """A wedge with weights of a half on its edge."""
    i, j, k = torch.meshgrid(*(torch.arange(float(size)) for size in SHAPE), indexing="ij")
    distance = i - (j - 6).abs() + 0 * k
    return ((distance > 2).float() + 0.5 * (distance == 2)).reshape(1, 1, *SHAPE)


@each_similarity
def test_what_lies_outside_changes_neither_value_nor_gradient(similarity, images, mask):
    garbage = [torch.where(mask > 0, image, 5 * torch.rand_like(image) - 2) for image in images]
    results = []
    for warped, fixed in (images, garbage):
        warped = warped.clone().requires_grad_()
        loss = similarity(warped, fixed, mask)
        (gradient,) = torch.autograd.grad(loss, warped)
        assert gradient.abs().max() > 0
        assert not gradient[mask == 0].any()
        results.append((loss.detach(), gradient))
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-5)
    assert (similarity(*garbage) - similarity(*images)).abs() > 1e-3


@each_similarity
def test_without_a_mask_the_loss_is_the_parent_s(similarity, images):
    parent = {
        "MSELoss": nn.MSELoss(),
        "LocalNormalizedCrossCorrelationLoss": monai.losses.LocalNormalizedCrossCorrelationLoss(kernel_size=5),
        "GlobalMutualInformationLoss": monai.losses.GlobalMutualInformationLoss(num_bins=16),
    }.get(type(similarity).__name__)
    if parent is None or getattr(similarity, "kernel_type", "gaussian") != "gaussian":
        pytest.skip("of no parent, or with other arguments")
    if getattr(similarity, "kernel", None) is not None:
        parent.kernel, parent.kernel_vol = similarity.kernel, similarity.kernel_vol
    # Sums of another order, where convolutions are matrix products.
    torch.testing.assert_close(similarity(*images), parent(*images), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("shape", "size"), [((20, 24, 18), 9), ((10, 12, 8), 27), ((40, 30), 5)])
@pytest.mark.parametrize("kind", ["rectangular", "triangular", "gaussian"])
def test_correlation_has_the_gradient_of_its_parent(shape, size, kind):
    """Also where the window is larger than the image."""
    generator = torch.Generator().manual_seed(0)
    warped, fixed = (torch.rand(2, 1, *shape, generator=generator) for _ in range(2))
    options = {"spatial_dims": len(shape), "kernel_size": size, "kernel_type": kind}
    values, gradients = [], []
    for loss in (LocalNormalizedCrossCorrelationLoss, monai.losses.LocalNormalizedCrossCorrelationLoss):
        image = warped.clone().requires_grad_()
        values.append(loss(**options)(image, fixed))
        values[-1].backward()
        gradients.append(image.grad)
    torch.testing.assert_close(*values, atol=1e-5, rtol=0)
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[1].norm()


@pytest.mark.parametrize("name", ["mse", "information", "spline_information", "local_information"])
def test_a_mask_of_ones_is_no_mask(name, images, mask):
    similarity = SIMILARITIES[name]
    torch.testing.assert_close(similarity(*images, torch.ones_like(mask)), similarity(*images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kernel_type", ["rectangular", "triangular", "gaussian"])
@pytest.mark.parametrize("shape", [SHAPE, (15, 18)])
def test_correlation_in_a_mask_of_ones_differs_at_the_border_only(kernel_type, shape):
    similarity = LocalNormalizedCrossCorrelationLoss(len(shape), 5, kernel_type, reduction="none")
    warped, fixed = texture(0, shape=shape), texture(1, shape=shape)
    difference = (similarity(warped, fixed, torch.ones_like(fixed)) - similarity(warped, fixed))[0, 0].abs()
    inner = difference[(slice(2, -2),) * len(shape)]
    assert inner.max() < 1e-4
    assert difference.max() > 0.01


def test_mean_square_in_a_mask_is_that_of_the_voxels_inside(images):
    mask = torch.zeros(1, 1, *SHAPE)
    mask[..., 3:9, 2:7, 4:11] = 1
    inside = [image[..., 3:9, 2:7, 4:11] for image in images]
    torch.testing.assert_close(MSELoss()(*images, mask), nn.functional.mse_loss(*inside))


def test_information_in_a_mask_is_that_of_the_voxels_inside(images):
    mask = torch.zeros(1, 1, *SHAPE)
    mask[..., 3:9, 2:7, 4:11] = 1
    inside = [image[..., 3:9, 2:7, 4:11] for image in images]
    for similarity in (GlobalMutualInformationLoss(num_bins=16), GlobalMutualInformationLoss("b-spline", num_bins=16)):
        torch.testing.assert_close(similarity(*images, mask), similarity(*inside), atol=1e-6, rtol=1e-4)


def correlation_by_hand(p, t, m, size, enough):
    """Squared correlation over the voxels inside of every window, averaged with the mask, in float64."""
    half, total, weight = size // 2, 0.0, 0.0
    held = {}
    for centre in itertools.product(*map(range, m.shape)):
        window = tuple(slice(max(0, c - half), c + half + 1) for c in centre)
        held[centre] = (m[window].sum(), window)
    least = enough * max(count for count, _ in held.values())
    for centre, (count, window) in held.items():
        if m[centre] == 0 or count < least:
            continue
        a, b, w = p[window], t[window], m[window]
        a, b = a - (w * a).sum() / count, b - (w * b).sum() / count
        variances = [max((w * x * x).sum(), 1e-5) for x in (a, b)]
        total += m[centre] * (w * a * b).sum() ** 2 / np.prod(variances)
        weight += m[centre]
    return -total / weight


def test_correlation_in_a_mask_counted_by_hand(images, mask):
    arrays = [image[0, 0].double().numpy() for image in (*images, mask)]
    found = LocalNormalizedCrossCorrelationLoss(kernel_size=5)(*images, mask)
    assert found.item() == pytest.approx(correlation_by_hand(*arrays, 5, enough=0.1), rel=1e-4)


def test_windows_with_hardly_anything_inside_count_as_nothing(images):
    mask = torch.zeros(1, 1, *SHAPE)
    mask[..., 2:9, 2:9, 2:9] = 1
    similarity = LocalNormalizedCrossCorrelationLoss(kernel_size=5)
    block = similarity(*images, mask)
    # Two voxels correlate perfectly whatever they are: a window of 2 of 125 would be rewarded.
    mask[..., 13, 11, 14:] = 1
    torch.testing.assert_close(similarity(*images, mask), block)


def test_information_of_patches_weighs_them_by_what_they_hold(images):
    mask = torch.zeros(1, 1, *SHAPE)
    mask[..., :4, :4, :4] = 1
    mask[..., 4:8, :4, :2] = 1
    similarity = LocalMutualInformationLoss(patch_size=4)
    whole = similarity.mutual_information(*(image[..., :4, :4, :4] for image in images))
    half = similarity.mutual_information(*(image[..., 4:8, :4, :2] for image in images))
    torch.testing.assert_close(similarity(*images, mask), (2 * whole + half) / 3, atol=1e-5, rtol=1e-4)


def test_patches_that_hold_nothing_of_the_mask_are_refused(images):
    mask = torch.zeros(1, 1, *SHAPE)
    mask[..., -1, 0, 0] = 1  # in the rim that is narrower than a patch
    with pytest.raises(ValueError, match="no patch of 4 voxels holds anything of the masks; lower patch_size"):
        LocalMutualInformationLoss(patch_size=4)(*images, mask)


@each_similarity
@pytest.mark.parametrize("inside", [1, 2, 30])
def test_gradients_of_tiny_masks_and_constant_windows_are_finite(similarity, inside):
    if inside < 30 and getattr(similarity, "kernel_type", "") == "b-spline":
        pytest.skip("MONAI's histogram for B-splines has no range where an image is constant")
    warped, fixed = torch.full((2, 1, *SHAPE), 0.7), texture(2, batch=2)
    warped[..., 8:] = texture(3, batch=2)[..., 8:]
    mask = torch.zeros(2, 1, *SHAPE)
    mask.view(2, -1)[:, 500 : 500 + inside] = 1
    warped.requires_grad_()
    loss = similarity(warped, fixed, mask)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(warped.grad).all()


def test_correlation_of_bright_images_survives_float32():
    """A variance of 1e-4 on a level of 100 is lost in float32 sums of squares, unless the level is taken off first."""
    fixed = texture(0)
    mask = torch.ones_like(fixed)
    similarity = LocalNormalizedCrossCorrelationLoss(kernel_size=9, smooth_dr=1e-8)
    exact = similarity(fixed, texture(1) + fixed, mask)
    torch.testing.assert_close(similarity(fixed + 100, texture(1) + fixed + 100, mask), exact, atol=1e-3, rtol=0)


def test_constant_windows_do_not_correlate():
    """Padding is constant in both images: its sums are rounding errors, which correlated by 0.6."""
    images = [torch.full((1, 1, 60, 60, 60), level) for level in (0.2, 0.9)]
    for seed, image in enumerate(images):
        image[..., 36:, 36:, 36:] = texture(seed, shape=(24, 24, 24))
        image.requires_grad_()
    similarity = LocalNormalizedCrossCorrelationLoss(kernel_size=27, reduction="none")
    mask = torch.ones_like(images[0])
    correlation = -similarity(*images, mask)
    exact = -similarity(*(image.double() for image in images), mask.double())
    assert correlation.max() < 1.001
    torch.testing.assert_close(correlation, exact.float(), atol=2e-2, rtol=0)
    assert correlation.mean().item() == pytest.approx(exact.mean().item(), abs=2e-3)
    correlation.mean().backward()
    assert torch.isfinite(images[0].grad).all()


@pytest.mark.parametrize("similarity", [MSELoss, LocalNormalizedCrossCorrelationLoss])
def test_reductions_are_the_parent_s(similarity, images, mask):
    none, total, mean = (similarity(reduction=reduction)(*images, mask) for reduction in ("none", "sum", "mean"))
    assert none.shape == mask.shape
    torch.testing.assert_close(total, none.sum())
    assert mean.item() == pytest.approx((total / mask.sum()).item(), rel=0.02)


def test_a_similarity_says_whether_it_takes_a_mask():
    assert all(takes_mask(similarity) for similarity in SIMILARITIES.values())
    assert not takes_mask(nn.MSELoss())
