"""The commands of ``python -m bundle`` and the options of ``python -m monai.bundle run``, as processes of their own."""

import json
import shutil
import sys

import nibabel as nib
import numpy as np
import pytest
from workflow_fixtures import INFERENCE, ROOT, SMALL, SMALL_TRAINING, options, pair, write_json

from bundle import __main__ as commands
from bundle.system import twins

pytest_plugins = ["workflow_fixtures"]


def test_simulate_writes_a_dataset_that_check_data_accepts(command, tmp_path):
    simulated = command("bundle", "simulate", "--output_dir", tmp_path / "new", "--patients", 6)
    assert simulated.code == 0, simulated.error
    assert f"simulated data: {tmp_path / 'new'}" in simulated.out
    checked = command("bundle", "check_data", "--dataset_dir", tmp_path / "new", "--datalist", "datalist.json")
    assert checked.code == 0, checked.error
    assert "no problems" in checked.out
    assert nib.load(tmp_path / "new/labels/P00_0.nii.gz").shape[3] == 6


@pytest.mark.parametrize("occupied", [False, True])
def test_simulate_refuses_what_it_cannot_do(command, tmp_path, occupied):
    target = tmp_path if occupied else tmp_path / "new"
    finished = command("bundle", "simulate", "--output_dir", target, "--patients", 6 if occupied else 2)
    assert finished.code == 1
    cause = "exists and is not an empty folder" if occupied else "expected at least 6 patients"
    assert finished.err.startswith("error: ")
    assert cause in finished.err
    assert finished.err.count("\n") == 1


def test_check_data_prints_every_problem_and_fails(dataset, command):
    (dataset / "images/A.nii.gz").write_bytes(b"no image")
    write_json(dataset / "list.json", {"test": [pair("A", "B"), pair("D", "H")]})
    finished = command("bundle", "check_data", "--dataset_dir", dataset, "--datalist", "list.json")
    assert finished.code == 1
    assert "images/A.nii.gz: cannot be read" in finished.out
    assert "images/H.nii.gz" in finished.out
    assert finished.err == ""


def results(folder, steps, ids=("a", "b")):
    """Two registered pairs, as inference writes them."""
    for number, name in enumerate(ids):
        metrics = {
            "pair_id": name,
            "steps": steps,
            "dsc": {"1": {"before": 0.4, "after": 0.5 + 0.1 * number}},
            "tre_rms_mm": {"before": 6.0, "after": 5.0 - number},
            "folded_percent": 0.25,
            "loss": [0.2] * (steps + 1),
            "seconds": {"preprocessing": 1.0, "adaptation": 0.5},
        }
        (folder / name).mkdir(parents=True)
        write_json(folder / name / "metrics.json", metrics)
    return folder


def test_compare_prints_a_table_of_the_runs(command, tmp_path):
    start, after = results(tmp_path / "start", 0), results(tmp_path / "after", 5)
    finished = command("bundle", "compare", f"{start},{after}")
    assert finished.code == 0, finished.error
    head, unregistered, zero, five = finished.out.rstrip().splitlines()
    assert head.split() == ["DSC", "TRE", "mm", "folded", "%", "s/pair"]
    assert unregistered.split("  ")[0] == "not registered"
    assert unregistered.split()[2:] == ["0.400", "+-", "0.000", "6.000", "+-", "0.000", "-", "-"]
    assert zero.startswith("0 steps (start)")
    assert five.split() == [
        "after",
        "5",
        "steps",
        "(after)",
        "0.550",
        "+-",
        "0.071",
        "4.500",
        "+-",
        "0.707",
        "0.25",
        "1.5",
    ]


@pytest.mark.parametrize(
    ("ids", "cause"), [((), "holds no results"), (("a", "c"), "same pairs (b is not in all of them)")]
)
def test_compare_refuses_runs_that_cannot_be_compared(command, tmp_path, ids, cause):
    (tmp_path / "after").mkdir()
    finished = command("bundle", "compare", f"{results(tmp_path / 'start', 0)},{results(tmp_path / 'after', 5, ids)}")
    assert finished.code == 1
    assert finished.err.startswith("error: ")
    assert cause in finished.err


