"""Escape as root from a server's sandbox: escape.py SIEM PORT. Succeeds when any attempt gets
out."""

import contextlib
import ctypes
import json
import os
import socket
import sys
import time
from pathlib import Path

began = time.time()
libc = ctypes.CDLL(None, use_errno=True)
found = []


def attempt(what, act):
    with contextlib.suppress(OSError):
        if act():
            found.append(what)


def connected():
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 1):
        return True


def writable(path):
    return os.access(path, os.W_OK)


def states():
    return Path("/var/lib/mcp").glob("*/*")


def processes():
    return Path("/proc").glob("[0-9]*/cmdline")


attempt("other servers' data", lambda: any(p.parent != Path.cwd() for p in states()))
attempt("password hashes", lambda: "root:" in Path("/etc/shadow").read_text())
attempt("keys of the host", lambda: any(p.read_bytes() for p in Path("/etc/ssh").glob("*_key")))
attempt("a connection", connected)
attempt("a raw socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
attempt("a mount", lambda: libc.mount(b"none", b"/mnt", b"tmpfs", 0, None) == 0)
attempt("a namespace", lambda: libc.unshare(0x10000000) == 0)
attempt("others' processes", lambda: any(b"sshd" in p.read_bytes() for p in processes()))
attempt("a device", lambda: os.mknod("disk", 0o60600, os.makedev(253, 0)) is None)
attempt("a kernel setting", lambda: writable("/proc/sys/kernel/core_pattern"))
attempt("a unit", lambda: writable("/etc/systemd/system"))
print(json.dumps({"began": began, "succeeded": bool(found), "saw": ", ".join(found)}))
