"""Two processes on CPUs, started by torchrun: the weights and the tables of one."""

import csv
import filecmp
import json
import re
import signal

import numpy as np
import pytest
import torch
from test_workflow import assert_same_weights, displacement, names
from workflow_fixtures import (
    INFERENCE,
    ROOT,
    SMALL,
    SMALL_TRAINING,
    TRAIN,
    Command,
    Finished,
    options,
    pair,
    wait_for,
    write_json,
)

pytest_plugins = ["workflow_fixtures"]

SECONDS = 600
TRAINING = f"['{TRAIN}','{ROOT / 'configs/overlays/multi_gpu_train.yaml'}']"
REGISTRATION = f"['{INFERENCE}','{ROOT / 'configs/overlays/multi_gpu_inference.yaml'}']"
# Three episodes for two processes, and three pairs to validate.
SETTINGS = {**SMALL_TRAINING, "episodes_per_iteration": 3, "iterations": 8}


def torchrun(command, *arguments, **values):
    """``torchrun -m monai.bundle run`` with two processes."""
    launch = ["--standalone", "--nproc_per_node=2", "-m", "monai.bundle", "run", *arguments]
    process = command.start("torch.distributed.run", *launch, *options(values))
    process.join(SECONDS)
    if process.is_alive():
        process.terminate()  # torchrun ends its processes
        process.join(SECONDS)
        pytest.fail(f"still running after {SECONDS} s:\n{command.streams[1].read_text()[-3000:]}")
    return Finished(process.exitcode, *(path.read_text() for path in command.streams))


def train_by_two(command, **values):
    return torchrun(command, "training", "--config_file", TRAINING, **{**SETTINGS, **values})


def errors(finished):
    """Error lines, which may follow the progress bar."""
    return re.findall("error: .*", finished.err)


@pytest.fixture(scope="module")
def data(tiny_dataset, tmp_path_factory):
    """Options for the tiny data set with three pairs to validate."""
    path = tmp_path_factory.mktemp("lists") / "datalist.json"
    content = json.loads((tiny_dataset / "datalist.json").read_text())
    validation = [pair(*"DE"), pair(*"EF"), pair(*"FD")]
    write_json(path, {"training": content["training"], "validation": validation})
    return {"dataset_dir": tiny_dataset, "datalist": path}


@pytest.fixture(scope="module")
def one(data, tmp_path_factory):
    """Folder of a run by one process, which configs/train.yaml starts alone."""
    folder = tmp_path_factory.mktemp("one")
    finished = Command(folder).train(folder / "run", **SETTINGS, **data)
    assert finished.code == 0, finished.error
    return folder / "run"


# --- training -----------------------------------------------------------------------------------------------------


def test_two_processes_train_the_weights_of_one(one, data, command, tmp_path):
    finished = train_by_two(command, output_dir=tmp_path / "two", **data)
    assert finished.code == 0, finished.err
    for name in ("model.pt", "model_last.pt"):
        assert_same_weights(one / name, tmp_path / "two" / name)
    first, second = (torch.load(folder / "checkpoint.pt") for folder in (one, tmp_path / "two"))
    for key in ("best_metric", "best_metric_epoch", "iteration", "settings"):
        assert first[key] == second[key]
    # What is written and said once.
    assert names(tmp_path / "two") == names(one)
    assert len(names(tmp_path / "two/tensorboard")) == len(names(one / "tensorboard"))
    assert finished.out.count("Got new best metric of val_loss") <= 4
    assert finished.out.count("weights: ") == 1
    assert finished.out.count("ReptileTrainer - INFO - Engine run finished") == 1


def test_two_processes_continue_the_run_of_one(one, data, command, tmp_path):
    values = {"output_dir": tmp_path / "run", **SETTINGS, **data}
    arguments = ("run", "training", "--config_file", TRAIN, *options(values))
    held = ("bundle.meta.handlers.ResumableCheckpoint._write", signal.SIGKILL)
    process = command.start("monai.bundle", *arguments, held=held)
    wait_for((tmp_path / "run/checkpoint.pt").exists, process)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    iteration = torch.load(tmp_path / "run/checkpoint.pt")["iteration"]
    assert 0 < iteration < SETTINGS["iterations"]
    finished = train_by_two(command, output_dir=tmp_path / "run", **data)
    assert finished.code == 0, finished.err
    assert finished.out.count(f"after {iteration} iterations") == 1
    for name in ("model.pt", "model_last.pt"):
        assert_same_weights(one / name, tmp_path / "run" / name)


def test_a_process_that_fails_ends_the_run_with_one_line(data, dataset, command, tmp_path):
    for name in "ABC":
        (dataset / f"images/{name}.nii.gz").write_bytes(b"no image")
    finished = train_by_two(command, output_dir=tmp_path / "run", **{**data, "dataset_dir": dataset})
    assert finished.code == 1
    (line,) = errors(finished)
    assert "cannot be read, damaged or not an image" in line


