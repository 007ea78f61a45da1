"""Bad input as a user meets it: one line that names the cause, a non-zero exit code, nothing half-written."""

import csv
import errno
import gzip
import json
import sys

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from workflow_fixtures import (
    INFERENCE,
    SHAPE,
    SMALL,
    SMALL_TRAINING,
    TRAIN,
    Command,
    pair,
    volume,
    write_json,
    write_volume,
)

pytest_plugins = ["workflow_fixtures"]


def error_line(finished):
    """The only line that reports an error, which is also the last one and has no traceback."""
    assert finished.code == 1, finished
    assert "Traceback" not in finished.err
    lines = [line for line in finished.error.splitlines() if line.startswith("error: ")]
    assert lines == finished.error.splitlines()[-1:]
    return lines[0]


def half_written(folder):
    return [
        str(path) for path in folder.rglob("*") if path.name.startswith(".") or path.name.endswith((".partial", ".tmp"))
    ]


def image(number):
    return volume(100 + number)[0]


def spoilt(value):
    array = image(0)
    array[3, 4, 5] = value
    return array


def truncated(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


BAD_IMAGES = {
    "not_an_image": (b"this is no image", "moving.nii.gz"),
    "zipped_text": (gzip.compress(b"this is no image"), "moving.nii.gz"),
    "empty_file": (b"", "moving.nii.gz"),
    "truncated": (None, "moving.nii.gz: cannot be read, damaged or not an image"),
    "nan": (spoilt(np.nan), "moving.nii.gz: 1 of 5760 values are NaN or infinite"),
    "infinite": (spoilt(np.inf), "moving.nii.gz: 1 of 5760 values are NaN or infinite"),
    "empty": (np.zeros(SHAPE, np.float32), "moving.nii.gz: empty image"),
    "constant": (np.full(SHAPE, 7, np.float32), "moving.nii.gz: constant image"),
    "planar": (image(0)[:, :, 3], "moving.nii.gz: 20 x 18 x 1 voxels, a single slice"),
    "time_series": (
        np.stack([image(k) for k in range(3)], -1),
        "moving.nii.gz: an image of 3 volumes (a time series?)",
    ),
    "one_slice": (image(0)[:, :, :1], "moving.nii.gz: 20 x 18 x 1 voxels, a single slice"),
}
BAD_LABELS = {
    "label_of_another_size": (volume(0)[1][:-2], "moving_label has shape (18, 18, 16) but moving_image (20, 18, 16)"),
    "label_with_channels": (np.stack([volume(0)[1]] * 2, -1), "fixed_label has 1 channel(s) and moving_label 2"),
    "unreadable_label": (b"this is no label", "label.nii.gz: cannot be read, damaged or not an image"),
}
BAD_MASKS = {
    "mask_of_another_size": (volume(0)[1][:-2], "moving_mask: the mask is 18 x 18 x 16 and its image 20 x 18 x 16"),
    "empty_mask": (np.zeros(SHAPE, np.uint8), "moving_mask: the mask is empty, every value is 0; leave it out"),
}
BAD_PAIRS = {**BAD_IMAGES, **BAD_LABELS, **BAD_MASKS}


def write_bad_pair(root, name):
    """Write the files of a bad pair, and return its entry."""
    content = BAD_PAIRS[name][0]
    entry = pair("F", "G", pair_id=name)
    folder = root / name
    kind = "image" if name in BAD_IMAGES else "label" if name in BAD_LABELS else "mask"
    path = folder / ("moving.nii.gz" if kind == "image" else f"{kind}.nii.gz")
    if isinstance(content, bytes):
        folder.mkdir()
        path.write_bytes(content)
    else:
        write_volume(path, image(0) if content is None else content)
    if content is None:
        truncated(path)
    if kind == "image":
        del entry["fixed_label"], entry["moving_label"]
    return entry | {f"moving_{kind}": f"{name}/{path.name}"}


@pytest.fixture(scope="module")
def batch(tiny_dataset, trained, tmp_path_factory):
    """Every kind of bad pair and a good one, registered in one batch."""
    folder = tmp_path_factory.mktemp("batch")
    for kind in ("images", "labels"):
        (folder / kind).symlink_to(tiny_dataset / kind)
    entries = [*(write_bad_pair(folder, name) for name in BAD_PAIRS), pair("D", "E", pair_id="good")]
    datalist = write_json(folder / "datalist.json", {"test": entries})
    finished = Command(folder).register(
        folder / "results", dataset_dir=folder, datalist=datalist, weights=trained / "model.pt"
    )
    with (folder / "results/metrics.csv").open() as file:
        return finished, folder / "results", {row["pair_id"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("name", BAD_PAIRS)
def test_bad_pair_is_reported_in_the_table_and_the_error_line(batch, name):
    finished, folder, rows = batch
    assert rows[name]["status"] == "failed"
    assert BAD_PAIRS[name][1] in rows[name]["error"]
    assert f"{name}: {rows[name]['error']}" in error_line(finished)
    assert not (folder / name).exists()


def test_good_pair_among_bad_ones_is_registered(batch):
    finished, folder, rows = batch
    assert rows["good"]["status"] == "done"
    assert float(rows["mean"]["loss_after"]) == float(rows["good"]["loss_after"])
    assert json.loads((folder / "good/metrics.json").read_text())["pair_id"] == "good"
    assert f"{len(BAD_PAIRS)} of {len(BAD_PAIRS) + 1} pairs failed" in error_line(finished)
    assert half_written(folder) == []


@pytest.mark.parametrize(("section", "workers"), [("training", 0), ("training", 1), ("validation", 0)])
def test_training_stops_at_an_unreadable_image(dataset, command, tmp_path, section, workers):
    truncated(dataset / "images/F.nii.gz")
    content = {"training": [pair("A", "B")], "validation": [pair("D", "E")], section: [pair("F", "G")]}
    finished = command.train(
        tmp_path / "run",
        dataset_dir=dataset,
        datalist=write_json(dataset / "list.json", content),
        num_workers=workers,
    )
    assert "F.nii.gz: cannot be read, damaged or not an image" in error_line(finished)
    assert half_written(tmp_path / "run") == []
    assert not list((tmp_path / "run").glob("*.pt"))


BAD_DATALISTS = {
    "missing_file": ({"test": [pair("F", "H")]}, "fixed_image not found: "),
    "no_moving_image": ({"test": [{"fixed_image": "images/F.nii.gz"}]}, "test[0]: no moving_image"),
    "unknown_key": ({"test": [pair("F", "G", fixd_label="x")]}, "test[0]: unknown key 'fixd_label'"),
    "two_splits": ({"training": [pair("F", "G")], "test": [pair("F", "E")]}, "patient F is in training and in test"),
    "no_pairs": ({"test": []}, "no pairs"),
    "not_a_list": ({"test": {}}, "test is a dict, expected a list of entries"),
    "not_an_object": ([], "holds a list, expected an object of lists"),
    "not_json": (None, "is not valid JSON"),
}


@pytest.mark.parametrize("name", BAD_DATALISTS)
def test_bad_datalist_is_refused_before_anything_is_written(tiny_dataset, command, tmp_path, name):
    content, cause = BAD_DATALISTS[name]
    datalist = write_json(tmp_path / "list.json", content)
    if content is None:
        datalist.write_text("{'test': ")
    finished = command.register(tmp_path / "out", dataset_dir=tiny_dataset, datalist=datalist)
    assert cause in error_line(finished)
    assert not (tmp_path / "out").exists()


def test_training_without_training_pairs_is_refused(tiny_dataset, command, tmp_path):
    datalist = write_json(tmp_path / "list.json", {"test": [pair("F", "G")]})
    finished = command.train(tmp_path / "run", dataset_dir=tiny_dataset, datalist=datalist)
    assert "no training pairs" in error_line(finished)
    assert not list(tmp_path.glob("run/*.pt"))


def other_weights(folder):
    torch.save({"weight": torch.zeros(3)}, folder / "other.pt")
    return {"weights": folder / "other.pt"}


def truncated_weights(folder):
    torch.save({"weight": torch.zeros(3000)}, folder / "truncated.pt")
    truncated(folder / "truncated.pt")
    return {"weights": folder / "truncated.pt"}


def text_weights(folder):
    (folder / "text.pt").write_text("no weights")
    return {"weights": folder / "text.pt"}


def overlay(text):
    def write(folder):
        (folder / "overlay.yaml").write_text(text)
        return {"config": f"['{INFERENCE}','{folder / 'overlay.yaml'}']"}

    return write


BAD_OPTIONS = {
    "missing_dataset": ({"dataset_dir": "nowhere"}, "dataset_dir is not a folder: "),
    "missing_datalist": ({"datalist": "nowhere.json"}, "datalist not found: nowhere.json"),
    "missing_weights": ({"weights": "nowhere.pt"}, "weights not found: nowhere.pt"),
    "weights_of_another_network": (other_weights, "other.pt does not hold weights of this network"),
    "weights_of_another_size": ({"channels": 4}, "model.pt does not hold weights of this network"),
    "truncated_weights": (truncated_weights, "truncated.pt does not hold weights of this network"),
    "text_as_weights": (text_weights, "text.pt does not hold weights of this network"),
    "initial_alignment": (
        {"initial_alignment": "centre"},
        "initial_alignment is 'centre'; expected 'world', 'center' or 'none'",
    ),
    "negative_steps": ({"steps": -1}, "steps is -1; expected 0 (no adaptation) or more"),
    "text_as_number": ({"steps": "five"}, "--steps is 'five'; expected a whole number, such as 5"),
    "fraction_as_count": ({"steps": 2.5}, "--steps is '2.5'; expected a whole number"),
    "no_spacing": ({"pixdim": 0}, "pixdim is 0; expected the spacing"),
    "section": ({"section": "tset"}, "no section 'tset'; expected one of training, validation, test"),
    "pairing": ({"pairing": "pared"}, "pairing is 'pared', expected one of paired, fixed, moving"),
    "precision": ({"precision": "float17"}, "'bundle.registration.RegistrationNetwork'"),
    "unknown_component": (overlay("similarity: {_target_: bundle.Nothing}\n"), "bundle.Nothing"),
    "unknown_argument": (overlay("similarity: {_target_: torch.nn.MSELoss, colour: 3}\n"), "'colour'"),
    "unknown_reference": (overlay("table: '@nothing'\n"), "nothing"),
    "wrong_expression": (overlay("size_divisor: $1 // 0\n"), "$1 // 0"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_option_ends_inference_with_one_line(tiny_dataset, trained, command, tmp_path, name):
    changes, cause = BAD_OPTIONS[name]
    usual = {
        "dataset_dir": tiny_dataset,
        "datalist": "datalist.json",
        "section": "test",
        "weights": trained / "model.pt",
    }
    finished = command.register(tmp_path / "out", **usual | (changes(tmp_path) if callable(changes) else changes))
    line = error_line(finished)
    assert cause in line
    assert len(line) < 500
    assert not list(tmp_path.glob("out/*/*"))
    assert half_written(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"inner_steps": 0}, "inner_steps is 0, from which Reptile learns nothing; expected 1 or more"),
        ({"versions": 0}, "versions is 0; expected 1 or more"),
        ({"iterations_per_epoch": 0}, "iterations_per_epoch"),
        ({"meta_rule": "reptile"}, "meta_rule"),
        ({"meta_lr": -1}, "Invalid learning rate: -1"),
        ({"split": "[1,1,1]"}, "fractions are [1, 1, 1], expected three shares"),
        ({"start_weights": "nowhere.pt"}, "weights not found: nowhere.pt"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_option_ends_training_with_one_line(tiny_dataset, command, tmp_path, changes, cause):
    finished = command.train(tmp_path / "run", dataset_dir=tiny_dataset, datalist="datalist.json", **changes)
    assert cause in error_line(finished)
    assert not list(tmp_path.glob("run/*.pt"))


@pytest.fixture
def full_disk(monkeypatch):
    """Every image and every checkpoint is cut off in the middle; the command's settings of the process are put back."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def cut(path):
        path.write_bytes(b"the beginning")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def save(content, file):
        file.write(b"the beginning")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nib, "save", lambda image, path: cut(path))
    monkeypatch.setattr(torch, "save", save)


def test_inference_on_a_full_disk_leaves_no_pair_behind(tiny_dataset, trained, tmp_path, full_disk):
    with pytest.raises(RuntimeError) as failure:
        monai.bundle.run(
            config_file=str(INFERENCE),
            dataset_dir=str(tiny_dataset),
            datalist="datalist.json",
            section="test",
            weights=str(trained / "model.pt"),
            output_dir=str(tmp_path / "out"),
            **SMALL,
        )
    assert "cannot write the results of pair F_to_G" in str(failure.value.__cause__)
    assert "No space left on device" in str(failure.value.__cause__)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "datalist.json",
        "metrics.csv",
        "quality.html",
    ]


def test_training_on_a_full_disk_leaves_no_checkpoint_behind(tiny_dataset, tmp_path, full_disk):
    with pytest.raises(RuntimeError) as failure:
        monai.bundle.run(
            run_id="training",
            config_file=str(TRAIN),
            dataset_dir=str(tiny_dataset),
            datalist="datalist.json",
            output_dir=str(tmp_path / "run"),
            **SMALL_TRAINING,
        )
    assert "checkpoint.pt: [Errno 28] No space left on device" in str(failure.value.__cause__)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["datalist.json", "tensorboard"]
