"""An append-only file that reserves room in advance.

No call may be made that cannot be recorded. So room on the disk is reserved (`fallocate`), and
`admit` refuses a call while there is none: calls that are already running find their room.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from ringfence.gateway.audit.verification import ChainLink, last_link
from ringfence.gateway.state import shared_files

RETRY_SECONDS = 0.25
"""Pause between two attempts to reserve room."""
LOOK_SECONDS = 1.0
"""Pause between two checks that the file is still the one that was written."""

_KEEP_SIZE = 1
"""FALLOC_FL_KEEP_SIZE, see fallocate(2)."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_FILE = re.compile(r"(?P<name>.+)-(?P<generation>\d{6,})-(?P<segment>\d{6,})\.jsonl")

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class AuditError(Exception):
    """A decision cannot be recorded, so it must not be carried out."""


class AuditFile:
    """Files `<name>-<generation>-<segment>.jsonl` of one process: a generation per process.

    Not for threads.
    """

    def __init__(
        self, directory: Path, name: str, *, segment_bytes: int, reserve_bytes: int
    ) -> None:
        """Raises `AuditError` where the directory is unusable or another process has the name."""
        if _NAME.fullmatch(name) is None:
            raise AuditError(f"{name!r} cannot name audit files; use a-z, 0-9 and hyphens")
        self._directory = directory
        self._name = name
        self._segment_bytes = segment_bytes
        self._reserve_bytes = reserve_bytes
        self._segment = 0
        self._fd = -1
        self._lock: IO[bytes] | None = None
        self._size = 0
        self._reserved = 0
        self._torn = False
        self._broken: OSError | None = None
        self._retry_at = 0.0
        self._looked_at = 0.0
        try:
            self._lock = shared_files.lock(directory / f".{name}.lock", wait=False)
            files = self._files()
            self.before, self.torn_before = _end(path for _, _, path in reversed(files))
        except BlockingIOError:
            raise AuditError(
                f"{directory}: another process writes as {name}; give each a name of its own"
            ) from None
        except OSError as error:
            raise self._error(error) from error
        self.generation = max((generation for generation, _, _ in files), default=0) + 1
        if files:
            _release_rest(files[-1][2])

    @property
    def path(self) -> Path:
        return self._directory / f"{self._name}-{self.generation:06d}-{self._segment:06d}.jsonl"

    def needs_new_file(self) -> str | None:
        """Return why the next line has to begin a file; None: it does not.

        `start`; `rotation`; `replaced`: somebody removed, truncated or extended the file, which
        stays as it is, as evidence; `recovery`: the disk refused a write. Raises `AuditError` where
        the next attempt at a recovery is not due yet.
        """
        if self._lock is None:
            raise AuditError(f"{self._directory}: the audit log is closed; start the gateway")
        if self._fd < 0:
            return "start"
        if self._broken is not None:
            if time.monotonic() < self._retry_at:
                raise self._error(self._broken)
            return "recovery"
        if self._size >= self._segment_bytes:
            return "rotation"
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return None
        self._looked_at = now
        try:
            status = os.fstat(self._fd)
        except OSError as error:
            raise self._error(error) from error
        return "replaced" if status.st_nlink == 0 or status.st_size != self._size else None

    def begin(self, line: Callable[[], bytes]) -> None:
        """Begin the next file with this line. Raises `AuditError` and keeps the old file."""
        old, self._segment = (self._fd, self._size, self._reserved), self._segment + 1
        try:
            self._fd = os.open(
                self.path,
                os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
                0o640,
            )
        except OSError as error:
            self._segment -= 1
            self._retry_at = time.monotonic() + RETRY_SECONDS
            raise self._error(error) from error
        self._size = self._reserved = 0
        self._torn, torn = False, self._torn
        try:
            self.append(line())
        except AuditError:
            self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._segment -= 1
            self._fd, self._size, self._reserved = old
            self._torn = torn
            self._retry_at = time.monotonic() + RETRY_SECONDS
            raise
        self._broken = None
        self._looked_at = time.monotonic()
        if old[0] >= 0:
            _release(old[0], old[1])
            os.close(old[0])

    def append(self, line: bytes) -> None:
        """Append a line, whole or not at all. Raises `AuditError`."""
        size = self._size
        try:
            if self._torn:
                os.ftruncate(self._fd, size)
                self._torn = False
            written = os.write(self._fd, line)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                self._broken = error
            raise self._error(error) from error
        if written != len(line):
            # A part of a line would spoil the next one.
            self._torn = True
            try:
                os.ftruncate(self._fd, size)
                self._torn = False
            except OSError as error:
                raise self._error(error) from error
            self._reserved = 0
            raise self._error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        self._size = size + written
        self._reserved = max(0, self._reserved - written)

    def admit(self) -> None:
        """Raise `AuditError` where a call could end without room for its event."""
        if self._reserved * 2 >= self._reserve_bytes:
            return
        now = time.monotonic()
        if now < self._retry_at:
            raise self._error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        try:
            self._reserve()
        except OSError as error:
            self._retry_at = now + RETRY_SECONDS
            raise self._error(error) from error
        self._reserved = self._reserve_bytes

    def sync(self) -> None:
        """Write the file to disk. Blocks for milliseconds."""
        if self._fd >= 0:
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                raise self._error(error) from error

    def close(self) -> None:
        if self._fd >= 0:
            _release(self._fd, self._size)
            os.close(self._fd)
            self._fd = -1
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _reserve(self) -> None:
        if _fallocate(self._fd, _KEEP_SIZE, self._size, self._reserve_bytes) == 0:
            return
        code = ctypes.get_errno()
        if code not in {errno.EOPNOTSUPP, errno.ENOSYS}:
            raise OSError(code, os.strerror(code))
        # This file system cannot reserve: others can take the room, and writing reports that.
        room = os.fstatvfs(self._fd)
        if room.f_bavail * room.f_frsize < self._reserve_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _files(self) -> list[tuple[int, int, Path]]:
        found = []
        for entry in self._directory.iterdir():
            match = _FILE.fullmatch(entry.name)
            if match is not None and match["name"] == self._name:
                found.append((int(match["generation"]), int(match["segment"]), entry))
        return sorted(found)

    def _error(self, error: OSError) -> AuditError:
        where = self.path if self._segment else self._directory
        return AuditError(
            f"{where}: decisions cannot be recorded: {error.strerror}; "
            "make room or repair the disk: calls are refused until then"
        )


def _end(newest_first: Iterable[Path]) -> tuple[ChainLink | None, int]:
    """Return the last whole line of the newest file that has one, and torn bytes behind it."""
    torn = 0
    for path in newest_first:
        link, part = last_link(path)
        torn += part
        if link is not None:
            return link, torn
    return None, torn


def _release_rest(path: Path) -> None:
    """Release what a killed process had reserved."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            _release(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)


def _release(fd: int, size: int) -> None:
    """Release what was reserved behind the end; never cut what somebody else appended."""
    with contextlib.suppress(OSError):
        if os.fstat(fd).st_size == size:
            os.ftruncate(fd, size)
