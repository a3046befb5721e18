import errno
import json
import os
import random
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jsonschema_rs
import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ringfence import gateway
from ringfence.gateway import VERSION
from ringfence.gateway.audit import file as audit_file
from ringfence.gateway.audit.__main__ import main
from ringfence.gateway.audit.events import AuditEvent
from ringfence.gateway.audit.file import AuditError
from ringfence.gateway.audit.hash_chain import digest
from ringfence.gateway.audit.log import Audit
from ringfence.gateway.audit.verification import ChainReport, verify, verify_all

KEY = bytes(range(32))
OCSF = {
    class_uid: jsonschema_rs.Draft202012Validator(
        json.loads((Path(__file__).parent / "ocsf-1.8.0" / f"{name}.json").read_text())
    )
    for class_uid, name in {6003: "api_activity", 6002: "application_lifecycle"}.items()
}
CALL = AuditEvent(
    request_id="0193f1c2-req",
    time=1795528622.25,
    duration=0.0034,
    outcome="allowed",
    status=200,
    reason="allowed",
    address="10.213.20.7",
    certificate="A1b2-thumbprint",
    principal="carol",
    issuer="https://issuer.lab.internal",
    token_id="jti-1",  # noqa: S106
    server="sqlite",
    version="2026-07-28",
    method="tools/call",
    kind="tool",
    name="write_query",
    data_class="confidential",
    sensitive=True,
    policies=("role-database-owner",),
    policy_version="sha256:1234",
    grant="grant-7",
    findings={"email": 2, "iban": 1},
    treatment="redacted",
    arguments="0" * 64,
)


def but(**changes: Any) -> AuditEvent:
    return CALL._replace(**changes)


def opened(directory: Path, **options: Any) -> Audit:
    return Audit(directory, "gateway-0", key=KEY, **{"reserve_bytes": 1 << 16, **options})


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def events(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in lines(path)]


def kinds(report: ChainReport) -> list[str]:
    return [fault.kind for fault in report.faults]


def assert_published(event: dict[str, Any]) -> None:
    problems = [e.message for e in OCSF[event["class_uid"]].iter_errors(event)]
    assert not problems
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]


def test_the_version_that_events_tell_is_the_one_that_is_released():
    root = Path(__file__).parents[3]
    source = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["version"]
    collection = yaml.safe_load((root / "galaxy.yml").read_text())
    assert root / source["path"] == Path(gateway.__file__)
    assert collection["version"] == VERSION


def test_an_event_says_who_did_what_to_what_and_how_it_ended(tmp_path: Path):
    log = opened(tmp_path)
    log.write(CALL)
    start, event = events(log.path)
    for each in (start, event):
        assert_published(each)
    assert event["actor"]["user"]["uid"] == "carol"
    assert event["actor"]["user"]["credential_uid"] == "x5t#S256:A1b2-thumbprint"
    assert event["actor"]["session"] == {"issuer": "https://issuer.lab.internal", "uid": "jti-1"}
    assert event["src_endpoint"] == {"ip": "10.213.20.7"}
    assert event["api"] == {
        "operation": "tools/call",
        "version": "2026-07-28",
        "service": {"name": "sqlite"},
    }
    assert event["metadata"]["correlation_uid"] == "0193f1c2-req"
    assert (event["status_code"], event["status_detail"]) == ("200", "allowed")
    assert event["resources"] == [
        {
            "namespace": "sqlite",
            "type": "tool",
            "name": "write_query",
            "labels": ["data_class:confidential"],
            "criticality": "sensitive",
        }
    ]
    assert event["authorizations"] == [
        {"decision": "allow", "policy": {"uid": "role-database-owner"}}
    ]
    assert event["policy"]["version"] == "sha256:1234"
    assert event["metadata"]["product"]["version"] == VERSION
    assert (event["time"], event["duration"]) == (1795528622250, 3)
    assert (event["action"], event["disposition"], event["status"]) == (
        "Modified",
        "Corrected",
        "Success",
    )
    assert event["unmapped"]["findings"] == {"email": 2, "iban": 1}
    assert event["unmapped"]["grant"] == "grant-7"
    assert event["unmapped"]["latency_us"] == 3400


