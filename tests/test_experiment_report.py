"""The report of an experiment: its numbers, tests and example, and a page that needs nothing but its folder."""

import json
import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from scipy import stats
from toys import Grid, csv_rows, oblique_affine

from bundle.data import write_datalist
from bundle.evaluation.measures import HD95, MEASURES
from bundle.evaluation.table import metrics_row, table_columns, write_table
from bundle.experiment.figures import experiment_figures
from bundle.experiment.report import write_report
from bundle.experiment.results import median_pair, read_evaluation
from bundle.experiment.runs import Curves, Evaluation
from bundle.formats import nifti
from bundle.results import SavePaird

GRID = Grid(oblique_affine((1.5, 1.0, 2.0), (5, -4, 8), (-9.0, 3.0, 12.0)), (12, 10, 8))
PAIRS = [f"P{number:02d}" for number in range(8)]
# Before registration, and after it by each method; TRE is 10 x (1 - DSC) mm.
BEFORE = np.linspace(0.40, 0.54, 8)
GAIN = {
    "LocalNet": np.array([0.05, 0.02, 0.06, 0.01, 0.03, -0.01, 0.04, 0.02]),
    "Meta <5 & steps>": np.array([0.10, 0.14, 0.04, 0.12, 0.08, 0.20, 0.02, 0.06]),
}
LOCAL, META = GAIN
START = "not registered"


def metrics(pair, dsc, /, steps=5, **changes):
    """Metrics of a pair from its DSC before and after."""
    before, after = map(float, dsc)

    def both(scale):
        return {"before": scale * (1 - before), "after": scale * (1 - after)}

    found = {
        "pair_id": pair,
        "steps": steps,
        "device": "cpu",
        "initial_alignment_mm": np.eye(4).tolist(),
        "loss": [1.0 - before, 1.0 - after],
        "adaptation": {"best_loss": 1.0 - after, "loss_identity": 1.0 - before},
        "folded_percent": 0.25,
        "log_jacobian_sd": 0.125,
        "dsc": {"0": {"before": before, "after": after}},
        "hd95_mm": {"0": both(20)},
        "tre_rms_mm": both(10),
        "seconds": {"preprocessing": 1.0, "registration": 0.5 + int(pair[1:])},
        "seconds_per_step": 0.2,
    }
    return {key: value for key, value in {**found, **changes}.items() if value is not None}


def write_run(folder, found, failed=()):
    """What inference leaves: a folder per pair, and the table with the pairs that failed."""
    for result in found:
        (folder / result["pair_id"]).mkdir(parents=True)
        (folder / result["pair_id"] / "metrics.json").write_text(json.dumps(result))
    errors = [{"pair_id": pair, "status": "failed", "error": "cannot be read"} for pair in failed]
    rows = [*map(metrics_row, found), *errors]
    write_table(rows, table_columns(rows), folder / "metrics.csv")
    return folder


def write_method(folder, name, pairs=PAIRS, failed=(), **changes):
    """Run of a method on some of the pairs."""
    numbers = [PAIRS.index(pair) for pair in pairs]
    found = [metrics(PAIRS[k], (BEFORE[k], BEFORE[k] + GAIN[name][k]), **changes) for k in numbers]
    return write_run(folder, found, failed)


@pytest.fixture
def runs(tmp_path):
    """Folder of each method's run, without images."""
    return {name: write_method(tmp_path / f"runs/{number}", name) for number, name in enumerate(GAIN)}


def report(folder, *evaluations, **changes):
    """The page."""
    return write_report(folder, evaluations, "Title", **changes).read_text(encoding="utf-8")


