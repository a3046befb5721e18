"""Verify the collector's record: find edited, deleted, inserted, reordered and truncated lines.

Without the operator's key this proves that the record matches its seals; with the key also that
the collector wrote the seals at their time. Use the key only on a trusted machine with a copy of
the record: the key can forge seals.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import chain
import store

DIRECTORY = Path("/var/log/ringfence")
SETTINGS = Path("/etc/ringfence/collector.json")


@dataclass(frozen=True)
class Head:
    """The end of a chain at a seal, and the first record of that day's file."""

    day: str
    first: int
    record: int
    hash: str


@dataclass
class Report:
    records: int = 0
    seals: int = 0
    sealed: bool = True
    duplicates: int = 0
    missing: int = 0
    findings: list[str] = field(default_factory=list)


def verify(
    directory: Path, key: bytes | None, last: int | None, retention: dict[str, int]
) -> Report:
    report = Report()
    heads = _verify_seals(directory / chain.SEALS, key, report)
    report.sealed = bool(heads)
    hosts = {path.name for path in directory.iterdir() if path.is_dir()} - {chain.SEALS}
    for host in sorted(hosts | heads.keys()):
        _verify_host(directory / host, heads.get(host, []), last, retention.get(host), report)
    return report


def _verify_seals(directory: Path, key: bytes | None, report: Report) -> dict[str, list[Head]]:
    heads: dict[str, list[Head]] = {}
    previous: str | None = None
    number: int | None = None
    for place, _, content in _numbered_lines(store.days(directory)):
        try:
            seal = chain.parse(content)
            if number is not None and seal["seal"] != number + 1:
                report.findings.append(f"{place}: seal {number + 1} is missing")
            elif previous is not None and seal["prev"] != previous:
                report.findings.append(f"{place}: the previous seal was changed")
            if key is not None:
                key = chain.key_of(key, seal["seal"] - (number or 0))
                claimed = seal.pop("mac")
                if chain.mac(key, seal) != claimed:
                    report.findings.append(f"{place}: does not match the collector's key")
            number, previous = seal["seal"], chain.digest(content)
            for host, head in seal["heads"].items():
                heads.setdefault(host, []).append(Head(**head))
        except (chain.ChainError, KeyError, TypeError, AttributeError):
            report.findings.append(f"{place}: is not a seal")
            number, previous = None, None
            if key is not None:
                report.findings.append(f"{place}: later seals cannot be verified")
                key = None
        report.seals += 1
    return heads


def _verify_host(
    directory: Path, heads: list[Head], last: int | None, retained: int | None, report: Report
) -> None:
    expected = {head.record: head for head in heads}
    begins = {} if last else {head.day: head.first for head in heads}
    files = store.days(directory) if directory.is_dir() else []
    previous: str | None = None
    number: int | None = None
    first: int | None = None
    for place, day, content in _numbered_lines(files, last):
        report.records += 1
        try:
            record = chain.parse(content)
            found, claimed = int(record["record"]), record["prev"]
        except (chain.ChainError, KeyError, TypeError, ValueError):
            report.findings.append(f"{place}: is not a record of the collector")
            previous = chain.digest(content)
            number = None if number is None else number + 1
            continue
        begin = begins.pop(day, None)
        if number is not None and found != number + 1:
            report.findings.append(f"{place}: record {found} follows record {number}")
        elif begin is not None and found != begin:
            report.findings.append(f"{place}: begins at record {found} instead of {begin}")
        elif previous is not None and claimed != previous:
            report.findings.append(f"{place}: the previous record, {found - 1}, was changed")
        elif previous is None and found == 1 and claimed != chain.NOTHING:
            report.findings.append(f"{place}: the first record was changed")
        number, previous = found, chain.digest(content)
        first = found if first is None else first
        head = expected.pop(found, None)
        if head and head.hash != previous:
            report.findings.append(f"{place}: record {found} is not the one that was sealed")
        report.duplicates += bool(record.get("duplicate"))
        missing = record.get("missing")
        report.missing += missing if isinstance(missing, int) else 0
    _report_absent(directory, expected, (first or 0, number or 0), last, retained, report)


def _report_absent(
    directory: Path,
    expected: dict[int, Head],
    present: tuple[int, int],
    last: int | None,
    retained: int | None,
    report: Report,
) -> None:
    """Report sealed records that are gone."""
    first, end = present
    ends_early = [head for head in expected.values() if head.record > end]
    if ends_early and not _is_expired(ends_early[-1].day, retained):
        report.findings.append(
            f"{directory.name}: ends at record {end}, "
            f"but {ends_early[-1].record} records were sealed"
        )
    begins_late = [head for head in expected.values() if head.record < first]
    if last is None and begins_late and not _is_expired(begins_late[-1].day, retained):
        report.findings.append(
            f"{directory.name}: begins at record {first}, but record {begins_late[-1].record} of "
            f"{begins_late[-1].day} must still be kept"
        )


def _is_expired(day: str, retained: int | None) -> bool:
    if retained is None:
        return False
    return date.fromisoformat(day) < datetime.now(UTC).date() - timedelta(days=retained)


def _numbered_lines(files: list[Path], last: int | None = None) -> Iterator[tuple[str, str, bytes]]:
    if last is not None:
        files = files[-1:]
    for path in files:
        name, day = f"{path.parent.name}/{path.name}", store.day_of(path)
        if last is not None:
            for number, content in enumerate(store.tail(path, last), 1 - last):
                yield f"{name}:{number:+d}", day, content
        else:
            for number, content in enumerate(store.lines(path), 1):
                yield f"{name}:{number}", day, content


def _retention(settings: Path) -> dict[str, int]:
    try:
        doc: dict[str, Any] = json.loads(settings.read_text())
    except FileNotFoundError:
        return {}
    return {source["name"]: source["days"] for source in doc["sources"]}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="ringfence-verify-log", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("directory", nargs="?", type=Path, default=DIRECTORY)
    parser.add_argument("--key", type=Path, metavar="FILE", help="the operator's first key")
    parser.add_argument("--last", type=int, metavar="N", help="only the last N records of a host")
    parser.add_argument("--settings", type=Path, default=SETTINGS, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    try:
        key = bytes.fromhex(args.key.read_text().strip()) if args.key else None
        report = verify(args.directory, key, args.last, _retention(args.settings))
    except (OSError, ValueError) as error:
        print(f"ringfence-verify-log: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(asdict(report)))
    else:
        for finding in report.findings:
            print(finding)
        print(
            f"{'BROKEN' if report.findings else 'intact'}: {report.records} records, "
            f"{report.seals} seals{' (not verified, no key given)' if key is None else ''}, "
            f"{report.duplicates} marked as duplicates, {report.missing} missing"
        )
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
