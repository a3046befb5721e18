"""MCP servers of a host, as its role installs and confines them."""

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
    """Servers of a host, each with the loopback port that is its own."""
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
    """Networks for a server's allow-list.

    A name outside has no address here: what may be reached under it is held by the egress
    firewall, and the server may ask the resolvers for it.
    """
    if egress.cidr:
        return [str(egress.cidr)]
    if egress.host:
        return [str(address) for address in egress.host.addresses]
    if egress.private_link:
        return [str(endpoints_segment(environment).cidr)]
    return ["any", *map(str, environment.services.dns)]
