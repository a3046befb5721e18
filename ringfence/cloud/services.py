"""What an environment asks of AWS's own services: endpoints, log retention, flow log fields."""

from __future__ import annotations

from bisect import bisect_left
from typing import get_args

from ringfence.environment import DataClass, Environment

DATA_CLASSES: tuple[DataClass, ...] = get_args(DataClass)

GATEWAY_ENDPOINTS = ("s3", "dynamodb")

FLOW_LOG_CLASS: DataClass = "internal"
"""Flow logs tell who talks to whom, and nothing of what is said."""

# Every field of the versions 2 to 10 that a flow log of a VPC has (6 is of transit gateways).
# https://docs.aws.amazon.com/vpc/latest/userguide/flow-log-records.html
_FIELDS = """
    version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes
    start end action log-status
    vpc-id subnet-id instance-id tcp-flags type pkt-srcaddr pkt-dstaddr
    region az-id sublocation-type sublocation-id
    pkt-src-aws-service pkt-dst-aws-service flow-direction traffic-path
    ecs-cluster-arn ecs-cluster-name ecs-container-instance-arn ecs-container-instance-id
    ecs-container-id ecs-second-container-id ecs-service-name ecs-task-definition-arn
    ecs-task-arn ecs-task-id
    reject-reason
    resource-id
    encryption-status
"""
FLOW_LOG_FIELDS = tuple(_FIELDS.split())
FLOW_LOG_FORMAT = " ".join(f"${{{field}}}" for field in FLOW_LOG_FIELDS)

# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
_RETENTION_DAYS = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731),
    *(1096, 1827, 2192, 2557, 2922, 3288, 3653),
)


def interface_endpoints(environment: Environment) -> tuple[str, ...]:
    """Session Manager, keys, logs, metrics and identities for every host; secrets where used."""
    needed = ["ec2messages", "kms", "logs", "monitoring", "ssm", "ssmmessages", "sts"]
    if any(server.secrets for server in environment.servers.values()):
        needed.append("secretsmanager")
    return tuple(sorted(needed))


def retention_days(environment: Environment, data_class: DataClass) -> int:
    """At least as long as the manifest says; CloudWatch knows certain numbers of days only."""
    return _RETENTION_DAYS[bisect_left(_RETENTION_DAYS, environment.retention[data_class])]
