"""Who may write, read and encrypt what proves things: trails, configurations, alerts (MON-01)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringfence.cloud.policies import (
    Statement,
    administration,
    document,
    log_group_encryption,
    through_services,
)
from ringfence.manifest.model import DataClass, Environment

EVIDENCE_CLASS: DataClass = "confidential"
"""It names every person, system and change of the account."""
ALERTS_CLASS: DataClass = "internal"
DISKS_CLASS: DataClass = "restricted"
"""A disk nobody chose a key for may hold anything."""

CLOUDTRAIL, CONFIG = "cloudtrail.amazonaws.com", "config.amazonaws.com"
ACCESS_LOGS = "logging.s3.amazonaws.com"
DATA_KEYS = ("kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext")


def lock_mode(environment: Environment) -> str:
    """COMPLIANCE: not even the account's root deletes before the time. Else a trial would stay."""
    return "COMPLIANCE" if environment.stage == "production" else "GOVERNANCE"


def evidence_key_policy(account: str, region: str, prefix: str) -> str:
    """Of the key of the buckets and the log group.

    https://docs.aws.amazon.com/awscloudtrail/latest/userguide/create-kms-key-policy-for-cloudtrail.html
    https://docs.aws.amazon.com/config/latest/developerguide/s3-kms-key-policy.html
    """
    trails = {"aws:SourceArn": trails_of(account, region, prefix)}
    context = {"kms:EncryptionContext:aws:cloudtrail:arn": trails_of(account, region, prefix)}
    of_account = {"StringEquals": {"aws:SourceAccount": account}}
    services: tuple[Statement, ...] = (
        _service(
            "TrailEncrypts", CLOUDTRAIL, DATA_KEYS, {"ArnLike": trails, "StringLike": context}
        ),
        # With bucket keys, CloudTrail opens the bucket's own key when the trail is created.
        _service(
            "TrailOpensKey", CLOUDTRAIL, ("kms:DescribeKey", "kms:Decrypt"), {"ArnLike": trails}
        ),
        _service("Configuration", CONFIG, ("kms:Decrypt", *DATA_KEYS), of_account),
    )
    return document(
        administration(account),
        *through_services(account, region, ("s3",), grants=False),
        log_group_encryption(account, region, prefix),
        *services,
    )


def alerts_key_policy(account: str, region: str, *more: Statement) -> str:
    """Of the key of the topic: alarms publish, and SNS opens what it delivers.

    https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html
    """
    alarms = {
        "StringEquals": {"aws:SourceAccount": account},
        "ArnLike": {"aws:SourceArn": alarms_of(account, region)},
    }
    return document(
        administration(account),
        *through_services(account, region, ("sns",), grants=False),
        _service("Alarms", "cloudwatch.amazonaws.com", ("kms:Decrypt", *DATA_KEYS), alarms),
        *more,
    )


def disks_key_policy(account: str, region: str) -> str:
    """Of the key that disks get where none is named."""
    return document(administration(account), *through_services(account, region, ("ec2",)))


def trail_bucket_policy(bucket: str, account: str, region: str, prefix: str) -> str:
    """CloudTrail writes, for this account's trail only; nobody else writes, nobody deletes.

    https://docs.aws.amazon.com/awscloudtrail/latest/userguide/create-s3-bucket-policy-for-cloudtrail.html
    """
    trails = {"aws:SourceArn": trails_of(account, region, prefix)}
    full_control = {"s3:x-amz-acl": "bucket-owner-full-control"}
    return document(
        *_encrypted_transport(bucket),
        *_written_once(bucket, CLOUDTRAIL),
        _service("Look", CLOUDTRAIL, ("s3:GetBucketAcl",), {"ArnLike": trails}, bucket),
        _service(
            "Write",
            CLOUDTRAIL,
            ("s3:PutObject",),
            {"StringEquals": full_control, "ArnLike": trails},
            f"{bucket}/AWSLogs/{account}/*",
        ),
    )


