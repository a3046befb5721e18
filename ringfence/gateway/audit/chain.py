"""The hash chain of an audit log, and what its verification finds.

Every line is an event of its own with `unmapped.chain`: {writer, sequence, previous}, where
`previous` is the SHA-256 of the bytes of the line before, without its line feed. Each file begins
with an anchor: an event that names the last line of the file before, whoever wrote it. So a line
that was removed, changed or moved shows by itself. What a chain cannot show is that its last lines
were cut off, or that all of it was written anew: the copy at the collector does. `last` of a
report is what to look for there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import orjson

GENESIS = "0" * 64
"""`previous` of the first line of all."""

LINE_BYTES = 64 << 10
"""More than the longest line ever written; a longer one is none of ours."""

Kind = Literal["changed", "removed", "moved", "foreign", "malformed", "headless", "cut_off"]


class Link(NamedTuple):
    """One line's place."""

    writer: str
    sequence: int
    hash: str
    """Of the line itself."""


@dataclass(frozen=True)
class Problem:
    line: int
    """From 1."""
    kind: Kind
    detail: str


@dataclass(frozen=True)
class Report:
    path: Path
    events: int
    anchor: Link | None
    """Where the chain goes on from; None: nowhere, it begins here."""
    last: Link | None
    """The last whole line; None: the file has none."""
    ended: bool
    """The writer said that this is the end of its chain."""
    torn: int
    """Bytes behind the last line feed: a line that was being written when the writer was killed."""
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def hash_of(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def verify(path: Path) -> Report:
    """Holds one file against its own chain. Raises `OSError` where it cannot be read."""
    with path.open("rb") as file:
        return _verify(path, file)


def verify_all(paths: Iterable[Path]) -> list[Report]:
    """The files of one writer's name, in the order of their names, each held against the next."""
    reports: list[Report] = []
    for path in sorted(paths, key=lambda p: p.name):
        report = verify(path)
        # A file without a whole line (torn at its first) is nothing to go on from.
        before = next((r for r in reversed(reports) if r.last is not None), None)
        emptied = next((r for r in reports if r.last is None and _of_anchor(report, r)), None)
        if report.last is None:
            pass
        elif before is not None and before.last != report.anchor:
            report = replace(report, problems=(_gap(before, report), *report.problems))
        elif before is None and emptied is not None:
            problem = Problem(1, "cut_off", f"the lines of {emptied.path.name} are missing")
            report = replace(report, problems=(problem, *report.problems))
        reports.append(report)
    return reports


def _of_anchor(report: Report, other: Report) -> bool:
    """Is the other file one of the process that the anchor names?"""
    if report.anchor is None:
        return False
    return other.path.name.startswith(f"{report.anchor.writer.rpartition('-')[0]}-")


def last_link(path: Path) -> tuple[Link | None, int]:
    """The last whole line of a file, and the bytes of a torn one behind it."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start = max(0, size - 2 * LINE_BYTES)
        file.seek(start)
        tail = file.read()
    whole, _, torn = tail.rpartition(b"\n")
    lines = whole.split(b"\n")
    if start:
        lines = lines[1:]
    if not lines or not lines[-1]:
        return None, len(torn)
    return _link(lines[-1]), len(torn)


def _verify(path: Path, file: IO[bytes]) -> Report:
    problems: list[Problem] = []
    anchor: Link | None = None
    last: Link | None = None
    ended = False
    torn = number = events = 0
    hash_before: str | None = None
    for number, line, whole in _lines(file):
        if not whole:
            torn = len(line)
            break
        document = _document(line)
        link = _link(line, document)
        if document is None or link is None:
            problems.append(Problem(number, "malformed", "is no event of an audit log"))
            hash_before = hash_of(line)
            continue
        events += 1
        unmapped = document["unmapped"]
        previous = unmapped["chain"]["previous"]
        if number == 1:
            if "anchor" not in unmapped:
                problems.append(Problem(1, "headless", "lines before this one were removed"))
            anchor = _anchor(unmapped.get("anchor"))
            if previous != (anchor.hash if anchor else GENESIS) and "anchor" in unmapped:
                problems.append(Problem(1, "changed", "differs from the line it goes on from"))
        elif ended:
            problems.append(Problem(number, "foreign", "was added behind the end of the chain"))
        elif (problem := _break(number, link, previous, last, hash_before)) is not None:
            problems.append(problem)
        last, hash_before = link, link.hash
        ended = unmapped.get("end") is True
    if not events and not torn and number:
        problems.append(Problem(number, "malformed", "holds no event at all"))
    return Report(path, events, anchor, last, ended, torn, tuple(problems))


def _break(
    number: int, link: Link, previous: str, last: Link | None, hash_before: str | None
) -> Problem | None:
    if last is None:
        return None
    if link.writer != last.writer:
        return Problem(number, "foreign", f"is of {link.writer}, in a file of {last.writer}")
    if previous == hash_before and link.sequence == last.sequence + 1:
        return None
    missing = link.sequence - last.sequence - 1
    if missing > 0:
        return Problem(
            number, "removed", f"{missing} lines before it, from {last.sequence + 1}, are missing"
        )
    if missing < 0:
        return Problem(
            number, "moved", f"{link.sequence} comes after {last.sequence}: moved or repeated"
        )
    return Problem(number, "changed", "it or the line before it was changed")


def _gap(before: Report, report: Report) -> Problem:
    assert before.last is not None
    if report.anchor is None:
        detail = f"begins anew; {before.path.name} came before it"
    elif report.anchor.writer == before.last.writer and (
        lost := report.anchor.sequence - before.last.sequence
    ):
        detail = f"{lost} lines are missing at the end of {before.path.name}"
    else:
        detail = (
            f"goes on from {report.anchor.writer} {report.anchor.sequence}, which is not the end "
            f"of {before.path.name}: a file is missing or was changed"
        )
    return Problem(1, "cut_off", detail)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes, bool]]:
    """Number, bytes without line feed, and whether there was one."""
    number = 0
    while line := file.readline(LINE_BYTES):
        number += 1
        whole = line.endswith(b"\n")
        while not whole and len(line) >= LINE_BYTES and (rest := file.readline(LINE_BYTES)):
            line, whole = line[:LINE_BYTES] + rest[-1:], rest.endswith(b"\n")
        yield number, line[:-1] if whole else line, whole


def _document(line: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _link(line: bytes, document: dict[str, Any] | None = None) -> Link | None:
    document = document if document is not None else _document(line)
    match document:
        case {
            "unmapped": {
                "chain": {"writer": str(writer), "sequence": int(sequence), "previous": str()}
            }
        }:
            return Link(writer, sequence, hash_of(line))
    return None


def _anchor(value: Any) -> Link | None:
    match value:
        case {"writer": str(writer), "sequence": int(sequence), "hash": str(hash_)}:
            return Link(writer, sequence, hash_)
    return None


def describe(reports: Sequence[Report]) -> Iterator[str]:
    """For a terminal: a line per file, and one per problem."""
    for report in reports:
        end = "ended" if report.ended else "open"
        place = f"{report.last.sequence} {report.last.hash}" if report.last else "nothing"
        verdict = "intact" if report.ok else f"{len(report.problems)} problems"
        yield f"{report.path}: {verdict}: {report.events} events, {end}, last: {place}"
        if report is reports[0] and (anchor := report.anchor) is not None:
            yield f"{report.path}: goes on from {anchor.writer} {anchor.sequence} {anchor.hash}"
        if report.torn:
            yield f"{report.path}: {report.torn} bytes of a line that was never finished"
        for problem in report.problems:
            yield f"{report.path}:{problem.line}: {problem.kind}: {problem.detail}"
