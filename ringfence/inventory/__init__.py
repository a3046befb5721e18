"""The Ansible inventory of an environment.

One module per role computes the variables of that role for one host. A host gets only the variables
of the roles that apply to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ringfence.inventory import (
    baseline,
    connection,
    firewall,
    log_shipping,
    mcp_gateway,
    mcp_servers,
    nids,
    siem,
    ssh,
    tls,
)
from ringfence.manifest.model import Environment, Host

Variables = Callable[[Environment, Host], dict[str, Any]]

ROLES: dict[str, tuple[str, Variables]] = {
    "connection": ("all", connection.variables),
    "baseline": ("all", baseline.variables),
    "ssh": ("all", ssh.variables),
    "firewall": ("all", firewall.variables),
    "tls": ("all", tls.variables),
    "log_shipping": ("all", log_shipping.variables),
    "siem": ("siem", siem.variables),
    "mcp_servers": ("mcp_servers", mcp_servers.variables),
    "mcp_gateway": ("edge", mcp_gateway.variables),
    "nids": ("sensor", nids.variables),
}
"""Roles: the group of hosts that it applies to, and the function that computes its variables."""


def groups(environment: Environment) -> dict[str, list[str]]:
    """Return host names by Ansible group: the manifest's groups, and `segment_<name>`."""
    members: dict[str, list[str]] = {}
    for host in environment.hosts.values():
        segment = f"segment_{host.segment.name.replace('-', '_')}"
        for group in (*sorted(host.groups), segment):
            members.setdefault(group, []).append(host.name)
    return members


def variables(environment: Environment, host: Host) -> dict[str, Any]:
    """Return the variables of every role that applies to a host."""
    merged: dict[str, Any] = {}
    for group, compute in ROLES.values():
        if host in environment.group(group):
            merged |= compute(environment, host)
    return merged
