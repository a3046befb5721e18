"""SSH connections of Ansible: with automation's certificate, and before that as the bootstrap user.

A host in AWS is reached through Session Manager, by the id of its instance; no route leads there.
AWS guarantees that the tunnel ends at that instance. Its host key is recorded at the first
connection under the id, which no other instance will ever have.
https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-getting-started-enable-ssh-connections.html
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ringfence.cloud.sessions import SSH
from ringfence.identity.ssh_authority import SshAuthorityFiles
from ringfence.manifest.model import Environment, Host

NAMED_KEY_ONLY = ("-o", "IdentitiesOnly=yes")
"""Only the named key: an agent with many keys would use up the attempts."""
TOOLS = ("aws", "session-manager-plugin")
"""Programs that open a session on this machine, beside ssh."""
CONNECT_SECONDS, SESSION_SECONDS = 10, 30
"""Session Manager makes two AWS calls before ssh can connect."""


def variables(environment: Environment, host: Host) -> dict[str, Any]:
    files = SshAuthorityFiles.of(environment)
    bootstrap = environment.bootstrap
    return {
        "ansible_host": address(host),
        "ansible_port": host.ssh_port,
        "ansible_user": environment.automation.account,
        "ansible_ssh_private_key_file": str(files.key),
        "ansible_ssh_common_args": shlex.join(automation_options(environment, host)),
        # Automation's certificate permits no terminal, and `raw` would request one.
        "ansible_ssh_use_tty": False,
        "bootstrap_user": bootstrap.user,
        "bootstrap_port": bootstrap.port,
        # Empty: the keys of the agent.
        "bootstrap_ssh_private_key_file": str(bootstrap.identity_file or ""),
        "bootstrap_ssh_common_args": shlex.join(bootstrap_options(environment, host)),
        "bootstrap_manifest": str(environment.path),
        "bootstrap_authority": str(files.authority_public),
    }


def automation_options(environment: Environment, host: Host) -> tuple[str, ...]:
    """Return options of ssh, beside user, key and address, for automation's access path."""
    files = SshAuthorityFiles.of(environment)
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
    """Return options of ssh for a fresh host, whose key is recorded at the first connection."""
    files = SshAuthorityFiles.of(environment)
    return (
        # The agent may have that key: a person's own has a passphrase.
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
    """Return options of ssh for Session Manager; none for a host with a route to it."""
    place = environment.provisioning
    if host.instance is None or place is None:
        return ()
    session = (
        *("aws", "ssm", "start-session", "--region", place.region, "--target", "%h"),
        *("--document-name", SSH, "--parameters", "portNumber=%p"),
    )
    return ("-o", f"ProxyCommand={' '.join(session)}")


def _quoted(path: Path) -> str:
    """Quote a path for an option of ssh, in which blanks separate and % is special."""
    return f'"{path}"'.replace("%", "%%")
