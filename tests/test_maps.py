"""Maps: targets, losses and transforms with answers worked out by hand."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.networks.nets import DynUNet
from monai.transforms import Compose, RandGaussianNoised
from torch import nn
from toys import oblique_affine
from workflow_fixtures import ROOT

from bundle.maps import (
    AnatomyMapsd,
    CheckImaged,
    LandmarkDistance,
    MapLoss,
    MapNetwork,
    MapTargetsd,
    RandDepthAttenuationd,
    RandShadowd,
    SeededDataset,
    certainty,
    copy_beside,
    copy_weights,
    fingerprint_beside,
    map_unet,
    maps_beside,
    read_map_network,
    start_rare,
)
from bundle.registration import read_weights
from bundle.registration.weights import weights_of
from bundle.system import fingerprint

AFFINE = torch.as_tensor(oblique_affine([1.0, 1.5, 2.0], [10, -20, 30], [5, -7, 11]))
SHAPE = (12, 10, 8)


def label(*spots):
    """A channel per spot of one voxel; None is empty."""
    channels = torch.zeros(len(spots), *SHAPE)
    for channel, spot in zip(channels, spots, strict=True):
        if spot is not None:
            channel[spot] = 1
    return MetaTensor(channels, affine=AFFINE)


def test_a_landmark_is_a_gaussian_in_mm_around_its_centroid():
    targets = MapTargetsd([0, 1], landmarks=[1], heat_map_mm=3.0)({"label": label((2, 3, 4), (6, 5, 4))})["label"]
    assert torch.equal(targets[0].nonzero(), torch.tensor([[2, 3, 4]]))
    assert targets[1, 6, 5, 4] == 1
    # Two voxels along the axes of 1, 1.5 and 2 mm.
    for place, distance in (((8, 5, 4), 2.0), ((6, 7, 4), 3.0), ((6, 5, 6), 4.0)):
        assert targets[1][place].item() == pytest.approx(np.exp(-(distance**2) / 18), rel=1e-4)


def test_values_of_an_integer_map_are_structures():
    integers = MetaTensor(torch.zeros(1, *SHAPE), affine=AFFINE)
    integers[0, 1, 1, 1], integers[0, 2, 2, 2] = 4, 7
    targets = MapTargetsd([7, 4])({"label": integers})["label"]
    assert targets.nonzero().tolist() == [[0, 2, 2, 2], [1, 1, 1, 1]]


def test_a_structure_that_the_label_lacks_is_unknown():
    targets = MapTargetsd([0, 1, 5], landmarks=[1])({"label": label((2, 3, 4), None)})["label"]
    assert targets[0].amin() == 0
    assert (targets[1:] == -1).all()


@pytest.mark.parametrize("value", [None, 1, "[1, 2]"])
def test_structures_and_landmarks_are_lists(value):
    with pytest.raises(ValueError, match=r"^landmarks is .*, expected a list of numbers, .*; \[\] for none"):
        MapTargetsd([0, 1], landmarks=value)
    with pytest.raises(ValueError, match="^structures is .*, expected a list of numbers"):
        MapTargetsd(value)


@pytest.mark.parametrize("filters", [[4, 8], None, 16])
def test_levels_that_no_map_network_has_are_named(filters):
    with pytest.raises(ValueError, match=r"^filters is .*, expected channels of 3 levels or more"):
        map_unet(3, 2, filters)


def test_landmarks_must_be_structures():
    with pytest.raises(ValueError, match=r"landmarks has \[3\], which are none of the structures \[0, 1\]"):
        MapTargetsd([0, 1], landmarks=[1, 3])


def test_an_image_whose_label_is_empty_is_refused():
    image = MetaTensor(torch.rand(1, *SHAPE), affine=AFFINE, meta={"filename_or_obj": "A.nii.gz"})
    with pytest.raises(ValueError, match="A_label.nii.gz: the label is empty"):
        empty = MetaTensor(label(None), meta={"filename_or_obj": "A_label.nii.gz"})
        CheckImaged()({"image": image, "label": empty})


def test_map_loss_of_known_logits():
    logits, target = torch.zeros(1, 3, 4, 4, 4), torch.zeros(1, 3, 4, 4, 4)
    target[:, 0, :2] = 1
    target[:, 1] = 0.5
    target[:, 2] = -1
    # p = 1/2 everywhere: cross-entropy log 2, Dice 2 * 16 / (32 + 32); the heat map is met; the third is not known.
    expected = 0.5 + np.log(2) + 4.0 * np.log(2)
    assert MapLoss(landmarks=[1], landmark_weight=4.0)(logits, target).item() == pytest.approx(expected, rel=1e-3)


def test_the_gradient_of_a_heat_map_vanishes_where_it_is_met():
    target = torch.rand(1, 1, 4, 4, 4).clamp(0.1, 0.9)
    logits = target.logit().requires_grad_()
    MapLoss(landmarks=[0])(logits, target).backward()
    assert logits.grad.abs().max() < 1e-6


def test_nothing_known_is_no_loss():
    logits = torch.zeros(1, 2, 4, 4, 4, requires_grad=True)
    loss = MapLoss(landmarks=[1])(logits, torch.full((1, 2, 4, 4, 4), -1.0))
    assert loss == 0
    loss.backward()
    assert not logits.grad.any()


def test_distance_of_landmarks_is_in_mm_over_those_that_are_known():
    maps, target = torch.zeros(1, 3, 9, 9, 9), torch.zeros(1, 3, 9, 9, 9)
    maps[0, 1, 2, 3, 4], target[0, 1, 5, 3, 8] = 1, 1
    target[0, 2] = -1
    metric = LandmarkDistance([1, 2], pixdim=2.0)
    metric(maps, target)
    assert metric.aggregate().item() == pytest.approx(2 * 5)


@pytest.mark.parametrize(
    ("settings", "measured"),
    [
        ({}, ["val_dice", "val_landmark_mm"]),
        ({"structures": [1, 2], "landmarks": []}, ["val_dice"]),
        ({"structures": [1], "landmarks": [1]}, ["val_landmark_mm"]),
    ],
)
def test_the_best_weights_have_the_highest_dice_or_without_structures_the_nearest_landmarks(settings, measured):
    parser = ConfigParser(ConfigParser.load_config_files([ROOT / "configs/maps.yaml"]))
    parser.update(settings)
    key, others = (parser.get_parsed_content(f"validate::{kind}") for kind in ("key_metric", "additional_metrics"))
    assert [*key, *others] == measured and len(key) == 1
    better = parser.get_parsed_content("validate::evaluator::metric_cmp_fn")
    assert better(0.5, 0.25) == ("val_dice" in key) and better(0.25, 0.5) == ("val_dice" not in key)


@pytest.mark.parametrize(("images", "episodes"), [(1, 2), (2, 2), (3, 2), (5, 4)])
def test_a_map_network_learns_from_fewer_images_than_a_batch_has(images, episodes):
    """One image made an epoch of nothing, and a training without weights said where they are."""
    parser = ConfigParser(ConfigParser.load_config_files([ROOT / "configs/maps.yaml"]))
    parser.update({"images": {"training": [{"image": str(number)} for number in range(images)], "validation": []}})
    assert parser.get_parsed_content("train::sampler::episodes") == episodes


def test_a_map_network_without_images_is_refused():
    parser = ConfigParser(ConfigParser.load_config_files([ROOT / "configs/maps.yaml"]))
    parser.update({"images": {"training": [], "validation": [{"image": "a"}]}})
    first = next(number for number, step in enumerate(parser["maps"]) if "require" in step)
    assert not any("start" in step for step in parser["maps"][:first])  # nothing is written yet
    with pytest.raises(RuntimeError) as refused:
        parser.get_parsed_content(f"maps::{first}")
    assert str(refused.value.__cause__).startswith("no training images (found: training 0, validation 1)")


def test_a_map_network_is_trained_by_one_process(monkeypatch):
    """With the overlay for several, each learned from its share of the images alone, in silence."""
    parser = ConfigParser(ConfigParser.load_config_files([ROOT / "configs/maps.yaml"]))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    number = next(number for number, step in enumerate(parser["maps"]) if "check_alone" in step)
    with pytest.raises(RuntimeError) as refused:
        parser.get_parsed_content(f"maps::{number}")
    assert str(refused.value.__cause__).startswith("2 processes were started, and a map network is trained by one")
    monkeypatch.setenv("WORLD_SIZE", "1")
    parser.get_parsed_content(f"maps::{number}")
    assert not any("start" in step for step in parser["maps"][:number])  # nothing is written yet


@pytest.mark.parametrize("name", ["maps", "training"])
def test_nothing_is_written_into_the_folder_of_another_run(name):
    """The record of the patients, and the maps of another network, were replaced before the run was refused."""
    files = {"maps": "maps.yaml", "training": "train.yaml"}
    steps = ConfigParser.load_config_file(ROOT / "configs" / files[name])[name]
    first = next(number for number, step in enumerate(steps) if "check_run" in step)
    writing = [number for number, step in enumerate(steps) if re.search("write|copy|session.run", step)]
    assert len(writing) >= 2 and first < min(writing)


@pytest.mark.parametrize(
    ("values", "structures", "told"),
    [
        ([2, 7], [0, 1, 2], r"but its label is an integer map of the values 2, 7; name some of these"),
        ([2, 7], [1], r"the structures are \[1\], but its label is an integer map"),
        ([None, (2, 3, 4)], [0], r"but its label shows something in the channels \(from 0\) 1; name"),
    ],
)
def test_a_label_without_the_structures_and_the_background_as_one_are_refused(values, structures, told):
    """The background was learned as the organ, and from a label without any structure nothing, with a loss of 0."""
    if values == [2, 7]:
        found = MetaTensor(torch.zeros(1, *SHAPE), affine=AFFINE)
        found[0, 2], found[0, 5] = values
        assert MapTargetsd([2, 9])({"label": found})["label"].amax((1, 2, 3)).tolist() == [1, -1]
    else:
        found = label(*values)
    with pytest.raises(ValueError, match=told):
        MapTargetsd(structures)({"label": found})


def test_depth_attenuation_fades_away_from_the_probe():
    transform = RandDepthAttenuationd("image", axis=1, attenuation=2.0, prob=1.0).set_random_state(seed=0)
    image = transform({"image": torch.ones(1, 3, 11, 4)})["image"]
    assert torch.equal(image, image[:, :1, :, :1].expand_as(image))
    profile = image[0, 0, :, 0]
    assert profile[5] == 1
    strength = -torch.log(profile[10]) * 2
    torch.testing.assert_close(profile, torch.exp(-strength * (torch.arange(11) / 10 - 0.5)))
    assert 0 < strength.abs() <= 2


def test_a_shadow_darkens_a_band_and_only_behind_where_it_begins():
    transform = RandShadowd("image", axis=1, strength=(0.5, 0.5), width=(0.1, 0.1), prob=1.0).set_random_state(seed=3)
    image = transform({"image": torch.ones(1, 40, 40, 40)})["image"][0]
    dark = image < 0.9
    assert dark.any()
    assert image.min() == pytest.approx(0.5, abs=0.01)
    depth = dark.any(2).any(0).nonzero().flatten()
    assert depth.max() == 39
    assert (image[:, : depth.min()] == 1).all()


def test_random_transforms_follow_from_seed_epoch_and_item():
    def images(seed, epoch):
        noise = RandGaussianNoised("image", prob=1.0)
        dataset = SeededDataset([{"image": torch.zeros(1, 4)}] * 2, Compose([noise]), seed=seed)
        dataset.epoch = epoch
        return [dataset[index]["image"] for index in (1, 0)]

    assert all(torch.equal(a, b) for a, b in zip(images(0, 1), images(0, 1), strict=True))
    once, other_epoch, other_seed = images(0, 1), images(0, 2), images(1, 1)
    assert not torch.equal(once[0], once[1])
    assert not torch.equal(once[0], other_epoch[0])
    assert not torch.equal(once[0], other_seed[0])


class Bias(nn.Module):
    """Logits that are a weight plus the image."""

    def __init__(self, maps=2):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(maps))

    def forward(self, image):
        return image + self.bias.reshape(1, -1, *[1] * (image.ndim - 2))


def biased(path, maps=2):
    network = Bias(maps)
    read_weights(path, network)
    return MapNetwork(network)


@pytest.fixture
def weights(tmp_path):
    files = []
    for value in (1.0, 3.0):
        files.append(str(tmp_path / f"{value}.pt"))
        torch.save({"bias": torch.tensor([value, -value])}, files[-1])
    return files


def pair(patient):
    sides = {
        f"{side}_image": MetaTensor(torch.full((1, 4, 4, 4), value), affine=torch.eye(4))
        for side, value in (("fixed", 0.5), ("moving", 0.0))
    }
    return {**sides, "patient": patient}


def test_maps_of_several_networks_are_averaged(weights):
    data = AnatomyMapsd(biased, weights)(pair(("A", "B")))
    expected = torch.sigmoid(torch.tensor([2.5, -1.5]))
    torch.testing.assert_close(data["fixed_maps"].as_tensor()[:, 0, 0, 0], expected)
    torch.testing.assert_close(data["moving_maps"].as_tensor()[:, 1, 2, 3], torch.sigmoid(torch.tensor([2.0, -2.0])))


def test_maps_are_certain_where_their_networks_are_sure_and_agree(weights):
    sure, vague, other = torch.zeros(2, *SHAPE), torch.zeros(2, *SHAPE), torch.zeros(2, *SHAPE)
    sure[0, 2:6], vague[0, 2:6], other[0, 4:8] = 1, 0.6, 1
    assert certainty(sure) == 1
    assert certainty(vague) == pytest.approx(0.6)
    assert certainty((sure + other) / 2) == pytest.approx((2 + 4 * 0.25) / 4)  # two layers shared, four half each
    assert certainty(0 * sure) == 0
    # The mean of what the networks say, not of their logits, which hides that they disagree.
    data = AnatomyMapsd(biased, weights)(pair(("A", "B")))
    p = torch.sigmoid(torch.tensor([[1.0, -1.0], [3.0, -3.0]])).mean(0)
    assert data["moving_certainty"] == pytest.approx(float((p**2).sum() / p.sum()))
    alone = AnatomyMapsd(biased, weights, held_out={"A": 0, "B": 1})(pair(("A", "B")))
    p = torch.sigmoid(torch.tensor([1.0, -1.0]))
    assert alone["moving_certainty"] == pytest.approx(float((p**2).sum() / p.sum()))


def test_an_image_is_shown_to_the_network_that_never_saw_its_patient(weights):
    maps = AnatomyMapsd(biased, weights, held_out={"A": 0, "B": 1})
    moving, fixed = (maps(pair(("A", "B")))[f"{side}_maps"].as_tensor()[0, 0, 0, 0] for side in ("moving", "fixed"))
    assert moving.item() == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item())
    assert fixed.item() == pytest.approx(torch.sigmoid(torch.tensor(3.5)).item())
    both = maps(pair(("B",)))
    assert both["moving_maps"][0, 0, 0, 0].item() == pytest.approx(torch.sigmoid(torch.tensor(3.0)).item())
    new = maps(pair(("C", "A")))
    assert new["moving_maps"][0, 0, 0, 0].item() == pytest.approx(torch.sigmoid(torch.tensor(2.0)).item())
    assert new["fixed_maps"][0, 0, 0, 0].item() == pytest.approx(torch.sigmoid(torch.tensor(1.5)).item())


def test_each_kind_of_image_has_its_own_networks(weights):
    data = AnatomyMapsd(biased, {"fixed": weights[:1], "moving": weights[1:]})(pair(("A",)))
    assert data["fixed_maps"][0, 0, 0, 0].item() == pytest.approx(torch.sigmoid(torch.tensor(1.5)).item())
    assert data["moving_maps"][0, 0, 0, 0].item() == pytest.approx(torch.sigmoid(torch.tensor(3.0)).item())


def test_weights_of_another_network_are_refused(weights, tmp_path):
    with pytest.raises(ValueError, match="does not hold weights of this network"):
        AnatomyMapsd(partial(biased, maps=3), weights)
    with pytest.raises(FileNotFoundError, match="weights not found"):
        AnatomyMapsd(biased, [str(tmp_path / "none.pt")])


@pytest.mark.parametrize("error", [MemoryError("2 GiB"), torch.OutOfMemoryError("2 GiB")])
def test_weights_are_not_blamed_for_a_lack_of_memory(error, weights):
    with pytest.raises(type(error), match="2 GiB"), weights_of(weights[0]):
        raise error


@pytest.mark.parametrize("filters", [[4, 6, 8], [2, 4, 8, 10]])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_map_network_has_the_size_of_its_weights(filters, dims, tmp_path):
    trained, path = map_unet(dims, 2, filters), str(tmp_path / "maps.pt")
    torch.save(trained.state_dict(), path)
    network = read_map_network(path, 2, dims, map_pixdim=2.4, pixdim=1.0).eval()
    image = torch.rand(1, 1, *[2 ** (len(filters) + 1)] * dims)
    expected = MapNetwork(trained, downsampling=2, size_divisor=2 ** (len(filters) - 1)).eval()
    assert network.size_divisor == expected.size_divisor
    torch.testing.assert_close(network(image), expected(image))


def test_map_networks_refuse_images_too_coarse_for_them(tmp_path):
    """A preset of 1 mm followed by cpu.yaml registered at 2.4 mm, much worse and without a word."""
    path = str(tmp_path / "maps.pt")
    torch.save(map_unet(3, 2, [2, 4, 6]).state_dict(), path)
    seen = [read_map_network(path, 2, map_pixdim=2.4, pixdim=pixdim).downsampling for pixdim in (0.8, 1.0, 2.4, 3.5)]
    assert seen == [3, 2, 1, 1]
    with pytest.raises(
        ValueError, match=r"know a spacing of 1 mm \(map_pixdim\), and the images' is 2.4 mm \(pixdim\)"
    ):
        read_map_network(path, 2, map_pixdim=1.0, pixdim=2.4)


def test_map_networks_of_two_sizes_make_the_maps_of_one_pair(tmp_path):
    files = {}
    for side, filters in (("fixed", [2, 4, 6]), ("moving", [4, 6, 8, 10])):
        files[side] = [str(tmp_path / f"{side}.pt")]
        torch.save(map_unet(3, 2, filters).state_dict(), files[side][0])
    images = {f"{side}_image": MetaTensor(torch.rand(1, 16, 16, 16), affine=torch.eye(4)) for side in files}
    maps = AnatomyMapsd(partial(read_map_network, maps=2), files)
    assert maps(images)["moving_maps"].shape == (2, 16, 16, 16)
    with pytest.raises(ValueError, match=r"fixed\.pt does not hold weights of this network"):
        AnatomyMapsd(partial(read_map_network, maps=3), files)


def test_other_weights_are_no_map_network(weights):
    with pytest.raises(ValueError, match=r"1\.0\.pt does not hold weights of this network"):
        read_map_network(weights[0], 2)


def test_a_folder_of_weights_is_no_file_of_them(tmp_path):
    with pytest.raises(ValueError, match=r"run is a folder, expected a file of weights; give .*run/model\.pt"):
        (tmp_path / "run").mkdir()
        read_map_network(str(tmp_path / "run"), 2)


def test_a_slice_has_maps_too(weights):
    sides = {f"{side}_image": MetaTensor(torch.zeros(1, 6, 5, 1), affine=torch.eye(4)) for side in ("fixed", "moving")}
    data = AnatomyMapsd(biased, weights, spatial_dims=2)({**sides, "patient": ("A",)})
    assert data["fixed_maps"].shape == (2, 6, 5, 1)


def test_an_image_of_any_size_is_padded_for_the_network_and_its_maps_are_not():
    seen = []
    network = MapNetwork(Bias(), downsampling=2, size_divisor=4)
    network.network.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    image = torch.rand(1, 1, 9, 16, 5)
    logits = network(image)
    assert seen == [(1, 1, 8, 8, 4)]
    assert logits.shape == (1, 2, 9, 16, 5)
    torch.testing.assert_close(MapNetwork(Bias(), size_divisor=4)(image), image.expand(1, 2, 9, 16, 5))


def test_a_map_network_that_sees_averages_keeps_the_grid():
    network = MapNetwork(Bias(), downsampling=2)
    image = torch.zeros(1, 1, 8, 8, 8)
    image[:, :, 4:] = 1.0
    logits = network(image)
    assert logits.shape == (1, 2, 8, 8, 8)
    # The step between the averages at 2.5 and 4.5 is interpolated; its middle stays where it was.
    torch.testing.assert_close(logits[0, 0, :, 0, 0], torch.tensor([0, 0, 0, 0.25, 0.75, 1, 1, 1]))


def test_map_networks_of_the_same_weights_are_the_same_to_a_run_that_continues():
    made = [
        MapNetwork(DynUNet(3, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[2, 4, 8]), downsampling=each)
        for each in (1, 1, 2)
    ]
    for network in made[1:]:
        network.load_state_dict(made[0].state_dict())
    first, same, other = map(fingerprint, made)
    assert first == same != other


def test_weights_with_other_maps_or_step_sizes_are_others(tmp_path):
    for name in ("model.pt", "copy.pt"):
        (tmp_path / name).write_text("weights")
    same = fingerprint_beside(tmp_path / "model.pt")
    found = [same]
    for name in ("model_maps_0.pt", "model_maps_1.pt", "model_step_sizes.pt", "model_fixed_maps_0.pt"):
        (tmp_path / name).write_text("further weights")
        found.append(fingerprint_beside(tmp_path / "model.pt"))
    assert len(set(found)) == 4  # a side alone has no maps
    (tmp_path / "model_moving_maps_0.pt").write_text("further weights")
    assert fingerprint_beside(tmp_path / "model.pt") not in found
    assert fingerprint_beside(tmp_path / "copy.pt") == same
    with pytest.raises(OSError):
        fingerprint_beside(tmp_path / "none.pt")


def test_map_networks_travel_beside_the_weights(tmp_path, weights):
    assert maps_beside(None) is None
    assert maps_beside(tmp_path / "run/model.pt") is None
    copy_beside(weights, tmp_path / "run/model.pt", tmp_path / "run/model_last.pt")
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == [f"model{kind}_maps_{number}.pt" for kind in ("_last", "") for number in (0, 1)]
    found = maps_beside(tmp_path / "run/model.pt")
    assert [Path(file).read_bytes() for file in found] == [Path(file).read_bytes() for file in weights]
    copy_beside({"fixed": weights[:1], "moving": weights}, tmp_path / "two.pt")
    assert {side: len(files) for side, files in maps_beside(tmp_path / "two.pt").items()} == {"fixed": 1, "moving": 2}
    copy_beside(None, tmp_path / "none.pt")
    assert maps_beside(tmp_path / "none.pt") is None
    (tmp_path / "run/model.pt").write_bytes(b"weights")
    (tmp_path / "run/model_step_sizes.pt").write_bytes(b"step sizes")
    copy_weights(tmp_path / "run/model.pt", tmp_path / "other/start.pt")
    assert (tmp_path / "other/start_step_sizes.pt").read_bytes() == b"step sizes"
    assert (tmp_path / "other/start.pt").read_bytes() == b"weights"
    assert len(maps_beside(tmp_path / "other/start.pt")) == 2
    (tmp_path / "run/model_maps_best.pt").touch()
    assert maps_beside(tmp_path / "run/model.pt") == found


def test_map_networks_beside_weights_may_change_places(tmp_path):
    files = [tmp_path / f"model_maps_{number}.pt" for number in (0, 1)]
    for number, file in enumerate(files):
        file.write_text(f"network {number}")
    copy_beside([str(file) for file in files[::-1]], tmp_path / "model.pt")
    assert [file.read_text() for file in files] == ["network 1", "network 0"]


def test_weights_get_no_companions_of_those_they_replace(tmp_path, weights):
    for name, maps in (("two", {"fixed": weights, "moving": weights}), ("one", weights[:1])):
        (tmp_path / f"{name}.pt").write_text(name)
        copy_beside(maps, tmp_path / f"{name}.pt")
    (tmp_path / "two_step_sizes.pt").touch()
    served = tmp_path / "served/model.pt"
    copy_weights(tmp_path / "two.pt", served)
    kept = served.with_name("model_2_maps_0.pt")  # belongs to model_2.pt
    kept.touch()
    assert len(list(served.parent.iterdir())) == 7
    copy_weights(tmp_path / "one.pt", served)
    assert sorted(path.name for path in served.parent.iterdir()) == [
        "model.pt", kept.name, "model_maps_0.pt",
    ]  # fmt: skip
    assert served.read_text() == "one"
    copy_beside(maps_beside(served), served)
    assert maps_beside(served) == [str(served.with_name("model_maps_0.pt"))]


def test_a_new_network_expects_structures_to_be_rare():
    network = DynUNet(3, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[2, 4, 8])
    nn.init.zeros_(network.output_block.conv.conv.weight)
    start_rare(network, share=0.02)
    assert network(torch.rand(1, 1, 8, 8, 8)).sigmoid().flatten().tolist() == pytest.approx([0.02] * 1024, rel=1e-4)
