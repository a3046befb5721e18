"""Files that turn the stock image into one particular host."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from ringfence.lab.errors import LabError
from ringfence.lab.plan import LabNode, Plan
from ringfence.lab.process import run

DIRECTORY_MODES = {"root": 0o700, "root/.ssh": 0o700}


def make(plan: Plan, node: LabNode, seed: Path, authorized_keys: Iterable[str]) -> None:
    """Write the files of a host: names, keys, package sources. A reset keeps them."""
    host = node.host
    assert host
    # Renamed once complete, so a killed attempt leaves no partial tree.
    tree = seed.with_name("seed.partial")
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    files: dict[str, tuple[str, int]] = {
        "etc/hostname": (f"{host.name}\n", 0o644),
        "etc/hosts": (_hosts(plan, node), 0o644),
        "etc/machine-id": (f"{uuid.uuid4().hex}\n", 0o444),
        "etc/resolv.conf": (_resolvers(plan), 0o644),
        "root/.ssh/authorized_keys": ("".join(f"{key}\n" for key in authorized_keys), 0o600),
    }
    bootstrap = plan.environment.bootstrap
    if bootstrap.port != 22:
        files["etc/ssh/sshd_config.d/50-port.conf"] = (f"Port {bootstrap.port}\n", 0o644)
    if proxy := plan.environment.services.package_proxy:
        text = f'Acquire::http::Proxy "{proxy}";\n'
        files["etc/apt/apt.conf.d/01proxy"] = (text, 0o644)
    for name, (text, mode) in files.items():
        path = tree / name
        _directory(tree, path.parent)
        path.write_text(text)
        path.chmod(mode)
    _directory(tree, tree / "etc/ssh")
    done = run(["ssh-keygen", "-A", "-f", str(tree)])
    if done.returncode:
        raise LabError(f"ssh-keygen made no host keys: {done.stderr.strip()}")
    tree.chmod(0o755)
    tree.rename(seed)


def host_keys(tree: Path) -> list[str]:
    """Return the public keys of a host as `type key`, read from its files."""
    return [
        " ".join(path.read_text().split()[:2])
        for path in sorted((tree / "etc/ssh").glob("ssh_host_*_key.pub"))
    ]


def _directory(tree: Path, directory: Path) -> None:
    """Create a directory with its mode; it merges with the same directory of the image."""
    if not directory.is_dir():
        _directory(tree, directory.parent)
        directory.mkdir()
        directory.chmod(DIRECTORY_MODES.get(str(directory.relative_to(tree)), 0o755))


def _hosts(plan: Plan, node: LabNode) -> str:
    assert node.host
    lines = [
        "127.0.0.1 localhost",
        "::1 localhost ip6-localhost ip6-loopback",
        "ff02::1 ip6-allnodes",
        "ff02::2 ip6-allrouters",
    ]
    lines += [f"{address} {' '.join(names)}" for address, names in plan.names]
    return "\n".join(lines) + "\n"


def _resolvers(plan: Plan) -> str:
    servers = [f"nameserver {address}\n" for address in plan.environment.services.dns]
    return "".join([f"search {plan.environment.domain}\n", *servers])