@pytest.mark.parametrize(
    ("changes", "action", "disposition", "severity"),
    [
        ({"treatment": "none"}, "Allowed", "Allowed", "Informational"),
        ({"outcome": "denied", "status": 403, "reason": "no_policy"}, "Denied", "Blocked", "Low"),
        (
            {"outcome": "denied", "status": 401, "reason": "expired"},
            "Denied",
            "Unauthorized",
            "Low",
        ),
        ({"outcome": "denied", "status": 429, "reason": "too_many"}, "Denied", "Rejected", "Low"),
        ({"outcome": "denied", "status": 400, "reason": "header"}, "Denied", "Rejected", "Low"),
        ({"outcome": "failed", "status": 503, "reason": "reset"}, "Allowed", "Error", "Medium"),
    ],
)
def test_outcomes_use_the_words_of_the_schema(
    tmp_path: Path, changes: dict[str, Any], action: str, disposition: str, severity: str
):
    log = opened(tmp_path)
    log.write(but(**changes))
    event = events(log.path)[-1]
    assert_published(event)
    assert (event["action"], event["disposition"], event["severity"]) == (
        action,
        disposition,
        severity,
    )
    assert event["status_detail"] == changes.get("reason", "allowed")
    decision = "deny" if changes.get("outcome") == "denied" else "allow"
    assert event["authorizations"][0]["decision"] == decision


def test_a_request_of_which_nothing_is_known_is_an_event(tmp_path: Path):
    log = opened(tmp_path)
    log.write(
        AuditEvent(
            request_id="r",
            time=1.0,
            duration=0.0,
            outcome="denied",
            status=400,
            reason="not_json",
        )
    )
    event = events(log.path)[-1]
    assert_published(event)
    assert event["actor"]["user"] == {"name": "unauthenticated", "type_id": 0}
    assert event["api"]["operation"] == "unknown"
    assert "resources" not in event


def test_words_of_a_caller_are_not_repeated(tmp_path: Path):
    """A token pasted as a method name or into a reason would remain readable for ever."""
    log = opened(tmp_path)
    secret = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjYXJvbCJ9.c2ln"  # noqa: S105
    log.write(but(method=secret, reason=secret, name=None, named=log.fingerprint(secret)))
    assert secret not in log.path.read_text()
    event = events(log.path)[-1]
    assert_published(event)
    assert event["resources"][0]["name"] == "unknown"
    assert event["unmapped"]["named"] == log.fingerprint(secret)


def test_a_fingerprint_needs_the_key_and_knows_no_order(tmp_path: Path):
    one, other = tmp_path / "1", tmp_path / "2"
    one.mkdir()
    other.mkdir()
    log = opened(one)
    assert log.fingerprint({"a": 1, "b": 2}) == log.fingerprint({"b": 2, "a": 1})
    assert log.fingerprint({"pin": "1234"}) != log.fingerprint({"pin": "1235"})
    assert log.fingerprint({"a": 2**70}) != log.fingerprint({"a": 2**71})
    assert log.fingerprint("1234") != Audit(other, "gateway-0", key=KEY[::-1]).fingerprint("1234")
    assert log.fingerprint("1234") != digest(b'"1234"')
    with pytest.raises(AuditError, match="32 bytes"):
        Audit(tmp_path, "gateway-0", key=b"short")


text = st.text(alphabet=st.characters(), max_size=600)


@given(
    request_id=text,
    address=text,
    principal=text,
    name=text,
    grant=text,
    method=text,
    reason=text,
    policies=st.lists(text, max_size=40),
    findings=st.dictionaries(text, st.integers(1, 9), max_size=50),
)
def test_whatever_comes_is_one_bounded_line_of_the_schema(
    tmp_path_factory: pytest.TempPathFactory, **changes: Any
):
    log = opened(tmp_path_factory.mktemp("audit"))
    log.write(but(**changes))
    assert log.path.read_bytes().count(b"\n") == 2
    line = lines(log.path)[-1]
    assert len(line) < 64 << 10
    assert_published(json.loads(line))
    assert verify(log.path).ok


def test_a_lone_surrogate_is_no_way_around_the_log(tmp_path: Path):
    log = opened(tmp_path)
    log.write(but(name="a\ud800"))
    assert_published(json.loads(lines(log.path)[-1]))
    assert verify(log.path).ok


def chain(directory: Path, number: int = 6) -> Path:
    """Write the file of one process: its start, `number` calls, its end."""
    log = opened(directory)
    for n in range(number):
        log.write(but(request_id=str(n)))
    log.close()
    return log.path


