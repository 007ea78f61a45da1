"""The experiment of Park et al. 2021 in miniature: pre-training, meta-training, fine-tuning, test, report."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.ndimage import gaussian_filter
from toys import csv_rows
from workflow_fixtures import ROOT, Command, write_json

from bundle.experiment.results import slug

CONFIG = ROOT / "configs/experiments/experiment_2d.yaml"
SIZE = 40
SHIFT = (3, -2)  # columns, rows that the moving image's content lies further on
STEPS = {"iterations": 2, "iterations_per_epoch": 1}
OWN = {"meta": {"episodes_per_iteration": 2, "inner_steps": 2}, "pretrain": {"by_task": False}}


def texture(seed, shift=(0, 0)):
    """Smooth 8-bit picture with its content moved by ``shift`` (columns, rows)."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((SIZE + 20, SIZE + 20)), 2)
    part = noise[10 - shift[1] : 10 - shift[1] + SIZE, 10 - shift[0] : 10 - shift[0] + SIZE]
    return np.clip(128 + 300 * part, 0, 255).astype(np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_pairs(folder, names, landmarks=False):
    """``fixed/`` and ``moving/``, and on request points that know the shift."""
    for name in names:
        seed = sum(map(ord, f"{folder.name}{name}"))
        save(folder / f"fixed/{name}.png", texture(seed))
        save(folder / f"moving/{name}.png", texture(seed, SHIFT))
        if landmarks:
            points = [(10, 12), (20, 30), (31, 17)]
            rows = [f"{row},{col},{row + SHIFT[1]},{col + SHIFT[0]}" for row, col in points]
            (folder / "landmarks").mkdir(exist_ok=True)
            text = "\n".join(["fixed_row,fixed_col,moving_row,moving_col", *rows])
            (folder / f"landmarks/{name}.csv").write_text(text + "\n")


def write_slices(folder, volumes="AB", count=3):
    """Slices whose content drifts from one to the next."""
    for volume in volumes:
        for number in range(count):
            save(folder / f"{volume}_{number:03d}.png", texture(ord(volume), (number, 0)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("domains")
    write_slices(home / "source/brain")
    write_pairs(home / "source/eye", "ab")
    write_pairs(home / "target/finetune", "cd")
    write_pairs(home / "target/test", "efg", landmarks=True)
    return home


def small_plan(path):
    """A file that changes ``configs/experiments/experiment_2d.yaml`` into something that takes seconds."""
    plan = yaml.safe_load(CONFIG.read_text())
    for name, training in plan["trainings"].items():
        training["options"] = STEPS | OWN.get(name, {})
    for method in plan["methods"].values():
        method.update({"epoch": 1} if "epoch" in method else {})
    for evaluation in plan["evaluations"].values():
        evaluation["curves"]["points"] = [0, 1, 2]
    tiny = {"spatial_size": [SIZE, SIZE]}
    options = {key: plan[key] | tiny for key in ("training_options", "inference_options")}
    return write_json(path, {**options, **{key: plan[key] for key in ("trainings", "methods", "evaluations")}})


@pytest.fixture(scope="module")
def finished(folders):
    command, plan = Command(folders), small_plan(folders / "small.json")
    arguments = ["bundle", "experiment", "--config_file", f"['{CONFIG}','{plan}']"]
    arguments += ["--dataset_dir", folders / "source", "--target_dir", folders / "target", "--output_dir"]
    first = command(*arguments, "out")
    assert first.code == 0, first.err[-3000:]
    return folders / "out", lambda output_dir="out": command(*arguments, output_dir)


def test_every_method_is_in_table_1(finished):
    out, _again = finished
    plan = yaml.safe_load(CONFIG.read_text())
    table = csv_rows(out / f"table_{slug('Target task')}.csv")
    methods = plan["evaluations"]["Target task"]["methods"]
    assert [row["method"] for row in table] == ["not registered", *methods]
    scale = 400 / SIZE
    assert float(table[0]["distance_px_mean"]) == pytest.approx(scale * np.hypot(*SHIFT), abs=1e-4)
    assert all(row["n"] == "3" and float(row["distance_px_mean"]) > 0 for row in table)
    assert len({row["ncc_mean"] for row in table[1:]}) == len(methods)


def test_the_page_has_curves_and_overlays(finished):
    out, _again = finished
    assert (out / "epochs_target_task.png").stat().st_size > 10_000
    assert (out / "figure_4_overlays_target_task.png").stat().st_size > 10_000
    report = (out / "report.html").read_text()
    assert "Ours - long + 5 steps" in report
    assert "http" not in report


def test_the_fine_tuned_start_from_what_came_before(finished):
    out, _again = finished
    starts = {"fine_tune": "pretrain", "ours": "meta", "meta": "pretrain"}
    for name, start in starts.items():
        options = json.loads((out / f"trainings/{name}/finished.json").read_text())["options"]
        assert options["start_weights"] == str(out / f"trainings/{start}/model_last.pt")
    assert (out / "trainings/ours/model_epoch_1.pt").exists()


def test_test_pairs_are_only_in_the_training_that_says_so(finished):
    out, _again = finished
    tested = {pair["fixed_image"] for pair in json.loads((out / "pairs/test.json").read_text())["test"]}
    for name in ("source", "finetune"):
        trained = json.loads((out / f"pairs/{name}.json").read_text())["training"]
        assert not [pair for pair in trained if "test" in pair["fixed_image"]]
    seen = json.loads((out / "pairs/seen.json").read_text())["training"]
    assert {Path(pair["fixed_image"]).name for pair in seen} >= {Path(path).name for path in tested}


def test_nothing_is_done_twice_and_a_sixth_task_is_a_folder(finished, folders):
    out, again = finished
    before = {path: path.stat().st_mtime_ns for path in out.glob("trainings/*/model_last.pt")}
    second = again()
    assert second.code == 0, second.err[-3000:]
    assert "--- " not in second.out
    assert {path: path.stat().st_mtime_ns for path in out.glob("trainings/*/model_last.pt")} == before
    write_slices(folders / "source/heart", "C")
    third = again("six")
    assert third.code == 0, third.err[-3000:]
    pairs = json.loads((folders / "six/pairs/source.json").read_text())["training"]
    assert {pair["task"] for pair in pairs} == {"brain", "eye", "heart"}
