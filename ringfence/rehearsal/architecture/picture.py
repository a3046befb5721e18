"""Picture of a rehearsed stack; resources are found by types and tags, as the checks find them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ringfence.cloud import tags
from ringfence.cloud.flows import CALLERS, balancer_end, link_end, segment_end
from ringfence.cloud.groups import host_group, server_group
from ringfence.cloud.services import DATA_CLASSES
from ringfence.drawing.picture import (
    EGRESS,
    Block,
    Card,
    DiagramNode,
    NothingToDrawError,
    Picture,
    wrapped,
)
from ringfence.manifest.model import Environment, Host
from ringfence.rehearsal.record import Rehearsal, RehearsedResource, Status

VPC = "aws:ec2/vpc:Vpc"
TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
GROUP = "aws:ec2/securityGroup:SecurityGroup"
SUBNET = "aws:ec2/subnet:Subnet"
ENDPOINT = "aws:ec2/vpcEndpoint:VpcEndpoint"
BALANCER = "aws:lb/loadBalancer:LoadBalancer"
SERVICE = "aws:ec2/vpcEndpointService:VpcEndpointService"
MIRROR_TARGET = "aws:ec2/trafficMirrorTarget:TrafficMirrorTarget"
MIRROR_RULE = "aws:ec2/trafficMirrorFilterRule:TrafficMirrorFilterRule"
MIRRORS = (MIRROR_TARGET, "aws:ec2/trafficMirrorFilter:TrafficMirrorFilter", MIRROR_RULE)
LOG_GROUP = "aws:cloudwatch/logGroup:LogGroup"
ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
RULE = "aws:cloudwatch/eventRule:EventRule"
FUNCTION = "aws:lambda/function:Function"
NAME_RULE = "aws:route53/resolverFirewallRule:ResolverFirewallRule"
DOMAINS = "aws:route53/resolverFirewallDomainList:ResolverFirewallDomainList"

OUTWARD = {
    "network firewall": "aws:networkfirewall/firewall:Firewall",
    "NAT gateway": "aws:ec2/natGateway:NatGateway",
    "internet gateway": "aws:ec2/internetGateway:InternetGateway",
}
"""Resources in the order of a packet's path."""


def of(rehearsal: Rehearsal, environment: Environment) -> Picture:
    found = rehearsal.of_type(VPC)
    if not found:
        raise NothingToDrawError(
            f"{rehearsal.stack}: the stack has no VPC; draw the stack of an environment"
        )
    return Picture(
        environment.name,
        f"VPC {found[0].inputs['cidrBlock']}",
        (rehearsal.account.region, *_notes(rehearsal)),
        tuple(_blocks(rehearsal, environment)),
        tuple(_callers(rehearsal)),
        tuple(_cards(rehearsal, environment)),
    )


def services(rehearsal: Rehearsal) -> tuple[tuple[str, int, int], ...]:
    """Resources by AWS service: real objects, and those that were only recorded."""
    counts: dict[str, Counter[Status]] = defaultdict(Counter)
    for resource in rehearsal.resources:
        if resource.status is not Status.NONE:
            counts[resource.type.split(":")[1].partition("/")[0]][resource.status] += 1
    return tuple(
        (service, own[Status.MOTO], own[Status.RECORDED]) for service, own in sorted(counts.items())
    )


def _notes(rehearsal: Rehearsal) -> Iterator[str]:
    if not rehearsal.of_type(OUTWARD["internet gateway"]):
        yield "no route to the internet"
    gateways = [e for e in rehearsal.of_type(ENDPOINT) if e.inputs["vpcEndpointType"] == "Gateway"]
    if gateways:
        yield f"gateway endpoints: {', '.join(map(_service, gateways))}{_mark(gateways)}"


