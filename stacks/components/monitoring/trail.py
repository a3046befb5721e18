"""Every call to the account's API, in every region, in a record that shows changes (MON-01)."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import evidence
from ringfence.cloud.services import retention_days
from ringfence.cloud.tags import account_tags
from ringfence.manifest.model import Environment

_READ_OR_REMOVED = (
    *("DeleteObject", "DeleteObjects", "GetObject", "PutObjectLegalHold"),
    "PutObjectRetention",
)


@dataclass(frozen=True)
class TrailArgs:
    environment: Environment
    account: str
    region: str
    prefix: str
    key_arn: pulumi.Input[str]
    bucket_name: pulumi.Input[str]
    evidence_arns: tuple[pulumi.Input[str], ...]
    """Buckets whose every reading and deletion is recorded too."""


class Trail(pulumi.ComponentResource):
    arn: pulumi.Output[str]
    group_name: pulumi.Output[str]

    def __init__(
        self, name: str, args: TrailArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Trail", name, None, opts)
        named = account_tags(args.environment, "trail", "MON-01", evidence.EVIDENCE_CLASS)
        child = pulumi.ResourceOptions(parent=self)
        group = aws.cloudwatch.LogGroup(
            name,
            kms_key_id=args.key_arn,
            retention_in_days=retention_days(args.environment, evidence.EVIDENCE_CLASS),
            tags=named,
            opts=pulumi.ResourceOptions(parent=self, protect=True),
        )
        role = aws.iam.Role(
            name,
            assume_role_policy=evidence.trail_delivery_trust(
                args.account, args.region, args.prefix
            ),
            description="Writes the account's trail to its log group",
            tags=named,
            opts=child,
        )
        permissions = aws.iam.RolePolicy(
            name,
            role=role.name,
            policy=group.arn.apply(
                lambda arn: evidence.trail_delivery_permissions(arn, args.account, args.region)
            ),
            opts=child,
        )
        trail = aws.cloudtrail.Trail(
            name,
            s3_bucket_name=args.bucket_name,
            is_multi_region_trail=True,
            include_global_service_events=True,
            enable_logging=True,
            enable_log_file_validation=True,
            kms_key_id=args.key_arn,
            cloud_watch_logs_group_arn=pulumi.Output.format("{0}:*", group.arn),
            cloud_watch_logs_role_arn=role.arn,
            advanced_event_selectors=[
                {
                    "name": "Management events",
                    "field_selectors": [{"field": "eventCategory", "equals": ["Management"]}],
                },
                {
                    # Not its writing: each delivery of the trail would cause the next.
                    "name": "Evidence that is read or removed",
                    "field_selectors": [
                        {"field": "eventCategory", "equals": ["Data"]},
                        {"field": "resources.type", "equals": ["AWS::S3::Object"]},
                        {"field": "eventName", "equals": list(_READ_OR_REMOVED)},
                        {
                            "field": "resources.ARN",
                            "starts_withs": [
                                pulumi.Output.format("{0}/", arn) for arn in args.evidence_arns
                            ],
                        },
                    ],
                },
            ],
            tags=named,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[permissions], protect=True),
        )
        self.arn, self.group_name = trail.arn, group.name
        self.register_outputs({"arn": self.arn, "group_name": self.group_name})
