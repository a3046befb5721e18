"""Validation of the manifest at the border: form, then schema, then meaning.

`load` is what the rest of the package calls; `ringfence validate` prints what it finds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ringfence.manifest.validation.document import (
    MAX_FINDINGS,
    Document,
    UnreadableError,
    parse,
    read,
)
from ringfence.manifest.validation.finding import Finding, Problem, dotted, quoted


class ManifestError(ValueError):
    """The manifest is not valid. As text: every problem on a line of its own."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, problems)))


def load(path: Path | str) -> Mapping[str, Any]:
    """The manifest as plain values. Raises `ManifestError` with every problem found."""
    return _read(Path(path)).value


def _read(path: Path) -> Document:
    """A manifest without problems. Raises `ManifestError`."""
    file = _shown(path)
    try:
        document = parse(read(path), file)
    except UnreadableError as error:
        place = (error.line, error.column, dotted(error.path))
        raise ManifestError([Problem(file, *place, error.message)]) from None
    if problems := _problems(document, path.parent):
        raise ManifestError(problems)
    return document


def _warnings(document: Document, directory: Path) -> list[Problem]:
    from ringfence.manifest.validation import rules

    return sorted(map(document.problem, rules.warnings(document.value, directory)))


def _problems(document: Document, directory: Path) -> list[Problem]:
    # Imported here: with nothing to check, a broken file is answered at once.
    from ringfence.manifest.validation import rules, schema

    refused = {finding.path for finding in document.findings}
    against_schema = [f for f in schema.findings(document.value) if f.path not in refused]
    # What the schema says about a value makes what rules say about the same value noise.
    refused |= {finding.path for finding in against_schema}
    meant = (f for f in rules.findings(document.value, directory) if f.path not in refused)
    findings: list[Finding] = [*document.findings, *against_schema]
    findings += islice(meant, MAX_FINDINGS)
    problems = sorted({document.problem(finding) for finding in findings})
    if len(problems) > MAX_FINDINGS:
        last = problems[MAX_FINDINGS - 1]
        more = "more problems follow; correct these first"
        problems[MAX_FINDINGS:] = [Problem(last.file, last.line, last.column, last.path, more)]
    return problems


def _shown(path: Path) -> str:
    """The file's name as a person would give it, safe to print."""
    try:
        relative = path.relative_to(Path.cwd()) if path.is_absolute() else path
    except (ValueError, OSError):
        relative = path
    text = os.fsencode(relative).decode(errors="replace")
    return text if text.isprintable() else quoted(text)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="environment.yaml")
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="json: one list of {file, line, column, path, message} on standard output",
    )


def run(args: argparse.Namespace) -> int:
    """Checks every file and prints all problems. Exit status 2 if there are any.

    Warnings are for people: they are not in the JSON, and change no status.
    """
    problems: list[Problem] = []
    for file in args.files:
        try:
            document = _read(file)
        except ManifestError as error:
            problems += error.problems
        else:
            if args.format == "text":
                print(f"{_shown(file)}: valid: {_summary(document.value)}")
                for warning in _warnings(document, file.parent):
                    print(f"warning: {warning}", file=sys.stderr)
    if args.format == "json":
        print(json.dumps([problem.as_dict() for problem in problems], indent=2))
    else:
        for problem in problems:
            print(problem, file=sys.stderr)
    return 2 if problems else 0


def _summary(document: Mapping[str, Any]) -> str:
    tools = sum(len(server["tools"]) for server in document["servers"].values())
    counts = [
        (len(document["hosts"]), "host"),
        (len(document["servers"]), "MCP server"),
        (tools, "tool"),
        (len(document["roles"]), "role"),
        (len(document["principals"]), "principal"),
        (len(document["administrators"]), "administrator"),
    ]
    listed = ", ".join(f"{count} {what}{'s' * (count != 1)}" for count, what in counts)
    return f"{document['name']} ({document['stage']}): {listed}"
