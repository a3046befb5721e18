"""Kernel limits that all labs on this machine share.

The kernel counts the root accounts of all hosts as one user. systemd, D-Bus and logind of each host
use some of that user's 128 inotify instances; with about twenty hosts, units fail at random.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ringfence.lab import directories

INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
ENOUGH = 1024


def _before() -> Path:
    return directories.CACHE / "inotify-instances"


def raise_limits() -> None:
    with directories.locked(directories.CACHE):
        value = INSTANCES.read_text().strip()
        if int(value) < ENOUGH:
            _before().write_text(value)
            # Small labs work without the change.
            with contextlib.suppress(OSError):
                INSTANCES.write_text(str(ENOUGH))


def restore_limits() -> None:
    """Restore the limits when no lab exists."""
    with directories.locked(directories.CACHE):
        if _before().exists() and not directories.labs():
            with contextlib.suppress(OSError):
                INSTANCES.write_text(_before().read_text())
            _before().unlink()
