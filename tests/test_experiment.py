"""The whole experiment on simulated patients: every method, the report, and nothing done twice."""

import re

import pytest
import yaml
from toys import csv_rows
from workflow_fixtures import ROOT, Command, write_json

from bundle.experiment import Experiment
from bundle.experiment.results import slug
from bundle.simulation import simulate_dataset

CONFIG = ROOT / "configs/experiments/experiment.yaml"
SIZE = {"pixdim": 6.0, "channels": 2, "downsampling": 1, "map_pixdim": 6.0}
MAPS = {"pixdim": 6.0, "filters": [4, 8, 8], "spatial_size": [16, 16, 16], "epochs": 1, "batch_size": 2}
SMALL = {
    "configs": [],
    "split": [0.5, 0.2, 0.3],
    "pair_limits": {"training": 4, "validation": 1, "test": 2},
    "training_options": {**SIZE, "versions": 1, "inner_steps": 1, "cache_dir": None},
    "inference_options": {**SIZE, "pictures": False, "quality_pages": False},
}


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    return simulate_dataset(tmp_path_factory.mktemp("patients") / "data", patients=8, scans=2)


@pytest.fixture(scope="module")
def folder(patients):
    """The data set without its datalist, as a user's folder is."""
    (patients / "datalist.json").unlink()
    return patients


def small_plan(path):
    """A file that changes ``configs/experiments/experiment.yaml`` into something that takes seconds."""
    plan = yaml.safe_load(CONFIG.read_text())
    for training in plan["trainings"].values():
        training["options"] = MAPS if "folds" in training else {"iterations": 1, "iterations_per_epoch": 1}
    plan["trainings"]["maps"]["folds"] = 2
    plan["methods"]["Classical non-rigid"]["steps"] = 3
    for name in ("repeat scans", "steps"):
        plan["lists"][name]["pair_limits"] = {"test": 2}
    plan["evaluations"]["Steps"]["curves"]["points"] = [0, 1]
    keys = ("lists", "trainings", "methods", "evaluations")
    return write_json(path, {**SMALL, **{key: plan[key] for key in keys}})


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    home = tmp_path_factory.mktemp("experiment")
    command, plan = Command(home), small_plan(home / "small.json")
    arguments = ("bundle", "experiment", "--dataset_dir", folder, "--output_dir", "out")
    files = ("--config_file", f"['{CONFIG}','{plan}']")
    first = command(*arguments, *files)
    assert first.code == 0, first.err[-3000:]
    return home / "out", first, lambda *more: command(*arguments, *files, *more)


def test_every_method_is_in_the_table(finished):
    out, _first, _again = finished
    plan = yaml.safe_load(CONFIG.read_text())
    for title in ("Between patients", "Repeat scans", "Between patients, labels in training"):
        name = slug(title)
        evaluation = plan["evaluations"][title]
        methods = evaluation["methods"]
        table = csv_rows(out / f"table_{name}.csv")
        assert [row["method"] for row in table] == ["not registered", *methods]
        assert all(0 < float(row["dsc_mean"]) < 1 and row["n"] == "2" for row in table)
        compared = {row["compared_with"] for row in csv_rows(out / f"tests_{name}.csv")}
        assert compared == {"not registered", *methods} - {evaluation.get("reference", plan["reference"])}
    assert not (out / "steps_between_patients.png").exists()
    assert (out / "steps_steps.png").stat().st_size > 10_000
    report = (out / "report.html").read_text()
    assert all(method in report for method in plan["methods"])
    assert "http" not in report


def test_test_patients_are_in_no_training(finished):
    out = finished[0]
    trained = {
        patient
        for row in yaml.safe_load((out / "pairs/training.json").read_text())["training"]
        for patient in row["patient"]
    }
    for name in ("test", "repeat_scans", "steps"):
        tested = {
            patient
            for row in yaml.safe_load((out / f"pairs/{name}.json").read_text())["test"]
            for patient in row["patient"]
        }
        assert tested
        assert not tested & trained


def test_methods_of_one_training_share_its_weights_and_differ(finished):
    out = finished[0]
    table = {row["method"]: row for row in csv_rows(out / "table_between_patients.csv")}
    assert float(table["not registered"]["folded_percent_mean"] or 0) == 0
    pairs = csv_rows(out / "pairs_between_patients.csv")
    loss = {(row["method"], row["pair_id"]): float(row["loss_after"]) for row in pairs if row["loss_after"]}
    for pair in {pair for _method, pair in loss}:
        assert loss["LocalNet, 5 steps", pair] != loss["LocalNet", pair]


def test_a_second_call_only_writes_the_report(finished):
    out, first, again = finished
    steps = re.findall(r"^--- (\d+) of (\d+): (\w+)/", first.out, re.MULTILINE)
    assert [step[:2] for step in steps] == [(str(number), str(len(steps))) for number in range(1, len(steps) + 1)]
    kinds = [kind for _, _, kind in steps]
    assert kinds.count("results") > 20
    assert kinds.count("trainings") == 13  # the maps have one for each of two folds
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("metrics.json")}
    page = (out / "report.html").read_bytes()
    second = again()
    assert second.code == 0, second.err[-3000:]
    assert "--- " not in second.out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("metrics.json")} == stamps
    assert (out / "report.html").read_bytes() == page


def test_an_interrupted_run_is_taken_up_where_it_was(finished):
    out, _first, again = finished
    marker = next((out / "results/between_patients").glob("*/finished.json"))
    marker.unlink()
    third = again()
    assert third.code == 0, third.err[-3000:]
    assert third.out.count("--- ") == third.out.count(": results/") == 1
    assert marker.exists()


def test_a_folder_without_repeat_scans_is_compared_between_patients_alone(tmp_path, capsys):
    data = simulate_dataset(tmp_path / "data", patients=8, scans=2)
    (data / "datalist.json").unlink()
    for path in [*data.glob("images/*_1.nii.gz"), *data.glob("labels/*_1.nii.gz")]:
        path.unlink()
    lists = Experiment([str(CONFIG)], data, tmp_path / "out", {"split": SMALL["split"]}).lists.write()
    assert set(lists) == {"training", "test", "steps"}
    assert "repeat scans: left out (no patient has two images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "Magic"}, "no method 'Magic'; expected Classical non-rigid, LocalNet"),
        ({"methods": {"A": {"training": "none"}}}, "methods: 'A' names the training 'none', which is not there"),
        ({"methods": {"A": {"stepz": 1}}}, "methods: 'A' has stepz; expected some of configs, epoch, network"),
        ({"lists": {"training": {}}}, "names the list 'test', which is not there; expected training"),
        ({"evaluations": {"E": {"curvs": {}}}}, "evaluations: 'E' has curvs; expected some of curves, list, measures"),
        ({"evaluations": {"E": {"measures": ["dice"]}}}, "'E' has the measure 'dice'; expected some of dsc, tre_mm"),
        ({"target_dir": "there"}, "unknown option --target_dir"),
        ({"iterationz": 3}, "unknown option --iterationz; known options are --dataset_dir, --output_dir, --title, "),
    ],
)
def test_a_wrong_plan_is_refused_before_anything_runs(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Experiment([str(CONFIG)], tmp_path, tmp_path / "out", change)
    assert not (tmp_path / "out").exists()
