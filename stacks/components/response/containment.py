"""Containment of an instance after an attack, and its release (IRP-01)."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import containment
from ringfence.cloud.tags import tags
from ringfence.manifest.model import Environment
from stacks.components.data.key import protected_key
from stacks.components.function import Function, FunctionArgs, TriggerArgs, trigger
from stacks.components.monitoring.alarm import alarm

CONTROLS = ("IRP-01",)
(CONTAINMENT,) = CONTROLS


@dataclass(frozen=True, kw_only=True)
class ContainmentArgs:
    environment: Environment
    account: str
    region: str
    vpc_id: pulumi.Input[str]
    log_key_arn: pulumi.Input[str]
    """Key of the data class `ringfence.cloud.containment.CLASS`."""
    topic_arn: pulumi.Input[str]
    topic_key_arn: pulumi.Input[str]
    detector_id: pulumi.Input[str] | None = None
    """Without it, findings of every detector of the account count."""
    boundary_arn: pulumi.Input[str] | None = None
    """Permissions boundary of the roles of hosts."""


class Containment(pulumi.ComponentResource):
    function_arn: pulumi.Output[str]
    quarantine_group_id: pulumi.Output[str]
    failed_events_url: pulumi.Output[str]

    def __init__(
        self, name: str, args: ContainmentArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Containment", name, None, opts)
        assert args.environment.provisioning
        severity = args.environment.provisioning.containment_severity
        self._name, self._args, self._severity = name, args, severity
        self._child = pulumi.ResourceOptions(parent=self)
        key_arn = protected_key(
            self,
            name,
            description=f"Containment in {args.environment.name}",
            policy=containment.key_policy(
                account=args.account, region=args.region, rules=f"{name}-"
            ),
            tags=self._tags("key-containment"),
        ).arn
        quarantine = aws.ec2.SecurityGroup(
            f"{name}-quarantine",
            vpc_id=args.vpc_id,
            # AWS replaces the group to change this text.
            description="Instances that were contained: nothing in, nothing out",
            tags=tags(
                args.environment,
                containment.QUARANTINE,
                control=CONTAINMENT,
                group=containment.QUARANTINE,
            ),
            opts=self._child,
        )
        queue = self._failed_events(key_arn)
        function = self._function(key_arn=key_arn, quarantine_id=quarantine.id, queue_arn=queue.arn)
        patterns = pulumi.Output.from_input(args.detector_id).apply(
            lambda detector: {
                each.key: each.text
                for each in containment.triggers(
                    account=args.account, severity=severity, detector=detector
                )
            }
        )
        for each in containment.triggers(account=args.account, severity=severity):
            trigger(
                self,
                f"{name}-{each.key}",
                TriggerArgs(
                    function=function,
                    account=args.account,
                    description=each.message,
                    tags=self._tags(f"containment-{each.key}"),
                    pattern=patterns[each.key],
                    delivery={
                        "dead_letter_config": {"arn": queue.arn},
                        "retry_policy": {
                            "maximum_retry_attempts": containment.DELIVERY_RETRIES,
                            "maximum_event_age_in_seconds": containment.DELIVERY_SECONDS,
                        },
                    },
                ),
            )
        self._alarms(function_name=function.name, queue_name=queue.name)
        self.function_arn = function.arn
        self.quarantine_group_id = quarantine.id
        self.failed_events_url = queue.url
        self.register_outputs(
            {
                "function_arn": self.function_arn,
                "quarantine_group_id": self.quarantine_group_id,
                "failed_events_url": self.failed_events_url,
            }
        )

    def _tags(self, name: str) -> dict[str, str]:
        return tags(self._args.environment, name, control=CONTAINMENT, data_class=containment.CLASS)

    def _failed_events(self, key_arn: pulumi.Output[str]) -> aws.sqs.Queue:
        args = self._args
        queue = aws.sqs.Queue(
            f"{self._name}-failed",
            kms_master_key_id=key_arn,
            message_retention_seconds=containment.FAILED_EVENTS_SECONDS,
            tags=self._tags("containment-failed"),
            opts=self._child,
        )
        aws.sqs.QueuePolicy(
            f"{self._name}-failed",
            queue_url=queue.url,
            policy=queue.arn.apply(
                lambda arn: containment.queue_policy(
                    queue=arn, account=args.account, region=args.region, rules=f"{self._name}-"
                )
            ),
            opts=self._child,
        )
        return queue

    def _function(
        self,
        *,
        key_arn: pulumi.Output[str],
        quarantine_id: pulumi.Output[str],
        queue_arn: pulumi.Output[str],
    ) -> Function:
        args = self._args
        return Function(
            self._name,
            FunctionArgs(
                environment=args.environment,
                handler=containment.HANDLER,
                description=f"Contains and releases instances of {args.environment.name}",
                tags=self._tags("containment"),
                log_class=containment.CLASS,
                log_key_arn=args.log_key_arn,
                permissions=lambda found: containment.permissions(
                    args.environment,
                    containment.ContainmentResources(
                        account=args.account, region=args.region, **found
                    ),
                    control=CONTAINMENT,
                ),
                resources={
                    "vpc": args.vpc_id,
                    "key": key_arn,
                    "topic": args.topic_arn,
                    "topic_key": args.topic_key_arn,
                    "queue": queue_arn,
                    "boundary": args.boundary_arn,
                },
                timeout_seconds=containment.TIMEOUT_SECONDS,
                variables={
                    "CONTROL": CONTAINMENT,
                    "ENVIRONMENT": args.environment.name,
                    "QUARANTINE_GROUP": quarantine_id,
                    "RECORDS": containment.records(args.environment),
                    "SEVERITY": str(self._severity),
                    "TOPIC": args.topic_arn,
                },
                variables_key_arn=key_arn,
                memory_mib=containment.MEMORY_MIB,
                concurrency=containment.CONCURRENCY,
                # A destination, not a dead-letter queue: it receives the error too.
                # https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
                asynchronous={
                    "maximum_retry_attempts": containment.RETRIES,
                    "maximum_event_age_in_seconds": containment.EVENT_SECONDS,
                    "destination_config": {"on_failure": {"destination": queue_arn}},
                },
            ),
            self._child,
        )

    def _alarms(self, *, function_name: pulumi.Output[str], queue_name: pulumi.Output[str]) -> None:
        alarm(
            self,
            f"{self._name}-failed",
            description="An event was not processed: an instance may not be contained",
            namespace="AWS/SQS",
            metric="ApproximateNumberOfMessagesVisible",
            statistic="Maximum",
            dimensions={"QueueName": queue_name},
            topic_arn=self._args.topic_arn,
            tags=self._tags("containment-failed"),
        )
        alarm(
            self,
            f"{self._name}-errors",
            description="Containment of an instance failed; Lambda tries again",
            namespace="AWS/Lambda",
            metric="Errors",
            dimensions={"FunctionName": function_name},
            topic_arn=self._args.topic_arn,
            tags=self._tags("containment-errors"),
        )
