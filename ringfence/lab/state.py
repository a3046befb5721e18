"""Keys that the hosts of a lab trust, in the state directory.

In a real environment they exist already. The lab makes missing keys, only in the state directory.
They belong to the owner of the manifest's directory, so Ansible and the checks need no root.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ringfence.lab.errors import LabError, UnusableError
from ringfence.lab.plan import Plan
from ringfence.lab.process import run
from ringfence.manifest.model import Environment

MARK = "made-by-lab"
"""File that marks keys for lab hosts only; such keys may be deleted."""

KNOWN_HOSTS = "known_hosts"
COMMENT = "ringfence-lab"


def ensure(environment: Environment) -> None:
    """Create the state directory and the key pairs that the manifest names in it."""
    _directory(environment, environment.state)
    environment.state.chmod(0o700)
    identity = environment.bootstrap.identity_file
    if not identity:
        raise UnusableError(
            "the lab needs a key for its fresh hosts; add `identity_file: "
            ".state/bootstrap_ed25519` under /access/bootstrap"
        )
    if not identity.exists():
        _key_pair(environment, identity, "bootstrap")
        mark = environment.state / MARK
        mark.write_text("Identities of lab hosts. `ringfence lab down --purge` deletes them.\n")
        _give_to_owner(environment, mark, 0o644)
    for administrator in environment.administrators.values():
        for path in administrator.ssh_key_files:
            # A FIDO2 key is in hardware; software cannot create it.
            if not path.exists() and administrator.second_factor == "totp":
                _key_pair(environment, path.with_suffix(""), administrator.account)


def authorized_keys(environment: Environment) -> list[str]:
    """Return the public keys of the bootstrap account."""
    identity = environment.bootstrap.identity_file
    assert identity
    done = run(["ssh-keygen", "-y", "-f", str(identity)])
    if done.returncode:
        raise UnusableError(f"{identity} is not a usable private key: {done.stderr.strip()}")
    return [done.stdout.strip()]


def write_known_hosts(plan: Plan, keys: Mapping[str, list[str]]) -> None:
    """Record the hosts' keys in `known_hosts`; keep the lines of other hosts."""
    path = plan.environment.state / KNOWN_HOSTS
    present = path.read_text().splitlines() if path.exists() else []
    lines = [line for line in present if not line.endswith(f" {COMMENT}")]
    for name, public_keys in keys.items():
        host = plan.environment.hosts[name]
        names = [*(str(address) for address in host.addresses), host.fqdn, host.name]
        ports = {plan.environment.bootstrap.port, host.ssh_port}
        known_as = ",".join(
            name if port == 22 else f"[{name}]:{port}" for port in sorted(ports) for name in names
        )
        lines += [f"{known_as} {key} {COMMENT}" for key in public_keys]
    text = "".join(f"{line}\n" for line in lines)
    if path.exists() and path.read_text() == text:
        return
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    _give_to_owner(plan.environment, partial, 0o644)
    partial.replace(path)


def purge(directory: Path) -> bool:
    """Delete a state directory only if the lab made its keys; return whether it was deleted."""
    if directory.name != ".state" or not (directory / MARK).is_file():
        return False
    shutil.rmtree(directory)
    return True


def _key_pair(environment: Environment, path: Path, comment: str) -> None:
    state = environment.state.resolve()
    if state not in path.parent.resolve().parents and path.parent.resolve() != state:
        raise UnusableError(f"{path} is missing; the lab makes keys only below {state}")
    _directory(environment, path.parent)
    done = run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])
    if done.returncode:
        raise LabError(f"ssh-keygen could not make {path}: {done.stderr.strip()}")
    _give_to_owner(environment, path, 0o600)
    _give_to_owner(environment, path.with_name(f"{path.name}.pub"), 0o644)


def _directory(environment: Environment, directory: Path) -> None:
    if not directory.is_dir():
        if directory != environment.state:
            _directory(environment, directory.parent)
        directory.mkdir(mode=0o700)
        _give_to_owner(environment, directory, 0o700)


def _give_to_owner(environment: Environment, path: Path, mode: int) -> None:
    owner = environment.path.parent.stat()
    path.chmod(mode)
    os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