def test_an_untouched_file_is_intact(tmp_path: Path):
    report = verify(chain(tmp_path))
    assert report.ok
    assert (report.events, report.ended, report.torn, report.anchor) == (8, True, 0, None)
    assert report.last is not None
    assert report.last.sequence == 7
    assert report.path.stat().st_mode & 0o777 == 0o640


def tampered(path: Path, change: Any) -> ChainReport:
    content = lines(path)
    change(content)
    path.write_bytes(b"".join(line + b"\n" for line in content))
    return verify(path)


def test_a_changed_line_shows(tmp_path: Path):
    def change(content: list[bytes]) -> None:
        content[3] = content[3].replace(b"carol", b"david")

    report = tampered(chain(tmp_path), change)
    assert [(p.line, p.kind) for p in report.faults] == [(5, "changed")]


def test_a_removed_line_shows(tmp_path: Path):
    report = tampered(chain(tmp_path), lambda content: content.pop(3))
    assert [(p.line, p.kind) for p in report.faults] == [(4, "removed")]


def test_lines_that_changed_places_show(tmp_path: Path):
    report = tampered(chain(tmp_path), lambda c: c.insert(2, c.pop(4)))
    assert kinds(report) == ["removed", "moved", "removed"]


def test_a_repeated_line_shows(tmp_path: Path):
    report = tampered(chain(tmp_path), lambda c: c.insert(4, c[3]))
    assert kinds(report) == ["moved"]


def test_a_missing_beginning_shows(tmp_path: Path):
    def change(content: list[bytes]) -> None:
        del content[:2]

    assert kinds(tampered(chain(tmp_path), change)) == ["headless"]


def test_a_line_that_was_made_up_shows(tmp_path: Path):
    def change(content: list[bytes]) -> None:
        made_up = orjson.loads(content[4])
        made_up["status_detail"] = "allowed"
        made_up["unmapped"]["chain"]["previous"] = digest(content[3])
        content.insert(4, orjson.dumps(made_up))

    assert kinds(tampered(chain(tmp_path), change)) == ["moved"]


def test_what_is_no_event_shows(tmp_path: Path):
    for number, junk in enumerate((b"", b"{}", b"not json", b"[1]", b"\xff\xfe", b"x" * 200_000)):
        directory = tmp_path / str(number)
        directory.mkdir()
        report = tampered(chain(directory), lambda c, junk=junk: c.insert(3, junk))
        assert kinds(report)[0] == "malformed", junk[:10]


def test_a_line_behind_the_end_shows(tmp_path: Path):
    def change(content: list[bytes]) -> None:
        forged = orjson.loads(content[-2])
        forged["unmapped"]["chain"] |= {"sequence": 8, "previous": digest(content[-1])}
        content.append(orjson.dumps(forged))

    assert kinds(tampered(chain(tmp_path), change)) == ["foreign"]


def test_a_line_of_another_writer_shows(tmp_path: Path):
    path = chain(tmp_path)

    def change(content: list[bytes]) -> None:
        foreign = orjson.loads(content[3])
        foreign["unmapped"]["chain"]["writer"] = "gateway-1-000001-00000000"
        content.insert(4, orjson.dumps(foreign))

    assert kinds(tampered(path, change))[0] == "foreign"


@pytest.mark.parametrize("seed", range(40))
def test_no_tampering_but_at_the_very_end_goes_unseen(tmp_path: Path, seed: int):
    path = chain(tmp_path)
    content = path.read_bytes()
    luck = random.Random(seed)  # noqa: S311
    last = content.rindex(b"\n", 0, -1)
    at = luck.randrange(last)
    byte = bytes([(content[at] + luck.randrange(1, 255)) % 256])
    path.write_bytes(content[:at] + byte + content[at + 1 :])
    assert not verify(path).ok


def test_a_chain_goes_on_in_the_next_process_and_in_the_next_file(tmp_path: Path):
    for generation in range(3):
        log = opened(tmp_path, segment_bytes=6000)
        for n in range(8):
            log.write(but(request_id=f"{generation}-{n}"))
        log.close()
    paths = sorted(tmp_path.glob("*.jsonl"))
    assert len(paths) >= 6
    reports = verify_all(paths)
    assert all(report.ok for report in reports)
    for before, after in pairwise(reports):
        assert after.anchor == before.last
    for path in paths:
        assert "anchor" in events(path)[0]["unmapped"]
        for event in events(path):
            assert_published(event)
    assert sum(r.ended for r in reports) == 3


