"""Write Suricata's events to the journal as fields: endpoints and findings, never contents.

    events.py {alerts,flows} OPTIONS

It reads EVE, one JSON document per line, from a socket that systemd passes. It forwards only the
fields listed here, so a new version of Suricata adds none. The alerts' socket carries Suricata's
statistics too: lost packets and missing statistics become events.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

JOURNAL = "/run/systemd/journal/socket"
LISTENING_SOCKET = 3
"""Descriptor that systemd passes (sd_listen_fds)."""
VXLAN = 4789
LONGEST_LINE = 256 * 1024
LONGEST_VALUE = 512
JOURNAL_ATTEMPTS = 100
"""Attempts to reach the journal, a tenth of a second apart."""
TICK = 1.0
"""Seconds between checks for timeouts while no event arrives."""
START_SECONDS = 30
"""Maximum seconds from Suricata's start to its connection."""
CHUNK = 64 * 1024
BATCH = 20
LARGEST_BACKLOG = 32 * 1024 * 1024
"""Maximum of received bytes that wait for processing; the rest stays in the small socket buffer."""
MINUTE = 60

ENDPOINTS = (
    "src_ip",
    "src_port",
    "dest_ip",
    "dest_port",
    "proto",
    "app_proto",
    "flow_id",
    "in_iface",
)
FIELDS: Mapping[str, tuple[str, ...]] = {
    "alert": (
        *ENDPOINTS,
        *("timestamp", "community_id", "direction", "pkt_src"),
        *("alert.signature_id", "alert.rev", "alert.signature", "alert.category"),
        *("alert.severity", "alert.metadata.control", "alert.metadata.segment"),
        *("tls.sni", "tls.version", "tls.ja4", "http.hostname", "http.http_method"),
        *("ssh.client.software_version", "tunnel.src_ip"),
    ),
    "flow": (
        *ENDPOINTS,
        *("community_id", "icmp_type", "icmp_code"),
        *("flow.pkts_toserver", "flow.pkts_toclient", "flow.bytes_toserver"),
        *("flow.bytes_toclient", "flow.start", "flow.end", "flow.state", "flow.reason"),
        *("flow.alerted", "tcp.state", "tcp.tcp_flags_ts", "tcp.tcp_flags_tc"),
    ),
    "anomaly": (*ENDPOINTS, "anomaly.type", "anomaly.event", "anomaly.layer"),
    "stats": (
        *("stats.uptime", "stats.capture.kernel_packets", "stats.capture.kernel_drops"),
        *("stats.decoder.pkts", "stats.decoder.vxlan", "stats.decoder.invalid"),
        *("stats.flow.memcap", "stats.tcp.ssn_memcap_drop", "stats.tcp.segment_memcap_drop"),
        *("stats.detect.alert", "stats.detect.alert_queue_overflow"),
    ),
}
"""Fields to forward, by event type; paths into the document."""

SIGNATURE_FIELDS = ("PRIORITY", "NIDS_SIGNATURE_ID", "NIDS_SIGNATURE", "NIDS_CONTROL")
"""Fields that are equal in all alerts of a signature."""

LOST = (
    "stats.capture.kernel_drops_delta",
    "stats.flow.memcap_delta",
    "stats.tcp.ssn_memcap_drop_delta",
    "stats.tcp.segment_memcap_drop_delta",
)
"""Counters of packets that were not inspected since the last statistics."""
INSPECTED = "stats.capture.kernel_packets_delta"
RAISED = ("stats.detect.alert", "stats.detect.alert_queue_overflow")
"""Alerts since Suricata started: written ones, and those beyond the limit per packet."""

ERROR, WARNING, NOTICE, INFORMATIONAL = 3, 4, 5, 6
PRIORITIES = {1: ERROR, 2: WARNING, 3: NOTICE}
"""Journal priority by severity of an alert."""

Document = Mapping[str, Any]
Entry = dict[str, str]


