"""Points through a field: direction, units, and agreement with a label that moves."""

import numpy as np
import torch
from toys import apply, rigid

from bundle.geometry import apply_affine, centroids, fixed_to_moving, moving_to_fixed, warp_native


def test_centroid_is_in_millimetres_of_the_world(fixed_grid):
    channels = torch.zeros(3, *fixed_grid.shape)
    channels[0, 4, 7, 9] = 1
    channels[1, 2, 3, 4], channels[1, 6, 3, 4] = 1, 3
    found = centroids(channels, fixed_grid.affine)
    np.testing.assert_allclose(found[0], (fixed_grid.affine @ [4, 7, 9, 1])[:3], atol=1e-5)
    np.testing.assert_allclose(found[1], (fixed_grid.affine @ [5, 3, 4, 1])[:3], atol=1e-5)
    assert np.isnan(found[2]).all()


def test_points_move_by_the_field_at_their_place(fixed_grid):
    points = np.array([[2.25, 5.5, 3.0], [12.0, 14.75, 9.5]])
    world = apply(fixed_grid.affine, points.T).T
    gradient = np.array([[0.2, 0.0, -0.1], [0.0, 0.3, 0.0], [0.1, 0.1, 0.4]])
    displacement = torch.as_tensor(np.tensordot(gradient, fixed_grid.world(), axes=1)).float()
    mapped = fixed_to_moving(world, displacement, fixed_grid.affine)
    np.testing.assert_allclose(mapped, world + world @ gradient.T, atol=1e-4)
    assert np.abs(mapped - world).max() > 5


def test_a_point_outside_moves_with_the_border(fixed_grid):
    displacement = torch.full((3, *fixed_grid.shape), 2.5)
    outside = np.array([[500.0, -300.0, 80.0]])
    np.testing.assert_allclose(fixed_to_moving(outside, displacement, fixed_grid.affine), outside + 2.5, atol=1e-4)


def test_no_points_stay_no_points(fixed_grid):
    assert fixed_to_moving(np.zeros((0, 3)), torch.zeros(3, *fixed_grid.shape), fixed_grid.affine).shape == (0, 3)


def test_points_arrive_where_the_moving_label_is(fixed_grid, moving_grid):
    transform = rigid((6, -4, 9), moving_grid.centre - fixed_grid.centre + [2, -1, 1.5], fixed_grid.centre)
    displacement = torch.as_tensor(apply(transform, fixed_grid.world()) - fixed_grid.world()).float()
    ball = moving_grid.ball(moving_grid.centre + [1, 2, -1], 5)
    moving_label = torch.as_tensor(ball, dtype=torch.float32)[None]
    warped = warp_native(moving_label, moving_grid.affine, displacement, fixed_grid.affine, "nearest")
    moving_centroid = centroids(moving_label, moving_grid.affine)
    fixed_centroid = centroids(warped, fixed_grid.affine)
    assert np.linalg.norm(moving_centroid - fixed_centroid) > 3
    # Some 250 voxels of 2 mm^3, each rounded to a voxel: the centroid is good to about a tenth of a voxel.
    mapped = fixed_to_moving(fixed_centroid, displacement, fixed_grid.affine)
    np.testing.assert_allclose(mapped, moving_centroid, atol=0.2)


def test_points_through_a_rigid_displacement_follow_the_transform(fixed_grid):
    transform = rigid((6, -4, 9), [3, -2, 1], fixed_grid.centre)
    displacement = torch.as_tensor(apply(transform, fixed_grid.world()) - fixed_grid.world()).float()
    points = apply_affine(fixed_grid.affine, torch.tensor([[3.3, 10.1], [4.7, 18.2], [5.1, 2.4]])).numpy().T
    mapped = fixed_to_moving(points, displacement, fixed_grid.affine)
    np.testing.assert_allclose(mapped, apply(transform, points.T).T, atol=1e-3)


def test_the_way_back_is_the_inverse(fixed_grid):
    transform = rigid((6, -4, 9), [3, -2, 1], fixed_grid.centre)
    displacement = torch.as_tensor(apply(transform, fixed_grid.world()) - fixed_grid.world()).float()
    points = apply(fixed_grid.affine, np.array([[3.3, 10.1], [4.7, 18.2], [5.1, 2.4]])).T
    back = moving_to_fixed(apply(transform, points.T).T, displacement, fixed_grid.affine)
    np.testing.assert_allclose(back, points, atol=0.01)
    assert moving_to_fixed(np.zeros((0, 3)), displacement, fixed_grid.affine).shape == (0, 3)
