"""Events to systemd's journal, structured, by its native protocol.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/: one datagram per entry, a field a line. Nothing here
waits: an entry that the journal does not take at once is counted, and is in the file.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Mapping
from pathlib import Path

SOCKET = Path("/run/systemd/journal/socket")
SEND_BUFFER = 1 << 20
RECONNECT_SECONDS = 1.0


class Journal:
    """Not for threads."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._retry_at = 0.0
        self.lost = 0
        """Number of entries that the journal did not take."""

    def send(self, fields: Mapping[bytes, bytes]) -> bool:
        """Send one entry, fields by name; return False if it was lost."""
        parts: list[bytes] = []
        for name, value in fields.items():
            if b"\n" in value:
                parts += (name, b"\n", len(value).to_bytes(8, "little"), value, b"\n")
            else:
                parts += (name, b"=", value, b"\n")
        entry = b"".join(parts)
        for _ in range(2):
            if self._socket is None and not self._connect():
                break
            assert self._socket is not None
            try:
                self._socket.send(entry)
                return True
            except BlockingIOError:
                break
            except OSError:  # journald was restarted
                self._disconnect()
        self.lost += 1
        return False

    def close(self) -> None:
        self._disconnect()

    def _connect(self) -> bool:
        now = time.monotonic()
        if now < self._retry_at:
            return False
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            self._retry_at = now + RECONNECT_SECONDS
            return False
        self._socket = connection
        return True

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
