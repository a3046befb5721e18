"""Traffic mirroring: a copy of all traffic for the sensors, from instances of any age (NET-04)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import mirroring
from ringfence.cloud.balancers import Balancer
from ringfence.cloud.groups import host_group
from ringfence.cloud.tags import tags
from ringfence.manifest.model import Environment
from stacks.components.function import Function, FunctionArgs, TriggerArgs, trigger
from stacks.components.monitoring.alarm import alarm
from stacks.components.network.balancer import NetworkBalancer, NetworkBalancerArgs
from stacks.components.network.vpc import Network

CONTROLS = ("NET-04",)
(INTRUSIONS,) = CONTROLS


@dataclass(frozen=True, kw_only=True)
class MirroringArgs:
    environment: Environment
    network: Network
    balancer: Balancer
    group_id: pulumi.Input[str]
    log_key_arn: pulumi.Input[str]
    """Key of the data class `ringfence.cloud.mirroring.MIRROR_CLASS`."""
    topic_arn: pulumi.Input[str]
    topic_key_arn: pulumi.Input[str]
    account: str
    region: str


class Mirroring(pulumi.ComponentResource):
    target_id: pulumi.Output[str]
    filter_id: pulumi.Output[str]
    function_arn: pulumi.Output[str]
    target_group_arns: Mapping[str, Sequence[pulumi.Output[str]]]
    """ARNs by host, for the Auto Scaling group of each sensor."""

    def __init__(
        self, name: str, args: MirroringArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Mirroring", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        balancer = NetworkBalancer(
            name,
            NetworkBalancerArgs(
                environment=args.environment,
                network=args.network,
                balancer=args.balancer,
                group_id=args.group_id,
                control=INTRUSIONS,
            ),
            self._child,
        )
        target = aws.ec2.TrafficMirrorTarget(
            name,
            description=f"Sensors of {args.environment.name}",
            network_load_balancer_arn=balancer.arn,
            tags=self._tags("mirror"),
            opts=self._child,
        )
        self.target_id, self.filter_id = target.id, self._filter()
        function = self._function()
        self._trigger(
            "started", "An instance runs", function, pattern=mirroring.started(args.account)
        )
        self._trigger(
            "sweep", "Mirrors what an event has missed", function, schedule=mirroring.SWEEP
        )
        alarm(
            self,
            f"{name}-errors",
            description="Mirroring of an instance failed: no sensor observes its traffic",
            namespace="AWS/Lambda",
            metric="Errors",
            dimensions={"FunctionName": function.name},
            topic_arn=args.topic_arn,
            tags=self._tags("mirroring-errors"),
        )
        self.function_arn = function.arn
        self.target_group_arns = balancer.target_group_arns
        self.register_outputs(
            {
                "target_id": self.target_id,
                "filter_id": self.filter_id,
                "function_arn": self.function_arn,
                "target_group_arns": self.target_group_arns,
            }
        )

    def _tags(self, name: str) -> dict[str, str]:
        return tags(self._args.environment, name, control=INTRUSIONS)

    def _filter(self) -> pulumi.Output[str]:
        """Accept all traffic, and queries to Amazon's resolver, which AWS leaves out by default."""
        made = aws.ec2.TrafficMirrorFilter(
            self._name,
            description=f"All traffic of {self._args.environment.name}",
            network_services=["amazon-dns"],
            tags=self._tags("mirror"),
            opts=self._child,
        )
        for direction in mirroring.DIRECTIONS:
            aws.ec2.TrafficMirrorFilterRule(
                f"{self._name}-{direction}",
                traffic_mirror_filter_id=made.id,
                traffic_direction=direction,
                rule_number=1,
                rule_action="accept",
                source_cidr_block="0.0.0.0/0",
                destination_cidr_block="0.0.0.0/0",
                opts=self._child,
            )
        return made.id

    def _function(self) -> Function:
        args, environment = self._args, self._args.environment
        return Function(
            self._name,
            FunctionArgs(
                environment=environment,
                handler=mirroring.HANDLER,
                description=f"Mirrors the traffic of {environment.name} to its sensors",
                tags=tags(
                    environment,
                    "mirroring",
                    control=INTRUSIONS,
                    data_class=mirroring.MIRROR_CLASS,
                ),
                log_class=mirroring.MIRROR_CLASS,
                log_key_arn=args.log_key_arn,
                permissions=lambda found: mirroring.permissions(
                    environment.name,
                    mirroring.MirroringResources(account=args.account, region=args.region, **found),
                    control=INTRUSIONS,
                ),
                resources={
                    "vpc": args.network.vpc.id,
                    "filter": self.filter_id,
                    "target": self.target_id,
                    "topic": args.topic_arn,
                    "topic_key": args.topic_key_arn,
                },
                timeout_seconds=mirroring.TIMEOUT_SECONDS,
                variables={
                    "CONTROL": INTRUSIONS,
                    "ENVIRONMENT": environment.name,
                    "FILTER": self.filter_id,
                    "SENSORS": ",".join(map(host_group, environment.group("sensor"))),
                    "TARGET": self.target_id,
                },
                concurrency=mirroring.CONCURRENCY,
                asynchronous={
                    "maximum_retry_attempts": mirroring.RETRIES,
                    "maximum_event_age_in_seconds": mirroring.EVENT_SECONDS,
                    "destination_config": {"on_failure": {"destination": args.topic_arn}},
                },
            ),
            self._child,
        )

    def _trigger(
        self,
        key: str,
        description: str,
        function: Function,
        *,
        pattern: str | None = None,
        schedule: str | None = None,
    ) -> None:
        trigger(
            self,
            f"{self._name}-{key}",
            TriggerArgs(
                function=function,
                account=self._args.account,
                description=description,
                tags=self._tags(f"mirroring-{key}"),
                pattern=pattern,
                schedule=schedule,
            ),
        )
