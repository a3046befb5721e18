"""An internal network load balancer with its own security group (NET-03)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud.balancers import Balancer
from ringfence.cloud.tags import tags
from ringfence.manifest.model import Environment
from stacks.components.network.vpc import Network

CONTROLS = ("NET-03",)

HEALTH_SECONDS = 10
HEALTH_COUNT = 2


@dataclass(frozen=True, kw_only=True)
class NetworkBalancerArgs:
    environment: Environment
    network: Network
    balancer: Balancer
    group_id: pulumi.Input[str]
    control: str
    """Control that the load balancer serves where it is used."""


class NetworkBalancer(pulumi.ComponentResource):
    arn: pulumi.Output[str]
    target_group_arns: Mapping[str, Sequence[pulumi.Output[str]]]
    """ARNs by host."""

    def __init__(
        self, name: str, args: NetworkBalancerArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:NetworkBalancer", name, None, opts)
        environment, balancer = args.environment, args.balancer
        child = pulumi.ResourceOptions(parent=self)
        # AWS limits these names to 32 characters, with Pulumi's digits: too few for the
        # environment's name.
        short = balancer.name
        made = aws.lb.LoadBalancer(
            short,
            load_balancer_type="network",
            internal=True,
            subnets=[subnet.id for subnet in args.network.subnets[balancer.segment.name].values()],
            security_groups=[args.group_id],
            # Callers over PrivateLink have addresses of their own network, which no rule here can
            # name. The endpoint service admits only accepted ones.
            # https://docs.aws.amazon.com/elasticloadbalancing/latest/network/load-balancer-security-groups.html
            enforce_security_group_inbound_rules_on_private_link_traffic="off",
            enable_cross_zone_load_balancing=True,
            enable_deletion_protection=environment.stage == "production",
            tags=tags(environment, balancer.group, control=args.control, group=balancer.group),
            opts=child,
        )
        self.target_group_arns = {}
        for listener in balancer.listeners:
            key = f"{short}-{listener.protocol}-{listener.port}"
            targets = aws.lb.TargetGroup(
                key,
                vpc_id=args.network.vpc.id,
                target_type="instance",
                protocol=listener.protocol.upper(),
                port=listener.port,
                health_check={
                    "protocol": "TCP",
                    "port": str(listener.health or "traffic-port"),
                    "interval": HEALTH_SECONDS,
                    "healthy_threshold": HEALTH_COUNT,
                    "unhealthy_threshold": HEALTH_COUNT,
                },
                # A host that leaves, perhaps because it is contained, keeps no connection.
                connection_termination=True,
                tags=tags(environment, f"{balancer.group}-{listener.port}", control=args.control),
                opts=child,
            )
            aws.lb.Listener(
                key,
                load_balancer_arn=made.arn,
                protocol=listener.protocol.upper(),
                port=listener.port,
                default_actions=[{"type": "forward", "target_group_arn": targets.arn}],
                tags=tags(environment, f"{balancer.group}-{listener.port}", control=args.control),
                opts=child,
            )
            for host in listener.hosts:
                known = self.target_group_arns.get(host.name, ())
                self.target_group_arns = {
                    **self.target_group_arns,
                    host.name: (*known, targets.arn),
                }
        self.arn = made.arn
        self.register_outputs({"arn": self.arn, "target_group_arns": self.target_group_arns})
