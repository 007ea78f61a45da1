"""The table over pairs, the comparison of runs and the picture."""

import csv
import io
import json
import math

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from monai.data import MetaTensor
from PIL import Image

from bundle.evaluation import ColumnMean, MetricsTable, compare
from bundle.evaluation.table import headline, mean_and_sd, metrics_row, table_columns, write_table
from bundle.pages import PairPictured
from bundle.pages.views import slice_of_interest


def metrics(pair_id="a", dsc=(0.5, 0.8), tre=(4.0, 2.0), hd95=(9.0, 6.0), **changes):
    result = {
        "pair_id": pair_id,
        "steps": 5,
        "loss": [2.0, 1.5, 1.0],
        "adaptation": {"best_state": "step 2", "best_loss": 1.0, "loss_identity": 3.0},
        "folded_percent": 0.5,
        "log_jacobian_sd": 0.125,
        "seconds": {"preprocessing": 1.0, "registration": 2.5},
        "seconds_per_step": 0.375,
        "dsc": {"1": dict(zip(("before", "after"), dsc, strict=True))},
        "hd95_mm": {"1": dict(zip(("before", "after"), hd95, strict=True))},
        "tre_rms_mm": dict(zip(("before", "after"), tre, strict=True)),
    }
    return {**result, **changes}


def test_row_of_a_pair():
    scores = {"1": {"before": 0.25, "after": 0.5}, "2": {"before": 0.75, "after": 1.0}}
    distances = {"1": {"before": 9.0, "after": 2.0}, "2": {"before": 5.0, "after": 1.0}}
    assert metrics_row(metrics() | {"dsc": scores, "hd95_mm": distances}) == {
        "pair_id": "a",
        "status": "done",
        "dsc_before": 0.5,
        "dsc_after": 0.75,
        "tre_rms_before_mm": 4.0,
        "tre_rms_after_mm": 2.0,
        "hd95_before_mm": 7.0,
        "hd95_after_mm": 1.5,
        "folded_percent": 0.5,
        "loss_before": 3.0,
        "loss_after": 1.0,
        "loss_start": 2.0,
        "seconds": 3.5,
        "log_jacobian_sd": 0.125,
        "seconds_registration": 2.5,
        "seconds_per_step": 0.375,
        "dsc_1_before": 0.25,
        "dsc_1_after": 0.5,
        "dsc_2_before": 0.75,
        "dsc_2_after": 1.0,
    }


def test_loss_after_registration_is_that_of_the_field_that_was_kept():
    kept = metrics(loss=[3.0, 1.0, 2.0], adaptation={"best_state": "step 1", "best_loss": 1.0, "loss_identity": 4.0})
    row = metrics_row(kept)
    assert [row[f"loss_{when}"] for when in ("before", "start", "after")] == [4.0, 3.0, 1.0]


PLANAR = {
    "ncc": {"before": 0.06, "after": 0.24},
    "distance_px": {"before": 12.5, "after": 6.25},
    "distance_grid_px": {"before": 10.0, "after": 5.0},
    "distance_fixed_grid_px": {"before": 10.5, "after": 5.5},
}


def planar(pair_id="a", **changes):
    volume = ("dsc", "hd95_mm", "tre_rms_mm")
    return {key: value for key, value in metrics(pair_id).items() if key not in volume} | PLANAR | changes


def test_row_of_a_planar_pair():
    row = metrics_row(planar())
    accuracy = {column: value for column, value in row.items() if column.startswith(("ncc", "distance"))}
    assert accuracy == {
        "ncc_before": 0.06,
        "ncc_after": 0.24,
        "distance_before_px": 12.5,
        "distance_after_px": 6.25,
        "distance_grid_before_px": 10.0,
        "distance_grid_after_px": 5.0,
        "distance_fixed_grid_before_px": 10.5,
        "distance_fixed_grid_after_px": 5.5,
    }
    assert not {"dsc_after", "tre_rms_after_mm", "hd95_after_mm"} & row.keys()


