"""HTML pages that need no other file: the style they share, and their tables."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from string import Template

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
