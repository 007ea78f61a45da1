"""Fields: composition order, integration against the matrix exponential, Jacobians and folding."""

import numpy as np
import pytest
import torch
from monai.networks import blocks
from scipy.linalg import expm
from toys import Grid, affine_ddf, apply, oblique_affine, rigid

from bundle.geometry import (
    Warp,
    compose,
    ddf_to_displacement,
    folded_voxels,
    integrate,
    jacobian_determinant,
    lift_ddf,
    log_jacobian_sd,
    native_ddf,
)

SHAPE = (9, 12, 7)
CENTRE = (np.array(SHAPE) - 1) / 2
SHRINK = np.array([[-0.2, 0.1, 0.0], [-0.05, -0.3, 0.1], [0.05, 0.0, -0.25]])
SHIFT = np.array([0.3, -0.4, 0.2])


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_compose_applies_the_first_field_to_the_point_and_the_second_where_it_arrives():
    # The first field shrinks about the centre, so every point arrives inside, where linear interpolation is exact.
    first = affine_ddf(SHRINK, -SHRINK @ CENTRE, SHAPE)
    second_matrix = np.array([[0.1, 0.3, 0.0], [0.0, -0.2, 0.1], [0.2, 0.0, 0.4]])
    second = affine_ddf(second_matrix, SHIFT, SHAPE)
    eye = np.eye(3)
    matrix = (eye + second_matrix) @ (eye + SHRINK) - eye
    offset = (eye + second_matrix) @ (-SHRINK @ CENTRE) + SHIFT
    expected = affine_ddf(matrix, offset, SHAPE)
    assert expected.abs().max() > 1
    torch.testing.assert_close(compose(first[None], second[None])[0], expected, atol=1e-5, rtol=0)
    assert not torch.allclose(compose(second[None], first[None])[0], expected, atol=0.1)


@pytest.mark.parametrize("shape", [(8, 9, 10), (7, 9, 11), (12, 10)], ids=["even", "odd", "2D"])
@pytest.mark.parametrize("batch", [1, 2])
def test_warp_is_monais_to_the_last_bit_with_any_number_of_threads(threads, batch, shape):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(batch, 5, *shape, generator=generator)
    ddf = (4 * torch.rand(batch, len(shape), *shape, generator=generator) - 2).requires_grad_()
    weights = torch.rand(image.shape, generator=generator)

    def warped(warp):
        result = warp(image, ddf)
        return result.detach(), *torch.autograd.grad((weights * result).sum(), ddf)

    for found, expected in zip(warped(Warp()), warped(blocks.Warp()), strict=True):
        assert found.shape == expected.shape
        assert torch.equal(found, expected)


def test_warp_passes_gradients_to_the_image_too(threads):
    image = torch.rand(1, 2, 8, 8, 8, requires_grad=True)
    ddf = torch.rand(1, 3, 8, 8, 8)
    gradients = [torch.autograd.grad(warp(image, ddf).square().sum(), image)[0] for warp in (Warp(), blocks.Warp())]
    assert torch.equal(*gradients)


def test_warp_refuses_a_field_of_another_grid():
    with pytest.raises(ValueError, match=r"grid \(8, 8, 6\), the image \(8, 8, 8\)"):
        Warp()(torch.rand(1, 1, 8, 8, 8), torch.zeros(1, 3, 8, 8, 6))


def test_compose_works_in_two_dimensions():
    first = affine_ddf(np.zeros((2, 2)), [1.0, 0.0], (8, 6))
    second = affine_ddf([[0.0, 0.0], [0.5, 0.0]], [0.0, 0.0], (8, 6))
    composed = compose(first[None], second[None])[0]
    assert composed[:, 2, 3].tolist() == [1.0, 1.5]


def test_integrating_a_constant_velocity_gives_that_displacement():
    velocity = torch.tensor([0.8, -1.5, 0.25]).reshape(1, 3, 1, 1, 1).expand(1, 3, *SHAPE).contiguous()
    torch.testing.assert_close(integrate(velocity, 6), velocity, atol=1e-6, rtol=0)


def test_integrating_a_linear_velocity_gives_the_matrix_exponential():
    velocity = affine_ddf(2 * SHRINK, -2 * SHRINK @ CENTRE, SHAPE)
    flow = expm(2 * SHRINK) - np.eye(3)
    expected = affine_ddf(flow, -flow @ CENTRE, SHAPE)
    integrated = integrate(velocity[None], 7)[0]
    # (I + L/n)^n differs from exp(L) by about |L|^2 |x| / 2n = 0.6^2 * 7 / 256 voxels.
    torch.testing.assert_close(integrated, expected, atol=0.01, rtol=0)
    assert (velocity - expected).abs().max() > 0.3
    squared = np.linalg.matrix_power(np.eye(3) + 2 * SHRINK / 2**7, 2**7) - np.eye(3)
    torch.testing.assert_close(integrated, affine_ddf(squared, -squared @ CENTRE, SHAPE), atol=1e-5, rtol=0)


def test_integrating_in_zero_steps_is_the_velocity_itself():
    velocity = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(integrate(velocity, 0), velocity)


def test_integration_prevents_folding():
    velocity = torch.zeros(1, 3, 16, 8, 8)
    velocity[0, 0] = (-3 * torch.sin(torch.arange(16) * np.pi / 7.5)).reshape(-1, 1, 1)
    assert folded_voxels(velocity[0]) > 0
    assert folded_voxels(integrate(velocity, 7)[0]) == 0


