"""Variables of role `mcp_servers`: servers to install and confine on a host."""

from __future__ import annotations

from typing import Any

from ringfence.cloud.acls import endpoints_segment
from ringfence.manifest.model import Egress, Environment, Host, Server
from ringfence.packages.wheelhouse import locks_of

FIRST_LOOPBACK_PORT = 20000


def variables(environment: Environment, host: Host) -> dict[str, Any]:
    return {
        "mcp_servers_declared": [
            server_variables(environment, server, port)
            for server, port in loopback_ports(environment, host)
        ],
        "mcp_servers_locks": [str(locks_of(environment))],
        "mcp_servers_wheelhouse": str(environment.state / "wheelhouse"),
        "mcp_servers_secrets": str(environment.state / "secrets"),
    }


def loopback_ports(environment: Environment, host: Host) -> list[tuple[Server, int]]:
    """Return the servers of a host, each with its own loopback port."""
    return [
        (server, FIRST_LOOPBACK_PORT + number)
        for number, server in enumerate(environment.servers_on(host))
    ]


def server_variables(environment: Environment, server: Server, port: int) -> dict[str, Any]:
    return {
        "name": server.name,
        "description": server.description or server.name,
        "package": {"name": server.package.name, "version": server.package.version},
        "transport": server.transport,
        "command": list(server.command),
        "loopback_port": port,
        "egress": [target for egress in server.egress for target in targets(environment, egress)],
        "secrets": list(server.secrets),
        "limits": {
            "memory_mib": server.limits.memory_mib,
            "tasks": server.limits.tasks,
            "cpu_percent": server.limits.cpu_percent,
            "concurrency": server.limits.concurrency,
            "timeout_seconds": server.limits.timeout_seconds,
        },
    }


def targets(environment: Environment, egress: Egress) -> list[str]:
    """Return the networks of a server's allow-list.

    A domain has no address here: the egress firewall enforces it, and the server may query the
    resolvers for it.
    """
    if egress.cidr:
        return [str(egress.cidr)]
    if egress.host:
        return [str(address) for address in egress.host.addresses]
    if egress.private_link:
        return [str(endpoints_segment(environment).cidr)]
    return ["any", *map(str, environment.services.dns)]