def test_table_has_not_registered_first_and_the_numbers_of_every_method(runs, tmp_path):
    report(tmp_path / "report", Evaluation("Between patients", runs, META))
    rows = csv_rows(tmp_path / "report/table_between_patients.csv")
    assert [(row["method"], row["n"]) for row in rows] == [(START, "8"), (LOCAL, "8"), (META, "8")]
    for row, values in zip(rows, (BEFORE, BEFORE + GAIN[LOCAL], BEFORE + GAIN[META]), strict=True):
        for key, expected in (("dsc", values), ("tre_mm", 10 - 10 * values), ("hd95_mm", 20 - 20 * values)):
            assert float(row[f"{key}_mean"]) == pytest.approx(expected.mean())
            assert float(row[f"{key}_sd"]) == pytest.approx(expected.std(ddof=1))
            half = 2.3646 * expected.std(ddof=1) / np.sqrt(8)  # 97.5 % of Student's t with 7 degrees of freedom
            assert float(row[f"{key}_low"]) == pytest.approx(expected.mean() - half, rel=1e-4)
            assert float(row[f"{key}_high"]) == pytest.approx(expected.mean() + half, rel=1e-4)
    assert [row["device"] for row in rows] == ["", "cpu", "cpu"]
    # Seconds to register are 0.5 to 7.5, with the preprocessing 1.5 to 8.5.
    assert [rows[2][name] for name in ("seconds_median", "seconds_registration_median")] == ["5.0", "4.0"]
    assert [rows[2][f"{name}"] for name in ("folded_percent_mean", "log_jacobian_sd_mean")] == ["0.25", "0.125"]
    assert {rows[0][name] for name in rows[0] if name.startswith(("folded", "seconds"))} == {""}


def test_a_measure_that_only_a_registration_has_is_absent_before_it(runs, tmp_path):
    for number, name in enumerate(GAIN):
        write_method(tmp_path / f"asked/{number}", name, self_displacement_mm={"mean": 1.0 + number, "max": 4.0})
    asked = {name: tmp_path / f"asked/{number}" for number, name in enumerate(GAIN)}
    measures = (MEASURES["self_displacement_mm"], MEASURES["dsc"])
    page = report(tmp_path / "report", Evaluation("On itself", asked, META, measures=measures))
    rows = csv_rows(tmp_path / "report/table_on_itself.csv")
    assert [row["self_displacement_mm_n"] for row in rows] == ["0", "8", "8"]
    assert [row["self_displacement_mm_mean"] for row in rows] == ["", *(f"{1.0 + list(GAIN).index(n)}" for n in asked)]
    assert "mean displacement on itself (mm)" in page
    tests = csv_rows(tmp_path / "report/tests_on_itself.csv")
    compared = [(row["measure"], row["compared_with"]) for row in tests]
    assert compared == [("self_displacement_mm", LOCAL), ("dsc", START), ("dsc", LOCAL)]


def test_tests_agree_with_scipy(runs, tmp_path):
    page = report(tmp_path / "report", Evaluation("Repeat scans", runs, META))
    rows = csv_rows(tmp_path / "report/tests_repeat_scans.csv")
    assert [(row["measure"], row["compared_with"]) for row in rows] == [
        (measure, other) for measure in ("dsc", "tre_mm", "hd95_mm") for other in (START, LOCAL)
    ]
    ours, theirs = BEFORE + GAIN[META], BEFORE + GAIN[LOCAL]
    for row, (a, b) in zip(rows[:4], ((ours, BEFORE), (ours, theirs), (-ours, -BEFORE), (-ours, -theirs)), strict=True):
        scale = 1 if row["measure"] == "dsc" else 10
        assert row["method"] == META
        assert float(row["difference"]) == pytest.approx(scale * (a - b).mean())
        assert float(row["t_p"]) == pytest.approx(stats.ttest_rel(a, b).pvalue)
        assert float(row["wilcoxon_p"]) == pytest.approx(stats.wilcoxon(np.round(a - b, 9)).pvalue)
        assert (row["n"], row["significant"]) == ("8", "True")
    # LocalNet gains more on P02 and P06.
    assert [row["improved"] for row in rows] == ["8", "6"] * 3
    p = stats.ttest_rel(ours, theirs).pvalue
    assert f"DSC better than LocalNet on 6 of 8 pairs, p = {p:.3f}<" in page
    assert "TRE better than not registered on 8 of 8 pairs" in page
    assert "significantly better" in page


