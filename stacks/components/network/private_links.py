"""Endpoints of declared services of other accounts, for the servers that name them (NET-03).

AWS accepts no policy for them: the security group alone decides who may use one.
https://docs.aws.amazon.com/vpc/latest/privatelink/vpc-endpoints-access.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud.acls import endpoints_segment
from ringfence.cloud.groups import link_group, private_links
from ringfence.cloud.tags import tags
from ringfence.manifest.model import Environment
from stacks.components.network.vpc import Network

CONTROLS = ("NET-03",)
(PRIVATE_ACCESS,) = CONTROLS


@dataclass(frozen=True, kw_only=True)
class PrivateLinksArgs:
    environment: Environment
    network: Network
    group_ids: Mapping[str, pulumi.Output[str]]


class PrivateLinks(pulumi.ComponentResource):
    ids: Mapping[str, pulumi.Output[str]]
    """Ids by the name of the link. A link works once the other account has accepted it."""
    names: Sequence[pulumi.Output[list[str]]]
    """DNS names of each link, which its servers resolve."""

    def __init__(
        self, name: str, args: PrivateLinksArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:PrivateLinks", name, None, opts)
        environment = args.environment
        subnets = args.network.subnets[endpoints_segment(environment).name].values()
        made = {
            link.name: aws.ec2.VpcEndpoint(
                f"{name}-{link.name}",
                vpc_id=args.network.vpc.id,
                service_name=link.service,
                vpc_endpoint_type="Interface",
                subnet_ids=[subnet.id for subnet in subnets],
                security_group_ids=[args.group_ids[link_group(link)]],
                private_dns_enabled=link.private_dns,
                tags=tags(
                    environment,
                    link_group(link),
                    control=PRIVATE_ACCESS,
                    group=link_group(link),
                ),
                opts=pulumi.ResourceOptions(parent=self),
            )
            for link in private_links(environment)
        }
        self.ids = {link: endpoint.id for link, endpoint in made.items()}
        self.names = [
            endpoint.dns_entries.apply(lambda entries: [e.dns_name for e in entries if e.dns_name])
            for endpoint in made.values()
        ]
        self.register_outputs({"ids": self.ids})
