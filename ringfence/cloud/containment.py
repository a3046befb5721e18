"""What takes an instance out of service: on which events, and what it may do for that (IRP-01).

The function is outside the VPC. It calls EC2, IAM, Auto Scaling, Systems Manager, SNS and SQS over
AWS's own network; inside, it would hang on the endpoints and groups of the very network that it
has to work on while somebody attacks it, and IAM has no endpoint in most regions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.cloud.policies import Statement, administration, document, through_services
from ringfence.cloud.roles import workloads_path
from ringfence.cloud.tags import CONTROL, ENVIRONMENT
from ringfence.manifest.model import DataClass, Environment

HANDLER = "containment.handler.handle"
TIMEOUT_SECONDS, MEMORY_MIB = 120, 256
CONCURRENCY = 5
"""Reserved: the account's other functions cannot use it up, nor this one what is theirs.

AWS reserves only what leaves 100 to the others: an account with the quota of a new one needs more.
https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
"""
RETRIES, EVENT_SECONDS = 2, 6 * 3600
"""After the first attempt; and how long an event may wait for its turn. Both are AWS's largest."""
DELIVERY_RETRIES, DELIVERY_SECONDS = 185, 24 * 3600
"""EventBridge's own defaults, which is also as much as it takes."""
FAILED_EVENTS_SECONDS = 14 * 24 * 3600

CLASS: DataClass = "internal"
QUARANTINE = "quarantine"
"""The security group without rules. Session Manager does not reach into it either: disks are
examined in snapshots, and who must look at the memory opens what is needed for that by hand."""

SOURCE = "ringfence"
CONTAIN, RELEASE = "Ringfence Containment Request", "Ringfence Release Request"
STATE_TAGS = ("ringfence:containment", "ringfence:containment-reason")
"""All that the function may write on, or take off, an instance."""


@dataclass(frozen=True)
class Trigger:
    key: str
    says: str
    pattern: Mapping[str, Any]

    @property
    def text(self) -> str:
        return json.dumps(self.pattern)


def triggers(account: str, severity: float, detector: str | None = None) -> tuple[Trigger, ...]:
    """Events of this account only: a bus may take those of others.

    A severity of 7 is what GuardDuty calls high: a scan of somebody else's must stop nothing.
    https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_findings-severity.html
    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-patterns.html
    """
    of_detector = {"service": {"detectorId": [detector]}} if detector else {}
    finding = {
        "severity": [{"numeric": [">=", severity]}],
        "resource": {"instanceDetails": {"instanceId": [{"exists": True}]}},
        **of_detector,
    }
    # GuardDuty's own come directly. Others tell of attacks, or of weaknesses, which stop nothing.
    imported = {
        "findings": {
            "ProductName": [{"anything-but": ["GuardDuty"]}],
            "RecordState": ["ACTIVE"],
            "Resources": {"Type": ["AwsEc2Instance"]},
            "Severity": {"Label": ["HIGH", "CRITICAL"]},
            "Types": [{"prefix": f"{kind}/"} for kind in ("TTPs", "Effects", "Unusual Behaviors")],
            "Workflow": {"Status": ["NEW"]},
        }
    }
    request = {key: [{"exists": True}] for key in ("instance", "reason", "requested_by")}
    return (
        Trigger(
            "guardduty",
            "GuardDuty found an attack on an instance",
            _pattern(account, "aws.guardduty", ["GuardDuty Finding"], finding),
        ),
        Trigger(
            "hub",
            "Another detector reported an attack on an instance to Security Hub",
            _pattern(account, "aws.securityhub", ["Security Hub Findings - Imported"], imported),
        ),
        Trigger(
            "requests",
            "Somebody asks for an instance to be contained or released",
            _pattern(account, SOURCE, [CONTAIN, RELEASE], request),
        ),
    )


def _pattern(
    account: str, source: str, kinds: list[str], detail: Mapping[str, Any]
) -> Mapping[str, Any]:
    return {"account": [account], "source": [source], "detail-type": kinds, "detail": detail}


def records(environment: Environment) -> str:
    """How the names of the parameters begin that say how an instance was."""
    return f"/ringfence/{environment.name}/containment/"


@dataclass(frozen=True)
class Place:
    """Where the function is, and what it uses: ids and ARNs."""

    account: str
    region: str
    vpc: str
    key: str
    topic: str
    topic_key: str
    queue: str
    log_group: str
    boundary: str | None = None
    """Of the roles of hosts. With it, not even what the function writes there can widen them."""

    def ec2(self, resource: str) -> str:
        return f"arn:aws:ec2:{self.region}:{self.account}:{resource}"

    def iam(self, resource: str) -> str:
        return f"arn:aws:iam::{self.account}:{resource}"


