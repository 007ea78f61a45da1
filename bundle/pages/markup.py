"""HTML pages that need no other file: the style they share, and their parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from string import Template
from typing import Any

from bundle.evaluation.verdict import RULES

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 76rem; margin: 2rem auto;
  padding: 0 1.5rem }
h1 { font-size: 1.7rem } h2 { margin-top: 2.5rem; border-bottom: 2px solid #1a1a1a } h3 { margin-top: 1.8rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums }
th, td { padding: 0.3rem 0.6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
thead th { vertical-align: bottom; border-bottom: 1.5px solid #1a1a1a }
th:first-child { text-align: left } tbody th { font-weight: normal }
thead th, tr.reference > * { font-weight: bold }
figure { margin: 1.5rem 0; break-inside: avoid } img { max-width: 100%; height: auto }
figcaption, .small { font-size: 0.85rem; color: #333; max-width: 60rem }
@media print {
  body { max-width: none; margin: 0; font-size: 10pt } table { font-size: 7pt } th, td { padding: 0.1rem 0.25rem }
  .wide { overflow: visible } tr { break-inside: avoid }
}
$style</style>
</head>
<body>
<h1>$title</h1>
$body
</body>
</html>
""")


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


class Markup(str):
    """Text that is HTML already, for a cell of a table."""


def page(title: str, body: str, style: str = "") -> str:
    """HTML of a page.

    Args:
        title: plain text, heading of the page.
        body: HTML below it.
        style: CSS on top of that of all pages.
    """
    return _PAGE.substitute(title=escape(title), body=body, style=style)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], bold: str | None = None) -> str:
    """HTML of a table whose first column names the rows.

    Args:
        header: titles of the columns.
        rows: cells, plain text or ``Markup``.
        bold: first cell of the row that stands out.
    """
    lines = [
        '<div class="wide"><table>',
        f"<thead><tr>{''.join(f'<th>{_html(cell)}</th>' for cell in header)}</tr></thead><tbody>",
    ]
    for name, *cells in rows:
        style = ' class="reference"' if name == bold else ""
        lines.append(f"<tr{style}><th>{_html(name)}</th>{''.join(f'<td>{_html(cell)}</td>' for cell in cells)}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def _html(cell: str) -> str:
    return cell if isinstance(cell, Markup) else escape(cell)


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
