"""Default security group, ACL and route table of a VPC, without rules and routes (NET-01).

AWS applies them wherever a resource names none of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_aws as aws

CONTROLS = ("NET-01",)


def lock_defaults(
    parent: pulumi.Resource,
    name: str,
    vpc: aws.ec2.Vpc | aws.ec2.DefaultVpc,
    tags: Mapping[str, str],
) -> None:
    child = pulumi.ResourceOptions(parent=parent)
    aws.ec2.DefaultSecurityGroup(name, vpc_id=vpc.id, tags=tags, opts=child)
    aws.ec2.DefaultNetworkAcl(
        name,
        default_network_acl_id=vpc.default_network_acl_id,
        tags=tags,
        # AWS assigns subnets without an ACL to this one; Pulumi must not take them off.
        opts=pulumi.ResourceOptions(parent=parent, ignore_changes=["subnetIds"]),
    )
    aws.ec2.DefaultRouteTable(
        name,
        default_route_table_id=vpc.default_route_table_id,
        routes=[],
        tags=tags,
        opts=child,
    )