def test_a_worse_reference_is_called_worse(runs, tmp_path):
    path = write_report(tmp_path / "report", [Evaluation("E", runs, LOCAL)], "Title")
    page = path.read_text(encoding="utf-8")
    assert "DSC better than Meta &lt;5 &amp; steps&gt; on 2 of 8 pairs" in page
    assert "significantly worse" in page


def test_pairs_are_listed_with_every_column(runs, tmp_path):
    report(tmp_path / "report", Evaluation("E", runs, META))
    rows = csv_rows(tmp_path / "report/pairs_e.csv")
    assert [(row["pair_id"], row["method"]) for row in rows] == [(pair, name) for pair in PAIRS for name in GAIN]
    assert list(rows[0])[:2] == ["pair_id", "method"]
    assert rows[0].keys() > {*metrics_row(metrics("P00", (0, 0))), "steps", "device"}
    assert float(rows[1]["dsc_after"]) == pytest.approx(0.5)


def test_a_failed_pair_is_reported_and_left_out_of_its_method_only(runs, tmp_path):
    # The failed pair has results of an older run, which count no more.
    runs[LOCAL] = write_method(tmp_path / "failing", LOCAL, failed=["P01"])
    page = report(tmp_path / "report", Evaluation("E", runs, META, Curves({"random": {5: runs[LOCAL]}})))
    table, tests = csv_rows(tmp_path / "report/table_e.csv"), csv_rows(tmp_path / "report/tests_e.csv")
    assert [row["n"] for row in table] == ["8", "7", "8"]
    kept = [k for k in range(8) if k != 1]
    assert float(table[1]["dsc_mean"]) == pytest.approx((BEFORE + GAIN[LOCAL])[kept].mean())
    assert [row["n"] for row in tests[:2]] == ["8", "7"]
    assert float(tests[1]["t_p"]) == pytest.approx(stats.ttest_rel(GAIN[META][kept], GAIN[LOCAL][kept]).pvalue)
    assert "LocalNet failed on P01: cannot be read" in page
    assert "random, 5 steps failed on P01: cannot be read" in page
    failed = [row for row in csv_rows(tmp_path / "report/pairs_e.csv") if row["status"] == "failed"]
    assert [(row["pair_id"], row["method"], row["error"]) for row in failed] == [("P01", LOCAL, "cannot be read")]


def test_a_method_that_starts_elsewhere_is_named(runs, tmp_path):
    """With an alignment of its own, the row of the pairs before registration, the reference's, stood for it too."""
    elsewhere = "is that of Meta &lt;5 &amp; steps&gt;, not of By headers, whose pairs were measured otherwise before"
    assert elsewhere not in report(tmp_path / "alike", Evaluation("Alike", runs, META))
    numbers = zip(PAIRS, BEFORE, GAIN[LOCAL], strict=True)
    other = write_run(tmp_path / "other", [metrics(pair, (dsc - 0.1, dsc + gain)) for pair, dsc, gain in numbers])
    page = report(tmp_path / "report", Evaluation("Other", {**runs, "By headers": other}, META))
    assert elsewhere in page
    assert float(csv_rows(tmp_path / "report/table_other.csv")[0]["dsc_mean"]) == pytest.approx(BEFORE.mean())


def test_a_curve_is_of_the_same_pairs_at_every_point(runs, tmp_path):
    failing = write_method(tmp_path / "failing", LOCAL, failed=["P01"])
    curves = Curves({"meta": {0: runs[LOCAL], 5: runs[META]}, "other": {5: failing}}, level=META)
    figure, caption = experiment_figures(read_evaluation(Evaluation("E", runs, META, curves)))["steps"]
    kept = [k for k in range(8) if k != 1]
    means = {name: (BEFORE + gain)[kept].mean() for name, gain in GAIN.items()}
    drawn = [line.get_ydata().tolist() for line in figure.axes[0].lines]
    assert drawn == [pytest.approx([means[LOCAL], means[META]]), pytest.approx([means[LOCAL]]), [means[META]] * 2]
    assert "a pair that has no value at one point counts at none" in caption