def test_nothing_is_not_compared(command):
    finished = command("bundle", "compare", ",")
    assert finished.code == 1
    assert finished.err == "error: nothing to compare; give output folders of registrations\n"


def test_write_json_rewrites_the_twins(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for twin in (tmp_path / "configs").glob("*.json"):
        if twin.name != "metadata.json":
            twin.unlink()
    monkeypatch.setattr(twins, "CONFIGS", tmp_path / "configs")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", ["bundle", "write_json"])
    commands.main()
    for name in ("train.json", "inference.json", "metadata.json"):
        written = json.loads((tmp_path / "configs" / name).read_text())
        assert written == json.loads((ROOT / "configs" / name).read_text())
    assert not list((tmp_path / "configs").glob(".*"))


def test_unknown_option_is_one_line_and_a_traceback_for_those_who_ask(command):
    arguments = ("monai.bundle", "run", "--config_file", INFERENCE, "--foo", 1)
    finished = command(*arguments)
    assert finished.code == 1
    assert finished.error.startswith("error: unknown option --foo; known options are ")
    assert len(finished.error.splitlines()) == 1
    asked = command(*arguments, environment={"BUNDLE_TRACEBACK": "1"})
    assert asked.code == 1
    assert "Traceback (most recent call last)" in asked.err
    assert "ValueError: unknown option --foo" in asked.err


@pytest.mark.parametrize(("module", "output"), [("monai.bundle", "a#2"), ("bundle", "[1e3]")])
def test_names_that_look_like_python_stay_text(dataset, command, module, output):
    """The runner of MONAI took 2025 for a number, (2) for 2 and a#2 for a."""
    dataset.rename(command.folder / "2025")
    (command.folder / "2025/datalist.json").rename(command.folder / "2025/(2)")
    values = {"dataset_dir": "2025", "datalist": "(2)", "section": "test", "output_dir": output, "weights": "$None"}
    pages = {"pictures": False, "quality_pages": False}
    config = INFERENCE if module == "monai.bundle" else "configs/inference.yaml"
    finished = command(module, "run", "--config_file", config, *options({**SMALL, **values, **pages, "steps": 0}))
    assert finished.code == 0, finished.error
    assert (command.folder / output / "F_to_G/metrics.json").is_file()
    assert {path.name for path in command.folder.iterdir()} == {"2025", output, "out.txt", "err.txt"}


@pytest.mark.parametrize(("output", "folder"), [("~/out", "home/out"), ("~out", "elsewhere/~out")])
def test_a_tilde_is_the_home_folder_or_a_letter_in_all_that_is_written(tiny_dataset, command, tmp_path, output, folder):
    """One half of the results went to the home folder, as nibabel does it, and the other into a folder called ``~``."""
    values = {**SMALL, "weights": "$None", "steps": 0, "pictures": False, "quality_pages": False}
    images = [tiny_dataset / f"images/{name}.nii.gz" for name in "FG"]
    words = ["register", *images, f"--output_dir={output}", *options(values)]
    finished = command("bundle", *words, environment={"HOME": str(tmp_path / "home")})
    assert finished.code == 0, finished.error
    results = {path.name for path in (tmp_path / folder / "G_to_F").iterdir()}
    assert {"warped_image.nii.gz", "displacement.nii.gz", "metrics.json"} <= results
    assert (tmp_path / folder / "metrics.csv").is_file()
    assert not (command.folder / "~").exists()


def test_a_missing_configuration_is_one_line(command):
    finished = command("bundle", "run", "training", "--config_file", "configs/missing.yaml")
    assert finished.code == 1
    assert finished.err.startswith("error: configuration not found: configs/missing.yaml; give a file, or a name in ")
    assert finished.err.count("\n") == 1


def test_two_images_are_registered_with_masks_and_landmarks(tiny_dataset, trained, command, tmp_path):
    points = tmp_path / "points.csv"
    points.write_text("x,y,z,name\n4,5,6,apex\n7,6,5,base\n")
    mask = nib.load(tiny_dataset / "images/F.nii.gz")
    nib.save(nib.Nifti1Image(np.ones(mask.shape, np.uint8), mask.affine), tmp_path / "mask.nii.gz")
    images = [tiny_dataset / f"images/{name}.nii.gz" for name in "FG"]
    files = {"fixed_landmarks": points, "moving_landmarks": points, "fixed_mask": tmp_path / "mask.nii.gz"}
    values = {**SMALL, "weights": trained / "model.pt", "output_dir": tmp_path / "out", **files}
    finished = command("bundle", "register", *images, *options(values))
    assert finished.code == 0, finished.error
    assert finished.out.splitlines()[-1] == f"see {tmp_path / 'out/quality.html'}"
    metrics = json.loads((tmp_path / "out/G_to_F/metrics.json").read_text())
    assert list(metrics["tre_mm"]) == ["point apex", "point base"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["--fixed_landmarks"], "not found: the file of --fixed_landmarks"),
        (["--fixed_mask", "gone.nii"], "not found: gone.nii"),
        (
            ["there.nii", "--fixed_landmarks", "there.nii"],
            "fixed_landmarks without moving_landmarks: a distance is one of",
        ),
        (["--moving_label", "there.nii"], "--moving_label belongs to two images, and only data is given"),
    ],
)
def test_files_of_a_pair_that_are_not_there_are_named(command, files, words):
    (command.folder / "data").mkdir()
    (command.folder / "there.nii").touch()
    finished = command("bundle", "register", "data", *files)
    assert finished.code == 1
    assert words in finished.error