def test_a_file_that_is_missing_in_the_middle_shows(tmp_path: Path):
    test_a_chain_goes_on_in_the_next_process_and_in_the_next_file(tmp_path)
    paths = sorted(tmp_path.glob("*.jsonl"))
    paths[2].unlink()
    reports = verify_all(p for p in paths if p.exists())
    assert [kinds(report) for report in reports if not report.ok] == [["cut_off"]]


def test_a_file_that_was_cut_at_its_end_shows_by_the_next_one(tmp_path: Path):
    first = chain(tmp_path)
    log = opened(tmp_path)
    content = lines(first)
    first.write_bytes(b"".join(line + b"\n" for line in content[:-2]))
    assert verify(first).ok, "alone it cannot be seen"
    report = verify_all([first, log.path])[1]
    assert [(p.kind, p.detail) for p in report.faults] == [
        ("cut_off", f"2 lines are missing at the end of {first.name}")
    ]


def test_a_torn_line_is_recognised_and_not_taken_for_tampering(tmp_path: Path):
    first = chain(tmp_path)
    whole = lines(first)
    first.write_bytes(b"".join(line + b"\n" for line in whole[:4]) + whole[4][:100])
    log = opened(tmp_path)
    log.write(CALL)
    reports = verify_all([first, log.path])
    assert [report.ok for report in reports] == [True, True]
    assert (reports[0].torn, reports[0].ended) == (100, False)
    anchor = events(log.path)[0]["unmapped"]
    assert anchor["torn"] == 100
    assert anchor["anchor"]["sequence"] == 3


def test_a_process_that_was_torn_at_its_first_line_is_passed_over(tmp_path: Path):
    first = chain(tmp_path)
    (tmp_path / "gateway-0-000002-000001.jsonl").write_bytes(b'{"class_uid"')
    log = opened(tmp_path)
    assert log.path.name == "gateway-0-000003-000001.jsonl"
    reports = verify_all(tmp_path.glob("*.jsonl"))
    assert all(report.ok for report in reports)
    assert reports[2].anchor == verify(first).last


def test_two_processes_do_not_share_a_name(tmp_path: Path):
    log = opened(tmp_path)
    with pytest.raises(AuditError, match="another process writes as gateway-0"):
        opened(tmp_path)
    Audit(tmp_path, "gateway-1", key=KEY, reserve_bytes=1 << 16).close()
    log.close()
    opened(tmp_path).close()


@pytest.mark.parametrize("name", ["", "../x", "A", "a/b", "a.b", "-a", "a" * 64])
def test_a_name_is_no_path(tmp_path: Path, name: str):
    with pytest.raises(AuditError, match="cannot name audit files"):
        Audit(tmp_path, name, key=KEY)


def test_a_directory_that_is_not_there_says_so(tmp_path: Path):
    with pytest.raises(AuditError, match="No such file or directory; make room or repair"):
        opened(tmp_path / "missing")


def test_a_closed_log_records_nothing(tmp_path: Path):
    log = opened(tmp_path)
    log.close()
    for attempt in (log.admit, lambda: log.write(CALL)):
        with pytest.raises(AuditError, match="closed"):
            attempt()


class Disk:
    """Disk that fails writes as a real one does."""

    def __init__(self, code: int, *, part: int = 0) -> None:
        self.code = code
        self.part = part
        self.real = os.write

    def __call__(self, fd: int, data: bytes) -> int:
        if self.part:
            return self.real(fd, data[: self.part])
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_what_cannot_be_written_is_an_error_and_later_goes_on(tmp_path: Path, code: int):
    log = opened(tmp_path)
    log.write(CALL)
    with patch.object(audit_file.os, "write", Disk(code)):
        for _ in range(3):
            with pytest.raises(AuditError, match=os.strerror(code)):
                log.write(CALL)
    with patch.object(audit_file, "RETRY_SECONDS", 0), patch.object(log._file, "_retry_at", 0):
        log.write(but(request_id="after"))
    paths = sorted(tmp_path.glob("*.jsonl"))
    reports = verify_all(paths)
    assert all(report.ok for report in reports)
    refused = [e["unmapped"]["refused"] for e in events(log.path) if "refused" in e["unmapped"]]
    assert refused == [3]
    assert events(log.path)[-1]["metadata"]["correlation_uid"] == "after"
    for event in events(log.path):
        assert_published(event)


