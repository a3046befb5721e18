"""Targets and filters of traffic mirroring. moto emulates no filter rules."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.naming import tagged
from ringfence.rehearsal.record import Create, Created, Inputs


def target(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    made = aws.client("ec2").create_traffic_mirror_target(
        Description=inputs.get("description", ""),
        NetworkLoadBalancerArn=inputs["networkLoadBalancerArn"],
        TagSpecifications=tagged(inputs, "traffic-mirror-target"),
    )["TrafficMirrorTarget"]["TrafficMirrorTargetId"]
    arn = aws.arn("ec2", f"traffic-mirror-target/{made}")
    return Created(made, {"arn": arn, "ownerId": aws.id})


def filter_(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    made = aws.client("ec2").create_traffic_mirror_filter(
        Description=inputs.get("description", ""),
        TagSpecifications=tagged(inputs, "traffic-mirror-filter"),
    )["TrafficMirrorFilter"]["TrafficMirrorFilterId"]
    return Created(made, {"arn": aws.arn("ec2", f"traffic-mirror-filter/{made}")})


RESOURCES: Mapping[str, Create] = {
    "aws:ec2/trafficMirrorTarget:TrafficMirrorTarget": target,
    "aws:ec2/trafficMirrorFilter:TrafficMirrorFilter": filter_,
}
