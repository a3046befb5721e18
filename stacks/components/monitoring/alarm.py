"""An alarm that notifies a topic when a metric reaches a threshold (MON-03)."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_aws as aws

CONTROLS = ("MON-03",)


def alarm(
    parent: pulumi.Resource,
    name: str,
    *,
    description: str,
    namespace: str,
    metric: pulumi.Input[str],
    topic_arn: pulumi.Input[str],
    tags: Mapping[str, str],
    dimensions: Mapping[str, pulumi.Input[str]] | None = None,
    statistic: str = "Sum",
    threshold: int = 1,
    seconds: int = 60,
    when_missing: str = "notBreaching",
) -> None:
    aws.cloudwatch.MetricAlarm(
        name,
        alarm_description=description,
        namespace=namespace,
        metric_name=metric,
        dimensions=dimensions,
        statistic=statistic,
        comparison_operator="GreaterThanOrEqualToThreshold",
        threshold=threshold,
        period=seconds,
        evaluation_periods=1,
        treat_missing_data=when_missing,
        alarm_actions=[topic_arn],
        tags=tags,
        opts=pulumi.ResourceOptions(parent=parent),
    )
