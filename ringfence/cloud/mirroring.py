"""Traffic mirroring: what is mirrored, when, and what the function that starts it may do (NET-04).

The function is outside the VPC, as containment is, and calls EC2 and nothing else there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from ringfence.cloud.policies import document
from ringfence.cloud.tags import CONTROL, ENVIRONMENT
from ringfence.manifest.model import DataClass

HANDLER = "mirroring.handler.handle"
TIMEOUT_SECONDS = 120
CONCURRENCY = 1
"""Two runs at once would each start a session for the same interface."""
RETRIES, EVENT_SECONDS = 2, 3600
SWEEP = "rate(15 minutes)"
"""What was missed, or taken off by hand, is mirrored again by then."""
MIRROR_CLASS: DataClass = "internal"

Direction = Literal["ingress", "egress"]
DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")


@dataclass(frozen=True)
class Place:
    """Where the function is, and what it uses: ids and ARNs."""

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
    """Instances of this account that run. The event does not say whose they are."""
    return json.dumps(
        {
            "account": [account],
            "source": ["aws.ec2"],
            "detail-type": ["EC2 Instance State-change Notification"],
            "detail": {"state": ["running"]},
        }
    )


def permissions(environment: str, place: Place) -> str:
    """To start sessions from interfaces of the VPC to this target, and to end none.

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
                    f"aws:RequestTag/{CONTROL}": "NET-04",
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
        {"Sid": "Tell", "Effect": "Allow", "Action": "sns:Publish", "Resource": place.topic},
        {
            "Sid": "UseKey",
            "Effect": "Allow",
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
            "Resource": place.topic_key,
            "Condition": {"StringEquals": {"kms:ViaService": f"sns.{place.region}.amazonaws.com"}},
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
