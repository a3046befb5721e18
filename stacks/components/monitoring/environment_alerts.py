"""The environment's own way to its security contact: a topic, its key, and who may use it."""

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


@dataclass(frozen=True)
class EnvironmentAlertsArgs:
    environment: Environment
    account: str
    region: str
    watched: Sequence[tuple[pulumi.Input[str], Sequence[Alarm]]]
    """Log groups, with what is looked for in each."""


class EnvironmentAlerts(pulumi.ComponentResource):
    topic_arn: pulumi.Output[str]
    key_arn: pulumi.Output[str]
    """For whoever else publishes to the topic."""

    def __init__(
        self, name: str, args: EnvironmentAlertsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:EnvironmentAlerts", name, None, opts)
        environment, where = args.environment, (args.account, args.region)
        key = protected_key(
            self,
            name,
            f"Alerts of {environment.name}",
            event_alerts.notices_key_policy(environment, *where),
            tags(environment, "key-alerts", "MON-03"),
        )
        alerts = Alerts(
            name,
            AlertsArgs(
                environment,
                key.arn,
                lambda topic: event_alerts.notices_topic_policy(topic, environment, *where),
                partial(tags, environment),
                event_alerts.namespace(environment),
                args.watched,
                event_alerts.notices(environment, *where),
            ),
            pulumi.ResourceOptions(parent=self),
        )
        self.topic_arn, self.key_arn = alerts.topic_arn, key.arn
        self.register_outputs({"topic_arn": self.topic_arn, "key_arn": self.key_arn})
