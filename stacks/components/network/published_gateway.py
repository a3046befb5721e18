"""An endpoint service that offers the gateway to other accounts, by PrivateLink only (NET-03)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud.balancers import Balancer
from ringfence.cloud.tags import tags
from ringfence.manifest.model import Environment
from stacks.components.network.balancer import NetworkBalancer, NetworkBalancerArgs
from stacks.components.network.vpc import Network

CONTROLS = ("NET-03",)
(PRIVATE_ACCESS,) = CONTROLS


@dataclass(frozen=True, kw_only=True)
class PublishedGatewayArgs:
    environment: Environment
    network: Network
    balancer: Balancer
    group_id: pulumi.Input[str]
    accepted: Sequence[str]
    """ARNs of principals that may request a connection."""


class PublishedGateway(pulumi.ComponentResource):
    service_name: pulumi.Output[str]
    """Callers name it in their endpoint."""
    service_id: pulumi.Output[str]
    target_group_arns: Mapping[str, Sequence[pulumi.Output[str]]]
    """ARNs by host, for the Auto Scaling group of each."""

    def __init__(
        self, name: str, args: PublishedGatewayArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:PublishedGateway", name, None, opts)
        # TCP, not TLS: a listener that terminated TLS would hide the caller's certificate from the
        # gateway.
        balancer = NetworkBalancer(
            name,
            NetworkBalancerArgs(
                environment=args.environment,
                network=args.network,
                balancer=args.balancer,
                group_id=args.group_id,
                control=PRIVATE_ACCESS,
            ),
            pulumi.ResourceOptions(parent=self),
        )
        service = aws.ec2.VpcEndpointService(
            name,
            acceptance_required=True,
            allowed_principals=list(args.accepted),
            network_load_balancer_arns=[balancer.arn],
            tags=tags(args.environment, "gateway", control=PRIVATE_ACCESS),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.service_name, self.service_id = service.service_name, service.id
        self.target_group_arns = balancer.target_group_arns
        self.register_outputs(
            {"service_name": self.service_name, "target_group_arns": self.target_group_arns}
        )
