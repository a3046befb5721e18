"""Suricata's events to the journal, as fields: what happened between whom, and never what was said.

    events.py {alerts,flows} OPTIONS

Reads EVE from the socket that systemd hands over, a JSON document a line. Of each, only what is
named here goes on: a new version of Suricata adds nothing by itself. With the alerts come
Suricata's reports on itself: what it misses, or that they stay away, becomes an event too.
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
HANDED_OVER = 3
"""Descriptor of the listening socket (sd_listen_fds)."""
VXLAN = 4789
LONGEST_LINE = 256 * 1024
LONGEST_VALUE = 512
PATIENCE = 100
"""Attempts to reach the journal, a tenth of a second apart."""
TICK = 1.0
"""Seconds after which time itself is looked at, where nothing is said."""
STARTS_WITHIN = 30
"""Seconds from Suricata's start to its first words."""
CHUNK = 64 * 1024
BATCH = 20
MOST_HELD = 32 * 1024 * 1024
"""Bytes that are taken and not yet looked at; more stays in the socket, which is small."""
MINUTE = 60

ENDS = ("src_ip", "src_port", "dest_ip", "dest_port", "proto", "app_proto", "flow_id", "in_iface")
FIELDS: Mapping[str, tuple[str, ...]] = {
    "alert": (
        *ENDS,
        *("timestamp", "community_id", "direction", "pkt_src"),
        *("alert.signature_id", "alert.rev", "alert.signature", "alert.category"),
        *("alert.severity", "alert.metadata.control", "alert.metadata.segment"),
        *("tls.sni", "tls.version", "tls.ja4", "http.hostname", "http.http_method"),
        *("ssh.client.software_version", "tunnel.src_ip"),
    ),
    "flow": (
        *ENDS,
        *("community_id", "icmp_type", "icmp_code"),
        *("flow.pkts_toserver", "flow.pkts_toclient", "flow.bytes_toserver"),
        *("flow.bytes_toclient", "flow.start", "flow.end", "flow.state", "flow.reason"),
        *("flow.alerted", "tcp.state", "tcp.tcp_flags_ts", "tcp.tcp_flags_tc"),
    ),
    "anomaly": (*ENDS, "anomaly.type", "anomaly.event", "anomaly.layer"),
    "stats": (
        *("stats.uptime", "stats.capture.kernel_packets", "stats.capture.kernel_drops"),
        *("stats.decoder.pkts", "stats.decoder.vxlan", "stats.decoder.invalid"),
        *("stats.flow.memcap", "stats.tcp.ssn_memcap_drop", "stats.tcp.segment_memcap_drop"),
        *("stats.detect.alert", "stats.detect.alert_queue_overflow"),
    ),
}
"""What goes on, by type of event; paths into the document."""

OF_A_SIGNATURE = ("PRIORITY", "NIDS_SIGNATURE_ID", "NIDS_SIGNATURE", "NIDS_CONTROL")
"""What alerts of one signature have in common."""

LOST = (
    "stats.capture.kernel_drops_delta",
    "stats.flow.memcap_delta",
    "stats.tcp.ssn_memcap_drop_delta",
    "stats.tcp.segment_memcap_drop_delta",
)
"""What was not inspected since the last report."""
TAKEN = "stats.capture.kernel_packets_delta"
RAISED = ("stats.detect.alert", "stats.detect.alert_queue_overflow")
"""Alerts since Suricata started: those that it wrote, and those for which a packet had no room."""

ERROR, WARNING, NOTICE, INFORMATIONAL = 3, 4, 5, 6
PRIORITIES = {1: ERROR, 2: WARNING, 3: NOTICE}
"""Of the journal, by severity of an alert."""

Document = Mapping[str, Any]
Entry = dict[str, str]