@dataclass
class Watch:
    """Detects what the sensor misses. Times are seconds of the monotonic clock."""

    dropped_percent: float
    silent_seconds: float
    report_seconds: float
    """Without statistics for this long, Suricata counts as stopped."""
    now: float
    """Start of the watch."""
    failures: set[str] = field(default_factory=set)
    received: int = 0
    raised: int | None = None

    def __post_init__(self) -> None:
        self.reported = self.packets = self.since = self.now

    def on_connect(self, now: float) -> None:
        """Reset the counts: Suricata has restarted, or this reader has."""
        self.since, self.received, self.raised = now, 0, None

    def tick(self, now: float) -> Iterator[Entry]:
        if now - self.reported >= self.report_seconds:
            seconds = f"{now - self.reported:.0f}"
            yield from self._report_once(
                "stopped", f"Suricata has not reported for {seconds} seconds"
            )

    def report(self, document: Document, now: float) -> Iterator[Entry]:
        self.reported = now
        self.failures.discard("stopped")
        inspected = number(document, INSPECTED)
        lost = sum(number(document, path) for path in LOST)
        total = inspected + lost
        if lost and lost * 100 > self.dropped_percent * total:
            yield failure("drops", f"{lost} of {total} packets were not inspected") | {
                "NIDS_LOST": str(lost),
                "NIDS_TAKEN": str(inspected),
            }
        if total:
            self.packets = now
            self.failures.discard("silence")
        elif now - self.packets >= self.silent_seconds:
            yield from self._report_once("silence", "no packets are mirrored to this sensor")
        uptime = number(document, "stats.uptime")
        is_new = uptime < now - self.since + START_SECONDS
        yield from self._find_missing(sum(number(document, path) for path in RAISED), is_new)

    def _find_missing(self, raised: int, is_new: bool) -> Iterator[Entry]:
        """Compare counted and received alerts: Suricata drops alerts for a reader that is too slow.

        An alert may arrive before the statistics count it. A reader that connects later cannot tell
        whether the first statistics count the alerts that it has received.
        """
        if self.raised is None:
            self.raised = 0 if is_new else raised
        lost = raised - self.raised - self.received
        if lost > 0:
            self.raised += lost
            yield failure("lost", f"{lost} alerts did not arrive") | {"NIDS_LOST": str(lost)}

    def _report_once(self, event: str, text: str) -> Iterator[Entry]:
        if event not in self.failures:
            self.failures.add(event)
            yield failure(event, text)


def failure(event: str, text: str) -> Entry:
    return {"MESSAGE": text, "PRIORITY": str(ERROR), "NIDS_EVENT": event}


@dataclass
class AlertLimit:
    """Limits alerts per signature and minute; reports the rest as one event."""

    alerts_per_minute: int
    since: float
    counts: Counter[str] = field(default_factory=Counter)
    last: dict[str, Entry] = field(default_factory=dict)

    def admits(self, alert: Entry) -> bool:
        signature = alert.get("NIDS_SIGNATURE_ID", "")
        self.counts[signature] += 1
        self.last[signature] = alert
        return self.counts[signature] <= self.alerts_per_minute

    def tick(self, now: float) -> Iterator[Entry]:
        if now - self.since >= MINUTE:
            yield from self.summarize()
            self.since = now

    def summarize(self) -> Iterator[Entry]:
        """Report the alerts beyond the limit, and reset the counts."""
        for signature, count in self.counts.items():
            if (excess := count - self.alerts_per_minute) > 0:
                last = self.last[signature]
                yield {key: last[key] for key in SIGNATURE_FIELDS if key in last} | {
                    "MESSAGE": f"{excess} further alerts within a minute: {last['MESSAGE']}",
                    "NIDS_EVENT": "flood",
                    "NIDS_FURTHER": str(excess),
                }
        self.counts.clear()
        self.last.clear()


