"""Bad input as a user meets it: one line that names the cause, a non-zero exit code, nothing half-written."""

import errno
import gzip
import json
import os
import re
import sys
import warnings

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from corpus import (
    CASES,
    CODE_HAS_RUN,
    DATALISTS,
    PAIRS,
    POINTS,
    SURFACES,
    TRANSFORMS,
    WEIGHTS,
    affine_transform,
    write_datalist_case,
    write_pair,
)
from toys import by_pair, csv_rows
from workflow_fixtures import (
    INFERENCE,
    SMALL,
    SMALL_TRAINING,
    TRAIN,
    Command,
    Finished,
    pair,
    write_json,
)

from bundle import register
from bundle.__main__ import main
from bundle.data import check_headers, read_datalist, select_pairs
from bundle.formats.images import header_shape
from bundle.registration import WeightsLoader
from bundle.system import one_line

pytest_plugins = ["workflow_fixtures"]
UNSEEN_BY_CHECK = {"kilometres", "nanometres", "label_with_channels"}
"""Bad for a configuration, or together with the other file of the pair, and well by themselves."""


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


def truncated(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def registered(root, dataset, weights, entries, **options):
    """Inference on the images and labels of another data set and what the entries add; its rows by pair."""
    for kind in ("images", "labels"):
        (root / kind).symlink_to(dataset / kind)
    datalist = write_json(root / "datalist.json", {"test": entries})
    finished = Command(root).register(root / "results", dataset_dir=root, datalist=datalist, weights=weights, **options)
    return finished, by_pair(root / "results")


def test_the_corpus_is_large():
    assert len(CASES) > 100


@pytest.fixture(scope="module")
def batch(tiny_dataset, trained, tmp_path_factory):
    """Every kind of bad pair and a good one, registered in one batch."""
    folder = tmp_path_factory.mktemp("batch")
    entries = [*(write_pair(name, folder) for name in PAIRS), pair("D", "E", pair_id="good")]
    finished, rows = registered(folder, tiny_dataset, trained / "model.pt", entries, quality_pages=True)
    return finished, folder / "results", rows


@pytest.mark.parametrize("name", PAIRS)
def test_bad_pair_is_reported_in_the_table_and_the_error_line(batch, name):
    finished, folder, rows = batch
    assert rows[name]["status"] == "failed"
    assert PAIRS[name][2] in rows[name]["error"]
    assert f"{name}: {rows[name]['error']}" in error_line(finished)
    assert not (folder / name).exists()


def test_good_pair_among_bad_ones_is_registered(batch):
    finished, folder, rows = batch
    assert rows["good"]["status"] == "done"
    mean, _sd = csv_rows(folder / "summary.csv")
    assert float(mean["loss_after"]) == float(rows["good"]["loss_after"])
    assert json.loads((folder / "good/metrics.json").read_text())["pair_id"] == "good"
    assert f"{len(PAIRS)} of {len(PAIRS) + 1} pairs failed" in error_line(finished)
    assert half_written(folder) == []


def test_check_of_the_data_names_every_bad_file(tiny_dataset, tmp_path):
    names = [name for name in PAIRS if name not in UNSEEN_BY_CHECK]
    entries = [write_pair(name, tmp_path) for name in names]
    for kind in ("images", "labels"):
        (tmp_path / kind).symlink_to(tiny_dataset / kind)
    datalist = write_json(tmp_path / "datalist.json", {"test": entries})
    finished = Command(tmp_path)("bundle", "check_data", tmp_path, datalist)
    assert finished.code == 1
    assert "Traceback" not in finished.err
    problems = [line for line in finished.out.splitlines() if line.startswith("  - ")]
    # A bad file is named once, by its folder.
    assert len(problems) == len(names)
    for name in names:
        (line,) = [line for line in problems if line.startswith(f"  - {name}/")]
        words = PAIRS[name][2]
        assert words in line or (words.startswith("moving_") and words.split(":")[0].split()[0] in PAIRS[name][0])


@pytest.mark.parametrize("name", ["truncated_gz", "huge_nifti", "objects", "huge_picture", "pipe", "nan", "kilometres"])
def test_register_refuses_a_bad_file_in_one_line(tiny_dataset, tmp_path, name):
    key, write, words = PAIRS[name]
    with pytest.raises(ValueError) as failure:
        register(
            tiny_dataset / "images/G.nii.gz",
            write(tmp_path),
            weights=None,
            device=torch.device("cpu"),
            **{**SMALL, "steps": 0},
        )
    assert words in str(failure.value)
    assert "\n" not in str(failure.value)


def run_command(arguments, capfd, monkeypatch):
    """``python -m bundle ...`` in this process."""
    monkeypatch.setattr(sys, "argv", ["bundle", *map(str, arguments)])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    return Finished(code, *capfd.readouterr())


BAD_MOVES = {**TRANSFORMS, **SURFACES, **{name: case for name, case in POINTS.items() if name != "unplaced_markups"}}


@pytest.mark.parametrize("name", BAD_MOVES)
def test_apply_refuses_a_bad_file_in_one_line(tiny_dataset, tmp_path, capfd, monkeypatch, name):
    write, words = BAD_MOVES[name]
    fixed = tiny_dataset / "images/G.nii.gz"
    bad = write(tmp_path)
    transform, moving = (bad, fixed) if name in TRANSFORMS else (affine_transform(tmp_path), bad)
    target = tmp_path / "out" / (moving.name if name in TRANSFORMS else bad.name)
    finished = run_command(["apply", transform, moving, target, fixed], capfd, monkeypatch)
    assert words in error_line(finished)
    assert not target.exists()
    assert half_written(tmp_path) == []


def test_a_damaged_transform_is_the_last_line_of_a_process(tiny_dataset, command, tmp_path):
    write, words = TRANSFORMS["damaged_h5"]
    fixed = tiny_dataset / "images/G.nii.gz"
    finished = command("bundle", "apply", write(tmp_path), fixed, tmp_path / "out.nii.gz", fixed)
    assert words in error_line(finished)


@pytest.mark.parametrize("name", ["truncated_gz", "huge_nifti", "huge_mha", "no_series", "objects", "bytes_as_name"])
@pytest.mark.parametrize("role", ["moving", "reference"])
def test_apply_refuses_a_bad_image_in_one_line(tiny_dataset, tmp_path, capfd, monkeypatch, name, role):
    _, write, words = PAIRS[name]
    files = {"moving": tiny_dataset / "images/F.nii.gz", "reference": tiny_dataset / "images/G.nii.gz"}
    files[role] = write(tmp_path)
    arguments = ["apply", affine_transform(tmp_path), files["moving"], tmp_path / "out.nii.gz", files["reference"]]
    assert words in error_line(run_command(arguments, capfd, monkeypatch))
    assert not (tmp_path / "out.nii.gz").exists()
    assert half_written(tmp_path) == []


def test_names_of_files_need_not_be_utf_8(tiny_dataset, trained, tmp_path):
    """Long and odd names of good images end in folders of the results, whose names anything can hold."""
    names = [b"m\xe9\n\x1b[1m", b"x" * 240, b"..", b"a b;$(c)"]
    entries = []
    for name in names:
        path = tmp_path / os.fsdecode(name + b".nii.gz")
        path.symlink_to(tiny_dataset / "images/F.nii.gz")
        entries.append({"moving_image": path.name, "fixed_image": "images/G.nii.gz", "patient": ["F", "G"]})
    finished, rows = registered(tmp_path, tiny_dataset, trained / "model.pt", entries, quality_pages=True)
    assert finished.code == 0, finished.err
    folders = {path.name for path in (tmp_path / "results").iterdir() if path.is_dir()}
    assert folders == rows.keys()
    assert len(folders) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{,199}", folder) for folder in folders)
    found = Command(tmp_path)("bundle", "check_data", tmp_path, tmp_path / "results/datalist.json")
    assert (found.code, found.err) == (0, "")


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
    assert not (tmp_path / "run").exists()


TOLD_BY_HEADERS = {
    *(
        "not_an_image",
        "truncated_gz",
        "truncated",
        "header_only",
        "trailing_checksum",
        "huge_nifti",
        "colours",
        "planar",
    ),
    *("time_series", "truncated_mha", "huge_nrrd", "zero_size", "label_of_another_size", "truncated_mask", "web_page"),
}


def test_headers_alone_tell_most_broken_files_and_refuse_no_sound_one(tiny_dataset, tmp_path):
    """What the beginning of a training says is what the pair would have said when it is drawn."""
    pairs = {}
    for kind in ("images", "labels"):
        (tmp_path / kind).symlink_to(tiny_dataset / kind)
    for name in PAIRS:
        entry = {**write_pair(name, tmp_path), "fixed_mask": "labels/G.nii.gz"}
        pairs[name] = {key: str(tmp_path / value) for key, value in entry.items() if "_" in key}
    told = set()
    for name, paths in pairs.items():
        try:
            check_headers([paths])
        except ValueError as error:
            assert PAIRS[name][2] in str(error), name
            told.add(name)
    assert told >= TOLD_BY_HEADERS
    with pytest.raises(ValueError, match="^2 problems in the files of the pairs: .*truncated_gz/.*; .*/colours/"):
        check_headers([pairs[name] for name in ("truncated_gz", "colours")])
    with pytest.raises(ValueError, match="label is 18 x 18 x 16 and its image 20 x 18 x 16"):
        check_headers([{kind: pairs["label_of_another_size"][f"moving_{kind}"] for kind in ("image", "label")}])


def test_a_length_that_gzip_does_not_note_is_counted(tmp_path):
    """Several members in one file, as ``pigz`` and ``bgzip`` write them: the last one notes its own length only."""
    content = nib.Nifti1Image(np.ones((9, 8, 7), np.float32), np.eye(4)).to_bytes()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]))
    assert header_shape(path) == (1, 9, 8, 7)
    path.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:-4]))
    with pytest.raises(ValueError, match="a.nii.gz: cannot be read, damaged or not an image"):
        header_shape(path)


