"""Suricata's events that leave a sensor, and reports about the sensor itself."""

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


def test_an_alert_names_signature_and_endpoints(events: ModuleType) -> None:
    entry = events.entry(ALERT)
    assert entry["MESSAGE"] == "MCP on an undeclared port: 10.0.0.1:40000 -> 10.0.0.2:9000"
    assert entry["PRIORITY"] == "3"
    assert entry["NIDS_SIGNATURE_ID"] == "1200022"
    assert entry["NIDS_CONTROL"] == "NET-01"
    assert entry["NIDS_HTTP_HOSTNAME"] == "tools-1"


def test_contents_of_traffic_do_not_leave(events: ModuleType) -> None:
    text = events.datagram(events.entry(ALERT)).decode()
    assert "customers" not in text
    assert "s3cret" not in text


def test_untrusted_text_becomes_no_field(events: ModuleType) -> None:
    forged = {**ALERT, "tls": {"sni": "a\nPRIORITY=7\nMESSAGE=nothing happened", "ja4": "t" * 5000}}
    lines = events.datagram(events.entry(forged)).decode().splitlines()
    assert sum(line.startswith("PRIORITY=") for line in lines) == 1
    assert sum(line.startswith("MESSAGE=") for line in lines) == 1
    assert max(map(len, lines)) < 600


def test_a_flow_keeps_the_format_of_suricata(events: ModuleType) -> None:
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


class FakeJournal:
    """Journal that records entries in memory."""

    def __init__(self) -> None:
        self.entries: list[dict[str, str]] = []

    def send(self, fields: dict[str, str]) -> None:
        self.entries.append(fields)

    def kinds(self) -> list[str]:
        return [each["NIDS_EVENT"] for each in self.entries]


def test_vxlan_flows_of_mirrored_packets_are_left_out(events: ModuleType) -> None:
    journal = FakeJournal()
    flows = events.Flows(journal, frozenset({"10.0.0.9"}))
    wrapper = {"event_type": "flow", "proto": "UDP", "dest_ip": "10.0.0.9", "dest_port": 4789}
    flows.handle(wrapper)
    assert not journal.entries
    flows.handle({**wrapper, "dest_port": 4790})
    flows.handle({**wrapper, "dest_ip": "10.0.0.8"})
    assert len(journal.entries) == 2


@pytest.mark.parametrize("kind", ["http", "dns", "fileinfo", None, ["alert"]])
def test_other_events_are_not_forwarded(events: ModuleType, kind: object) -> None:
    assert events.entry({**ALERT, "event_type": kind}) is None


@pytest.mark.parametrize(
    ("taken", "dropped", "reported"),
    [(990, 10, False), (980, 20, True), (0, 0, False), (0, 1, True)],
)
def test_lost_packets_beyond_the_bound_are_an_event(
    events: ModuleType, taken: int, dropped: int, reported: bool
) -> None:
    entries = [*events.Watch(1.0, 300, 60, 0).report(stats(taken, dropped), 10)]
    assert [entry["NIDS_EVENT"] for entry in entries] == (["drops"] if reported else [])


def test_silence_is_reported_once_and_again_after_packets(events: ModuleType) -> None:
    watch = events.Watch(1.0, 30, 60, 0)
    now = iter(range(10, 1000, 10))

    def silences(*reports: int) -> int:
        return sum(
            entry["NIDS_EVENT"] == "silence"
            for taken in reports
            for entry in watch.report(stats(taken, 0), next(now))
        )

    assert silences(0, 0) == 0
    assert silences(0, 0, 0, 0) == 1
    assert silences(5, 0, 0) == 0
    assert silences(0) == 1


def test_missing_statistics_are_reported_once(events: ModuleType) -> None:
    watch = events.Watch(1.0, 300, 60, 0)
    assert [*watch.tick(59)] == []
    assert [entry["NIDS_EVENT"] for entry in watch.tick(60)] == ["stopped"]
    assert [*watch.tick(61)] == []
    assert [*watch.report(stats(1, 0), 70)] == []
    assert [*watch.tick(129)] == []
    assert len([*watch.tick(130)]) == 1


