"""Directories of labs on this machine, and locks on them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

CACHE = Path(os.environ.get("RINGFENCE_CACHE", "/var/cache/ringfence"))
"""Images and packages; `lab down` keeps it."""

LABS = Path(os.environ.get("RINGFENCE_LABS", "/var/lib/ringfence/labs"))
"""One directory per lab; `lab down` removes it."""


def labs() -> list[str]:
    return sorted(path.name for path in LABS.glob("*") if path.is_dir())


@contextlib.contextmanager
def locked(directory: Path, *, wait: bool = True) -> Iterator[None]:
    """Lock a directory; create it if it is missing.

    The lock ends with the process and leaves no file. Steps that `process.run` starts inherit it:
    when the lock of a killed command is free, its steps have ended too. Raises `BlockingIOError`
    if another process has the lock and `wait` is false.
    """
    flags = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
    while True:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, flags)
            os.set_inheritable(descriptor, True)
            if _is_still(directory, descriptor):
                yield
                return
        finally:
            os.close(descriptor)


def _is_still(directory: Path, descriptor: int) -> bool:
    """Return whether the directory still exists: the last lock holder may have removed it."""
    try:
        return directory.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