@pytest.mark.parametrize(
    ("named", "option"),
    [
        (["register", "fixed.nii", "moving.nii"], "datalist"),
        (["register", "list.json"], "datalist"),
        (["register", "data"], "dataset_dir"),
    ],
)
def test_images_are_named_once(command, named, option):
    """The option went before, and the images that the command names were left out in silence."""
    (command.folder / "data").mkdir()
    for name in ("fixed.nii", "moving.nii", "list.json", "other"):
        (command.folder / name).touch()
    finished = command("bundle", *named, f"--{option}", "other")
    assert finished.code == 1
    assert finished.error == f"error: --{option} names other images than the command does; keep one of them"


@pytest.mark.parametrize("work", ["register", "train"])
def test_quiet_prints_nothing_but_writes_everything(command, dataset, tmp_path, work):
    values = {**({**SMALL, "weights": "$None"} if work == "register" else SMALL_TRAINING), "datalist": "datalist.json"}
    finished = command("bundle", work, dataset, "--quiet", "--output", tmp_path / "out", *options(values))
    assert (finished.code, finished.out, finished.err) == (0, "", "")
    assert (tmp_path / "out" / ("metrics.csv" if work == "register" else "model.pt")).exists()


def test_quiet_still_says_what_is_wrong(command, dataset, tmp_path):
    finished = command("bundle", "train", dataset, "--quiet", "--verbose", "--output", tmp_path / "out")
    assert finished.code == 1
    assert finished.err == "error: --verbose and --quiet exclude each other; give one of them\n"
    (dataset / "images/A.nii.gz").write_bytes(b"no image")
    write_json(dataset / "list.json", {"test": [pair("A", "B")]})
    words = [dataset, "--datalist", dataset / "list.json", "--quiet", "--output", tmp_path / "out"]
    finished = command("bundle", "register", *words, *options({**SMALL, "weights": "$None"}))
    assert (finished.code, finished.out) == (1, "")
    assert "A.nii.gz" in finished.err
