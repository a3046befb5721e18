"""Requirements of a lab on this machine, and their installation."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from ringfence.lab import cgroup, directories
from ringfence.lab.errors import LabError, UnusableError
from ringfence.lab.process import run

PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "systemd-socket-activate": "systemd",
    "mmdebstrap": "mmdebstrap",
    "apt-get": "apt",
    "apt-cacher-ng": "apt-cacher-ng",
    "ip": "iproute2",
    "tc": "iproute2",
    "ethtool": "ethtool",
    "nft": "nftables",
    "nsenter": "util-linux",
    "ssh-keygen": "openssh-client",
}
"""Maps each program to its Debian package."""

FILES = {"/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring"}

POLICY = Path("/usr/sbin/policy-rc.d")
"""Script that Debian packages run before they start a service."""


def missing_packages() -> list[str]:
    _complete_path()
    programs = {package for name, package in PROGRAMS.items() if not shutil.which(name)}
    files = {package for name, package in FILES.items() if not Path(name).exists()}
    return sorted(programs | files)


def _complete_path() -> None:
    """Add the directories of root's programs to PATH; `su` omits them."""
    path = os.environ.get("PATH", os.defpath).split(":")
    os.environ["PATH"] = ":".join([*path, *({"/usr/sbin", "/sbin"} - set(path))])


def unavailable() -> str | None:
    """Return one line with the reason why no lab can run here and its remedy; None if one can."""
    if not sys.platform.startswith("linux"):
        return "the lab needs Linux; remedy: use a Debian 12 or 13 machine"
    if os.geteuid() != 0:
        return "the lab needs root; remedy: run this again as root"
    if missing := missing_packages():
        return f"the lab needs {', '.join(missing)}; remedy: ringfence lab prepare"
    if not Path("/proc/sys/net/ipv6").is_dir():
        return "the lab needs IPv6; remedy: boot the kernel without ipv6.disable=1"
    try:
        cgroup.hierarchies()
    except UnusableError as error:
        return str(error)
    if _file_system(directories.LABS) == "overlay":
        return (
            f"{directories.LABS} is on an overlay file system, which cannot hold another; "
            "remedy: set RINGFENCE_LABS to a directory on a disk or a tmpfs"
        )
    attempt = run(
        ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup", "--fork", "true"]
    )
    if attempt.returncode:
        return (
            f"namespaces are not allowed here ({attempt.stderr.strip()}); remedy: a virtual "
            "machine, or a privileged container"
        )
    return None


def _file_system(path: Path) -> str:
    while not path.exists():
        path = path.parent
    return run(["findmnt", "--noheadings", "--output=FSTYPE", "--target", str(path)]).stdout.strip()


def prepare() -> list[str]:
    """Install the missing packages and return their names.

    Services of the packages are not started: the lab runs its own package cache.
    """
    packages = missing_packages()
    if not packages:
        return []
    if not shutil.which("apt-get"):
        raise UnusableError(f"install {', '.join(packages)}: this is not a Debian machine")
    if os.geteuid() != 0:
        raise UnusableError(f"root is needed; remedy: sudo apt-get install {' '.join(packages)}")
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        _apt_get("update")
        _apt_get("install", "--yes", "--no-install-recommends", *packages)
    finally:
        if ours:
            POLICY.unlink()
    if "apt-cacher-ng" in packages and Path("/run/systemd/system").is_dir():
        run(["systemctl", "--quiet", "disable", "apt-cacher-ng.service"])
    return packages


def _apt_get(*args: str) -> None:
    done = run(["apt-get", "--quiet", *args], environment={"DEBIAN_FRONTEND": "noninteractive"})
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise LabError(f"apt-get {args[0]} failed: {last[0]}")
