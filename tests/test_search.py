"""The search for tissue that looks alike, on images whose displacement is known."""

from types import SimpleNamespace

import pytest
import torch

from bundle.registration import BendingEnergyLoss, DisplacementSearch, MSELoss, RegistrationLoss, SearchInferer
from bundle.registration.search import AGREEMENT, SHARE, self_similarities

SHAPE = (24, 20, 16)
SHIFT = (2, 0, -1)


def speckle(shape, seed=0):
    return torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed))


def shifted(shift=SHIFT, shape=SHAPE):
    """Moving and fixed image, cut out of one volume: ``fixed(x) = moving(x + shift)``."""
    scene = speckle([length + 8 for length in shape])
    cuts = (
        tuple(slice(4 + by, 4 + by + length) for by, length in zip(s, shape, strict=True)) for s in ((0,) * 3, shift)
    )
    return [scene[(..., *cut)] for cut in cuts]


def still(*shape):
    return torch.zeros(1, len(shape), *shape)


def test_the_displacement_under_which_images_agree_is_found():
    found, _ = DisplacementSearch(3, pixdim=1)(torch.cat(shifted(), 1), still(*SHAPE))
    assert torch.equal(found, SHARE * torch.tensor(SHIFT).reshape(1, 3, 1, 1, 1).expand_as(found).float())


def test_the_search_goes_on_from_the_field_that_it_is_given():
    pair, shift = torch.cat(shifted(), 1), torch.tensor(SHIFT).float()
    right = still(*SHAPE) + shift.reshape(1, 3, 1, 1, 1)
    search = DisplacementSearch(3, pixdim=1)
    assert torch.allclose(search(pair, right)[0][0, :, 12, 10, 8], shift, atol=1e-5)
    # A voxel too far along each axis: half of the way back.
    assert torch.allclose(search(pair, right + 1)[0][0, :, 12, 10, 8], shift + 1 - SHARE, atol=1e-5)


@pytest.mark.parametrize("cut", [0, 1])
def test_a_finer_grid_is_searched_by_averages_of_about_a_third_of_the_reach(cut):
    fine = torch.cat(
        [image.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4) for image in shifted()], 1
    )
    fine = fine[..., cut:]  # of any length
    search = DisplacementSearch(3, pixdim=0.5)
    assert (search.downsampling, search.reach) == (2, 3)
    found, _ = search(fine, still(*fine.shape[2:]))
    assert found.shape[2:] == fine.shape[2:]
    if not cut:
        assert torch.allclose(found, 2 * SHARE * torch.tensor(SHIFT).reshape(1, 3, 1, 1, 1).float().expand_as(found))
    finest = DisplacementSearch(7.2, pixdim=0.8)
    assert (finest.downsampling, finest.reach) == (3, 3)


def test_what_is_found_lies_where_it_was_searched_on_an_axis_of_odd_length():
    """It was spread over the whole axis, at whose end it lay a voxel too far."""
    scene = speckle((66, 10, 8))
    moving, fixed = scene[:, :, :65], scene[:, :, :65].clone()
    fixed[:, :, 40:] = scene[:, :, 41:]  # from here on the tissue comes from the next voxel
    odd, even = (
        DisplacementSearch(2, pixdim=1)(torch.cat([moving, fixed], 1)[:, :, :length], still(length, 10, 8))[0]
        for length in (65, 64)
    )
    assert even[0, 0, 50:60].min() == SHARE
    torch.testing.assert_close(odd[:, :, :56], even[:, :, :56])


@pytest.mark.parametrize("image", [speckle(SHAPE), torch.zeros(1, 1, *SHAPE), torch.full((1, 1, *SHAPE), 0.3)])
def test_an_image_stays_on_itself_and_nothing_moves_where_there_is_nothing(image):
    found, disagreement = DisplacementSearch(3, pixdim=1)(torch.cat([image, image], 1), still(*SHAPE))
    assert not found.any() and disagreement == 0


def test_what_lies_outside_the_masks_does_not_count():
    moving, fixed = shifted()
    inside = torch.zeros_like(fixed)
    inside[..., 4:20, 4:16, 4:12] = 1
    disturbed = torch.where(inside > 0, fixed, speckle(SHAPE, seed=1))
    pair = torch.cat([moving, torch.ones_like(moving), disturbed, inside], 1)
    found, _ = DisplacementSearch(3, pixdim=1)(pair, still(*SHAPE))
    middle = SHARE * torch.tensor(SHIFT).float()
    assert torch.allclose(found[0, :, 12, 10, 8], middle)
    pair[:, 3] = 0
    found, disagreement = DisplacementSearch(3, pixdim=1)(pair, still(*SHAPE))
    assert not found.any() and disagreement.isnan()


def test_images_of_different_tissue_are_left_where_they_are():
    unlike = torch.cat([speckle(SHAPE), speckle(SHAPE, seed=1)], 1)
    start = still(*SHAPE) + 0.5
    found, disagreement = DisplacementSearch(6, pixdim=2)(unlike, start)
    assert found is start and torch.equal(start, still(*SHAPE) + 0.5)
    assert disagreement > 6 * AGREEMENT


