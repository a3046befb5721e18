"""No connection to or from the internet (NET-01, NET-03); flows are recorded (NET-05)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv6Network, ip_network
from typing import Any

from .rule import DeclaredResource, Properties, is_true, items, value
from .statements import Statement, allowing, conditions, label, texts
from .tags import is_egress

GATEWAYS = (
    "aws:ec2/carrierGateway:CarrierGateway",
    "aws:ec2/egressOnlyInternetGateway:EgressOnlyInternetGateway",
    "aws:ec2/internetGateway:InternetGateway",
    "aws:ec2/natGateway:NatGateway",
)
ROUTES_OUT: Mapping[str, tuple[str, ...]] = {
    "aws:ec2/defaultRouteTable:DefaultRouteTable": ("routes",),
    "aws:ec2/internetGatewayAttachment:InternetGatewayAttachment": ("internetGatewayId",),
    "aws:ec2/route:Route": (
        "carrierGatewayId",
        "egressOnlyGatewayId",
        "gatewayId",
        "natGatewayId",
    ),
    "aws:ec2/routeTable:RouteTable": ("routes",),
}
"""Properties that name a gateway, or have routes that do."""
GATEWAY_IDS = ("cagw-", "eigw-", "igw-", "nat-")

ADDRESSES = ("aws:ec2/eip:Eip", "aws:ec2/eipAssociation:EipAssociation")
PUBLIC: Mapping[str, tuple[str, ...]] = {
    "aws:ec2/defaultSubnet:DefaultSubnet": ("mapPublicIpOnLaunch",),
    "aws:ec2/instance:Instance": ("associatePublicIpAddress",),
    "aws:ec2/launchConfiguration:LaunchConfiguration": ("associatePublicIpAddress",),
    "aws:ec2/launchTemplate:LaunchTemplate": ("networkInterfaces.associatePublicIpAddress",),
    "aws:ec2/spotInstanceRequest:SpotInstanceRequest": ("associatePublicIpAddress",),
    "aws:ec2/subnet:Subnet": ("mapPublicIpOnLaunch",),
    "aws:rds/clusterInstance:ClusterInstance": ("publiclyAccessible",),
    "aws:rds/instance:Instance": ("publiclyAccessible",),
    "aws:redshift/cluster:Cluster": ("publiclyAccessible",),
}
"""Properties that give a public address. Before a dot: a list of things that may."""
LOAD_BALANCERS = (
    "aws:alb/loadBalancer:LoadBalancer",
    "aws:elb/loadBalancer:LoadBalancer",
    "aws:lb/loadBalancer:LoadBalancer",
)
FUNCTION_URL = "aws:lambda/functionUrl:FunctionUrl"

GROUPS = (
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
    "aws:ec2/securityGroup:SecurityGroup",
    "aws:ec2/securityGroupRule:SecurityGroupRule",
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
)
EGRESS_RULE = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
CIDRS = ("cidrBlocks", "ipv6CidrBlocks", "cidrIpv4", "cidrIpv6")
SHORTEST = {4: 8, 6: 16}
"""Shortest prefixes that belong to one organisation. 0.0.0.0/1 is half of the internet."""
PRIVATE_IPV6 = IPv6Network("fc00::/7")
DEFAULT_GROUP = "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup"

ACL_RULE = "aws:ec2/networkAclRule:NetworkAclRule"
ACLS = (
    "aws:ec2/defaultNetworkAcl:DefaultNetworkAcl",
    "aws:ec2/networkAcl:NetworkAcl",
    ACL_RULE,
)

ENDPOINT = "aws:ec2/vpcEndpoint:VpcEndpoint"
ENDPOINTS = (ENDPOINT, "aws:ec2/vpcEndpointPolicy:VpcEndpointPolicy")
WITHOUT_POLICY = "com.amazonaws.vpce."
"""Start of the names of other accounts' endpoint services, which accept no policy.

https://docs.aws.amazon.com/vpc/latest/privatelink/vpc-endpoints-access.html
"""
OWN = ("aws:principalaccount", "aws:resourceaccount")
AGENT_BUCKET = "arn:aws:s3:::amazon-ssm-"
"""AWS's bucket of the SSM agent, which hosts read."""
ENDPOINT_SERVICE = "aws:ec2/vpcEndpointService:VpcEndpointService"
ENDPOINT_SERVICES = (
    ENDPOINT_SERVICE,
    "aws:ec2/vpcEndpointServiceAllowedPrinciple:VpcEndpointServiceAllowedPrinciple",
)

FLOW_LOG, VPC = "aws:ec2/flowLog:FlowLog", "aws:ec2/vpc:Vpc"
VPC_BLOCK = "aws:ec2/vpcBlockPublicAccessOptions:VpcBlockPublicAccessOptions"


def leads_out(kind: str, properties: Properties) -> Iterator[str]:
    if not is_egress(properties):
        yield f"a {kind.rpartition(':')[2]} leads out of the network"


def routes_out(stack: Sequence[DeclaredResource]) -> Iterator[tuple[DeclaredResource, str]]:
    """Through a gateway of elsewhere. One of this stack is judged by itself."""
    gateways = [each for each in stack if each.type in GATEWAYS]
    known = {each.urn for each in gateways}
    ids = [each.properties.get("id") for each in gateways]
    for resource in stack:
        for name in ROUTES_OUT.get(resource.type, ()):
            if resource.references.get(name, frozenset()) & known:
                continue
            for gateway in _gateway_ids(resource.properties.get(name)):
                # A refreshed table includes the routes that the stack declares separately.
                if not any(isinstance(each, str) and each == gateway for each in ids):
                    yield resource, f"it leads out of the network, to {gateway}"


