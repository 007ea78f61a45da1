"""Runs that are killed at random moments, stopped by signals, or started twice: nothing is lost and nothing is mixed.

``BUNDLE_KILLS=20`` kills training twenty times instead of three, and a batch of pairs as often.
"""

import gzip
import json
import os
import random
import shutil
import signal
import stat
import time

import pytest
import torch
from test_workflow import assert_same_weights, displacement, names
from toys import by_pair
from workflow_fixtures import INFERENCE, SMALL, SMALL_TRAINING, TRAIN, Command, options, pair, wait_for, write_json

pytest_plugins = ["workflow_fixtures"]

KILLS = int(os.environ.get("BUNDLE_KILLS", "3"))
TRAINING = {"iterations": 16, "iterations_per_epoch": 4}
PAIRS = ("AB", "BC", "CA", "DE", "FG", "GF")


def start_training(command, output_dir, dataset, held=None, **values):
    values = {**SMALL_TRAINING, **TRAINING, "dataset_dir": dataset, "datalist": "datalist.json", **values}
    arguments = ("run", "training", "--config_file", TRAIN, *options({"output_dir": output_dir, **values}))
    return command.start("monai.bundle", *arguments, held=held)


def start_registering(command, output_dir, held=None, **values):
    values = {**SMALL, "pictures": False, "inner_lr": 0.001, "output_dir": output_dir, **values}
    return command.start("monai.bundle", "run", "--config_file", INFERENCE, *options(values), held=held)


def finish(process):
    process.join()
    return process.exitcode


def kill(process, number=signal.SIGKILL):
    if process.is_alive():
        os.kill(process.pid, number)
    return finish(process)


def kill_group(process, number):
    """As Ctrl-C and schedulers do: the workers of a data loader get the signal too."""
    os.killpg(process.pid, number)
    return finish(process)


# --- training -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tiny_dataset, tmp_path_factory):
    """A training that nothing stopped, and how long it took from its first checkpoint."""
    folder = tmp_path_factory.mktemp("whole")
    process = start_training(Command(folder), folder / "run", tiny_dataset)
    wait_for((folder / "run/datalist.json").exists, process)
    start = time.monotonic()
    assert finish(process) == 0
    return folder / "run", time.monotonic() - start


def assert_same_training(found, expected):
    for name in ("model.pt", "model_last.pt"):
        assert_same_weights(found / name, expected / name)
    states = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (found, expected)]
    for key in ("epoch", "iteration", "episodes", "best_metric", "best_metric_epoch"):
        assert states[0][key] == states[1][key], key


@pytest.mark.parametrize("number", range(KILLS))
def test_training_killed_at_a_random_moment_ends_with_the_same_weights(number, whole, tiny_dataset, command, tmp_path):
    # From the moment the folder is there: Python's imports write nothing.
    moment, killed, attempt = random.Random(number).uniform(0, whole[1]), False, 0
    while not killed:
        run = tmp_path / f"run_{attempt}"
        process = start_training(command, run, tiny_dataset)
        wait_for((run / "datalist.json").exists, process)
        time.sleep(moment)
        killed = kill(process) == -signal.SIGKILL
        # Where other processes use the cores no more, a run may be over before its time.
        moment, attempt = moment * (1 if killed else 0.6), attempt + 1
    for path in run.glob("[!.]*.pt"):
        torch.load(path, weights_only=True)
    reached = torch.load(run / "checkpoint.pt")["iteration"] if (run / "checkpoint.pt").exists() else 0
    assert finish(start_training(command, run, tiny_dataset)) == 0, command.streams[1].read_text()
    assert_same_training(run, whole[0])
    assert not list(run.glob(".partial*"))
    print(f"killed after {moment:.2f} of {whole[1]:.2f} s, went on from iteration {reached}")


@pytest.mark.parametrize(
    ("number", "code", "send", "workers"),
    [(signal.SIGTERM, 143, kill, 0), (signal.SIGTERM, 143, kill_group, 1), (signal.SIGINT, 130, kill_group, 1)],
)
def test_stopped_training_writes_a_checkpoint_and_says_how_to_go_on(
    number, code, send, workers, whole, tiny_dataset, command, tmp_path
):
    run = tmp_path / "run"
    held = ("bundle.meta.handlers.ResumableCheckpoint._write", number)
    process = start_training(command, run, tiny_dataset, held, num_workers=workers)
    wait_for((run / "checkpoint.pt").exists, process)
    assert send(process, number) == code
    out, error = (path.read_text() for path in command.streams)
    assert "Traceback" not in out + error
    (line,) = [line for line in out.splitlines() if line.startswith("stopped by")]
    assert (
        f"{signal.Signals(number).name}; what is done is kept, the same command goes on: python -m monai.bundle "
        in line
    )
    assert f"--output_dir {run}" in line
    assert not (run / "run.lock").exists()
    reached = torch.load(run / "checkpoint.pt")["iteration"]
    assert 4 <= reached < 16
    assert finish(start_training(command, run, tiny_dataset)) == 0
    assert f"after {reached} iterations" in command.streams[0].read_text()
    assert_same_training(run, whole[0])


# --- a batch of pairs ---------------------------------------------------------------------------------------------


@pytest.fixture
def register(tiny_dataset, trained, command, tmp_path):
    """Register pairs into a folder."""

    def start(name, weights=trained / "model.pt", pairs=PAIRS, **values):
        datalist = write_json(tmp_path / "pairs.json", {"test": [pair(*both, pair_id=both) for both in pairs]})
        values = {"dataset_dir": tiny_dataset, "datalist": datalist, "weights": weights, **values}
        return start_registering(command, tmp_path / name, **values)

    return start


def times(folder):
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*/metrics.json")}


