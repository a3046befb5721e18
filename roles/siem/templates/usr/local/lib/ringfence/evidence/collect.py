"""Write events from rsyslog into the record; rsyslog's omprog starts this program.

It reads lines `ADDRESS MESSAGE` and answers each with `OK` once the event is written, or with an
error. rsyslog acknowledges an event to its sender only after `OK`, so a refused event waits on the
sender's disk.
"""

from __future__ import annotations

import json
import math
import os
import select
import shutil
import sys
import syslog
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import records
from store import HostRecord, Seals

SYNC_SECONDS = 1.0
UNIDENTIFIED = "_unidentified"
"""Directory for a declared sender whose address and claimed name match no host."""
INPUT, OUTPUT = 0, 1


@dataclass(frozen=True)
class Settings:
    directory: Path
    key_file: Path
    sources: Mapping[str, str]
    """Host by address."""
    names: frozenset[str]
    seal_seconds: int
    reserve_bytes: int

    @classmethod
    def load(cls, path: Path) -> Settings:
        doc = json.loads(path.read_text())
        return cls(
            directory=Path(doc["directory"]),
            key_file=Path(doc["key_file"]),
            sources={
                str(ip_address(address)): source["name"]
                for source in doc["sources"]
                for address in source["addresses"]
            },
            names=frozenset(s["name"] for s in doc["sources"] if not s["addresses"]),
            seal_seconds=doc["seal_seconds"],
            reserve_bytes=doc["reserve_mib"] * 1024 * 1024,
        )


class Collector:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._records: dict[str, HostRecord] = {}
        self._unsealed: set[str] = set()
        self._seals = Seals(settings.directory / records.SEALS, settings.key_file)
        self._sealed_at = -math.inf  # seal the first events without delay
        self.refusal = ""

    def accept(self, line: bytes) -> None:
        address, _, text = line.decode("utf-8", "replace").partition(" ")
        event, remarks = _parse(text)
        host, more = self._identify(_normalize(address), event)
        try:
            self._record(host).write(event, _now(), _normalize(address), **remarks, **more)
        except (
            RecursionError
        ):  # the event parses, but exceeds the depth for writing when nested in a record
            event, remarks = {"message": text.strip()}, {"unparsed": True}
            self._record(host).write(event, _now(), _normalize(address), **remarks, **more)
        self._unsealed.add(host)

    def tick(self) -> None:
        for host in self._unsealed:
            self._records[host].sync()
        now = time.monotonic()
        if self._unsealed and now - self._sealed_at >= self._settings.seal_seconds:
            self.seal()
        self._check_free_space()

    def seal(self) -> None:
        self._sealed_at = time.monotonic()
        for host in self._unsealed:
            self._records[host].sync()
        if self._unsealed:
            heads = {host: self._records[host].head for host in sorted(self._unsealed)}
            self._seals.write(_now(), heads)
            self._unsealed.clear()

    def refuse(self, reason: str) -> None:
        if reason and not self.refusal:
            _alarm(f"the collector accepts no events: {reason}")
        elif self.refusal and not reason:
            syslog.syslog(syslog.LOG_NOTICE, "the collector accepts events again")
        self.refusal = reason

    def _check_free_space(self) -> None:
        free = shutil.disk_usage(self._settings.directory).free
        short = free < self._settings.reserve_bytes
        self.refuse(f"only {free >> 20} MiB are free for the record" if short else "")

    def _identify(self, address: str, event: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Identify a host by address, or by its claimed name if the manifest has no address."""
        claim = event.get("host")
        if host := self._settings.sources.get(address):
            return host, {} if claim == host else {"host": host, "claimed_host": claim}
        if isinstance(claim, str) and claim in self._settings.names:
            return claim, {}
        return UNIDENTIFIED, {"host": None, "claimed_host": claim}

    def _record(self, host: str) -> HostRecord:
        if host not in self._records:
            record = HostRecord(self._settings.directory / host)
            self._records[host] = record
            if record.torn:
                note = {"message": f"an incomplete line of {record.torn} bytes was removed"}
                record.write(note, _now(), "collector", repaired=record.torn)
                self._unsealed.add(host)
        return self._records[host]


def _parse(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        event = json.loads(text.strip().removeprefix("@cee:"))
    except (ValueError, RecursionError):
        event = None
    if isinstance(event, dict):
        return event, {}
    return {"message": text.strip()}, {"unparsed": True}


def _normalize(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _alarm(text: str) -> None:
    syslog.syslog(syslog.LOG_CRIT, text)


def serve(collector: Collector) -> None:
    os.write(OUTPUT, b"OK\n")
    pending, due = b"", 0.0
    while True:
        readable, _, _ = select.select([INPUT], [], [], max(0.0, due - time.monotonic()))
        if readable:
            data = os.read(INPUT, 1 << 20)
            if not data:
                collector.seal()
                return
            *complete, pending = (pending + data).split(b"\n")
            for line in complete:
                os.write(OUTPUT, answer(collector, line))
        if time.monotonic() >= due:
            collector.tick()
            due = time.monotonic() + SYNC_SECONDS


def answer(collector: Collector, line: bytes) -> bytes:
    if not collector.refusal:
        try:
            collector.accept(line)
        except OSError as error:
            collector.refuse(str(error))
        # rsyslog repeats a refused line forever: one that cannot be recorded must not block the
        # rest.
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            _alarm(f"dropped an event that cannot be recorded: {error!r}")
    return f"Error: {collector.refusal}\n".encode() if collector.refusal else b"OK\n"


def main() -> None:
    os.umask(0o027)
    syslog.openlog("ringfence-collector", 0, syslog.LOG_DAEMON)
    try:
        collector = Collector(Settings.load(Path(sys.argv[1])))
        collector.tick()
        serve(collector)
    except (OSError, ValueError, KeyError) as error:
        _alarm(f"the collector stops: {error!r}")
        sys.exit(1)


if __name__ == "__main__":
    main()
