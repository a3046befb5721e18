"""The collector's record marks duplicates and reveals every change."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

PROGRAMS = Path(__file__).parents[2] / "roles/siem/templates/usr/local/lib/ringfence/evidence"
FIRST_KEY = "ab" * 32
DAYS = ("2026-11-21", "2026-11-22", "2026-11-23")


@pytest.fixture(scope="module")
def evidence() -> Iterator[SimpleNamespace]:
    """Import the collector's programs, which import each other by plain names as on the host."""
    names = ("hash_chain", "records", "store", "verify", "collect", "retain")
    before = {name: sys.modules.pop(name, None) for name in names}
    sys.path.insert(0, str(PROGRAMS))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(PROGRAMS))
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module:
                sys.modules[name] = module


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "seal.json"
    path.write_text(json.dumps({"next": 0, "key": FIRST_KEY}))
    return path


@pytest.fixture
def record(tmp_path: Path, key_file: Path, evidence: SimpleNamespace) -> Path:
    """Write three days of one host, sealed after every tenth event."""
    directory = tmp_path / "record"
    directory.mkdir()
    host = evidence.store.HostRecord(directory / "tools-1")
    seals = evidence.store.Seals(directory / evidence.records.SEALS, key_file)
    for number in range(60):
        moment = f"{DAYS[number // 20]}T00:00:00.{number:06d}Z"
        host.write(event(number + 1), moment, "10.0.0.1")
        if number % 10 == 9:
            seals.write(moment, {"tools-1": host.head})
    return directory


def event(sequence: int, stream: str = "s") -> dict[str, Any]:
    moment = f"2026-11-20T00:00:{sequence:06}Z" if type(sequence) is int else None
    body = {"message": f"event {sequence}", "time": moment}
    return body | {"stream": stream, "sequence": sequence}


def findings(evidence: SimpleNamespace, record: Path, **retention: int) -> list[str]:
    report = evidence.verify.verify(record, bytes.fromhex(FIRST_KEY), None, retention)
    return report.findings


def edit(path: Path, change: Callable[[list[bytes]], object]) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    change(lines)
    path.write_bytes(b"".join(lines))