def test_headline_and_comparison_of_planar_pairs_have_distance_and_ncc(tmp_path):
    assert headline(metrics_row(planar())).startswith("distance 12.50 -> 6.25 px, NCC 0.060 -> 0.240, loss 3.0000")
    without_points = planar(distance_px={"before": None, "after": None})
    assert headline(metrics_row(without_points)).startswith("NCC 0.060 -> 0.240, loss")
    other = planar("b", distance_px={"before": 10.5, "after": 4.25})
    lines = compare([write_run(tmp_path / "run", planar(), other)]).splitlines()
    assert lines[0].split() == ["distance", "px", "NCC", "folded", "%", "s/pair"]
    # SD with n - 1 of two values 2 apart: 1.414.
    assert lines[1][44:].split() == ["11.500", "+-", "1.414", "0.060", "+-", "0.000", "-", "-"]
    assert lines[2][44:].split() == ["5.250", "+-", "1.414", "0.240", "+-", "0.000", "0.50", "3.5"]


def test_row_without_labels_and_with_a_structure_that_is_missing():
    bare = {key: value for key, value in metrics().items() if key not in ("dsc", "hd95_mm", "tre_rms_mm")}
    assert not {"dsc_before", "hd95_before_mm", "tre_rms_after_mm"} & metrics_row(bare).keys()
    missing = metrics_row(metrics() | {"dsc": {"1": {"before": 0.5, "after": None}}})
    assert not {"dsc_before", "dsc_after"} & missing.keys()
    assert missing["dsc_1_before"] == 0.5


def test_a_structure_that_is_lost_improves_no_distance():
    entries = {"1": {"before": 9.0, "after": None}, "2": {"before": 5.0, "after": 4.0}}
    row = metrics_row(metrics() | {"hd95_mm": entries})
    assert (row["hd95_before_mm"], row["hd95_after_mm"]) == (5.0, 4.0)
    assert not {"hd95_before_mm", "hd95_after_mm"} & metrics_row(metrics(hd95=(9.0, None))).keys()


def test_row_of_the_measures_that_some_runs_have():
    found = {
        "warped_centroid_mm": {"1": {"before": 1.0, "after": 1.0}, "2": {"before": 7.0, "after": 1.0}},
        "centre_mm": {"1": {"before": 9.0, "after": 2.0}, "2": {"before": 5.0, "after": 1.0}},
        "network_folded_percent": 0.25,
        "inverse_consistency_mm": 1.5,
        "self_displacement_mm": {"mean": 0.5, "max": 2.0},
    }
    assert (
        metrics_row(metrics() | found).items()
        >= {
            "warped_centroid_rms_before_mm": 5.0,
            "warped_centroid_rms_after_mm": 1.0,
            "centre_before_mm": 7.0,
            "centre_after_mm": 1.5,
            "network_folded_percent": 0.25,
            "inverse_consistency_mm": 1.5,
            "self_displacement_mean_mm": 0.5,
            "self_displacement_max_mm": 2.0,
        }.items()
    )


def test_row_leaves_out_what_a_run_does_not_have():
    bare = metrics_row(metrics(steps=0, loss=[3.0], log_jacobian_sd=None, seconds_per_step=None))
    assert not {"log_jacobian_sd", "seconds_per_step"} & bare.keys()
    assert bare["seconds_registration"] == 2.5
    new = ("log_jacobian_sd", "seconds_per_step", "hd95_mm")
    older = {key: value for key, value in metrics().items() if key not in new}
    assert metrics_row(older)["seconds"] == 3.5


def test_mean_and_sd_are_over_the_pairs_that_have_a_value():
    rows = [{"pair_id": "a", "x": 1.0, "y": None}, {"pair_id": "b", "x": 2.0, "y": 5.0}, {"pair_id": "c", "x": 6.0}]
    mean, sd = mean_and_sd(rows)
    assert (mean["x"], mean["y"]) == (3.0, 5.0)
    # n - 1: (4 + 1 + 9) / 2
    assert sd["x"] == pytest.approx(math.sqrt(7))
    assert "y" not in sd  # one value has no spread
    assert (mean["pair_id"], sd["pair_id"]) == ("mean", "sd")


