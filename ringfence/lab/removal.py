"""Removal of labs by name, also of incomplete ones."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from ringfence.lab import cgroup, directories, image, kernel, network, packages, record
from ringfence.lab.cgroup import Cgroup
from ringfence.lab.errors import UnusableError


def down(name: str, *, say: Callable[[str], None] = lambda _: None) -> None:
    """Remove a lab by its name, even an incomplete one."""
    started = time.monotonic()
    directory = directories.LABS / name
    with record.locked(name, say):
        for group in cgroup.names(f"lab-{name}"):
            if group == f"lab-{name}":
                Cgroup(group).remove()
        network.down(name)
        shutil.rmtree(directory)
    with contextlib.suppress(OSError):
        directories.LABS.rmdir()
        if directories.LABS.parent.name == "ringfence":
            directories.LABS.parent.rmdir()
    image.discard_partial()
    packages.stop_if_unused()
    kernel.restore_limits()
    say(f"lab {name} is down, {time.monotonic() - started:.1f} s")


def everything() -> list[str]:
    """Return the names of all labs that this machine has any part of."""
    try:
        groups = {name.removeprefix("lab-") for name in cgroup.names("lab-")}
    except UnusableError:
        groups = set()
    spaces = {
        path.name.split(".")[1]
        for root in (network.NAMESPACES, network.NAMESPACE_FILES)
        for path in root.glob("ringfence.*.*")
    }
    return sorted({*directories.labs(), *groups, *spaces})


def recorded_state(name: str) -> Path | None:
    found = record.read(directories.LABS / name)
    return Path(found.state) if found else None
