"""Tags that say to whom a resource belongs and why: bills, reviews and checks use them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .rule import Properties

ENVIRONMENT, CONTROL, DATA_CLASS = "ringfence:environment", "ringfence:control", "ringfence:class"
SCOPE, GROUP = "ringfence:scope", "ringfence:group"
"""The names of `ringfence/cloud/tags.py`, which a published pack does not have beside it."""

EGRESS = "egress"
"""Group of an environment's egress, which may have a gateway: it filters by domain."""
WORKLOADS = ("host-", "server-")
"""Start of the names of groups of hosts and of MCP servers."""
CONTROL_ID = re.compile(r"[A-Z]{3}-\d{2}")

TAGGED = (
    "aws:accessanalyzer/analyzer:Analyzer",
    "aws:alb/listener:Listener",
    "aws:alb/loadBalancer:LoadBalancer",
    "aws:autoscaling/group:Group",
    "aws:backup/vault:Vault",
    "aws:cfg/rule:Rule",
    "aws:cloudtrail/trail:Trail",
    "aws:cloudwatch/eventRule:EventRule",
    "aws:cloudwatch/logGroup:LogGroup",
    "aws:cloudwatch/metricAlarm:MetricAlarm",
    "aws:dynamodb/table:Table",
    "aws:ebs/volume:Volume",
    "aws:ec2/defaultNetworkAcl:DefaultNetworkAcl",
    "aws:ec2/defaultRouteTable:DefaultRouteTable",
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
    "aws:ec2/defaultVpc:DefaultVpc",
    "aws:ec2/egressOnlyInternetGateway:EgressOnlyInternetGateway",
    "aws:ec2/eip:Eip",
    "aws:ec2/flowLog:FlowLog",
    "aws:ec2/instance:Instance",
    "aws:ec2/internetGateway:InternetGateway",
    "aws:ec2/launchTemplate:LaunchTemplate",
    "aws:ec2/natGateway:NatGateway",
    "aws:ec2/networkAcl:NetworkAcl",
    "aws:ec2/networkInterface:NetworkInterface",
    "aws:ec2/routeTable:RouteTable",
    "aws:ec2/securityGroup:SecurityGroup",
    "aws:ec2/subnet:Subnet",
    "aws:ec2/trafficMirrorFilter:TrafficMirrorFilter",
    "aws:ec2/trafficMirrorSession:TrafficMirrorSession",
    "aws:ec2/trafficMirrorTarget:TrafficMirrorTarget",
    "aws:ec2/vpc:Vpc",
    "aws:ec2/vpcBlockPublicAccessExclusion:VpcBlockPublicAccessExclusion",
    "aws:ec2/vpcEndpoint:VpcEndpoint",
    "aws:ec2/vpcEndpointService:VpcEndpointService",
    "aws:ecr/repository:Repository",
    "aws:efs/fileSystem:FileSystem",
    "aws:guardduty/detector:Detector",
    "aws:iam/instanceProfile:InstanceProfile",
    "aws:iam/policy:Policy",
    "aws:iam/role:Role",
    "aws:iam/serviceLinkedRole:ServiceLinkedRole",
    "aws:iam/user:User",
    "aws:kms/key:Key",
    "aws:lambda/function:Function",
    "aws:lb/listener:Listener",
    "aws:lb/loadBalancer:LoadBalancer",
    "aws:lb/targetGroup:TargetGroup",
    "aws:networkfirewall/firewall:Firewall",
    "aws:networkfirewall/firewallPolicy:FirewallPolicy",
    "aws:networkfirewall/ruleGroup:RuleGroup",
    "aws:rds/cluster:Cluster",
    "aws:rds/instance:Instance",
    "aws:route53/resolverFirewallDomainList:ResolverFirewallDomainList",
    "aws:route53/resolverFirewallRuleGroup:ResolverFirewallRuleGroup",
    "aws:route53/resolverFirewallRuleGroupAssociation:ResolverFirewallRuleGroupAssociation",
    "aws:route53/resolverQueryLogConfig:ResolverQueryLogConfig",
    "aws:s3/bucket:Bucket",
    "aws:secretsmanager/secret:Secret",
    "aws:sns/topic:Topic",
    "aws:sqs/queue:Queue",
    "aws:ssm/document:Document",
    "aws:ssm/parameter:Parameter",
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
)
HOLD_DATA = (
    "aws:backup/vault:Vault",
    "aws:cloudwatch/logGroup:LogGroup",
    "aws:dynamodb/table:Table",
    "aws:ebs/volume:Volume",
    "aws:efs/fileSystem:FileSystem",
    "aws:rds/cluster:Cluster",
    "aws:rds/instance:Instance",
    "aws:s3/bucket:Bucket",
    "aws:secretsmanager/secret:Secret",
    "aws:sns/topic:Topic",
    "aws:sqs/queue:Queue",
)


def tag(properties: Properties, name: str) -> Any:
    """Return a tag's value, from a mapping or from the list of Auto Scaling."""
    tags = properties.get("tags") or {}
    if isinstance(tags, list):
        tags = {each.get("key"): each.get("value") for each in tags}
    return tags.get(name)


def owned(_: str, properties: Properties) -> Iterator[str]:
    if not tag(properties, ENVIRONMENT) and tag(properties, SCOPE) != "account":
        yield f"it has no owner: tags {ENVIRONMENT} and {SCOPE}=account are absent"
    control = tag(properties, CONTROL)
    if not control or not CONTROL_ID.fullmatch(control):
        yield f"tag {CONTROL} names no control: {control or 'it is absent'}"


def classified(_: str, properties: Properties) -> Iterator[str]:
    if not tag(properties, DATA_CLASS):
        yield f"the class of its data is unknown: tag {DATA_CLASS} is absent"


def is_egress(properties: Properties) -> bool:
    """Tell whether a resource is part of an environment's declared egress."""
    return bool(tag(properties, ENVIRONMENT)) and tag(properties, GROUP) == EGRESS


def is_of_workload(properties: Properties) -> bool:
    group = tag(properties, GROUP)
    return group is not None and group.startswith(WORKLOADS)
