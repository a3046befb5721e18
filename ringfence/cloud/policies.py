"""Policy documents: principals, actions and the services they act through.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Statement = Mapping[str, Any]

ADMINISTRATION = (
    *("kms:CancelKeyDeletion", "kms:CreateAlias", "kms:DeleteAlias", "kms:DescribeKey"),
    *("kms:DisableKey", "kms:DisableKeyRotation", "kms:EnableKey", "kms:EnableKeyRotation"),
    *("kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListAliases", "kms:ListGrants"),
    *("kms:ListKeyPolicies", "kms:ListResourceTags", "kms:PutKeyPolicy", "kms:RevokeGrant"),
    *("kms:ScheduleKeyDeletion", "kms:TagResource", "kms:UntagResource", "kms:UpdateAlias"),
    "kms:UpdateKeyDescription",
)
USE = (
    *("kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"),
    *("kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo"),
)
THROUGH = ("ec2", "network-firewall", "s3", "secretsmanager")
"""Services through which principals of the account may use a key. They never use it directly."""


def document(*statements: Statement) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def service_trust(service: str, condition: Mapping[str, Any] | None = None) -> str:
    """Trust policy of a role that one service assumes."""
    statement: Statement = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
    }
    return document({**statement, "Condition": condition} if condition else statement)


def writing_logs(log_group: str) -> Statement:
    return {
        "Sid": "Log",
        "Effect": "Allow",
        "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
        "Resource": f"{log_group}:*",
    }


def tracing() -> Statement:
    return {
        "Sid": "Trace",
        "Effect": "Allow",
        "Action": ["xray:PutTelemetryRecords", "xray:PutTraceSegments"],
        "Resource": "*",
    }


def publishing(topic: str) -> Statement:
    return {"Sid": "Tell", "Effect": "Allow", "Action": "sns:Publish", "Resource": topic}


def encrypted_transport(resource: str, *, action: str) -> Statement:
    """Deny every request without TLS."""
    return {
        "Sid": "EncryptedTransport",
        "Effect": "Deny",
        "Principal": "*",
        "Action": action,
        "Resource": resource,
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def key_policy(*, account: str, region: str, log_groups: str) -> str:
    """Policy of a data key: administration and use are separate permissions.

    Nobody decrypts by calling KMS. The key serves through the services that hold data, and
    through CloudWatch Logs for log groups whose names start with `log_groups`. The account's
    root administers it: the key stays manageable, and IAM decides who may.
    https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-default.html
    """
    return document(
        administration(account),
        *through_services(THROUGH, account=account, region=region),
        *disks_of_auto_scaling(account=account, region=region),
        log_group_encryption(account=account, region=region, log_groups=log_groups),
    )


def administration(account: str) -> Statement:
    """Administration of a key, without its use, by principals that IAM allows."""
    return {
        "Sid": "Administration",
        "Effect": "Allow",
        "Principal": root(account),
        "Action": list(ADMINISTRATION),
        "Resource": "*",
    }


def through_services(
    names: Sequence[str], *, account: str, region: str, grants: bool = True
) -> tuple[Statement, ...]:
    """Use of a key by principals of the account, through services and never directly."""
    conditions = {
        "kms:CallerAccount": account,
        "kms:ViaService": [f"{service}.{region}.amazonaws.com" for service in names],
    }
    use = {
        "Sid": "UseThroughServices",
        "Effect": "Allow",
        "Principal": root(account),
        "Action": list(USE),
        "Resource": "*",
        "Condition": {"StringEquals": conditions},
    }
    grant = {
        "Sid": "GrantsForServices",
        "Effect": "Allow",
        "Principal": root(account),
        "Action": "kms:CreateGrant",
        "Resource": "*",
        "Condition": {
            "StringEquals": conditions,
            "Bool": {"kms:GrantIsForAWSResource": "true"},
        },
    }
    return (use, grant) if grants else (use,)


def disks_of_auto_scaling(*, account: str, region: str) -> tuple[Statement, ...]:
    """Use of a key by EC2 Auto Scaling, which starts hosts with its own role.

    No policy of that role names keys, so the key's policy has to name the role. It does so in a
    condition: AWS creates the role with the account's first group, and refuses a key policy whose
    principal does not exist.
    https://docs.aws.amazon.com/autoscaling/ec2/userguide/key-policy-requirements-EBS-encryption.html
    """
    role = "role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
    by_auto_scaling: dict[str, Any] = {
        "StringEquals": {
            "kms:CallerAccount": account,
            "kms:ViaService": f"ec2.{region}.amazonaws.com",
        },
        "ArnEquals": {"aws:PrincipalArn": f"arn:aws:iam::{account}:{role}"},
    }
    statement: dict[str, Any] = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Resource": "*"}
    return (
        {
            **statement,
            "Sid": "DisksOfAutoScaling",
            "Action": list(USE),
            "Condition": by_auto_scaling,
        },
        {
            **statement,
            "Sid": "GrantsOfAutoScaling",
            "Action": "kms:CreateGrant",
            "Condition": {**by_auto_scaling, "Bool": {"kms:GrantIsForAWSResource": "true"}},
        },
    )


def log_group_encryption(*, account: str, region: str, log_groups: str) -> Statement:
    """Use of a key by CloudWatch Logs, for log groups whose names start with `log_groups`.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
    """
    return {
        "Sid": "LogGroups",
        "Effect": "Allow",
        "Principal": {"Service": f"logs.{region}.amazonaws.com"},
        "Action": [action for action in USE if action != "kms:DescribeKey"],  # has no context
        "Resource": "*",
        "Condition": {
            "ArnLike": {
                "kms:EncryptionContext:aws:logs:arn": (
                    f"arn:aws:logs:{region}:{account}:log-group:{log_groups}*"
                )
            }
        },
    }


def root(account: str) -> Mapping[str, str]:
    """The account as a principal: IAM policies decide who of it may."""
    return {"AWS": f"arn:aws:iam::{account}:root"}


def endpoint_policy(account: str) -> str:
    """Policy of an endpoint: principals of this account, on resources of this account.

    An attacker on a host cannot copy data to another account.
    https://docs.aws.amazon.com/vpc/latest/privatelink/vpc-endpoints-access.html
    """
    return document(_own(account))


def s3_endpoint_policy(*, account: str, region: str) -> str:
    """`endpoint_policy`, and reads of the SSM agent, which hosts fetch without signing.

    https://docs.aws.amazon.com/systems-manager/latest/userguide/ssm-agent-minimum-s3-permissions.html
    """
    agent = {
        "Sid": "SsmAgent",
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::amazon-ssm-{region}/*",
    }
    return document(_own(account), agent)


def _own(account: str) -> Statement:
    return {
        "Sid": "OwnAccount",
        "Effect": "Allow",
        "Principal": "*",
        "Action": "*",
        "Resource": "*",
        "Condition": {
            "StringEquals": {"aws:PrincipalAccount": account, "aws:ResourceAccount": account}
        },
    }


def flow_logs_trust(*, account: str, region: str) -> str:
    """Trust policy for the service that writes flow logs, for those of this account only.

    https://docs.aws.amazon.com/vpc/latest/userguide/flow-logs-iam-role.html
    """
    return service_trust(
        "vpc-flow-logs.amazonaws.com",
        {
            "StringEquals": {"aws:SourceAccount": account},
            "ArnLike": {"aws:SourceArn": f"arn:aws:ec2:{region}:{account}:vpc-flow-log/*"},
        },
    )


def flow_logs_permissions(log_group: str) -> str:
    return document(
        {
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            "Resource": f"{log_group}:*",
        }
    )
