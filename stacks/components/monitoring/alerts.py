"""What in logs and events calls a person, and the way it takes (MON-03)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud.alarms import Alarm
from ringfence.cloud.event_alerts import Notice
from ringfence.cloud.evidence import ALERTS_CLASS
from ringfence.manifest.model import Environment


@dataclass(frozen=True)
class AlertsArgs:
    environment: Environment
    key_arn: pulumi.Input[str]
    topic_policy: Callable[[str], str]
    """Of the topic with this ARN."""
    tags: Callable[..., dict[str, str]]
    """As `ringfence.cloud.tags` makes them, of an environment or of the account."""
    namespace: str
    watched: Sequence[tuple[pulumi.Input[str], Sequence[Alarm]]]
    """Log groups, with what is looked for in each."""
    notices: Sequence[Notice] = ()


class Alerts(pulumi.ComponentResource):
    topic_arn: pulumi.Output[str]

    def __init__(
        self, name: str, args: AlertsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Alerts", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        topic = aws.sns.Topic(
            name,
            kms_master_key_id=args.key_arn,
            tags=args.tags("alerts", "MON-03", ALERTS_CLASS),
            opts=self._child,
        )
        policy = aws.sns.TopicPolicy(
            name, arn=topic.arn, policy=topic.arn.apply(args.topic_policy), opts=self._child
        )
        aws.sns.TopicSubscription(
            name,
            topic=topic.arn,
            protocol="email",
            endpoint=args.environment.contacts["security"].email,
            opts=self._child,
        )
        for log_group, alarms in args.watched:
            for alarm in alarms:
                self._alarm(log_group, alarm, topic.arn)
        for notice in args.notices:
            self._notice(notice, topic.arn, policy)
        self.topic_arn = topic.arn
        self.register_outputs({"topic_arn": self.topic_arn})

    def _alarm(
        self, log_group: pulumi.Input[str], alarm: Alarm, topic_arn: pulumi.Output[str]
    ) -> None:
        name, namespace = f"{self._name}-{alarm.key}", self._args.namespace
        counted = aws.cloudwatch.LogMetricFilter(
            name,
            log_group_name=log_group,
            pattern=alarm.pattern,
            metric_transformation={
                "name": alarm.key,
                "namespace": namespace,
                "value": alarm.value,
            },
            opts=self._child,
        )
        aws.cloudwatch.MetricAlarm(
            name,
            alarm_description=f"{alarm.says} ({alarm.reference})",
            namespace=namespace,
            metric_name=counted.metric_transformation.name,
            statistic="Sum",
            comparison_operator="GreaterThanOrEqualToThreshold",
            threshold=alarm.threshold,
            period=alarm.seconds,
            evaluation_periods=1,
            treat_missing_data=alarm.when_missing,
            alarm_actions=[topic_arn],
            tags=self._args.tags(alarm.key, "MON-03"),
            opts=self._child,
        )

    def _notice(
        self, notice: Notice, topic_arn: pulumi.Output[str], policy: pulumi.Resource
    ) -> None:
        name = f"{self._name}-{notice.key}"
        rule = aws.cloudwatch.EventRule(
            name,
            description=notice.says,
            event_pattern=notice.text,
            state=notice.state,
            tags=self._args.tags(notice.key, "MON-03"),
            opts=self._child,
        )
        aws.cloudwatch.EventTarget(
            name,
            rule=rule.name,
            arn=topic_arn,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )
