"""Grids: sampling, resizing a field, initial alignments, and displacements in mm between oblique images."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from toys import Grid, affine_ddf, apply, oblique_affine, rigid

from bundle.geometry import (
    apply_affine,
    at_faces,
    centre_of_volume,
    ddf_to_displacement,
    enlarge_ddf,
    initial_alignment,
    resize_ddf,
    sample,
    voxel_grid,
    warp_native,
)

MODES = ("world", "center", "none")


def alignment(mode, fixed, moving):
    return initial_alignment(mode, fixed.affine, fixed.shape, moving.affine, moving.shape)


def covering_network_grid(fixed):
    """Grid around the fixed image with other axes, spacing and handedness, as orientation and padding make it."""
    affine = oblique_affine((1.6, 1.9, 1.5), (-3, 4, 8), (0, 0, 0), mirrored=(1,))
    shape = (26, 24, 28)
    affine[:3, 3] = fixed.centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(affine, shape)


def test_voxel_grid_counts_along_each_axis():
    assert voxel_grid((3, 4, 5))[:, 2, 1, 4].tolist() == [2, 1, 4]
    assert voxel_grid((3, 4))[:, 2, 1].tolist() == [2, 1]


def test_faces_are_the_ends_of_every_axis_that_has_any():
    volume = torch.arange(24).reshape(2, 3, 4)
    inside = {volume[0, 1, 1], volume[0, 1, 2]}
    assert len(at_faces(volume)) == 2 * (3 * 4 + 2 * 4 + 2 * 3)
    assert sorted(at_faces(volume[:1]).unique().tolist()) == [k for k in range(12) if k not in map(int, inside)]
    assert at_faces(volume[:1, :1, :1]).tolist() == [0]


def test_affine_of_points_matches_homogeneous_coordinates(fixed_grid):
    expected = fixed_grid.affine @ [3, 5, 7, 1]
    points = torch.tensor([3.0, 5, 7]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(apply_affine(fixed_grid.affine, points).flatten(), expected[:3], atol=1e-5)


def test_sample_interpolates_a_linear_image_exactly():
    image = affine_ddf([[1.0, -2.0, 0.5]], [3.0], (5, 6, 7))
    points = torch.tensor([[0.25, 3.5, 2.0], [4.75, 1.1, 2.0], [5.5, 0.3, 6.0]])[..., None, None]
    values = sample(image, points)[0, :, 0, 0]
    expected = points[0] - 2 * points[1] + 0.5 * points[2] + 3
    torch.testing.assert_close(values, expected[:, 0, 0], atol=1e-5, rtol=0)


def test_sample_outside_is_zero_or_the_border():
    image = torch.arange(1.0, 9.0).reshape(1, 2, 2, 2)
    outside = torch.tensor([9.0, 9, 9]).reshape(3, 1, 1, 1)
    assert sample(image, outside).item() == 0
    assert sample(image, outside, padding_mode="border").item() == 8


def test_sample_nearest_and_axes_of_one_voxel():
    image = torch.tensor([1.0, 5.0, 9.0]).reshape(1, 3, 1, 1)
    points = torch.tensor([[0.4, 0.6, 1.9], [0, 0, 0], [0, 0, 0]])[..., None, None]
    assert sample(image, points, mode="nearest").flatten().tolist() == [1, 5, 9]
    torch.testing.assert_close(sample(image, points).flatten(), torch.tensor([2.6, 3.4, 8.6]))


def test_centre_of_volume_is_between_the_corner_voxels(fixed_grid):
    corners = [fixed_grid.affine @ [*index, 1] for index in ((0, 0, 0), np.array(fixed_grid.shape) - 1)]
    np.testing.assert_allclose(
        centre_of_volume(fixed_grid.affine, fixed_grid.shape), np.mean(corners, axis=0)[:3], atol=1e-9
    )


def test_initial_alignment_world_keeps_the_headers(fixed_grid, moving_grid):
    np.testing.assert_array_equal(alignment("world", fixed_grid, moving_grid), np.eye(4))


def test_initial_alignment_center_is_a_translation_between_the_centres(fixed_grid, moving_grid):
    found = alignment("center", fixed_grid, moving_grid)
    np.testing.assert_allclose(apply(found, fixed_grid.centre), moving_grid.centre, atol=1e-9)
    np.testing.assert_array_equal(found[:3, :3], np.eye(3))
    assert np.linalg.norm(found[:3, 3]) > 5


def test_initial_alignment_none_maps_voxel_to_voxel(fixed_grid, moving_grid):
    found = alignment("none", fixed_grid, moving_grid)
    voxel = [3.0, 8.0, 5.0, 1.0]
    np.testing.assert_allclose(found @ fixed_grid.affine @ voxel, moving_grid.affine @ voxel, atol=1e-9)
    assert np.linalg.det(found[:3, :3]) < 0


def test_initial_alignment_names_what_it_knows(fixed_grid, moving_grid):
    with pytest.raises(ValueError, match="'centre'; expected 'world', 'center' or 'none'"):
        alignment("centre", fixed_grid, moving_grid)


@pytest.mark.parametrize("old, new", [((9, 12, 7), (17, 8, 13)), ((9, 12), (5, 30)), ((8, 8, 8), (8, 8, 8))])
def test_resized_affine_ddf_is_the_same_transform_exactly(old, new):
    dims = len(old)
    matrix = np.array([[0.2, -0.1, 0.05], [0.1, 0.3, -0.2], [0.0, 0.15, -0.25]])[:dims, :dims]
    offset = np.array([1.5, -2.0, 0.75])[:dims]
    scale = (np.array(new) - 1) / (np.array(old) - 1)
    # x_new = S x_old, so the transform becomes S T S^-1.
    expected = affine_ddf(scale[:, None] * matrix / scale, scale * offset, new)
    assert expected.abs().max() > 2
    torch.testing.assert_close(resize_ddf(affine_ddf(matrix, offset, old)[None], new)[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("shape", "factor"), [((4, 5, 6), 3), ((6, 4), 2), ((4, 4, 4), 1)])
def test_enlarged_affine_ddf_is_the_same_transform_between_the_outermost_centres(shape, factor):
    dims = len(shape)
    matrix = np.array([[0.2, -0.1, 0.05], [0.1, 0.3, -0.2], [0.0, 0.15, -0.25]])[:dims, :dims]
    offset = np.array([1.5, -2.0, 0.75])[:dims]
    enlarged = enlarge_ddf(affine_ddf(matrix, offset, shape)[None], factor)[0]
    assert enlarged.shape == (dims, *(factor * size for size in shape))
    # Coarse voxel i lies at f i + (f - 1) / 2: u_fine(y) = f u((y - h) / f) with h = (f - 1) / 2.
    half = (factor - 1) / 2
    expected = affine_ddf(matrix, factor * offset - matrix @ np.full(dims, half), enlarged.shape[1:])
    inner = (slice(None), *(slice(factor, size - factor) for size in enlarged.shape[1:]))
    assert expected[inner].abs().max() > 1
    torch.testing.assert_close(enlarged[inner], expected[inner], atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", MODES)
def test_displacement_of_a_known_rigid_motion(fixed_grid, moving_grid, mode):
    network = covering_network_grid(fixed_grid)
    start = alignment(mode, fixed_grid, moving_grid)
    motion = rigid((5, -7, 4), moving_grid.centre - fixed_grid.centre + [1.5, -2.0, 1.0], fixed_grid.centre)
    # M N (y + u) = T N y
    in_voxels = np.linalg.inv(start @ network.affine) @ motion @ network.affine
    ddf = affine_ddf(in_voxels[:3, :3] - np.eye(3), in_voxels[:3, 3], network.shape)
    displacement = ddf_to_displacement(ddf, network.affine, fixed_grid.affine, fixed_grid.shape, start)
    expected = apply(motion, fixed_grid.world()) - fixed_grid.world()
    assert displacement.shape == (3, *fixed_grid.shape)
    # An affine DDF is interpolated exactly; float32 at 100 mm rounds to 1e-5 mm.
    np.testing.assert_allclose(displacement, expected, atol=1e-3)
    assert np.abs(expected).max() > 3


@pytest.mark.parametrize("mode", MODES)
def test_displacement_of_no_deformation_is_the_initial_alignment(fixed_grid, moving_grid, mode):
    network = covering_network_grid(fixed_grid)
    start = alignment(mode, fixed_grid, moving_grid)
    zero = torch.zeros(3, *network.shape)
    displacement = ddf_to_displacement(zero, network.affine, fixed_grid.affine, fixed_grid.shape, start)
    expected = apply(start, fixed_grid.world()) - fixed_grid.world()
    np.testing.assert_allclose(displacement, expected, atol=1e-3)


def test_displacement_beyond_the_network_grid_continues_its_border(fixed_grid):
    network = Grid(fixed_grid.affine, (8, 9, 10))
    ddf = torch.zeros(3, *network.shape)
    ddf[0] = 2.0
    displacement = ddf_to_displacement(ddf, network.affine, fixed_grid.affine, fixed_grid.shape, np.eye(4))
    np.testing.assert_allclose(displacement[:, 16, 20, 12], 2 * fixed_grid.affine[:3, 0], atol=1e-4)


def test_native_warp_of_a_linear_image_is_exact_inside_and_zero_outside(fixed_grid, moving_grid):
    motion = rigid((5, -7, 4), moving_grid.centre - fixed_grid.centre, fixed_grid.centre)
    gradient = np.array([1.5, -2.0, 0.7])
    moving = torch.as_tensor(np.tensordot(gradient, moving_grid.world(), axes=1)[None] + 500).float()
    target = apply(motion, fixed_grid.world())
    displacement = torch.as_tensor(target - fixed_grid.world()).float()
    warped = warp_native(moving, moving_grid.affine, displacement, fixed_grid.affine)[0].numpy()
    voxels = apply(np.linalg.inv(moving_grid.affine), target)
    limits = np.reshape(moving_grid.shape, (3, 1, 1, 1)) - 1
    inside = ((voxels >= 0) & (voxels <= limits)).all(0)
    outside = ((voxels < -1) | (voxels > limits + 1)).any(0)
    assert inside.mean() > 0.4
    assert outside.mean() > 0.05
    np.testing.assert_allclose(warped[inside], (np.tensordot(gradient, target, axes=1) + 500)[inside], atol=2e-3)
    assert not warped[outside].any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_native_warp_is_zero_outside_an_image_whose_border_is_no_number(value):
    moving = torch.ones(1, 4, 3, 3)
    moving[:, 3] = value
    warped = warp_native(moving, np.eye(4), torch.zeros(3, 8, 3, 3), np.eye(4))[0, :, 1, 1]
    assert warped[:2].tolist() == [1, 1] and not warped[3].isfinite()
    assert not warped[4:].any()


@pytest.mark.parametrize("size", [12, 35, 129])
@pytest.mark.parametrize("spacing", [0.3, 1.0, 1.5])
def test_a_label_between_grids_half_a_voxel_apart_keeps_every_slice(size, spacing):
    """The centres of 35 and 36 slices lie half a voxel apart: every other slice was taken twice, or not at all."""
    slices = torch.arange(size).reshape(1, size, 1, 1).expand(1, size, 2, 2)
    affine = np.diag([spacing, spacing, spacing, 1.0]) + 1e3 * np.eye(4, k=3)
    shift = torch.zeros(3, size - 1, 2, 2, dtype=torch.float64)
    shift[0] = spacing / 2
    warped = warp_native(slices, affine, shift, affine, "nearest")[0]
    assert torch.equal(warped.long(), slices[0, 1:])
    fixed, moving = sitk.Image([size - 1, 2, 2], sitk.sitkInt32), sitk.GetImageFromArray(slices[0].numpy().T)
    moved = sitk.Resample(moving, fixed, sitk.TranslationTransform(3, [0.5, 0, 0]), sitk.sitkNearestNeighbor)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(moved).T, warped)


def test_native_warp_of_a_label_takes_the_nearest_voxel(fixed_grid, moving_grid):
    values = np.random.default_rng(0).choice([0, 3, 200], size=moving_grid.shape)
    displacement = torch.as_tensor(moving_grid.centre - fixed_grid.centre).float().reshape(3, 1, 1, 1)
    displacement = displacement.expand(3, *fixed_grid.shape)
    label = torch.as_tensor(values)[None].float()
    warped = warp_native(label, moving_grid.affine, displacement, fixed_grid.affine, "nearest")[0].numpy()
    voxels = apply(np.linalg.inv(moving_grid.affine), fixed_grid.world() + displacement.numpy())
    nearest = np.rint(voxels).astype(int)
    inside = ((nearest >= 0) & (nearest < np.reshape(moving_grid.shape, (3, 1, 1, 1)))).all(0)
    # A point half-way between two voxels may go to either in float32.
    clear = inside & (np.abs(voxels - nearest) < 0.499).all(0)
    np.testing.assert_array_equal(warped[clear], values[tuple(nearest[:, clear])])
    assert set(np.unique(warped)) == {0, 3, 200}
