"""Random versions of a pair: independent affines, image and label together, within their ranges, seeded."""

import numpy as np
import pytest
import torch
from monai.transforms import RandScaleIntensity

from bundle.data import RandomPairAffine
from bundle.geometry import apply_affine, sample, voxel_grid

SHAPE = (12, 9, 14)
NOTHING = {"rotate_range": 0.0, "translate_range": 0.0, "scale_range": 0.0, "shear_range": 0.0}


@pytest.fixture
def pair():
    return torch.rand(1, 2, *SHAPE, generator=torch.Generator().manual_seed(0))


def drawn(**ranges):
    augmentation = RandomPairAffine(versions=20, **{**NOTHING, **ranges})
    return augmentation.matrices(SHAPE, np.random.RandomState(0)).double().numpy()


def moved_centre(matrices):
    centre = np.array([*((np.array(SHAPE) - 1) / 2), 1])
    return (matrices @ centre - centre)[:, :3]


def test_without_ranges_every_version_is_the_pair(pair):
    images, labels = RandomPairAffine(versions=3, **NOTHING)(pair, None, (0, 1))
    assert labels is None
    torch.testing.assert_close(images, pair.expand(3, 2, *SHAPE), atol=1e-5, rtol=0)


def test_every_version_is_the_image_sampled_at_its_affine(pair):
    augmentation = RandomPairAffine(versions=2, translate_range=2.0)
    images, _ = augmentation(pair, None, (5, 6, 7))
    random = np.random.RandomState(np.random.SeedSequence([5, 6, 7]).generate_state(8))
    for side in range(2):  # moving first
        for version, matrix in enumerate(augmentation.matrices(SHAPE, random)):
            positions = apply_affine(matrix.numpy(), voxel_grid(SHAPE))
            expected = sample(pair[0, side : side + 1], positions, padding_mode="border")
            torch.testing.assert_close(images[version, side : side + 1], expected, atol=1e-4, rtol=0)
    assert (images[0] - pair[0]).abs().mean() > 0.1


def test_label_moves_with_its_own_image(pair):
    moving, fixed = pair[:, :1], pair[:, 1:]
    images, labels = RandomPairAffine(versions=4)(pair, torch.cat([moving, moving, fixed, fixed], dim=1), (3,))
    assert torch.equal(labels[:, 0], images[:, 0])
    assert torch.equal(labels[:, 1], images[:, 0])
    assert torch.equal(labels[:, 2], images[:, 1])
    assert torch.equal(labels[:, 3], images[:, 1])


@pytest.mark.parametrize("labelled", [False, True])
def test_mask_moves_with_its_own_image(pair, labelled):
    masked = pair[:, [0, 0, 1, 1]]
    labels = torch.cat([pair[:, :1]] * 3 + [pair[:, 1:]] * 3, dim=1) if labelled else None
    images, structures = RandomPairAffine(versions=2)(masked, labels, (3,))
    assert images.shape == (2, 4, *SHAPE)
    plain, _ = RandomPairAffine(versions=2)(pair, None, (3,))
    assert torch.equal(images, plain[:, [0, 0, 1, 1]])
    if labelled:
        assert torch.equal(structures, plain[:, [0, 0, 0, 1, 1, 1]])


def test_moving_and_fixed_and_all_versions_get_affines_of_their_own(pair):
    same = pair[:, :1].expand(1, 2, *SHAPE)
    images, _ = RandomPairAffine(versions=3)(same, None, (0,))
    volumes = images.reshape(6, -1)
    distances = torch.cdist(volumes, volumes) + torch.eye(6) * 100
    assert distances.min() > 1


def test_the_seed_decides_everything(pair):
    augmentation = RandomPairAffine(versions=2)
    first, again, other = (augmentation(pair, None, seed)[0] for seed in ((1, 2, 3), (1, 2, 3), (1, 2, 4)))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.1)


def test_global_random_state_plays_no_part(pair):
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    first, _ = RandomPairAffine(versions=2)(pair, None, (1,))
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    assert torch.equal(first, RandomPairAffine(versions=2)(pair, None, (1,))[0])


def test_translation_stays_in_range_and_turns_nothing():
    matrices = drawn(translate_range=3.0)
    np.testing.assert_allclose(matrices[:, :3, :3], np.broadcast_to(np.eye(3), (20, 3, 3)), atol=1e-6)
    shifts = matrices[:, :3, 3]
    assert np.abs(shifts).max() <= 3
    assert (shifts.max(0) > 1.5).all()
    assert (shifts.min(0) < -1.5).all()


