"""Connections that an AWS network lets through, computed from the account.

The computation follows routes, network ACLs, security groups and endpoints as a packet does, in
both directions where a filter is stateless. Where the account leaves something open (the address
in a subnet, the zone), every possible value counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import IPv4Network

from ringfence.cloud.balancers import VXLAN
from ringfence.cloud.flows import (
    CALLERS,
    FIREWALL,
    Path,
    balancer_end,
    link_end,
    mirror_end,
    segment_end,
    service_end,
)
from ringfence.cloud.groups import interfaces, link_group, private_links
from ringfence.cloud.tags import GROUP, SEGMENT
from ringfence.verify.account.cloud import Cloud, Document, tag

EVERYTHING = IPv4Network("0.0.0.0/0")
INTERNET = "internet"
PROTOCOLS = {"tcp": "6", "udp": "17", "icmp": "1"}
"""Protocol numbers in ACLs, by protocol name in security groups."""
ANSWERS = (1024, 65535)
LISTENERS = {"UDP": ("udp",), "TCP_UDP": ("tcp", "udp")}
"""Protocols of a load balancer's listener; all others are TCP."""
ENFORCED = "EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic"
"""Load balancer attribute that moto lacks, so only AWS verifies access for callers."""

Ports = tuple[int, int]


@dataclass(frozen=True)
class Traffic:
    protocol: str
    ports: Ports


@dataclass(frozen=True)
class ObservedAclEntry:
    egress: bool
    protocol: str
    """Protocol number, or -1 for all."""
    network: IPv4Network
    ports: Ports
    allows: bool


@dataclass(frozen=True)
class ObservedGroupRule:
    traffic: Traffic
    group: str | None = None
    foreign: bool = False
    """Whether the group is outside the environment: then any interface may have it."""
    network: IPv4Network | None = None
    prefix_list: str | None = None


@dataclass(frozen=True)
class Subnet:
    id: str
    network: IPv4Network
    segment: str | None
    acl: tuple[ObservedAclEntry, ...]
    """Entries in the order of evaluation."""
    outside: tuple[IPv4Network, ...]
    """Destinations outside the VPC that have a route."""
    firewalled: tuple[IPv4Network, ...]
    """Destinations whose route leads through an egress firewall."""
    prefix_lists: frozenset[str]
    """Prefix lists that have a route to a gateway endpoint."""


@dataclass(frozen=True)
class End:
    """A source or target of connections. If `groups` is None, any interface may be there."""

    name: str
    subnets: tuple[Subnet, ...]
    groups: frozenset[str] | None
    inbound: tuple[ObservedGroupRule, ...] = ()
    outbound: tuple[ObservedGroupRule, ...] = ()


@dataclass(frozen=True)
class NetworkResources:
    """Network resources, read from AWS."""

    ends: tuple[End, ...]
    prefix_lists: Mapping[str, str]
    """Maps the id of a prefix list to its service."""
    published: tuple[tuple[str, Traffic], ...] = ()
    """Load balancers behind endpoint services, with the traffic that they accept."""
    mirrors: frozenset[str] = frozenset()
    """Load balancers that receive mirrored traffic."""

    def paths(self, *, acls: bool = True) -> frozenset[Path]:
        """Return possible paths. Without `acls`, only groups and routes restrict them."""
        ends = self.ends if acls else tuple(map(_without_acls, self.ends))
        from_others = ((CALLERS, end, traffic) for end, traffic in self.published)
        return frozenset(
            Path(source, target, traffic.protocol, *traffic.ports)
            for source, target, traffic in (*self._possible(ends), *from_others)
        )

    def _possible(self, ends: tuple[End, ...]) -> Iterator[tuple[str, str, Traffic]]:
        for source in ends:
            for target in ends:
                # Between two ends without groups, no group of this environment applies.
                if source != target and (source.groups is not None or target.groups is not None):
                    for traffic in _between(source, target):
                        yield source.name, target.name, traffic
                if target.name in self.mirrors and source.groups is not None and source != target:
                    for traffic in _mirrored(source, target):
                        yield mirror_end(source.name), target.name, traffic
            for traffic in _outwards(source):
                yield source.name, INTERNET, traffic
            if source.groups is not None:
                for traffic in _through_firewall(source):
                    yield source.name, FIREWALL, traffic
            for prefix_list, service in self.prefix_lists.items():
                if source.groups is not None:
                    for traffic in _to_service(source, prefix_list):
                        yield source.name, service_end(service), traffic


