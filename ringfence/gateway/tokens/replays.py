"""Ids that may be used once: those of tokens at sensitive calls, and of DPoP proofs.

A record is an empty file that the kernel creates or finds in one step, so all processes of a
gateway agree. Records outlive a restart of the gateway; whether they outlive the host depends on
the directory. Gateways on several hosts do not share them.

Records lie in one directory per minute of expiry. The time of expiry is signed too, so a replay is
looked up where the first use was recorded; and the name of a directory says when it is over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from ringfence.gateway.state import shared_files
from ringfence.gateway.state.monotonic_clock import MonotonicClock

BUCKET_SECONDS = 60
GRACE_SECONDS = 60
"""Time that a record stays after its expiry, for processes that read the clock before."""
FORGOTTEN_AT_ONCE = 4
"""Expired records that each use removes: more than it adds, and no call waits for many."""


class ReplaysUnavailableError(Exception):
    """Unknown whether an id was used: the directory is full or cannot be written."""


class Replays:
    """Remembers ids until they expire; at most `capacity` by each process of a gateway."""

    def __init__(
        self, directory: Path, *, capacity: int = 131072, clock: MonotonicClock | None = None
    ) -> None:
        """Create the directory. Raises `OSError`."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._capacity = capacity
        self._clock = clock or MonotonicClock()
        self._present = {
            int(entry.name): sum(1 for _ in entry.iterdir())
            for entry in directory.iterdir()
            if entry.name.isdecimal()
        }
        """Records by minute of expiry."""
        self._over: tuple[int, Iterator[os.DirEntry[str]]] | None = None

    def first_use(self, *names: str, expires: float, now: float) -> bool:
        """Record an id, qualified by its issuer; return False if it was there.

        Times are in Unix seconds. Raises `ReplaysUnavailableError`.
        """
        # A hash as name: an id chooses no path. Lengths: "a" and "bc" are not "ab" and "c".
        name = sha256("".join(f"{len(each)}:{each}" for each in names).encode()).hexdigest()
        minute = int(expires // BUCKET_SECONDS)
        bucket = f"{self._directory}/{minute}"
        try:
            self._forget(self._clock.earliest(now))
            if sum(self._present.values()) >= self._capacity:
                raise ReplaysUnavailableError(f"{self._directory} is full: {self._capacity} ids")
            if minute not in self._present:
                with suppress(FileExistsError):
                    Path(bucket).mkdir(mode=0o700)
                self._present[minute] = 0
            # A bucket is never made twice: that would lose its records unnoticed.
            if not shared_files.claim(f"{bucket}/{name}"):
                return False
        except OSError as error:
            raise ReplaysUnavailableError(f"{bucket} cannot be used: {error.strerror}") from error
        self._present[minute] += 1
        return True

    def _forget(self, now: float) -> None:
        """Remove some of what has expired."""
        if self._over is None:
            oldest = min(self._present, default=None)
            if oldest is None or (oldest + 1) * BUCKET_SECONDS + GRACE_SECONDS > now:
                return
            try:
                self._over = oldest, os.scandir(self._directory / str(oldest))
            except FileNotFoundError:  # another process was faster
                del self._present[oldest]
                return
        minute, records = self._over
        for _ in range(FORGOTTEN_AT_ONCE):
            record = next(records, None)
            if record is None:
                self._over = None
                del self._present[minute]
                with suppress(OSError):  # not empty: a clock was set back
                    (self._directory / str(minute)).rmdir()
                return
            with suppress(FileNotFoundError):
                Path(record.path).unlink()
            self._present[minute] = max(0, self._present[minute] - 1)