def test_a_structure_that_one_method_loses_is_in_no_row(tmp_path):
    """Its distance would be missing in that method's mean alone, which would look the better for it."""
    near, far = {"before": 8.0, "after": 4.0}, {"before": 20.0, "after": 16.0}
    lost = {"before": 20.0, "after": None}
    runs = {
        name: write_run(
            tmp_path / name,
            [
                metrics("P0", (0.4, 0.5), hd95_mm={"1": near, "2": second}),
                metrics("P1", (0.4, 0.5), hd95_mm={"1": far}),
            ],
        )
        for name, second in (("keeps", far), ("loses", lost))
    }
    curves = Curves({"start": {1: runs["keeps"]}})
    page = report(tmp_path / "report", Evaluation("E", runs, "keeps", curves, measures=(HD95,)))
    table = csv_rows(tmp_path / "report/table_e.csv")
    assert [(row["method"], float(row["hd95_mm_mean"])) for row in table] == [(START, 14), ("keeps", 10), ("loses", 10)]
    pairs = csv_rows(tmp_path / "report/pairs_e.csv")
    assert [row["hd95_after_mm"] for row in pairs] == ["4.0", "4.0", "16.0", "16.0"]
    assert "HD95 leaves out structure 2 of 1 pair in every row, because one of the runs lost it there" in page


def test_a_pair_whose_only_structure_one_method_loses_counts_for_none(tmp_path):
    runs = {
        name: write_run(
            tmp_path / name,
            [metrics("P0", (0.4, 0.5), hd95_mm={"1": {"before": 8.0, "after": after}}), metrics("P1", (0.4, 0.5))],
        )
        for name, after in (("keeps", 4.0), ("loses", None))
    }
    report(tmp_path / "report", Evaluation("E", runs, "keeps"))
    rows = csv_rows(tmp_path / "report/table_e.csv")
    assert [(row["n"], row["hd95_mm_n"], row["dsc_n"]) for row in rows] == [("2", "1", "2")] * 3


def test_a_run_that_was_not_measured_takes_nothing_from_the_others(tmp_path):
    runs = {
        name: write_run(tmp_path / name, [metrics("P0", (0.4, 0.5), hd95_mm=found)])
        for name, found in (("measured", {"1": {"before": 8.0, "after": 4.0}}), ("older", None))
    }
    page = report(tmp_path / "report", Evaluation("E", runs, "measured"))
    assert [row["hd95_mm_mean"] for row in csv_rows(tmp_path / "report/table_e.csv")] == ["8.0", "4.0", ""]
    assert "in every row" not in page


def test_a_pair_without_a_measure_has_an_empty_cell(tmp_path):
    found = [metrics("P00", (0.4, 0.5)), metrics("P01", (0.4, 0.7), dsc=None), metrics("P02", (0.4, 0.6))]
    page = report(tmp_path / "report", Evaluation("E", {META: write_run(tmp_path / "run", found)}, META))
    row = csv_rows(tmp_path / "report/table_e.csv")[1]
    assert (row["n"], row["dsc_n"], row["tre_mm_n"]) == ("3", "2", "3")
    assert float(row["dsc_mean"]) == pytest.approx(0.55)
    assert csv_rows(tmp_path / "report/pairs_e.csv")[1]["dsc_after"] == ""
    assert "] (n = 2)<" in page


def test_runs_without_labels_have_no_accuracy(tmp_path):
    bare = [metrics(pair, (0.4, 0.5), dsc=None, tre_rms_mm=None, hd95_mm=None) for pair in PAIRS]
    run = write_run(tmp_path / "run", bare)
    page = report(tmp_path / "report", Evaluation("E", {META: run}, META, Curves({"meta": {0: run, 5: run}})))
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "pairs_e.csv",
        "report.html",
        "steps_e.pdf",
        "steps_e.png",
        "table_e.csv",
        "tests_e.csv",
    ]
    assert "DSC" not in page
    assert [row["seconds_median"] for row in csv_rows(tmp_path / "report/table_e.csv")] == ["", "5.0"]


