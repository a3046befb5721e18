"""Network load balancers and endpoint services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.naming import physical, tagged, tags
from ringfence.rehearsal.record import Create, Created, Inputs, RehearsalError

LONGEST = 32
ENFORCED = "enforceSecurityGroupInboundRulesOnPrivateLinkTraffic"


def load_balancer(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    if inputs.get("loadBalancerType") != "network":
        raise RehearsalError(f"{name}: a rehearsal supports network load balancers only")
    client, groups = aws.client("elbv2"), inputs.get("securityGroups", [])
    (made,) = client.create_load_balancer(
        Name=physical(name, inputs, LONGEST),
        Type="network",
        Scheme="internal" if inputs.get("internal") else "internet-facing",
        Subnets=inputs["subnets"],
        SecurityGroups=groups,
        **_tags(inputs),
    )["LoadBalancers"]
    arn = made["LoadBalancerArn"]
    if ENFORCED in inputs:
        # moto accepts it without effect.
        client.set_security_groups(
            LoadBalancerArn=arn,
            SecurityGroups=groups,
            EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic=inputs[ENFORCED],
        )
    client.modify_load_balancer_attributes(
        LoadBalancerArn=arn,
        Attributes=[
            {"Key": attribute, "Value": str(inputs.get(key, False)).lower()}
            for attribute, key in (
                ("load_balancing.cross_zone.enabled", "enableCrossZoneLoadBalancing"),
                ("deletion_protection.enabled", "enableDeletionProtection"),
            )
        ],
    )
    outputs = {"arn": arn, "dnsName": made["DNSName"], "vpcId": made["VpcId"]}
    return Created(arn, outputs | {"name": made["LoadBalancerName"]})


def target_group(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    client, health = aws.client("elbv2"), inputs.get("healthCheck", {})
    optional = {
        "HealthCheckProtocol": health.get("protocol"),
        "HealthCheckPort": health.get("port"),
        "HealthCheckIntervalSeconds": health.get("interval"),
        "HealthyThresholdCount": health.get("healthyThreshold"),
        "UnhealthyThresholdCount": health.get("unhealthyThreshold"),
    }
    (made,) = client.create_target_group(
        Name=physical(name, inputs, LONGEST),
        Protocol=inputs["protocol"],
        Port=inputs["port"],
        VpcId=inputs["vpcId"],
        TargetType=inputs.get("targetType", "instance"),
        **_tags(inputs),
        **{key: value for key, value in optional.items() if value is not None},
    )["TargetGroups"]
    arn = made["TargetGroupArn"]
    ends = str(inputs.get("connectionTermination", False)).lower()
    attribute = "deregistration_delay.connection_termination.enabled"
    client.modify_target_group_attributes(
        TargetGroupArn=arn, Attributes=[{"Key": attribute, "Value": ends}]
    )
    return Created(arn, {"arn": arn, "name": made["TargetGroupName"]})


def listener(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    (made,) = aws.client("elbv2").create_listener(
        LoadBalancerArn=inputs["loadBalancerArn"],
        Protocol=inputs["protocol"],
        Port=inputs["port"],
        DefaultActions=[
            {"Type": action["type"], "TargetGroupArn": action["targetGroupArn"]}
            for action in inputs["defaultActions"]
        ],
        **_tags(inputs),
    )["Listeners"]
    return Created(made["ListenerArn"], {"arn": made["ListenerArn"]})


def _tags(inputs: Inputs) -> Mapping[str, Any]:
    found = tags(inputs)
    return {"Tags": found} if found else {}


def endpoint_service(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    ec2 = aws.client("ec2")
    made = ec2.create_vpc_endpoint_service_configuration(
        AcceptanceRequired=inputs["acceptanceRequired"],
        NetworkLoadBalancerArns=inputs["networkLoadBalancerArns"],
        TagSpecifications=tagged(inputs, "vpc-endpoint-service"),
    )["ServiceConfiguration"]
    service = made["ServiceId"]
    if principals := inputs.get("allowedPrincipals"):
        ec2.modify_vpc_endpoint_service_permissions(
            ServiceId=service, AddAllowedPrincipals=principals
        )
    arn = aws.arn("ec2", f"vpc-endpoint-service/{service}")
    return Created(service, {"arn": arn, "serviceName": made["ServiceName"]})


RESOURCES: Mapping[str, Create] = {
    "aws:lb/loadBalancer:LoadBalancer": load_balancer,
    "aws:lb/targetGroup:TargetGroup": target_group,
    "aws:lb/listener:Listener": listener,
    "aws:ec2/vpcEndpointService:VpcEndpointService": endpoint_service,
}