def read(cloud: Cloud) -> NetworkResources:
    """Read the network of an environment, found by its tags."""
    return _Reader(cloud).account()


class _Reader:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._environment = cloud.environment

    def account(self) -> NetworkResources:
        by_name = {name: each["GroupId"] for each in self._groups if (name := tag(each, GROUP))}
        rules = self._rules(frozenset(by_name.values()))

        def end(name: str, subnets: Iterable[Subnet], groups: Iterable[str]) -> End:
            ids = frozenset(groups)
            found = [(rule, egress) for id_ in ids for rule, egress in rules.get(id_, ())]
            inbound = tuple(rule for rule, egress in found if not egress)
            outbound = tuple(rule for rule, egress in found if egress)
            return End(name, tuple(subnets), ids, inbound, outbound)

        ends: list[End] = []
        for segment in self._environment.segments.values():
            ends.append(End(segment_end(segment), self._in(segment.name), None))
        for interface in interfaces(self._environment):
            groups = [by_name[name] for name in interface.groups if name in by_name]
            # An interface without groups of its own has the default group of the VPC.
            groups = groups or [g["GroupId"] for g in self._groups if g["GroupName"] == "default"]
            ends.append(end(interface.name, self._in(interface.segment.name), groups))
        for endpoint in self._cloud.endpoints:
            if endpoint["VpcEndpointType"] == "Interface":
                subnets = [s for s in self._subnets if s.id in endpoint["SubnetIds"]]
                ends.append(
                    end(self._served(endpoint), subnets, (g["GroupId"] for g in endpoint["Groups"]))
                )
        for balancer in self._cloud.balancers:
            ids = {zone["SubnetId"] for zone in balancer["AvailabilityZones"]}
            subnets, name = [s for s in self._subnets if s.id in ids], _balancer(balancer)
            if groups := balancer.get("SecurityGroups"):
                ends.append(end(name, subnets, groups))
            else:  # a balancer without groups accepts and opens any connection
                ends.append(End(name, tuple(subnets), None))
        return NetworkResources(
            tuple(ends), self._prefix_lists, tuple(self._published(ends)), self._mirrors()
        )

    def _mirrors(self) -> frozenset[str]:
        query = ("ec2", "describe_traffic_mirror_targets", "TrafficMirrorTargets")
        arns = {target.get("NetworkLoadBalancerArn") for target in self._cloud.all(*query)}
        found = (b for b in self._cloud.balancers if b["LoadBalancerArn"] in arns)
        return frozenset(map(_balancer, found))

    def _published(self, ends: list[End]) -> Iterator[tuple[str, Traffic]]:
        """Yield traffic that callers can send, from any address, since theirs are unknown."""
        inbound = {end.name: end.inbound for end in ends}
        served = {arn for each in self._cloud.published for arn in each["NetworkLoadBalancerArns"]}
        query = ("elbv2", "describe_listeners", "Listeners")
        for balancer in self._cloud.balancers:
            name, arn = _balancer(balancer), balancer["LoadBalancerArn"]
            if arn not in served:
                continue
            for listener in self._cloud.all(*query, LoadBalancerArn=arn):
                for protocol in LISTENERS.get(listener["Protocol"], ("tcp",)):
                    traffic = Traffic(protocol, (listener["Port"], listener["Port"]))
                    asked = balancer.get(ENFORCED) == "on"
                    if not asked or traffic in {rule.traffic for rule in inbound[name]}:
                        yield name, traffic

    def _served(self, endpoint: Document) -> str:
        """Name the end behind an endpoint: a private link of the manifest, else an AWS service."""
        service, group = endpoint["ServiceName"], tag(endpoint, GROUP)
        for link in private_links(self._environment):
            if (link.service, link_group(link)) == (service, group):
                return link_end(link.name)
        return service_end(service.rsplit(".", 1)[1])

    def _in(self, segment: str) -> tuple[Subnet, ...]:
        return tuple(subnet for subnet in self._subnets if subnet.segment == segment)

    @cached_property
    def _groups(self) -> list[Document]:
        return self._cloud.in_vpcs("describe_security_groups", "SecurityGroups")

    @cached_property
    def _prefix_lists(self) -> Mapping[str, str]:
        found = self._cloud.all("ec2", "describe_prefix_lists", "PrefixLists")
        return {each["PrefixListId"]: each["PrefixListName"].rsplit(".", 1)[1] for each in found}

    @cached_property
    def _subnets(self) -> tuple[Subnet, ...]:
        acls = self._cloud.in_vpcs("describe_network_acls", "NetworkAcls")
        tables = self._cloud.in_vpcs("describe_route_tables", "RouteTables")
        found = self._cloud.in_vpcs("describe_subnets", "Subnets")
        firewalls = self._cloud.firewall_endpoints
        return tuple(_subnet(subnet, acls, tables, firewalls) for subnet in found)

    def _rules(self, own: frozenset[str]) -> Mapping[str, list[tuple[ObservedGroupRule, bool]]]:
        ids = [group["GroupId"] for group in self._groups] or ["sg-none"]
        rules: dict[str, list[tuple[ObservedGroupRule, bool]]] = {}
        for start in range(0, len(ids), 200):  # AWS accepts at most 200 values in a filter
            filters = [{"Name": "group-id", "Values": ids[start : start + 200]}]
            query = ("ec2", "describe_security_group_rules", "SecurityGroupRules")
            for rule in self._cloud.all(*query, Filters=filters):
                made = rules.setdefault(rule["GroupId"], [])
                made += [(each, rule["IsEgress"]) for each in _group_rules(rule, own)]
        return rules


