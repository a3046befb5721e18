"""The image of every host: the file tree of a stock Debian, built once per release."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from ringfence.lab import directories, packages
from ringfence.lab.cgroup import Cgroup
from ringfence.lab.errors import LabError, UnusableError
from ringfence.lab.process import joining

RELEASES = ("trixie", "bookworm")
DEFAULT_RELEASE = RELEASES[0]

PACKAGES = [
    "adduser",
    "apt-utils",
    "ca-certificates",
    "cron",
    "curl",
    "dbus",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "libpam-systemd",
    "locales",
    "logrotate",
    "netbase",
    "nftables",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
    "tzdata",
    "vim-tiny",
]
"""Packages of a fresh Debian server, besides the essential ones."""

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

SOURCES = f"""\
Types: deb
URIs: http://deb.debian.org/debian
Suites: {{release}} {{release}}-updates
Components: main
Signed-By: {KEYRING}

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: {{release}}-security
Components: main
Signed-By: {KEYRING}
"""

BUILD_LEFTOVERS = (
    "etc/apt/sources.list",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/hostname",
    "etc/resolv.conf",
    "var/lib/dbus/machine-id",
)


def path(release: str) -> Path:
    recipe = hashlib.sha256(" ".join([release, *PACKAGES, SOURCES]).encode()).hexdigest()[:8]
    return directory() / f"{release}-{recipe}"


def directory() -> Path:
    return directories.CACHE / "images"


def ensure(release: str, group: Cgroup, say: Callable[[str], None]) -> Path:
    """Build the image unless it exists. Other processes that need it wait."""
    if release not in RELEASES:
        raise UnusableError(f"release {release} is not supported; choose {' or '.join(RELEASES)}")
    image = path(release)
    if image.is_dir():
        return image
    with directories.locked(directory()):
        if not image.is_dir():
            packages.start()
            started = time.monotonic()
            say(f"building the image of Debian {release}: once, about a minute")
            _make(release, image, group)
            say(f"image of Debian {release} built in {time.monotonic() - started:.1f} s")
    return image


def discard_partial() -> None:
    """Remove the files of a killed build, unless another build is running."""
    with contextlib.suppress(BlockingIOError):
        if directory().is_dir():
            with directories.locked(directory(), wait=False):
                for partial in directory().glob(".*.partial"):
                    shutil.rmtree(partial)


def _make(release: str, image: Path, group: Cgroup) -> None:
    partial = image.with_name(f".{image.name}.partial")
    # These files are from a killed build: the lock excludes a running one.
    shutil.rmtree(partial, ignore_errors=True)
    group.create()
    mirror = "deb http://deb.debian.org/{} {} main"
    command = [
        # The mounts of the build end with it, even if it is killed.
        *["unshare", "--mount", "--propagation", "private", "--"],
        *["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"],
        *["--components=main", f"--include={','.join(PACKAGES)}"],
        *["--dpkgopt=force-unsafe-io", f'--aptopt=Acquire::http::Proxy "{packages.URL}"'],
        *[release, str(partial)],
        mirror.format("debian", release),
        mirror.format("debian", f"{release}-updates"),
        mirror.format("debian-security", f"{release}-security"),
    ]
    log = image.with_name(f"{release}.log")
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                joining(group, command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            )
        finally:
            group.remove()
    if done.returncode:
        errors = [line for line in log.read_text(errors="replace").splitlines() if "E:" in line]
        reason = errors[0] if errors else "no reason given"
        raise LabError(f"the image of Debian {release} could not be built ({reason}); see {log}")
    _make_stock(partial, release)
    partial.rename(image)


def _make_stock(tree: Path, release: str) -> None:
    """Remove files of the build, and files that must differ between hosts."""
    for name in BUILD_LEFTOVERS:
        (tree / name).unlink(missing_ok=True)
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (tree / "etc/machine-id").write_text("")
    (tree / "etc/apt/sources.list.d/debian.sources").write_text(SOURCES.format(release=release))
    tree.chmod(0o755)