def test_bad_validation_pairs_are_all_named_before_a_training_and_landmarks_of_training_pairs_are_not_read(
    dataset, command, tmp_path
):
    for name, rows in (("one", 1), ("two", 2)):
        (dataset / f"{name}.csv").write_text("x,y,z\n" + "1,2,3\n" * rows)
    truncated(dataset / "images/F.nii.gz")
    unlike = {"fixed_landmarks": "one.csv", "moving_landmarks": "two.csv"}
    content = {"training": [pair("A", "B", **unlike)], "validation": [pair("D", "E", **unlike), pair("F", "G")]}
    datalist = write_json(dataset / "list.json", content)
    finished = command.train(tmp_path / "run", dataset_dir=dataset, datalist=datalist)
    line = error_line(finished)
    assert "2 problems in the pairs: " in line
    assert "two.csv: 1 fixed and 2 moving landmarks; rows must correspond" in line
    assert "F.nii.gz: cannot be read, damaged or not an image" in line
    assert not (tmp_path / "run").exists()
    content["validation"] = [pair("D", "E")]
    finished = command.train(tmp_path / "run", dataset_dir=dataset, datalist=write_json(datalist, content))
    assert finished.code == 0, finished.err


def test_bad_datalists_are_refused_by_the_check_of_the_data(tiny_dataset, tmp_path, capfd, monkeypatch):
    for name, (_, words) in DATALISTS.items():
        datalist = write_datalist_case(name, tmp_path / "list.json")
        finished = run_command(["check_data", tiny_dataset, datalist], capfd, monkeypatch)
        assert finished.code == 1
        assert words in finished.out, name
        assert "\x1b" not in finished.out