# --- inference ----------------------------------------------------------------------------------------------------


def rows(folder, name="metrics"):
    """Rows of metrics.csv, or of summary.csv, without the columns of times."""
    with (folder / f"{name}.csv").open() as file:
        return [{key: value for key, value in row.items() if "seconds" not in key} for row in csv.DictReader(file)]


def test_two_processes_register_like_one(one, dataset, command, tmp_path):
    (dataset / "images/C.nii.gz").write_bytes(b"no image")
    lists = [pair("F", "G", pair_id="z"), pair("A", "C", pair_id="broken"), pair("B", "D", pair_id="a")]
    datalist = write_json(tmp_path / "pairs.json", {"test": lists})
    values = {**SMALL, "dataset_dir": dataset, "datalist": datalist, "weights": one / "model.pt", "pictures": False}
    alone = command.register(tmp_path / "one", **values, quality_pages=True)
    both = torchrun(command, "--config_file", REGISTRATION, output_dir=tmp_path / "two", **values)
    assert alone.code == both.code == 1
    assert errors(both) == errors(alone)
    assert [line for line in both.out.splitlines() if " pairs registered" in line] == [
        line.replace(str(tmp_path / "one"), str(tmp_path / "two"))
        for line in alone.out.splitlines()
        if " pairs registered" in line
    ]
    assert rows(tmp_path / "two") == rows(tmp_path / "one")
    assert rows(tmp_path / "two", "summary") == rows(tmp_path / "one", "summary")
    assert [row["pair_id"] for row in rows(tmp_path / "two")] == ["z", "broken", "a"]
    assert names(tmp_path / "two") == names(tmp_path / "one")
    assert filecmp.cmp(tmp_path / "one/datalist.json", tmp_path / "two/datalist.json", shallow=False)
    for name in ("z", "a"):
        assert names(tmp_path / "two" / name) == names(tmp_path / "one" / name)
        fields = [displacement(tmp_path / run, name) for run in ("one", "two")]
        assert np.array_equal(*fields)
    pages = [(tmp_path / run / "quality.html").read_text() for run in ("one", "two")]
    assert pages[1].count("<tr>") == pages[0].count("<tr>")
    assert pages[1].index(">z</a>") < pages[1].index("Could not be registered") < pages[1].index(">a</a>")


def test_a_process_without_a_pair_waits_for_the_other(one, data, command, tmp_path):
    datalist = write_json(tmp_path / "pairs.json", {"test": [pair("F", "G", pair_id="only")]})
    values = {**SMALL, **data, "datalist": datalist, "weights": one / "model.pt", "pictures": False}
    finished = torchrun(command, "--config_file", REGISTRATION, output_dir=tmp_path / "two", **values)
    assert finished.code == 0, finished.err
    assert "1 of 1 pairs registered" in finished.out
    assert [row["pair_id"] for row in rows(tmp_path / "two")] == ["only"]


def test_processes_without_the_overlay_are_refused(one, data, command, tmp_path):
    finished = torchrun(command, "--config_file", INFERENCE, output_dir=tmp_path / "two", **{**SMALL, **data})
    assert finished.code == 1
    (line,) = errors(finished)
    assert "expected configs/overlays/multi_gpu_train.yaml or multi_gpu_inference.yaml" in line
    assert not (tmp_path / "two").exists()


def test_one_line_registers_a_list_by_two_processes(one, data, command, tmp_path):
    entries = [pair("F", "G", pair_id="z"), pair("G", "F", pair_id="a"), pair("D", "E", pair_id="m")]
    datalist = write_json(tmp_path / "pairs.json", {"test": entries})
    values = {**SMALL, "weights": one / "model.pt", "datalist": datalist}
    folder = str(data["dataset_dir"])
    alone, shared = (
        command("bundle", "register", folder, *options({"output": tmp_path / str(count), "processes": count, **values}))
        for count in (1, 2)
    )
    assert alone.code == shared.code == 0, shared.err
    assert shared.out.count(f"see {tmp_path / '2/quality.html'}") == 1
    assert sorted(re.findall(r"pair (\d) of 3, registered (\w)", shared.out)) == [("1", "z"), ("2", "a"), ("3", "m")]
    assert [row["pair_id"] for row in rows(tmp_path / "2")] == ["z", "a", "m"]
    for name in ("z", "a", "m"):
        assert np.array_equal(*(displacement(tmp_path / count, name) for count in ("1", "2")))


@pytest.mark.parametrize(("processes", "what"), [(0, "--processes is 0"), (2, "weights not found: gone.pt")])
def test_several_processes_report_one_error(data, command, tmp_path, processes, what):
    folder = str(data["dataset_dir"])
    finished = command("bundle", "register", folder, "--processes", str(processes), "--weights", "gone.pt")
    assert finished.code == 1
    (line,) = finished.err.splitlines()
    assert line.startswith(f"error: {what}")
