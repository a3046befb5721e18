"""Connections that were seen, beside those that are declared, with both ends named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network

from ringfence.cloud.balancers import VXLAN, sensors
from ringfence.events.connections import Connection
from ringfence.flows.declared import accepted, opened, pings
from ringfence.manifest.model import Address, Environment, Flow, Host, Network

PING = "ping"
COPIES = "copies of packets, for a sensor"
DHCP6 = {("udp", 546, 547), ("udp", 547, 546)}
"""Protocol and ports."""


@dataclass(frozen=True, order=True)
class Edge:
    """Connections from one end to one port of another: `host NAME`, `segment NAME` for whatever
    in it is no host, or an address or network outside."""

    source: str
    target: str
    protocol: str
    port: int

    @property
    def ports(self) -> str:
        return f"{self.protocol}/{self.port}" if self.port else self.protocol


@dataclass
class Seen:
    """Totals of one connection."""

    connections: int = 0
    answered: int = 0
    bytes: int = 0
    first: float = float("inf")
    """Unix seconds."""
    last: float = 0.0
    sources: set[Address] = field(default_factory=set)

    def add(self, connection: Connection) -> None:
        self.connections += 1
        self.answered += connection.answered
        self.bytes += connection.bytes
        self.first = min(self.first, connection.time)
        self.last = max(self.last, connection.time)
        self.sources.add(connection.source)


@dataclass(frozen=True)
class Comparison:
    declared: dict[Edge, str]
    """Every edge that may be, with its reason. Copies for sensors, where some were seen: mostly
    they are not recorded."""
    removable: frozenset[Edge] = frozenset()
    """Those that stand in the manifest's `network.flows`; others follow from something else."""
    seen: dict[Edge, Seen] = field(default_factory=dict)
    """Declared connections that were observed."""
    undeclared: dict[Edge, Seen] = field(default_factory=dict)

    @property
    def unused(self) -> dict[Edge, str]:
        """Declared connections that were never observed."""
        return {edge: why for edge, why in self.declared.items() if edge not in self.seen}


def compare(environment: Environment, connections: Iterable[Connection]) -> Comparison:
    ways = _Ways(environment)
    comparison = Comparison(ways.edges, frozenset(map(ways.edge_of_flow, environment.flows)))
    for connection in connections:
        if ways.concern(connection):
            found = ways.of(connection)
            if copies := ways.copies(connection):
                comparison.declared[copies] = COPIES
                found = [copies]
            edges = found or [ways.edge_of(connection)]
            told = comparison.seen if found else comparison.undeclared
            for edge in edges:
                told.setdefault(edge, Seen()).add(connection)
    return comparison


class _Ways:
    def __init__(self, environment: Environment) -> None:
        self._segments = {
            network: segment.name
            for segment in environment.segments.values()
            for network in segment.networks
        }
        self._hosts = {
            ip_network(address): host.name
            for host in environment.hosts.values()
            for address in host.addresses
        }
        self._sensors = {a for host in environment.group("sensor") for a in host.addresses}
        balancer = sensors(environment)
        self._before_sensors = balancer.segment.networks if balancer else ()
        self._by_port: dict[tuple[str, int], list[tuple[Network, Network, Edge]]] = {}
        self.edges: dict[Edge, str] = {}
        for way in (*opened(environment), *accepted(environment)):
            self._add(way.source, way.target, way.protocol, way.port, way.why)
        for source, target in pings(environment):
            self._add(source, target, "icmp", 0, PING)

    def _add(self, source: Network, target: Network, protocol: str, port: int, why: str) -> None:
        edge = Edge(self._name(source), self._name(target), protocol, port)
        if edge.source != edge.target:
            self.edges.setdefault(edge, why)
            self._by_port.setdefault((protocol, port), []).append((source, target, edge))

    def concern(self, connection: Connection) -> bool:
        """Whether it is between two ends, and more than they need to be on a link."""
        ends = (connection.source, connection.target)
        broadcasts = {network.broadcast_address for network in self._segments}
        ports = (connection.protocol, connection.source_port, connection.port)
        addressing = ports in DHCP6 and all(end.is_link_local for end in ends)
        return not (connection.neighbours or addressing) and not any(
            end.is_multicast or end.is_unspecified or end in broadcasts
            or str(end) == "255.255.255.255"
            for end in ends
        )  # fmt: skip

    def of(self, connection: Connection) -> list[Edge]:
        """The declared edges that it belongs to."""
        ends = [(connection.source, connection.target, connection.port)]
        if not connection.certain:
            ends += [(connection.target, connection.source, connection.source_port)]
        for source, target, port in ends:
            ways = self._by_port.get((connection.protocol, port), ())
            if found := [edge for here, there, edge in ways if source in here and target in there]:
                return list(dict.fromkeys(found))
        return []

    def copies(self, connection: Connection) -> Edge | None:
        """The edge of packets that somebody mirrors to a sensor, or to the balancer before it.

        Whatever else is on this port is no copy. A flow log of AWS has none:
        https://docs.aws.amazon.com/vpc/latest/mirroring/traffic-mirroring-network-limitations.html
        """
        source, target = connection.source, connection.target
        inside = source not in self._sensors and any(source in n for n in self._segments)
        # The manifest does not know where in its segment the balancer is.
        watched = target in self._sensors or (
            ip_network(target) not in self._hosts
            and any(target in network for network in self._before_sensors)
        )
        if (connection.protocol, connection.port) != ("udp", VXLAN) or not (inside and watched):
            return None
        return Edge(self._end(source), self._end(target), connection.protocol, connection.port)

    def edge_of(self, connection: Connection) -> Edge:
        source, target, port = connection.source, connection.target, connection.port
        if not connection.certain and 0 < connection.source_port < port:
            source, target, port = target, source, connection.source_port
        return Edge(self._end(source), self._end(target), connection.protocol, port)

    @staticmethod
    def edge_of_flow(flow: Flow) -> Edge:
        """Name both ends of a flow: not every host has an address yet."""
        kind = "host" if isinstance(flow.source, Host) else "segment"
        source, target = f"{kind} {flow.source.name}", f"host {flow.target.name}"
        return Edge(source, target, flow.protocol, flow.port)

    def _end(self, address: Address) -> str:
        alone = ip_network(address)
        if alone in self._hosts:
            return self._name(alone)
        return next(
            (self._name(network) for network in self._segments if address in network), str(address)
        )

    def _name(self, network: Network) -> str:
        if network in self._hosts:
            return f"host {self._hosts[network]}"
        if network in self._segments:
            return f"segment {self._segments[network]}"
        if network.prefixlen == network.max_prefixlen:
            inside = next((n for s, n in self._segments.items() if network[0] in s), None)
            return f"{network[0]} in {inside}" if inside else str(network[0])
        return str(network)