def test_table_has_every_column_once_and_the_error_last(tmp_path):
    rows = [
        {"pair_id": "a", "status": "failed", "error": "bad, file"},
        {"pair_id": "b", "dsc_7_after": 0.5, "folded_percent": 0.0, "ncc_after": 0.3, "dsc_after": 0.5},
    ]
    write_table(rows, table_columns(rows), tmp_path / "new" / "metrics.csv")
    with (tmp_path / "new" / "metrics.csv").open() as file:
        first, second = csv.DictReader(file)
    # What no pair has gets no column.
    assert list(first) == [
        "pair_id",
        "status",
        "dsc_after",
        "ncc_after",
        "folded_percent",
        "dsc_7_after",
        "error",
    ]
    assert (first["error"], second["error"], second["dsc_7_after"]) == ("bad, file", "", "0.5")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["metrics.csv"]


def run_table(folder, outputs):
    engine = Engine(lambda engine, output: [output])
    table = MetricsTable(folder)
    table.attach(engine)
    engine.run(outputs)
    return table


def read_tables(folder):
    """Rows of ``metrics.csv`` and of ``summary.csv`` by their names."""
    tables = []
    for name in ("metrics", "summary"):
        with (folder / f"{name}.csv").open() as file:
            tables.append({row["pair_id"]: row for row in csv.DictReader(file)})
    return tables


