"""`ringfence control`: a control, its enforcers and checks, and the results of the last run."""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

import jinja2

from ringfence.controls import catalogue, index, mappings
from ringfence.controls.catalogue import Control
from ringfence.controls.index import IndexEntry, Kind
from ringfence.report import document
from ringfence.report.cli import LATEST
from ringfence.report.model import ENVIRONMENT, Report

WIDTH = 100
LONGEST_SABOTAGE = 160
"""Longest text of a sabotage, in characters; the source of the check has the whole."""


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)


_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701 - text and Markdown, from this project's own files
    undefined=jinja2.StrictUndefined,
)
_templates.filters["wrapped"] = _wrapped
_templates.filters["shortened"] = lambda text: textwrap.shorten(text, LONGEST_SABOTAGE)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", metavar="CONTROL", nargs="*", help="such as IAM-05; none: a list")
    parser.add_argument("--all", action="store_true", help="show every control; exit 1 for holes")
    parser.add_argument(
        "--report", type=Path, default=LATEST, help=f"a report in JSON (default: {LATEST})"
    )
    parser.add_argument(
        "--format", choices=("text", "markdown"), default="text", help="markdown: docs/controls.md"
    )


def run(args: argparse.Namespace) -> int:
    """Return 0 if the control is shown, 1 if a control lacks what it claims, 2 for bad input."""
    try:
        known = catalogue.load()
        ids = list(known) if args.all else [id_.upper() for id_ in args.ids]
        if unknown := [id_ for id_ in ids if id_ not in known]:
            nearest = difflib.get_close_matches(unknown[0], known, 1, 0)[0]
            print(f"there is no control {unknown[0]}; did you mean {nearest}?", file=sys.stderr)
            return 2
        controls = [known[id_] for id_ in ids]
        if not controls:
            shown = "".join(f"{control.id}  {control.title}\n" for control in known.values())
        elif args.format == "markdown":
            shown = markdown(controls)
        else:
            shown = text(controls, document.read(args.report) if args.report.exists() else None)
        holes = list(index.holes()) if args.all else []
    except (catalogue.CatalogueError, document.ReportError, index.DeclarationError) as error:
        print(error, file=sys.stderr)
        return 2
    print(shown, end="")
    for hole in holes:
        print(hole, file=sys.stderr)
    return 1 if holes else 0


def text(controls: Iterable[Control], report: Report | None) -> str:
    return "\n".join(
        _templates.get_template("control.txt.j2").render(
            control=control,
            references=_references(control),
            places=_places(control),
            result=_result(control, report),
        )
        for control in controls
    )


def markdown(controls: Iterable[Control]) -> str:
    """Return the page `docs/controls.md`."""
    return _templates.get_template("controls.md.j2").render(
        controls=[(control, _references(control), _places(control)) for control in controls]
    )


def _references(control: Control) -> Mapping[str, list[str]]:
    """Map the title of each framework to the ids of the statements that the control serves."""
    frameworks = mappings.load()
    return {
        frameworks[id_].title: [statement.id for statement in serving]
        for id_, serving in mappings.references(frameworks, control.id).items()
    }


def _places(control: Control) -> Mapping[Kind, list[IndexEntry]]:
    found: dict[Kind, list[IndexEntry]] = {
        "manifest": [],
        "enforcer": [],
        "check": [],
        "attack": [],
    }
    for place in index.places():
        if place.control == control.id:
            found[place.kind].append(place)
    return found


def _result(control: Control, report: Report | None) -> str:
    if report is None:
        return "none; run: pytest tests/compliance --environment FILE"
    status = report.status(control.id).replace("_", " ")
    hosts = ", ".join(
        f"{'environment' if host == ENVIRONMENT else host} {each.replace('_', ' ')}"
        for host, each in report.matrix.get(control.id, {}).items()
    )
    when = f"{report.environment}, {report.time:%Y-%m-%d %H:%M} UTC"
    return f"{status} ({when}): {hosts}"
