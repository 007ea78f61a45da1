"""HTML from the templates beside this file: self-contained pages, and their parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bundle.evaluation.rules import RULES

ABSENT = "–"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("bundle.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals["file"] = _file
    return environment


def _file(name: str) -> Markup:
    """A style sheet or script, to be embedded in a page."""
    return Markup(files("bundle.pages").joinpath("templates", name).read_text(encoding="utf-8"))


def render(template: str, **values: Any) -> str:
    """HTML of a page.

    Args:
        template: its name in ``templates/``.
        values: values for the template; anything that is not ``Markup`` is escaped.
    """
    return _environment().get_template(template).render(values)


def part(name: str, *values: Any, **named: Any) -> Markup:
    """A piece of HTML or SVG.

    Args:
        name: name of its macro in ``templates/parts.html``.
        values: arguments of the macro; anything that is not ``Markup`` is escaped.
        named: the same, by name.
    """
    return getattr(_environment().get_template("parts.html").module, name)(*values, **named)


def rules_shown(rules: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rules of a verdict as text for the template.

    Args:
        rules: result of ``bundle.evaluation.verdict.findings``.

    Returns:
        For each ``title``, ``value``, ``verdict`` (None: not measured), limits ``check`` and ``failed``, ``advice``.
    """
    return [_rule_shown(entry) for entry in rules]


def _rule_shown(entry: Mapping[str, Any]) -> dict[str, Any]:
    rule, value = RULES[entry["rule"]], entry["value"]
    sign = "below" if rule.least else "above"
    limits = {
        key: ABSENT if entry[key] is None else f"{sign} {entry[key]:g} {entry['unit']}" for key in ("check", "failed")
    }
    return {
        "title": f"{rule.title} ({entry['rule']})",
        "value": ABSENT if value is None else f"{value:.{rule.digits}f} {entry['unit']}",
        "verdict": None if value is None else entry["verdict"],
        **limits,
        "advice": rule.advice,
    }


def score_text(verdict: Mapping[str, Any]) -> str:
    """The score of a verdict, with three digits, since those of a run often agree to two; empty if there is none."""
    return "" if verdict.get("score") is None else f"{verdict['score']:.3f}"