def test_rotation_is_about_the_centre_of_the_volume():
    matrices = drawn(rotate_range=0.2)
    rotations = matrices[:, :3, :3]
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (20, 3, 3)), atol=1e-5
    )
    np.testing.assert_allclose(moved_centre(matrices), 0, atol=1e-5)
    angles = np.arccos((np.trace(rotations, axis1=1, axis2=2) - 1) / 2)
    assert angles.mean() > 0.05
    assert angles.max() <= 0.2 * np.sqrt(3) + 0.02


def test_scaling_is_relative_to_one_about_the_centre():
    matrices = drawn(scale_range=0.3)
    scales = np.diagonal(matrices[:, :3, :3], axis1=1, axis2=2)
    assert (scales >= 0.7).all()
    assert (scales <= 1.3).all()
    assert scales.std() > 0.1
    np.testing.assert_allclose(moved_centre(matrices), 0, atol=1e-5)


def test_zoom_is_the_same_along_every_axis_and_as_often_in_as_out():
    matrices = drawn(zoom=1.5)
    scales = np.diagonal(matrices[:, :3, :3], axis1=1, axis2=2)
    np.testing.assert_allclose(matrices[:, :3, :3], scales[:, :1, None] * np.eye(3), atol=1e-6)
    assert (scales >= 1 / 1.5 - 1e-6).all()
    assert (scales <= 1.5 + 1e-6).all()
    assert scales.min() < 0.9 < 1.1 < scales.max()
    np.testing.assert_allclose(moved_centre(matrices), 0, atol=1e-5)


def test_a_zoom_below_one_is_refused():
    with pytest.raises(ValueError, match=r"zoom is 0.8; expected 1 \(none\) or more"):
        RandomPairAffine(zoom=0.8)


def test_shear_keeps_the_volume_to_second_order():
    matrices = drawn(shear_range=0.05)
    off_diagonal = matrices[:, :3, :3] - np.eye(3)
    assert 0.02 < np.abs(off_diagonal).max() <= 0.06
    assert np.abs(np.linalg.det(matrices[:, :3, :3]) - 1).max() < 0.02


def test_no_version_is_flipped():
    matrices = drawn(rotate_range=0.1, translate_range=5.0, scale_range=0.1, shear_range=0.05)
    assert (np.linalg.det(matrices[:, :3, :3]) > 0.5).all()
    assert (np.diagonal(matrices[:, :3, :3], axis1=1, axis2=2) > 0.7).all()


def test_planar_pairs_are_transformed_too():
    pair = torch.rand(1, 2, 10, 13, generator=torch.Generator().manual_seed(0))
    augmentation = RandomPairAffine(versions=2, translate_range=2.0)
    assert augmentation.matrices((10, 13), np.random.RandomState(0)).shape == (2, 3, 3)
    images, _ = augmentation(pair, None, (0,))
    assert images.shape == (2, 2, 10, 13)
    assert (images[0] - pair[0]).abs().mean() > 0.05


def test_a_mini_batch_without_versions_is_refused():
    with pytest.raises(ValueError, match="versions is 0; expected 1 or more"):
        RandomPairAffine(versions=0)


def test_intensities_change_in_the_images_alone_and_stay_plain_tensors(pair):
    with_masks = torch.cat([pair[:, :1], torch.ones(1, 1, *SHAPE), pair[:, 1:], torch.ones(1, 1, *SHAPE)], dim=1)
    labels = (pair > 0.5).float()
    augmentation = RandomPairAffine(versions=2, **NOTHING, intensities=[RandScaleIntensity(prob=1.0, factors=(1, 1))])
    images, structures = augmentation(with_masks, labels, (0, 1))
    torch.testing.assert_close(images[:, ::2], 2 * pair.expand(2, 2, *SHAPE), atol=1e-5, rtol=0)
    torch.testing.assert_close(images[:, 1::2], torch.ones(2, 2, *SHAPE))
    torch.testing.assert_close(structures, labels.expand(2, 2, *SHAPE), atol=1e-5, rtol=0)
    # A subclass that tracks metadata would do so in every operation of the steps.
    assert type(images) is type(structures) is torch.Tensor