def permissions(environment: Environment, place: Place) -> str:
    """Of the function: on what the environment owns, the steps it takes and their way back.

    No use of KMS for snapshots: one of an encrypted disk is encrypted with the disk's own data key.
    https://docs.aws.amazon.com/ebs/latest/userguide/how-ebs-encryption-works.html
    """
    return document(
        *_looks(environment, place),
        *_network(environment, place),
        *_evidence(environment, place),
        *_credentials(environment, place),
        *_records(environment, place),
        *_reports(place),
    )


def _owned(environment: Environment) -> dict[str, str]:
    return {f"aws:ResourceTag/{ENVIRONMENT}": environment.name}


def _looks(environment: Environment, place: Place) -> tuple[Statement, ...]:
    return (
        {
            "Sid": "Look",
            "Effect": "Allow",
            "Action": [
                "autoscaling:DescribeAutoScalingInstances",
                "ec2:DescribeIamInstanceProfileAssociations",
                "ec2:DescribeInstances",
                "ec2:DescribeSnapshots",
            ],
            "Resource": "*",
            "Condition": {"StringEquals": {"aws:RequestedRegion": place.region}},
        },
        {
            "Sid": "LookAtProtection",
            "Effect": "Allow",
            "Action": "ec2:DescribeInstanceAttribute",
            "Resource": place.ec2("instance/*"),
            "Condition": {"StringEquals": _owned(environment)},
        },
    )


def _network(environment: Environment, place: Place) -> tuple[Statement, ...]:
    """All of the VPC is the environment's, tagged or not; a step that matters most does not hang
    on the tag of an interface."""
    return (
        {
            "Sid": "ChangeGroups",
            "Effect": "Allow",
            "Action": "ec2:ModifyNetworkInterfaceAttribute",
            "Resource": [place.ec2("network-interface/*"), place.ec2("security-group/*")],
            "Condition": {"ArnEquals": {"ec2:Vpc": place.ec2(f"vpc/{place.vpc}")}},
        },
        {
            "Sid": "ChangeGroupsOfInstance",
            "Effect": "Allow",
            "Action": "ec2:ModifyNetworkInterfaceAttribute",
            "Resource": place.ec2("instance/*"),
            "Condition": {"StringEquals": _owned(environment)},
        },
        {
            "Sid": "ChangeScalingGroup",
            "Effect": "Allow",
            "Action": ["autoscaling:AttachInstances", "autoscaling:DetachInstances"],
            "Resource": (
                f"arn:aws:autoscaling:{place.region}:{place.account}"
                ":autoScalingGroup:*:autoScalingGroupName/*"
            ),
            "Condition": {"StringEquals": _owned(environment)},
        },
    )


def _evidence(environment: Environment, place: Place) -> tuple[Statement, ...]:
    return (
        {
            "Sid": "Protect",
            "Effect": "Allow",
            "Action": "ec2:ModifyInstanceAttribute",
            "Resource": place.ec2("instance/*"),
            "Condition": {
                "StringEquals": _owned(environment),
                # AWS documents the key, and not how it spells the value.
                "StringEqualsIgnoreCase": {"ec2:Attribute": "DisableApiTermination"},
            },
        },
        {
            "Sid": "SnapshotInstance",
            "Effect": "Allow",
            "Action": "ec2:CreateSnapshots",
            "Resource": place.ec2("instance/*"),
            "Condition": {"StringEquals": _owned(environment)},
        },
        {
            # The call takes the disks of that instance, and no others; one that somebody attached
            # without a tag is evidence as well.
            "Sid": "SnapshotDisks",
            "Effect": "Allow",
            "Action": "ec2:CreateSnapshots",
            "Resource": place.ec2("volume/*"),
        },
        {
            "Sid": "SnapshotMade",
            "Effect": "Allow",
            "Action": "ec2:CreateSnapshots",
            "Resource": f"arn:aws:ec2:{place.region}::snapshot/*",
            "Condition": {
                "StringEquals": {
                    f"aws:RequestTag/{ENVIRONMENT}": environment.name,
                    f"aws:RequestTag/{CONTROL}": "IRP-01",
                }
            },
        },
        {
            "Sid": "TagSnapshotMade",
            "Effect": "Allow",
            "Action": "ec2:CreateTags",
            "Resource": f"arn:aws:ec2:{place.region}::snapshot/*",
            "Condition": {"StringEquals": {"ec2:CreateAction": "CreateSnapshots"}},
        },
        {
            # Without names of tags, DeleteTags would take all of them, and none is in any set.
            "Sid": "Mark",
            "Effect": "Allow",
            "Action": ["ec2:CreateTags", "ec2:DeleteTags"],
            "Resource": place.ec2("instance/*"),
            "Condition": {
                "StringEquals": _owned(environment),
                "ForAllValues:StringEquals": {"aws:TagKeys": list(STATE_TAGS)},
                "Null": {"aws:TagKeys": "false"},
            },
        },
    )