@dataclass
class Watch:
    """Over what the sensor itself does not see. Times are seconds of a clock that only goes on."""

    dropped_percent: float
    silent_seconds: float
    report_seconds: float
    """Without a report for so long, Suricata hangs or is gone."""
    now: float
    """When the watch begins."""
    told: set[str] = field(default_factory=set)
    received: int = 0
    raised: int | None = None

    def __post_init__(self) -> None:
        self.reported = self.packets = self.since = self.now

    def connected(self, now: float) -> None:
        """Another Suricata, or another reader of the same: both count from anew."""
        self.since, self.received, self.raised = now, 0, None

    def idle(self, now: float) -> Iterator[Entry]:
        if now - self.reported >= self.report_seconds:
            seconds = f"{now - self.reported:.0f}"
            yield from self._once("stopped", f"Suricata has not reported for {seconds} seconds")

    def report(self, document: Document, now: float) -> Iterator[Entry]:
        self.reported = now
        self.told.discard("stopped")
        taken = number(document, TAKEN)
        lost = sum(number(document, path) for path in LOST)
        seen = taken + lost
        if lost and lost * 100 > self.dropped_percent * seen:
            yield failure("drops", f"{lost} of {seen} packets were not inspected") | {
                "NIDS_LOST": str(lost),
                "NIDS_TAKEN": str(taken),
            }
        if seen:
            self.packets = now
            self.told.discard("silence")
        elif now - self.packets >= self.silent_seconds:
            yield from self._once("silence", "nothing is mirrored to this sensor any more")
        uptime = number(document, "stats.uptime")
        is_new = uptime < now - self.since + STARTS_WITHIN
        yield from self._missing(sum(number(document, path) for path in RAISED), is_new)

    def _missing(self, raised: int, is_new: bool) -> Iterator[Entry]:
        """Suricata drops what its reader is too slow for. An alert may arrive before it counts: to
        a reader that comes later, what arrived before the first report may not be counted yet.
        """
        if self.raised is None:
            self.raised = 0 if is_new else raised
        lost = raised - self.raised - self.received
        if lost > 0:
            self.raised += lost
            yield failure("lost", f"{lost} alerts did not arrive") | {"NIDS_LOST": str(lost)}

    def _once(self, event: str, said: str) -> Iterator[Entry]:
        if event not in self.told:
            self.told.add(event)
            yield failure(event, said)


def failure(event: str, said: str) -> Entry:
    return {"MESSAGE": said, "PRIORITY": str(ERROR), "NIDS_EVENT": event}


@dataclass
class Bound:
    """On alerts of one signature within a minute: further ones are counted, and told as one."""

    alerts_per_minute: int
    since: float
    seen: Counter[str] = field(default_factory=Counter)
    last: dict[str, Entry] = field(default_factory=dict)

    def admits(self, alert: Entry) -> bool:
        signature = alert.get("NIDS_SIGNATURE_ID", "")
        self.seen[signature] += 1
        self.last[signature] = alert
        return self.seen[signature] <= self.alerts_per_minute

    def idle(self, now: float) -> Iterator[Entry]:
        if now - self.since >= MINUTE:
            yield from self.further()
            self.since = now

    def further(self) -> Iterator[Entry]:
        """Those that were not told one by one; from then on the count begins anew."""
        for signature, count in self.seen.items():
            if (further := count - self.alerts_per_minute) > 0:
                last = self.last[signature]
                kept = (
                    "PRIORITY",
                    *(f"NIDS_{n}" for n in ("SIGNATURE_ID", "SIGNATURE", "CONTROL")),
                )
                yield {key: last[key] for key in kept if key in last} | {
                    "MESSAGE": f"{further} further alerts within a minute: {last['MESSAGE']}",
                    "NIDS_EVENT": "flood",
                    "NIDS_FURTHER": str(further),
                }
        self.seen.clear()
        self.last.clear()


def entry(document: Document) -> Entry | None:
    """An event as the journal has it; nothing for one that does not go on."""
    kind = str(document.get("event_type"))
    if kind not in FIELDS:
        return None
    if kind == "flow":
        # As Suricata has it, for what reads its flows anywhere; once, for there are many.
        said = json.dumps({"event_type": kind, **selected(document, FIELDS[kind])})
        return {"MESSAGE": said, "NIDS_EVENT": kind, "PRIORITY": str(INFORMATIONAL)}
    found: Entry = {"MESSAGE": message(kind, document), "NIDS_EVENT": kind}
    severity = look_up(document, "alert.severity")
    found["PRIORITY"] = str(PRIORITIES.get(severity, INFORMATIONAL))
    for path in FIELDS[kind]:
        value = look_up(document, path)
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        if value is not None and not isinstance(value, dict):
            # alert.metadata.control is NIDS_CONTROL: one name for one thing, whatever its path.
            name = path.removeprefix(f"{kind}.").removeprefix("metadata.")
            found[f"NIDS_{name.replace('.', '_').upper()}"] = printable(value)
    return found


def selected(document: Document, paths: Iterable[str]) -> dict[str, Any]:
    """A part of the document, in its own shape."""
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
        return "what the sensor has seen so far"
    said = {"alert": "alert.signature", "anomaly": "anomaly.event"}[kind]
    what = printable(look_up(document, said))
    ends = [
        ":".join(str(document[key]) for key in (f"{end}_ip", f"{end}_port") if key in document)
        for end in ("src", "dest")
    ]
    return f"{what}: {' -> '.join(ends)}"


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


def printable(value: Any) -> str:
    """Names come from strangers: no line of theirs becomes a field of ours."""
    text = str(value)[:LONGEST_VALUE]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def datagram(fields: Entry) -> bytes:
    """https://systemd.io/JOURNAL_NATIVE_PROTOCOL/"""
    lines = {"SYSLOG_IDENTIFIER": "ringfence-nids", **fields}
    return "".join(f"{name}={value}\n" for name, value in lines.items()).encode()