def access_log_bucket_policy(bucket: str, account: str, prefix: str) -> str:
    """S3 writes here who asked for what in this account's buckets of this name.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/enable-server-access-logging.html
    """
    sources = {
        "StringEquals": {"aws:SourceAccount": account},
        "ArnLike": {"aws:SourceArn": f"arn:aws:s3:::{prefix}*"},
    }
    return document(
        _service("Write", ACCESS_LOGS, ("s3:PutObject",), sources, f"{bucket}/*"),
        *_encrypted_transport(bucket),
        *_written_once(bucket, ACCESS_LOGS),
    )


def config_bucket_policy(bucket: str, account: str) -> str:
    """The same for AWS Config.

    https://docs.aws.amazon.com/config/latest/developerguide/s3-bucket-policy.html
    """
    of_account = {"aws:SourceAccount": account}
    full_control = {"s3:x-amz-acl": "bucket-owner-full-control"}
    return document(
        *_encrypted_transport(bucket),
        *_written_once(bucket, CONFIG),
        _service(
            "Look",
            CONFIG,
            ("s3:GetBucketAcl", "s3:ListBucket"),
            {"StringEquals": of_account},
            bucket,
        ),
        _service(
            "Write",
            CONFIG,
            ("s3:PutObject",),
            {"StringEquals": {**of_account, **full_control}},
            f"{bucket}/AWSLogs/{account}/Config/*",
        ),
    )


def alerts_topic_policy(topic: str, account: str, region: str, *more: Statement) -> str:
    """Alarms of this account publish; whoever else may is left to IAM."""
    alarms = {
        "StringEquals": {"aws:SourceAccount": account},
        "ArnLike": {"aws:SourceArn": alarms_of(account, region)},
    }
    return document(
        _service("Alarms", "cloudwatch.amazonaws.com", ("sns:Publish",), alarms, topic),
        {
            "Sid": "EncryptedTransport",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "sns:Publish",
            "Resource": topic,
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        },
        *more,
    )


def trail_delivery_trust(account: str, region: str, prefix: str) -> str:
    return document(
        {
            "Effect": "Allow",
            "Principal": {"Service": CLOUDTRAIL},
            "Action": "sts:AssumeRole",
            "Condition": {
                "StringEquals": {"aws:SourceAccount": account},
                "ArnLike": {"aws:SourceArn": trails_of(account, region, prefix)},
            },
        }
    )


def trail_delivery_permissions(log_group: str, account: str, region: str) -> str:
    """https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-required-policy-for-cloudwatch-logs.html"""
    return document(
        {
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": f"{log_group}:log-stream:{account}_CloudTrail_{region}*",
        }
    )


def trails_of(account: str, region: str, prefix: str) -> str:
    """Pulumi adds digits to a name, so the trail's is known by its beginning."""
    return f"arn:aws:cloudtrail:{region}:{account}:trail/{prefix}*"


def alarms_of(account: str, region: str) -> str:
    return f"arn:aws:cloudwatch:{region}:{account}:alarm:*"


def _service(
    sid: str,
    service: str,
    actions: tuple[str, ...],
    condition: Mapping[str, Any],
    resource: str = "*",
) -> Statement:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": list(actions),
        "Resource": resource,
        "Condition": condition,
    }


def _encrypted_transport(bucket: str) -> tuple[Statement, Statement]:
    everything = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [bucket, f"{bucket}/*"],
    }
    return (
        {
            "Sid": "EncryptedTransport",
            **everything,
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        },
        {
            "Sid": "ModernTransport",
            **everything,
            "Condition": {"NumericLessThan": {"s3:TlsVersion": "1.2"}},
        },
    )


def _written_once(bucket: str, service: str) -> tuple[Statement, Statement]:
    """Objects come from one service, and go when their time is over (the lifecycle does that)."""
    objects = {"Effect": "Deny", "Principal": "*", "Resource": f"{bucket}/*"}
    return (
        {
            "Sid": "WrittenByTheService",
            **objects,
            "Action": "s3:PutObject",
            # Absent for everybody but a service, and a negated test holds for what is absent.
            "Condition": {"StringNotEquals": {"aws:PrincipalServiceName": service}},
        },
        {
            "Sid": "NotDeleted",
            **objects,
            "Action": [
                *("s3:BypassGovernanceRetention", "s3:DeleteObject", "s3:DeleteObjectVersion"),
                *("s3:PutObjectLegalHold", "s3:PutObjectRetention"),
            ],
        },
    )
