"""Fields of view derived from images: a fan with dark speckle is found, and nothing else is."""

import time

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.data import SIDES, FieldOfViewMaskd
from bundle.data.field_of_view import field_of_view

SHAPE = (120, 90, 8)
SPACING = (0.5, 0.6, 1.0)
CYST = slice(2, 6)


def sector(shape=SHAPE, spacing=SPACING):
    """A fan in every slice: 35 degrees to either side of an apex above the image, from 6 to 48 mm."""
    i, j, _ = np.meshgrid(*map(np.arange, shape), indexing="ij")
    x, y = (i - shape[0] / 2) * spacing[0], j * spacing[1] + 4
    radius, angle = np.hypot(x, y), np.degrees(np.arctan2(x, y))
    return (np.abs(angle) < 35) & (radius > 6) & (radius < 48)


def ultrasound(fan, background=0.0, dark=0.2):
    """Speckle inside the fan, a part of it black, and a black cyst."""
    random = np.random.default_rng(0)
    image = np.where(fan, 40 + 60 * random.rayleigh(size=fan.shape), 0)
    image[fan & (random.random(fan.shape) < dark)] = 0
    image[55:70, 40:55, CYST if fan.shape[2] > 1 else 0] = 0
    return (image + background).astype(np.float32)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("background", [0.0, -1000.0])
def test_a_fan_with_black_speckle_and_a_cyst_is_recovered(background):
    fan = sector()
    found = field_of_view(ultrasound(fan, background), SPACING)
    assert dice(found, fan) > 0.98
    assert found[55:70, 40:55].all()


def test_a_fan_in_one_slice_is_recovered():
    fan = sector()[:, :, :1]
    found = field_of_view(ultrasound(fan), SPACING)
    assert found.shape == (120, 90, 1)
    assert dice(found, fan) > 0.98


def test_faint_noise_and_a_text_beside_the_fan_do_not_belong_to_it():
    fan = sector()
    image = ultrasound(fan)
    image += np.random.default_rng(1).uniform(0, 2, SHAPE).astype(np.float32)
    image[2:12, 2:8] = 150
    found = field_of_view(image, SPACING)
    assert dice(found, fan) > 0.98
    assert not found[2:12, 2:8].any()


def test_an_image_without_background_is_seen_whole():
    random = np.random.default_rng(0)
    assert field_of_view(random.random((20, 30, 10)).astype(np.float32), (1, 1, 1)).all()
    speckle = np.where(random.random((20, 30, 10)) < 0.3, 0, 50).astype(np.float32)
    assert field_of_view(speckle, (1, 1, 1)).all()


def test_dark_structures_thinner_than_the_opening_do_not_leak_in():
    image = np.full((40, 40, 40), 100, np.float32)
    image[:10] = 0
    image[10:30, 20] = 0  # a sheet of one voxel that reaches the background
    found = field_of_view(image, (1, 1, 1))
    assert not found[:10].any()
    assert found[10:].all()


@pytest.mark.parametrize("image", [np.zeros((9, 9, 9)), np.pad(np.ones((1, 1, 1)), 12)])
def test_an_image_that_is_all_background_is_refused(image):
    with pytest.raises(ValueError, match="all background, .* %; |all background, .* give a mask, or set field_of_view"):
        field_of_view(image, (1, 1, 1))


def test_it_is_the_same_every_time_and_fast():
    fan = sector((128, 128, 128), (0.4, 0.4, 0.4))
    image = ultrasound(fan)
    start = time.process_time()
    first = field_of_view(image, (0.4, 0.4, 0.4))
    # Of a core's time, whatever else the machine does: well below a second.
    assert time.process_time() - start < 3
    assert np.array_equal(first, field_of_view(image, (0.4, 0.4, 0.4)))


def test_masks_that_are_given_stay_and_others_are_derived():
    fan, affine = sector(), np.diag([*SPACING, 1.0])
    images = {f"{side}_image": MetaTensor(torch.as_tensor(ultrasound(fan))[None], affine=affine) for side in SIDES}
    given = MetaTensor(torch.ones(1, *SHAPE), affine=affine)
    result = FieldOfViewMaskd()({"pair_id": "p", **images, "fixed_mask": given})
    assert result["fixed_mask"] is given
    mask = result["moving_mask"]
    assert mask.dtype == torch.float32
    assert dice(mask[0].numpy() > 0, fan) > 0.98
    np.testing.assert_allclose(mask.affine, affine)
    images["moving_image"] = MetaTensor(torch.zeros(1, *SHAPE), affine=affine)
    with pytest.raises(ValueError, match="pair p: moving_image: the image is all background"):
        FieldOfViewMaskd()({"pair_id": "p", **images})
