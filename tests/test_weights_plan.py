"""The plan of everything that ships, in miniature: maps by folds, conventional training, meta-training, comparison."""

import csv
from pathlib import Path

import pytest
import torch
import yaml
from test_experiment import MAPS, SIZE
from workflow_fixtures import ROOT, Command, options, write_json

from bundle.experiment.plan import read_plan
from bundle.simulation import simulate_dataset

pytest_plugins = ["workflow_fixtures"]
FILES = [str(ROOT / "configs/experiments/experiment.yaml"), str(ROOT / "configs/experiments/weights.yaml")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    home = tmp_path_factory.mktemp("weights")
    data = simulate_dataset(home / "data", patients=8, scans=2)
    (data / "datalist.json").unlink()
    plan = yaml.safe_load((ROOT / "configs/experiments/weights.yaml").read_text())
    for training in plan["trainings"].values():
        small = {"iterations": 1, "iterations_per_epoch": 1, "versions": 1, "inner_steps": 1}
        training["options"] = MAPS if "folds" in training else small
    plan["trainings"]["conventional"]["options"]["inner_steps"] = 0
    plan["trainings"]["maps"] |= {"folds": 2, "all_patients": {"epochs": 1, "lr": 0.0}}
    small = {
        "configs": [],
        "split": [0.6, 0.0, 0.4],
        "pair_limits": {"training": 4, "test": 2},
        "training_options": {**SIZE, "cache_dir": None},
        "inference_options": {**SIZE, "pictures": False, "quality_pages": False},
        "trainings": plan["trainings"],
    }
    command, file = Command(home), write_json(home / "small.json", small)
    arguments = ("bundle", "experiment", "--dataset_dir", data, "--output_dir", "out")
    run = command(*arguments, "--config_file", str([*FILES, str(file)]))
    assert run.code == 0, run.err[-3000:]
    return home / "out"


def test_a_network_is_trained_for_every_fold_and_the_folds_are_different_patients(finished):
    folders = sorted((finished / "trainings/maps").glob("fold_*"))
    assert [folder.name for folder in folders] == ["fold_0", "fold_1"]
    first, second = (torch.load(folder / "model_last.pt", weights_only=True) for folder in folders)
    assert first.keys() == second.keys()
    assert any(not torch.equal(first[key], second[key]) for key in first)


def test_every_network_goes_on_with_all_patients_and_makes_the_maps_of_new_images(finished):
    def read(path):
        return yaml.safe_load(path.read_text())

    maps = finished / "trainings/maps"
    assert sorted(folder.name for folder in maps.iterdir()) == ["all_0", "all_1", "fold_0", "fold_1"]
    for fold in range(2):
        files = [maps / f"{kind}_{fold}/model_last.pt" for kind in ("fold", "all")]
        before, after = (torch.load(file, weights_only=True) for file in files)
        assert all(torch.equal(before[key], after[key]) for key in before)  # its learning rate is 0 here
        assert "fold" in read(maps / f"fold_{fold}/finished.json")["options"]
        assert "fold" not in read(maps / f"all_{fold}/finished.json")["options"]
    trained_on = read(finished / "trainings/conventional/finished.json")["options"]["map_weights"]
    assert [Path(file).parent.name for file in trained_on] == ["fold_0", "fold_1"]
    for run in (finished / "results/between_patients").iterdir():
        shown_to = read(run / "finished.json")["options"]["map_weights"]
        assert [Path(file).parent.name for file in shown_to] == ["all_0", "all_1"]


def test_a_map_network_goes_on_from_weights(finished, command):
    start = finished / "trainings/maps/fold_0/model_last.pt"
    values = {**MAPS, "epochs": 1, "lr": 0.0, "start_weights": start, "dataset_dir": finished.parent / "data"}
    arguments = options({**values, "split": [0.6, 0.0, 0.4], "output_dir": "further"})
    run = command("monai.bundle", "run", "maps", "--config_file", ROOT / "configs/maps.yaml", *arguments)
    assert run.code == 0, run.err[-3000:]
    before = torch.load(start, weights_only=True)
    after = torch.load(command.folder / "further/model_last.pt", weights_only=True)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_registration_network_sees_the_maps(finished):
    for name in ("conventional", "meta"):
        weights = torch.load(finished / f"trainings/{name}/model_last.pt", weights_only=True)
        first = next(value for value in weights.values() if value.ndim == 5)
        assert first.shape[1] == 2 * (1 + 3)


def test_both_trainings_are_compared_with_and_without_steps(finished):
    with (finished / "table_between_patients.csv").open() as file:
        rows = [row["method"] for row in csv.DictReader(file)]
    methods = yaml.safe_load((ROOT / "configs/experiments/weights.yaml").read_text())["methods"]
    assert rows == ["not registered", *methods]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": "conventional"}, "'meta' takes the maps of 'conventional'; expected one with folds .* it: maps"),
        ({"maps": {"fixed": "none"}}, "'meta' takes the maps of 'none'; expected one with folds"),
        ({"all_patients": {}}, "'meta' has all_patients but no folds; only map networks go on with all"),
    ],
)
def test_maps_of_something_else_are_refused(change, message, tmp_path):
    plan = yaml.safe_load((ROOT / "configs/experiments/weights.yaml").read_text())
    plan["trainings"]["meta"] |= change
    file = write_json(tmp_path / "plan.json", {"trainings": plan["trainings"]})
    with pytest.raises(ValueError, match=message):
        read_plan([*FILES, str(file)], {})


def test_folds_that_do_not_fit_are_refused_before_anything_is_written(finished, command):
    files = [str(finished / f"trainings/maps/fold_{fold}/model_last.pt") for fold in (1, 0)]
    values = {"map_weights": files, "map_folds": 2, "seed": 2, "split": [0.6, 0.0, 0.4], "output_dir": "swapped"}
    arguments = options({**values, "dataset_dir": finished.parent / "data"})
    run = command("monai.bundle", "run", "training", "--config_file", ROOT / "configs/train.yaml", *arguments)
    assert run.code == 1
    assert "of the fold that it should not know" in run.err
    assert not (command.folder / "swapped").exists()
