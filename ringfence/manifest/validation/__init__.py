"""Validation of the manifest: it can be read, it matches the schema, and its rules hold."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ringfence.manifest import defaults
from ringfence.manifest.errors import ManifestError
from ringfence.manifest.validation import conformance, rules
from ringfence.manifest.validation.document import (
    MAX_VIOLATIONS,
    Document,
    UnreadableError,
    parse,
    read,
)
from ringfence.manifest.validation.problem import Problem, Violation, dotted
from ringfence.manifest.validation.wording import quoted


@dataclass(frozen=True)
class Manifest:
    """A valid manifest, with all defaults filled in."""

    value: Mapping[str, Any]
    warnings: tuple[Problem, ...]


def load(path: Path | str) -> Mapping[str, Any]:
    """Return the manifest with all defaults. Raises `ManifestError` with every problem."""
    path = Path(path)
    return _valid(_document(path), path.parent)


def check(path: Path) -> Manifest:
    """Return the manifest with its warnings. Raises `ManifestError` with every problem."""
    document = _document(path)
    value = _valid(document, path.parent)
    warnings = sorted(map(document.problem, rules.warnings(value, path.parent)))
    return Manifest(value, tuple(warnings))


def display_name(path: Path) -> str:
    """Return the file's name as a person would write it, safe to print."""
    try:
        relative = path.relative_to(Path.cwd()) if path.is_absolute() else path
    except (ValueError, OSError):
        relative = path
    text = os.fsencode(relative).decode(errors="replace")
    return text if text.isprintable() else quoted(text)


def _document(path: Path) -> Document:
    file = display_name(path)
    try:
        return parse(read(path), file)
    except UnreadableError as error:
        place = (error.line, error.column, dotted(error.path))
        raise ManifestError([Problem(file, *place, error.message)]) from None


def _valid(document: Document, directory: Path) -> Mapping[str, Any]:
    value = defaults.fill(document.value)
    misread = {violation.path for violation in document.violations}
    nonconforming = [v for v in conformance.violations(document.value) if v.path not in misread]
    # A rule has nothing to add about a value that the schema already refuses.
    known = misread | {violation.path for violation in nonconforming}
    broken = (v for v in rules.violations(value, directory) if v.path not in known)
    violations: list[Violation] = [*document.violations, *nonconforming]
    violations += islice(broken, MAX_VIOLATIONS)
    if violations:
        raise ManifestError(_problems(document, violations))
    return value


def _problems(document: Document, violations: list[Violation]) -> list[Problem]:
    problems = sorted({document.problem(violation) for violation in violations})
    if len(problems) > MAX_VIOLATIONS:
        last = problems[MAX_VIOLATIONS - 1]
        more = "more problems follow; correct these first"
        problems[MAX_VIOLATIONS:] = [Problem(last.file, last.line, last.column, last.path, more)]
    return problems