def _credentials(environment: Environment, place: Place) -> tuple[Statement, ...]:
    path = workloads_path(environment)
    roles, profiles = place.iam(f"role{path}*"), place.iam(f"instance-profile{path}*")
    bounded = (
        {"Condition": {"ArnEquals": {"iam:PermissionsBoundary": place.boundary}}}
        if place.boundary
        else {}
    )
    return (
        {
            "Sid": "LookAtRoles",
            "Effect": "Allow",
            "Action": ["iam:GetInstanceProfile", "iam:GetRolePolicy"],
            "Resource": [profiles, roles],
        },
        {
            "Sid": "DenyCredentials",
            "Effect": "Allow",
            "Action": "iam:PutRolePolicy",
            "Resource": roles,
            **bounded,
        },
        {
            "Sid": "ChangeProfile",
            "Effect": "Allow",
            "Action": [
                "ec2:AssociateIamInstanceProfile",
                "ec2:DisassociateIamInstanceProfile",
            ],
            "Resource": place.ec2("instance/*"),
            "Condition": {"StringEquals": _owned(environment)},
        },
        {
            "Sid": "PassRole",
            "Effect": "Allow",
            "Action": "iam:PassRole",
            "Resource": roles,
            "Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
        },
    )


def _records(environment: Environment, place: Place) -> tuple[Statement, ...]:
    names = f"parameter{records(environment)}*"
    return (
        {
            "Sid": "Records",
            "Effect": "Allow",
            "Action": ["ssm:DeleteParameter", "ssm:GetParameter", "ssm:PutParameter"],
            "Resource": f"arn:aws:ssm:{place.region}:{place.account}:{names}",
        },
    )


def _reports(place: Place) -> tuple[Statement, ...]:
    through = [f"{service}.{place.region}.amazonaws.com" for service in ("lambda", "sns", "sqs")]
    return (
        {"Sid": "Tell", "Effect": "Allow", "Action": "sns:Publish", "Resource": place.topic},
        {
            "Sid": "KeepFailed",
            "Effect": "Allow",
            "Action": "sqs:SendMessage",
            "Resource": place.queue,
        },
        {
            "Sid": "UseKeys",
            "Effect": "Allow",
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
            "Resource": sorted({place.key, place.topic_key}),
            "Condition": {"StringEquals": {"kms:ViaService": through}},
        },
        {
            "Sid": "Log",
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": f"{place.log_group}:*",
        },
        {
            "Sid": "Trace",
            "Effect": "Allow",
            "Action": ["xray:PutTelemetryRecords", "xray:PutTraceSegments"],
            "Resource": "*",
        },
    )


def key_policy(account: str, region: str, rules: str) -> str:
    """Of the key of the function's settings and of the queue.

    EventBridge encrypts what it could not deliver, for rules whose names begin like this.
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html
    """
    return document(
        administration(account),
        *through_services(account, region, ("lambda", "sqs")),
        {
            "Sid": "UndeliveredEvents",
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
            "Resource": "*",
            "Condition": _of_rules(account, region, rules),
        },
    )


def queue_policy(queue: str, account: str, region: str, rules: str) -> str:
    """EventBridge leaves there what it could not deliver; the function may by its own role.

    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html
    """
    return document(
        {
            "Sid": "UndeliveredEvents",
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": queue,
            "Condition": _of_rules(account, region, rules),
        },
        {
            "Sid": "EncryptedTransport",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "sqs:*",
            "Resource": queue,
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        },
    )


def _of_rules(account: str, region: str, rules: str) -> Mapping[str, Any]:
    return {
        "StringEquals": {"aws:SourceAccount": account},
        "ArnLike": {"aws:SourceArn": f"arn:aws:events:{region}:{account}:rule/{rules}*"},
    }
