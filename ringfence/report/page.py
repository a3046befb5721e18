"""A report as one HTML page that is self-contained: no script, no font, no network."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from ringfence.controls import mappings
from ringfence.report import terminal
from ringfence.report.model import ENVIRONMENT, Counts, Report, findings, percent, told_once

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def _code(text: str) -> Markup:
    """Mark text between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704


_templates.filters["code"] = _code

WORDS = {
    "passed": "pass",
    "failed": "fail",
    "not_applicable": "n/a",
    "not_verified": "not yet verified",
}

STANDINGS: dict[mappings.Standing, str] = {
    "uncovered": "No control covers",
    "not_met": "Covered by controls that did not pass",
    "partly": "Covered in part",
    "covered": "Covered",
    "not_applicable": "About other environments",
}
"""Headings of lists of statements, in the order of the page."""


def render(report: Report) -> str:
    return _templates.get_template("page.html.j2").render(
        report=report,
        before=report.before,
        counts=report.counts,
        findings=findings,
        told_once=told_once,
        percent=percent,
        decided=_decided,
        share=_share,
        words=WORDS,
        standings=STANDINGS,
        level=terminal.level,
        references=lambda control: mappings.references(mappings.load(), control),
        frameworks=mappings.load(),
        no_host=ENVIRONMENT,
    )


def write(report: Report, path: Path) -> None:
    path.write_text(render(report), encoding="utf-8")


def _decided(counts: Counts) -> int:
    return counts.passed + counts.failed


def _share(part: int, counts: Counts) -> float:
    """Return the length of a bar: a percentage of the checks that ran."""
    total = counts.passed + counts.failed + counts.not_applicable
    return round(100 * part / total, 3) if total else 0
