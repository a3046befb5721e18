"""What may be used once: ids of tokens at sensitive calls, ids of DPoP proofs.

A record is an empty file, created or found to exist in one step by the kernel, so that all
processes of a gateway agree without talking. Records outlive a restart of the gateway; whether
they outlive the host depends on the directory. Gateways on several hosts do not share them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

SHARDS = 256
SWEEP_SECONDS = 10.0


class ReplaysUnavailableError(Exception):
    """It is not known whether an id was used: the directory is full or cannot be written."""


class Replays:
    """Remembers ids for `retention_seconds`, at least until what they name has expired."""

    def __init__(
        self, directory: Path, *, retention_seconds: float, capacity: int = 131072
    ) -> None:
        """Makes the directory. Raises `OSError`."""
        self._retention = retention_seconds
        self._per_shard = max(1, capacity // SHARDS)
        self._shards = [directory / f"{number:02x}" for number in range(SHARDS)]
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._swept = [float("-inf")] * SHARDS
        self._present = [0] * SHARDS

    def first_use(self, *names: str, now: float) -> bool:
        """Record an id, qualified by whoever gave it. False: it was there.

        `now` is in Unix seconds. Raises `ReplaysUnavailableError`.
        """
        # A hash as name: an id chooses no path. Lengths: "a" and "bc" are not "ab" and "c".
        digest = sha256("".join(f"{len(name)}:{name}" for name in names).encode()).hexdigest()
        number = int(digest[:2], 16)
        shard = self._shards[number]
        try:
            if not 0 <= now - self._swept[number] < SWEEP_SECONDS:
                self._sweep(number, now)
            if self._present[number] >= self._per_shard:
                raise ReplaysUnavailableError(f"{shard} is full: {self._per_shard} ids")
            file = os.open(
                shard / digest, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
        except FileExistsError:
            return False
        except OSError as error:
            raise ReplaysUnavailableError(f"{shard} cannot be used: {error.strerror}") from error
        os.close(file)
        self._present[number] += 1
        return True

    def _sweep(self, number: int, now: float) -> None:
        """Forget what has expired in one shard, and count the rest: other processes add too."""
        present = 0
        if self._swept[number] == float("-inf"):
            # Once only: were it made again later, what it held would be forgotten unnoticed.
            self._shards[number].mkdir(mode=0o700, exist_ok=True)
        with os.scandir(self._shards[number]) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime + self._retention < now:
                        Path(entry.path).unlink()
                    else:
                        present += 1
        self._present[number] = present
        self._swept[number] = now
