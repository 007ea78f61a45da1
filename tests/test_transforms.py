"""Transforms in world space: chains of affines and displacements, and their inverse."""

import numpy as np
import pytest
import torch
from toys import apply, rigid

from bundle.geometry import Displacement, Transform, apply_affine, voxel_grid


def waves(grid, size=3.0):
    """A smooth field of up to ``size`` mm that does not fold."""
    x, y, z = grid.world() - grid.centre.reshape(3, 1, 1, 1)
    field = np.stack([np.sin(y / 9 + z / 12), np.cos(x / 10) * np.cos(z / 8), np.sin(x / 11 - y / 9)])
    return Displacement(torch.as_tensor(size * field).float(), grid.affine)


def inner_points(grid, count=200, margin=0.2, seed=0):
    """Random world points ``(3, count)`` in the inner part of a grid."""
    share = np.random.default_rng(seed).uniform(margin, 1 - margin, size=(3, count))
    return torch.as_tensor(apply(grid.affine, share * (np.array(grid.shape) - 1)[:, None]))


def test_parts_apply_one_after_the_other(fixed_grid):
    motion, shift = rigid((5, 10, -20), [1, 2, 3], fixed_grid.centre), np.eye(4)
    shift[:3, 3] = [100, 0, 0]
    points = inner_points(fixed_grid)
    field = Displacement(torch.full((3, *fixed_grid.shape), 2.0), fixed_grid.affine)
    np.testing.assert_allclose(Transform([shift, motion])(points), apply(motion @ shift, points.numpy()))
    np.testing.assert_allclose(Transform([field, motion])(points), apply(motion, points.numpy() + 2), atol=1e-9)
    np.testing.assert_allclose(Transform([motion, field])(points), apply(motion, points.numpy()) + 2, atol=1e-9)
    assert Transform([])(points) is points


def test_a_field_is_interpolated_between_voxels(fixed_grid):
    gradient = np.array([[0.2, 0.0, -0.1], [0.0, 0.3, 0.0], [0.1, 0.1, 0.4]])
    field = Displacement(torch.as_tensor(np.tensordot(gradient, fixed_grid.world(), axes=1)), fixed_grid.affine)
    points = inner_points(fixed_grid)
    np.testing.assert_allclose(field(points), points + gradient @ points.numpy(), atol=1e-9)


def test_beyond_the_grid_the_border_goes_on(fixed_grid):
    field = Displacement(torch.full((3, *fixed_grid.shape), 2.5), fixed_grid.affine)
    outside = torch.tensor([[500.0], [-300.0], [80.0]], dtype=torch.float64)
    np.testing.assert_allclose(field(outside), outside + 2.5)


def test_a_grid_covers_its_voxels_to_their_faces(fixed_grid):
    transform = Transform([waves(fixed_grid), rigid((0, 0, 0), [500, 0, 0], [0, 0, 0])])
    last = np.array(fixed_grid.shape) - 1
    voxels = np.array([[0, 0, 0], last, [-0.5, 0, 0], last + [0, 0.5, 0], [-0.6, 0, 0], last + [0, 0, 0.6]]).T
    points = torch.as_tensor(apply(fixed_grid.affine, voxels))
    assert transform.covers(points).tolist() == [True, True, True, True, False, False]
    assert not Transform(transform.parts[::-1]).covers(points).any()
    assert Transform([np.eye(4)]).covers(1000 * points).all()


def test_displacement_on_another_grid(fixed_grid, moving_grid):
    motion = rigid((5, 10, -20), [1, 2, 3], fixed_grid.centre)
    found = Transform([motion]).displacement_on(moving_grid.affine, moving_grid.shape)
    np.testing.assert_allclose(found, apply(motion, moving_grid.world()) - moving_grid.world(), atol=1e-4)


def test_affine_part_of_an_affine_field_is_that_affine(fixed_grid):
    motion = rigid((5, 10, -20), [1, 2, 3], fixed_grid.centre)
    motion[:3, :3] *= 1.2
    field = Displacement(torch.as_tensor(apply(motion, fixed_grid.world()) - fixed_grid.world()), fixed_grid.affine)
    np.testing.assert_allclose(field.affine_part(), motion, atol=1e-6)
    np.testing.assert_allclose(Transform([field, motion]).affine_part(), motion @ motion, atol=1e-5)