def _blocks(rehearsal: Rehearsal, environment: Environment) -> Iterator[Block]:
    subnets: dict[str, list[RehearsedResource]] = defaultdict(list)
    for subnet in rehearsal.of_type(SUBNET):
        segment = _tag(subnet, tags.SEGMENT)
        subnets[segment if segment in environment.segments else EGRESS].append(subnet)
    nodes: dict[str, list[DiagramNode]] = defaultdict(list)
    for segment, node in _nodes(rehearsal, environment):
        nodes[segment].append(node)
    for segment in environment.segments.values():
        if own := subnets.get(segment.name):
            yield Block(
                segment_end(segment),
                segment.purpose,
                segment.name,
                str(segment.cidr),
                _by_zone(own),
                tuple(nodes[segment.name]),
                _is_recorded(own),
            )
    if nodes[EGRESS] or subnets.get(EGRESS):
        own, place = subnets.get(EGRESS, []), environment.provisioning
        cidr = str(place.egress) if place and place.egress else ""
        yield Block(EGRESS, EGRESS, EGRESS, cidr, _by_zone(own), tuple(nodes[EGRESS]))


def _by_zone(subnets: Iterable[RehearsedResource]) -> tuple[tuple[str, str], ...]:
    found = [(s.inputs["availabilityZone"], s.inputs["cidrBlock"]) for s in subnets]
    return tuple(sorted(found))


def _nodes(rehearsal: Rehearsal, environment: Environment) -> Iterator[tuple[str, DiagramNode]]:
    yield from _hosts(rehearsal, environment)
    places = {s.id: _tag(s, tags.SEGMENT) for s in rehearsal.of_type(SUBNET)}
    for balancer in rehearsal.of_type(BALANCER):
        yield places[balancer.inputs["subnets"][0]], _balancer(rehearsal, balancer)
    shared: dict[str, list[RehearsedResource]] = defaultdict(list)
    for endpoint in rehearsal.of_type(ENDPOINT):
        if endpoint.inputs["vpcEndpointType"] != "Interface":
            continue
        segment, group = places[endpoint.inputs["subnetIds"][0]], _tag(endpoint, tags.GROUP)
        if group.startswith("link-"):
            link = group.removeprefix("link-")
            lines = ("private link to", _service(endpoint))
            yield (
                segment,
                DiagramNode(link_end(link), "endpoint", link, lines, _is_recorded([endpoint])),
            )
        else:
            shared[segment].append(endpoint)
    for segment, found in shared.items():
        lines = wrapped(sorted(map(_service, found)))
        key = f"endpoints {segment}"
        yield (
            segment,
            DiagramNode(key, "endpoint", "Interface endpoints", lines, _is_recorded(found)),
        )
    for title, token in OUTWARD.items():
        if found := rehearsal.of_type(token):
            counted = title if len(found) == 1 else f"{len(found)} {title}s"
            yield EGRESS, DiagramNode(title, "outward", counted, (), _is_recorded(found))


def _hosts(rehearsal: Rehearsal, environment: Environment) -> Iterator[tuple[str, DiagramNode]]:
    """Yield hosts from launch templates, or from security groups where a stack has no templates."""
    templates = {_tag(t, tags.GROUP): t for t in rehearsal.of_type(TEMPLATE)}
    groups = {_tag(g, tags.GROUP): g for g in rehearsal.of_type(GROUP)}
    for host in environment.hosts.values():
        template, group = templates.get(host_group(host)), groups.get(host_group(host))
        resource = template or group
        if resource is None:
            continue
        lines = (*_machine(template), *_servers(environment, host, groups))
        recorded = _is_recorded([resource])
        node = DiagramNode(f"host {host.name}", "host", host.name, lines, recorded)
        yield _tag(resource, tags.SEGMENT) or host.segment.name, node


def _machine(template: RehearsedResource | None) -> Iterator[str]:
    if template:
        disks = [each["ebs"] for each in template.inputs.get("blockDeviceMappings", ())]
        sizes = [f"{disk['volumeSize']} GiB" for disk in disks if "volumeSize" in disk]
        yield ", ".join([template.inputs["instanceType"], *sizes])


def _servers(
    environment: Environment, host: Host, groups: Mapping[str, RehearsedResource]
) -> tuple[str, ...]:
    own = [s.name for s in environment.servers_on(host) if server_group(s) in groups]
    return wrapped([f"MCP {name}" for name in own])


