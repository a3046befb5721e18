"""Traffic mirroring: the events and permissions of the function that starts sessions (NET-04).

The function runs outside the VPC, like that of containment, and calls EC2 only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from ringfence.cloud.policies import document, publishing, tracing, writing_logs
from ringfence.cloud.tags import CONTROL, ENVIRONMENT
from ringfence.manifest.model import DataClass

HANDLER = "mirroring.handler.handle"
TIMEOUT_SECONDS = 120
CONCURRENCY = 1
"""Two concurrent runs would each start a session for the same interface."""
RETRIES, EVENT_SECONDS = 2, 3600
SWEEP = "rate(15 minutes)"
"""Restores sessions that an event missed or a person deleted."""
MIRROR_CLASS: DataClass = "internal"

Direction = Literal["ingress", "egress"]
DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")


@dataclass(frozen=True, kw_only=True)
class MirroringResources:
    """The function's account and region, and the ids and ARNs of the resources it uses."""

    account: str
    region: str
    vpc: str
    filter: str
    target: str
    log_group: str
    topic: str
    topic_key: str

    def ec2(self, resource: str) -> str:
        return f"arn:aws:ec2:{self.region}:{self.account}:{resource}"


def started(account: str) -> str:
    """Event of a started instance of this account. It does not name the environment."""
    return json.dumps(
        {
            "account": [account],
            "source": ["aws.ec2"],
            "detail-type": ["EC2 Instance State-change Notification"],
            "detail": {"state": ["running"]},
        }
    )


def permissions(environment: str, place: MirroringResources, *, control: str) -> str:
    """Permissions to start sessions from interfaces of the VPC to this target, and to end none.

    https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
    """
    return document(
        {
            "Sid": "Look",
            "Effect": "Allow",
            "Action": ["ec2:DescribeInstances", "ec2:DescribeTrafficMirrorSessions"],
            "Resource": "*",
            "Condition": {"StringEquals": {"aws:RequestedRegion": place.region}},
        },
        {
            "Sid": "MirrorInterfaces",
            "Effect": "Allow",
            "Action": "ec2:CreateTrafficMirrorSession",
            "Resource": place.ec2("network-interface/*"),
            "Condition": {"ArnEquals": {"ec2:Vpc": place.ec2(f"vpc/{place.vpc}")}},
        },
        {
            "Sid": "MirrorToSensors",
            "Effect": "Allow",
            "Action": "ec2:CreateTrafficMirrorSession",
            "Resource": [
                place.ec2(f"traffic-mirror-filter/{place.filter}"),
                place.ec2(f"traffic-mirror-target/{place.target}"),
            ],
        },
        {
            "Sid": "StartSessions",
            "Effect": "Allow",
            "Action": "ec2:CreateTrafficMirrorSession",
            "Resource": place.ec2("traffic-mirror-session/*"),
            "Condition": {
                "StringEquals": {
                    f"aws:RequestTag/{ENVIRONMENT}": environment,
                    f"aws:RequestTag/{CONTROL}": control,
                }
            },
        },
        {
            "Sid": "TagSessions",
            "Effect": "Allow",
            "Action": "ec2:CreateTags",
            "Resource": place.ec2("traffic-mirror-session/*"),
            "Condition": {"StringEquals": {"ec2:CreateAction": "CreateTrafficMirrorSession"}},
        },
        publishing(place.topic),
        {
            "Sid": "UseKey",
            "Effect": "Allow",
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
            "Resource": place.topic_key,
            "Condition": {"StringEquals": {"kms:ViaService": f"sns.{place.region}.amazonaws.com"}},
        },
        writing_logs(place.log_group),
        tracing(),
    )
