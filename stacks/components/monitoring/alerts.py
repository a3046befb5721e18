"""Alerts by e-mail: a topic, alarms on logs, and rules for events (MON-03)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud.alarms import Alarm
from ringfence.cloud.event_alerts import EventAlert
from ringfence.cloud.evidence import ALERTS_CLASS
from ringfence.manifest.model import Environment
from stacks.components.monitoring.alarm import alarm

CONTROLS = ("MON-03",)
(DETECTION,) = CONTROLS


@dataclass(frozen=True, kw_only=True)
class AlertsArgs:
    environment: Environment
    key_arn: pulumi.Input[str]
    topic_policy: Callable[[str], str]
    """Computes the topic's policy from its ARN."""
    tags: Callable[..., dict[str, str]]
    """`tags` or `account_tags` of `ringfence.cloud.tags`, bound to the environment."""
    namespace: str
    alarms: Sequence[tuple[pulumi.Input[str], Sequence[Alarm]]]
    """Alarms by log group."""
    event_alerts: Sequence[EventAlert] = ()


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
            tags=args.tags("alerts", control=DETECTION, data_class=ALERTS_CLASS),
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
        for log_group, alarms in args.alarms:
            for each in alarms:
                self._log_alarm(log_group, each, topic.arn)
        for event_alert in args.event_alerts:
            self._event_alert(event_alert, topic.arn, policy)
        self.topic_arn = topic.arn
        self.register_outputs({"topic_arn": self.topic_arn})

    def _log_alarm(
        self, log_group: pulumi.Input[str], wanted: Alarm, topic_arn: pulumi.Output[str]
    ) -> None:
        name, namespace = f"{self._name}-{wanted.key}", self._args.namespace
        metric = aws.cloudwatch.LogMetricFilter(
            name,
            log_group_name=log_group,
            pattern=wanted.pattern,
            metric_transformation={
                "name": wanted.key,
                "namespace": namespace,
                "value": wanted.value,
            },
            opts=self._child,
        )
        alarm(
            self,
            name,
            description=f"{wanted.message} ({wanted.reference})",
            namespace=namespace,
            metric=metric.metric_transformation.name,
            topic_arn=topic_arn,
            tags=self._args.tags(wanted.key, control=DETECTION),
            threshold=wanted.threshold,
            seconds=wanted.seconds,
            when_missing=wanted.when_missing,
        )

    def _event_alert(
        self, event_alert: EventAlert, topic_arn: pulumi.Output[str], policy: pulumi.Resource
    ) -> None:
        name = f"{self._name}-{event_alert.key}"
        rule = aws.cloudwatch.EventRule(
            name,
            description=event_alert.message,
            event_pattern=event_alert.text,
            state=event_alert.state,
            tags=self._args.tags(event_alert.key, control=DETECTION),
            opts=self._child,
        )
        aws.cloudwatch.EventTarget(
            name,
            rule=rule.name,
            arn=topic_arn,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )
