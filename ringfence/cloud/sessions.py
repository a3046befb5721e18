"""Session Manager: access to hosts that no network leads to (IAM-03, NET-03).

The document of a shell session encrypts it end to end and records it. Ansible uses SSH through
Session Manager (AWS-StartSSHSession): AWS records who opened the tunnel to which host, and the
host records what happens in it (roles `baseline` and `ssh`).
https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-logging.html
"""

from __future__ import annotations

import json

from ringfence.cloud import policies
from ringfence.cloud.policies import Statement, administration, root
from ringfence.cloud.sign_in import MFA_HOURS
from ringfence.cloud.tags import ENVIRONMENT
from ringfence.manifest.model import DataClass, Environment

SESSION_CLASS: DataClass = "restricted"
"""A terminal can show everything on a host."""
PREFERENCES = "SSM-SessionManagerRunShell"
"""Document of a session that names none, per account and region."""
SSH = "AWS-StartSSHSession"
IDLE_MINUTES, LONGEST_MINUTES = 15, 60
RUN_AS = "SSMSessionRunAs"
"""Tag of the principal that opens a session: names its account on the host."""

_SESSION, _TARGET = (f"kms:EncryptionContext:aws:ssm:{name}" for name in ("SessionId", "TargetId"))


def session_document(*, log_group: str, key: str, owner: str) -> str:
    """Document of sessions: encrypted, recorded, limited when idle, in the person's own account.

    Without runAs, everybody would be ssm-user, who is root by sudo without a password. The document
    names no default account, so that a principal without the tag gets no session.
    https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-schema.html
    https://docs.aws.amazon.com/systems-manager/latest/userguide/session-preferences-run-as.html
    """
    return json.dumps(
        {
            "schemaVersion": "1.0",
            "description": f"Shell on a host of {owner}",
            "sessionType": "Standard_Stream",
            "inputs": {
                "s3BucketName": "",
                "s3KeyPrefix": "",
                "s3EncryptionEnabled": True,
                "cloudWatchLogGroupName": log_group,
                "cloudWatchEncryptionEnabled": True,
                "cloudWatchStreamingEnabled": True,
                "kmsKeyId": key,
                "runAsEnabled": True,
                "runAsDefaultUser": "",
                "idleSessionTimeout": str(IDLE_MINUTES),
                "maxSessionDuration": str(LONGEST_MINUTES),
                "shellProfile": {"linux": "", "windows": ""},
            },
        }
    )


def session_key_policy(account: str) -> str:
    """Policy of the key from which both ends of a session derive their keys.

    Both call KMS directly. The encryption context restricts the key to sessions; IAM decides which
    people and hosts may use it.
    https://docs.aws.amazon.com/systems-manager/latest/userguide/session-preferences-enable-encryption.html
    """
    return policies.document(
        administration(account),
        {
            "Sid": "Sessions",
            "Effect": "Allow",
            "Principal": root(account),
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
            "Resource": "*",
            "Condition": {
                "StringEquals": {"kms:CallerAccount": account},
                "StringLike": {_TARGET: "i-*"},
                "Null": {_SESSION: "false"},
            },
        },
    )


def operators_trust(environment: Environment, account: str) -> str:
    """Trust policy for the manifest's administrators, with a fresh second factor, each under their
    own account on hosts.

        aws sts assume-role --role-arn ARN --role-session-name alice \\
            --tags Key=SSMSessionRunAs,Value=alice --serial-number MFA --token-code CODE

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html
    """
    return policies.document(
        {
            "Sid": "AdministratorsWithMfa",
            "Effect": "Allow",
            "Principal": root(account),
            "Action": ["sts:AssumeRole", "sts:TagSession"],
            "Condition": {
                "StringEquals": {
                    "aws:username": sorted(environment.administrators),
                    f"aws:RequestTag/{RUN_AS}": "${aws:username}",
                },
                "Bool": {"aws:MultiFactorAuthPresent": "true"},
                "NumericLessThan": {"aws:MultiFactorAuthAge": str(MFA_HOURS * 3600)},
            },
        }
    )


def operators_permissions(
    environment: Environment, *, account: str, region: str, document: str, key: str
) -> str:
    """Permissions to open sessions on the environment's hosts, and to end one's own.

    A session belongs to a role: `aws:userid` identifies it, and `aws:username` is absent.
    https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-restrict-access-examples.html
    """
    mfa = {"aws:MultiFactorAuthPresent": "true"}
    here = f"arn:aws:ssm:{region}:{account}"
    return policies.document(
        {
            "Sid": "OnHostsOfTheEnvironment",
            "Effect": "Allow",
            "Action": "ssm:StartSession",
            "Resource": f"arn:aws:ec2:{region}:{account}:instance/*",
            "Condition": {
                "StringEquals": {f"ssm:resourceTag/{ENVIRONMENT}": environment.name},
                # Without this check, AWS demands no permission for the default document.
                "BoolIfExists": {"ssm:SessionDocumentAccessCheck": "true"},
                "Bool": mfa,
            },
        },
        {
            "Sid": "ByTheseDocuments",
            "Effect": "Allow",
            "Action": "ssm:StartSession",
            "Resource": [document, f"arn:aws:ssm:{region}::document/{SSH}"],
            "Condition": {
                "BoolIfExists": {"ssm:SessionDocumentAccessCheck": "true"},
                "Bool": mfa,
            },
        },
        {
            "Sid": "OwnSessions",
            "Effect": "Allow",
            "Action": ["ssm:ResumeSession", "ssm:TerminateSession"],
            "Resource": f"{here}:session/*",
            "Condition": {
                "StringLike": {"ssm:resourceTag/aws:ssmmessages:session-id": "${aws:userid}"}
            },
        },
        {
            "Sid": "Encryption",
            "Effect": "Allow",
            "Action": "kms:GenerateDataKey",
            "Resource": key,
        },
        {
            "Sid": "Look",
            "Effect": "Allow",
            "Action": [
                *("ec2:DescribeInstances", "ssm:DescribeInstanceInformation"),
                "ssm:DescribeSessions",
            ],
            "Resource": "*",  # AWS supports no narrower resource
        },
    )


def host_permissions(*, log_group: str, key: str, account: str, region: str) -> str:
    """Permissions of a host's instance role for sessions of the environment.

    They exclude the account's key: a session with the account's preferences fails on the host,
    because its record would go elsewhere.
    https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-create-iam-instance-profile.html
    """
    return policies.document(
        *recording(log_group=log_group, account=account, region=region),
        {"Sid": "Encryption", "Effect": "Allow", "Action": "kms:Decrypt", "Resource": key},
    )


def recording(*, log_group: str, account: str, region: str) -> tuple[Statement, ...]:
    """Permissions of the agent to record a session, and to verify that the log is encrypted."""
    return (
        {
            "Sid": "RecordSessions",
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            "Resource": f"{log_group}:*",
        },
        {
            "Sid": "SeeThatTheRecordIsEncrypted",
            "Effect": "Allow",
            "Action": "logs:DescribeLogGroups",
            "Resource": f"arn:aws:logs:{region}:{account}:log-group:*",
        },
    )
