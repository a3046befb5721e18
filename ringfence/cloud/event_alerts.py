"""What in an environment calls a person: events, and what its own logs count (MON-03).

Alarms of the account's trail are in `alarms`, for all environments of the account.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringfence.cloud import addressing, roles, secrets
from ringfence.cloud.alarms import Alarm
from ringfence.cloud.evidence import DATA_KEYS, alerts_key_policy, alerts_topic_policy
from ringfence.cloud.policies import Statement
from ringfence.cloud.sessions import SSH
from ringfence.events.flow_log import FLOW_LOG_FIELDS
from ringfence.manifest.model import Environment

EVENTS = "events.amazonaws.com"
SEVERITY = 4
"""Medium of GuardDuty's: what is below is seen in Security Hub."""
REFUSED_FLOWS = 100
"""Nothing outside reaches the network: whoever is refused so often is inside, and looks around."""
FLOW_SECONDS = 300
"""A record comes some minutes after the packet, and counts in the minute of the packet."""
TCP = 6
OPENING = (2, 3, 6, 7)
"""SYN, alone or with what the same side sent in the same minute (FIN, RST), and without ACK.

Late packets of a connection that is over have none: they are refused, too, and mean nothing.
https://docs.aws.amazon.com/vpc/latest/userguide/flow-log-records.html
"""
DAY = 86400


@dataclass(frozen=True)
class Notice:
    """An event that a person is told."""

    key: str
    says: str
    pattern: Mapping[str, Any]
    reading: bool = False
    """Of calls that only read, which EventBridge passes over unless it is asked."""

    @property
    def text(self) -> str:
        return json.dumps(self.pattern)

    @property
    def state(self) -> str:
        """https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-service-event-cloudtrail-management.html"""
        return "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS" if self.reading else "ENABLED"


def namespace(environment: Environment) -> str:
    """Of the metrics that count what was found in its logs."""
    return f"Ringfence/{environment.name}"


def notices(environment: Environment, account: str, region: str) -> tuple[Notice, ...]:
    name = secrets.name_prefix(environment)
    arn = secrets.arns(environment, account, region).removesuffix("*")
    own_secret = {"secretId": [{"prefix": arn}, {"prefix": name}]}
    workloads = roles.role_prefix(account, roles.workloads_path(environment))
    read = {"eventName": ["GetSecretValue"], "requestParameters": own_secret}
    issuer = {
        "sessionContext": {"sessionIssuer": {"arn": [{"anything-but": {"prefix": workloads}}]}}
    }
    stranger = [
        {"userIdentity": {"type": [{"anything-but": "AssumedRole"}]}},
        {"userIdentity": issuer},
    ]
    other_document = [{"exists": False}, {"anything-but": SSH}]
    found = (
        Notice(
            "finding",
            "GuardDuty found something in the account",
            {
                "source": ["aws.guardduty"],
                "detail-type": ["GuardDuty Finding"],
                "detail": {"severity": [{"numeric": [">=", SEVERITY]}]},
            },
        ),
        Notice(
            "session",
            "Somebody opened a session on a host, other than by SSH",
            _call(
                "ssm",
                {
                    "eventName": ["StartSession"],
                    "requestParameters": {"documentName": other_document},
                },
            ),
        ),
    )
    if not secrets.own_secrets(environment):
        return found
    return (
        *found,
        Notice(
            "secret-read",
            "Somebody other than a workload of the environment asked for a secret",
            _call(
                "secretsmanager",
                {**read, "$or": stranger},
            ),
            reading=True,
        ),
        Notice(
            "secret-refused",
            "A workload was refused a secret",
            _call("secretsmanager", {**read, "errorCode": [{"exists": True}]}),
            reading=True,
        ),
        Notice(
            "secret-guard",
            "The policy, the rotation or the existence of a secret was changed",
            _call(
                "secretsmanager",
                {
                    "eventName": [
                        *("CancelRotateSecret", "DeleteResourcePolicy", "DeleteSecret"),
                        "PutResourcePolicy",
                    ],
                    "requestParameters": own_secret,
                },
            ),
        ),
        Notice(
            "rotation",
            "The rotation of a secret failed",
            {
                "source": ["aws.secretsmanager"],
                "detail-type": ["AWS Service Event via CloudTrail"],
                "detail": {
                    "eventName": ["RotationAbandoned", "RotationFailed"],
                    "additionalEventData": {"SecretId": [{"prefix": arn}]},
                },
            },
        ),
    )


