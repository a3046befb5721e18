"""Monthly cost of a stack, from its resources: a sum of fixed costs, and rates of use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ringfence.cloud import prices
from ringfence.cloud.prices import Figure
from ringfence.cloud.tags import CONTROL

LAUNCH_TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
IMAGE_GB = 8
"""Disk of Debian's images, where a host declares none."""


class CostError(LookupError):
    """A resource has no known price."""


class PricedResource(Protocol):
    @property
    def type(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def inputs(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Item:
    price: str
    """Key in the table, or an instance type."""
    count: float = 1
    is_instance: bool = False


@dataclass(frozen=True)
class Option:
    path: str
    """Key in the manifest."""
    effect: str


@dataclass(frozen=True)
class CostLine:
    what: str
    count: float
    unit: str
    figure: Figure | None
    """None where the table has no price."""
    monthly: float
    controls: tuple[str, ...]
    options: tuple[Option, ...] = ()


@dataclass(frozen=True)
class PriceRate:
    what: str
    unit: str
    figure: Figure


@dataclass(frozen=True)
class Estimate:
    region: str
    fixed: tuple[CostLine, ...]
    """Sorted by cost, highest first."""
    rates: tuple[PriceRate, ...]

    @property
    def monthly(self) -> float:
        return sum(line.monthly for line in self.fixed)

    @property
    def unpriced(self) -> tuple[CostLine, ...]:
        return tuple(line for line in self.fixed if line.figure is None)


Templates = Mapping[str, PricedResource]
"""Launch templates of a stack by id."""
Pricing = Callable[[PricedResource, Templates], Iterator[Item]]


def estimate(resources: Iterable[PricedResource], region: str) -> Estimate:
    """Raise `CostError` for an AWS type that is neither in `PRICED` nor in `FREE`."""
    resources = [each for each in resources if each.type.startswith("aws:")]
    templates = {each.id: each for each in resources if each.type == LAUNCH_TEMPLATE}
    counts: dict[tuple[str, bool], float] = defaultdict(float)
    controls: dict[tuple[str, bool], set[str]] = defaultdict(set)
    for resource in resources:
        for item in items(resource, templates):
            key = item.price, item.is_instance
            counts[key] += item.count
            if control := _control(resource):
                controls[key].add(control)
    table, fixed, rates = prices.table(), [], []
    for (key, is_instance), count in counts.items():
        ids = tuple(sorted(controls[key, is_instance]))
        if is_instance:
            fixed.append(_machines(key, count, region, ids))
        elif key not in table.prices:
            fixed.append(CostLine(key, count, "month", None, 0, ids))
        elif (price := table.prices[key]).usage:
            rates.append(PriceRate(price.what, price.unit, table.figure(key, region)))
        elif count:
            figure = table.figure(key, region)
            monthly = count * figure.usd * (table.hours if price.is_hourly else 1)
            options = OPTIONS.get(key, ())
            fixed.append(CostLine(price.what, count, price.unit, figure, monthly, ids, options))
    order = {price.what: number for number, price in enumerate(table.prices.values())}
    return Estimate(
        region,
        tuple(sorted(fixed, key=lambda line: (-line.monthly, line.what))),
        tuple(sorted(rates, key=lambda rate: order[rate.what])),
    )


def items(resource: PricedResource, templates: Templates) -> Iterator[Item]:
    if resource.type in PRICED:
        yield from PRICED[resource.type](resource, templates)
    elif resource.type not in FREE:
        raise CostError(
            f"{resource.type} has no price; add it to PRICED in ringfence/cloud/cost.py, with its "
            "figures in prices.yaml, or to FREE if AWS charges nothing for it"
        )


def _control(resource: PricedResource) -> str | None:
    """Read the control tag. An Auto Scaling group has a list of tags, others have a mapping."""
    tags = resource.inputs.get("tags") or {}
    if not isinstance(tags, Mapping):
        tags = {each["key"]: each["value"] for each in tags}
    return tags.get(CONTROL)


def _machines(kind: str, count: float, region: str, controls: tuple[str, ...]) -> CostLine:
    figure, hours = prices.table().instance(kind, region), prices.table().hours
    monthly = count * figure.usd * hours if figure else 0
    return CostLine(f"hosts, {kind}", count, "hour", figure, monthly, controls, OPTIONS["hosts"])


def _each(*keys: str) -> Pricing:
    """Price each resource the same, whatever its inputs."""

    def pricing(_: PricedResource, __: Templates) -> Iterator[Item]:
        yield from (Item(key) for key in keys)

    return pricing


def _endpoint(resource: PricedResource, _: Templates) -> Iterator[Item]:
    kind = resource.inputs.get("vpcEndpointType", "Gateway")
    zones = len(resource.inputs.get("subnetIds") or ())
    if kind == "Interface":
        yield Item("interface-endpoint", zones)
        yield Item("endpoint-data")
    elif kind == "GatewayLoadBalancer":
        yield Item("gateway-load-balancer-endpoint", zones)
    elif kind != "Gateway":
        yield Item(f"{kind} endpoints", zones)


def _load_balancer(resource: PricedResource, _: Templates) -> Iterator[Item]:
    kind = resource.inputs.get("loadBalancerType", "application")
    yield Item(f"{kind}-load-balancer")
    if f"{kind}-load-balancer-capacity" in prices.table().prices:
        yield Item(f"{kind}-load-balancer-capacity")


def _firewall(resource: PricedResource, _: Templates) -> Iterator[Item]:
    yield Item("network-firewall", len(resource.inputs["subnetMappings"]))
    yield Item("network-firewall-data")


def _domains(resource: PricedResource, _: Templates) -> Iterator[Item]:
    yield Item("dns-firewall-domain", len(resource.inputs.get("domains") or ()))


def _group(resource: PricedResource, templates: Templates) -> Iterator[Item]:
    count = resource.inputs.get("desiredCapacity", resource.inputs["minSize"])
    given = resource.inputs.get("launchTemplate") or {}
    template = templates.get(given.get("id", ""))
    if template is None:
        raise CostError(
            f"{resource.type} {resource.name}: a price needs a launch template of the same stack, "
            "named by id; use one, or extend ringfence/cloud/cost.py"
        )
    yield from _hosts(template.inputs, count)


def _instance(resource: PricedResource, _: Templates) -> Iterator[Item]:
    given = resource.inputs
    disks = [given.get("rootBlockDevice") or {}, *(given.get("ebsBlockDevices") or ())]
    mappings = [{"ebs": disk} for disk in disks]
    monitoring = {"enabled": given.get("monitoring", False)}
    yield from _hosts({**given, "blockDeviceMappings": mappings, "monitoring": monitoring}, 1)


def _hosts(template: Mapping[str, Any], count: float) -> Iterator[Item]:
    kind = template["instanceType"]
    yield Item(kind, count, is_instance=True)
    credits = f"cpu-credits-{kind.partition('.')[0]}"
    if credits in prices.table().prices:
        yield Item(credits)
    for mapping in template.get("blockDeviceMappings") or [{}]:
        disk = mapping.get("ebs") or {}
        yield from _disk(disk.get("volumeType"), disk.get("volumeSize", IMAGE_GB), count)
    if (template.get("monitoring") or {}).get("enabled"):
        yield Item("detailed-monitoring", count)
    yield Item("zone-transfer")


def _volume(resource: PricedResource, _: Templates) -> Iterator[Item]:
    yield from _disk(resource.inputs.get("type"), resource.inputs.get("size", 0), 1)


def _disk(kind: str | None, gigabytes: float, count: float) -> Iterator[Item]:
    if kind in (None, "gp3"):
        yield Item("ebs-gp3", gigabytes * count)
    else:
        yield Item(f"disks, {kind}", gigabytes * count)


def _alarm(resource: PricedResource, _: Templates) -> Iterator[Item]:
    often = resource.inputs.get("period", 60) < 60
    yield Item("metric-alarm-high-resolution" if often else "metric-alarm")


def _trail(resource: PricedResource, _: Templates) -> Iterator[Item]:
    yield Item("trail-copy")
    if resource.inputs.get("advancedEventSelectors") or resource.inputs.get("eventSelectors"):
        yield Item("trail-data-events")


def _analyzer(resource: PricedResource, _: Templates) -> Iterator[Item]:
    if resource.inputs.get("type", "ACCOUNT").endswith("UNUSED_ACCESS"):
        yield Item("analysed-other-role")


def _feature(resource: PricedResource, _: Templates) -> Iterator[Item]:
    feature = resource.inputs["name"]
    if resource.inputs["status"] == "ENABLED":
        yield Item(GUARDDUTY.get(feature, f"GuardDuty, {feature}"))


def _subscription(resource: PricedResource, _: Templates) -> Iterator[Item]:
    if resource.inputs["protocol"].startswith("email"):
        yield Item("sns-email")


def _function(resource: PricedResource, _: Templates) -> Iterator[Item]:
    arm = "arm64" in (resource.inputs.get("architectures") or ())
    yield Item("lambda-requests")
    yield Item("lambda-duration-arm" if arm else "lambda-duration")


GUARDDUTY: Mapping[str, str] = {
    "EBS_MALWARE_PROTECTION": "guardduty-malware",
    "RUNTIME_MONITORING": "guardduty-runtime",
    "S3_DATA_EVENTS": "guardduty-s3",
}

PRICED: Mapping[str, Pricing] = {
    "aws:accessanalyzer/analyzer:Analyzer": _analyzer,
    "aws:autoscaling/group:Group": _group,
    "aws:cfg/recorder:Recorder": _each("config-item"),
    "aws:cfg/rule:Rule": _each("config-evaluation"),
    "aws:cloudtrail/trail:Trail": _trail,
    "aws:cloudwatch/compositeAlarm:CompositeAlarm": _each("composite-alarm"),
    "aws:cloudwatch/eventBus:EventBus": _each("custom-events"),
    "aws:cloudwatch/logGroup:LogGroup": _each("log-ingestion", "log-storage"),
    "aws:cloudwatch/logMetricFilter:LogMetricFilter": _each("custom-metric"),
    "aws:cloudwatch/metricAlarm:MetricAlarm": _alarm,
    "aws:ebs/volume:Volume": _volume,
    "aws:ec2/eip:Eip": _each("public-ipv4"),
    "aws:ec2/flowLog:FlowLog": _each("vended-logs"),
    "aws:ec2/instance:Instance": _instance,
    "aws:ec2/natGateway:NatGateway": _each("nat-gateway", "nat-gateway-data"),
    "aws:ec2/trafficMirrorSession:TrafficMirrorSession": _each("traffic-mirror"),
    # A function creates the sessions of instances, so they are not resources of a stack.
    "aws:ec2/trafficMirrorTarget:TrafficMirrorTarget": _each("traffic-mirror-interface"),
    "aws:ec2/vpcEndpoint:VpcEndpoint": _endpoint,
    "aws:guardduty/detector:Detector": _each("guardduty-events", "guardduty-logs"),
    "aws:guardduty/detectorFeature:DetectorFeature": _feature,
    # The account stack analyses every role and user.
    "aws:iam/role:Role": _each("analysed-role"),
    "aws:iam/user:User": _each("analysed-role"),
    "aws:kms/key:Key": _each("kms-key", "kms-rotation", "kms-requests"),
    "aws:lambda/function:Function": _function,
    "aws:lb/loadBalancer:LoadBalancer": _load_balancer,
    "aws:macie2/account:Account": _each("macie-bucket", "macie-objects", "macie-inspection"),
    "aws:networkfirewall/firewall:Firewall": _firewall,
    "aws:route53/resolverFirewallDomainList:ResolverFirewallDomainList": _domains,
    "aws:route53/resolverFirewallRuleGroupAssociation:ResolverFirewallRuleGroupAssociation": (
        _each("dns-firewall-queries")
    ),
    "aws:route53/resolverQueryLogConfig:ResolverQueryLogConfig": _each("vended-logs"),
    "aws:route53/zone:Zone": _each("hosted-zone"),
    "aws:s3/bucket:Bucket": _each("s3-storage", "s3-writes"),
    "aws:secretsmanager/secret:Secret": _each("secret", "secret-requests"),
    "aws:securityhub/account:Account": _each("security-hub-check"),
    "aws:sns/topicSubscription:TopicSubscription": _subscription,
    "aws:sqs/queue:Queue": _each("sqs-requests"),
}

FREE = frozenset(
    (
        "aws:autoscaling/lifecycleHook:LifecycleHook",
        "aws:autoscaling/policy:Policy",
        "aws:cfg/deliveryChannel:DeliveryChannel",
        "aws:cfg/recorderStatus:RecorderStatus",
        "aws:cfg/retentionConfiguration:RetentionConfiguration",
        "aws:cloudwatch/eventRule:EventRule",
        "aws:cloudwatch/eventTarget:EventTarget",
        "aws:cloudwatch/logResourcePolicy:LogResourcePolicy",
        "aws:ebs/defaultKmsKey:DefaultKmsKey",
        "aws:ebs/encryptionByDefault:EncryptionByDefault",
        "aws:ebs/snapshotBlockPublicAccess:SnapshotBlockPublicAccess",
        "aws:ec2/defaultNetworkAcl:DefaultNetworkAcl",
        "aws:ec2/defaultRouteTable:DefaultRouteTable",
        "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
        "aws:ec2/defaultVpc:DefaultVpc",
        "aws:ec2/eipAssociation:EipAssociation",
        "aws:ec2/imageBlockPublicAccess:ImageBlockPublicAccess",
        "aws:ec2/instanceMetadataDefaults:InstanceMetadataDefaults",
        "aws:ec2/internetGateway:InternetGateway",
        LAUNCH_TEMPLATE,
        "aws:ec2/networkAcl:NetworkAcl",
        "aws:ec2/networkAclRule:NetworkAclRule",
        "aws:ec2/route:Route",
        "aws:ec2/routeTable:RouteTable",
        "aws:ec2/routeTableAssociation:RouteTableAssociation",
        "aws:ec2/securityGroup:SecurityGroup",
        "aws:ec2/serialConsoleAccess:SerialConsoleAccess",
        "aws:ec2/subnet:Subnet",
        "aws:ec2/trafficMirrorFilter:TrafficMirrorFilter",
        "aws:ec2/trafficMirrorFilterRule:TrafficMirrorFilterRule",
        "aws:ec2/vpc:Vpc",
        "aws:ec2/vpcBlockPublicAccessExclusion:VpcBlockPublicAccessExclusion",
        "aws:ec2/vpcBlockPublicAccessOptions:VpcBlockPublicAccessOptions",
        "aws:ec2/vpcEndpointService:VpcEndpointService",
        "aws:ec2/vpcEndpointServiceAllowedPrinciple:VpcEndpointServiceAllowedPrinciple",
        "aws:iam/accountPasswordPolicy:AccountPasswordPolicy",
        "aws:iam/group:Group",
        "aws:iam/groupPolicyAttachment:GroupPolicyAttachment",
        "aws:iam/instanceProfile:InstanceProfile",
        "aws:iam/policy:Policy",
        "aws:iam/rolePolicy:RolePolicy",
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        "aws:iam/serviceLinkedRole:ServiceLinkedRole",
        "aws:kms/alias:Alias",
        "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig",
        "aws:lambda/permission:Permission",
        "aws:lb/listener:Listener",
        "aws:lb/targetGroup:TargetGroup",
        "aws:macie2/classificationExportConfiguration:ClassificationExportConfiguration",
        "aws:networkfirewall/firewallPolicy:FirewallPolicy",
        "aws:networkfirewall/loggingConfiguration:LoggingConfiguration",
        "aws:networkfirewall/ruleGroup:RuleGroup",
        "aws:route53/resolverFirewallConfig:ResolverFirewallConfig",
        "aws:route53/resolverFirewallRule:ResolverFirewallRule",
        "aws:route53/resolverFirewallRuleGroup:ResolverFirewallRuleGroup",
        "aws:route53/resolverQueryLogConfigAssociation:ResolverQueryLogConfigAssociation",
        "aws:s3/accountPublicAccessBlock:AccountPublicAccessBlock",
        "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
        "aws:s3/bucketLogging:BucketLogging",
        "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration",
        "aws:s3/bucketOwnershipControls:BucketOwnershipControls",
        "aws:s3/bucketPolicy:BucketPolicy",
        "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
        "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        "aws:s3/bucketVersioning:BucketVersioning",
        "aws:secretsmanager/secretPolicy:SecretPolicy",
        "aws:secretsmanager/secretRotation:SecretRotation",
        "aws:secretsmanager/secretVersion:SecretVersion",
        "aws:securityhub/standardsSubscription:StandardsSubscription",
        "aws:sns/topic:Topic",
        "aws:sns/topicPolicy:TopicPolicy",
        "aws:sqs/queuePolicy:QueuePolicy",
        "aws:sqs/redriveAllowPolicy:RedriveAllowPolicy",
        "aws:sqs/redrivePolicy:RedrivePolicy",
        "aws:ssm/document:Document",
        "aws:ssm/parameter:Parameter",
        "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
        "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
    )
)
"""AWS charges nothing for them, or includes it in another resource, as a listener in a balancer."""

_ZONES = Option("provisioning.aws.zones", "one per zone")
_DOMAINS = Option("servers.*.egress.domain", "only if a server declares one")
OPTIONS: Mapping[str, tuple[Option, ...]] = {
    "interface-endpoint": (
        _ZONES,
        Option("servers.*.secrets", "one service more if a server names any"),
    ),
    "network-firewall": (_DOMAINS, _ZONES),
    "nat-gateway": (_DOMAINS, _ZONES),
    "public-ipv4": (_DOMAINS, _ZONES),
    "hosts": (Option("hosts", "one each"),),
    "ebs-gp3": (Option("hosts", "one set of disks each"),),
    "traffic-mirror": (Option("hosts.*.groups", "only if a host is a sensor"),),
    "secret": (Option("servers.*.secrets", "one each"),),
}
"""Keys of the manifest that decide on high costs, by key in the table."""
