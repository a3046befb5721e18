"""Flow logs of the VPC: all fields of every flow, accepted or refused (NET-05)."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import policies
from ringfence.cloud.services import FLOW_LOG_CLASS
from ringfence.cloud.tags import tags
from ringfence.events.flow_log import FLOW_LOG_FORMAT
from ringfence.manifest.model import Environment
from stacks.components.monitoring.log_group import evidence_log_group

CONTROLS = ("NET-05",)
(FLOWS,) = CONTROLS


@dataclass(frozen=True, kw_only=True)
class FlowLogsArgs:
    environment: Environment
    vpc_id: pulumi.Input[str]
    key_arn: pulumi.Input[str]
    account: str
    region: str


class FlowLogs(pulumi.ComponentResource):
    group_name: pulumi.Output[str]

    def __init__(
        self, name: str, args: FlowLogsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:FlowLogs", name, None, opts)
        environment = args.environment
        named = tags(environment, "flow-logs", control=FLOWS, data_class=FLOW_LOG_CLASS)
        child = pulumi.ResourceOptions(parent=self)
        group = evidence_log_group(
            self,
            name,
            environment=environment,
            data_class=FLOW_LOG_CLASS,
            key_arn=args.key_arn,
            tags=named,
        )
        role = aws.iam.Role(
            name,
            assume_role_policy=policies.flow_logs_trust(account=args.account, region=args.region),
            description=f"Writes the flow logs of {environment.name}",
            tags=named,
            opts=child,
        )
        permissions = aws.iam.RolePolicy(
            name,
            role=role.name,
            policy=group.arn.apply(policies.flow_logs_permissions),
            opts=child,
        )
        aws.ec2.FlowLog(
            name,
            vpc_id=args.vpc_id,
            traffic_type="ALL",
            log_destination_type="cloud-watch-logs",
            log_destination=group.arn,
            iam_role_arn=role.arn,
            log_format=FLOW_LOG_FORMAT,
            max_aggregation_interval=60,
            tags=named,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[permissions]),
        )
        self.group_name = group.name
        self.register_outputs({"group_name": group.name})
