"""What of Suricata's events leaves a sensor, and what it says about itself."""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "roles/nids/templates/usr/local/lib/ringfence/nids/events.py"

ALERT: dict[str, Any] = {
    "event_type": "alert",
    "src_ip": "10.0.0.1",
    "src_port": 40000,
    "dest_ip": "10.0.0.2",
    "dest_port": 9000,
    "proto": "TCP",
    "alert": {
        "signature_id": 1200022,
        "signature": "MCP on an undeclared port",
        "severity": 1,
        "metadata": {"control": ["NET-01"]},
    },
    "http": {"hostname": "tools-1", "http_method": "POST", "url": "/mcp?token=s3cret"},
    "payload_printable": "read_query select * from customers",
    "app_proto": "http",
}


@pytest.fixture(scope="module")
def events() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nids_events", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def stats(taken: int, dropped: int) -> dict[str, Any]:
    capture = {"kernel_packets_delta": taken, "kernel_drops_delta": dropped}
    return {"event_type": "stats", "stats": {"capture": capture}}


def test_an_alert_says_what_happened_between_whom(events: ModuleType) -> None:
    entry = events.entry(ALERT)
    assert entry["MESSAGE"] == "MCP on an undeclared port: 10.0.0.1:40000 -> 10.0.0.2:9000"
    assert entry["PRIORITY"] == "3"
    assert entry["NIDS_SIGNATURE_ID"] == "1200022"
    assert entry["NIDS_CONTROL"] == "NET-01"
    assert entry["NIDS_HTTP_HOSTNAME"] == "tools-1"


def test_nothing_that_was_said_leaves(events: ModuleType) -> None:
    said = events.datagram(events.entry(ALERT)).decode()
    assert "customers" not in said
    assert "s3cret" not in said


def test_a_name_of_a_stranger_becomes_no_field(events: ModuleType) -> None:
    forged = {**ALERT, "tls": {"sni": "a\nPRIORITY=7\nMESSAGE=nothing happened", "ja4": "t" * 5000}}
    lines = events.datagram(events.entry(forged)).decode().splitlines()
    assert sum(line.startswith("PRIORITY=") for line in lines) == 1
    assert sum(line.startswith("MESSAGE=") for line in lines) == 1
    assert max(map(len, lines)) < 600


def test_a_flow_keeps_the_shape_that_suricata_gives_it(events: ModuleType) -> None:
    flow = {
        "event_type": "flow",
        "src_ip": "10.0.0.1",
        "proto": "TCP",
        "flow": {"pkts_toclient": 3, "start": "2026-11-25T08:00:00.0+0000", "tx_cnt": 7},
        "tcp": {"tcp_flags_tc": "12", "ts_max_regions": 1},
    }
    document = json.loads(events.entry(flow)["MESSAGE"])
    assert document["flow"] == {"pkts_toclient": 3, "start": "2026-11-25T08:00:00.0+0000"}
    assert document["tcp"] == {"tcp_flags_tc": "12"}


def test_wrappers_of_copies_are_no_connections(events: ModuleType) -> None:
    flow = {"event_type": "flow", "proto": "UDP", "dest_port": 4789}
    assert events.entry(flow) is None
    assert events.entry({**flow, "dest_port": 4790})


@pytest.mark.parametrize("kind", ["http", "dns", "fileinfo", None, ["alert"]])
def test_other_events_stay(events: ModuleType, kind: object) -> None:
    assert events.entry({**ALERT, "event_type": kind}) is None


@pytest.mark.parametrize(
    ("taken", "dropped", "said"), [(990, 10, False), (980, 20, True), (0, 0, False), (0, 1, True)]
)
def test_lost_packets_beyond_the_bound_are_an_event(
    events: ModuleType, taken: int, dropped: int, said: bool
) -> None:
    entries = [*events.Watch(1.0, 5).entries(stats(taken, dropped))]
    assert [entry["NIDS_EVENT"] for entry in entries] == (["drops"] if said else [])


def test_silence_is_said_once_and_again_after_packets(events: ModuleType) -> None:
    watch = events.Watch(1.0, 3)

    def said(*reports: int) -> int:
        return sum(
            entry["NIDS_EVENT"] == "silence"
            for taken in reports
            for entry in watch.entries(stats(taken, 0))
        )

    assert said(0, 0) == 0
    assert said(0, 0, 0, 0) == 1
    assert said(5, 0, 0) == 0
    assert said(0) == 1


def test_a_line_without_end_is_passed_over(events: ModuleType) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        long = b"x" * (3 * events.LONGEST_LINE) + b"\n"
        sender = threading.Thread(target=lambda: (theirs.sendall(long + b"{}\n"), theirs.close()))
        sender.start()
        assert [*events.lines(ours)] == [b"{}\n"]
        sender.join(10)
