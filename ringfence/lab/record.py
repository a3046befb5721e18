"""The record of a lab: the manifest and image that it was booted from, until it is removed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ringfence.lab import directories
from ringfence.lab.errors import LabError

FILE = "lab.json"
LOCK_PATIENCE = 300.0


@dataclass(frozen=True)
class LabRecord:
    environment: str
    state: str
    release: str
    digest: str
    image: str

    def write(self, directory: Path) -> None:
        partial = directory / f".{FILE}"
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n")
        partial.replace(directory / FILE)


def read(directory: Path) -> LabRecord | None:
    try:
        return LabRecord(**json.loads((directory / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


@contextlib.contextmanager
def locked(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a lab for one command; wait while another command holds it."""
    deadline = time.monotonic() + LOCK_PATIENCE
    directory = directories.LABS / name
    waiting = False
    while True:
        lock = directories.locked(directory, wait=False)
        try:
            lock.__enter__()
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise LabError(
                    f"another ringfence command holds lab {name}; find it with: fuser {directory}"
                ) from None
            if not waiting:
                say(f"waiting for another command on lab {name}")
                waiting = True
            time.sleep(0.2)
        else:
            break
    with contextlib.ExitStack() as stack:
        stack.push(lock.__exit__)
        yield