@dataclass
class Lines:
    """Whole lines of a connection. One that is too long to be an event is passed over."""

    connection: socket.socket
    waiting: deque[bytes] = field(default_factory=deque)
    held: int = 0
    """Bytes that wait."""
    ended: bool = False

    def batches(self) -> Iterator[list[bytes]]:
        """A few at a time, or none after a while without any. Suricata does not wait for its
        reader: what has been said is taken first, and looked at then.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, selectors.EVENT_READ)
            take = self._take()
            while not self.ended or self.waiting:
                seconds = 0 if self.waiting else TICK
                while not self.ended and self.held < MOST_HELD and selector.select(seconds):
                    next(take)
                    seconds = 0
                batch = [self.waiting.popleft() for _ in range(min(BATCH, len(self.waiting)))]
                self.held -= sum(map(len, batch))
                yield batch

    def _take(self) -> Iterator[None]:
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
            self.held += sum(map(len, lines))
            if len(rest) > LONGEST_LINE:
                rest, whole = b"", False
            yield


class Journal:
    """Waited for while journald is started anew: what comes meanwhile stays in the socket."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def send(self, fields: Entry) -> None:
        said = datagram(fields)
        for _ in range(PATIENCE):
            try:
                if self._socket is None:
                    self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                    self._socket.connect(JOURNAL)
                self._socket.send(said)
                return
            except OSError:
                if self._socket is not None:
                    self._socket.close()
                self._socket = None
                time.sleep(0.1)
        sys.exit("<3>the journal takes no events")


@dataclass
class Events:
    """Sent on as they come."""

    journal: Journal

    def connected(self) -> None:
        """Suricata is there."""

    def idle(self) -> None:
        """Now and then, whether something is said or not."""

    def gone(self) -> None:
        """Suricata is not there any more."""

    def end(self) -> None:
        """Nothing will be read any more."""

    def take(self, document: Document) -> None:
        if fields := entry(document):
            self.journal.send(fields)


@dataclass
class Flows(Events):
    """Who talked to whom, without the wrappers of what was mirrored."""

    sensors: frozenset[str]

    def take(self, document: Document) -> None:
        ends = (document.get("proto"), document.get("dest_port"))
        if ends != ("UDP", VXLAN) or document.get("dest_ip") not in self.sensors:
            super().take(document)


@dataclass
class Alerts(Events):
    """Alerts, and whether there would be any."""

    watch: Watch
    bound: Bound
    reported: Path

    def connected(self) -> None:
        self.watch.connected(time.monotonic())

    def idle(self) -> None:
        now = time.monotonic()
        for fields in (*self.watch.idle(now), *self.bound.idle(now)):
            self.journal.send(fields)

    def gone(self) -> None:
        self.reported.unlink(missing_ok=True)

    def end(self) -> None:
        for fields in self.bound.further():
            self.journal.send(fields)

    def take(self, document: Document) -> None:
        match document.get("event_type"):
            case "alert":
                self.watch.received += 1
                if (fields := entry(document)) and self.bound.admits(fields):
                    self.journal.send(fields)
            case "stats":
                super().take(document)
                now = time.monotonic()
                self.reported.touch()
                # By the clock that nobody sets: a reader compares it with its own.
                os.utime(self.reported, (now, now))
                for fields in self.watch.report(document, now):
                    self.journal.send(fields)
            case _:
                super().take(document)


def serve(listening: socket.socket, events: Events) -> None:
    listening.settimeout(TICK)
    while True:
        events.idle()
        try:
            connection, _ = listening.accept()
        except TimeoutError:
            continue
        with connection:
            events.connected()
            for batch in Lines(connection).batches():
                for document in documents(batch):
                    events.take(document)
                events.idle()
        events.gone()


def documents(lines: Iterable[bytes]) -> Iterator[Document]:
    for line in lines:
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict):
            yield document


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("alerts", "flows"))
    option = parser.add_argument
    option("--sensor", action="append", default=[], help="address that copies are sent to")
    option("--dropped-percent", type=float, required=True, help="of packets that are an event")
    option("--silent-seconds", type=float, required=True, help="without a packet that are")
    option("--report-seconds", type=float, required=True, help="without a report that are")
    option("--alerts-per-minute", type=int, required=True, help="of one signature; others count")
    option("--reported", type=Path, required=True, help="file that is as old as the last report")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    journal, now = Journal(), time.monotonic()
    watch = Watch(given.dropped_percent, given.silent_seconds, given.report_seconds, now)
    bound = Bound(given.alerts_per_minute, now)
    kinds = {
        "alerts": Alerts(journal, watch, bound, given.reported),
        "flows": Flows(journal, frozenset(given.sensor)),
    }
    events = kinds[given.kind]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        serve(socket.socket(fileno=HANDED_OVER), events)
    finally:
        events.end()


if __name__ == "__main__":
    main()
