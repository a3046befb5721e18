"""Suricata's events to the journal, as fields: what happened between whom, and never what was said.

    events.py DROPPED_PERCENT SILENT_REPORTS

Reads EVE from the socket that systemd hands over, a JSON document a line. Of each, only what is
named here goes on: a new version of Suricata adds nothing by itself.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

JOURNAL = "/run/systemd/journal/socket"
HANDED_OVER = 3
"""Descriptor of the listening socket (sd_listen_fds)."""
VXLAN = 4789
LONGEST_LINE = 256 * 1024
LONGEST_VALUE = 512
PATIENCE = 100
"""Attempts to reach the journal, a tenth of a second apart."""

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

LOST = (
    "stats.capture.kernel_drops_delta",
    "stats.flow.memcap_delta",
    "stats.tcp.ssn_memcap_drop_delta",
    "stats.tcp.segment_memcap_drop_delta",
)
"""What was not inspected since the last report."""
TAKEN = "stats.capture.kernel_packets_delta"

ERROR, WARNING, NOTICE, INFORMATIONAL = 3, 4, 5, 6
PRIORITIES = {1: ERROR, 2: WARNING, 3: NOTICE}
"""Of the journal, by severity of an alert."""

Document = Mapping[str, Any]
Entry = dict[str, str]


@dataclass
class Watch:
    """Over what the sensor itself does not see."""

    dropped_percent: float
    silent_reports: int
    silence: int = 0

    def entries(self, document: Document) -> Iterator[Entry]:
        taken = number(document, TAKEN)
        lost = sum(number(document, path) for path in LOST)
        seen = taken + lost
        if lost and lost * 100 > self.dropped_percent * seen:
            yield {
                "MESSAGE": f"{lost} of {seen} packets were not inspected",
                "PRIORITY": str(ERROR),
                "NIDS_EVENT": "drops",
                "NIDS_LOST": str(lost),
                "NIDS_TAKEN": str(taken),
            }
        self.silence = 0 if seen else self.silence + 1
        if self.silence == self.silent_reports:
            yield {
                "MESSAGE": "nothing is mirrored to this sensor any more",
                "PRIORITY": str(ERROR),
                "NIDS_EVENT": "silence",
            }


def entry(document: Document) -> Entry | None:
    """An event as the journal has it; nothing for one that does not go on."""
    kind = str(document.get("event_type"))
    if kind not in FIELDS:
        return None
    if kind == "flow":
        # The wrappers are no connections of the environment.
        if document.get("proto") == "UDP" and document.get("dest_port") == VXLAN:
            return None
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


def lines(connection: socket.socket) -> Iterator[bytes]:
    """Whole ones: what is too long to be an event is passed over."""
    whole = True
    with connection.makefile("rb") as stream:
        while line := stream.readline(LONGEST_LINE):
            ended = line.endswith(b"\n")
            if ended and whole:
                yield line
            whole = ended


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


def serve(listening: socket.socket, journal: Journal, watch: Watch) -> None:
    while True:
        connection, _ = listening.accept()
        with connection:
            for line in lines(connection):
                try:
                    document = json.loads(line)
                except ValueError:
                    continue
                if not isinstance(document, dict):
                    continue
                if fields := entry(document):
                    journal.send(fields)
                if document.get("event_type") == "stats":
                    for fields in watch.entries(document):
                        journal.send(fields)


def main() -> None:
    dropped_percent, silent_reports = sys.argv[1:]
    listening = socket.socket(fileno=HANDED_OVER)
    serve(listening, Journal(), Watch(float(dropped_percent), int(silent_reports)))


if __name__ == "__main__":
    main()
