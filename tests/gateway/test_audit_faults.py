"""The audit log on a full disk, in a killed process, and without a journal."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence.gateway.audit.events import AuditEvent
from ringfence.gateway.audit.file import AuditError
from ringfence.gateway.audit.journald import Journal
from ringfence.gateway.audit.log import Audit
from ringfence.gateway.audit.verification import verify_all

KEY = bytes(32)
CALL = AuditEvent(
    request_id="r",
    time=1795528622.25,
    duration=0.001,
    outcome="allowed",
    status=200,
    reason="allowed",
    principal="carol",
    server="time",
    method="tools/call",
    kind="tool",
    name="convert_time",
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a separate file system of 512 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Use all free space, to the last page."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                pass
    return ballast


def is_recorded(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except AuditError as error:
        assert "No space left on device" in str(error)  # noqa: PT017
        return False
    return True


def test_a_full_disk_refuses_calls_and_what_is_under_way_is_recorded(small_disk: Path):
    log = Audit(small_disk, "gateway-0", key=KEY, reserve_bytes=64 << 10)
    log.admit()
    ballast = fill(small_disk)
    admitted = 0
    while is_recorded(log.admit):
        log.write(CALL)
        admitted += 1
    assert 10 < admitted < 60
    under_way = 0
    while is_recorded(lambda: log.write(CALL)):
        under_way += 1
    assert under_way >= 15
    assert log.path.read_bytes().endswith(b"}\n"), "part of a line was left"

    ballast.unlink()
    time.sleep(0.3)
    log.admit()
    log.write(CALL)
    log.close()
    (report,) = verify_all(small_disk.glob("*.jsonl"))
    assert report.ok
    # Start, calls, the number of lost events, the call after that, end.
    assert report.events == 1 + admitted + under_way + 1 + 1 + 1
    refused = [
        json.loads(line)["unmapped"].get("refused") for line in log.path.read_bytes().splitlines()
    ]
    assert [number for number in refused if number] == [1]


def test_a_start_on_a_full_disk_says_so(small_disk: Path):
    ballast = fill(small_disk)
    with pytest.raises(AuditError, match="No space left on device; make room"):
        Audit(small_disk, "gateway-0", key=KEY, reserve_bytes=64 << 10)
    ballast.unlink()
    Audit(small_disk, "gateway-0", key=KEY, reserve_bytes=64 << 10).close()
    assert all(report.ok for report in verify_all(small_disk.glob("*.jsonl")))


WRITER = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[3]]
from test_audit_faults import CALL, KEY
from ringfence.gateway.audit.log import Audit
log = Audit(Path(sys.argv[1]), "gateway-0", key=KEY, reserve_bytes=1 << 20, segment_bytes=1 << 18)
print("ready", flush=True)
for _ in range(2_000_000):
    log.write(CALL)
"""


def test_a_process_that_is_killed_leaves_a_chain_that_the_next_one_goes_on_with(tmp_path: Path):
    for round_ in range(8):
        writer = subprocess.Popen(
            [
                *(sys.executable, "-c", WRITER, str(tmp_path)),
                *(str(Path(__file__).parent), str(Path(__file__).parents[2])),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            time.sleep(0.02 + 0.013 * round_)
        finally:
            writer.kill()
            writer.communicate(timeout=10)
    reports = verify_all(tmp_path.glob("*.jsonl"))
    assert [problem for report in reports for problem in report.faults] == []
    assert sum(report.events for report in reports) > 1000
    assert not any(report.ended for report in reports)
    generations = {report.path.name[:16] for report in reports}
    assert len(generations) == 8
    following = Audit(tmp_path, "gateway-0", key=KEY, reserve_bytes=1 << 16)
    reserved = [path for path in tmp_path.glob("*.jsonl") if path.stat().st_blocks * 512 > 1 << 19]
    following.close()
    assert not reserved, "room that killed processes had reserved is still taken"


@pytest.fixture
def journal_socket(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "journal"))
        server.settimeout(5)
        yield server


def entry(datagram: bytes) -> dict[str, bytes]:
    """Return the entry as journald reads it."""
    fields: dict[str, bytes] = {}
    while datagram:
        name, separator, rest = datagram.partition(b"\n")
        if b"=" in name:
            key, _, value = name.partition(b"=")
            fields[key.decode()], datagram = value, rest
            assert separator
        else:
            length = int.from_bytes(rest[:8], "little")
            fields[name.decode()] = rest[8 : 8 + length]
            assert rest[8 + length : 9 + length] == b"\n"
            datagram = rest[9 + length :]
    return fields


def test_the_journal_gets_every_line_with_its_place_in_the_chain(
    tmp_path: Path, journal_socket: socket.socket
):
    log = Audit(
        *(tmp_path, "gateway-0"),
        key=KEY,
        reserve_bytes=1 << 16,
        journal=Journal(tmp_path / "journal"),
    )
    log.write(CALL)
    start, call = (entry(journal_socket.recv(1 << 16)) for _ in range(2))
    assert [start["MESSAGE"], call["MESSAGE"]] == log.path.read_bytes().splitlines()
    assert (start["RINGFENCE_EVENT"], call["RINGFENCE_EVENT"]) == (b"start", b"decision")
    assert call["RINGFENCE_SEQUENCE"] == b"1"
    assert call["RINGFENCE_WRITER"].decode() == log.writer
    assert call["RINGFENCE_PRINCIPAL"] == b"carol"
    assert call["SYSLOG_IDENTIFIER"] == b"ringfence-audit"
    assert call["PRIORITY"] == b"6"
    assert log.journal_lost == 0


def test_a_name_with_a_line_feed_is_one_field(tmp_path: Path, journal_socket: socket.socket):
    journal = Journal(tmp_path / "journal")
    journal.send({b"RINGFENCE_NAME": b"x\nPRIORITY=0", b"MESSAGE": b"m"})
    fields = entry(journal_socket.recv(1 << 16))
    assert fields == {"RINGFENCE_NAME": b"x\nPRIORITY=0", "MESSAGE": b"m"}


def test_a_journal_that_is_gone_is_counted_and_found_again(tmp_path: Path):
    path = tmp_path / "journal"
    journal = Journal(path)
    log = Audit(tmp_path, "gateway-0", key=KEY, reserve_bytes=1 << 16, journal=journal)
    log.write(CALL)
    assert log.journal_lost == 2
    for sequence in (b"2", b"3"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(str(path))
            server.settimeout(5)
            journal._retry_at = 0
            log.write(CALL)
            assert entry(server.recv(1 << 16))["RINGFENCE_SEQUENCE"] == sequence
        path.unlink()
    lost = log.journal_lost
    log.write(CALL)
    assert log.journal_lost == lost + 1
    assert all(report.ok for report in verify_all([log.path]))


def test_a_journal_that_does_not_read_is_not_waited_for(
    tmp_path: Path, journal_socket: socket.socket
):
    log = Audit(
        *(tmp_path, "gateway-0"),
        key=KEY,
        reserve_bytes=1 << 16,
        journal=Journal(tmp_path / "journal"),
    )
    started = time.monotonic()
    for _ in range(3000):
        log.write(CALL)
    assert time.monotonic() - started < 10
    assert log.journal_lost > 0
    taken: list[bytes] = []
    journal_socket.setblocking(False)
    while True:
        try:
            taken.append(journal_socket.recv(1 << 16))
        except BlockingIOError:
            break
    assert len(taken) + log.journal_lost == 3001
    assert verify_all([log.path])[0].events == 3001