def entry(document: Document) -> Entry | None:
    """Convert an event to a journal entry; None if its type is not forwarded."""
    kind = str(document.get("event_type"))
    if kind not in FIELDS:
        return None
    if kind == "flow":
        # In Suricata's own format, which other tools read; not as fields too, to save space.
        text = json.dumps({"event_type": kind, **select_fields(document, FIELDS[kind])})
        return {"MESSAGE": text, "NIDS_EVENT": kind, "PRIORITY": str(INFORMATIONAL)}
    found: Entry = {"MESSAGE": message(kind, document), "NIDS_EVENT": kind}
    severity = look_up(document, "alert.severity")
    found["PRIORITY"] = str(PRIORITIES.get(severity, INFORMATIONAL))
    for path in FIELDS[kind]:
        value = look_up(document, path)
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        if value is not None and not isinstance(value, dict):
            # alert.metadata.control becomes NIDS_CONTROL.
            name = path.removeprefix(f"{kind}.").removeprefix("metadata.")
            found[f"NIDS_{name.replace('.', '_').upper()}"] = sanitize(value)
    return found


def select_fields(document: Document, paths: Iterable[str]) -> dict[str, Any]:
    """Copy the given paths of a document and keep its structure."""
    found: dict[str, Any] = {}
    for path in paths:
        value = look_up(document, path)
        if value is not None:
            *above, last = path.split(".")
            place = found
            for key in above:
                place = place.setdefault(key, {})
            place[last] = value
    return found


def message(kind: str, document: Document) -> str:
    if kind == "stats":
        return "statistics of the sensor"
    path = {"alert": "alert.signature", "anomaly": "anomaly.event"}[kind]
    finding = sanitize(look_up(document, path))
    endpoints = [
        ":".join(str(document[key]) for key in (f"{end}_ip", f"{end}_port") if key in document)
        for end in ("src", "dest")
    ]
    return f"{finding}: {' -> '.join(endpoints)}"


def look_up(document: Document, path: str) -> Any:
    value: Any = document
    for key in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def number(document: Document, path: str) -> int:
    value = look_up(document, path)
    return value if isinstance(value, int) else 0


def sanitize(value: Any) -> str:
    """Remove control characters from untrusted text, so that it cannot inject journal fields."""
    text = str(value)[:LONGEST_VALUE]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def datagram(fields: Entry) -> bytes:
    """Encode fields for the journal: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/"""
    lines = {"SYSLOG_IDENTIFIER": "ringfence-nids", **fields}
    return "".join(f"{name}={value}\n" for name, value in lines.items()).encode()


@dataclass
class Lines:
    """Reads complete lines from a connection, and skips those too long for an event."""

    connection: socket.socket
    waiting: deque[bytes] = field(default_factory=deque)
    backlog: int = 0
    """Bytes in `waiting`."""
    ended: bool = False

    def batches(self) -> Iterator[list[bytes]]:
        """Yield a few lines at a time, or none after TICK seconds without any.

        Suricata does not wait for its reader, so this receives all available data before it yields.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, selectors.EVENT_READ)
            receive = self._receive()
            while not self.ended or self.waiting:
                seconds = 0 if self.waiting else TICK
                while (
                    not self.ended and self.backlog < LARGEST_BACKLOG and selector.select(seconds)
                ):
                    next(receive)
                    seconds = 0
                batch = [self.waiting.popleft() for _ in range(min(BATCH, len(self.waiting)))]
                self.backlog -= sum(map(len, batch))
                yield batch

    def _receive(self) -> Iterator[None]:
        rest, whole = b"", True
        while True:
            try:
                data = self.connection.recv(CHUNK)
            except ConnectionError:
                data = b""
            self.ended = not data
            *lines, rest = (rest + data).split(b"\n")
            if lines and not whole:
                del lines[0]
                whole = True
            self.waiting.extend(lines)
            self.backlog += sum(map(len, lines))
            if len(rest) > LONGEST_LINE:
                rest, whole = b"", False
            yield


class Journal:
    """Sends entries to journald; retries while it restarts, and events wait in the socket."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def send(self, fields: Entry) -> None:
        data = datagram(fields)
        for _ in range(JOURNAL_ATTEMPTS):
            try:
                if self._socket is None:
                    self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                    self._socket.connect(JOURNAL)
                self._socket.send(data)
                return
            except OSError:
                if self._socket is not None:
                    self._socket.close()
                self._socket = None
                time.sleep(0.1)
        sys.exit("<3>cannot write to the journal")


