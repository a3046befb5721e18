"""A gateway's audit log, as a person reads it after an incident."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ringfence.cli import main
from ringfence.gateway.audit.events import AuditEvent
from ringfence.gateway.audit.log import Audit

READ = AuditEvent(
    request_id="read",
    time=1795592880.5,
    duration=0.003,
    outcome="allowed",
    status=200,
    reason="allowed",
    address="10.213.20.10",
    principal="carol",
    server="sqlite",
    version="2026-07-28",
    method="tools/call",
    kind="tool",
    name="read_query",
    policies=("analyst/sqlite",),
    findings={"email": 2},
    treatment="redacted",
)
FORWARDED = READ._replace(status=102, reason="forwarded", findings={}, treatment="none")
DENIED = READ._replace(
    request_id="denied",
    time=READ.time + 1,
    outcome="denied",
    status=403,
    reason="no_grant",
    name="create_table",
    policies=("sensitive-tools-need-a-grant",),
    findings={},
    treatment="none",
)
APPROVED = AuditEvent(
    request_id="grant",
    time=READ.time + 2,
    duration=0.001,
    outcome="allowed",
    status=201,
    reason="grant_approved",
    principal="dana",
    server="sqlite",
    method="grants/approve",
    kind="tool",
    name="create_table",
    grant="a561f49299890798373c6afa7683da57",
)
LISTED = READ._replace(
    request_id="listed",
    time=READ.time + 3,
    method="tools/list",
    kind="server",
    name=None,
    findings={},
    treatment="none",
)
LINES = {
    "read": "2026-11-25 07:48:00 carol sqlite tools/call read_query allowed "
    "by analyst/sqlite; redacted: 2 email",
    "denied": "2026-11-25 07:48:01 carol sqlite tools/call create_table denied "
    "no_grant; by sensitive-tools-need-a-grant",
    "grant": "2026-11-25 07:48:02 dana sqlite grants/approve create_table allowed "
    "grant_approved; grant a561f492",
    "listed": "2026-11-25 07:48:03 carol sqlite tools/list allowed by analyst/sqlite",
}
"""Expected lines, without the blanks that align columns."""


def written(directory: Path, *events: AuditEvent) -> Path:
    """Write the log of one process of a gateway."""
    log = Audit(directory, "1", key=bytes(32), reserve_bytes=1 << 16)
    for event in events:
        log.write(event)
    log.close()
    return log.path


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], ["read", "denied", "grant"]),
        (["--all"], ["read", "denied", "grant", "listed"]),
        (["--refused"], ["denied"]),
        (["--principal", "dana"], ["grant"]),
        (["--server", "time"], []),
    ],
)
def test_a_line_says_who_did_what_and_why_it_was_decided_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], shown: list[str]
):
    log = written(tmp_path, FORWARDED, DENIED, READ, APPROVED, LISTED)
    assert main(["decisions", str(log), *options]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [LINES[name] for name in shown]


def test_a_call_of_which_no_end_was_recorded_stands_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["decisions", str(written(tmp_path, FORWARDED))]) == 0
    assert " no end " in capsys.readouterr().out


def test_a_collectors_record_is_read_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The record contains other events between the decisions."""
    others = ["", "no JSON", "[1]", '{"message": "Accepted publickey for alice"}', '{"record": 7}']
    record = [
        json.dumps({"record": number, "host": "edge-1", "message": line})
        for number, line in enumerate(written(tmp_path, READ).read_text().splitlines())
    ]
    path = tmp_path / "record.jsonl"
    path.write_text("\n".join([*others, *record]))
    assert main(["decisions", str(path)]) == 0
    assert " ".join(capsys.readouterr().out.split()) == LINES["read"]


def test_a_record_cannot_write_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """An attacker who can write to a record could otherwise hide a line from its reader."""
    path = written(tmp_path, READ)
    path.write_text(path.read_text().replace('"carol"', '"\\u001b[2Kcarol\\n"'))
    assert main(["decisions", str(path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 1


def test_what_holds_no_decision_says_where_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "empty.jsonl").touch()
    assert main(["decisions", str(tmp_path / "empty.jsonl")]) == 1
    assert "/var/log/ringfence-gateway" in capsys.readouterr().err
    assert main(["decisions", str(tmp_path / "missing.jsonl")]) == 2
    assert "missing.jsonl: cannot be read: No such file" in capsys.readouterr().err
