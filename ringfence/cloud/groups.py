"""Security groups and their rules, from declared flows only.

An interface has the group `base`, a group for its host, and a group for each MCP server on it. A
connection needs rules at both ends. The inbound rule is exact: source, port, target. The outbound
rule may name `base` where exact rules would exceed the quota, as on a gateway with hundreds of
servers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from ringfence.cloud import addressing
from ringfence.cloud import egress as internet_egress
from ringfence.cloud.balancers import VXLAN, balancers, sensors
from ringfence.manifest.model import Environment, Flow, Host, PrivateLink, Protocol, Segment, Server

BASE, ENDPOINTS = "base", "endpoints"
S3 = "s3"
HTTPS = 443
DNS, NTP = 53, 123

Direction = Literal["ingress", "egress"]
Kind = Literal["group", "network", "outside", "prefix_list"]


@dataclass(frozen=True)
class Group:
    name: str
    segment: Segment | None
    description: str


@dataclass(frozen=True)
class Interface:
    name: str
    segment: Segment
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Peer:
    kind: Kind
    name: str


@dataclass(frozen=True)
class GroupRule:
    group: str
    direction: Direction
    protocol: Protocol
    first: int
    last: int
    peer: Peer
    why: str

    @property
    def key(self) -> str:
        """Identify the rule, independently of other entries of the manifest."""
        ports = f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
        peer = re.sub(r"[./:]", "-", self.peer.name)
        return f"{self.group}-{self.direction}-{self.protocol}-{ports}-{peer}"


def host_group(host: Host) -> str:
    return f"host-{host.name}"


def server_group(server: Server) -> str:
    return f"server-{server.name}"


def link_group(link: PrivateLink) -> str:
    return f"link-{link.name}"


def private_links(environment: Environment) -> tuple[PrivateLink, ...]:
    place = environment.provisioning
    return tuple(place.private_links.values()) if place else ()


def groups(environment: Environment) -> tuple[Group, ...]:
    return (
        Group(BASE, None, "Every interface of the environment"),
        Group(ENDPOINTS, None, "Interface endpoints of AWS services"),
        *(
            Group(host_group(host), host.segment, f"Host {host.name}")
            for host in environment.hosts.values()
        ),
        *(
            Group(server_group(server), server.segment, f"MCP server {server.name}")
            for server in environment.servers.values()
        ),
        *(
            Group(link_group(link), None, f"Private link {link.name}")
            for link in private_links(environment)
        ),
        *(
            Group(balancer.group, balancer.segment, f"Load balancer {balancer.name}")
            for balancer in balancers(environment)
        ),
    )


def interfaces(environment: Environment) -> tuple[Interface, ...]:
    """Return one per host, with the groups of its servers."""
    return tuple(
        Interface(
            f"host {host.name}",
            host.segment,
            (BASE, host_group(host), *map(server_group, environment.servers_on(host))),
        )
        for host in environment.hosts.values()
    )


def rules(environment: Environment) -> tuple[GroupRule, ...]:
    """Return every rule once, with the reasons of all flows that need it."""
    reasons: dict[tuple[str, Direction, Protocol, int, int, Peer], dict[str, None]] = {}
    for rule in _rules(environment):
        key = (rule.group, rule.direction, rule.protocol, rule.first, rule.last, rule.peer)
        reasons.setdefault(key, {})[rule.why] = None
    return tuple(GroupRule(*key, why="; ".join(whys)) for key, whys in reasons.items())


def description(text: str) -> str:
    """Remove the characters that EC2 refuses in a description.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_IpRange.html
    """
    allowed = re.sub(r"[^A-Za-z0-9. _\-:/()#,@\[\]+=&;{}!$*]", " ", text)
    return " ".join(allowed.split())[:255]


def _rules(environment: Environment) -> Iterator[GroupRule]:
    for flow in environment.particular_flows:
        yield from _inbound(environment, flow)
    for host in environment.hosts.values():
        yield from _outbound(environment, host)
    for server in environment.servers.values():
        yield from _server_egress(environment, server)
    for balancer in balancers(environment):
        for host, protocol, port in balancer.targets:
            own, target, why = balancer.group, host_group(host), f"load balancer {balancer.name}"
            yield GroupRule(own, "egress", protocol, port, port, _group(target), why)
            yield GroupRule(target, "ingress", protocol, port, port, _group(own), why)
    if balancer := sensors(environment):
        # No outbound rule: mirrored packets need none, and a host sends none itself.
        # https://docs.aws.amazon.com/vpc/latest/mirroring/traffic-mirroring-considerations.html
        why = "mirrored traffic"
        yield GroupRule(balancer.group, "ingress", "udp", VXLAN, VXLAN, _group(BASE), why)
    yield from _base(environment)


def _inbound(environment: Environment, flow: Flow) -> Iterator[GroupRule]:
    if flow.server:
        target = server_group(environment.servers[flow.server])
    else:
        target = host_group(flow.target)
    source = flow.source
    peer = _network(source) if isinstance(source, Segment) else _group(host_group(source))
    yield GroupRule(target, "ingress", flow.protocol, flow.port, flow.port, peer, flow.why)


def _outbound(environment: Environment, host: Host) -> Iterator[GroupRule]:
    group = host_group(host)
    to_base: list[Flow] = []
    for flow in environment.particular_flows:
        if flow.source not in (host, host.segment) or flow.target == host:
            continue
        if flow.server or flow in environment.administration:
            to_base.append(flow)
        else:
            peer = _group(host_group(flow.target))
            yield GroupRule(group, "egress", flow.protocol, flow.port, flow.port, peer, flow.why)
    for protocol, first, last, why in merged(to_base):
        yield GroupRule(group, "egress", protocol, first, last, _group(BASE), why)


def merged(flows: Iterable[Flow]) -> Iterator[tuple[Protocol, int, int, str]]:
    """Merge ports into ranges without gaps: the quota counts rules, not ports."""
    reasons: dict[tuple[Protocol, int], dict[str, None]] = {}
    for flow in flows:
        reasons.setdefault((flow.protocol, flow.port), {})[flow.why] = None
    ports = enumerate(sorted(reasons))
    for (protocol, _), run in groupby(ports, lambda each: (each[1][0], each[1][1] - each[0])):
        found = [port for _, port in run]
        whys = dict.fromkeys(why for port in found for why in reasons[port])
        yield protocol, found[0][1], found[-1][1], "; ".join(whys)


def _server_egress(environment: Environment, server: Server) -> Iterator[GroupRule]:
    own, links = server_group(server), {link.name: link for link in private_links(environment)}
    for egress in server.egress:
        target = None
        if egress.host and egress.host != server.host:
            target = host_group(egress.host)
        elif egress.private_link:
            target = link_group(links[egress.private_link])
        if target:
            ports = (egress.protocol, egress.port, egress.port)
            yield GroupRule(own, "egress", *ports, _group(target), egress.why)
            yield GroupRule(target, "ingress", *ports, _group(own), egress.why)
        elif egress.cidr:
            peer = Peer("network", str(egress.cidr))
            yield GroupRule(
                own, "egress", egress.protocol, egress.port, egress.port, peer, egress.why
            )
        elif egress.domain and internet_egress.network(environment):
            for network in internet_egress.outside(environment):
                peer, port = Peer("outside", str(network)), egress.port
                yield GroupRule(own, "egress", egress.protocol, port, port, peer, egress.why)


def _base(environment: Environment) -> Iterator[GroupRule]:
    """Rules of every host: AWS's endpoints, the log sink, declared infrastructure."""
    to_aws = "AWS services through their endpoints"
    yield GroupRule(BASE, "egress", "tcp", HTTPS, HTTPS, _group(ENDPOINTS), to_aws)
    yield GroupRule(BASE, "egress", "tcp", HTTPS, HTTPS, Peer("prefix_list", S3), to_aws)
    yield GroupRule(ENDPOINTS, "ingress", "tcp", HTTPS, HTTPS, _group(BASE), to_aws)
    sink, shipping = environment.log_sink, "log shipping"
    if sink.host:
        target = host_group(sink.host)
        yield GroupRule(BASE, "egress", "tcp", sink.port, sink.port, _group(target), shipping)
        yield GroupRule(target, "ingress", "tcp", sink.port, sink.port, _group(BASE), shipping)
    for address, protocol, port, why in infrastructure(environment):
        yield GroupRule(BASE, "egress", protocol, port, port, Peer("network", f"{address}/32"), why)


def infrastructure(environment: Environment) -> Iterator[tuple[str, Protocol, int, str]]:
    """Addresses that every host may reach.

    They exclude Amazon's resolver and time server: security groups and ACLs do not apply to them.
    https://docs.aws.amazon.com/vpc/latest/userguide/vpc-security-groups.html
    """
    services, sink = environment.services, environment.log_sink
    own = addressing.resolver(environment)
    for address in map(str, services.dns):
        if address != own and not address.startswith("169.254."):
            yield address, "udp", DNS, "name resolution"
            yield address, "tcp", DNS, "name resolution"
    for address in map(str, services.ntp):
        if not address.startswith("169.254."):
            yield address, "udp", NTP, "time"
    if endpoint := services.package_proxy_endpoint:
        yield endpoint[0], "tcp", endpoint[1], "packages"
    if sink.host is None and sink.address:
        yield str(sink.address), "tcp", sink.port, "log shipping"


def _group(name: str) -> Peer:
    return Peer("group", name)


def _network(segment: Segment) -> Peer:
    return Peer("network", str(segment.cidr))