def read_records(directory: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted(directory.glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def test_an_untouched_record_is_intact(evidence: SimpleNamespace, record: Path):
    report = evidence.verify.verify(record, bytes.fromhex(FIRST_KEY), None, {})
    assert (report.findings, report.records, report.seals) == ([], 60, 6)
    assert (report.duplicates, report.missing) == (0, 0)


CHANGES: dict[str, Callable[[list[bytes]], object]] = {
    "edited": lambda lines: lines.__setitem__(5, lines[5].replace(b"event", b"EVENT")),
    "deleted": lambda lines: lines.pop(5),
    "inserted": lambda lines: lines.insert(5, lines[4]),
    "reordered": lambda lines: lines.insert(5, lines.pop(7)),
    "truncated": lambda lines: lines.__delitem__(slice(15, None)),
    "first line deleted": lambda lines: lines.pop(0),
    "last line edited": lambda lines: lines.__setitem__(-1, lines[-1].replace(b"event", b"Event")),
    "emptied": lambda lines: lines.clear(),
    "nonsense": lambda lines: lines.__setitem__(5, b"\xff\x00[\n"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("day", DAYS)
def test_every_change_of_a_line_is_found(
    evidence: SimpleNamespace, record: Path, day: str, change: Callable[[list[bytes]], object]
):
    edit(record / "tools-1" / f"{day}.jsonl", change)
    # The start of a chain may be past its retention, so the test supplies it, as a collector does.
    assert findings(evidence, record, **{"tools-1": 100_000})


def test_a_removed_host_is_found(evidence: SimpleNamespace, record: Path):
    for path in (record / "tools-1").iterdir():
        path.unlink()
    (record / "tools-1").rmdir()
    assert findings(evidence, record)


def test_a_rewritten_chain_does_not_match_its_seals(evidence: SimpleNamespace, record: Path):
    """Root can also compute the hashes of a rewritten chain."""
    path = record / "tools-1" / f"{DAYS[2]}.jsonl"
    records, previous, forged = evidence.records, None, []
    for line in path.read_bytes().splitlines():
        entry = records.parse(line)
        entry["message"] = entry["message"].replace("45", "forty-five")
        if previous:
            entry["prev"] = previous
        forged.append(records.line(entry))
        previous = evidence.hash_chain.digest(forged[-1])
    path.write_bytes(b"\n".join(forged) + b"\n")
    found = findings(evidence, record)
    assert found
    assert all("not the one that was sealed" in finding for finding in found)


def test_forged_seals_are_found_with_the_operators_key(evidence: SimpleNamespace, record: Path):
    path = record / evidence.records.SEALS / f"{DAYS[2]}.jsonl"
    stolen = bytes.fromhex("00" * 32)

    def forge(lines: list[bytes]) -> None:
        seal = evidence.records.parse(lines[-1])
        seal.pop("mac")
        lines[-1] = (
            evidence.records.line(seal | {"mac": evidence.records.mac(stolen, seal)}) + b"\n"
        )

    edit(path, forge)
    assert findings(evidence, record) == [
        f"_seals/{DAYS[2]}.jsonl:2: does not match the collector's key"
    ]


def test_keys_of_past_seals_are_gone(evidence: SimpleNamespace, record: Path, key_file: Path):
    state = json.loads(key_file.read_text())
    assert state["next"] == 6
    assert state["key"] == evidence.records.key_of(bytes.fromhex(FIRST_KEY), 6).hex()


def test_a_crash_between_seal_and_key_does_not_break_the_seals(
    evidence: SimpleNamespace, record: Path, key_file: Path
):
    past = evidence.records.key_of(bytes.fromhex(FIRST_KEY), 5).hex()
    key_file.write_text(json.dumps({"next": 5, "key": past}))
    seals = evidence.store.Seals(record / evidence.records.SEALS, key_file)
    seals.write(f"{DAYS[2]}T01:00:00Z", {})
    assert findings(evidence, record) == []


def test_the_chain_continues_after_a_restart(evidence: SimpleNamespace, record: Path):
    host = evidence.store.HostRecord(record / "tools-1")
    host.write(event(61), f"{DAYS[2]}T02:00:00Z", "10.0.0.1")
    host.write(event(60), f"{DAYS[2]}T02:00:01Z", "10.0.0.1")
    assert findings(evidence, record) == []
    assert [r.get("duplicate") for r in read_records(record / "tools-1")[-2:]] == [None, True]


def test_a_torn_line_is_removed_and_the_chain_continues(evidence: SimpleNamespace, record: Path):
    with (record / "tools-1" / f"{DAYS[2]}.jsonl").open("ab") as file:
        file.write(b'{"record":61,"prev":"')
    host = evidence.store.HostRecord(record / "tools-1")
    assert host.torn == 21
    host.write(event(61), f"{DAYS[2]}T02:00:00Z", "10.0.0.1")
    assert findings(evidence, record) == []


def test_a_clock_that_is_set_back_does_not_break_the_chain(evidence: SimpleNamespace, record: Path):
    host = evidence.store.HostRecord(record / "tools-1")
    host.write(event(61), f"{DAYS[0]}T02:00:00Z", "10.0.0.1")
    assert findings(evidence, record) == []


def marks(evidence: SimpleNamespace, tmp_path: Path, sequences: list[Any]) -> list[str]:
    host = evidence.store.HostRecord(tmp_path / "host")
    for sequence in sequences:
        stream, number = sequence if isinstance(sequence, tuple) else ("s", sequence)
        host.write(event(number, stream), f"{DAYS[0]}T00:00:00Z", "10.0.0.1")
    return [
        "duplicate" if r.get("duplicate") else f"missing {r['missing']}" if "missing" in r else ""
        for r in read_records(tmp_path / "host")
    ]


@pytest.mark.parametrize(
    ("sequences", "expected"),
    [
        ([1, 2, 3], ["", "", ""]),
        ([1, 2, 2, 1, 3], ["", "", "duplicate", "duplicate", ""]),
        ([1, 4], ["", "missing 2"]),
        ([1, 4, 2, 2, 5], ["", "missing 2", "", "duplicate", ""]),
        ([1, 2, ("t", 1), ("t", 2)], ["", "", "", ""]),
        ([("s", 7)], ["missing 6"]),
    ],
)
def test_duplicates_and_gaps_are_marked(
    evidence: SimpleNamespace, tmp_path: Path, sequences: list[Any], expected: list[str]
):
    assert marks(evidence, tmp_path, sequences) == expected


@pytest.mark.parametrize("sequence", [0, -1, True, "1", None, 1.5])
def test_an_event_without_a_number_is_kept(
    evidence: SimpleNamespace, tmp_path: Path, sequence: Any
):
    assert marks(evidence, tmp_path, [1, sequence, 2]) == ["", "", ""]


def test_a_number_used_again_for_a_later_event_is_not_a_duplicate(
    evidence: SimpleNamespace, tmp_path: Path
):
    """After a crash, the host's journal lacks entry 3, which the collector has."""
    for number, late in ((1, 0), (2, 0), (3, 0), (2, 0), (3, 5), (4, 6), (3, 5), (5, 7)):
        # Each event follows a restart of the collector.
        host = evidence.store.HostRecord(tmp_path / "host")
        host.write(event(number) | {"time": f"{number + late}"}, f"{DAYS[0]}T00", "10.0.0.1")
    marked = [
        {"duplicate", "renumbered", "missing"} & r.keys() for r in read_records(tmp_path / "host")
    ]
    duplicate, renumbered, nothing = {"duplicate"}, {"renumbered"}, set()
    assert marked == [
        *(nothing, nothing, nothing, duplicate),
        *(renumbered, nothing, duplicate, nothing),
    ]


def test_a_sender_cannot_set_fields_of_the_collector(evidence: SimpleNamespace, tmp_path: Path):
    host = evidence.store.HostRecord(tmp_path / "host")
    lie = dict.fromkeys(evidence.store.RESERVED, "lie")
    host.write(event(1) | lie, f"{DAYS[0]}T00:00:00Z", "10.0.0.1")
    assert "lie" not in read_records(tmp_path / "host")[0].values()


def test_old_days_are_compressed_and_expired_ones_removed(evidence: SimpleNamespace, record: Path):
    evidence.retain.retain(record, {"tools-1": 1, "other": 9}, date(2026, 11, 23))
    names = sorted(path.name for path in (record / "tools-1").iterdir())
    assert names == [f"{DAYS[1]}.jsonl", f"{DAYS[2]}.jsonl"]
    seals = sorted(path.name for path in (record / "_seals").iterdir())
    assert seals == [f"{DAYS[0]}.jsonl.gz", f"{DAYS[1]}.jsonl", f"{DAYS[2]}.jsonl"]
    assert gzip.decompress((record / "_seals" / seals[0]).read_bytes()).count(b"\n") == 2
    assert findings(evidence, record, **{"tools-1": 0}) == []


@pytest.fixture
def collector(tmp_path: Path, key_file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start the program as rsyslog does."""
    (tmp_path / "log").mkdir()
    settings = tmp_path / "collector.json"
    settings.write_text(
        json.dumps(
            {
                "directory": str(tmp_path / "log"),
                "key_file": str(key_file),
                "seal_seconds": 60,
                "reserve_mib": 0,
                "sources": [
                    {"name": "tools-1", "addresses": ["10.0.0.1"], "days": 9},
                    {"name": "cloud-1", "addresses": [], "days": 9},
                ],
            }
        )
    )
    program = [sys.executable, "-sEB", PROGRAMS / "collect.py", settings]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        yield running
        running.kill()


def exchange(collector: subprocess.Popen[bytes], *lines: str) -> list[bytes]:
    assert collector.stdin is not None
    assert collector.stdout is not None
    answers = [collector.stdout.readline()]
    for line in lines:
        collector.stdin.write(line.encode("utf-8", "surrogateescape") + b"\n")
        collector.stdin.flush()
        answers.append(collector.stdout.readline())
    collector.stdin.close()
    collector.wait(10)
    return answers


@pytest.mark.parametrize(
    ("line", "folder", "expected"),
    [
        ('10.0.0.1  @cee: {"host":"tools-1"}', "tools-1", {"host": "tools-1"}),
        ('::ffff:10.0.0.1 @cee: {"host":"tools-1"}', "tools-1", {"source": "10.0.0.1"}),
        ('10.0.0.1 @cee: {"host":"cloud-1"}', "tools-1", {"claimed_host": "cloud-1"}),
        ('10.9.9.9 @cee: {"host":"cloud-1"}', "cloud-1", {"host": "cloud-1"}),
        ('10.9.9.9 @cee: {"host":"tools-1"}', "_unidentified", {"claimed_host": "tools-1"}),
        ('10.9.9.9 @cee: {"host":"../x"}', "_unidentified", {"claimed_host": "../x"}),
        ("10.0.0.1 not json", "tools-1", {"unparsed": True, "message": "not json"}),
        ("10.0.0.1 @cee: [1]", "tools-1", {"unparsed": True}),
        ("10.0.0.1 @cee: " + "[" * 9000, "tools-1", {"unparsed": True}),
        (
            f'10.0.0.1 @cee: {{"stream":"a","sequence":{"9" * 30},"message":"m"}}',
            "tools-1",
            {"message": "m"},
        ),
        ("10.0.0.1 \udcff\udcfe", "tools-1", {"unparsed": True}),
        ('10.0.0.1 @cee: {"message":"\\ud800"}', "tools-1", {"message": "\ud800"}),
        ("", "_unidentified", {"message": ""}),
    ],
)
def test_the_collector_records_every_line(
    collector: subprocess.Popen[bytes],
    tmp_path: Path,
    line: str,
    folder: str,
    expected: dict[str, Any],
):
    assert exchange(collector, line) == [b"OK\n", b"OK\n"]
    (record,) = read_records(tmp_path / "log" / folder)
    assert expected.items() <= record.items()


def test_deep_nesting_does_not_block_later_events(
    collector: subprocess.Popen[bytes], tmp_path: Path
):
    deep = [f'10.0.0.1 @cee: {{"a":{"[" * d}{"]" * d}}}' for d in range(900, 1010)]
    assert set(exchange(collector, *deep, "10.0.0.1 last")) == {b"OK\n"}
    (day,) = (tmp_path / "log" / "tools-1").iterdir()
    assert '"message":"last"' in day.read_text().splitlines()[-1]


def test_the_record_is_sealed_when_the_collector_stops(
    collector: subprocess.Popen[bytes], tmp_path: Path, evidence: SimpleNamespace
):
    exchange(collector, '10.0.0.1 @cee: {"host":"tools-1"}')
    report = evidence.verify.verify(tmp_path / "log", bytes.fromhex(FIRST_KEY), None, {})
    assert (report.findings, report.records, report.seals) == ([], 1, 1)


def test_a_line_that_does_not_fit_is_refused_and_the_chain_continues(
    evidence: SimpleNamespace, record: Path, monkeypatch: pytest.MonkeyPatch
):
    host = evidence.store.HostRecord(record / "tools-1")
    host.write(event(61), f"{DAYS[2]}T02:00:00Z", "10.0.0.1")
    write = os.write
    monkeypatch.setattr(evidence.store.os, "write", lambda fd, data: write(fd, data[:10]))
    with pytest.raises(OSError, match="no space"):
        host.write(event(62), f"{DAYS[2]}T02:00:01Z", "10.0.0.1")
    monkeypatch.undo()
    host.write(event(62), f"{DAYS[2]}T02:00:02Z", "10.0.0.1")
    assert findings(evidence, record) == []
    assert "duplicate" not in read_records(record / "tools-1")[-1]
