"""Session Manager: how people and Ansible reach hosts that no network leads to (IAM-03, NET-03).

A shell goes through a document that encrypts it end to end and writes it down. SSH through
Session Manager (AWS-StartSSHSession, what Ansible takes) is a tunnel of which AWS records that
it was opened, by whom and to where; what is done in it the host records (roles baseline, ssh).
https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-logging.html
"""

from __future__ import annotations

import json

from ringfence.cloud.policies import administration, document, root
from ringfence.cloud.sign_in import MFA_HOURS
from ringfence.cloud.tags import ENVIRONMENT
from ringfence.manifest.model import DataClass, Environment

SESSION_CLASS: DataClass = "restricted"
"""A terminal shows whatever is on a host."""
PREFERENCES = "SSM-SessionManagerRunShell"
"""What a session of an account and region is opened with where no document is named."""
SSH = "AWS-StartSSHSession"
IDLE_MINUTES, LONGEST_MINUTES = 15, 60
RUN_AS = "SSMSessionRunAs"
"""Tag of whoever opens a session: the account on the host that it runs as."""

_SESSION, _TARGET = (f"kms:EncryptionContext:aws:ssm:{name}" for name in ("SessionId", "TargetId"))


def session_document(log_group: str, key: str, of: str) -> str:
    """Encrypted, streamed to the log group, ended when idle, and in the person's own account.

    Without runAs, everybody would be ssm-user, who is root by sudo without a password. It names
    no account: whoever brings no tag gets no session.
    https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-schema.html
    https://docs.aws.amazon.com/systems-manager/latest/userguide/session-preferences-run-as.html
    """
    return json.dumps(
        {
            "schemaVersion": "1.0",
            "description": f"Shell on a host of {of}",
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
    """Of the key that both ends of a session derive theirs from.

    They call KMS themselves, through no service; what holds the key to sessions is what they
    name as context. Which people and hosts may is left to IAM.
    https://docs.aws.amazon.com/systems-manager/latest/userguide/session-preferences-enable-encryption.html
    """
    return document(
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
    """The manifest's administrators, with a fresh second factor, each as his own account on hosts.

        aws sts assume-role --role-arn ARN --role-session-name alice \\
            --tags Key=SSMSessionRunAs,Value=alice --serial-number MFA --token-code CODE

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html
    """
    return document(
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
    environment: Environment, account: str, region: str, session: str, key: str
) -> str:
    """Sessions on hosts of this environment, by its document or SSH; and the end of one's own.

    Of a role's sessions the name of the user is not known (aws:username), the id is.
    https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-restrict-access-examples.html
    """
    mfa = {"aws:MultiFactorAuthPresent": "true"}
    here = f"arn:aws:ssm:{region}:{account}"
    return document(
        {
            "Sid": "OnHostsOfTheEnvironment",
            "Effect": "Allow",
            "Action": "ssm:StartSession",
            "Resource": f"arn:aws:ec2:{region}:{account}:instance/*",
            "Condition": {
                "StringEquals": {f"ssm:resourceTag/{ENVIRONMENT}": environment.name},
                # Without it, the default document needs no permission.
                "BoolIfExists": {"ssm:SessionDocumentAccessCheck": "true"},
                "Bool": mfa,
            },
        },
        {
            "Sid": "ByTheseDocuments",
            "Effect": "Allow",
            "Action": "ssm:StartSession",
            "Resource": [session, f"arn:aws:ssm:{region}::document/{SSH}"],
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
            "Resource": "*",  # AWS offers them for the whole account only
        },
    )


def host_permissions(log_group: str, key: str, account: str, region: str) -> str:
    """Of the instance role of a host: what the agent needs for sessions of the environment.

    It has no permission on the account's key: a session by the account's preferences fails there,
    instead of being recorded elsewhere.
    https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-create-iam-instance-profile.html
    """
    return document(
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
        {"Sid": "Encryption", "Effect": "Allow", "Action": "kms:Decrypt", "Resource": key},
    )