@pytest.mark.parametrize("shape", [(6, 5, 7), (6, 5)])
def test_jacobian_of_an_affine_field_is_its_determinant_everywhere(shape):
    dims = len(shape)
    matrix = np.array([[0.3, 0.2, 0.1], [-0.4, 0.5, 0.0], [0.1, 0.3, -0.6]])[:dims, :dims]
    determinant = jacobian_determinant(affine_ddf(matrix, SHIFT[:dims], shape))
    expected = float(np.linalg.det(np.eye(dims) + matrix))
    assert determinant.shape == shape
    torch.testing.assert_close(determinant, torch.full(shape, expected), atol=1e-5, rtol=0)


def test_a_mirrored_axis_folds_every_voxel_and_identity_none():
    assert folded_voxels(affine_ddf(np.diag([-2.0, 0, 0]), [0, 0, 0], SHAPE)) == np.prod(SHAPE)
    assert folded_voxels(torch.zeros(3, *SHAPE)) == 0


def test_a_step_folds_the_two_layers_beside_it():
    ddf = torch.zeros(3, *SHAPE)
    ddf[1, :, 6:] = -3.0
    determinant = jacobian_determinant(ddf)
    # The central difference over the step is -3/2 on both of its sides.
    assert torch.equal(determinant[:, 5:7], torch.full((9, 2, 7), -0.5))
    assert folded_voxels(ddf) == 9 * 2 * 7


def test_a_collapsed_voxel_counts_as_folded():
    assert folded_voxels(affine_ddf(np.diag([0, 0, -1.0]), [0, 0, 0], SHAPE)) == np.prod(SHAPE)


def sheared(determinants):
    """``u_0 = x_0 (d(x_1) - 1)``: a triangular Jacobian with determinant ``d(x_1)``, exact for linear differences."""
    ddf = torch.zeros(3, SHAPE[0], len(determinants), SHAPE[2])
    ddf[0] = torch.arange(SHAPE[0])[:, None, None] * (torch.as_tensor(determinants) - 1)[None, :, None]
    return ddf


@pytest.mark.parametrize("shape", [(6, 5, 7), (6, 5)])
def test_an_even_stretch_has_no_spread_of_its_jacobian(shape):
    assert log_jacobian_sd(torch.zeros(len(shape), *shape)) == 0
    stretched = affine_ddf(0.5 * np.eye(len(shape)), np.ones(len(shape)), shape)
    assert log_jacobian_sd(stretched) == pytest.approx(0, abs=1e-5)


def test_log_jacobian_spread_of_layers_that_stretch_in_equal_steps():
    # log det J = 0.1 k in layer k of 12; the integers 0 to n - 1 have the variance (n^2 - 1) / 12.
    field = sheared(np.exp(0.1 * np.arange(12)))
    assert log_jacobian_sd(field) == pytest.approx(0.1 * np.sqrt(143 / 12), rel=1e-4)


def test_log_jacobian_spread_is_over_the_voxels_that_do_not_fold():
    field = sheared(np.array([-3.0, 1, 0, np.e**0.5, -0.5]))
    assert folded_voxels(field) == 3 * SHAPE[0] * SHAPE[2]
    assert log_jacobian_sd(field) == pytest.approx(0.25, rel=1e-5)
    assert np.isnan(log_jacobian_sd(sheared(np.array([-1.0, -2.0]))))


@pytest.mark.parametrize("slope", [0.02, 0.15])
def test_jacobian_of_a_displacement_on_an_oblique_anisotropic_grid(slope):
    grid = Grid(oblique_affine((0.7, 1.3, 2.9), (20, -35, 50), (5.0, -8.0, 3.0), mirrored=(1,)), (15, 12, 9))
    alignment = rigid((10, -5, 30), (7.0, -3.0, 2.0), grid.centre)
    # u(p) = k/2 s^2 a with s = n (p - c): the Jacobian is I + k s a n^T, its determinant 1 + k s (a n).
    normal, towards = np.array([0.6, 0.0, 0.8]), np.array([1.0, 2.0, 0.5])
    world = grid.world()
    s = np.tensordot(normal, world - grid.centre.reshape(3, 1, 1, 1), axes=1)
    moved = apply(alignment, world + slope / 2 * s**2 * towards.reshape(3, 1, 1, 1))
    ddf = native_ddf(torch.as_tensor(moved - world).float(), grid.affine, alignment)
    expected = 1 + slope * s * (towards @ normal)
    # Central differences of a parabola are exact; at the faces they are one-sided.
    inside = (slice(1, -1),) * 3
    # Positions of some 30 mm in float32 are known to some 4e-6 mm, differences over 1.4 mm and more.
    np.testing.assert_allclose(jacobian_determinant(ddf)[inside], expected[inside], atol=1e-4)
    assert (expected <= 0).any() == (slope > 0.1)


def test_the_field_of_a_slice_has_two_axes():
    affine = oblique_affine((0.5, 2.0, 4.0), (0, 0, 30), (1.0, 2.0, 3.0))
    ddf = affine_ddf(np.diag([0.25, 0.5]), [1.0, -2.0], (6, 7))
    displacement = ddf_to_displacement(lift_ddf(ddf), affine, affine, (6, 7, 1), np.eye(4))
    torch.testing.assert_close(native_ddf(displacement, affine, np.eye(4)), ddf, atol=1e-4, rtol=0)
