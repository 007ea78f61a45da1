"""Pairs: moving first, images and labels joined on one grid, episodes collated one by one."""

import pytest
import torch
from monai.data import MetaTensor

from bundle.data import PreparePair, collate_episodes, images_of, join_pair, split_pair


def test_join_puts_moving_first_and_split_takes_it_apart():
    moving, fixed = torch.full((2, 3, 4, 5, 6), 7.0), torch.full((2, 3, 4, 5, 6), 9.0)
    joined = join_pair(moving, fixed)
    assert joined[1, :, 2, 2, 2].tolist() == [7, 7, 7, 9, 9, 9]
    assert all(torch.equal(part, whole) for part, whole in zip(split_pair(joined), (moving, fixed), strict=True))


def test_join_refuses_two_grids():
    with pytest.raises(ValueError, match=r"moving has shape \(1, 1, 4, 5, 6\) and fixed \(1, 1, 4, 5, 7\)"):
        join_pair(torch.zeros(1, 1, 4, 5, 6), torch.zeros(1, 1, 4, 5, 7))


def batch(structures):
    image = MetaTensor(torch.arange(60.0).reshape(1, 1, 3, 4, 5), affine=torch.eye(4))
    labels = {f"{side}_label": torch.rand(1, structures, 3, 4, 5) for side in ("fixed", "moving")} if structures else {}
    return {"fixed_image": image, "moving_image": image + 100, **labels}


def test_prepare_joins_images_and_labels_as_plain_tensors():
    data = batch(structures=2)
    pair, labels = PreparePair()(data, "cpu", dtype=torch.float64)
    assert type(pair) is torch.Tensor
    assert pair.dtype == torch.float64
    assert pair[0, :, 1, 2, 3].tolist() == [133.0, 33.0]
    assert labels.shape == (1, 4, 3, 4, 5)
    assert torch.equal(labels[:, :2], data["moving_label"].double())


def test_prepare_gives_no_labels_unless_both_images_have_one():
    data = batch(structures=1)
    del data["moving_label"]
    assert PreparePair()(data)[1] is None
    assert PreparePair()(batch(structures=0))[1] is None


def test_episodes_of_different_sizes_are_batches_of_their_own():
    items = [{"fixed_image": torch.full((1, size, 4, 5), float(size)), "pair_id": f"p{size}"} for size in (3, 6)]
    episodes = collate_episodes(items)
    assert [episode["fixed_image"].shape for episode in episodes] == [(1, 1, 3, 4, 5), (1, 1, 6, 4, 5)]
    assert [episode["pair_id"] for episode in episodes] == [["p3"], ["p6"]]


def test_labels_go_to_the_inferer_only_when_asked():
    _pair, labels, positional, named = PreparePair(adapt_to_labels=True)(batch(structures=2))
    assert positional == ()
    assert named["labels"] is labels


def test_masks_follow_their_image_and_a_missing_one_is_ones():
    data = batch(structures=2)
    data["fixed_mask"] = torch.rand(1, 1, 3, 4, 5)
    pair, labels = PreparePair()(data)
    assert pair.shape == (1, 4, 3, 4, 5)
    moving, fixed = split_pair(pair)
    assert torch.equal(moving[:, :1], data["moving_image"].as_tensor())
    assert torch.equal(moving[:, 1:], torch.ones(1, 1, 3, 4, 5))
    assert torch.equal(fixed[:, 1:], data["fixed_mask"])
    assert labels.shape == (1, 4, 3, 4, 5)
    assert torch.equal(images_of(pair), PreparePair()(batch(structures=0))[0])
    data["moving_mask"] = torch.zeros(1, 1, 3, 4, 5)
    assert not PreparePair()(data)[0][:, 1].any()


def test_masks_of_slices_lose_the_slice_axis_too():
    image = torch.rand(1, 1, 6, 5, 1)
    data = {"fixed_image": image, "moving_image": image, "moving_mask": torch.ones(1, 1, 6, 5, 1)}
    assert PreparePair(spatial_dims=2)(data)[0].shape == (1, 4, 6, 5)