def _balancer(balancer: Document) -> str:
    name = tag(balancer, GROUP) or balancer["LoadBalancerName"]
    return balancer_end(name.removeprefix("balancer-"))


def _group_rules(rule: Document, own: frozenset[str]) -> Iterator[ObservedGroupRule]:
    referenced = rule.get("ReferencedGroupInfo", {}).get("GroupId")
    everything = rule["IpProtocol"] == "-1"
    for protocol in PROTOCOLS if everything else (rule["IpProtocol"],):
        has_ports = not everything and rule.get("FromPort", -1) >= 0
        ports = (rule["FromPort"], rule["ToPort"]) if has_ports else (0, 65535)
        cidr = rule.get("CidrIpv4")
        yield ObservedGroupRule(
            Traffic(protocol, ports),
            group=referenced,
            foreign=referenced is not None and referenced not in own,
            network=IPv4Network(cidr) if cidr else None,
            prefix_list=rule.get("PrefixListId"),
        )


def _subnet(
    subnet: Document, acls: list[Document], tables: list[Document], firewalls: frozenset[str]
) -> Subnet:
    id_ = subnet["SubnetId"]

    def associated(things: list[Document]) -> Document | None:
        for thing in things:
            if any(a.get("SubnetId") == id_ for a in thing["Associations"]):
                return thing
        return None

    main = next((t for t in tables if any(a.get("Main") for a in t["Associations"])), None)
    table = associated(tables) or main or {"Routes": []}
    acl = associated(acls) or {"Entries": []}
    routes = table["Routes"]
    leading = [
        (IPv4Network(route["DestinationCidrBlock"]), route.get("GatewayId"))
        for route in routes
        if "DestinationCidrBlock" in route
    ]
    local = [network for network, target in leading if target == "local"]
    return Subnet(
        id=id_,
        network=IPv4Network(subnet["CidrBlock"]),
        segment=tag(subnet, SEGMENT),
        acl=tuple(_acl_entries(acl["Entries"])),
        outside=tuple(n for n, target in leading if target not in {"local", *firewalls}),
        firewalled=tuple(
            part
            for network, target in leading
            if target in firewalls
            for part in _without_local(network, local)
        ),
        prefix_lists=frozenset(
            route["DestinationPrefixListId"]
            for route in routes
            if "DestinationPrefixListId" in route
        ),
    )


