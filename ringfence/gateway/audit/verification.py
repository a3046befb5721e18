"""Verification of audit files against their hash chain.

Every line is an event with `unmapped.chain`: {writer, sequence, previous}. Each file begins with an
anchor: an event that names the last line of the file before, whichever process wrote it. So a line
that was removed, changed or moved shows by itself. A chain cannot show that its last lines are
missing, or that all of it was rewritten: the copy at the collector does. `last` of a report is
what to look for there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import orjson

from ringfence.gateway.audit import hash_chain

LINE_BYTES = 64 << 10
"""More than the longest line of an audit log."""

Kind = Literal["changed", "removed", "moved", "foreign", "malformed", "headless", "cut_off"]


class ChainLink(NamedTuple):
    """The place of one line."""

    writer: str
    sequence: int
    hash: str
    """Hash of the line itself."""


@dataclass(frozen=True)
class ChainFault:
    line: int
    """Number of the line, from 1."""
    kind: Kind
    detail: str


@dataclass(frozen=True)
class ChainReport:
    path: Path
    events: int
    anchor: ChainLink | None
    """The line that the chain continues; None: the chain begins here."""
    last: ChainLink | None
    """The last whole line; None: the file has none."""
    ended: bool
    """The writer closed its chain."""
    torn: int
    """Bytes behind the last line feed: a line that was being written when the writer was killed."""
    faults: tuple[ChainFault, ...]

    @property
    def ok(self) -> bool:
        return not self.faults


def verify(path: Path) -> ChainReport:
    """Verify one file against its own chain. Raises `OSError` where it cannot be read."""
    with path.open("rb") as file:
        return _verify(path, file)


def verify_all(paths: Iterable[Path]) -> list[ChainReport]:
    """Verify the files of one writer's name, each also against the next in the order of names."""
    reports: list[ChainReport] = []
    for path in sorted(paths, key=lambda p: p.name):
        report = verify(path)
        # A file without a whole line (torn at its first) has nothing to continue.
        before = next((r for r in reversed(reports) if r.last is not None), None)
        emptied = next((r for r in reports if r.last is None and _of_anchor(report, r)), None)
        if report.last is None:
            pass
        elif before is not None and before.last != report.anchor:
            report = replace(report, faults=(_gap(before, report), *report.faults))
        elif before is None and emptied is not None:
            fault = ChainFault(1, "cut_off", f"the lines of {emptied.path.name} are missing")
            report = replace(report, faults=(fault, *report.faults))
        reports.append(report)
    return reports


def _of_anchor(report: ChainReport, other: ChainReport) -> bool:
    """Return whether the other file is one of the process that the anchor names."""
    if report.anchor is None:
        return False
    return other.path.name.startswith(f"{report.anchor.writer.rpartition('-')[0]}-")


def last_link(path: Path) -> tuple[ChainLink | None, int]:
    """Return the last whole line of a file, and the bytes of a torn one behind it."""
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


def _verify(path: Path, file: IO[bytes]) -> ChainReport:
    faults: list[ChainFault] = []
    anchor: ChainLink | None = None
    last: ChainLink | None = None
    ended = False
    torn = number = events = 0
    position = hash_chain.Position()
    for number, line, whole in _lines(file):
        if not whole:
            torn = len(line)
            break
        document = _document(line)
        link = _link(line, document)
        if document is None or link is None:
            faults.append(ChainFault(number, "malformed", "is not an event of an audit log"))
            position.skip(line)
            continue
        events += 1
        unmapped = document["unmapped"]
        previous = unmapped["chain"]["previous"]
        break_ = position.follow(line, link.sequence, previous)
        if number == 1:
            if "anchor" not in unmapped:
                faults.append(ChainFault(1, "headless", "lines before this one were removed"))
            anchor = _anchor(unmapped.get("anchor"))
            genesis = anchor.hash if anchor else hash_chain.GENESIS
            if previous != genesis and "anchor" in unmapped:
                faults.append(ChainFault(1, "changed", "differs from the line it continues"))
        elif ended:
            faults.append(ChainFault(number, "foreign", "was added behind the end of the chain"))
        elif last is not None and link.writer != last.writer:
            detail = f"is of {link.writer}, in a file of {last.writer}"
            faults.append(ChainFault(number, "foreign", detail))
        elif break_ is not None:
            faults.append(ChainFault(number, break_.kind, _detail(break_)))
        last = link
        ended = unmapped.get("end") is True
    if not events and not torn and number:
        faults.append(ChainFault(number, "malformed", "holds no event at all"))
    return ChainReport(path, events, anchor, last, ended, torn, tuple(faults))


def _detail(break_: hash_chain.Break) -> str:
    if break_.kind == "removed":
        missing = break_.number - break_.before - 1
        return f"{missing} lines before it, from {break_.before + 1}, are missing"
    if break_.kind == "moved":
        return f"{break_.number} comes after {break_.before}: moved or repeated"
    return "it or the line before it was changed"


def _gap(before: ChainReport, report: ChainReport) -> ChainFault:
    assert before.last is not None
    if report.anchor is None:
        detail = f"begins a new chain; {before.path.name} came before it"
    elif report.anchor.writer == before.last.writer and (
        lost := report.anchor.sequence - before.last.sequence
    ):
        detail = f"{lost} lines are missing at the end of {before.path.name}"
    else:
        detail = (
            f"continues {report.anchor.writer} {report.anchor.sequence}, which is not the end "
            f"of {before.path.name}: a file is missing or was changed"
        )
    return ChainFault(1, "cut_off", detail)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes, bool]]:
    """Number, bytes without line feed, and whether there was a line feed."""
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


def _link(line: bytes, document: dict[str, Any] | None = None) -> ChainLink | None:
    document = document if document is not None else _document(line)
    match document:
        case {
            "unmapped": {
                "chain": {"writer": str(writer), "sequence": int(sequence), "previous": str()}
            }
        }:
            return ChainLink(writer, sequence, hash_chain.digest(line))
    return None


def _anchor(value: Any) -> ChainLink | None:
    match value:
        case {"writer": str(writer), "sequence": int(sequence), "hash": str(hash_)}:
            return ChainLink(writer, sequence, hash_)
    return None


def describe(reports: Sequence[ChainReport]) -> Iterator[str]:
    """Lines for a terminal: one per file, and one per fault."""
    for report in reports:
        end = "ended" if report.ended else "open"
        place = f"{report.last.sequence} {report.last.hash}" if report.last else "nothing"
        verdict = "intact" if report.ok else f"{len(report.faults)} faults"
        yield f"{report.path}: {verdict}: {report.events} events, {end}, last: {place}"
        if report is reports[0] and (anchor := report.anchor) is not None:
            yield f"{report.path}: continues {anchor.writer} {anchor.sequence} {anchor.hash}"
        if report.torn:
            yield f"{report.path}: {report.torn} bytes of a line that was never finished"
        for fault in report.faults:
            yield f"{report.path}:{fault.line}: {fault.kind}: {fault.detail}"
