"""Network load balancers: for the gateway, towards other accounts, and for sensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ringfence.manifest.model import Environment, Host, Protocol, Segment

GATEWAY, SENSORS = "gateway", "sensors"
HTTPS = 443
VXLAN = 4789
"""Port of VXLAN, the encapsulation of traffic mirroring."""
HEALTH = 14789
"""Open on a sensor while Suricata runs: VXLAN has no answers, and SSH runs without Suricata."""


@dataclass(frozen=True)
class Listener:
    """Listens on the port of its targets."""

    protocol: Protocol
    port: int
    hosts: tuple[Host, ...]
    health: int | None = None
    """TCP port of the health check, if it differs."""


@dataclass(frozen=True)
class Balancer:
    name: str
    segment: Segment
    listeners: tuple[Listener, ...]

    @property
    def group(self) -> str:
        return f"balancer-{self.name}"

    @property
    def targets(self) -> Iterator[tuple[Host, Protocol, int]]:
        """Connections that it opens."""
        for listener in self.listeners:
            for host in listener.hosts:
                yield host, listener.protocol, listener.port
                if listener.health:
                    yield host, "tcp", listener.health


def balancers(environment: Environment) -> tuple[Balancer, ...]:
    return tuple(found for found in (gateway(environment), sensors(environment)) if found)


def gateway(environment: Environment) -> Balancer | None:
    """Listen on the ports that clients of the environment use, or on the gateway's own."""
    place, edge = environment.provisioning, environment.group("edge")
    if not place or not place.accepted or not edge:
        return None
    ports: dict[int, dict[Host, None]] = {}
    for flow in environment.flows:
        source = flow.source if isinstance(flow.source, Segment) else flow.source.segment
        to_gateway = flow.target in edge and not flow.server and flow.protocol == "tcp"
        if to_gateway and source.purpose == "clients":
            ports.setdefault(flow.port, {})[flow.target] = None
    own_port = environment.gateway.port if environment.gateway else HTTPS
    listeners = {port: tuple(hosts) for port, hosts in ports.items()} or {own_port: edge}
    return Balancer(
        GATEWAY,
        edge[0].segment,
        tuple(Listener("tcp", port, hosts) for port, hosts in sorted(listeners.items())),
    )


def sensors(environment: Environment) -> Balancer | None:
    hosts = environment.group("sensor")
    if not hosts or not environment.provisioning:
        return None
    listener = Listener("udp", VXLAN, hosts, health=HEALTH)
    return Balancer(SENSORS, hosts[0].segment, (listener,))
