"""Files that all processes of a gateway share: written at once, locked, and watched for changes.

The directory is the only channel between processes. So a file appears whole under its name or not
at all, and a reader learns what changed from time stamps and inodes.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

MODE = 0o640
SETTLED_SECONDS = 0.05
"""Time stamps of files are as coarse as the kernel's tick, 10 ms at most: a second change within
one would not show."""

Stamp = tuple[int, int, int]
"""Inode, modification time and size of a file: another stamp, another content."""
ABSENT: Stamp = (0, 0, 0)


def read(path: str | Path, limit: int, *, follow: bool = False) -> bytes:
    """Read a plain file. Raises `OSError`, and `ValueError` for anything else or a larger file."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is not a file")
        content = os.read(descriptor, limit + 1) if status.st_size <= limit else b""
    finally:
        os.close(descriptor)
    if not len(content) <= limit >= status.st_size:
        raise ValueError(f"is larger than {limit} bytes")
    return content


def replace(path: str | Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file at once, over another one if there is one. Raises `OSError`.

    `durable`: return when a power cut no longer takes it back.
    """
    with _staged(path, content, durable=durable) as staged:
        os.rename(staged, path)  # noqa: PTH104
        if durable:
            _sync(Path(path).parent)


def create(path: str | Path, content: bytes) -> bool:
    """Write a file at once and durably, unless the name is taken: then return False."""
    with _staged(path, content, durable=True) as staged:
        try:
            # rename(2) would replace; two processes must not both be first.
            os.link(staged, path)
        except FileExistsError:
            return False
        _sync(Path(path).parent)
    return True


def sweep(path: Path) -> None:
    """Delete what killed writers of a file left beside it. Call it with the file's lock held."""
    staged = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}")
    for each in path.parent.iterdir():
        if staged.fullmatch(each.name):
            each.unlink(missing_ok=True)


def claim(path: str) -> bool:
    """Create an empty file; False: it exists. The kernel decides in one step who was first."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    return True


def lock(path: Path, *, wait: bool = True) -> IO[bytes]:
    """Lock a file of its own against other processes until the returned file is closed.

    Raises `OSError`; `BlockingIOError` where `wait` is False and another process holds it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags, MODE), "r+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def stamp(path: str | Path, *, follow: bool = False) -> Stamp:
    """The stamp of a file. Raises `OSError`."""
    status = os.stat(path, follow_symlinks=follow)  # noqa: PTH116
    return status.st_ino, status.st_mtime_ns, status.st_size


@dataclass(frozen=True)
class Changes:
    """Differences from the last look at a directory."""

    changed: frozenset[str]
    """Names that are new, or now of another file."""
    gone: frozenset[str]
    unknown: dict[str, int]
    """All names that do not match, with their inodes."""


@dataclass
class Directory:
    """The names in a directory that match, read again when it changes. Not for threads."""

    path: str
    names: re.Pattern[str]
    monotonic: Callable[[], float] = time.monotonic
    present: dict[str, int] = field(default_factory=dict, init=False)
    """Inode by name."""
    watched: dict[str, Stamp] = field(default_factory=dict, init=False)
    """Files to look at again even under the same inode, with the stamp they had."""
    _version: tuple[int, int, int] | None = field(default=None, init=False)
    _changed: float = field(default=0.0, init=False)
    _settled: bool = field(default=False, init=False)

    def changes(self) -> Changes | None:
        """Return changes since the last call; None, at the price of one stat(2): nothing changed.

        Raises `OSError`, after which all that is there counts as new.
        """
        try:
            status = os.stat(self.path)  # noqa: PTH116  (a fifth of Path.stat's time)
            version = (status.st_dev, status.st_ino, status.st_mtime_ns)
            if version == self._version and self._settled:
                return None
            now = self.monotonic()
            if version != self._version:
                self._version, self._changed = version, now
            settled = now - self._changed > SETTLED_SECONDS
            found = self._scan()
        except OSError:
            self.forget()
            raise
        self._settled = settled
        return found

    def forget(self) -> None:
        """Take all that is there for new at the next look."""
        self._version, self._settled = None, False
        self.present.clear()
        self.watched.clear()

    def watch(self, name: str) -> None:
        """Report this file as changed once its stamp differs."""
        self.watched[name] = self._stamp(name)

    def _scan(self) -> Changes:
        present: dict[str, int] = {}
        unknown: dict[str, int] = {}
        with os.scandir(self.path) as entries:
            for entry in entries:
                known = self.names.fullmatch(entry.name)
                (present if known else unknown)[entry.name] = entry.inode()
        changed = {name for name, inode in present.items() if self.present.get(name) != inode}
        changed |= {n for n, was in self.watched.items() if n in present and was != self._stamp(n)}
        gone = self.present.keys() - present.keys()
        self.present = present
        for name in changed | gone:
            self.watched.pop(name, None)
        return Changes(frozenset(changed), frozenset(gone), unknown)

    def _stamp(self, name: str) -> Stamp:
        try:
            return stamp(f"{self.path}/{name}")
        except OSError:
            return ABSENT


@contextmanager
def _staged(path: str | Path, content: bytes, *, durable: bool) -> Iterator[str]:
    """A file of this content under a hidden name beside its own, for the time of the block."""
    directory, name = os.path.split(path)
    staged = f"{directory}/.{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(staged, flags, MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, MODE)
            file.write(content)
            file.flush()
            if durable:
                os.fsync(descriptor)
        yield staged
    finally:
        with suppress(FileNotFoundError):
            os.unlink(staged)  # noqa: PTH108


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