@pytest.mark.parametrize("name", DATALISTS)
def test_bad_datalist_is_refused_in_one_line(tiny_dataset, tmp_path, name):
    datalist = write_datalist_case(name, tmp_path / "list.json")
    with pytest.raises(ValueError) as failure:
        select_pairs(read_datalist(tiny_dataset, datalist))
    assert DATALISTS[name][1] in one_line(failure.value)


@pytest.mark.parametrize("name", ["missing_file", "id_parent", "deep_json", "no_pairs"])
def test_bad_datalist_is_refused_before_anything_is_written(tiny_dataset, command, tmp_path, name):
    datalist = write_datalist_case(name, tmp_path / "list.json")
    finished = command.register(tmp_path / "out", dataset_dir=tiny_dataset, datalist=datalist)
    assert DATALISTS[name][1] in error_line(finished)
    assert not (tmp_path / "out").exists()


def test_training_without_training_pairs_is_refused(tiny_dataset, command, tmp_path):
    datalist = write_json(tmp_path / "list.json", {"test": [pair("F", "G")]})
    finished = command.train(tmp_path / "run", dataset_dir=tiny_dataset, datalist=datalist)
    assert "no training pairs" in error_line(finished)
    assert not list(tmp_path.glob("run/*.pt"))


def overlay(text):
    def write(folder):
        (folder / "overlay.yaml").write_text(text)
        return {"config": f"['{INFERENCE}','{folder / 'overlay.yaml'}']"}

    return write


