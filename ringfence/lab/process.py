"""Steps that end before the next one, and daemons that outlive this process."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ringfence.lab.cgroup import Cgroup

JOIN = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 > "$1"; shift; n=$((n - 1)); done; exec "$@"'
"""Joins control groups before the command starts, so no child can escape them."""


def run(
    command: list[str], *, input: str | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a step; the caller must check its exit status."""
    return subprocess.run(
        command,
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        text=True,
        env=os.environ | (environment or {}),
        # The step inherits the locks of this process (see `directories.locked`) and no other file.
        close_fds=False,
        check=False,
    )


def joining(group: Cgroup, command: list[str]) -> list[str]:
    files = [str(path) for path in group.membership_files]
    return ["/bin/sh", "-euc", JOIN, "sh", str(len(files)), *files, *command]


def spawn(
    command: list[str], group: Cgroup, log: Path, environment: dict[str, str] | None = None
) -> None:
    """Start a daemon in a control group and in a new session, without a terminal."""
    with log.open("ab") as output:
        subprocess.run(
            joining(group, ["setsid", "--fork", *command]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"} | (environment or {}),
            check=True,
        )
