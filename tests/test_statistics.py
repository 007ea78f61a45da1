"""Summaries and paired tests of small samples whose answers have a closed form."""

import math
import warnings

import numpy as np
import pytest

from bundle.experiment.statistics import Summary, compare_paired, summarise


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def paired(differences, reference=0.5, **options):
    """Test of values that differ from a reference by known amounts."""
    reference = np.full(len(differences), reference)
    return compare_paired(reference + differences, reference, **{"higher_is_better": True} | options)


def test_summary_of_the_finite_values():
    summary = summarise([1.0, None, 2.0, math.nan, 6.0, math.inf])
    assert (summary.n, summary.mean, summary.median) == (3, 3.0, 2.0)
    # n - 1: (4 + 1 + 9) / 2
    assert summary.sd == pytest.approx(math.sqrt(7))
    assert 1 <= summary.low < 3 < summary.high <= 6


def test_interval_of_two_values_is_between_them():
    # A quarter of the resamples holds the first value only and a quarter the second only.
    assert summarise([0.0, 1.0]) == Summary(2, 0.5, math.sqrt(0.5), 0.5, 0.0, 1.0)


def test_interval_of_many_values_is_the_normal_one():
    values = np.random.default_rng(0).normal(20, 3, 400)
    error = values.std() / math.sqrt(400)
    for level, quantile in ((0.95, 1.960), (0.5, 0.6745)):
        summary = summarise(values, level=level)
        # The ends are quantiles of 9999 resamples, known to about 2 % of the standard error.
        assert summary.high - summary.mean == pytest.approx(quantile * error, abs=0.1 * error)
        assert summary.mean - summary.low == pytest.approx(quantile * error, abs=0.1 * error)


def test_interval_of_skewed_values_reaches_further_to_the_long_side():
    summary = summarise(np.random.default_rng(0).exponential(1.0, 30))
    assert summary.high - summary.mean > 1.2 * (summary.mean - summary.low)


def test_the_seed_decides_the_interval():
    values = np.random.default_rng(1).random(15)
    assert summarise(values, seed=3) == summarise(values, seed=3)
    assert summarise(values, seed=3).low != summarise(values, seed=4).low


@pytest.mark.parametrize("values", [[0.1, 0.1, 0.1], [0.1 + 0.2, 0.3, 0.3], [0.0, 0.0]])
def test_equal_values_have_no_spread(values):
    summary = summarise(values)
    assert summary.sd == pytest.approx(0, abs=1e-15)
    assert summary.low == summary.high == summary.mean == pytest.approx(values[0])


def test_one_value_has_a_mean_and_none_has_nothing():
    one = summarise([2.5, math.nan])
    assert (one.n, one.mean, one.median, one.low, one.high) == (1, 2.5, 2.5, 2.5, 2.5)
    assert math.isnan(one.sd)
    none = summarise([])
    assert none.n == 0
    assert np.isnan([none.mean, none.sd, none.median, none.low, none.high]).all()


def test_t_test_of_three_pairs():
    # d = 1, 2, 3: t = 2 / (1 / sqrt(3)); with two degrees of freedom p = 1 - t / sqrt(t^2 + 2).
    test = paired([1.0, 2.0, 3.0])
    t = 2 * math.sqrt(3)
    assert test.t_p == pytest.approx(1 - t / math.sqrt(t**2 + 2))
    assert (test.n, test.difference, test.improved) == (3, 2.0, 3)
    assert 1 <= test.low < 2 < test.high <= 3


@pytest.mark.parametrize(
    "differences, p",
    [
        ([1.0, 2, 3, 4, 5], 2 / 32),  # one of 32 assignments of signs has no negative rank
        ([-1.0, 2, 3, 4, 5], 4 / 32),  # two have a negative rank sum of 1 or less
        ([-1.0, -2, -3, -4], 2 / 16),
        ([0.0, 1, 2, 3, 4, 5], 2 / 32),  # a difference of 0 has no sign and is left out
    ],
)
def test_wilcoxon_counts_the_assignments_of_signs(differences, p):
    assert paired(differences).wilcoxon_p == pytest.approx(p)


def test_better_is_higher_for_overlap_and_lower_for_distance():
    differences = [-0.25, -0.5, -0.125, 0.25, 0.0]
    assert paired(differences).improved == 1
    lower = paired(differences, higher_is_better=False)
    assert (lower.n, lower.improved) == (5, 3)
    assert lower.difference == pytest.approx(-0.125)


def test_pairs_without_either_value_are_left_out():
    test = compare_paired(
        [2.0, None, 4.0, math.inf, 7.0], [1.0, 1.0, math.nan, 1.0, 4.0], higher_is_better=True, seed=5
    )
    assert test == compare_paired([2.0, 7.0], [1.0, 4.0], higher_is_better=True, seed=5)
    assert (test.n, test.difference, test.low, test.high) == (2, 2.0, 1.0, 3.0)


def test_the_seed_decides_the_interval_of_the_difference():
    differences = np.random.default_rng(1).random(15)
    assert paired(differences, seed=3) == paired(differences, seed=3)
    assert paired(differences, seed=3).low != paired(differences, seed=4).low


def test_identical_methods_cannot_be_told_apart():
    test = paired([0.0, 0.0, 0.0, 0.0])
    assert (test.n, test.difference, test.low, test.high, test.improved) == (4, 0, 0, 0, 0)
    assert np.isnan([test.t_p, test.wilcoxon_p]).all()


def test_a_constant_difference_has_ranks_but_no_t():
    values = np.array([0.3, 0.7, 1.1, 1.9, 2.3])
    test = compare_paired(values + 0.1, values, higher_is_better=True)
    assert test.difference == pytest.approx(0.1)
    assert math.isnan(test.t_p)
    assert test.wilcoxon_p == pytest.approx(2 / 32)


@pytest.mark.parametrize("differences", [[], [0.5], [0.5, math.nan]])
def test_fewer_than_two_pairs_test_nothing(differences):
    test = paired(differences)
    assert test.n == test.improved == int(len(differences) > 0)
    assert np.isnan([test.t_p, test.wilcoxon_p]).all()
    assert test.low == test.high == 0.5 if test.n else math.isnan(test.difference)


def test_methods_over_different_pairs_are_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\) and the reference \(2,\); expected one of each for every pair"):
        compare_paired([1.0, 2.0, 3.0], [1.0, 2.0], higher_is_better=True)
