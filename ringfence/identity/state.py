"""Files of the state directory: written at once or not at all, and private from the first byte."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRIVATE, PUBLIC = 0o600, 0o644
OTHERS = 0o077


class StateError(Exception):
    """A file of the state directory cannot be used: which one, why, and what to do."""


def directory(path: Path) -> None:
    """Make a directory and its missing parents, which only their owner can enter."""
    for each in (*reversed(path.parents), path):
        if not each.exists():
            each.mkdir(mode=0o700, exist_ok=True)


def write(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Replace a file atomically. No reader ever finds half of it, or another mode."""
    with _staged(path, content, mode) as staged:
        staged.replace(path)


def create(path: Path, content: bytes) -> bool:
    """Write a private file unless it exists, also if two processes try at once."""
    with _staged(path, content, PRIVATE) as staged:
        try:
            path.hardlink_to(staged)
        except FileExistsError:
            return False
    return True


def append(path: Path, line: str) -> None:
    """Add a line to a private file."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, PRIVATE), "w") as file:
        file.write(f"{line}\n")


def read_private(path: Path) -> bytes:
    """Read a file that only its owner may read. Raises `StateError`."""
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from error
    if mode & OTHERS:
        raise StateError(
            f"{path} can be read by others; run: chmod 600 {path}, and replace what it contains"
        )
    return content


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a directory, which is made if it is missing. Raises `StateError`.

    Several processes use the state directory at once: Ansible has one per host.
    """
    try:
        directory(path)
        descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    except OSError as error:
        raise StateError(
            f"{path} cannot be written: {error.strerror}; keys are kept there, "
            "so run this as the owner of the manifest"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _staged(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    directory(path.parent)
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield staged
    finally:
        staged.unlink(missing_ok=True)
