"""How Ansible reaches a host: as automation by certificate, and before the first hardening
through the door that the host came with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ringfence.environment import Environment, Host
from ringfence.ssh_authority import Files

NAMED_KEY_ONLY = ("-o", "IdentitiesOnly=yes")
"""Exactly the key that is named: an agent full of others would use up the attempts."""


def variables(environment: Environment, host: Host) -> dict[str, Any]:
    files = Files.of(environment)
    bootstrap = environment.bootstrap
    return {
        # A host that is yet to be provisioned has a name only.
        "ansible_host": str(host.address or host.fqdn),
        "ansible_port": host.ssh_port,
        "ansible_user": environment.automation.account,
        "ansible_ssh_private_key_file": str(files.key),
        "ansible_ssh_common_args": shlex.join(automation_options(environment)),
        # Automation's certificate permits no terminal, and `raw` would ask for one.
        "ansible_ssh_use_tty": False,
        "bootstrap_user": bootstrap.user,
        "bootstrap_port": bootstrap.port,
        # Empty: whatever the agent holds.
        "bootstrap_ssh_private_key_file": str(bootstrap.identity_file or ""),
        "bootstrap_ssh_common_args": shlex.join(bootstrap_options(environment)),
        "bootstrap_manifest": str(environment.path),
        "bootstrap_authority": str(files.authority_public),
    }


def automation_options(environment: Environment) -> tuple[str, ...]:
    """Options of ssh, beside user, key and address, for the door of automation."""
    files = Files.of(environment)
    return (
        *("-o", f"CertificateFile={_quoted(files.certificate)}"),
        *NAMED_KEY_ONLY,
        *("-o", "IdentityAgent=none"),
        *("-o", f"UserKnownHostsFile={_quoted(files.known_hosts)}"),
        *("-o", "GlobalKnownHostsFile=/dev/null"),
        *("-o", "StrictHostKeyChecking=yes"),
        *("-o", "PreferredAuthentications=publickey"),
        *("-o", "ForwardAgent=no"),
        *("-o", "ConnectTimeout=10"),
    )


def bootstrap_options(environment: Environment) -> tuple[str, ...]:
    """Options of ssh for the door of a fresh host. Its key is recorded at first contact."""
    files = Files.of(environment)
    return (
        # The agent may be asked for that key: a person's own has a passphrase.
        *(NAMED_KEY_ONLY if environment.bootstrap.identity_file else ()),
        *("-o", f"UserKnownHostsFile={_quoted(files.known_hosts)}"),
        *("-o", "GlobalKnownHostsFile=/dev/null"),
        *("-o", "StrictHostKeyChecking=accept-new"),
        *("-o", "PreferredAuthentications=publickey"),
        *("-o", "ForwardAgent=no"),
        *("-o", "ConnectTimeout=10"),
    )


def _quoted(path: Path) -> str:
    """A path as ssh reads it in an option: blanks separate, % stands for something."""
    return f'"{path}"'.replace("%", "%%")
