"""A bucket for evidence: versioned, encrypted, written by one service only (MON-01)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud.evidence import EVIDENCE_CLASS, lock_mode
from ringfence.cloud.tags import account_tags
from ringfence.manifest.model import Environment

CONTROLS = ("MON-01", "DAT-02")
RECORD, _ = CONTROLS


@dataclass(frozen=True, kw_only=True)
class EvidenceBucketArgs:
    environment: Environment
    key_arn: pulumi.Input[str] | None
    """None: S3's own key. S3 delivers access logs to no bucket with another key."""
    policy: Callable[[str], str]
    """Computes the bucket's policy from its ARN."""
    retention_days: int
    locked: bool
    """Use Object Lock. Neither AWS Config nor S3's access logs can write to such a bucket."""
    access_logs: pulumi.Input[str] | None = None
    """Name of the bucket that records requests to this one."""


class EvidenceBucket(pulumi.ComponentResource):
    bucket_name: pulumi.Output[str]
    """Known once the bucket has its policy."""
    bucket_arn: pulumi.Output[str]

    def __init__(
        self, name: str, args: EvidenceBucketArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:EvidenceBucket", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        bucket = aws.s3.Bucket(
            name,
            object_lock_enabled=args.locked,
            force_destroy=False,
            tags=account_tags(args.environment, name, control=RECORD, data_class=EVIDENCE_CLASS),
            opts=pulumi.ResourceOptions(parent=self, protect=True),
        )
        private = aws.s3.BucketPublicAccessBlock(
            name,
            bucket=bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=child,
        )
        aws.s3.BucketOwnershipControls(
            name, bucket=bucket.id, rule={"object_ownership": "BucketOwnerEnforced"}, opts=child
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            name,
            bucket=bucket.id,
            rules=[
                {
                    "apply_server_side_encryption_by_default": {
                        "sse_algorithm": "aws:kms" if args.key_arn else "AES256",
                        "kms_master_key_id": args.key_arn,
                    },
                    "bucket_key_enabled": args.key_arn is not None,
                }
            ],
            opts=child,
        )
        versions = aws.s3.BucketVersioning(
            name, bucket=bucket.id, versioning_configuration={"status": "Enabled"}, opts=child
        )
        if args.locked:
            aws.s3.BucketObjectLockConfiguration(
                name,
                bucket=bucket.id,
                rule={
                    "default_retention": {
                        "mode": lock_mode(args.environment),
                        "days": args.retention_days,
                    }
                },
                opts=pulumi.ResourceOptions(parent=self, depends_on=[versions]),
            )
        aws.s3.BucketLifecycleConfiguration(
            name,
            bucket=bucket.id,
            rules=[
                {
                    "id": "retention",
                    "status": "Enabled",
                    "filter": {"prefix": ""},
                    "expiration": {"days": args.retention_days},
                    "noncurrent_version_expiration": {"noncurrent_days": 1},
                    "abort_incomplete_multipart_upload": {"days_after_initiation": 7},
                }
            ],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[versions]),
        )
        policy = aws.s3.BucketPolicy(
            name,
            bucket=bucket.id,
            policy=bucket.arn.apply(args.policy),
            # S3 refuses two changes of a bucket's access at the same time.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[private]),
        )
        if args.access_logs is not None:
            aws.s3.BucketLogging(
                name,
                bucket=bucket.id,
                target_bucket=args.access_logs,
                target_prefix=f"{name}/",
                opts=child,
            )
        self.bucket_name, self.bucket_arn = policy.bucket, bucket.arn
        self.register_outputs({"bucket_name": self.bucket_name, "bucket_arn": self.bucket_arn})
