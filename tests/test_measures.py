"""The registry of measures: what is in it is in every table and on every page, and nowhere else is a list of them."""

import csv
import json

import pytest

from bundle.evaluation.measures import MEASURES, Measure
from bundle.evaluation.table import headline, metrics_row, table_columns
from bundle.experiment.report import write_report
from bundle.experiment.runs import Evaluation
from bundle.pages.page import numbers

NEW = Measure("bending_mm", "bending", "mm", 1, "bending_{}_mm", per_structure=True)
PAIR = {
    "pair_id": "a",
    "steps": 5,
    "device": "cpu",
    "loss": [3.0, 1.0],
    "folded_percent": 0.5,
    "seconds": {"preprocessing": 1.0, "registration": 2.5},
    "bending_mm": {
        "1": {"before": 8.0, "after": 2.0},
        "2": {"before": 4.0, "after": 1.0},
        "3": {"before": 6.0, "after": None},
    },
}


@pytest.fixture
def added(monkeypatch):
    monkeypatch.setitem(MEASURES, NEW.key, NEW)


def test_a_new_measure_is_in_the_table_on_the_page_and_in_the_experiment(added, tmp_path):
    row = metrics_row(PAIR)
    # Structure 3 is lost: its absence must not improve the mean.
    assert (row["bending_before_mm"], row["bending_after_mm"]) == (6.0, 1.5)
    assert {"bending_before_mm", "bending_after_mm"} < set(table_columns([row]))
    both, _ = numbers(PAIR, "px")
    assert ["bending of structure 1 (px)", "8.0", "2.0"] in both
    assert ["bending of structure 3 (px)", "6.0", "–"] in both
    for name, after in (("a", 2.0), ("b", 4.0)):
        (tmp_path / name / "a").mkdir(parents=True)
        found = {**PAIR, "bending_mm": {"1": {"before": 8.0, "after": after}}}
        (tmp_path / name / "a" / "metrics.json").write_text(json.dumps(found))
    runs = {name: tmp_path / name for name in "ab"}
    page = write_report(tmp_path / "report", [Evaluation("E", runs, "a", measures=[MEASURES["bending_mm"]])], "T")
    assert "<th>bending (mm)</th>" in page.read_text()
    assert (tmp_path / "report/figure_2_bending_e.png").exists()
    with (tmp_path / "report/table_e.csv").open() as file:
        assert [row["bending_mm_mean"] for row in csv.DictReader(file)] == ["8.0", "2.0", "4.0"]
    with (tmp_path / "report/tests_e.csv").open() as file:
        assert [(row["compared_with"], row["difference"]) for row in csv.DictReader(file)] == [
            ("not registered", "-6.0"),
            ("b", "-2.0"),
        ]


def test_without_it_nothing_is_said_of_it():
    assert "bending" not in headline(metrics_row(PAIR)) + str(metrics_row(PAIR)) + str(numbers(PAIR, "mm"))


def test_columns_and_keys_are_each_of_one_measure():
    columns = [column for measure in MEASURES.values() for column in measure.columns.values()]
    assert len(set(columns)) == len(columns)
    assert all(measure.key == key for key, measure in MEASURES.items())


def test_worse_is_more_of_a_distance_and_less_of_a_score():
    metrics = {"dsc": {"1": {"before": 0.75, "after": 0.5}}, "tre_rms_mm": {"before": 2.0, "after": 5.0}}
    assert (MEASURES["dsc"].worsening(metrics), MEASURES["tre_mm"].worsening(metrics)) == (0.25, 3.0)
    assert MEASURES["dsc"].worsening({}) is None
