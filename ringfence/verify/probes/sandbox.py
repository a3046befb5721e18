"""Probe: runs in the sandbox of an MCP server, in place of the server, and tests what is possible.

It does not read the unit: a test also detects an option that has no effect on this host.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

CLONE_NEWUSER = 0x10000000
SECRETS = (
    *("/etc/shadow", "/etc/ssh", "/etc/ringfence/pki/host.key", "/var/log", "/root/.ssh"),
    *("/home", "/var/lib/ringfence", "/etc/credstore.encrypted"),
)


def writable(paths: list[str]) -> list[str]:
    found = []
    for path in paths:
        probe = Path(path, ".ringfence-probe")
        try:
            probe.touch()
        except OSError:
            continue
        found.append(path)
        probe.unlink()
    return found


def is_visible(path: str) -> bool:
    """Return whether a path has content. An empty directory is only a mount point."""
    with contextlib.suppress(OSError):
        return Path(path).is_file() or any(Path(path).iterdir())
    return False


def foreign_processes() -> list[str]:
    """Return processes of other accounts."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid != os.getuid():
                found.append(f"{entry.name} {(entry / 'comm').read_text().strip()}")
    return found


def interfaces() -> list[str]:
    lines = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    return [name for line in lines if (name := line.partition(":")[0].strip()) != "lo"]


def sockets() -> list[str]:
    families = {"IPv4": socket.AF_INET, "IPv6": socket.AF_INET6, "packet": socket.AF_PACKET}
    found = []
    for name, family in families.items():
        kind = socket.SOCK_RAW if name == "packet" else socket.SOCK_STREAM
        with contextlib.suppress(OSError), socket.socket(family, kind):
            found.append(name)
    return found


def escapes() -> list[str]:
    """Return the usual first steps of an escape that succeeded; each must fail."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = []
    if libc.unshare(CLONE_NEWUSER) == 0:
        found.append("a user namespace")
    if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0:
        found.append("mount")
    if libc.ptrace(16, os.getppid(), 0, 0) == 0:
        found.append("ptrace of the parent")
    if libc.personality(0x0008) != -1:
        found.append("another personality")
    with contextlib.suppress(OSError, ValueError):
        mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
        found.append("memory that is writable and executable")
    if runs("/bin/sh") or runs("/usr/bin/sh"):
        found.append("a shell")
    planted = Path("planted")
    with contextlib.suppress(OSError):
        planted.write_bytes(Path("/usr/bin/python3").read_bytes())
        planted.chmod(0o700)
        if runs(f"{Path.cwd()}/planted"):
            found.append("programs that it wrote itself")
    planted.unlink(missing_ok=True)
    status = Path("/proc/self/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if int(facts["CapBnd"], 16) or int(facts["CapEff"], 16):
        found.append("capabilities")
    if facts["NoNewPrivs"].strip() != "1":
        found.append("privileges by set-user-id programs")
    if facts["Seccomp"].strip() != "2":
        found.append("every system call")
    return found


def runs(program: str) -> bool:
    with contextlib.suppress(OSError):
        return os.waitpid(os.posix_spawn(program, [program, "-c", "exit"], {}), 0)[1] == 0
    return False


def in_child(function: Callable[[], object]) -> bool:
    """Return whether a child process completes a function."""
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def children(most: int) -> int:
    """Return how many children may run at once."""
    started = []
    try:
        for _ in range(most):
            child = os.fork()
            if child == 0:
                signal.pause()
            started.append(child)
    except OSError:
        pass
    for child in started:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return len(started)


def main() -> None:
    mebibytes, tasks, *code = sys.argv[1:]
    own = str(Path.cwd())
    system = ["/", "/usr", "/usr/lib", "/etc", "/opt", "/var", "/var/lib", "/run", "/dev", "/proc"]
    others = [str(path) for path in Path(own).parent.iterdir() if str(path) != own]
    print(
        json.dumps(
            {
                "state": bool(writable([own])),
                "written": writable([*system, *code, *others]),
                "visible": [path for path in [*SECRETS, *others] if is_visible(path)],
                "processes": foreign_processes(),
                "interfaces": interfaces(),
                "sockets": sockets(),
                "escapes": escapes(),
                "memory": in_child(lambda: b"x" * (int(mebibytes) * 2**20)),
                "children": children(int(tasks) + 1),
            }
        )
    )


if __name__ == "__main__":
    main()