def _without_local(network: IPv4Network, local: Iterable[IPv4Network]) -> list[IPv4Network]:
    """Exclude local networks: the most specific route wins, so their traffic stays in the VPC."""
    parts = [network]
    for own in local:
        parts = [
            left
            for part in parts
            if not part.subnet_of(own)
            for left in (part.address_exclude(own) if own.subnet_of(part) else (part,))
        ]
    return parts


def _acl_entries(entries: list[Document]) -> Iterator[ObservedAclEntry]:
    for entry in sorted(entries, key=lambda entry: entry["RuleNumber"]):
        if "CidrBlock" in entry:
            ports = entry.get("PortRange", {"From": 0, "To": 65535})
            yield ObservedAclEntry(
                entry["Egress"],
                entry["Protocol"],
                IPv4Network(entry["CidrBlock"]),
                (ports["From"], ports["To"]),
                entry["RuleAction"] == "allow",
            )


def _without_acls(end: End) -> End:
    everything = (
        ObservedAclEntry(True, "-1", EVERYTHING, (0, 65535), True),
        ObservedAclEntry(False, "-1", EVERYTHING, (0, 65535), True),
    )
    return replace(end, subnets=tuple(replace(s, acl=everything) for s in end.subnets))


def _between(source: End, target: End) -> Iterator[Traffic]:
    leaving = _by_groups(source.groups, source.outbound, target)
    entering = _by_groups(target.groups, target.inbound, source)
    for traffic in _both(leaving, entering):
        yield from _through_acls(source, target, traffic)


def _mirrored(source: End, target: End) -> Iterator[Traffic]:
    """Yield mirrored traffic. The source's groups do not apply to copies, and there are no answers.

    https://docs.aws.amazon.com/vpc/latest/mirroring/traffic-mirroring-considerations.html
    """
    copies = (Traffic("udp", (VXLAN, VXLAN)),)
    for traffic in _both(copies, _by_groups(target.groups, target.inbound, source)):
        here, there = source.subnets, target.subnets
        if {subnet.id for subnet in here} & {subnet.id for subnet in there} or any(
            _allowed(two.acl, False, traffic.protocol, one.network, left)
            for one in here
            for two in there
            for left in _allowed(one.acl, True, traffic.protocol, two.network, traffic.ports)
        ):
            yield traffic


def _by_groups(
    own: frozenset[str] | None, rules: tuple[ObservedGroupRule, ...], other: End
) -> Iterator[Traffic]:
    """Yield traffic that the security groups at one end allow with the other end."""
    if own is None:
        for protocol in PROTOCOLS:
            yield Traffic(protocol, (0, 65535))
        return
    for rule in rules:
        by_group = rule.foreign if other.groups is None else rule.group in other.groups
        network = rule.network
        if by_group or (network and any(network.overlaps(s.network) for s in other.subnets)):
            yield rule.traffic


def _both(one: Iterable[Traffic], other: Iterable[Traffic]) -> set[Traffic]:
    others = list(other)
    if not others:
        return set()
    return {
        Traffic(a.protocol, ports)
        for a in one
        for b in others
        if a.protocol == b.protocol and (ports := _common(a.ports, b.ports))
    }


def _common(one: Ports, other: Ports) -> Ports | None:
    first, last = max(one[0], other[0]), min(one[1], other[1])
    return (first, last) if first <= last else None


