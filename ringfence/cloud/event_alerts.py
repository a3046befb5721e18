"""Alerts of an environment: on events, and on what its own logs count (MON-03).

Alarms on the account's trail are in `alarms`, for all environments of the account.
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
"""GuardDuty's medium. Lower findings are in Security Hub only."""
REFUSED_FLOWS = 100
"""Nothing outside reaches the network, so a host with so many refused connections is scanning."""
FLOW_SECONDS = 300
"""A record arrives some minutes after the packet, and counts in the minute of the packet."""
TCP = 6
OPENING = (2, 3, 6, 7)
"""SYN, alone or with FIN or RST from the same side in the same minute, and without ACK.

Late packets of a closed connection have no SYN: they are refused too, and mean nothing.
https://docs.aws.amazon.com/vpc/latest/userguide/flow-log-records.html
"""
DAY = 86400


@dataclass(frozen=True)
class EventAlert:
    """An event that raises an alert."""

    key: str
    message: str
    pattern: Mapping[str, Any]
    read_only: bool = False
    """The event is a read-only call, which EventBridge ignores by default."""

    @property
    def text(self) -> str:
        return json.dumps(self.pattern)

    @property
    def state(self) -> str:
        """https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-service-event-cloudtrail-management.html"""
        return "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS" if self.read_only else "ENABLED"


def namespace(environment: Environment) -> str:
    """Namespace of the metrics that count events in its logs."""
    return f"Ringfence/{environment.name}"


def event_alerts(environment: Environment, *, account: str, region: str) -> tuple[EventAlert, ...]:
    name = secrets.name_prefix(environment)
    arn = secrets.arns(environment, account=account, region=region).removesuffix("*")
    own_secret = {"secretId": [{"prefix": arn}, {"prefix": name}]}
    workloads = roles.role_prefix(account=account, path=roles.workloads_path(environment))
    read = {"eventName": ["GetSecretValue"], "requestParameters": own_secret}
    issuer = {
        "sessionContext": {"sessionIssuer": {"arn": [{"anything-but": {"prefix": workloads}}]}}
    }
    other_principal = [
        {"userIdentity": {"type": [{"anything-but": "AssumedRole"}]}},
        {"userIdentity": issuer},
    ]
    other_document = [{"exists": False}, {"anything-but": SSH}]
    alerts = (
        EventAlert(
            "finding",
            "GuardDuty reported a finding in the account",
            {
                "source": ["aws.guardduty"],
                "detail-type": ["GuardDuty Finding"],
                "detail": {"severity": [{"numeric": [">=", SEVERITY]}]},
            },
        ),
        EventAlert(
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
        return alerts
    return (
        *alerts,
        EventAlert(
            "secret-read",
            "A principal other than a workload of the environment requested a secret",
            _call(
                "secretsmanager",
                {**read, "$or": other_principal},
            ),
            read_only=True,
        ),
        EventAlert(
            "secret-refused",
            "A workload was refused a secret",
            _call("secretsmanager", {**read, "errorCode": [{"exists": True}]}),
            read_only=True,
        ),
        EventAlert(
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
        EventAlert(
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
    """Alarms on refused flows: groups and ACLs admit declared flows only.

    Both ends are inside the network, because the internet probes every egress address. TCP has a
    pattern of its own: other protocols have no flag that marks the start of a connection.
    """
    first = addressing.vpc_network(environment).network_address
    inside = [f"={str(first).removesuffix('0.0')}*"]
    refused = {"action": ["=REJECT"], "pkt-srcaddr": inside, "pkt-dstaddr": inside}
    opening = {"protocol": [f"={TCP}"], "tcp-flags": [f"={flags}" for flags in OPENING]}
    return tuple(
        Alarm(
            key,
            "NET-05",
            f"{what} that the manifest does not declare was attempted inside the network and "
            "refused: `ringfence flows` names both ends, from the flow log",
            _flows(refused | wanted),
            seconds=FLOW_SECONDS,
        )
        for key, what, wanted in (
            ("undeclared-connections", "A connection", opening),
            ("undeclared-packets", "A packet other than of TCP", {"protocol": [f"!={TCP}"]}),
        )
    )


def _flows(wanted: Mapping[str, Sequence[str]]) -> str:
    """Filter pattern for records in which each of these fields meets one of its conditions.

    A pattern lists fields in the order of the format; it may omit those after the last condition.

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
            "A secret is older than the manifest says or has no value, or the search did not run: "
            "the log of the function secret-age names it",
            "{ $.overdue = * }",
            value="$.overdue",
            seconds=DAY,
            when_missing="breaching",
        ),
    )


def key_policy(environment: Environment, *, account: str, region: str) -> str:
    """Policy of the topic's key. SNS tells KMS the topic, but not the account of the event.

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
    return alerts_key_policy(events, account=account, region=region)


def topic_policy(environment: Environment, *, topic: str, account: str, region: str) -> str:
    rules = f"arn:aws:events:{region}:{account}:rule/{environment.name}-*"
    events: Statement = {
        "Sid": "Events",
        "Effect": "Allow",
        "Principal": {"Service": EVENTS},
        "Action": "sns:Publish",
        "Resource": topic,
        "Condition": {"ArnLike": {"aws:SourceArn": rules}},
    }
    return alerts_topic_policy(events, topic=topic, account=account, region=region)