def _balancer(rehearsal: Rehearsal, balancer: RehearsedResource) -> DiagramNode:
    name = _tag(balancer, tags.GROUP).removeprefix("balancer-")
    lines = ["internal load balancer" if balancer.inputs.get("internal") else "load balancer"]
    arn = balancer.outputs["arn"]
    if any(arn in s.inputs["networkLoadBalancerArns"] for s in rehearsal.of_type(SERVICE)):
        lines.append("offered as an endpoint")
    if any(t.inputs.get("networkLoadBalancerArn") == arn for t in rehearsal.of_type(MIRROR_TARGET)):
        lines.append("copies of all traffic")
    return DiagramNode(balancer_end(name), "balancer", name, tuple(lines), _is_recorded([balancer]))


def _callers(rehearsal: Rehearsal) -> Iterator[DiagramNode]:
    if offered := rehearsal.of_type(SERVICE):
        principals = [p for each in offered for p in each.inputs.get("allowedPrincipals", ())]
        lines = ("over PrivateLink", *dict.fromkeys(map(_account, principals)))
        yield DiagramNode(CALLERS, "outside", "Accepted callers", lines, _is_recorded(offered))


def _account(principal: str) -> str:
    return f"account {principal.split(':')[4]}" if principal.startswith("arn:") else principal


def _cards(rehearsal: Rehearsal, environment: Environment) -> Iterator[Card]:
    keys = rehearsal.of_type("aws:kms/key:Key")
    secrets = rehearsal.of_type("aws:secretsmanager/secret:Secret")
    roles = rehearsal.of_type("aws:iam/role:Role")
    flow_logs = rehearsal.of_type("aws:ec2/flowLog:FlowLog")
    queries = rehearsal.of_type("aws:route53/resolverQueryLogConfig:ResolverQueryLogConfig")
    topics = rehearsal.of_type("aws:sns/topic:Topic")
    documents = rehearsal.of_type("aws:ssm/document:Document")
    mirrors = [r for token in MIRRORS for r in rehearsal.of_type(token)]
    response = _of_component(rehearsal, "ringfence:aws:Containment")
    sessions = _of_component(rehearsal, "ringfence:aws:SessionManager")
    names = rehearsal.of_type(DOMAINS)
    for title, found, lines in (
        ("Keys", keys, _keys(keys, environment)),
        ("Secrets", secrets, map(_secret, secrets)),
        ("Roles", roles, _roles(roles, environment)),
        ("Flow logs", flow_logs, _flow_logs(rehearsal, flow_logs)),
        ("Names", (*names, *queries), _names(rehearsal, names, queries)),
        ("Session Manager", documents, _logged(r for r in sessions if r.type == LOG_GROUP)),
        ("Alerts", topics, _alerts(rehearsal)),
        ("Containment", response, _containment(response)),
        ("Traffic mirroring", mirrors, _mirroring(rehearsal)),
    ):
        if found:
            yield Card(title, tuple(lines), _is_recorded(found))


def _keys(keys: Iterable[RehearsedResource], environment: Environment) -> Iterator[str]:
    prefix = f"{environment.name}-"
    names = {key.name.removeprefix(prefix).removeprefix("key-"): key for key in keys}
    for name in (*DATA_CLASSES, *sorted(set(names) - set(DATA_CLASSES))):
        if key := names.get(name):
            of = "data, " if name in DATA_CLASSES else ""
            turned = "rotated" if key.inputs.get("enableKeyRotation") else "not rotated"
            yield f"{name}: {of}{turned}"


def _secret(secret: RehearsedResource) -> str:
    server = _tag(secret, tags.GROUP).removeprefix("server-")
    days = _tag(secret, tags.ROTATION_DAYS)
    return f"{server}: {_tag(secret, tags.SECRET)}, {days} days"


def _roles(roles: Iterable[RehearsedResource], environment: Environment) -> Iterator[str]:
    hosts = {each.name for each in environment.hosts.values()}
    bounded = [role for role in roles if role.inputs.get("permissionsBoundary")]
    of_hosts = [role for role in roles if _tag(role, tags.HOST) in hosts]
    yield f"{len(tuple(roles))} in all"
    if of_hosts:
        yield f"{len(of_hosts)} of hosts, one each"
    if bounded:
        yield f"{len(bounded)} under a boundary"


