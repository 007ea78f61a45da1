"""What can be compared between several runs over the same pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from bundle.evaluation.measures import MEASURES, Measure, Metrics

Run = dict[str, Metrics]
"""Metrics of a run, by pair; a pair that failed is not in it."""


def comparable(runs: Sequence[Mapping[str, Metrics]]) -> tuple[list[Run], list[str]]:
    """Leave out of every run the structures and landmarks that one of them lost.

    A structure that vanishes in a warped label has no distance to its target. If only the mean of that run went without
    it, losing what is hard to register would look like an improvement.

    Args:
        runs: metrics of each run, by pair.

    Returns:
        The runs, in which a pair has the same structures wherever it was registered and measured, and a sentence for
        each measure that leaves some out.
    """
    compared: list[Run] = [dict(run) for run in runs]
    counts: dict[Measure, Counter[str]] = {each: Counter() for each in MEASURES.values() if each.per_structure}
    for pair in dict.fromkeys(pair for run in runs for pair in run):
        registered = [run for run in compared if pair in run]
        for measure, count in counts.items():
            lost = _lost([measure.entries(run[pair]) for run in registered])
            count.update(lost)
            for run in registered if lost else ():
                run[pair] = measure.without(run[pair], lost)
    return compared, [_told(measure, count) for measure, count in counts.items() if count]


def _lost(entries: Sequence[Mapping[str, Mapping[str, float | None]]]) -> set[str]:
    """Structures that one run has both before and after registration, and another, which measured any, has not."""
    complete = [{name for name, entry in found.items() if None not in entry.values()} for found in entries if found]
    return {name for names in complete for name in names if any(name not in other for other in complete)}


def _told(measure: Measure, lost: Counter[str]) -> str:
    named = ", ".join(f"{name} of {count} pair{'s' if count > 1 else ''}" for name, count in sorted(lost.items()))
    return f"{measure.title} leaves out structure {named} in every row, because one of the runs lost it there"
