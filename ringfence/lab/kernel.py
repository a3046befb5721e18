"""Limits of this machine's kernel that all labs share.

Root of every host is the same user to the kernel, and systemd, D-Bus and logind of each
take inotify instances from that user's 128: with about twenty hosts units fail at random.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ringfence.lab import places

INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
ENOUGH = 1024


def _before() -> Path:
    return places.CACHE / "inotify-instances"


def raise_limits() -> None:
    with places.locked(places.CACHE):
        value = INSTANCES.read_text().strip()
        if int(value) < ENOUGH:
            _before().write_text(value)
            # Where it may not be changed, few hosts still work.
            with contextlib.suppress(OSError):
                INSTANCES.write_text(str(ENOUGH))


def restore_limits() -> None:
    """Once no lab is left, everything is as it was."""
    with places.locked(places.CACHE):
        if _before().exists() and not places.labs():
            with contextlib.suppress(OSError):
                INSTANCES.write_text(_before().read_text())
            _before().unlink()