def _gateway_ids(found: Any) -> Iterator[str]:
    """Yield ids in a property, or in its routes. A value that is no text is not known yet."""
    if isinstance(found, str):
        if found.startswith(GATEWAY_IDS):
            yield found
    elif isinstance(found, Mapping):
        for each in found:
            yield from _gateway_ids(found[each])
    elif isinstance(found, Sequence):
        for each in found:
            yield from _gateway_ids(each)


def has_public_address(kind: str, properties: Properties) -> Iterator[str]:
    if kind in ADDRESSES and not is_egress(properties):
        yield "it is a public address"
    for path in PUBLIC.get(kind, ()):
        *within, name = path.split(".")
        things = items(properties.get(within[0])) if within else (properties,)
        if any(is_true(thing.get(name)) for thing in things) and not is_egress(properties):
            yield f"{path} gives public addresses"
    if (
        kind in LOAD_BALANCERS
        and properties.get("loadBalancerType") != "gateway"
        and not is_true(properties.get("internal"))
    ):
        yield "it faces the internet: internal is not true"
    if kind == FUNCTION_URL and properties.get("authorizationType") == "NONE":
        yield "everybody may call it: authorizationType is NONE"


def open_to_everybody(kind: str, properties: Properties) -> Iterator[str]:
    if kind == EGRESS_RULE and is_egress(properties):  # to a firewall, which filters by name
        return
    for block in (properties, *items(properties.get("ingress")), *items(properties.get("egress"))):
        for name in CIDRS:
            for cidr in items(block.get(name)):
                if is_everywhere(cidr):
                    yield f"{name} has {cidr}"


def is_everywhere(cidr: object) -> bool:
    """Decide whether a network is too large. AWS refuses malformed ones."""
    try:
        network = ip_network(str(cidr), strict=False)
    except ValueError:
        return False
    if isinstance(network, IPv6Network) and network.subnet_of(PRIVATE_IPV6):
        return False
    return network.prefixlen < SHORTEST[network.version]


def default_group_allows(_: str, properties: Properties) -> Iterator[str]:
    for direction in ("ingress", "egress"):
        if list(items(properties.get(direction))):
            yield f"{direction} has rules, which apply where no group is named"


def acl_allows_everything(kind: str, properties: Properties) -> Iterator[str]:
    entries = [
        (direction, entry.get("action"), entry)
        for direction in ("ingress", "egress")
        for entry in items(properties.get(direction) if kind != ACL_RULE else None)
    ]
    if kind == ACL_RULE:
        direction = "egress" if is_true(properties.get("egress")) else "ingress"
        entries.append((direction, properties.get("ruleAction"), properties))
    for direction, action, entry in entries:
        everything = str(entry.get("protocol")) in ("-1", "all")
        cidrs = [entry.get("cidrBlock"), entry.get("ipv6CidrBlock")]
        everybody = any(is_everywhere(cidr) for cidr in cidrs if cidr)
        if everything and everybody and str(action).lower() == "allow":
            yield f"{direction} allows everything"


def endpoint_serves_others(kind: str, properties: Properties) -> Iterator[str]:
    service = properties.get("serviceName")
    takes_none = isinstance(service, str) and service.startswith(WITHOUT_POLICY)
    if kind == ENDPOINT and (
        takes_none or properties.get("vpcEndpointType") == "GatewayLoadBalancer"
    ):
        return
    policy = properties.get("policy")
    if policy is None:
        yield "it has no policy, and AWS's own allows everything"
    for statement in allowing(policy):
        if not _is_held_to_an_account(statement):
            yield f"{label(statement)} is not restricted to an account"


def _is_held_to_an_account(statement: Statement) -> bool:
    found = [conditions(statement).get(f"StringEquals {key}", frozenset()) for key in OWN]
    if found[0] == found[1] and len(found[0]) == 1:
        return True
    reads = texts(statement.get("Action")) == ("s3:GetObject",)
    resources = texts(statement.get("Resource"))
    return reads and bool(resources) and all(r.startswith(AGENT_BUCKET) for r in resources)


def service_accepts_anybody(kind: str, properties: Properties) -> Iterator[str]:
    if kind == ENDPOINT_SERVICE and not is_true(properties.get("acceptanceRequired")):
        yield "every request is accepted: acceptanceRequired is not true"
    principals = (*items(properties.get("allowedPrincipals")), properties.get("principalArn"))
    if "*" in principals:
        yield "everybody may request a connection"


def flows_unrecorded(_: str, properties: Properties) -> Iterator[str]:
    """Report flow logs that do not record all; those of transit gateways have no type."""
    of_network = any(properties.get(name) is not None for name in ("vpcId", "subnetId", "eniId"))
    kind = properties.get("trafficType")
    if of_network and kind != "ALL":
        yield f"trafficType is {kind or 'absent'}"


def network_unrecorded(stack: Sequence[DeclaredResource]) -> Iterator[tuple[DeclaredResource, str]]:
    logs = [each for each in stack if each.type == FLOW_LOG]
    for vpc in stack:
        if vpc.type == VPC and not any(log.refers_to(vpc, "vpcId") for log in logs):
            yield vpc, "no flow log of this stack records it"


def network_may_be_opened(_: str, properties: Properties) -> Iterator[str]:
    mode = value(properties, "internetGatewayBlockMode")
    if mode == "off":
        yield "internetGatewayBlockMode is off"