@dataclass
class Events:
    """Forwards every event."""

    journal: Journal

    def on_connect(self) -> None:
        """Handle a connection of Suricata."""

    def tick(self) -> None:
        """Check timeouts; called regularly, with or without events."""

    def on_disconnect(self) -> None:
        """Handle the end of a connection."""

    def close(self) -> None:
        """Send what is pending before the program ends."""

    def handle(self, document: Document) -> None:
        if fields := entry(document):
            self.journal.send(fields)


@dataclass
class Flows(Events):
    """Forwards flows, without the VXLAN flows that carry mirrored packets."""

    sensors: frozenset[str]

    def handle(self, document: Document) -> None:
        destination = (document.get("proto"), document.get("dest_port"))
        if destination != ("UDP", VXLAN) or document.get("dest_ip") not in self.sensors:
            super().handle(document)


@dataclass
class Alerts(Events):
    """Forwards alerts, and reports failures of the sensor."""

    watch: Watch
    limit: AlertLimit
    reported: Path

    def on_connect(self) -> None:
        self.watch.on_connect(time.monotonic())

    def tick(self) -> None:
        now = time.monotonic()
        for fields in (*self.watch.tick(now), *self.limit.tick(now)):
            self.journal.send(fields)

    def on_disconnect(self) -> None:
        self.reported.unlink(missing_ok=True)

    def close(self) -> None:
        for fields in self.limit.summarize():
            self.journal.send(fields)

    def handle(self, document: Document) -> None:
        match document.get("event_type"):
            case "alert":
                self.watch.received += 1
                if (fields := entry(document)) and self.limit.admits(fields):
                    self.journal.send(fields)
            case "stats":
                super().handle(document)
                now = time.monotonic()
                self.reported.touch()
                # The monotonic clock, which health.py reads too.
                os.utime(self.reported, (now, now))
                for fields in self.watch.report(document, now):
                    self.journal.send(fields)
            case _:
                super().handle(document)


def serve(listening: socket.socket, events: Events) -> None:
    listening.settimeout(TICK)
    while True:
        events.tick()
        try:
            connection, _ = listening.accept()
        except TimeoutError:
            continue
        with connection:
            events.on_connect()
            for batch in Lines(connection).batches():
                for document in documents(batch):
                    events.handle(document)
                events.tick()
        events.on_disconnect()


def documents(lines: Iterable[bytes]) -> Iterator[Document]:
    for line in lines:
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict):
            yield document


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("alerts", "flows"))
    option = parser.add_argument
    option("--sensor", action="append", default=[], help="address that receives mirrored packets")
    option(
        "--dropped-percent",
        type=float,
        required=True,
        help="percentage of lost packets that raises an event",
    )
    option(
        "--silent-seconds",
        type=float,
        required=True,
        help="seconds without packets that raise an event",
    )
    option(
        "--report-seconds",
        type=float,
        required=True,
        help="seconds without statistics that raise an event",
    )
    option("--alerts-per-minute", type=int, required=True, help="limit per signature")
    option(
        "--reported",
        type=Path,
        required=True,
        help="file whose time is that of the last statistics",
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    journal, now = Journal(), time.monotonic()
    watch = Watch(
        arguments.dropped_percent, arguments.silent_seconds, arguments.report_seconds, now
    )
    limit = AlertLimit(arguments.alerts_per_minute, now)
    kinds = {
        "alerts": Alerts(journal, watch, limit, arguments.reported),
        "flows": Flows(journal, frozenset(arguments.sensor)),
    }
    events = kinds[arguments.kind]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        serve(socket.socket(fileno=LISTENING_SOCKET), events)
    finally:
        events.close()


if __name__ == "__main__":
    main()
