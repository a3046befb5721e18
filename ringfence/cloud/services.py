"""AWS services that an environment needs: endpoints, log retention."""

from __future__ import annotations

from bisect import bisect_left
from typing import get_args

from ringfence.manifest.model import DataClass, Environment

DATA_CLASSES: tuple[DataClass, ...] = get_args(DataClass)

GATEWAY_ENDPOINTS = ("s3", "dynamodb")

FLOW_LOG_CLASS: DataClass = "internal"
"""Flow logs name both ends of a connection and contain no data."""

# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
_RETENTION_DAYS = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731),
    *(1096, 1827, 2192, 2557, 2922, 3288, 3653),
)


def interface_endpoints(environment: Environment) -> tuple[str, ...]:
    """Endpoints of Session Manager, KMS, logs, metrics and STS; Secrets Manager where used."""
    needed = ["ec2messages", "kms", "logs", "monitoring", "ssm", "ssmmessages", "sts"]
    if any(server.secrets for server in environment.servers.values()):
        needed.append("secretsmanager")
    return tuple(sorted(needed))


def retention_days(environment: Environment, data_class: DataClass) -> int:
    """Shortest retention that CloudWatch offers and that is as long as the manifest says."""
    return _RETENTION_DAYS[bisect_left(_RETENTION_DAYS, environment.retention[data_class])]