class TestAlertsThatDoNotArrive:
    """Each case: alerts that Suricata counted and alerts that arrived, every ten seconds."""

    def lost(self, events: ModuleType, *reports: tuple[int, int], uptime: int = 12) -> list[str]:
        watch = events.Watch(1.0, 300, 60, 0)
        watch.on_connect(0)
        lost: list[str] = []
        for number, (raised, arrived) in enumerate(reports, 1):
            watch.received += arrived
            detect = {"alert": raised, "alert_queue_overflow": 0}
            capture = {"kernel_packets_delta": 1}
            up = uptime + 10 * (number - 1)
            counted = {"stats": {"capture": capture, "detect": detect, "uptime": up}}
            lost += [entry.get("NIDS_LOST") for entry in watch.report(counted, 10 * number)]
        return lost

    def test_all_arrived(self, events: ModuleType) -> None:
        assert self.lost(events, (0, 0), (5, 5), (9, 4), (9, 0)) == []

    def test_some_did_not(self, events: ModuleType) -> None:
        assert self.lost(events, (0, 0), (5, 3), (9, 4), (12, 2)) == ["2", "1"]

    def test_the_first_ones_did_not(self, events: ModuleType) -> None:
        assert self.lost(events, (1500, 500), (2100, 100)) == ["1000", "500"]

    def test_they_arrive_before_they_are_counted(self, events: ModuleType) -> None:
        assert self.lost(events, (0, 2), (2, 1), (3, 0), (4, 1)) == []

    def test_those_of_before_the_reader_was_there_are_not_its_own(self, events: ModuleType) -> None:
        assert self.lost(events, (700, 0), (705, 4), uptime=3600) == ["1"]

    def test_what_such_a_reader_got_before_the_first_report_may_count_later(
        self, events: ModuleType
    ) -> None:
        assert self.lost(events, (700, 3), (703, 0), (704, 1), uptime=3600) == []


def test_alerts_beyond_the_limit_are_reported_as_one(events: ModuleType) -> None:
    journal = FakeJournal()
    bound = events.AlertLimit(3, 0)
    alerts = events.Alerts(journal, events.Watch(1.0, 300, 60, 0), bound, Path("unused"))
    for _ in range(10):
        alerts.handle(ALERT)
    other = {**ALERT, "alert": {**ALERT["alert"], "signature_id": 1200001}}
    alerts.handle(other)
    assert journal.kinds() == ["alert"] * 4
    assert journal.entries[-1]["NIDS_SIGNATURE_ID"] == "1200001"
    assert [*bound.tick(59)] == []
    (flood,) = bound.tick(60)
    assert flood["NIDS_FURTHER"] == "7"
    assert flood["NIDS_SIGNATURE_ID"] == "1200022"
    assert flood["MESSAGE"].startswith(
        "7 further alerts within a minute: MCP on an undeclared port"
    )
    alerts.handle(ALERT)
    assert journal.kinds() == ["alert"] * 5
    assert [*bound.tick(120)] == []


def test_pending_alerts_are_reported_at_the_end(events: ModuleType, tmp_path: Path) -> None:
    journal = FakeJournal()
    watch = events.Watch(1.0, 300, 60, 0)
    alerts = events.Alerts(journal, watch, events.AlertLimit(3, 0), tmp_path / "reported")
    for _ in range(5):
        alerts.handle(ALERT)
    alerts.close()
    assert journal.kinds() == ["alert"] * 3 + ["flood"]
    assert journal.entries[-1]["NIDS_FURTHER"] == "2"


def test_alerts_over_two_connections(events: ModuleType, tmp_path: Path) -> None:
    """Over a real socket: an alert, statistics, the end of Suricata, and its next start."""
    journal, reported = FakeJournal(), tmp_path / "reported"
    now = events.time.monotonic()
    alerts = events.Alerts(
        journal, events.Watch(1.0, 300, 60, now), events.AlertLimit(9, now), reported
    )
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "events.sock"))
    listening.listen()
    threading.Thread(target=events.serve, args=(listening, alerts), daemon=True).start()

    def eventually(expected: list[str], exists: bool) -> None:
        for _ in range(100):
            if journal.kinds() == expected and reported.exists() == exists:
                return
            threading.Event().wait(0.05)
        raise AssertionError((journal.kinds(), reported.exists()))

    for start in (1, 2):
        with socket.socket(socket.AF_UNIX) as suricata:
            suricata.connect(str(tmp_path / "events.sock"))
            text = f"{json.dumps(ALERT)}\nnot JSON\n[1]\n{json.dumps(stats(1, 0))}\n"
            suricata.sendall(text.encode())
            eventually(["alert", "stats"] * start, exists=True)
        eventually(["alert", "stats"] * start, exists=False)


def test_an_overlong_line_is_skipped(events: ModuleType) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        long = b"x" * (3 * events.LONGEST_LINE) + b"\n"
        sender = threading.Thread(
            target=lambda: (theirs.sendall(b"1\n" + long + b"{}\nrest"), theirs.close())
        )
        sender.start()
        taken = [line for batch in events.Lines(ours).batches() for line in batch]
        assert taken == [b"1", b"{}"]
        sender.join(10)


def test_all_data_is_received_before_it_is_processed(events: ModuleType) -> None:
    ours, theirs = socket.socketpair()
    lines = [b"%d" % number for number in range(5 * events.BATCH)]
    with ours:
        theirs.sendall(b"\n".join(lines) + b"\n")
        reading = events.Lines(ours)
        batches = reading.batches()
        assert next(batches) == lines[: events.BATCH]
        assert len(reading.waiting) == 4 * events.BATCH
        theirs.sendall(b"last\n")
        theirs.close()
        assert [line for batch in batches for line in batch] == [*lines[events.BATCH :], b"last"]
        assert reading.backlog == 0
