"""Network ACLs: which segments may talk to which, as a second fence behind the groups.

An ACL keeps no state, so every flow needs an entry for its answers, and it holds few
entries, so the ports of several flows between two segments become one range.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Network, ip_network
from typing import Literal

from ringfence.cloud import egress as way_out
from ringfence.cloud.balancers import VXLAN, balancers, sensors
from ringfence.cloud.groups import HTTPS, Direction, infrastructure
from ringfence.manifest.model import Egress, Environment, Protocol, Segment

ANSWERS = (1024, 65535)
"""Ports that clients of any system open connections from."""
ANSWERS_TO_HOSTS = (32768, 60999)
"""Ports that Debian opens connections from (net.ipv4.ip_local_port_range)."""
EVERYWHERE = IPv4Network("0.0.0.0/0")
HIGHEST_NUMBER = 32766

Purpose = Literal["requests", "answers"]
Key = tuple[Direction, Purpose, Protocol, IPv4Network]


@dataclass(frozen=True)
class Entry:
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
class _Way:
    """Connections from one network to another, of which one at least is a segment."""

    source: IPv4Network
    target: IPv4Network
    protocol: Protocol
    port: int
    answers: tuple[int, int] | None = ANSWERS


def endpoints_segment(environment: Environment) -> Segment:
    """Where the interface endpoints are: the zone that everything is administered from."""
    return environment.segments_for("management")[0]


def entries(environment: Environment, segment: Segment) -> tuple[Entry, ...]:
    return _entries(_ways(environment), segment.cidr)


def egress_entries(environment: Environment) -> tuple[Entry, ...]:
    """Of the subnets of the firewall and the NAT gateways, which segments' packets pass through.

    Answers come to the NAT gateway's own ports: 1024 and higher.
    https://docs.aws.amazon.com/vpc/latest/userguide/nat-gateway-basics.html
    """
    own = way_out.network(environment)
    assert own  # or there is nothing to hold
    ways = [
        each
        for way in way_out.ways(environment)
        for each in (
            _Way(way.network, own, "tcp", way.port, ANSWERS_TO_HOSTS),
            _Way(own, EVERYWHERE, "tcp", way.port),
        )
    ]
    return _entries(ways, own)


def _entries(ways: Iterable[_Way], own: IPv4Network) -> tuple[Entry, ...]:
    ranges: dict[Key, tuple[int, int]] = {}

    def add(key: Key, first: int, last: int) -> None:
        known = ranges.get(key, (first, last))
        ranges[key] = min(known[0], first), max(known[1], last)

    for way in ways:
        if way.target == own:
            add(("ingress", "requests", way.protocol, way.source), way.port, way.port)
            if way.answers:
                add(("egress", "answers", way.protocol, way.source), *way.answers)
        if way.source == own:
            add(("egress", "requests", way.protocol, way.target), way.port, way.port)
            if way.answers:
                add(("ingress", "answers", way.protocol, way.target), *way.answers)
    numbers = _numbers(sorted(ranges, key=str))
    return tuple(
        Entry(direction, purpose, protocol, first, last, network, numbers[key])
        for key, (first, last) in ranges.items()
        for direction, purpose, protocol, network in (key,)
    )


def _ways(environment: Environment) -> Iterator[_Way]:
    for flow in environment.all_flows:
        source = flow.source if isinstance(flow.source, Segment) else flow.source.segment
        yield _Way(source.cidr, flow.target.segment.cidr, flow.protocol, flow.port)
    for server in environment.servers.values():
        for egress in server.egress:
            for network in _targets(environment, egress):
                yield _Way(server.segment.cidr, network, egress.protocol, egress.port)
    for way in way_out.ways(environment):
        yield _Way(way.network, EVERYWHERE, "tcp", way.port, ANSWERS_TO_HOSTS)
    for balancer in balancers(environment):
        for host, protocol, port in balancer.ways:
            yield _Way(balancer.segment.cidr, host.segment.cidr, protocol, port)
    if balancer := sensors(environment):
        # To the load balancer, which passes it on with the address it came from.
        for target in dict.fromkeys((balancer.segment, *(h.segment for h, _, _ in balancer.ways))):
            for segment in inhabited(environment):
                yield _Way(segment.cidr, target.cidr, "udp", VXLAN, answers=None)
    endpoints = endpoints_segment(environment).cidr
    for segment in inhabited(environment):
        yield _Way(segment.cidr, endpoints, "tcp", HTTPS)
        # S3 has public addresses, that only the route of its gateway endpoint leads to.
        yield _Way(segment.cidr, EVERYWHERE, "tcp", HTTPS, ANSWERS_TO_HOSTS)
        for address, protocol, port, _ in infrastructure(environment):
            yield _Way(segment.cidr, _within(environment, address), protocol, port)


def inhabited(environment: Environment) -> tuple[Segment, ...]:
    """Segments with hosts of the manifest."""
    return tuple(dict.fromkeys(host.segment for host in environment.hosts.values()))


def _targets(environment: Environment, egress: Egress) -> Iterator[IPv4Network]:
    if egress.host:
        yield egress.host.segment.cidr
    elif egress.private_link:
        yield endpoints_segment(environment).cidr
    elif isinstance(egress.cidr, IPv4Network):
        yield egress.cidr


def _within(environment: Environment, address: str) -> IPv4Network:
    """The segment of an address, whose own ACL then lets it in; else the address alone."""
    alone = ip_network(address)
    assert isinstance(alone, IPv4Network)
    for segment in environment.segments.values():
        if alone.subnet_of(segment.cidr):
            return segment.cidr
    return alone


def _numbers(keys: list[Key]) -> dict[Key, int]:
    """Numbers by content, not by place in the list: nothing moves when an entry is added."""
    numbers: dict[Key, int] = {}
    taken: set[int] = set()
    for key in keys:
        number = int.from_bytes(sha256(str(key).encode()).digest()[:4]) % HIGHEST_NUMBER + 1
        while number in taken:
            number = number % HIGHEST_NUMBER + 1
        taken.add(number)
        numbers[key] = number
    return numbers
