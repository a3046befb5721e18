"""A network ACL per segment: only segments with a declared flow between them talk (NET-01)."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import acls
from ringfence.cloud.tags import tags
from ringfence.manifest.model import Environment
from stacks.components.network.vpc import Network


@dataclass(frozen=True)
class AclsArgs:
    environment: Environment
    network: Network


class Acls(pulumi.ComponentResource):
    def __init__(
        self, name: str, args: AclsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Acls", name, None, opts)
        environment, network = args.environment, args.network
        child = pulumi.ResourceOptions(parent=self)
        ids: dict[str, pulumi.Output[str]] = {}
        for segment in environment.segments.values():
            acl = aws.ec2.NetworkAcl(
                f"{name}-{segment.name}",
                vpc_id=network.vpc.id,
                subnet_ids=[subnet.id for subnet in network.subnets[segment.name].values()],
                tags=tags(environment, segment.name, "NET-01", segment=segment.name),
                opts=child,
            )
            for entry in acls.entries(environment, segment):
                aws.ec2.NetworkAclRule(
                    f"{name}-{segment.name}-{entry.key}",
                    network_acl_id=acl.id,
                    rule_number=entry.number,
                    egress=entry.direction == "egress",
                    protocol=entry.protocol,
                    rule_action="allow",
                    cidr_block=str(entry.network),
                    from_port=entry.first,
                    to_port=entry.last,
                    opts=child,
                )
            ids[segment.name] = acl.id
        self.register_outputs({"acl_ids": ids})
