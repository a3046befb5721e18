"""A copy of all traffic for the sensors, of instances that come and go (NET-04)."""

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
from stacks.components.function import Function, FunctionArgs
from stacks.components.network.balancer import NetworkBalancer, NetworkBalancerArgs
from stacks.components.network.vpc import Network

CONTROL = "NET-04"


@dataclass(frozen=True)
class MirroringArgs:
    environment: Environment
    network: Network
    balancer: Balancer
    group_id: pulumi.Input[str]
    key_arn: pulumi.Input[str]
    """Of the class of the log: `ringfence.cloud.mirroring.MIRROR_CLASS`."""
    topic_arn: pulumi.Input[str]
    topic_key_arn: pulumi.Input[str]
    account: str
    region: str


class Mirroring(pulumi.ComponentResource):
    target_id: pulumi.Output[str]
    filter_id: pulumi.Output[str]
    function_arn: pulumi.Output[str]
    target_group_arns: Mapping[str, Sequence[pulumi.Output[str]]]
    """By host: for the Auto Scaling group of each sensor."""

    def __init__(
        self, name: str, args: MirroringArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Mirroring", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        balancer = NetworkBalancer(
            name,
            NetworkBalancerArgs(
                args.environment, args.network, args.balancer, args.group_id, CONTROL
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
        for key, says, when in (
            ("started", "An instance runs", {"event_pattern": mirroring.started(args.account)}),
            ("sweep", "What was missed is mirrored", {"schedule_expression": mirroring.SWEEP}),
        ):
            self._trigger(key, says, when, function)
        self._alarm(function.name)
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
        return tags(self._args.environment, name, CONTROL)

    def _filter(self) -> pulumi.Output[str]:
        """Everything, and questions to Amazon's resolver, which are left out otherwise."""
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
                environment,
                mirroring.HANDLER,
                f"Mirrors the traffic of {environment.name} to its sensors",
                tags(environment, "mirroring", CONTROL, mirroring.MIRROR_CLASS),
                mirroring.MIRROR_CLASS,
                args.key_arn,
                lambda found: mirroring.permissions(
                    environment.name, mirroring.Place(args.account, args.region, **found)
                ),
                {
                    "vpc": args.network.vpc.id,
                    "filter": self.filter_id,
                    "target": self.target_id,
                    "topic": args.topic_arn,
                    "topic_key": args.topic_key_arn,
                },
                mirroring.TIMEOUT_SECONDS,
                {
                    "ENVIRONMENT": environment.name,
                    "FILTER": self.filter_id,
                    "SENSORS": ",".join(map(host_group, environment.group("sensor"))),
                    "TARGET": self.target_id,
                },
                concurrency=mirroring.CONCURRENCY,
                invoked={
                    "maximum_retry_attempts": mirroring.RETRIES,
                    "maximum_event_age_in_seconds": mirroring.EVENT_SECONDS,
                    "destination_config": {"on_failure": {"destination": args.topic_arn}},
                },
            ),
            self._child,
        )

    def _trigger(self, key: str, says: str, when: Mapping[str, str], function: Function) -> None:
        name = f"{self._name}-{key}"
        rule = aws.cloudwatch.EventRule(
            name,
            description=says,
            event_pattern=when.get("event_pattern"),
            schedule_expression=when.get("schedule_expression"),
            tags=self._tags(f"mirroring-{key}"),
            opts=self._child,
        )
        permission = aws.lambda_.Permission(
            name,
            action="lambda:InvokeFunction",
            function=function.name,
            principal="events.amazonaws.com",
            source_arn=rule.arn,
            source_account=self._args.account,
            opts=self._child,
        )
        aws.cloudwatch.EventTarget(
            name,
            rule=rule.name,
            arn=function.arn,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[permission]),
        )

    def _alarm(self, function: pulumi.Output[str]) -> None:
        aws.cloudwatch.MetricAlarm(
            f"{self._name}-errors",
            alarm_description="The traffic of an instance could not be mirrored: no sensor sees it",
            namespace="AWS/Lambda",
            metric_name="Errors",
            dimensions={"FunctionName": function},
            statistic="Sum",
            comparison_operator="GreaterThanOrEqualToThreshold",
            threshold=1,
            period=60,
            evaluation_periods=1,
            treat_missing_data="notBreaching",
            alarm_actions=[self._args.topic_arn],
            tags=self._tags("mirroring-errors"),
            opts=self._child,
        )