def _call(service: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "source": [f"aws.{service}"],
        "detail-type": ["AWS API Call via CloudTrail"],
        "detail": {"eventSource": [f"{service}.amazonaws.com"], **detail},
    }


def flow_alarms(environment: Environment) -> tuple[Alarm, ...]:
    return (
        Alarm(
            "refused-flows",
            "NET-05",
            "Many connections were refused inside the network",
            _flows({"action": ["=REJECT"]}),
            threshold=REFUSED_FLOWS,
            seconds=FLOW_SECONDS,
        ),
        *undeclared_flows(environment),
    )


def undeclared_flows(environment: Environment) -> tuple[Alarm, ...]:
    """Groups and ACLs let declared flows through and nothing else: what they refuse is undeclared.

    From inside to inside: where the network has a way out, the internet knocks there all the time.
    TCP apart from the rest, of which no flag tells what opens: one pattern cannot say both.
    """
    first = addressing.vpc_network(environment).network_address
    inside = [f"={str(first).removesuffix('0.0')}*"]
    refused = {"action": ["=REJECT"], "pkt-srcaddr": inside, "pkt-dstaddr": inside}
    opening = {"protocol": [f"={TCP}"], "tcp-flags": [f"={flags}" for flags in OPENING]}
    return tuple(
        Alarm(
            key,
            "NET-05",
            f"{what} that the manifest does not declare was tried inside the network, and refused: "
            "`ringfence flows` names both ends, from the flow log",
            _flows(refused | wanted),
            seconds=FLOW_SECONDS,
        )
        for key, what, wanted in (
            ("undeclared-connections", "A connection", opening),
            ("undeclared-packets", "A packet other than of TCP", {"protocol": [f"!={TCP}"]}),
        )
    )


def _flows(wanted: Mapping[str, Sequence[str]]) -> str:
    """Records with these fields as they are wanted: each meets one of its conditions.

    All stand in the order of the format; those after the last that matters are left out.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
    """
    last = max(map(FLOW_LOG_FIELDS.index, wanted))
    fields: list[str] = []
    for field in FLOW_LOG_FIELDS[: last + 1]:
        name = field.replace("-", "_")
        fields.append(" || ".join(f"{name}{each}" for each in wanted.get(field, ("",))))
    return f"[{', '.join(fields)}, ...]"


def age_alarms() -> tuple[Alarm, ...]:
    return (
        Alarm(
            "secrets-overdue",
            "IAM-08",
            "A secret is older than the manifest says or has no value, or nobody looked: the log "
            "of the function secret-age tells which",
            "{ $.overdue = * }",
            value="$.overdue",
            seconds=DAY,
            when_missing="breaching",
        ),
    )


def notices_key_policy(environment: Environment, account: str, region: str) -> str:
    """SNS passes on whose event it was to no condition of the key's, only for which topic.

    https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html
    """
    topics = f"arn:aws:sns:{region}:{account}:{environment.name}-*"
    events: Statement = {
        "Sid": "Events",
        "Effect": "Allow",
        "Principal": {"Service": EVENTS},
        "Action": ["kms:Decrypt", *DATA_KEYS],
        "Resource": "*",
        "Condition": {"StringLike": {"kms:EncryptionContext:aws:sns:topicArn": topics}},
    }
    return alerts_key_policy(account, region, events)


def notices_topic_policy(topic: str, environment: Environment, account: str, region: str) -> str:
    rules = f"arn:aws:events:{region}:{account}:rule/{environment.name}-*"
    events: Statement = {
        "Sid": "Events",
        "Effect": "Allow",
        "Principal": {"Service": EVENTS},
        "Action": "sns:Publish",
        "Resource": topic,
        "Condition": {"ArnLike": {"aws:SourceArn": rules}},
    }
    return alerts_topic_policy(topic, account, region, events)
