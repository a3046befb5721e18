"""The sender: RELP bytes, journal entries as events, and the ledger of deliveries."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

PROGRAMS = (
    Path(__file__).parents[2] / "roles/log_shipping/templates/usr/local/lib/ringfence/shipping"
)
NAMES = ("relp", "events", "ledger")
OPENED = (
    b"1 rsp 92 200 OK\nrelp_version=0\nrelp_software=librelp,1.11.0,http://librelp.adiscon.com\n"
)
OPENED += b"commands=syslog\n"


@pytest.fixture(scope="module")
def shipping() -> Iterator[SimpleNamespace]:
    """Import the sender's modules, which import each other by plain names as on the host."""
    before = {name: sys.modules.pop(name, None) for name in NAMES}
    sys.path.insert(0, str(PROGRAMS))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    finally:
        sys.path.remove(str(PROGRAMS))
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module:
                sys.modules[name] = module


@pytest.fixture
def session(shipping: SimpleNamespace) -> Any:
    session = shipping.relp.Session()
    assert session.open() == b"1 open %d %s\n" % (len(shipping.relp.OFFER), shipping.relp.OFFER)
    body = OPENED.split(b" ", 3)[3].removesuffix(b"\n")
    session.receive(b"1 rsp %d %s\n" % (len(body), body))
    assert session.is_open
    return session


def test_an_event_is_framed_with_its_length(session: Any):
    assert session.event("<14>ü".encode()) == "2 syslog 6 <14>ü\n".encode()


def test_answers_acknowledge_in_order(session: Any):
    for _ in range(3):
        session.event(b"x")
    assert session.receive(b"2 rsp 6 200 OK\n3 rsp 6 200 OK\n4 rs") == 2
    assert session.unanswered == 1
    assert session.receive(b"p 6 200 OK\n") == 1


@pytest.mark.parametrize("cut", range(1, 15))
def test_an_answer_may_come_in_pieces(session: Any, cut: int):
    session.event(b"x")
    answer = b"2 rsp 6 200 OK\n"
    assert session.receive(answer[:cut]) + session.receive(answer[cut:]) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"3 rsp 6 200 OK\n",
        b"2 rsp 9 500 error\n",
        b"0 serverclose 0\n",
        b"2 rsp 99999 200",
        b"2 rsp -1 200",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"2 rsp 6 200 OKAY\n",
        b"x" * 5000,
    ],
)
def test_anything_else_ends_the_session(session: Any, shipping: SimpleNamespace, answer: bytes):
    session.event(b"x")
    with pytest.raises(shipping.relp.RelpError):
        session.receive(answer)


def test_transaction_numbers_begin_again(session: Any, shipping: SimpleNamespace):
    session._number = shipping.relp.LAST_NUMBER
    assert session.event(b"x").startswith(b"1 syslog ")


ENTRY = {
    "__REALTIME_TIMESTAMP": 1795399200123456,
    "__CURSOR": "s=1;i=2",
    "__MONOTONIC_TIMESTAMP": (1, 2),
    "MESSAGE": "hello",
    "PRIORITY": "4",
    "SYSLOG_IDENTIFIER": "sshd",
    "_UID": "0",
    "_PID": "42",
    "_HOSTNAME": "elsewhere",
    "TOOL": ["a", b"\xff"],
}


def test_an_entry_becomes_a_structured_event(shipping: SimpleNamespace):
    assert shipping.events.from_entry(ENTRY, "tools-1", "s", 7) == {
        "time": "2026-11-23T02:00:00.123456Z",
        "host": "tools-1",
        "stream": "s",
        "sequence": 7,
        "message": "hello",
        "priority": 4,
        "identifier": "sshd",
        "uid": 0,
        "pid": 42,
        "fields": {"TOOL": ["a", "\\xff"]},
    }


def test_an_invalid_number_does_not_stop_the_sender(shipping: SimpleNamespace):
    """Any account can write these fields in its own events."""
    for value in ("9" * 5000, "²", "-1", ""):
        entry = ENTRY | {"SYSLOG_FACILITY": value, "PRIORITY": value}
        event = shipping.events.from_entry(entry, "tools-1", "s", 7)
        assert shipping.events.message(event)


def test_an_event_is_an_rfc_5424_message_with_json(shipping: SimpleNamespace):
    event = shipping.events.from_entry(ENTRY, "tools-1", "s", 7)
    header, _, body = shipping.events.message(event).partition(b"@cee: ")
    assert header == b"<12>1 2026-11-23T02:00:00.123456Z tools-1 sshd 42 - - "
    assert json.loads(body) == event


VALUES = st.one_of(st.text(), st.binary(), st.lists(st.one_of(st.text(), st.binary()), max_size=3))


@given(
    fields=st.dictionaries(
        st.sampled_from(["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "_PID", "SYSLOG_FACILITY"])
        | st.text(st.characters(codec="ascii", categories=["Lu"]), min_size=1),
        VALUES,
    )
)
def test_any_entry_is_one_printable_line(shipping: SimpleNamespace, fields: dict[str, Any]):
    entry = {"__REALTIME_TIMESTAMP": 0, **fields}
    message = shipping.events.message(shipping.events.from_entry(entry, "h", "s", 1))
    header, _, body = message.partition(b"@cee: ")
    assert json.loads(body)["sequence"] == 1
    assert not any(byte < 32 or byte == 127 for byte in message)
    assert header.count(b" ") == 7


def test_an_event_too_large_for_receivers_is_shortened_and_marked(shipping: SimpleNamespace):
    entry = ENTRY | {"MESSAGE": "é" * 200_000, "UNIT": "x" * 9000}
    message = shipping.events.message(shipping.events.from_entry(entry, "tools-1", "s", 7))
    assert len(message) < shipping.events.LARGEST_EVENT
    event = json.loads(message.partition(b"@cee: ")[2])
    assert event["cut_from_bytes"] > 400_000
    assert event["sequence"] == 7
    assert event["message"].startswith("é" * 1000)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "position.json"


def test_a_position_settles_some_seconds_after_its_acknowledgement(
    shipping: SimpleNamespace, state: Path
):
    ledger = shipping.ledger.Ledger(state)
    for second in range(6):
        ledger.acknowledge(shipping.ledger.Position(f"c{second}", second * 10))
        ledger.tick(100.0 + second)
    assert ledger.settled == shipping.ledger.Position("c2", 20)
    ledger.tick(200.0)
    assert ledger.settled == shipping.ledger.Position("c5", 50)
    assert shipping.ledger.Ledger(state).settled == ledger.settled


def test_a_broken_session_resumes_after_the_settled_position(
    shipping: SimpleNamespace, state: Path
):
    ledger = shipping.ledger.Ledger(state)
    ledger.acknowledge(shipping.ledger.Position("a", 1))
    ledger.tick(0.0)
    ledger.tick(10.0)
    ledger.acknowledge(shipping.ledger.Position("b", 2))
    ledger.tick(11.0)
    assert ledger.rewind() == shipping.ledger.Position("a", 1)
    ledger.tick(30.0)
    assert ledger.settled == shipping.ledger.Position("a", 1)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"stream": "x"}', "null"])
def test_a_lost_position_begins_another_stream(
    shipping: SimpleNamespace, state: Path, content: str | None
):
    if content is not None:
        state.write_text(content)
    one, other = shipping.ledger.Ledger(state), shipping.ledger.Ledger(state)
    assert one.settled == shipping.ledger.Position(None, 0)
    assert one.stream != other.stream
