"""How Ansible reaches a host: as automation by certificate, and before the first hardening
through the door that the host came with.

A host in AWS is reached through Session Manager, by the id of its instance: no network leads
there. AWS tells the operator's machine and the host apart, so that the other end of the tunnel is
that instance; its host key is recorded at the first contact, under the id, which no other
instance will ever have.
https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-getting-started-enable-ssh-connections.html
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ringfence.cloud.sessions import SSH
from ringfence.identity.ssh_authority import Files
from ringfence.manifest.model import Environment, Host

NAMED_KEY_ONLY = ("-o", "IdentitiesOnly=yes")
"""Exactly the key that is named: an agent full of others would use up the attempts."""
TOOLS = ("aws", "session-manager-plugin")
"""Programs that open a session on this machine, beside ssh."""
CONNECT_SECONDS, SESSION_SECONDS = 10, 30
"""A session is opened by two calls of AWS, before ssh says its first word."""


def variables(environment: Environment, host: Host) -> dict[str, Any]:
    files = Files.of(environment)
    bootstrap = environment.bootstrap
    return {
        "ansible_host": address(host),
        "ansible_port": host.ssh_port,
        "ansible_user": environment.automation.account,
        "ansible_ssh_private_key_file": str(files.key),
        "ansible_ssh_common_args": shlex.join(automation_options(environment, host)),
        # Automation's certificate permits no terminal, and `raw` would ask for one.
        "ansible_ssh_use_tty": False,
        "bootstrap_user": bootstrap.user,
        "bootstrap_port": bootstrap.port,
        # Empty: whatever the agent holds.
        "bootstrap_ssh_private_key_file": str(bootstrap.identity_file or ""),
        "bootstrap_ssh_common_args": shlex.join(bootstrap_options(environment, host)),
        "bootstrap_manifest": str(environment.path),
        "bootstrap_authority": str(files.authority_public),
    }


def automation_options(environment: Environment, host: Host) -> tuple[str, ...]:
    """Options of ssh, beside user, key and address, for the door of automation."""
    files = Files.of(environment)
    return (
        *("-o", f"CertificateFile={_quoted(files.certificate)}"),
        *NAMED_KEY_ONLY,
        *("-o", "IdentityAgent=none"),
        *("-o", f"UserKnownHostsFile={_quoted(files.known_hosts)}"),
        *("-o", "GlobalKnownHostsFile=/dev/null"),
        *("-o", f"StrictHostKeyChecking={'accept-new' if host.instance else 'yes'}"),
        *("-o", "PreferredAuthentications=publickey"),
        *("-o", "ForwardAgent=no"),
        *("-o", f"ConnectTimeout={connect_seconds(host)}"),
        *tunnel(environment, host),
    )


def bootstrap_options(environment: Environment, host: Host) -> tuple[str, ...]:
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
        *("-o", f"ConnectTimeout={connect_seconds(host)}"),
        *tunnel(environment, host),
    )


def connect_seconds(host: Host) -> int:
    return SESSION_SECONDS if host.instance else CONNECT_SECONDS


def address(host: Host) -> str:
    """Return the destination for ssh; a host that is not provisioned yet has a name only."""
    return host.instance or str(host.address or host.fqdn)


def tunnel(environment: Environment, host: Host) -> tuple[str, ...]:
    """Options of ssh that lead through Session Manager; none where a network leads there."""
    place = environment.provisioning
    if host.instance is None or place is None:
        return ()
    session = (
        *("aws", "ssm", "start-session", "--region", place.region, "--target", "%h"),
        *("--document-name", SSH, "--parameters", "portNumber=%p"),
    )
    return ("-o", f"ProxyCommand={' '.join(session)}")


def _quoted(path: Path) -> str:
    """A path as ssh reads it in an option: blanks separate, % stands for something."""
    return f'"{path}"'.replace("%", "%%")
