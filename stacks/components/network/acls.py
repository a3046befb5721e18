"""A network ACL per segment, which admits only the declared flows of the segment (NET-01)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import acls
from ringfence.cloud.tags import tags
from ringfence.manifest.model import Environment
from stacks.components.network.vpc import Network

CONTROLS = ("NET-01",)
(SEGMENTS,) = CONTROLS


@dataclass(frozen=True, kw_only=True)
class AclsArgs:
    environment: Environment
    network: Network


class Acls(pulumi.ComponentResource):
    def __init__(
        self, name: str, args: AclsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Acls", name, None, opts)
        environment, network = args.environment, args.network
        ids = {
            segment.name: network_acl(
                self,
                f"{name}-{segment.name}",
                network=network,
                subnets=list(network.subnets[segment.name].values()),
                entries=acls.entries(environment, segment),
                tags=tags(environment, segment.name, control=SEGMENTS, segment=segment.name),
            )
            for segment in environment.segments.values()
        }
        self.register_outputs({"acl_ids": ids})


def network_acl(
    parent: pulumi.Resource,
    name: str,
    *,
    network: Network,
    subnets: Sequence[aws.ec2.Subnet],
    entries: Iterable[acls.AclEntry],
    tags: Mapping[str, str],
) -> pulumi.Output[str]:
    """Declare an ACL that allows these entries, and return its id."""
    child = pulumi.ResourceOptions(parent=parent)
    acl = aws.ec2.NetworkAcl(
        name,
        vpc_id=network.vpc.id,
        subnet_ids=[subnet.id for subnet in subnets],
        tags=tags,
        opts=child,
    )
    for entry in entries:
        aws.ec2.NetworkAclRule(
            f"{name}-{entry.key}",
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
    return acl.id