def _through_acls(source: End, target: End, traffic: Traffic) -> set[Traffic]:
    """Apply ACLs to traffic. Both subnets' apply, to requests and answers; none within a subnet."""
    ids = {subnet.id for subnet in target.subnets}
    if any(subnet.id in ids for subnet in source.subnets):
        return {traffic}
    found: set[Traffic] = set()
    for here in source.subnets:
        for there in target.subnets:
            requests = [
                ports
                for left in _allowed(here.acl, True, traffic.protocol, there.network, traffic.ports)
                for ports in _allowed(there.acl, False, traffic.protocol, here.network, left)
            ]
            answers = [
                ports
                for left in _allowed(there.acl, True, traffic.protocol, here.network, ANSWERS)
                for ports in _allowed(here.acl, False, traffic.protocol, there.network, left)
            ]
            if answers:
                found |= {Traffic(traffic.protocol, ports) for ports in requests}
    return found


def _allowed(
    entries: tuple[ObservedAclEntry, ...],
    egress: bool,
    protocol: str,
    other: IPv4Network,
    ports: Ports,
) -> list[Ports]:
    """Return the ports that an ACL allows. The first matching entry decides."""
    undecided, allowed = [ports], list[Ports]()
    for entry in entries:
        applies = entry.egress == egress and entry.protocol in ("-1", PROTOCOLS[protocol])
        if not applies or not entry.network.overlaps(other):
            continue
        covers = other.subnet_of(entry.network)
        if entry.allows:
            allowed += [part for range_ in undecided if (part := _common(range_, entry.ports))]
        if covers:  # else a later entry decides for the other addresses
            undecided = [part for range_ in undecided for part in _without(range_, entry.ports)]
    return allowed


def _without(ports: Ports, taken: Ports) -> Iterator[Ports]:
    if not _common(ports, taken):
        yield ports
        return
    if ports[0] < taken[0]:
        yield ports[0], taken[0] - 1
    if ports[1] > taken[1]:
        yield taken[1] + 1, ports[1]


def _outwards(source: End) -> set[Traffic]:
    """Return traffic that a route leads out of the VPC: to the internet or a connected network."""
    found: set[Traffic] = set()
    for subnet in source.subnets:
        for destination in subnet.outside:
            beyond = End(INTERNET, (_anywhere(destination),), None)
            for traffic in _by_groups(source.groups, source.outbound, beyond):
                for ports in _allowed(
                    subnet.acl, True, traffic.protocol, destination, traffic.ports
                ):
                    found.add(Traffic(traffic.protocol, ports))
    return found


def _through_firewall(source: End) -> set[Traffic]:
    """Return traffic to an egress firewall; none if an ACL blocks the answers."""
    found: set[Traffic] = set()
    for subnet in source.subnets:
        for destination in subnet.firewalled:
            beyond = End(FIREWALL, (_anywhere(destination),), None)
            for traffic in _by_groups(source.groups, source.outbound, beyond):
                protocol = traffic.protocol
                if _allowed(subnet.acl, False, protocol, destination, ANSWERS):
                    ports = _allowed(subnet.acl, True, protocol, destination, traffic.ports)
                    found |= {Traffic(protocol, each) for each in ports}
    return found


def _anywhere(network: IPv4Network) -> Subnet:
    return Subnet("", network, None, (), (), (), frozenset())


def _to_service(source: End, prefix_list: str) -> set[Traffic]:
    """Return traffic to a service behind a gateway endpoint, which has public addresses."""
    found: set[Traffic] = set()
    for subnet in source.subnets:
        if prefix_list not in subnet.prefix_lists:
            continue
        for rule in source.outbound:
            public = rule.network is not None and not rule.network.is_private
            if rule.prefix_list != prefix_list and not public:
                continue
            protocol = rule.traffic.protocol
            answers = _allowed(subnet.acl, False, protocol, EVERYTHING, ANSWERS)
            if answers:
                ports = _allowed(subnet.acl, True, protocol, EVERYTHING, rule.traffic.ports)
                found |= {Traffic(protocol, each) for each in ports}
    return found