def test_part_of_a_line_is_taken_back(tmp_path: Path):
    log = opened(tmp_path)
    before = log.path.read_bytes()
    with (
        patch.object(audit_file.os, "write", Disk(0, part=50)),
        pytest.raises(AuditError, match="No space left"),
    ):
        log.write(CALL)
    assert log.path.read_bytes() == before
    log.write(CALL)
    assert verify(log.path).ok


def test_a_part_that_could_not_be_taken_back_is_before_the_next_line(tmp_path: Path):
    log = opened(tmp_path)
    before = log.path.read_bytes()
    failing = patch.object(audit_file.os, "ftruncate", side_effect=OSError(errno.EIO, "I/O error"))
    with failing, patch.object(audit_file.os, "write", Disk(0, part=50)), pytest.raises(AuditError):
        log.write(CALL)
    assert len(log.path.read_bytes()) == len(before) + 50
    with patch.object(audit_file, "LOOK_SECONDS", 1e9):
        log.write(CALL)
    assert log.path.read_bytes().startswith(before + b'{"class_uid"')
    assert verify(log.path).ok


def test_no_call_is_admitted_without_room_for_its_event(tmp_path: Path):
    log = opened(tmp_path, reserve_bytes=20_000)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with patch.object(log._file, "_reserve", full):
        # Half of the reserve for calls to be admitted, half for calls in flight.
        while log._file._reserved >= 10_000:
            log.admit()
            log.write(CALL)
        with pytest.raises(AuditError, match="No space left"):
            log.admit()
        assert log._file._reserved > 4 * len(lines(log.path)[-1])
        log.write(CALL)
    with patch.object(log._file, "_retry_at", 0):
        log.admit()


def test_a_rotation_for_which_there_is_no_room_waits(tmp_path: Path):
    log = opened(tmp_path, segment_bytes=3000)
    real = os.open

    def no_new_files(path: Any, flags: int, *rest: Any) -> int:
        if flags & os.O_EXCL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, flags, *rest)

    with patch.object(audit_file.os, "open", no_new_files):
        for _ in range(5):
            log.write(CALL)
    assert len(list(tmp_path.glob("*.jsonl"))) == 1
    log.write(CALL)
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    assert all(report.ok for report in verify_all(tmp_path.glob("*.jsonl")))


@pytest.mark.parametrize(
    "interfere",
    [
        lambda path: path.unlink(),
        lambda path: os.truncate(path, 10),
        lambda path: path.write_bytes(path.read_bytes() + b"{}\n"),
    ],
    ids=["removed", "cut", "extended"],
)
def test_somebody_at_the_file_makes_a_new_one_and_an_alert(tmp_path: Path, interfere: Any):
    log = opened(tmp_path)
    log.write(CALL)
    first = log.path
    last = log.last
    interfere(first)
    with patch.object(audit_file, "LOOK_SECONDS", 0):
        log.write(but(request_id="after"))
    assert log.path != first
    start = events(log.path)[0]
    assert_published(start)
    assert (start["unmapped"]["why"], start["severity_id"]) == ("replaced", 3)
    assert last is not None
    assert start["unmapped"]["anchor"]["hash"] == last.hash
    assert events(log.path)[-1]["metadata"]["correlation_uid"] == "after"
    if first.exists():
        assert not all(report.ok for report in verify_all([first, log.path]))


def test_verification_tells_by_its_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = chain(tmp_path)
    assert main(["verify", str(path)]) == 0
    report = verify(path)
    assert report.last is not None
    assert f"intact: 8 events, ended, last: 7 {report.last.hash}" in capsys.readouterr().out
    tampered(path, lambda content: content.pop(3))
    assert main(["verify", str(path)]) == 1
    assert f"{path}:4: removed: 1 lines before it, from 3, are missing" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "missing")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_files_of_two_writers_are_two_chains(tmp_path: Path):
    for name in ("gateway-0", "gateway-1"):
        Audit(tmp_path, name, key=KEY, reserve_bytes=1 << 16).close()
    assert main(["verify", *map(str, tmp_path.glob("*.jsonl"))]) == 0


def test_reserved_room_is_given_back(tmp_path: Path):
    log = opened(tmp_path, reserve_bytes=1 << 20)
    assert log.path.stat().st_blocks * 512 >= 1 << 20
    assert log.path.stat().st_size < 1 << 12
    log.close()
    assert log.path.stat().st_blocks * 512 < 1 << 16
