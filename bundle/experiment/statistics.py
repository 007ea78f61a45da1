"""Numbers of a study over its pairs: summaries, intervals and paired tests of one method against another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Values = Sequence[float | None] | np.ndarray
"""One number per pair; None, NaN and infinities stand for a missing one."""

ALPHA = 0.05
"""Level of the tests; the intervals hold the mean with a probability of ``1 - ALPHA``."""
ROUNDING = 10 * float(np.finfo(np.float32).eps)
"""Values that differ by less than this fraction of them are equal up to rounding: images are measured in float32."""


@dataclass(frozen=True)
class Summary:
    """Result of ``summarise``, in the unit of the values.

    Attributes:
        n: how many values are finite.
        mean: their mean; NaN without any.
        sd: their standard deviation with ``n - 1``; NaN for fewer than two.
        low: lower end of the 95 % confidence interval of the mean; NaN for fewer than two.
        high: upper end of it.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """Result of ``compare_paired``.

    Attributes:
        n: how many pairs have both values.
        difference: mean of ``values - reference``, in their unit; NaN without any pair.
        low: lower end of the 95 % confidence interval of the difference; NaN for fewer than two pairs.
        high: upper end of it.
        t_p: two-tailed p of the paired t-test; NaN for fewer than two pairs or differences that do not vary.
        wilcoxon_p: two-tailed p of Wilcoxon's signed-rank test; NaN for fewer than two pairs or identical values.
        improved: in how many pairs the value is strictly better than the reference.
    """

    n: int
    difference: float
    low: float
    high: float
    t_p: float
    wilcoxon_p: float
    improved: int


def summarise(values: Values) -> Summary:
    """Describe the finite values by mean, spread and the confidence interval of their mean.

    The interval is that of Student's t, ``mean +- t(0.975, n - 1) sd / sqrt(n)``: for differences it holds 0 just where
    the paired t-test finds nothing at 0.05.

    Args:
        values: ``(n,)``.
    """
    sample = np.asarray(values, dtype=float)
    sample = sample[np.isfinite(sample)]
    n = len(sample)
    mean = float(sample.mean()) if n else math.nan
    sd = float(np.std(sample, ddof=1)) if n > 1 else math.nan
    half = float(stats.t.ppf(1 - ALPHA / 2, n - 1)) * sd / math.sqrt(n) if n > 1 else math.nan
    return Summary(n, mean, sd, mean - half, mean + half)


def compare_paired(values: Values, reference: Values, *, higher_is_better: bool) -> PairedTest:
    """Test whether a method differs from another over the same pairs.

    ``d_i = values_i - reference_i`` over the pairs that have both, 0 where these are equal up to rounding;
    ``t = mean(d) / (sd(d) / sqrt(n))`` with ``n - 1`` degrees of freedom; Wilcoxon's test ranks the nonzero ``|d_i|``
    and compares the rank sums of the two signs.

    Args:
        values: ``(n,)``, the method.
        reference: ``(n,)``, what it is compared with, in the same order of pairs.
        higher_is_better: True for a DSC, False for a distance.

    Raises:
        ValueError: when the two do not have the same length.
    """
    ours, theirs = np.asarray(values, dtype=float), np.asarray(reference, dtype=float)
    if ours.shape != theirs.shape:
        raise ValueError(
            f"values have shape {ours.shape} and the reference {theirs.shape}; expected one of each for every pair"
        )
    both = np.isfinite(ours) & np.isfinite(theirs)
    ours, theirs = ours[both], theirs[both]
    differences = np.where(np.isclose(ours, theirs, rtol=ROUNDING, atol=0), 0.0, ours - theirs)
    summary = summarise(differences)
    t_p = wilcoxon_p = float("nan")
    if summary.n > 1:
        if np.ptp(differences) > ROUNDING * max(abs(ours).max(), abs(theirs).max()):
            t_p = float(stats.ttest_1samp(differences, 0.0).pvalue)
        if differences.any():
            wilcoxon_p = float(stats.wilcoxon(differences).pvalue)
    improved = int((differences > 0).sum() if higher_is_better else (differences < 0).sum())
    return PairedTest(summary.n, summary.mean, summary.low, summary.high, t_p, wilcoxon_p, improved)
