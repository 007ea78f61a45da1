"""A training resumes, and a preprocessed pair is taken from the cache, only where all they depend on is the same."""

import json
import shutil

import pytest
import yaml
from monai.bundle import ConfigParser
from workflow_fixtures import ROOT, SMALL_TRAINING

from bundle.system import changes, described

pytest_plugins = ["workflow_fixtures"]
CONFIGS = ROOT / "configs"


def configured(dataset, overlays=(), **options):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.yaml"), *map(str, overlays)])
    given = {
        **SMALL_TRAINING,
        "start_weights": None,
        "dataset_dir": str(dataset),
        "datalist": "datalist.json",
        **options,
    }
    parser.update({key.replace("#", "::"): value for key, value in given.items()})
    return parser


def depends_on(parser):
    return described(**parser.get_parsed_content("settings"))


def cached_as(parser):
    dataset = parser.get_parsed_content("train::dataset")
    return dataset.hash_func(dataset.data[0]).decode() + dataset.transform_hash


def test_the_same_configuration_read_twice_is_the_same(tiny_dataset):
    first, second = (configured(tiny_dataset) for _ in range(2))
    assert changes(depends_on(first), depends_on(second)) == []
    assert cached_as(first) == cached_as(second)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"pixdim": 6}, "pixdim was 5, is 6"),
        ({"intensity_percentiles": [1.0, 99.0]}, "preprocessing"),
        ({"size_divisor": 16}, "preprocessing"),
        ({"initial_alignment": "world"}, "preprocessing"),
        ({"structures": [1]}, "preprocessing"),
    ],
)
def test_preprocessing_counts_for_both(tiny_dataset, options, named):
    before, now = configured(tiny_dataset), configured(tiny_dataset, **options)
    found = changes(depends_on(before), depends_on(now))
    assert found
    assert found[0].startswith(named)
    assert cached_as(before) != cached_as(now)


def test_an_overlay_that_edits_the_preprocessing_counts_for_both(tiny_dataset, tmp_path):
    transforms = yaml.safe_load((CONFIGS / "train.yaml").read_text())["preprocessing"]["transform"]["transforms"]
    overlay = tmp_path / "noise.yaml"
    noise = {"_target_": "GaussianSmoothd", "keys": ["fixed_image"], "sigma": 1.0}
    overlay.write_text(
        yaml.safe_dump({"preprocessing": {"transform": {"_target_": "Compose", "transforms": [*transforms, noise]}}})
    )
    before, now = configured(tiny_dataset), configured(tiny_dataset, [overlay])
    assert any("GaussianSmooth" in line for line in changes(depends_on(before), depends_on(now)))
    assert cached_as(before) != cached_as(now)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"elastic_mm": 2.0}, "augmentation"),
        ({"flip_axis": 0}, "augmentation"),
        ({"regularisation_weight": 0.25}, "loss.regularisation_weight was 0.5, is 0.25"),
        ({"window_mm": 50.0}, "loss"),
        ({"inner_lr": 0.02}, "inner_lr was 0.01, is 0.02"),
        ({"integration_steps": 7}, "integration_steps was 0, is 7"),
        ({"control_points": [3, 3, 3]}, "control_points was None, is list"),
        ({"network_def#fn": "$lambda module: None"}, "network was"),
        ({"lr_scheduler#start_factor": 0.5}, "lr_scheduler.1"),
    ],
)
def test_training_counts_for_a_training_alone(tiny_dataset, options, named):
    before, now = configured(tiny_dataset), configured(tiny_dataset, **options)
    assert changes(depends_on(before), depends_on(now))[0].startswith(named)
    assert cached_as(before) == cached_as(now)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"steps": 3}, "steps was 1, is 3"),
        ({"val_interval": 2}, "val_interval was 1, is 2"),
        ({"prepare_batch#adapt_to_labels": True}, "prepare_batch.adapt_to_labels was False, is True"),
        ({"keep_alignment": False}, "keep_alignment was True, is False"),
        ({"stop_tolerance": 0.1}, "stop_tolerance was None, is 0.1"),
        ({"adaptation_loss#regularisation_weight": 2.0}, "validation_loss.regularisation_weight was 0.5, is 2.0"),
        ({"validate#key_metric#val_loss#column": "dsc_after"}, "key_metric.val_loss.column was 'loss_after', is"),
    ],
)
def test_what_decides_the_best_weights_counts_for_a_training(tiny_dataset, options, named):
    before, now = configured(tiny_dataset, steps=1), configured(tiny_dataset, **{"steps": 1, **options})
    (found,) = changes(depends_on(before), depends_on(now))
    assert found.startswith(named)
    assert cached_as(before) == cached_as(now)


def test_other_validation_pairs_are_another_run(tiny_dataset, tmp_path):
    sections = json.loads((tiny_dataset / "datalist.json").read_text())
    other = tmp_path / "other.json"
    swapped = {"validation": sections["test"], "test": sections["validation"]}
    other.write_text(json.dumps(sections | swapped))
    found = changes(depends_on(configured(tiny_dataset)), depends_on(configured(tiny_dataset, datalist=str(other))))
    assert [line.split()[0] for line in found] == ["validation_pairs"]


def test_another_list_as_long_is_another_run(tiny_dataset, tmp_path):
    sections = json.loads((tiny_dataset / "datalist.json").read_text())
    swapped = tmp_path / "swapped.json"
    swapped.write_text(json.dumps(sections | {"training": [*sections["training"][:2], dict(sections["training"][2])]}))
    same = configured(tiny_dataset, datalist=str(swapped))
    assert changes(depends_on(configured(tiny_dataset)), depends_on(same)) == []
    sections["training"][2]["label"] = sections["training"][1]["label"]
    swapped.write_text(json.dumps(sections))
    found = changes(depends_on(configured(tiny_dataset)), depends_on(configured(tiny_dataset, datalist=str(swapped))))
    assert [line.split()[0] for line in found] == ["pairs"]


def test_a_cached_pair_whose_file_changed_is_made_anew(tiny_dataset, tmp_path):
    data = shutil.copytree(tiny_dataset, tmp_path / "data")
    before = cached_as(configured(data))
    for path in data.glob("labels/*"):
        shutil.copyfile(data / "labels/A.nii.gz", tmp_path / "other")
        path.write_bytes((tmp_path / "other").read_bytes())
    assert cached_as(configured(data)) != before


def test_neither_place_nor_speed_counts(tiny_dataset, tmp_path):
    options = {"output_dir": str(tmp_path), "num_workers": 1, "cache_dir": str(tmp_path / "cache"), "memory_gib": 7.0}
    before, now = configured(tiny_dataset), configured(tiny_dataset, **options)
    assert changes(depends_on(before), depends_on(now)) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"val_interval": 3}, "val_interval was 10, is 3"),
        ({"lr_scheduler#pct_start": 0.1}, "lr_scheduler.1"),
    ],
)
def test_a_map_network_does_not_go_on_with_another_schedule(tiny_dataset, options, named):
    found = []
    for own in ({}, {}, options):
        parser = ConfigParser(ConfigParser.load_config_file(CONFIGS / "maps.yaml"))
        given = {"dataset_dir": str(tiny_dataset), "datalist": "datalist.json", "structures": [1], "landmarks": []}
        given |= own
        parser.update({key.replace("#", "::"): value for key, value in given.items()})
        found.append(depends_on(parser))
    assert changes(*found[:2]) == []
    assert changes(*found[1:])[0].startswith(named)
