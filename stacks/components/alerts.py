"""What in the trail calls a person, and the way it takes (MON-03)."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud.alarms import ALARMS, METRICS
from ringfence.cloud.evidence import ALERTS_CLASS, alerts_topic_policy
from ringfence.cloud.tags import account_tags
from ringfence.environment import Environment


@dataclass(frozen=True)
class AlertsArgs:
    environment: Environment
    account: str
    region: str
    key_arn: pulumi.Input[str]
    trail_group: pulumi.Input[str]


class Alerts(pulumi.ComponentResource):
    topic_arn: pulumi.Output[str]

    def __init__(
        self, name: str, args: AlertsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Alerts", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        environment = args.environment
        topic = aws.sns.Topic(
            name,
            kms_master_key_id=args.key_arn,
            tags=account_tags(environment, "alerts", "MON-03", ALERTS_CLASS),
            opts=child,
        )
        aws.sns.TopicPolicy(
            name,
            arn=topic.arn,
            policy=topic.arn.apply(lambda arn: alerts_topic_policy(arn, args.account, args.region)),
            opts=child,
        )
        aws.sns.TopicSubscription(
            name,
            topic=topic.arn,
            protocol="email",
            endpoint=environment.contacts["security"].email,
            opts=child,
        )
        for alarm in ALARMS:
            counted = aws.cloudwatch.LogMetricFilter(
                f"{name}-{alarm.key}",
                log_group_name=args.trail_group,
                pattern=alarm.pattern,
                metric_transformation={"name": alarm.key, "namespace": METRICS, "value": "1"},
                opts=child,
            )
            aws.cloudwatch.MetricAlarm(
                f"{name}-{alarm.key}",
                alarm_description=f"{alarm.says} ({alarm.reference})",
                namespace=METRICS,
                metric_name=counted.metric_transformation.name,
                statistic="Sum",
                comparison_operator="GreaterThanOrEqualToThreshold",
                threshold=1,
                period=60,
                evaluation_periods=1,
                treat_missing_data="notBreaching",
                alarm_actions=[topic.arn],
                tags=account_tags(environment, alarm.key, "MON-03"),
                opts=child,
            )
        self.topic_arn = topic.arn
        self.register_outputs({"topic_arn": self.topic_arn})
