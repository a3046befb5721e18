"""Logins to a lab's hosts over its network."""

from __future__ import annotations

from collections.abc import Sequence

from ringfence.identity import ssh_authority
from ringfence.inventory import connection
from ringfence.lab.machine import LabMachine
from ringfence.manifest.model import Environment


def command(environment: Environment, machine: LabMachine, argv: Sequence[str]) -> list[str]:
    """Return an ssh command for the automation account, or for the bootstrap account if the host
    does not have an automation account yet."""
    host = machine.node.host
    assert host
    account, port = environment.automation.account, host.ssh_port
    if machine.run(["id", account]).returncode == 0:
        identity = ssh_authority.keep_certificate(environment).key
        options = connection.automation_options(environment, host)
    else:
        bootstrap = environment.bootstrap
        account, port, identity = bootstrap.user, bootstrap.port, bootstrap.identity_file
        # The lab has recorded the host's key, so ssh need not trust it on first use.
        options = ("-o", "StrictHostKeyChecking=yes")
        options += connection.bootstrap_options(environment, host)
    target = f"{account}@{host.address}"
    return ["ssh", "-q", "-p", str(port), "-i", str(identity), *options, target, *argv]
