"""Containment of an instance: the events that start it, and the permissions it needs (IRP-01).

The function runs outside the VPC. Inside, it would depend on endpoints and security groups of the
network that is under attack, and IAM has no endpoint in most regions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.cloud.policies import (
    Statement,
    administration,
    document,
    encrypted_transport,
    publishing,
    through_services,
    tracing,
    writing_logs,
)
from ringfence.cloud.roles import workloads_path
from ringfence.cloud.tags import CONTROL, ENVIRONMENT
from ringfence.manifest.model import DataClass, Environment

HANDLER = "containment.handler.handle"
TIMEOUT_SECONDS, MEMORY_MIB = 120, 256
CONCURRENCY = 5
"""Reserved executions: other functions cannot use them, nor this one theirs.

AWS keeps 100 unreserved: an account with the quota of a new account needs a higher one.
https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
"""
RETRIES, EVENT_SECONDS = 2, 6 * 3600
"""Retries after the first attempt, and the longest wait of an event. Both are AWS's maximum."""
DELIVERY_RETRIES, DELIVERY_SECONDS = 185, 24 * 3600
"""EventBridge's defaults, which are also its maximum."""
FAILED_EVENTS_SECONDS = 14 * 24 * 3600

CLASS: DataClass = "internal"
QUARANTINE = "quarantine"
"""The security group without rules. Session Manager cannot reach a contained instance either:
examine its disks in snapshots, and to examine its memory, open what you need by hand."""

SOURCE = "ringfence"
CONTAIN, RELEASE = "Ringfence Containment Request", "Ringfence Release Request"
STATE_TAGS = ("ringfence:containment", "ringfence:containment-reason")
"""The only tags of an instance that the function may set or delete."""


@dataclass(frozen=True)
class Trigger:
    key: str
    message: str
    pattern: Mapping[str, Any]

    @property
    def text(self) -> str:
        return json.dumps(self.pattern)


def triggers(*, account: str, severity: float, detector: str | None = None) -> tuple[Trigger, ...]:
    """Return the events that start the function, of this account only: a bus may carry others.

    GuardDuty calls a severity of 7 high. A lower one, such as a port scan, must contain nothing.
    https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_findings-severity.html
    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-patterns.html
    """
    of_detector = {"service": {"detectorId": [detector]}} if detector else {}
    finding = {
        "severity": [{"numeric": [">=", severity]}],
        "resource": {"instanceDetails": {"instanceId": [{"exists": True}]}},
        **of_detector,
    }
    # GuardDuty's findings arrive directly. Other products report attacks, and weaknesses, which
    # are no reason to contain an instance.
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
            "GuardDuty reported an attack on an instance",
            _pattern(account, "aws.guardduty", ["GuardDuty Finding"], finding),
        ),
        Trigger(
            "hub",
            "Another detector reported an attack on an instance to Security Hub",
            _pattern(account, "aws.securityhub", ["Security Hub Findings - Imported"], imported),
        ),
        Trigger(
            "requests",
            "Somebody requests containment or release of an instance",
            _pattern(account, SOURCE, [CONTAIN, RELEASE], request),
        ),
    )


def _pattern(
    account: str, source: str, kinds: list[str], detail: Mapping[str, Any]
) -> Mapping[str, Any]:
    return {"account": [account], "source": [source], "detail-type": kinds, "detail": detail}


def records(environment: Environment) -> str:
    """Start of the names of the parameters that hold the original state of an instance."""
    return f"/ringfence/{environment.name}/containment/"


@dataclass(frozen=True, kw_only=True)
class ContainmentResources:
    """The function's account and region, and the ids and ARNs of the resources it uses."""

    account: str
    region: str
    vpc: str
    key: str
    topic: str
    topic_key: str
    queue: str
    log_group: str
    boundary: str | None = None
    """Permissions boundary of hosts: no policy that the function adds can exceed it."""

    def ec2(self, resource: str) -> str:
        return f"arn:aws:ec2:{self.region}:{self.account}:{resource}"

    def iam(self, resource: str) -> str:
        return f"arn:aws:iam::{self.account}:{resource}"


def permissions(environment: Environment, place: ContainmentResources, *, control: str) -> str:
    """Permissions of the function: its steps and their reversal, on the environment's resources.

    Snapshots need no permission on KMS: a snapshot uses the data key of its encrypted disk.
    https://docs.aws.amazon.com/ebs/latest/userguide/how-ebs-encryption-works.html
    """
    return document(
        *_reading(environment, place),
        *_network(environment, place),
        *_evidence(environment, place, control),
        *_credentials(environment, place),
        *_records(environment, place),
        *_reporting(place),
    )


def _owned(environment: Environment) -> dict[str, str]:
    return {f"aws:ResourceTag/{ENVIRONMENT}": environment.name}


def _reading(environment: Environment, place: ContainmentResources) -> tuple[Statement, ...]:
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


def _network(environment: Environment, place: ContainmentResources) -> tuple[Statement, ...]:
    """The whole VPC belongs to the environment. The most important step must not depend on the tag
    of an interface."""
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


def _evidence(
    environment: Environment, place: ContainmentResources, control: str
) -> tuple[Statement, ...]:
    return (
        {
            "Sid": "Protect",
            "Effect": "Allow",
            "Action": "ec2:ModifyInstanceAttribute",
            "Resource": place.ec2("instance/*"),
            "Condition": {
                "StringEquals": _owned(environment),
                # AWS documents the key, but not the spelling of the value.
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
            # The call includes only disks of that instance. A disk that somebody attached without a
            # tag is evidence too.
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
                    f"aws:RequestTag/{CONTROL}": control,
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
            # `Null`: DeleteTags without keys deletes all tags, and an empty set is in every set.
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


def _credentials(environment: Environment, place: ContainmentResources) -> tuple[Statement, ...]:
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


def _records(environment: Environment, place: ContainmentResources) -> tuple[Statement, ...]:
    names = f"parameter{records(environment)}*"
    return (
        {
            "Sid": "Records",
            "Effect": "Allow",
            "Action": ["ssm:DeleteParameter", "ssm:GetParameter", "ssm:PutParameter"],
            "Resource": f"arn:aws:ssm:{place.region}:{place.account}:{names}",
        },
    )


def _reporting(place: ContainmentResources) -> tuple[Statement, ...]:
    through = [f"{service}.{place.region}.amazonaws.com" for service in ("lambda", "sns", "sqs")]
    return (
        publishing(place.topic),
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
        writing_logs(place.log_group),
        tracing(),
    )


def key_policy(*, account: str, region: str, rules: str) -> str:
    """Policy of the key that encrypts the function's variables and the queue.

    EventBridge encrypts undelivered events of rules whose names start with `rules`.
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html
    """
    return document(
        administration(account),
        *through_services(("lambda", "sqs"), account=account, region=region),
        {
            "Sid": "UndeliveredEvents",
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
            "Resource": "*",
            "Condition": _from_rules(account=account, region=region, rules=rules),
        },
    )


def queue_policy(*, queue: str, account: str, region: str, rules: str) -> str:
    """Policy of the queue: EventBridge sends undelivered events; the function's role allows it too.

    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html
    """
    return document(
        {
            "Sid": "UndeliveredEvents",
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": queue,
            "Condition": _from_rules(account=account, region=region, rules=rules),
        },
        encrypted_transport(queue, action="sqs:*"),
    )


def _from_rules(*, account: str, region: str, rules: str) -> Mapping[str, Any]:
    return {
        "StringEquals": {"aws:SourceAccount": account},
        "ArnLike": {"aws:SourceArn": f"arn:aws:events:{region}:{account}:rule/{rules}*"},
    }