def assert_same_results(found, expected):
    assert names(found) == names(expected)
    assert list(by_pair(found)) == list(by_pair(expected)) == [*PAIRS]
    for name in PAIRS:
        assert names(found / name) == names(expected / name)
        assert (displacement(found, name) == displacement(expected, name)).all()
        assert by_pair(found)[name]["loss_after"] == by_pair(expected)[name]["loss_after"]
        assert f'href="{name}/quality.html"' in (found / "quality.html").read_text()
    shown = (found / "quality.html").read_text(), (expected / "quality.html").read_text()
    assert shown[0].count("<svg") == shown[1].count("<svg") >= len(PAIRS)


def test_killed_batch_goes_on_behind_the_pairs_that_are_finished(register, command, tmp_path):
    start = time.monotonic()
    assert finish(register("whole")) == 0
    seconds, draw = time.monotonic() - start, random.Random(0)
    killed = tmp_path / "killed"
    for _ in range(KILLS):
        before = times(killed)
        process = register("killed")
        time.sleep(draw.uniform(0, 0.8 * seconds))
        kill(process)
        assert before.items() <= times(killed).items()
        for folder in killed.glob("[!.]*/"):
            assert names(folder) == names(tmp_path / "whole" / folder.name)
    before = times(killed)
    assert finish(register("killed")) == 0
    out = command.streams[0].read_text()
    assert before.items() <= times(killed).items()
    assert out.count("finished before") == len(before)
    assert "6 of 6 pairs registered (" in out
    assert_same_results(killed, tmp_path / "whole")
    # A seventh time, with nothing left to do.
    before = times(killed)
    assert finish(register("killed")) == 0
    assert times(killed) == before
    assert_same_results(killed, tmp_path / "whole")


def test_stopped_batch_keeps_its_pairs_and_says_how_to_go_on(register, command, tmp_path):
    process = register("stopped", held=("bundle.results.SavePaird.__call__", signal.SIGTERM))
    wait_for((tmp_path / "stopped/AB").exists, process)
    assert kill(process, signal.SIGTERM) == 143
    assert "stopped by SIGTERM" in command.streams[0].read_text()
    before = times(tmp_path / "stopped")
    assert 0 < len(before) < len(PAIRS)
    assert finish(register("stopped")) == 0
    assert before.items() <= times(tmp_path / "stopped").items()


def test_other_settings_weights_or_images_do_a_pair_again(register, dataset, trained, command, tmp_path):
    folder, both = tmp_path / "out", {"AB", "FG"}
    data = {"dataset_dir": dataset, "pairs": sorted(both)}

    def done_again(**values):
        before = times(folder)
        assert finish(register("out", **data | values)) == 0, command.streams[1].read_text()
        after = times(folder)
        return {name for name in after if after[name] != before.get(name)}

    assert done_again() == both
    # The same weights under another name are the same weights.
    copy = tmp_path / "copy.pt"
    copy.write_bytes((trained / "model.pt").read_bytes())
    # So is an image that was copied again.
    os.utime(dataset / "images/A.nii.gz")
    assert done_again(weights=copy) == set()
    # So are images and results that lie somewhere else now.
    elsewhere = shutil.copytree(dataset, tmp_path / "copied")
    assert done_again(dataset_dir=elsewhere) == set()
    moved = folder.rename(tmp_path / "moved")
    before = times(moved)
    assert finish(register("moved", **data)) == 0
    assert times(moved) == before
    moved.rename(folder)
    (folder / "AB/warped_image.nii.gz").unlink()
    assert done_again() == {"AB"}
    image = dataset / "images/G.nii.gz"
    voxels = bytearray(gzip.decompress(image.read_bytes()))
    voxels[-4] ^= 1
    image.write_bytes(gzip.compress(voxels))
    assert done_again() == {"FG"}
    weights = torch.load(copy, weights_only=True)
    torch.save({name: value * 1.5 for name, value in weights.items()}, copy)
    assert done_again(weights=copy) == both
    assert done_again(steps=1) == both
    assert json.loads((folder / "AB/metrics.json").read_text())["steps"] == 1
    assert done_again(steps=1, resume=False) == both


# --- two runs, and folders that cannot be written --------------------------------------------------------------------


def test_second_run_into_a_folder_is_refused_and_names_the_first(register, tiny_dataset, command, tmp_path):
    process = register("out", held=("bundle.system.session.FolderLock.acquire", signal.SIGKILL))
    try:
        wait_for(lambda: (tmp_path / "out/run.lock").exists() and (tmp_path / "out/run.lock").read_text(), process)
        assert finish(register("out")) == 1
        error = command.streams[1].read_text().splitlines()[-1]
        assert error.startswith(f"error: {tmp_path / 'out'} is in use by process {process.pid} on ")
        assert "give another --output_dir" in error
        assert finish(start_training(command, tmp_path / "out", tiny_dataset)) == 1
        assert "is in use by process" in command.streams[1].read_text()
    finally:
        kill(process)
    # Its lock file is still there, its lock is not.
    assert (tmp_path / "out/run.lock").exists()
    assert finish(register("out")) == 0
    assert not (tmp_path / "out/run.lock").exists()


def test_folder_of_weights_may_be_read_only(register, trained, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "model.pt").write_bytes((trained / "model.pt").read_bytes())
    before = (models / "model.pt").stat()
    (models / "model.pt").chmod(stat.S_IRUSR)
    models.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert finish(register("out", weights=models / "model.pt")) == 0
        assert names(models) == {"model.pt"}
        # Whoever may write everywhere, such as root, has not written either.
        assert (models / "model.pt").stat().st_mtime_ns == before.st_mtime_ns
    finally:
        models.chmod(stat.S_IRWXU)
