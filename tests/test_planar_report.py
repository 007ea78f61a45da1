"""The report of planar images: distance and NCC, curves over epochs with a level, overlays of the example."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from toys import csv_rows

from bundle.data import write_datalist
from bundle.evaluation.measures import MEASURES
from bundle.experiment.figures import experiment_figures
from bundle.experiment.report import write_report
from bundle.experiment.results import median_pair, read_evaluation
from bundle.experiment.runs import Curves, Evaluation
from bundle.formats import nifti
from bundle.results import SavePaird

AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
SIZE = (16, 12, 1)
PAIRS = [f"P{number}" for number in range(5)]
BEFORE = np.array([10.0, 8.0, 12.0, 9.0, 11.0])
# What each method leaves of the distance of every pair, in pixels.
LEFT = {"Transfer": BEFORE - 1, "Ours - 10 epochs": BEFORE / 2, "Ours - long": np.array([4.0, 3.0, 2.0, 1.0, 8.0])}
LONG = "Ours - long"
PLANAR = tuple(MEASURES[key] for key in ("distance_px", "ncc", "inverse_distance_px"))


def metrics(pair, before, after):
    both = {"before": float(before), "after": float(after)}
    return {
        "pair_id": pair,
        "steps": 0,
        "device": "cpu",
        "initial_alignment_mm": np.eye(4).tolist(),
        "loss": [float(after) / 100],
        "adaptation": {"best_loss": float(after) / 100, "loss_identity": 1.0},
        "folded_percent": 0.0,
        "distance_px": {when: 2 * value for when, value in both.items()},
        "distance_grid_px": both,
        "distance_fixed_grid_px": {when: value + 0.5 for when, value in both.items()},
        "ncc": {when: 1 / value for when, value in both.items()},
        "seconds": {"preprocessing": 0.1, "registration": 0.2},
    }


def write_run(folder, root, listed, left):
    """What inference leaves of planar pairs, points outside the folder of each."""
    write_datalist(folder / "datalist.json", {"test": listed}, root)
    for pair, before, after in zip(PAIRS, BEFORE, left, strict=True):
        SavePaird(folder)(
            {
                "pair_id": pair,
                "native_fixed_image": MetaTensor(torch.zeros(1, *SIZE), affine=AFFINE),
                "warped_image": torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0)),
                "displacement": MetaTensor(torch.full((3, *SIZE), 0.25), affine=AFFINE),
                "metrics": metrics(pair, before, after),
            }
        )
    return folder


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    root = tmp_path_factory.mktemp("planar")
    listed = []
    generator = np.random.default_rng(0)
    for pair in PAIRS:
        entry = {}
        for side in ("fixed", "moving"):
            entry[f"{side}_image"] = root / f"data/{side}/{pair}.nii.gz"
            entry[f"{side}_image"].parent.mkdir(parents=True, exist_ok=True)
            nib.save(nifti(generator.random(SIZE, dtype=np.float32), AFFINE), entry[f"{side}_image"])
            (root / f"data/{side}/{pair}.csv").write_text("i,j,k\n3,4,0\n10,2,0\n")
            entry[f"{side}_landmarks"] = root / f"data/{side}/{pair}.csv"
        listed.append({"pair_id": pair, **{key: str(path) for key, path in entry.items()}, "patient": [pair]})

    def run(name, left):
        return write_run(root / name, root / "data", listed, left)

    runs = {name: run(f"runs/{number}", left) for number, (name, left) in enumerate(LEFT.items())}
    curves = {"Fine-tune": {epoch: run(f"curve/{epoch}", BEFORE / (1 + epoch)) for epoch in (0, 2, 10)}}
    starts = Curves({**curves, "Ours": {10: runs["Ours - 10 epochs"]}}, "epochs", "Ours - 10 epochs")
    return Evaluation("Target task", runs, LONG, starts, PLANAR, root / "data")


@pytest.fixture(scope="module")
def written(evaluation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return folder, write_report(folder, [evaluation], "Title").read_text(encoding="utf-8")


def test_table_has_the_measures_of_the_plan_in_their_order(written):
    folder, page = written
    table = {row["method"]: row for row in csv_rows(folder / "table_target_task.csv")}
    assert list(table) == ["not registered", *LEFT]
    keys = [name.removesuffix("_mean") for name in table[LONG] if name.endswith("_mean")]
    assert keys[:3] == ["distance_px", "ncc", "inverse_distance_px"]
    for name, values in {"not registered": BEFORE, **LEFT}.items():
        assert float(table[name]["distance_px_mean"]) == pytest.approx(values.mean())
        assert float(table[name]["distance_px_sd"]) == pytest.approx(values.std(ddof=1))
        assert float(table[name]["inverse_distance_px_mean"]) == pytest.approx(values.mean() + 0.5)
        assert float(table[name]["ncc_mean"]) == pytest.approx((1 / values).mean())
    titles = ("distance (px of the point grid)", "NCC", "distance in the fixed image (px of the point grid)")
    assert "".join(f"<th>{title}</th>" for title in titles) in page
    assert "DSC" not in page


def test_the_long_run_is_tested_against_the_others(written):
    folder, page = written
    tests = csv_rows(folder / "tests_target_task.csv")
    assert [row["compared_with"] for row in tests[:3]] == ["not registered", "Transfer", "Ours - 10 epochs"]
    # 4 < 5, 3 < 4, 2 < 6, 1 < 4.5, but not 8 < 5.5.
    assert tests[2]["improved"] == "4"
    assert "distance better than Ours - 10 epochs on 4 of 5 pairs" in page
    assert "distance in the fixed image better than Transfer on 5 of 5 pairs" in page


def test_figures_are_those_of_planar_images(written):
    folder, page = written
    figures = ["figure_2_distance", "figure_3_ncc", "figure_4_overlays", "epochs"]
    assert sorted(path.stem for path in folder.glob("*.png")) == sorted(f"{name}_target_task" for name in figures)
    # Improvements are 6, 5, 10, 8 and 3: the median is that of P0.
    assert "Overlays of P0, picked by rule" in page
    assert "from 10.00 to 4.00, is the median" in page
    assert "purple (red and blue)" in page


def test_curves_are_over_epochs_with_the_level_of_a_method(evaluation):
    figure, caption = experiment_figures(read_evaluation(evaluation))["epochs"]
    distance, ncc, loss = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["distance (px of the point grid)", "NCC", "loss (test pairs)"]
    np.testing.assert_allclose(distance.lines[0].get_xydata(), [[0, 10], [2, 10 / 3], [10, 10 / 11]])
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [0.1, 0.1 / 3, 0.1 / 11])
    assert [set(axis.lines[2].get_ydata()) for axis in (distance, loss)] == [{5.0}, {0.05}]
    assert ncc.lines[2].get_linestyle() == ":"
    assert "epochs of training" in distance.get_xlabel()
    assert caption.endswith("Dotted: the mean of Ours - 10 epochs.")


def test_the_example_has_points_and_a_panel_per_method(evaluation):
    figure, _ = experiment_figures(read_evaluation(evaluation))["figure_4_overlays"]
    assert [axis.get_title() for axis in figure.axes[:4]] == ["not registered", *LEFT]
    green, yellow = figure.axes[3].collections
    np.testing.assert_allclose(yellow.get_offsets(), [[3, 4], [10, 2]], atol=1e-5)
    # A field of 0.25 mm in x and y, whose axes run against those of the pixels.
    np.testing.assert_allclose(green.get_offsets(), [[3.25, 4.25], [10.25, 2.25]], atol=1e-4)


def test_runs_without_points_are_compared_by_ncc(evaluation, tmp_path):
    runs = {}
    for name, folder in evaluation.runs.items():
        for pair in PAIRS:
            found = json.loads((folder / pair / "metrics.json").read_text())
            bare = {key: value for key, value in found.items() if not key.startswith("distance")}
            path = tmp_path / str(len(runs)) / pair / "metrics.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(bare))
        runs[name] = tmp_path / str(len(runs))
    results = read_evaluation(replace(evaluation, runs=runs, curves=Curves({})))
    assert [measure.key for measure in results.series] == ["ncc"]
    assert median_pair(results)[1].key == "ncc"
    assert list(experiment_figures(results)) == ["figure_3_ncc"]
