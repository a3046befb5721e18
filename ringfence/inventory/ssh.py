"""Variables of role `ssh`: who may log in to a host, how, and from where."""

from __future__ import annotations

from typing import Any

from ringfence.identity.ssh_authority import SshAuthorityFiles, management_networks
from ringfence.manifest.model import Environment, Host


def variables(environment: Environment, host: Host) -> dict[str, Any]:
    return {
        "ssh_port": host.ssh_port,
        "ssh_automation_account": environment.automation.account,
        "ssh_authority_file": str(SshAuthorityFiles.of(environment).authority_public),
        "ssh_management_networks": [str(n) for n in management_networks(environment)],
        # One task reads the secrets themselves, on the operator's machine.
        "ssh_totp_directory": str(environment.state / "totp"),
        "ssh_administrators": [
            {
                "name": person.account,
                "full_name": person.name,
                "second_factor": person.second_factor,
                "sudo": person.sudo,
                "keys": list(person.ssh_keys),
                "key_files": [str(path) for path in person.ssh_key_files],
            }
            for person in environment.administrators.values()
        ],
    }
