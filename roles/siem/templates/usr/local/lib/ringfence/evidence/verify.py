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

import hash_chain
import records
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
class RecordReport:
    records: int = 0
    seals: int = 0
    sealed: bool = True
    duplicates: int = 0
    missing: int = 0
    findings: list[str] = field(default_factory=list)


def verify(
    directory: Path, key: bytes | None, last: int | None, retention: dict[str, int]
) -> RecordReport:
    report = RecordReport()
    heads = _verify_seals(directory / records.SEALS, key, report)
    report.sealed = bool(heads)
    hosts = {path.name for path in directory.iterdir() if path.is_dir()} - {records.SEALS}
    for host in sorted(hosts | heads.keys()):
        _verify_host(directory / host, heads.get(host, []), last, retention.get(host), report)
    return report


def _verify_seals(
    directory: Path, key: bytes | None, report: RecordReport
) -> dict[str, list[Head]]:
    heads: dict[str, list[Head]] = {}
    position = hash_chain.Position()
    for place, _, content in _numbered_lines(store.days(directory)):
        try:
            seal = records.parse(content)
            before, number = position.number or 0, seal["seal"]
            broken = position.follow(content, number, seal["prev"])
            if broken and broken.kind == "changed":
                report.findings.append(f"{place}: the previous seal was changed")
            elif broken:
                report.findings.append(f"{place}: seal {before + 1} is missing")
            if key is not None:
                key = records.key_of(key, number - before)
                claimed = seal.pop("mac")
                if records.mac(key, seal) != claimed:
                    report.findings.append(f"{place}: does not match the collector's key")
            for host, head in seal["heads"].items():
                heads.setdefault(host, []).append(Head(**head))
        except (records.RecordError, KeyError, TypeError, AttributeError):
            report.findings.append(f"{place}: is not a seal")
            position = hash_chain.Position()
            if key is not None:
                report.findings.append(f"{place}: later seals cannot be verified")
                key = None
        report.seals += 1
    return heads


def _verify_host(
    directory: Path, heads: list[Head], last: int | None, retained: int | None, report: RecordReport
) -> None:
    expected = {head.record: head for head in heads}
    begins = {} if last else {head.day: head.first for head in heads}
    files = store.days(directory) if directory.is_dir() else []
    position = hash_chain.Position()
    first: int | None = None
    for place, day, content in _numbered_lines(files, last):
        report.records += 1
        try:
            record = records.parse(content)
            found, claimed = int(record["record"]), record["prev"]
        except (records.RecordError, KeyError, TypeError, ValueError):
            report.findings.append(f"{place}: is not a record of the collector")
            position.skip(content)
            continue
        begin = begins.pop(day, None)
        is_first = position.digest is None
        broken = position.follow(content, found, claimed)
        if broken and broken.kind != "changed":
            report.findings.append(f"{place}: record {found} follows record {broken.before}")
        elif begin is not None and found != begin:
            report.findings.append(f"{place}: begins at record {found} instead of {begin}")
        elif broken:
            report.findings.append(f"{place}: the previous record, {broken.before}, was changed")
        elif is_first and found == 1 and claimed != hash_chain.GENESIS:
            report.findings.append(f"{place}: the first record was changed")
        first = found if first is None else first
        head = expected.pop(found, None)
        if head and head.hash != position.digest:
            report.findings.append(f"{place}: record {found} is not the one that was sealed")
        report.duplicates += bool(record.get("duplicate"))
        missing = record.get("missing")
        report.missing += missing if isinstance(missing, int) else 0
    _report_absent(directory, expected, (first or 0, position.number or 0), last, retained, report)


def _report_absent(
    directory: Path,
    expected: dict[int, Head],
    present: tuple[int, int],
    last: int | None,
    retained: int | None,
    report: RecordReport,
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
