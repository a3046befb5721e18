"""Where a lab keeps its things on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

CACHE = Path(os.environ.get("RINGFENCE_CACHE", "/var/cache/ringfence"))
"""Images and packages; survives `lab down`."""

LABS = Path(os.environ.get("RINGFENCE_LABS", "/var/lib/ringfence/labs"))
"""One directory per lab; goes with `lab down`."""


def labs() -> list[str]:
    return sorted(path.name for path in LABS.glob("*") if path.is_dir())


@contextlib.contextmanager
def locked(directory: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a directory for oneself, making it where it is missing.

    The lock goes with its holder, however that dies, and leaves no file. Steps that are run
    by `process.run` hold it too: when a killed command's lock is free, they have ended.
    Raises `BlockingIOError` where another process has it and `wait` is not asked for.
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
    """Whoever held the lock before may have removed the directory."""
    try:
        return directory.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
