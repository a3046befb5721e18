"""Network load balancers: before the gateway, for callers of other accounts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ringfence.environment import Environment, Host, Protocol, Segment

GATEWAY = "gateway"
HTTPS = 443


@dataclass(frozen=True)
class Listener:
    """Listens on the port of its targets."""

    protocol: Protocol
    port: int
    hosts: tuple[Host, ...]


@dataclass(frozen=True)
class Balancer:
    name: str
    segment: Segment
    listeners: tuple[Listener, ...]

    @property
    def group(self) -> str:
        return f"balancer-{self.name}"

    @property
    def ways(self) -> Iterator[tuple[Host, Protocol, int]]:
        """To its targets."""
        for listener in self.listeners:
            for host in listener.hosts:
                yield host, listener.protocol, listener.port


def balancers(environment: Environment) -> tuple[Balancer, ...]:
    return tuple(found for found in (gateway(environment),) if found)


def gateway(environment: Environment) -> Balancer | None:
    """With the ports that clients of the environment use; with HTTPS, where it has none."""
    place, edge = environment.provisioning, environment.group("edge")
    if not place or not place.accepted or not edge:
        return None
    ports: dict[int, dict[Host, None]] = {}
    for flow in environment.flows:
        source = flow.source if isinstance(flow.source, Segment) else flow.source.segment
        to_gateway = flow.target in edge and not flow.server and flow.protocol == "tcp"
        if to_gateway and source.purpose == "clients":
            ports.setdefault(flow.port, {})[flow.target] = None
    listeners = {port: tuple(hosts) for port, hosts in ports.items()} or {HTTPS: edge}
    return Balancer(
        GATEWAY,
        edge[0].segment,
        tuple(Listener("tcp", port, hosts) for port, hosts in sorted(listeners.items())),
    )
