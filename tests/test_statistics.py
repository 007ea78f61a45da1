"""Summaries and paired tests of small samples whose answers have a closed form."""

import math
import warnings

import numpy as np
import pytest

from bundle.experiment.statistics import compare_paired, summarise


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
    assert (summary.n, summary.mean) == (3, 3.0)
    # n - 1: (4 + 1 + 9) / 2
    assert summary.sd == pytest.approx(math.sqrt(7))


def test_interval_of_two_values_is_that_of_cauchy():
    # With one degree of freedom Student's t is Cauchy's distribution, whose quantiles are tangents.
    half = math.tan(0.475 * math.pi) * 0.5
    summary = summarise([0.0, 1.0])
    assert (summary.low, summary.high) == pytest.approx((0.5 - half, 0.5 + half))


def test_interval_of_many_values_is_the_normal_one():
    values = np.random.default_rng(0).normal(20, 3, 4000)
    summary = summarise(values)
    half = 1.960 * values.std() / math.sqrt(4000)
    assert (summary.low, summary.high) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-4)


@pytest.mark.parametrize("n", [3, 5, 8, 16])
def test_intervals_of_small_samples_hold_the_mean_as_often_as_they_say(n):
    samples = np.random.default_rng(n).normal(7, 2, (2000, n))
    held = np.mean([summary.low <= 7 <= summary.high for summary in map(summarise, samples)])
    assert held == pytest.approx(0.95, abs=0.015)


def test_the_interval_of_a_difference_holds_0_just_where_the_t_test_finds_nothing():
    found = [paired(differences) for differences in np.random.default_rng(0).normal(1, 1.5, (200, 6))]
    assert {test.low > 0 or test.high < 0 for test in found} == {True, False}
    for test in found:
        assert (test.low > 0 or test.high < 0) == (test.t_p < 0.05)


@pytest.mark.parametrize("values", [[0.1, 0.1, 0.1], [0.1 + 0.2, 0.3, 0.3], [0.0, 0.0]])
def test_equal_values_have_no_spread(values):
    summary = summarise(values)
    assert summary.sd == pytest.approx(0, abs=1e-15)
    assert summary.low == pytest.approx(summary.high)
    assert summary.mean == pytest.approx(values[0])


def test_pairs_that_a_method_left_as_they_were_are_no_better_by_rounding():
    """Centres of unmoved pairs differ by 1e-15 mm, and the NCC by 6e-8: each was a better or a worse pair, with a p."""
    before = np.array([5.3, 1.6, 5.3, 6.4, 0.87])
    rounded = before * (1 + np.array([1e-15, -1e-15, 6e-8, -6e-8, 1e-7]))
    same = compare_paired(rounded, before, higher_is_better=False)
    assert (same.n, same.difference, same.improved) == (5, 0.0, 0)
    assert math.isnan(same.t_p) and math.isnan(same.wilcoxon_p)
    # One pair was moved: the others are ties, which Wilcoxon's test leaves out.
    rounded[1] = 1.5
    moved = compare_paired(rounded, before, higher_is_better=False)
    assert (moved.improved, moved.wilcoxon_p) == (1, 1.0)
    assert moved.difference == pytest.approx(-0.02)


def test_one_value_has_a_mean_and_none_has_nothing():
    one = summarise([2.5, math.nan])
    assert (one.n, one.mean) == (1, 2.5)
    assert np.isnan([one.sd, one.low, one.high]).all()
    none = summarise([])
    assert none.n == 0
    assert np.isnan([none.mean, none.sd, none.low, none.high]).all()


def test_t_test_of_three_pairs():
    # d = 1, 2, 3: t = 2 / (1 / sqrt(3)); with two degrees of freedom p = 1 - t / sqrt(t^2 + 2).
    test = paired([1.0, 2.0, 3.0])
    t = 2 * math.sqrt(3)
    assert test.t_p == pytest.approx(1 - t / math.sqrt(t**2 + 2))
    assert (test.n, test.difference, test.improved) == (3, 2.0, 3)
    # The quantile of t with two degrees of freedom is a root: t^2 = 2 q^2 / (1 - q^2) with q = 0.95.
    half = math.sqrt(2 * 0.95**2 / (1 - 0.95**2)) / math.sqrt(3)
    assert (test.low, test.high) == pytest.approx((2 - half, 2 + half))


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
    test = compare_paired([2.0, None, 4.0, math.inf, 7.0], [1.0, 1.0, math.nan, 1.0, 4.0], higher_is_better=True)
    assert test == compare_paired([2.0, 7.0], [1.0, 4.0], higher_is_better=True)
    assert (test.n, test.difference) == (2, 2.0)


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
    assert np.isnan([test.low, test.high]).all()
    assert test.difference == 0.5 if test.n else math.isnan(test.difference)


def test_methods_over_different_pairs_are_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\) and the reference \(2,\); expected one of each for every pair"):
        compare_paired([1.0, 2.0, 3.0], [1.0, 2.0], higher_is_better=True)
