"""Comparison of observed connections with declared ones; both ends have names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network

from ringfence.cloud.balancers import VXLAN, sensors
from ringfence.events.connections import FlowRecord
from ringfence.inventory.declared import inbound, outbound, pings
from ringfence.manifest.model import Address, Environment, Flow, Host, Network

PING = "ping"
COPIES = "copies of packets, for a sensor"
DHCP6 = {("udp", 546, 547), ("udp", 547, 546)}
"""Protocol and ports."""


@dataclass(frozen=True, order=True)
class Connection:
    """Traffic from one end to one port of another. An end is `host NAME`, `segment NAME` (other
    addresses of a segment), or an address or network outside."""

    source: str
    target: str
    protocol: str
    port: int

    @property
    def ports(self) -> str:
        return f"{self.protocol}/{self.port}" if self.port else self.protocol


@dataclass
class Totals:
    """Totals of one connection."""

    connections: int = 0
    answered: int = 0
    bytes: int = 0
    first: float = float("inf")
    """Unix seconds."""
    last: float = 0.0
    sources: set[Address] = field(default_factory=set)

    def add(self, record: FlowRecord) -> None:
        self.connections += 1
        self.answered += record.answered
        self.bytes += record.bytes
        self.first = min(self.first, record.time)
        self.last = max(self.last, record.time)
        self.sources.add(record.source)


@dataclass(frozen=True)
class Comparison:
    declared: dict[Connection, str]
    """Every declared connection, with its reason. Mirrored packets are included only if a log has
    them; most logs do not."""
    removable: frozenset[Connection] = frozenset()
    """Connections of the manifest's `network.flows`; all others are derived."""
    seen: dict[Connection, Totals] = field(default_factory=dict)
    """Declared connections that a log contains."""
    undeclared: dict[Connection, Totals] = field(default_factory=dict)

    @property
    def unused(self) -> dict[Connection, str]:
        """Declared connections that no log contains."""
        return {
            connection: why
            for connection, why in self.declared.items()
            if connection not in self.seen
        }


def compare(environment: Environment, records: Iterable[FlowRecord]) -> Comparison:
    flows = _DeclaredFlows(environment)
    comparison = Comparison(
        flows.connections, frozenset(map(flows.connection_of_flow, environment.flows))
    )
    for record in records:
        if flows.concern(record):
            found = flows.of(record)
            if copies := flows.copies(record):
                comparison.declared[copies] = COPIES
                found = [copies]
            connections = found or [flows.connection_of(record)]
            totals = comparison.seen if found else comparison.undeclared
            for connection in connections:
                totals.setdefault(connection, Totals()).add(record)
    return comparison


class _DeclaredFlows:
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
        self._by_port: dict[tuple[str, int], list[tuple[Network, Network, Connection]]] = {}
        self.connections: dict[Connection, str] = {}
        for flow in (*outbound(environment), *inbound(environment)):
            self._add(flow.source, flow.target, flow.protocol, flow.port, flow.why)
        for source, target in pings(environment):
            self._add(source, target, "icmp", 0, PING)

    def _add(self, source: Network, target: Network, protocol: str, port: int, why: str) -> None:
        connection = Connection(self._name(source), self._name(target), protocol, port)
        if connection.source != connection.target:
            self.connections.setdefault(connection, why)
            self._by_port.setdefault((protocol, port), []).append((source, target, connection))

    def concern(self, record: FlowRecord) -> bool:
        """Return whether a record joins two ends: not neighbour discovery, DHCP or multicast."""
        ends = (record.source, record.target)
        broadcasts = {network.broadcast_address for network in self._segments}
        ports = (record.protocol, record.source_port, record.port)
        addressing = ports in DHCP6 and all(end.is_link_local for end in ends)
        return not (record.neighbours or addressing) and not any(
            end.is_multicast or end.is_unspecified or end in broadcasts
            or str(end) == "255.255.255.255"
            for end in ends
        )  # fmt: skip

    def of(self, record: FlowRecord) -> list[Connection]:
        """Return the declared connections that a record belongs to."""
        ends = [(record.source, record.target, record.port)]
        if not record.certain:
            ends += [(record.target, record.source, record.source_port)]
        for source, target, port in ends:
            candidates = self._by_port.get((record.protocol, port), ())
            if found := [
                connection
                for here, there, connection in candidates
                if source in here and target in there
            ]:
                return list(dict.fromkeys(found))
        return []

    def copies(self, record: FlowRecord) -> Connection | None:
        """Return the connection of mirrored packets to a sensor or its load balancer, else None.

        Other traffic on this port is not mirrored. AWS flow logs do not record mirrored packets:
        https://docs.aws.amazon.com/vpc/latest/mirroring/traffic-mirroring-network-limitations.html
        """
        source, target = record.source, record.target
        inside = source not in self._sensors and any(source in n for n in self._segments)
        # The manifest does not name the address of the load balancer in its segment.
        watched = target in self._sensors or (
            ip_network(target) not in self._hosts
            and any(target in network for network in self._before_sensors)
        )
        if (record.protocol, record.port) != ("udp", VXLAN) or not (inside and watched):
            return None
        return Connection(self._end(source), self._end(target), record.protocol, record.port)

    def connection_of(self, record: FlowRecord) -> Connection:
        source, target, port = record.source, record.target, record.port
        if not record.certain and 0 < record.source_port < port:
            source, target, port = target, source, record.source_port
        return Connection(self._end(source), self._end(target), record.protocol, port)

    @staticmethod
    def connection_of_flow(flow: Flow) -> Connection:
        """Name both ends of a flow by name, because some hosts have no address yet."""
        kind = "host" if isinstance(flow.source, Host) else "segment"
        source, target = f"{kind} {flow.source.name}", f"host {flow.target.name}"
        return Connection(source, target, flow.protocol, flow.port)

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
