"""Debian packages for the lab: one caching proxy per machine, one listener per lab.

Hosts always request http://deb.debian.org. The proxy downloads from the mirror that this machine's
apt uses and caches packages across runs. The proxy listens on loopback only. The listener of a lab
accepts connections on the address in the manifest and forwards them to the proxy.
"""

from __future__ import annotations

import re
import shutil
import socket
import time
from pathlib import Path

from ringfence.lab import directories
from ringfence.lab.cgroup import Cgroup
from ringfence.lab.errors import LabError
from ringfence.lab.process import run, spawn

ACCOUNT = "apt-cacher-ng"
ENDPOINT = ("127.0.0.1", 31420)
URL = "http://{}:{}".format(*ENDPOINT)
PROXY = Cgroup("packages")
SOCKET_PROXY = "/usr/lib/systemd/systemd-socket-proxyd"

ARCHIVES = ("debian", "debian-security")
"""Paths below http://deb.debian.org."""


def directory() -> Path:
    return directories.CACHE / "packages"


def start() -> None:
    """Start this machine's proxy unless it runs with the current configuration."""
    with directories.locked(directory()):
        cache = directory() / "cache"
        configuration = directory() / "conf/acng.conf"
        text = _configuration(cache)
        unchanged = configuration.exists() and configuration.read_text() == text
        if unchanged and PROXY.populated and _answers(*ENDPOINT):
            return
        PROXY.remove()
        PROXY.create()
        cache.mkdir(exist_ok=True)
        shutil.chown(cache, ACCOUNT, ACCOUNT)
        configuration.parent.mkdir(exist_ok=True)
        configuration.write_text(text)
        spawn(
            _unprivileged("apt-cacher-ng", "-c", str(configuration.parent)),
            PROXY,
            directory() / "proxy.log",
        )
        _wait(*ENDPOINT, directory() / "proxy.log")


def stop_if_unused() -> None:
    """Stop this machine's proxy if no lab exists."""
    with directories.locked(directory()):
        if not directories.labs():
            PROXY.remove()


def listen(lab: str, address: tuple[str, int], log: Path) -> None:
    """Listen for a lab on an address of this machine and forward to the proxy."""
    group = Cgroup(f"lab-{lab}/packages")
    # This listener, or an apt-cacher-ng of this machine on all addresses, already answers.
    if _answers(*address):
        return
    group.remove()
    group.create()
    host, port = address
    bound = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    target = "{}:{}".format(*ENDPOINT)
    command = _unprivileged("systemd-socket-activate", "--listen", bound, SOCKET_PROXY, target)
    spawn(command, group, log)
    _wait(*address, log)


def _configuration(cache: Path) -> str:
    lines = [
        f"CacheDir: {cache}",
        f"LogDir: {cache}",
        f"SocketPath: {cache}/socket",
        "SupportDir: /usr/lib/apt-cacher-ng",
        f"BindAddress: {ENDPOINT[0]}",
        f"Port: {ENDPOINT[1]}",
        "ForeGround: 1",
        "PidFile: ",
        "ReportPage: ",
        # Only Debian's archives: hosts must reach nothing else through the proxy.
        "ForceManaged: 1",
        "RedirMax: 5",
        "VerboseLog: 0",
    ]
    mirrors = machine_mirrors()
    for archive in ARCHIVES:
        lines.append(f"Remap-{archive}: deb.debian.org/{archive} ; {mirrors[archive]}")
    if proxy := _machine_proxy():
        lines.append(f"Proxy: {proxy}")
    return "\n".join(lines) + "\n"


def machine_mirrors() -> dict[str, str]:
    """Return the mirrors of Debian's archives that this machine's apt uses."""
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    return choose_mirrors(run(targets).stdout.split())


def choose_mirrors(uris: list[str]) -> dict[str, str]:
    """Return the URL of each archive: one that apt uses, or else Debian's own."""
    mirrors = {archive: f"http://deb.debian.org/{archive}" for archive in ARCHIVES}
    for uri in (uri.rstrip("/") for uri in uris):
        archive = uri.rsplit("/", 1)[-1]
        if archive in mirrors and uri.startswith(("http://", "https://")):
            mirrors[archive] = uri
    return mirrors


def _machine_proxy() -> str | None:
    done = run(["apt-config", "shell", "proxy", "Acquire::http::Proxy"])
    match = re.match(r"proxy='(http[^']+)'", done.stdout)
    return match[1].rstrip("/") if match else None


def _unprivileged(*command: str) -> list[str]:
    identity = ["--reuid", ACCOUNT, "--regid", ACCOUNT, "--clear-groups", "--no-new-privs"]
    return ["setpriv", *identity, *command]


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def _wait(host: str, port: int, log: Path, patience: float = 15) -> None:
    deadline = time.monotonic() + patience
    while not _answers(host, port):
        if time.monotonic() > deadline:
            raise LabError(f"the package proxy does not answer on {host} port {port}; see {log}")
        time.sleep(0.1)