def test_table_handler_averages_the_pairs_that_were_done(tmp_path, capsys):
    outputs = [
        {"metrics": metrics("a", dsc=(0.5, 0.6))},
        {"pair_id": "b", "error": "cannot be read"},
        {"metrics": metrics("c", dsc=(0.5, 0.8), tre=(4.0, None))},
    ]
    table = run_table(tmp_path, outputs)
    rows, summary = read_tables(tmp_path)
    assert list(rows) == ["a", "b", "c"]
    assert list(summary) == ["mean", "sd"]
    assert float(summary["mean"]["dsc_after"]) == pytest.approx(0.7)
    assert float(summary["sd"]["dsc_after"]) == pytest.approx(math.sqrt(0.02))
    assert float(summary["mean"]["tre_rms_after_mm"]) == 2.0
    # What people do with a table: the mean of a column is that of the pairs.
    assert np.mean([float(row["dsc_after"]) for row in rows.values() if row["dsc_after"]]) == pytest.approx(0.7)
    assert list(summary["mean"]) == list(rows["a"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.csv", "summary.csv"]
    assert (rows["b"]["status"], rows["b"]["error"], rows["b"]["dsc_after"]) == ("failed", "cannot be read", "")
    with pytest.raises(RuntimeError, match=r"1 of 3 pairs failed \(b: cannot be read\)"):
        table.conclude()
    assert "2 of 3 pairs registered" in capsys.readouterr().out


CHECK = {"verdict": "check", "reasons": ["1 % folds (check above 0.5 %)", "The loss rose"], "rules": []}


def test_verdict_and_similarity_are_in_the_table_and_counted(tmp_path, capsys):
    good = {"verdict": "good", "reasons": [], "rules": []}
    similarity = {"before": -0.25, "after": -0.5}
    lost = {"2": "missing", "3": "outside"}
    checked = metrics("a", verdict=CHECK | {"score": 0.75}, similarity=similarity, lost_landmarks=lost)
    outputs = [{"metrics": checked}, {"metrics": metrics("b", verdict=good | {"score": None}, lost_landmarks={})}]
    table = run_table(tmp_path, outputs)
    rows, summary = read_tables(tmp_path)
    (first, second), mean = rows.values(), summary["mean"]
    assert [row["verdict"] for row in (first, second, mean)] == ["check", "good", ""]
    assert list(first)[:4] == ["pair_id", "status", "verdict", "score"]
    assert list(first)[-3:] == ["lost_landmarks", "reasons", "error"]
    assert (first["lost_landmarks"], second["lost_landmarks"]) == ("2: missing; 3: outside", "")
    assert (first["score"], second["score"], mean["score"]) == ("0.75", "", "0.75")
    assert first["reasons"] == "1 % folds (check above 0.5 %); The loss rose"
    assert (first["similarity_before"], first["similarity_after"], second["reasons"]) == ("-0.25", "-0.5", "")
    assert mean["similarity_after"] == "-0.5"
    table.conclude()
    assert "2 of 2 pairs registered (1 good, 1 to check, 0 failed); table: " in capsys.readouterr().out


def test_headline_ends_with_the_verdict():
    assert headline(metrics_row(metrics(verdict=CHECK))).endswith(
        "3.5 s, check: 1 % folds (check above 0.5 %); The loss rose"
    )


def test_table_starts_anew_with_every_run(tmp_path):
    engine = Engine(lambda engine, output: [output])
    table = MetricsTable(tmp_path)
    table.attach(engine)
    for _ in range(2):
        engine.run([{"metrics": metrics("a")}])
    assert [row["pair_id"] for row in table.rows] == ["a"]
    table.conclude()


def test_a_run_in_which_every_pair_failed_has_a_table_too(tmp_path):
    with pytest.raises(RuntimeError, match=r"2 of 2 pairs failed \(a: x; b: y\)"):
        run_table(tmp_path, [{"pair_id": "a", "error": "x"}, {"pair_id": "b", "error": "y"}]).conclude()


def test_column_mean_is_a_validation_metric():
    metric = ColumnMean("loss_after")
    metric.update(
        [{"metrics": metrics()}, {"metrics": metrics("b", adaptation={"best_loss": 4.0, "loss_identity": 9.0})}]
    )
    assert metric.compute() == 2.5
    tre = ColumnMean("tre_rms_after_mm")
    tre.update([{"metrics": metrics(tre=(1.0, None))}, {"metrics": metrics(tre=(1.0, 3.0))}])
    assert tre.compute() == 3.0
    metric.reset()
    with pytest.raises(NotComputableError, match="no validation pair has loss_after"):
        metric.compute()


def test_a_measure_that_no_validation_pair_has_is_not_logged():
    engine = Engine(lambda engine, batch: [{"metrics": batch}])
    columns = {"val_loss": "loss_after", "val_dsc": "dsc_after", "val_tre_mm": "tre_rms_after_mm"}
    for name, column in columns.items():
        ColumnMean(column).attach(engine, name)
    with_points_alone = {key: value for key, value in metrics().items() if key not in ("dsc", "hd95_mm")}
    engine.run([with_points_alone])
    assert engine.state.metrics == {"val_loss": 1.0, "val_tre_mm": 2.0}


def test_headline_names_what_is_there():
    assert headline(metrics_row(metrics())) == (
        "DSC 0.500 -> 0.800, TRE 4.00 -> 2.00 mm, loss 3.0000 -> 1.0000, folded 0.50 %, 3.5 s"
    )
    bare = {key: value for key, value in metrics().items() if key not in ("dsc", "tre_rms_mm")}
    assert headline(metrics_row(bare)) == "loss 3.0000 -> 1.0000, folded 0.50 %, 3.5 s"


def write_run(folder, *results):
    for result in results:
        (folder / result["pair_id"]).mkdir(parents=True)
        (folder / result["pair_id"] / "metrics.json").write_text(json.dumps(result))
    return folder


def test_compare_lists_not_registered_and_every_run(tmp_path):
    start = write_run(tmp_path / "start", metrics("a", dsc=(0.4, 0.5), steps=0), metrics("b", dsc=(0.6, 0.7), steps=0))
    five = write_run(
        tmp_path / "five", metrics("a", dsc=(0.4, 0.7), tre=(4, 1)), metrics("b", dsc=(0.6, 0.9), tre=(4, 2))
    )
    lines = compare([start, five]).splitlines()
    assert [line[:44].strip() for line in lines] == [
        "",
        "not registered",
        "0 steps (start)",
        "after 5 steps (five)",
    ]
    assert lines[0].split() == ["DSC", "TRE", "mm", "folded", "%", "s/pair"]
    # SD with n - 1 of two values 0.2 apart: 0.141.
    assert lines[1][44:].split() == ["0.500", "+-", "0.141", "4.000", "+-", "0.000", "-", "-"]
    assert lines[3][44:].split() == ["0.800", "+-", "0.141", "1.500", "+-", "0.707", "0.50", "3.5"]


def test_compare_shows_every_start_where_the_runs_measured_it_otherwise(tmp_path):
    fine = write_run(tmp_path / "fine", planar(ncc={"before": 0.6, "after": 0.5}))
    coarse = write_run(tmp_path / "coarse", planar(ncc={"before": 0.7, "after": 0.8}))
    lines = compare([fine, coarse]).splitlines()
    assert [(line[:44].strip(), line[44:].split()[1]) for line in lines[1:5]] == [
        ("not registered (fine)", "0.600"),
        ("after 5 steps (fine)", "0.500"),
        ("not registered (coarse)", "0.700"),
        ("after 5 steps (coarse)", "0.800"),
    ]
    assert lines[5:] == ["the runs have other grids, alignments or labels: compare each with its own start"]


def test_compare_leaves_out_what_one_run_lost(tmp_path):
    kept = {"dsc": {"0": {"before": 0.4, "after": 0.8}, "1": {"before": 0.2, "after": 0.3}}}
    lost = {"dsc": {"0": {"before": 0.4, "after": 0.7}, "1": {"before": 0.2, "after": None}}}
    runs = [write_run(tmp_path / name, metrics("a") | dsc) for name, dsc in (("kept", kept), ("lost", lost))]
    lines = compare(runs).splitlines()
    assert [line[44:].split()[0] for line in lines[1:4]] == ["0.400", "0.800", "0.700"]
    assert lines[4:] == ["DSC leaves out structure 1 of 1 pair in every row, because one of the runs lost it there"]


def test_compare_tells_runs_apart_by_their_folders(tmp_path, monkeypatch):
    runs = [write_run(tmp_path / name / "results", metrics("a")) for name in ("one", "two")]
    assert [line.split(")")[0] for line in compare(runs).splitlines()[2:]] == [
        "after 5 steps (one/results",
        "after 5 steps (two/results",
    ]
    monkeypatch.chdir(runs[0])
    assert "after 5 steps (results)" in compare(["."])
    assert compare([".", runs[0]]).count("after 5 steps (results)") == 2


def test_compare_works_for_one_pair_and_without_labels(tmp_path):
    bare = {key: value for key, value in metrics().items() if key not in ("dsc", "tre_rms_mm")}
    lines = compare([write_run(tmp_path / "run", bare)]).splitlines()
    assert lines[2][44:].split() == ["-", "0.50", "3.5"]
    (tmp_path / "run/a").rename(tmp_path / "older")
    lines = compare([write_run(tmp_path / "run", metrics("a", dsc=(0.4, 0.7)))]).splitlines()
    assert lines[2][44:].split()[:2] == ["0.700", "2.000"]  # one pair has no spread


def test_compare_refuses_folders_without_results(tmp_path):
    with pytest.raises(ValueError, match=r"holds no results \(no \*/metrics.json\); run inference into it first"):
        compare([tmp_path])


def test_compare_refuses_different_pairs(tmp_path):
    one, two = write_run(tmp_path / "1", metrics("a")), write_run(tmp_path / "2", metrics("b"))
    with pytest.raises(ValueError, match="do not hold the same pairs"):
        compare([one, two])


def test_compare_leaves_out_pairs_of_an_earlier_run_over_another_list(tmp_path):
    folder = write_run(tmp_path / "run", metrics("a"), metrics("b", dsc=(0.0, 0.0)), metrics("c", dsc=(0.0, 0.0)))
    rows = [metrics_row(metrics("a")), {"pair_id": "c", "status": "failed", "error": "damaged"}]
    write_table(rows, table_columns(rows), folder / "metrics.csv")
    assert compare([folder]).splitlines()[2].split()[4] == "0.800"
    write_table(rows[1:], table_columns(rows), folder / "metrics.csv")
    with pytest.raises(ValueError, match=r"run holds no results, every pair failed \(damaged\)"):
        compare([folder])


def test_compare_leaves_out_what_an_interrupted_run_was_writing(tmp_path):
    folder = write_run(tmp_path / "run", metrics("a"))
    (folder / ".b.partial").mkdir()
    (folder / ".b.partial" / "metrics.json").write_text(json.dumps(metrics("b", dsc=(0.0, 0.0))))
    assert compare([folder]).splitlines()[2].split()[4] == "0.800"


def pictured(grid, **changes):
    images = {
        f"{name}_image": MetaTensor(torch.as_tensor(grid.smooth_image())[None], affine=grid.affine)
        for name in ("native_fixed", "native_moving", "aligned", "warped")
    }
    displacement = torch.as_tensor(grid.world()).float()
    start = {"initial_alignment": np.eye(4)}
    return PairPictured()({**images, **start, "displacement": displacement} | changes)["picture"]


def test_picture_is_a_png_that_shows_the_labels(fixed_grid):
    plain = Image.open(io.BytesIO(pictured(fixed_grid)))
    assert plain.format == "PNG"
    assert plain.size[0] > plain.size[1] > 300
    label = torch.as_tensor(fixed_grid.ball(fixed_grid.centre, 5))[None].float()
    labels = {key: label for key in ("native_fixed_label", "aligned_label", "warped_label")}
    outlined = np.asarray(Image.open(io.BytesIO(pictured(fixed_grid, **labels))).convert("RGB")).astype(int)
    bare = np.asarray(plain.convert("RGB")).astype(int)
    lime = (outlined[..., 1] > 200) & (outlined[..., 0] < 60) & (outlined[..., 2] < 60)
    assert lime.sum() > 100
    assert not ((bare[..., 1] > 200) & (bare[..., 0] < 60) & (bare[..., 2] < 60)).any()


def test_picture_is_radiological_whatever_the_order_of_the_voxels(fixed_grid):
    """Voxels stored from left to right and from right to left are one anatomy, and one picture."""
    turns = [(), (1,), (1, 3)]
    pictures = []
    for axes in turns:
        flipped = np.diag([-1.0 if axis + 1 in axes else 1.0 for axis in range(3)] + [1.0])
        flipped[:3, 3] = [size - 1 if axis + 1 in axes else 0 for axis, size in enumerate(fixed_grid.shape)]
        affine = fixed_grid.affine @ flipped
        anatomy = torch.as_tensor(fixed_grid.smooth_image())[None].flip(axes)
        images = {
            f"{name}_image": MetaTensor(anatomy, affine=affine)
            for name in ("native_fixed", "native_moving", "aligned", "warped")
        }
        displacement = torch.as_tensor(fixed_grid.world()).float().flip(axes) / 9
        pictures.append(np.asarray(Image.open(io.BytesIO(pictured(fixed_grid, **images, displacement=displacement)))))
    for other in pictures[1:]:
        assert np.abs(pictures[0].astype(int) - other).max() <= 2


def test_slice_of_interest_has_most_of_the_label():
    label = np.zeros((9, 10, 11), dtype=bool)
    label[4, 2:8, 3] = True
    label[5, 2:5, 3:8] = True
    assert [slice_of_interest(label, label.shape, axis) for axis in range(3)] == [5, 2, 3]
    assert slice_of_interest(None, (9, 10, 12), 2) == 6
    assert slice_of_interest(np.zeros((9, 10, 11)), (9, 10, 11), 1) == 5