def test_one_pair_is_enough(tmp_path):
    run = write_run(tmp_path / "run", [metrics("P00", (0.4, 0.5), seconds_per_step=None, log_jacobian_sd=None)])
    page = report(tmp_path / "report", Evaluation("E", {META: run}, META))
    row = csv_rows(tmp_path / "report/table_e.csv")[1]
    assert (row["dsc_sd"], row["seconds_per_step_median"]) == ("", "")
    assert csv_rows(tmp_path / "report/tests_e.csv")[0]["t_p"] == ""
    assert "time per step" not in page
    assert "nan" not in re.sub('base64,[^"]*', "", page)


def test_the_example_is_the_pair_of_the_median_improvement(runs, tmp_path):
    # Sorted gains are .02 .04 .06 .08 | .10 ...: of the two in the middle the lower one, P04.
    assert median_pair(read_evaluation(Evaluation("E", runs, META)))[0] == "P04"
    odd = {name: write_method(tmp_path / f"odd/{name[0]}", name, PAIRS[:7]) for name in GAIN}
    # .02 .04 .08 [.10] .12 .14 .20
    pair, measure = median_pair(read_evaluation(Evaluation("E", odd, META)))
    assert (pair, measure.key) == ("P00", "dsc")
    # TRE falls as DSC rises, so the order is the same.
    bare = {META: write_method(tmp_path / "bare", META, PAIRS[:7], dsc=None)}
    pair, measure = median_pair(read_evaluation(Evaluation("E", bare, META)))
    assert (pair, measure.key) == ("P00", "tre_mm")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Two methods on a tiny data set, with images, and curves over the steps."""
    root = tmp_path_factory.mktemp("experiment")
    saved = {"image": GRID.smooth_image(), "label": GRID.ball(GRID.centre, 4)}
    volumes = {kind: MetaTensor(torch.as_tensor(array)[None], affine=GRID.affine) for kind, array in saved.items()}
    listed = []
    for pair in PAIRS:
        files = {
            f"{side}_{kind}": root / f"data/{pair}/{side}_{kind}.nii.gz"
            for side in ("fixed", "moving")
            for kind in saved
        }
        for name, path in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nifti(volumes[name.split("_")[1]][0].numpy(), GRID.affine), path)
        listed.append({"pair_id": pair, **{name: str(path) for name, path in files.items()}, "patient": [pair]})
    for number, name in enumerate(GAIN):
        folder = root / f"runs/{number}"
        write_datalist(folder / "datalist.json", {"test": listed}, root / "data")
        for k, pair in enumerate(PAIRS):
            SavePaird(folder)(
                {
                    "pair_id": pair,
                    "native_fixed_image": volumes["image"],
                    "warped_image": volumes["image"],
                    "warped_label": volumes["label"],
                    "displacement": MetaTensor(0.02 * torch.as_tensor(GRID.world()), affine=GRID.affine),
                    "metrics": metrics(pair, (BEFORE[k], BEFORE[k] + GAIN[name][k])),
                }
            )
    curves = {
        start: {
            steps: write_run(
                root / f"{start}/{steps}",
                [
                    metrics(pair, (BEFORE[k], BEFORE[k] + slope * np.log1p(steps)), steps)
                    for k, pair in enumerate(PAIRS)
                ],
            )
            for steps in (0, 1, 5, 20)
        }
        for start, slope in (("meta-learned", 0.1), ("random", 0.03))
    }
    runs = {name: root / f"runs/{number}" for number, name in enumerate(GAIN)}
    return Evaluation("Between <patients>", runs, META, Curves(curves), dataset_dir=root / "data")


STEMS = [f"{name}_between_patients" for name in ("figure_2_dsc", "figure_3_tre", "figure_4_slices", "steps")]
TABLES = [f"{name}_between_patients.csv" for name in ("pairs", "table", "tests")]


def test_the_page_needs_its_folder_alone(experiment, tmp_path):
    page = report(tmp_path, experiment, notes=["Simulated & <small>."])
    expected = ["report.html", *TABLES, *(f"{stem}.{suffix}" for stem in STEMS for suffix in ("pdf", "png"))]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)
    sources = re.findall(r'src="([^"]*)"', page)
    # Beside the page, once: the folder is moved as one.
    assert sources == [f"{stem}.png" for stem in STEMS]
    for source in sources:
        with Image.open(tmp_path / source) as image:
            assert image.size[0] > 500
            assert image.mode == "P"
    links = re.findall(r'href="([^"]*)"', page)
    assert sorted(links) == sorted(TABLES)
    assert "base64" not in page
    assert not re.search(r"http|<script|<link|@import|url\(", page)


def test_the_page_is_escaped(experiment, tmp_path):
    page = report(tmp_path, experiment, notes=["Simulated & <small>."])
    assert "<p>Simulated &amp; &lt;small&gt;.</p>" in page
    assert "<h2>Between &lt;patients&gt;</h2>" in page
    assert '<tr class="reference"><th>Meta &lt;5 &amp; steps&gt;</th><td>8</td>' in page
    assert page.count('class="reference"') == 1
    assert not re.search("<5|<patients|<small", page)


def test_the_example_says_how_it_was_picked(experiment, tmp_path):
    page = report(tmp_path, experiment)
    assert re.search("Axial slices of P04, picked by rule.* from 0.480 to 0.560, is the median of all pairs", page)


def test_a_method_that_failed_on_the_example_is_not_shown_with_it(experiment, tmp_path):
    failing = write_method(tmp_path / "failing", LOCAL, [pair for pair in PAIRS if pair != "P04"], ["P04"])
    runs = {"failing": failing, META: experiment.runs[META]}
    page = report(tmp_path / "report", Evaluation("E", runs, META, dataset_dir=experiment.dataset_dir))
    assert "Figure 4" in page
    assert "failing failed on P04: cannot be read" in page


def test_images_that_nobody_says_the_place_of_have_no_slices(experiment, tmp_path):
    assert "Figure 4" not in report(tmp_path, replace(experiment, dataset_dir=None))


def test_the_same_runs_give_the_same_bytes(experiment, tmp_path):
    for name in ("first", "second"):
        report(tmp_path / name, experiment)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


def test_a_folder_without_results_is_refused(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no results \(no \*/metrics.json\)"):
        report(tmp_path / "report", Evaluation("E", {**runs, "other": tmp_path / "empty"}, META))
    assert not (tmp_path / "report").exists()


def test_pairs_of_an_earlier_run_over_a_longer_list_do_not_count(runs, tmp_path):
    report(tmp_path / "before", Evaluation("Between patients", runs, META))
    for folder in runs.values():
        (folder / "p9").mkdir()
        (folder / "p9/metrics.json").write_text(json.dumps(metrics("p9", (0.0, 1.0))))
    report(tmp_path / "after", Evaluation("Between patients", runs, META))
    table = "table_between_patients.csv"
    assert csv_rows(tmp_path / "after" / table) == csv_rows(tmp_path / "before" / table)


def test_a_run_in_which_every_pair_failed_is_refused(runs, tmp_path):
    failed = write_method(tmp_path / "failed", LOCAL, failed=PAIRS)
    with pytest.raises(ValueError, match=r"failed holds no results, every pair failed \(cannot be read\)"):
        report(tmp_path / "report", Evaluation("E", {**runs, "other": failed}, META))


def test_runs_over_different_pairs_are_refused(runs, tmp_path):
    fewer = write_method(tmp_path / "fewer", LOCAL, PAIRS[:7])
    message = r"E: the run 'fewer' does not hold the same pairs as 'Meta <5 & steps>' \(P07 is in only one of them\)"
    with pytest.raises(ValueError, match=message):
        report(tmp_path / "report", Evaluation("E", {**runs, "fewer": fewer}, META))
    with pytest.raises(ValueError, match="the run 'random, 5 steps' does not hold the same pairs"):
        report(tmp_path / "report", Evaluation("E", runs, META, Curves({"random": {5: fewer}})))


def test_titles_that_write_the_same_files_are_refused(runs, tmp_path):
    with pytest.raises(ValueError, match="titles of evaluations become names of files, here .*'e_1', 'e_1'"):
        report(tmp_path / "report", Evaluation("E 1", runs, META), Evaluation("e-1!", runs, META))