def test_affine_part_of_a_slice_keeps_the_direction_across():
    affine = np.diag([0.5, 0.5, 2.0, 1.0])
    points = apply_affine(affine, voxel_grid((8, 9, 1))).double()
    field = Displacement(torch.cat([0.1 * points[:1] + 3, 0.2 * points[:1], 0 * points[:1]]), affine)
    expected = np.array([[1.1, 0, 0, 3], [0.2, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(field.affine_part(), expected, atol=1e-6)


def test_inverse_of_an_affine_is_exact(fixed_grid):
    transform = Transform([rigid((5, 10, -20), [1, 2, 3], fixed_grid.centre), np.diag([2.0, 0.5, -1.0, 1.0])])
    points = inner_points(fixed_grid)
    np.testing.assert_allclose(transform.inverse_at(transform(points)), points, atol=1e-10)


def test_inverse_undoes_field_and_mirroring_affine(fixed_grid):
    mirrored = rigid((50, 10, -70), [10, -20, 30], fixed_grid.centre) @ np.diag([-1.3, 0.8, 1.0, 1.0])
    transform = Transform([waves(fixed_grid), mirrored])
    points = inner_points(fixed_grid)
    moved = transform(points)
    assert (moved - apply_affine(mirrored, points)).norm(dim=0).max() > 2
    np.testing.assert_allclose(transform.inverse_at(moved), points, atol=0.003)


def test_inverse_of_a_mirroring_given_as_one_field(fixed_grid, moving_grid):
    """As displacement.nii.gz has it: a left- and a right-handed image, their voxel indices aligned."""
    turned = moving_grid.affine @ np.linalg.inv(fixed_grid.affine)
    whole = Transform([waves(fixed_grid), turned]).displacement_on(fixed_grid.affine, fixed_grid.shape)
    transform = Transform([Displacement(whole, fixed_grid.affine)])
    points = inner_points(fixed_grid)
    np.testing.assert_allclose(transform.inverse_at(transform(points)), points, atol=0.003)


def test_inverse_where_the_field_stretches_and_turns(fixed_grid):
    """Far from a contraction: the plain fixed-point iteration diverges."""
    centre = fixed_grid.centre.reshape(3, 1, 1, 1)
    motion = rigid((0, 0, 100), [0, 0, 0], fixed_grid.centre)
    share = np.exp(-(np.linalg.norm(fixed_grid.world() - centre, axis=0) ** 2) / 60)
    turned = share * (apply(motion, fixed_grid.world()) - fixed_grid.world())
    transform = Transform([Displacement(torch.as_tensor(turned), fixed_grid.affine)])
    points = torch.as_tensor(fixed_grid.world()).flatten(1)
    near = points[:, (points - torch.as_tensor(fixed_grid.centre)[:, None]).norm(dim=0) < 8]
    found = transform.inverse_at(transform(near))
    assert len(near.T) > 100
    assert (transform(found) - transform(near)).norm(dim=0).max() < 1e-3


@pytest.mark.parametrize("spacing", [1.0, 0.1, 1e-3])
def test_inverse_is_as_near_in_voxels_however_fine_the_field_is(spacing):
    """At 0.001 mm all that is nearer than a voxel was near enough, and a Jacobian was of 400 voxels."""
    affine, voxels = np.diag([spacing, spacing, spacing, 1.0]), voxel_grid((20, 20, 20))
    field = 1.5 * spacing * torch.stack([torch.sin(voxels[axis] / 2) for axis in (1, 2, 0)])
    transform = Transform([Displacement(field, affine)])
    points = apply_affine(affine, voxels)[:, 4:16, 4:16, 4:16].flatten(1)
    target = transform(points)
    assert (transform(transform.inverse_at(target)) - target).norm(dim=0).max() <= 0.01 * spacing
    assert transform.scale == pytest.approx(min(1, 10 * spacing))
    assert Transform([1e-3 * np.eye(4)]).scale == 1


def test_where_the_field_folds_the_inverse_is_as_near_as_its_start(fixed_grid):
    transform = Transform([waves(fixed_grid, size=25.0)])
    points = torch.as_tensor(fixed_grid.world())
    start = points - transform.parts[0].field
    found = transform.inverse_at(points, start=start)
    before, after = ((transform(guess) - points).norm(dim=0) for guess in (start, found))
    assert torch.isfinite(found).all()
    assert (after <= before + 1e-9).all()
    assert after.mean() < 0.5 * before.mean()


def test_a_good_start_is_kept(fixed_grid):
    transform = Transform([waves(fixed_grid)])
    points = inner_points(fixed_grid)
    assert torch.equal(transform.inverse_at(transform(points), start=points), points)


def test_no_points_stay_no_points(fixed_grid):
    empty = torch.zeros(3, 0, dtype=torch.float64)
    assert Transform([waves(fixed_grid)]).inverse_at(empty).shape == (3, 0)