BAD_OPTIONS = {
    "missing_dataset": ({"dataset_dir": "nowhere"}, "dataset_dir is not a folder: "),
    "missing_datalist": ({"datalist": "nowhere.json"}, "datalist not found: nowhere.json"),
    "dataset_is_a_file": ({"dataset_dir": __file__}, "dataset_dir is not a folder: "),
    "datalist_is_a_folder": ({"datalist": "/"}, "datalist /: a folder, expected a file"),
    "missing_weights": ({"weights": "nowhere.pt"}, "weights not found: nowhere.pt"),
    "weights_of_another_size": ({"channels": 4}, "model.pt does not hold weights of this network"),
    "initial_alignment": (
        {"initial_alignment": "centre"},
        "initial_alignment is 'centre'; expected 'world', 'center' or 'none'",
    ),
    "negative_steps": ({"steps": -1}, "--steps is '-1'; expected 0 or more, such as 5"),
    "text_as_number": ({"steps": "five"}, "--steps is 'five'; expected a whole number, such as 5"),
    "fraction_as_count": ({"steps": 2.5}, "--steps is '2.5'; expected a whole number"),
    "no_spacing": ({"pixdim": 0}, "pixdim is 0; expected the spacing"),
    "section": ({"section": "tset"}, "no section 'tset'; expected one of training, validation, test"),
    "pairing": ({"pairing": "pared"}, "pairing is 'pared', expected one of paired, fixed, moving"),
    "precision": ({"precision": "float17"}, "precision is 'float17'; expected auto, float32, bfloat16"),
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
    assert not (tmp_path / "out").exists()
    assert half_written(tmp_path) == []


@pytest.mark.parametrize("name", ["file", "file/out"])
@pytest.mark.parametrize("workflow", ["training", "inference"])
def test_output_that_cannot_be_written_is_one_line(tiny_dataset, trained, command, tmp_path, name, workflow):
    (tmp_path / "file").write_text("as it was")
    values = {"output_dir": tmp_path / name, "dataset_dir": tiny_dataset, "datalist": "datalist.json"}
    if workflow == "training":
        finished = command.train(**values)
    else:
        finished = command.register(**values, weights=trained / "model.pt")
    assert str(tmp_path / "file") in error_line(finished)
    assert (tmp_path / "file").read_text() == "as it was"
    assert half_written(tmp_path) == []


@pytest.mark.parametrize("name", WEIGHTS)
def test_bad_weights_are_refused_in_one_line(tmp_path, name):
    write, words = WEIGHTS[name]
    loader = WeightsLoader(str(write(tmp_path)), {"network": torch.nn.Linear(2, 2)})
    with pytest.raises(ValueError) as failure:
        loader(None)
    assert words in one_line(failure.value)
    assert not CODE_HAS_RUN.exists()


@pytest.mark.parametrize("workflow", ["training", "inference"])
def test_code_in_place_of_weights_does_not_run(tiny_dataset, command, tmp_path, workflow):
    write, words = WEIGHTS["code_as_weights"]
    bad, values = write(tmp_path), {"dataset_dir": tiny_dataset, "datalist": "datalist.json"}
    if workflow == "training":
        finished = command.train(tmp_path / "run", **values, start_weights=bad)
    else:
        finished = command.register(tmp_path / "run", **values, weights=bad)
    assert words in error_line(finished)
    assert not CODE_HAS_RUN.exists()
    assert half_written(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"inner_steps": 0}, "inner_steps is 0, from which Reptile learns nothing; expected 1 or more"),
        ({"versions": 0}, "versions is 0; expected 1 or more"),
        ({"iterations_per_epoch": 0}, "--iterations_per_epoch is '0'; expected more than 0, such as 100"),
        ({"meta_rule": "reptile"}, "meta_rule"),
        ({"meta_lr": -1}, "--meta_lr is '-1'; expected more than 0, such as 1.0"),
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
        "summary.csv",
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
