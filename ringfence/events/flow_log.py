"""Format of the VPC flow logs that the stacks create."""

from __future__ import annotations

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
