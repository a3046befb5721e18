"""Send the journal to the collector by RELP over mutual TLS 1.3.

The journal is the queue: on disk, bounded, intact after a crash. The position advances only after
the collector has acknowledged an event, so no event is lost in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import ssl
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import events
from ledger import Ledger, Position
from relp import RelpError, Session
from systemd import journal

WINDOW = 1024
"""Maximum of events in flight."""
BATCH = 64
CONNECT_SECONDS = 10
ANSWER_SECONDS = 15
LONGEST_PAUSE = 5.0
POLL_SECONDS = 1.0
"""Polling interval, for changes that inotify misses."""

UNCHANGED: dict[str, Callable[[Any], Any]] = {
    "__REALTIME_TIMESTAMP": lambda value: value,
    "__MONOTONIC_TIMESTAMP": lambda value: value,
    "__CURSOR": lambda value: value,
}


@dataclass(frozen=True)
class Settings:
    host: str
    address: str
    port: int
    server_name: str
    ca_file: str
    certificate_file: str
    key_file: str

    @classmethod
    def load(cls, path: Path) -> Settings:
        return cls(**json.loads(path.read_text()))

    def tls(self) -> ssl.SSLContext:
        """Load the certificates; every connection does, because they are renewed meanwhile."""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.certificate_file, self.key_file)
        return context


class Journal:
    """Reads entries in order, from a position."""

    def __init__(self) -> None:
        self._reader = journal.Reader()
        # The library's own converters cost more than all other work here.
        self._reader.converters = UNCHANGED
        self._found: dict[str, Any] | None = None

    def seek(self, cursor: str | None) -> bool:
        """Move past the entry of a cursor; if it is gone, move to the next one and return False."""
        self._found = None
        if cursor is None:
            self._reader.seek_head()
            return True
        self._reader.seek_cursor(cursor)
        self._found = self._reader.get_next() or None
        if self._found and self._found["__CURSOR"] == cursor:
            self._found = None
            return True
        return False

    def next(self) -> dict[str, Any] | None:
        found, self._found = self._found, None
        return found or self._reader.get_next() or None

    async def wait(self) -> None:
        """Wait until there may be new entries."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._reader.fileno(), changed.set)
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await changed.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(self._reader.fileno())
        self._reader.process()


class Shipment:
    """One connection to the collector."""

    def __init__(
        self,
        entries: Journal,
        ledger: Ledger,
        settings: Settings,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._journal, self._ledger, self._settings = entries, ledger, settings
        self._reader, self._writer = streams
        self._session = Session()
        self._in_flight: deque[tuple[float, Position]] = deque()
        self._window_free = asyncio.Event()

    async def run(self, on_open: Callable[[], None]) -> None:
        self._writer.write(self._session.open())
        async with asyncio.timeout(CONNECT_SECONDS):
            while not self._session.is_open:
                self._session.receive(await self._read())
        on_open()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send())
            group.create_task(self._receive_answers())
            group.create_task(self._check_progress())

    async def _send(self) -> None:
        position = self._ledger.rewind()
        if not self._journal.seek(position.cursor):
            log_error(
                "the journal was truncated before all events were sent: the record is incomplete"
            )
        while True:
            frames: list[bytes] = []
            while len(frames) < BATCH and len(self._in_flight) < WINDOW:
                entry = self._journal.next()
                if entry is None:
                    break
                position = Position(entry["__CURSOR"], position.sequence + 1)
                frames.append(self._session.event(self._message(entry, position)))
                self._in_flight.append((time.monotonic(), position))
            if frames:
                self._writer.write(b"".join(frames))
                await self._writer.drain()
            elif len(self._in_flight) < WINDOW:
                await self._journal.wait()
            else:
                self._window_free.clear()
                await self._window_free.wait()

    def _message(self, entry: dict[str, Any], position: Position) -> bytes:
        event = events.from_entry(
            entry, self._settings.host, self._ledger.stream, position.sequence
        )
        if entry["__REALTIME_TIMESTAMP"] < self._ledger.since:
            event["backlog"] = True
        return events.message(event)

    async def _receive_answers(self) -> None:
        while True:
            for _ in range(self._session.receive(await self._read())):
                self._ledger.acknowledge(self._in_flight.popleft()[1])
            self._window_free.set()

    async def _check_progress(self) -> None:
        while True:
            now = time.monotonic()
            if self._in_flight and now - self._in_flight[0][0] > ANSWER_SECONDS:
                raise TimeoutError(f"no answer for {ANSWER_SECONDS} s")
            self._ledger.tick(now)
            await asyncio.sleep(1)

    async def _read(self) -> bytes:
        data = await self._reader.read(65536)
        if not data:
            raise RelpError("the collector closed the connection")
        return data


async def ship(settings: Settings, ledger: Ledger) -> None:
    entries = Journal()
    pause, failed = 0.5, ""

    def on_open() -> None:
        nonlocal pause, failed
        pause, failed = 0.5, ""
        log_info(f"connected to {settings.server_name}, continuing after {ledger.settled.sequence}")

    while True:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                streams = await asyncio.open_connection(
                    settings.address,
                    settings.port,
                    ssl=settings.tls(),
                    server_hostname=settings.server_name,
                )
            try:
                await Shipment(entries, ledger, settings, streams).run(on_open)
            finally:
                reset(streams[1])
        except* (OSError, TimeoutError, RelpError, ssl.SSLError) as group:
            reason = "; ".join(describe(error) for error in flatten(group))
            if reason != failed:  # log an outage once, not at every attempt
                log_error(f"cannot ship to {settings.server_name}: {reason}; events wait on disk")
            failed = reason
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close the connection and discard unsent data.

    Otherwise the kernel would deliver it after an outage, beside the same events on the next
    connection.
    """
    connection = writer.get_extra_info("socket")
    if connection is not None:  # None if it is closed
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def flatten(group: BaseExceptionGroup) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (flatten(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


def describe(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused ({error.verify_message})"
    return str(error) or type(error).__name__


def log_info(text: str) -> None:
    print(f"<6>{text}", file=sys.stderr, flush=True)


def log_error(text: str) -> None:
    print(f"<3>{text}", file=sys.stderr, flush=True)


async def main(settings: Settings, ledger: Ledger) -> None:
    loop = asyncio.get_running_loop()
    shipping = loop.create_task(ship(settings, ledger))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, shipping.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await shipping
    # After an orderly stop, acknowledged events need not be sent again.
    ledger.save(ledger.acknowledged)


if __name__ == "__main__":
    try:
        arguments = Settings.load(Path(sys.argv[1])), Ledger(Path(sys.argv[2]))
    except (OSError, ValueError, TypeError) as error:
        sys.exit(f"<3>cannot start: {error}")
    asyncio.run(main(*arguments))