def _flow_logs(rehearsal: Rehearsal, logs: Iterable[RehearsedResource]) -> Iterator[str]:
    for log in logs:
        seconds = log.inputs.get("maxAggregationInterval", 600)
        yield f"{log.inputs['trafficType'].lower()} traffic, every {seconds} s"
        yield from _kept(rehearsal, log.inputs.get("logDestination"))


def _names(
    rehearsal: Rehearsal, lists: Iterable[RehearsedResource], queries: Iterable[RehearsedResource]
) -> Iterator[str]:
    listed = {each.id: each.inputs.get("domains", ()) for each in lists}
    for rule in sorted(rehearsal.of_type(NAME_RULE), key=lambda each: each.inputs["priority"]):
        names = listed.get(rule.inputs.get("firewallDomainListId", ""), ())
        count = "every other name" if "*" in names else f"{len(names)} names"
        yield f"{rule.inputs['action'].lower()} {count}"
    for query in queries:
        yield "every query is logged"
        yield from _kept(rehearsal, query.inputs["destinationArn"])


def _kept(rehearsal: Rehearsal, arn: str | None) -> Iterator[str]:
    return _logged(g for g in rehearsal.of_type(LOG_GROUP) if g.outputs["arn"] == arn)


def _logged(groups: Iterable[RehearsedResource]) -> Iterator[str]:
    for group in groups:
        key = "own key" if group.inputs.get("kmsKeyId") else "AWS's key"
        yield f"log kept {group.inputs.get('retentionInDays', 'for ever')} days, {key}"


def _alerts(rehearsal: Rehearsal) -> Iterator[str]:
    for subscription in rehearsal.of_type("aws:sns/topicSubscription:TopicSubscription"):
        yield f"{subscription.inputs['protocol']} to {subscription.inputs['endpoint']}"
    arns = {topic.outputs["arn"] for topic in rehearsal.of_type("aws:sns/topic:Topic")}
    alarms = [a for a in rehearsal.of_type(ALARM) if arns & set(a.inputs.get("alarmActions", ()))]
    targets = rehearsal.of_type("aws:cloudwatch/eventTarget:EventTarget")
    yield f"{len(alarms)} alarms"
    yield f"{sum(target.inputs['arn'] in arns for target in targets)} kinds of events"


def _containment(resources: Iterable[RehearsedResource]) -> Iterator[str]:
    by_type = Counter(resource.type for resource in resources)
    for function in (each for each in resources if each.type == FUNCTION):
        severity = function.inputs.get("environment", {}).get("variables", {}).get("SEVERITY")
        yield f"function, from severity {severity}" if severity else "function"
    yield f"{by_type[RULE]} kinds of events start it"
    if by_type[GROUP]:
        yield "group for quarantine"


def _mirroring(rehearsal: Rehearsal) -> Iterator[str]:
    for _ in rehearsal.of_type(MIRROR_TARGET):
        yield "every interface, to the sensors"
    yield f"filter of {len(rehearsal.of_type(MIRROR_RULE))} rules"


def _of_component(rehearsal: Rehearsal, token: str) -> tuple[RehearsedResource, ...]:
    """Its resources, those of the components in it too."""
    parents = {component.urn for component in rehearsal.of_type(token)}
    parents |= {each.urn for each in rehearsal.resources if each.parent in parents}
    return tuple(each for each in rehearsal.resources if each.parent in parents)


def _service(endpoint: RehearsedResource) -> str:
    return endpoint.inputs["serviceName"].rpartition(".")[2]


def _tag(resource: RehearsedResource, key: str) -> str:
    found: Mapping[str, Any] = resource.inputs.get("tags") or {}
    return found.get(key, "")


def _is_recorded(resources: Iterable[RehearsedResource]) -> bool:
    return any(resource.status is Status.RECORDED for resource in resources)


def _mark(resources: Iterable[RehearsedResource]) -> str:
    return " (recorded only)" if _is_recorded(resources) else ""
