"""Network ACLs: connections between segments, as a second barrier behind security groups.

An ACL is stateless, so that each flow needs an entry for its answers. It has few entries, so that
the ports of several flows between two segments become one range.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Network, ip_network
from typing import Literal

from ringfence.cloud import egress as internet_egress
from ringfence.cloud.balancers import VXLAN, balancers, sensors
from ringfence.cloud.groups import HTTPS, Direction, infrastructure
from ringfence.manifest.model import Egress, Environment, Protocol, Segment

ANSWERS = (1024, 65535)
"""Source ports of clients on any system."""
ANSWERS_TO_HOSTS = (32768, 60999)
"""Source ports of Debian (net.ipv4.ip_local_port_range)."""
EVERYWHERE = IPv4Network("0.0.0.0/0")
HIGHEST_NUMBER = 32766

Purpose = Literal["requests", "answers"]
Key = tuple[Direction, Purpose, Protocol, IPv4Network]


@dataclass(frozen=True)
class AclEntry:
    direction: Direction
    purpose: Purpose
    protocol: Protocol
    first: int
    last: int
    network: IPv4Network
    number: int

    @property
    def key(self) -> str:
        place = str(self.network).replace(".", "-").replace("/", "-")
        return f"{self.direction}-{self.purpose}-{self.protocol}-{place}"


@dataclass(frozen=True)
class _Flow:
    """Connections from one network to another; at least one of them is a segment."""

    source: IPv4Network
    target: IPv4Network
    protocol: Protocol
    port: int
    answers: tuple[int, int] | None = ANSWERS


def endpoints_segment(environment: Environment) -> Segment:
    """The segment of interface endpoints: the one from which hosts are administered."""
    return environment.segments_for("management")[0]


def entries(environment: Environment, segment: Segment) -> tuple[AclEntry, ...]:
    return _entries(_flows(environment), segment.cidr)


def egress_entries(environment: Environment) -> tuple[AclEntry, ...]:
    """Entries for the subnets of the firewall and the NAT gateways.

    Answers arrive at the NAT gateway's source ports: 1024 and higher.
    https://docs.aws.amazon.com/vpc/latest/userguide/nat-gateway-basics.html
    """
    own = internet_egress.network(environment)
    assert own
    flows = [
        flow
        for each in internet_egress.destinations(environment)
        for flow in (
            _Flow(each.network, own, "tcp", each.port, ANSWERS_TO_HOSTS),
            _Flow(own, EVERYWHERE, "tcp", each.port),
        )
    ]
    return _entries(flows, own)


def _entries(flows: Iterable[_Flow], own: IPv4Network) -> tuple[AclEntry, ...]:
    ranges: dict[Key, tuple[int, int]] = {}

    def add(key: Key, first: int, last: int) -> None:
        known = ranges.get(key, (first, last))
        ranges[key] = min(known[0], first), max(known[1], last)

    for flow in flows:
        if flow.target == own:
            add(("ingress", "requests", flow.protocol, flow.source), flow.port, flow.port)
            if flow.answers:
                add(("egress", "answers", flow.protocol, flow.source), *flow.answers)
        if flow.source == own:
            add(("egress", "requests", flow.protocol, flow.target), flow.port, flow.port)
            if flow.answers:
                add(("ingress", "answers", flow.protocol, flow.target), *flow.answers)
    numbers = _numbers(sorted(ranges, key=str))
    return tuple(
        AclEntry(direction, purpose, protocol, first, last, network, numbers[key])
        for key, (first, last) in ranges.items()
        for direction, purpose, protocol, network in (key,)
    )


def _flows(environment: Environment) -> Iterator[_Flow]:
    for flow in environment.all_flows:
        source = flow.source if isinstance(flow.source, Segment) else flow.source.segment
        yield _Flow(source.cidr, flow.target.segment.cidr, flow.protocol, flow.port)
    for server in environment.servers.values():
        for egress in server.egress:
            for network in _targets(environment, egress):
                yield _Flow(server.segment.cidr, network, egress.protocol, egress.port)
    for each in internet_egress.destinations(environment):
        yield _Flow(each.network, EVERYWHERE, "tcp", each.port, ANSWERS_TO_HOSTS)
    for balancer in balancers(environment):
        for host, protocol, port in balancer.targets:
            yield _Flow(balancer.segment.cidr, host.segment.cidr, protocol, port)
    if balancer := sensors(environment):
        # The load balancer preserves the source address.
        for target in dict.fromkeys(
            (balancer.segment, *(host.segment for host, _, _ in balancer.targets))
        ):
            for segment in inhabited(environment):
                yield _Flow(segment.cidr, target.cidr, "udp", VXLAN, answers=None)
    endpoints = endpoints_segment(environment).cidr
    for segment in inhabited(environment):
        yield _Flow(segment.cidr, endpoints, "tcp", HTTPS)
        # S3 has public addresses; only the route of its gateway endpoint leads there.
        yield _Flow(segment.cidr, EVERYWHERE, "tcp", HTTPS, ANSWERS_TO_HOSTS)
        for address, protocol, port, _ in infrastructure(environment):
            yield _Flow(segment.cidr, _within(environment, address), protocol, port)


def inhabited(environment: Environment) -> tuple[Segment, ...]:
    """Return the segments that have hosts."""
    return tuple(dict.fromkeys(host.segment for host in environment.hosts.values()))


def _targets(environment: Environment, egress: Egress) -> Iterator[IPv4Network]:
    if egress.host:
        yield egress.host.segment.cidr
    elif egress.private_link:
        yield endpoints_segment(environment).cidr
    elif isinstance(egress.cidr, IPv4Network):
        yield egress.cidr


def _within(environment: Environment, address: str) -> IPv4Network:
    """Return the segment of an address, whose own ACL admits it, or the address alone."""
    alone = ip_network(address)
    assert isinstance(alone, IPv4Network)
    for segment in environment.segments.values():
        if alone.subnet_of(segment.cidr):
            return segment.cidr
    return alone


def _numbers(keys: list[Key]) -> dict[Key, int]:
    """Compute numbers from content, so that a new entry changes no other number."""
    numbers: dict[Key, int] = {}
    taken: set[int] = set()
    for key in keys:
        number = int.from_bytes(sha256(str(key).encode()).digest()[:4]) % HIGHEST_NUMBER + 1
        while number in taken:
            number = number % HIGHEST_NUMBER + 1
        taken.add(number)
        numbers[key] = number
    return numbers
