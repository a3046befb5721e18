"""Policies of evidence: who may write, read and encrypt trails, configurations, alerts (MON-01)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringfence.cloud.policies import (
    Statement,
    administration,
    document,
    encrypted_transport,
    log_group_encryption,
    service_trust,
    through_services,
)
from ringfence.manifest.model import DataClass, Environment

EVIDENCE_CLASS: DataClass = "confidential"
"""It names every person, system and change of the account."""
ALERTS_CLASS: DataClass = "internal"
DISKS_CLASS: DataClass = "restricted"
"""A disk that names no key may hold anything."""

CLOUDTRAIL, CONFIG = "cloudtrail.amazonaws.com", "config.amazonaws.com"
ACCESS_LOGS = "logging.s3.amazonaws.com"
DATA_KEYS = ("kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext")


def lock_mode(environment: Environment) -> str:
    """COMPLIANCE in production: not even the account's root can delete objects early."""
    return "COMPLIANCE" if environment.stage == "production" else "GOVERNANCE"


def evidence_key_policy(*, account: str, region: str, prefix: str) -> str:
    """Policy of the key that encrypts the buckets and the log group.

    https://docs.aws.amazon.com/awscloudtrail/latest/userguide/create-kms-key-policy-for-cloudtrail.html
    https://docs.aws.amazon.com/config/latest/developerguide/s3-kms-key-policy.html
    """
    pattern = trail_arns(account=account, region=region, prefix=prefix)
    trails = {"aws:SourceArn": pattern}
    context = {"kms:EncryptionContext:aws:cloudtrail:arn": pattern}
    of_account = {"StringEquals": {"aws:SourceAccount": account}}
    services: tuple[Statement, ...] = (
        _service(
            "TrailEncrypts", CLOUDTRAIL, DATA_KEYS, {"ArnLike": trails, "StringLike": context}
        ),
        # With bucket keys, CloudTrail decrypts the bucket's key when it creates the trail.
        _service(
            "TrailOpensKey", CLOUDTRAIL, ("kms:DescribeKey", "kms:Decrypt"), {"ArnLike": trails}
        ),
        _service("Configuration", CONFIG, ("kms:Decrypt", *DATA_KEYS), of_account),
    )
    return document(
        administration(account),
        *through_services(("s3",), account=account, region=region, grants=False),
        log_group_encryption(account=account, region=region, log_groups=prefix),
        *services,
    )


def alerts_key_policy(*more: Statement, account: str, region: str) -> str:
    """Policy of the topic's key: alarms publish, and SNS decrypts what it delivers.

    https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html
    """
    alarms = {
        "StringEquals": {"aws:SourceAccount": account},
        "ArnLike": {"aws:SourceArn": alarm_arns(account=account, region=region)},
    }
    return document(
        administration(account),
        *through_services(("sns",), account=account, region=region, grants=False),
        _service("Alarms", "cloudwatch.amazonaws.com", ("kms:Decrypt", *DATA_KEYS), alarms),
        *more,
    )


def disks_key_policy(*, account: str, region: str) -> str:
    """Policy of the default key of disks."""
    return document(
        administration(account), *through_services(("ec2",), account=account, region=region)
    )


def trail_bucket_policy(*, bucket: str, account: str, region: str, prefix: str) -> str:
    """Policy of the trail's bucket: only CloudTrail writes, for this account; nobody deletes.

    https://docs.aws.amazon.com/awscloudtrail/latest/userguide/create-s3-bucket-policy-for-cloudtrail.html
    """
    trails = {"aws:SourceArn": trail_arns(account=account, region=region, prefix=prefix)}
    full_control = {"s3:x-amz-acl": "bucket-owner-full-control"}
    return document(
        *_encrypted_transport(bucket),
        *_write_once(bucket, service=CLOUDTRAIL),
        _service("Look", CLOUDTRAIL, ("s3:GetBucketAcl",), {"ArnLike": trails}, bucket),
        _service(
            "Write",
            CLOUDTRAIL,
            ("s3:PutObject",),
            {"StringEquals": full_control, "ArnLike": trails},
            f"{bucket}/AWSLogs/{account}/*",
        ),
    )


def access_log_bucket_policy(*, bucket: str, account: str, prefix: str) -> str:
    """Policy of the access log bucket: S3 writes, for buckets whose names start with `prefix`.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/enable-server-access-logging.html
    """
    sources = {
        "StringEquals": {"aws:SourceAccount": account},
        "ArnLike": {"aws:SourceArn": f"arn:aws:s3:::{prefix}*"},
    }
    return document(
        _service("Write", ACCESS_LOGS, ("s3:PutObject",), sources, f"{bucket}/*"),
        *_encrypted_transport(bucket),
        *_write_once(bucket, service=ACCESS_LOGS),
    )


def config_bucket_policy(*, bucket: str, account: str) -> str:
    """Policy of the bucket of AWS Config: only Config writes, nobody deletes.

    https://docs.aws.amazon.com/config/latest/developerguide/s3-bucket-policy.html
    """
    of_account = {"aws:SourceAccount": account}
    full_control = {"s3:x-amz-acl": "bucket-owner-full-control"}
    return document(
        *_encrypted_transport(bucket),
        *_write_once(bucket, service=CONFIG),
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


def alerts_topic_policy(*more: Statement, topic: str, account: str, region: str) -> str:
    """Policy of the topic: alarms of this account publish; IAM decides about others."""
    alarms = {
        "StringEquals": {"aws:SourceAccount": account},
        "ArnLike": {"aws:SourceArn": alarm_arns(account=account, region=region)},
    }
    return document(
        _service("Alarms", "cloudwatch.amazonaws.com", ("sns:Publish",), alarms, topic),
        encrypted_transport(topic, action="sns:Publish"),
        *more,
    )


def trail_delivery_trust(*, account: str, region: str, prefix: str) -> str:
    trails = trail_arns(account=account, region=region, prefix=prefix)
    return service_trust(
        CLOUDTRAIL,
        {
            "StringEquals": {"aws:SourceAccount": account},
            "ArnLike": {"aws:SourceArn": trails},
        },
    )


def trail_delivery_permissions(*, log_group: str, account: str, region: str) -> str:
    """https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-required-policy-for-cloudwatch-logs.html"""
    return document(
        {
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": f"{log_group}:log-stream:{account}_CloudTrail_{region}*",
        }
    )


def trail_arns(*, account: str, region: str, prefix: str) -> str:
    """Pattern of trails whose names start with `prefix`: Pulumi adds digits to a name."""
    return f"arn:aws:cloudtrail:{region}:{account}:trail/{prefix}*"


def alarm_arns(*, account: str, region: str) -> str:
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


def _write_once(bucket: str, *, service: str) -> tuple[Statement, Statement]:
    """Only one service writes objects, and only the lifecycle deletes them."""
    objects = {"Effect": "Deny", "Principal": "*", "Resource": f"{bucket}/*"}
    return (
        {
            "Sid": "WrittenByTheService",
            **objects,
            "Action": "s3:PutObject",
            # Only services have this key, and a negated operator matches an absent key.
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
