"""Alerts of one environment to its security contact: a topic and its key (MON-03, NET-05)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pulumi

from ringfence.cloud import event_alerts
from ringfence.cloud.alarms import Alarm
from ringfence.cloud.tags import tags
from ringfence.manifest.model import Environment
from stacks.components.data.key import protected_key
from stacks.components.monitoring.alerts import Alerts, AlertsArgs

CONTROLS = ("MON-03", "NET-05")
DETECTION, _ = CONTROLS


@dataclass(frozen=True, kw_only=True)
class EnvironmentAlertsArgs:
    environment: Environment
    account: str
    region: str
    alarms: Sequence[tuple[pulumi.Input[str], Sequence[Alarm]]]
    """Alarms by log group."""


class EnvironmentAlerts(pulumi.ComponentResource):
    topic_arn: pulumi.Output[str]
    key_arn: pulumi.Output[str]
    """Other publishers to the topic need permission to use it."""

    def __init__(
        self, name: str, args: EnvironmentAlertsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:EnvironmentAlerts", name, None, opts)
        environment, account, region = args.environment, args.account, args.region
        key = protected_key(
            self,
            name,
            description=f"Alerts of {environment.name}",
            policy=event_alerts.key_policy(environment, account=account, region=region),
            tags=tags(environment, "key-alerts", control=DETECTION),
        )
        alerts = Alerts(
            name,
            AlertsArgs(
                environment=environment,
                key_arn=key.arn,
                topic_policy=lambda topic: event_alerts.topic_policy(
                    environment, topic=topic, account=account, region=region
                ),
                tags=partial(tags, environment),
                namespace=event_alerts.namespace(environment),
                alarms=args.alarms,
                event_alerts=event_alerts.event_alerts(environment, account=account, region=region),
            ),
            pulumi.ResourceOptions(parent=self),
        )
        self.topic_arn, self.key_arn = alerts.topic_arn, key.arn
        self.register_outputs({"topic_arn": self.topic_arn, "key_arn": self.key_arn})
