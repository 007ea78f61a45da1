"""What the quality pages of a pair and of a run share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bundle.evaluation.markup import Markup, table
from bundle.evaluation.verdict import RULES

ABSENT = "–"

STYLE = """
:root { color-scheme: light dark }
body { max-width: 88rem } h2 { border-bottom-width: 1px }
.verdict { display: inline-block; padding: 0.05rem 0.6rem; border-radius: 0.3rem; color: #fff; font-weight: 600;
  -webkit-print-color-adjust: exact; print-color-adjust: exact }
.good { background: #1a7f37 } .check { background: #a85400 } .failed { background: #c62828 } .error { background: #555 }
.panels { display: grid; gap: 0.4rem 0.5rem; align-items: start; margin: 1rem 0 }
.panels .head { font-size: 0.85rem; font-weight: 600; margin-bottom: 0.2rem }
.panels .plane { grid-column: 1 / -1; font-size: 0.85rem; margin-top: 0.4rem }
.panels svg { display: block; border: 1px solid #8884 }
.bars { display: flex; flex-wrap: wrap; gap: 0.5rem 2.5rem } .bar { width: 17rem }
.bar text, .curve text { fill: currentColor; font-size: 12px }
.curve { width: 30rem; max-width: 100%; margin: 1rem 0 } .curve path { stroke: #2f6fdb; stroke-width: 2 }
.curve circle { fill: #2f6fdb } .curve .level { stroke: currentColor; opacity: 0.25 }
.letter { fill: #fff; stroke: #000; stroke-width: 0.12em; paint-order: stroke; dominant-baseline: central;
  font-weight: 600; font-family: system-ui, sans-serif }
.line, .grid { stroke-width: 1.5; vector-effect: non-scaling-stroke } .grid { stroke-width: 1 }
.side { display: flex; flex-wrap: wrap; gap: 0 3rem; align-items: flex-start }
.text thead th:last-child, .text td:last-child { text-align: left }
.text td:last-child { white-space: normal; min-width: 18rem }
.key { font-weight: 600; -webkit-text-stroke: 0.2px #0008 }
@media (prefers-color-scheme: dark) {
  body { background: #15181b; color: #e8e8e8 } h2, thead th { border-color: #999 } th, td { border-color: #3a3f44 }
  figcaption, .small { color: #bbb } a { color: #8ab4f8 }
}
@media print { body { background: #fff; color: #000 } .panels { break-inside: avoid } .small { color: #333 } }
"""


def badge(verdict: str) -> Markup:
    """A verdict as a word on its colour."""
    return Markup(f'<span class="verdict {verdict}">{verdict}</span>')


def rules_table(rules: Sequence[Mapping[str, Any]], measured: bool = True) -> str:
    """The rules of a verdict with their limits, and what to do beyond them.

    Args:
        rules: as ``bundle.evaluation.verdict.findings`` gives them.
        measured: whether to show the values of a pair and their verdicts.
    """
    rows = []
    for entry in rules:
        rule = RULES[entry["rule"]]
        sign = "below" if rule.least else "above"
        limits = [
            ABSENT if entry[key] is None else f"{sign} {entry[key]:g} {entry['unit']}" for key in ("check", "failed")
        ]
        value = entry["value"]
        shown = ABSENT if value is None else f"{value:.{rule.digits}f} {entry['unit']}"
        found = [shown, badge(entry["verdict"]) if value is not None else "not measured"]
        rows.append([f"{rule.title} ({entry['rule']})", *(found if measured else []), *limits, rule.advice])
    header = ["rule", *(["value", ""] if measured else []), "check", "failed", "what to do"]
    return f'<div class="text">{table(header, rows)}</div>'
