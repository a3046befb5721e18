"""What in an environment calls a person: events, and what its own logs count (MON-03).

Alarms of the account's trail are in `alarms`, for all environments of the account.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.cloud import roles, secrets
from ringfence.cloud.alarms import Alarm
from ringfence.cloud.evidence import DATA_KEYS, alerts_key_policy, alerts_topic_policy
from ringfence.cloud.policies import Statement
from ringfence.cloud.services import FLOW_LOG_FIELDS
from ringfence.cloud.sessions import SSH
from ringfence.environment import Environment

EVENTS = "events.amazonaws.com"
SEVERITY = 4
"""Medium of GuardDuty's: what is below is seen in Security Hub."""
REFUSED_FLOWS, REFUSED_SECONDS = 100, 300
"""Nothing outside reaches the network: whoever is refused so often is inside, and looks around."""
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


def flow_alarms() -> tuple[Alarm, ...]:
    return (
        Alarm(
            "refused-flows",
            "NET-05",
            "Many connections were refused inside the network",
            refused_flows(),
            threshold=REFUSED_FLOWS,
            seconds=REFUSED_SECONDS,
        ),
    )


def refused_flows() -> str:
    """Fields stand in the order of the format; those after the last that matters are left out.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
    """
    names = FLOW_LOG_FIELDS[: FLOW_LOG_FIELDS.index("action")]
    before = [name.replace("-", "_") for name in names]
    return f"[{', '.join(before)}, action=REJECT, ...]"


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
