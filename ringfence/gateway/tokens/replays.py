"""What may be used once: ids of tokens at sensitive calls, ids of DPoP proofs.

A record is an empty file, created or found to exist in one step by the kernel, so that all
processes of a gateway agree without talking. Records outlive a restart of the gateway; whether
they outlive the host depends on the directory. Gateways on several hosts do not share them.

Records lie in one directory per minute of expiry. What is replayed is signed, so it expires when
it did and is looked for where it was put; and what is over can be told by a directory's name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from ringfence.gateway.monotonic_clock import SteadyTime

BUCKET_SECONDS = 60
GRACE_SECONDS = 60
"""After expiry, for processes that looked at the clock a moment ago."""
FORGOTTEN_AT_ONCE = 4
"""Records removed by each use: more than one comes in, and no call waits for many."""


class ReplaysUnavailableError(Exception):
    """It is not known whether an id was used: the directory is full or cannot be written."""


class Replays:
    """Remembers ids until what they name has expired.

    Of records that every process of a gateway makes, `capacity` is the bound of each.
    """

    def __init__(
        self, directory: Path, *, capacity: int = 131072, steady: SteadyTime | None = None
    ) -> None:
        """Makes the directory. Raises `OSError`."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._capacity = capacity
        self._steady = steady or SteadyTime()
        self._present = {
            int(entry.name): sum(1 for _ in entry.iterdir())
            for entry in directory.iterdir()
            if entry.name.isdecimal()
        }
        """Records by minute of expiry."""
        self._over: tuple[int, Iterator[os.DirEntry[str]]] | None = None

    def first_use(self, *names: str, expires: float, now: float) -> bool:
        """Record an id, qualified by whoever gave it. False: it was there.

        Times are in Unix seconds. Raises `ReplaysUnavailableError`.
        """
        # A hash as name: an id chooses no path. Lengths: "a" and "bc" are not "ab" and "c".
        name = sha256("".join(f"{len(each)}:{each}" for each in names).encode()).hexdigest()
        minute = int(expires // BUCKET_SECONDS)
        bucket = f"{self._directory}/{minute}"
        try:
            self._forget(self._steady.earliest(now))
            if sum(self._present.values()) >= self._capacity:
                raise ReplaysUnavailableError(f"{self._directory} is full: {self._capacity} ids")
            if minute not in self._present:
                with suppress(FileExistsError):
                    Path(bucket).mkdir(mode=0o700)
                self._present[minute] = 0
            # Never made a second time: what it held would be forgotten unnoticed.
            os.close(os.open(f"{bucket}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
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
                with suppress(OSError):  # not empty: somebody's clock was set back
                    (self._directory / str(minute)).rmdir()
                return
            with suppress(FileNotFoundError):
                Path(record.path).unlink()
            self._present[minute] = max(0, self._present[minute] - 1)