def test_the_maps_say_where_the_two_searches_have_to_agree():
    moving, fixed = shifted()
    organ = torch.zeros_like(fixed)
    organ[..., 8:, :, :] = 1
    inside = torch.ones_like(fixed)
    half = torch.where(organ > 0, fixed, speckle(SHAPE, seed=1))
    pair = torch.cat([moving, inside, organ, half, inside, organ], 1)
    search = DisplacementSearch(3, pixdim=1)
    found, within = search(pair, still(*SHAPE))
    assert found.any() and within < AGREEMENT * 3
    pair[:, [2, 5]] = 1 - organ
    found, outside = search(pair, still(*SHAPE))
    assert not found.any() and outside > AGREEMENT * 3


def test_pairs_of_a_batch_and_slices_are_searched_each_on_its_own():
    moving, fixed = shifted((0, 1, 0))
    search = DisplacementSearch(2, pixdim=1)
    pairs = torch.cat([torch.cat([moving, fixed], 1), torch.cat([fixed, fixed], 1)])
    both, disagreements = search(pairs, still(*SHAPE).repeat(2, 1, 1, 1, 1))
    alone, disagreement = search(pairs[:1], still(*SHAPE))
    assert torch.equal(both[:1], alone) and torch.equal(disagreements[:1], disagreement)
    assert not both[1].any()
    assert both[0, 1].mean() == SHARE
    scene = speckle((40, 40))
    planar, _ = search(torch.cat([scene[..., 2:34, 2:34], scene[..., 3:35, 2:34]], 1), still(32, 32))
    assert torch.equal(planar[0, :, 16, 16], torch.tensor([SHARE, 0]))


@pytest.mark.parametrize("thin", [1, 2, 3, 5])
def test_an_image_of_few_voxels_along_an_axis_is_searched(thin):
    scene = speckle((22, 20, thin))
    pair = torch.cat([scene[:, :, :-2], scene[:, :, 2:]], 1)  # fixed(x) = moving(x + 2)
    found, _ = DisplacementSearch(3, pixdim=1)(pair, still(20, 20, thin))
    expected = SHARE * torch.tensor([2.0, 0, 0]).reshape(3, 1, 1, 1)
    torch.testing.assert_close(found[0, :, 7:13, 7:13], expected.expand(3, 6, 6, thin))


def test_self_similarities_know_no_brightness_and_no_contrast():
    image = speckle(SHAPE)
    assert self_similarities(image).shape == (1, 12, *SHAPE)
    assert self_similarities(image[..., 0]).shape == (1, 4, *SHAPE[:2])
    assert torch.allclose(self_similarities(5 - 3 * image), self_similarities(image), atol=1e-4)
    assert not torch.allclose(self_similarities(speckle(SHAPE, seed=1)), self_similarities(image), atol=0.1)


@pytest.mark.parametrize("reach", [0, 0.3, -3])
def test_a_reach_of_no_voxel_is_refused(reach):
    with pytest.raises(ValueError, match=r"search_mm is .*; expected 0\.8 \(a voxel\) or more, or null"):
        DisplacementSearch(reach, pixdim=0.8)


def test_the_result_of_a_registration_is_judged_after_the_search():
    pair = torch.cat(shifted(), 1)
    loss = RegistrationLoss(MSELoss(), BendingEnergyLoss(), 0.01)

    def register(inputs, network, labels=None):
        assert network == "network" and labels is None
        identity = loss(still(*SHAPE), inputs)["similarity"]
        found = {"similarity": torch.stack([identity, identity])[None], "seconds": torch.tensor([1.0])}
        return found | {"ddf": still(*SHAPE), "inverse_ddf": still(*SHAPE), "losses": torch.tensor([[3.0]])}

    search = DisplacementSearch(3, pixdim=1)
    found = SearchInferer(register, search, loss)(pair, "network")
    ddf, disagreement = search(pair, still(*SHAPE))
    assert torch.equal(found["ddf"], ddf) and torch.equal(found["disagreement"], disagreement)
    assert found["similarity"][0, 0] == register(pair, "network")["similarity"][0, 0]
    assert found["similarity"][0, 1] == loss(found["ddf"], pair)["similarity"]
    assert found["seconds"] > 1 and found["losses"].tolist() == [[3.0]]
    assert "inverse_ddf" not in found  # it would be that of another field


def test_the_seconds_of_the_search_are_right_on_a_machine_that_runs_for_long(monkeypatch):
    clock = iter([1e7, 1e7 + 0.25])  # after 116 days; single precision has steps of a second there
    monkeypatch.setattr("bundle.registration.search.time", SimpleNamespace(perf_counter=lambda: next(clock)))

    def register(inputs, network, labels=None):
        return {"similarity": torch.zeros(1, 2), "seconds": torch.tensor([1.0]), "ddf": still(*SHAPE)}

    loss = RegistrationLoss(MSELoss(), BendingEnergyLoss(), 0.01)
    found = SearchInferer(register, DisplacementSearch(3, pixdim=1), loss)(torch.cat(shifted(), 1), "network")
    assert found["seconds"].tolist() == [1.25]
