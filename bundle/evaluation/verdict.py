"""Good, check or failed: the verdict on a registered pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bundle.evaluation.measures import Metrics
from bundle.evaluation.rules import RULES

GOOD, CHECK, FAILED = VERDICTS = ("good", "check", "failed")
MOST_DECIMALS = 8
"""How many more decimals a value may need to be told from a limit."""
Limits = Mapping[str, Sequence[float | None] | None]


def check_limits(limits: Limits) -> None:
    """Refuse limits that belong to no rule or are in the wrong order.

    Raises:
        ValueError: naming the key and what was expected.
    """
    unknown = sorted(set(limits) - set(RULES))
    if unknown:
        raise ValueError(f"quality has no rule {', '.join(unknown)}; expected some of {', '.join(RULES)}")
    for key, pair in limits.items():
        if pair is None:
            continue
        numbers = [limit for limit in pair if limit is not None] if isinstance(pair, list | tuple) else ["no list"]
        if not all(isinstance(limit, int | float) for limit in numbers) or len(pair) != 2:
            raise ValueError(f"quality::{key} is {pair!r}; expected two numbers, [check, failed], or null")
        if numbers != sorted(numbers, reverse=RULES[key].least):
            order = "the second no larger" if RULES[key].least else "the second no smaller"
            raise ValueError(f"quality::{key} is {list(pair)}; expected [check, failed] with {order}, or null")


def findings(metrics: Metrics, limits: Limits, unit: str = "mm") -> list[dict[str, Any]]:
    """Apply every rule that has limits.

    A value right at a limit is still within it.

    Args:
        metrics: metrics of a pair (``metrics.json``).
        limits: key of ``RULES`` -> ``[check, failed]``; None in place of one or both switches it off.
        unit: unit of lengths.

    Returns:
        For each rule its ``rule``, ``value`` (None: the pair has none), ``check``, ``failed``, ``unit``, ``verdict``
        and, beyond a limit, the ``reason``: one sentence with the number and the limit.
    """
    found = []
    for key, rule in RULES.items():
        pair = limits.get(key)
        if pair is None:
            continue
        value, entry = rule.value(metrics), dict(zip((CHECK, FAILED), pair, strict=True))
        shown = unit if rule.unit == "mm" else rule.unit
        result = {"rule": key, "value": value, **entry, "unit": shown, "verdict": GOOD}
        for verdict, limit in entry.items():
            if value is None or limit is None:
                continue
            if value < limit if rule.least else value > limit:
                beyond = f"{verdict} {'below' if rule.least else 'above'} {limit:g} {shown}".rstrip()
                number = _told_apart(value, limit, rule.digits)
                sentence = rule.sentence.format(value=number, unit=shown, named=rule.named(metrics))
                result |= {"verdict": verdict, "reason": f"{sentence[0].upper()}{sentence[1:]} ({beyond})"}
        found.append(result)
    return found


def _told_apart(value: float, limit: float, digits: int) -> str:
    """A value beyond a limit, with as many decimals as show that it is beyond: 0.919 is below 0.92, and not 0.92."""
    texts = [f"{value:.{decimals}f}" for decimals in range(digits, digits + MOST_DECIMALS)]
    return next((text for text in texts if float(text) != limit), texts[0])


def judge(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum up findings: the worst verdict counts.

    Args:
        found: result of ``findings``.

    Returns:
        ``verdict`` (``good``, ``check`` or ``failed``), ``reasons`` (the worst first), and the ``rules`` themselves.
    """
    order = sorted(found, key=lambda finding: -VERDICTS.index(finding["verdict"]))
    return {
        "verdict": order[0]["verdict"] if order else GOOD,
        "reasons": [finding["reason"] for finding in order if "reason" in finding],
        "rules": list(found),
    }
