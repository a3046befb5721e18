"""AWS Config: records every change of a resource and evaluates AWS's managed rules (MON-01)."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud.managed_rules import history_days, managed_rules
from ringfence.cloud.tags import account_tags
from ringfence.manifest.model import Environment

CONTROLS = ("MON-01",)
(RECORD,) = CONTROLS


@dataclass(frozen=True, kw_only=True)
class ConfigurationRecorderArgs:
    environment: Environment
    bucket_name: pulumi.Input[str]
    key_arn: pulumi.Input[str]
    retention_days: int


class ConfigurationRecorder(pulumi.ComponentResource):
    def __init__(
        self, name: str, args: ConfigurationRecorderArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Configuration", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        # AWS keeps its own role up to date with new resource types; ours would lag behind.
        role = aws.iam.ServiceLinkedRole(
            name,
            aws_service_name="config.amazonaws.com",
            tags=account_tags(args.environment, "configuration", control=RECORD),
            opts=child,
        )
        recorder = aws.cfg.Recorder(
            name,
            role_arn=role.arn,
            recording_group={"all_supported": True, "include_global_resource_types": True},
            opts=child,
        )
        channel = aws.cfg.DeliveryChannel(
            name,
            s3_bucket_name=args.bucket_name,
            s3_kms_key_arn=args.key_arn,
            snapshot_delivery_properties={"delivery_frequency": "TwentyFour_Hours"},
            opts=pulumi.ResourceOptions(parent=self, depends_on=[recorder]),
        )
        recording = aws.cfg.RecorderStatus(
            name,
            name=recorder.name,
            is_enabled=True,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[channel]),
        )
        aws.cfg.RetentionConfiguration(
            name, retention_period_in_days=history_days(args.retention_days), opts=child
        )
        for rule in managed_rules():
            aws.cfg.Rule(
                f"{name}-{rule.key}",
                source={"owner": "AWS", "source_identifier": rule.identifier},
                input_parameters=json.dumps(rule.parameters) if rule.parameters else None,
                tags=account_tags(args.environment, rule.key, control=rule.control),
                opts=pulumi.ResourceOptions(parent=self, depends_on=[recording]),
            )
        self.register_outputs({"recorder_name": recorder.name})
