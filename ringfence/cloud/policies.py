"""Policy documents: who may do what, through which service.

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
"""Services that principals of the account may use a key through, never directly."""


def document(*statements: Statement) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def key_policy(account: str, region: str, log_groups: str) -> str:
    """Of a data key: administered and used by different permissions.

    Nobody decrypts by calling KMS: a key serves through the services that hold data, and
    CloudWatch Logs for the environment's own log groups. That the account's root
    administers it keeps the key manageable, and leaves it to IAM who may.
    https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-default.html
    """
    return document(
        administration(account),
        *through_services(account, region, THROUGH),
        *disks_of_auto_scaling(account, region),
        log_group_encryption(account, region, log_groups),
    )


def administration(account: str) -> Statement:
    """Of a key: everything but its use, by whom the account's IAM allows it."""
    return {
        "Sid": "Administration",
        "Effect": "Allow",
        "Principal": root(account),
        "Action": list(ADMINISTRATION),
        "Resource": "*",
    }


def through_services(
    account: str, region: str, names: Sequence[str], *, grants: bool = True
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


def disks_of_auto_scaling(account: str, region: str) -> tuple[Statement, ...]:
    """Use of a key by EC2 Auto Scaling, which starts hosts with its own role.

    No policy of that role names keys, so that the key's own has to. By a condition, and not as
    principal: the role is made with the account's first group, and a key's policy may only name
    who exists.
    https://docs.aws.amazon.com/autoscaling/ec2/userguide/key-policy-requirements-EBS-encryption.html
    """
    role = "role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
    held: dict[str, Any] = {
        "StringEquals": {
            "kms:CallerAccount": account,
            "kms:ViaService": f"ec2.{region}.amazonaws.com",
        },
        "ArnEquals": {"aws:PrincipalArn": f"arn:aws:iam::{account}:{role}"},
    }
    statement: dict[str, Any] = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Resource": "*"}
    return (
        {**statement, "Sid": "DisksOfAutoScaling", "Action": list(USE), "Condition": held},
        {
            **statement,
            "Sid": "GrantsOfAutoScaling",
            "Action": "kms:CreateGrant",
            "Condition": {**held, "Bool": {"kms:GrantIsForAWSResource": "true"}},
        },
    )


def log_group_encryption(account: str, region: str, log_groups: str) -> Statement:
    """Use of a key by CloudWatch Logs, for log groups whose names begin like this.

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
    """The account as a principal: whoever its IAM policies allow."""
    return {"AWS": f"arn:aws:iam::{account}:root"}


def endpoint_policy(account: str) -> str:
    """Of an endpoint: principals of this account, on resources of this account.

    A host that was broken into cannot carry data to an account of somebody else's.
    https://docs.aws.amazon.com/vpc/latest/privatelink/vpc-endpoints-access.html
    """
    return document(_own(account))


def s3_endpoint_policy(account: str, region: str) -> str:
    """The same, and reading the SSM agent, which hosts fetch without signing.

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


def flow_logs_trust(account: str, region: str) -> str:
    """The service that writes flow logs, for flow logs of this account only.

    https://docs.aws.amazon.com/vpc/latest/userguide/flow-logs-iam-role.html
    """
    return document(
        {
            "Effect": "Allow",
            "Principal": {"Service": "vpc-flow-logs.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {
                "StringEquals": {"aws:SourceAccount": account},
                "ArnLike": {
                    "aws:SourceArn": f"arn:aws:ec2:{region}:{account}:vpc-flow-log/*",
                },
            },
        }
    )


def flow_logs_permissions(log_group: str) -> str:
    return document(
        {
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            "Resource": f"{log_group}:*",
        }
    )
