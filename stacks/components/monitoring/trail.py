"""CloudTrail: every call to the account's APIs in every region, tamper-evident (MON-01)."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import evidence
from ringfence.cloud.tags import account_tags
from ringfence.manifest.model import Environment
from stacks.components.monitoring.log_group import evidence_log_group

CONTROLS = ("MON-01",)
(RECORD,) = CONTROLS

_READS_AND_DELETIONS = (
    *("DeleteObject", "DeleteObjects", "GetObject", "PutObjectLegalHold"),
    "PutObjectRetention",
)


@dataclass(frozen=True, kw_only=True)
class TrailArgs:
    environment: Environment
    account: str
    region: str
    prefix: str
    key_arn: pulumi.Input[str]
    bucket_name: pulumi.Input[str]
    evidence_arns: tuple[pulumi.Input[str], ...]
    """Buckets whose reads and deletions are recorded too."""


class Trail(pulumi.ComponentResource):
    arn: pulumi.Output[str]
    group_name: pulumi.Output[str]

    def __init__(
        self, name: str, args: TrailArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Trail", name, None, opts)
        named = account_tags(
            args.environment, "trail", control=RECORD, data_class=evidence.EVIDENCE_CLASS
        )
        child = pulumi.ResourceOptions(parent=self)
        group = evidence_log_group(
            self,
            name,
            environment=args.environment,
            data_class=evidence.EVIDENCE_CLASS,
            key_arn=args.key_arn,
            tags=named,
        )
        role = aws.iam.Role(
            name,
            assume_role_policy=evidence.trail_delivery_trust(
                account=args.account, region=args.region, prefix=args.prefix
            ),
            description="Writes the account's trail to its log group",
            tags=named,
            opts=child,
        )
        permissions = aws.iam.RolePolicy(
            name,
            role=role.name,
            policy=group.arn.apply(
                lambda arn: evidence.trail_delivery_permissions(
                    log_group=arn, account=args.account, region=args.region
                )
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
                    # No writes: each delivery of the trail would cause the next.
                    "name": "Evidence that is read or removed",
                    "field_selectors": [
                        {"field": "eventCategory", "equals": ["Data"]},
                        {"field": "resources.type", "equals": ["AWS::S3::Object"]},
                        {"field": "eventName", "equals": list(_READS_AND_DELETIONS)},
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
