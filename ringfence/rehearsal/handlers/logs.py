"""CloudWatch Logs and flow logs."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.naming import physical, tagged
from ringfence.rehearsal.record import Create, Created, Inputs, RehearsalError


def log_group(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    logs = aws.client("logs")
    group = physical(name, inputs, 512)
    key = {"kmsKeyId": inputs["kmsKeyId"]} if inputs.get("kmsKeyId") else {}
    logs.create_log_group(logGroupName=group, tags=inputs.get("tags", {}), **key)
    if days := inputs.get("retentionInDays"):
        logs.put_retention_policy(logGroupName=group, retentionInDays=days)
    return Created(group, {"name": group, "arn": aws.arn("logs", f"log-group:{group}")})


def metric_filter(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    made = physical(name, inputs, 512)
    metric = inputs["metricTransformation"]
    aws.client("logs").put_metric_filter(
        logGroupName=inputs["logGroupName"],
        filterName=made,
        filterPattern=inputs["pattern"],
        metricTransformations=[
            {
                "metricName": metric["name"],
                "metricNamespace": metric["namespace"],
                "metricValue": metric["value"],
            }
        ],
    )
    return Created(made, {"name": made})


def flow_log(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    if "vpcId" not in inputs:
        raise RehearsalError(f"{name}: a rehearsal supports flow logs of a VPC only; set vpc_id")
    to_logs = inputs.get("logDestinationType", "cloud-watch-logs") == "cloud-watch-logs"
    # moto looks for the log group by its name, and reports a delivery error without one.
    group = {"LogGroupName": inputs["logDestination"].split(":")[6]} if to_logs else {}
    optional = {
        "DeliverLogsPermissionArn": inputs.get("iamRoleArn"),
        "LogFormat": inputs.get("logFormat"),
        "MaxAggregationInterval": inputs.get("maxAggregationInterval"),
    }
    made = aws.client("ec2").create_flow_logs(
        ResourceIds=[inputs["vpcId"]],
        ResourceType="VPC",
        TrafficType=inputs.get("trafficType", "ALL"),
        LogDestinationType=inputs.get("logDestinationType", "cloud-watch-logs"),
        LogDestination=inputs["logDestination"],
        TagSpecifications=tagged(inputs, "vpc-flow-log"),
        **group,
        **{key: value for key, value in optional.items() if value is not None},
    )
    if refused := made["Unsuccessful"]:
        raise RehearsalError(f"{name}: {refused[0]['Error']['Message']}")
    (flow,) = made["FlowLogIds"]
    return Created(flow, {"arn": aws.arn("ec2", f"vpc-flow-log/{flow}")})


RESOURCES: Mapping[str, Create] = {
    "aws:cloudwatch/logGroup:LogGroup": log_group,
    "aws:cloudwatch/logMetricFilter:LogMetricFilter": metric_filter,
    "aws:ec2/flowLog:FlowLog": flow_log,
}
