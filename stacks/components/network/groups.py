"""A security group per host and per MCP server, and a resource per rule (NET-02)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import egress, groups
from ringfence.cloud.tags import tags
from ringfence.manifest.model import Environment

CONTROLS = ("NET-02",)
(SEGMENTATION,) = CONTROLS


@dataclass(frozen=True, kw_only=True)
class GroupsArgs:
    environment: Environment
    vpc_id: pulumi.Input[str]
    s3_prefix_list_id: pulumi.Input[str]


class Groups(pulumi.ComponentResource):
    ids: Mapping[str, pulumi.Output[str]]
    """Ids by the name of the group."""

    def __init__(
        self, name: str, args: GroupsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Groups", name, None, opts)
        environment = args.environment
        child = pulumi.ResourceOptions(parent=self)
        self.ids = {}
        for group in groups.groups(environment):
            segment = group.segment.name if group.segment else None
            self.ids[group.name] = aws.ec2.SecurityGroup(
                f"{name}-{group.name}",
                vpc_id=args.vpc_id,
                description=group.description,
                tags=tags(
                    environment,
                    group.name,
                    control=SEGMENTATION,
                    segment=segment,
                    group=group.name,
                ),
                opts=child,
            ).id
        for rule in groups.rules(environment):
            self._declare(f"{name}-{rule.key}", rule, args, child)
        self.register_outputs({"group_ids": self.ids})

    def _declare(
        self, name: str, rule: groups.GroupRule, args: GroupsArgs, opts: pulumi.ResourceOptions
    ) -> None:
        resource = (
            aws.vpc.SecurityGroupIngressRule
            if rule.direction == "ingress"
            else aws.vpc.SecurityGroupEgressRule
        )
        peer = rule.peer
        resource(
            name,
            security_group_id=self.ids[rule.group],
            ip_protocol=rule.protocol,
            from_port=rule.first,
            to_port=rule.last,
            referenced_security_group_id=self.ids[peer.name] if peer.kind == "group" else None,
            cidr_ipv4=peer.name if peer.kind in ("network", "outside") else None,
            prefix_list_id=args.s3_prefix_list_id if peer.kind == "prefix_list" else None,
            description=groups.description(rule.why),
            tags=tags(
                args.environment,
                rule.key,
                control=SEGMENTATION,
                group=egress.GROUP_NAME if peer.kind == "outside" else None,
            ),
            opts=opts,
        )
