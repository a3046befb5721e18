"""Takes an instance out of service when an attack on it is found, and puts it back (IRP-01)."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import containment
from ringfence.cloud.tags import tags
from ringfence.manifest.model import Environment
from stacks.components.function import Function, FunctionArgs

CONTROL = "IRP-01"


@dataclass(frozen=True)
class ContainmentArgs:
    environment: Environment
    account: str
    region: str
    vpc_id: pulumi.Input[str]
    key_arn: pulumi.Input[str]
    """Of the class of the log: `ringfence.cloud.containment.CLASS`."""
    topic_arn: pulumi.Input[str]
    topic_key_arn: pulumi.Input[str]
    detector_id: pulumi.Input[str] | None = None
    """Without it, findings of any detector of the account count."""
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
        key_arn = self._key()
        quarantine = aws.ec2.SecurityGroup(
            f"{name}-quarantine",
            vpc_id=args.vpc_id,
            description="Instances that were contained: nothing in, nothing out",
            tags=tags(
                args.environment,
                containment.QUARANTINE,
                CONTROL,
                group=containment.QUARANTINE,
            ),
            opts=self._child,
        )
        queue = self._failed_events(key_arn)
        function = self._function(key_arn, quarantine.id, queue.arn)
        patterns = pulumi.Output.from_input(args.detector_id).apply(
            lambda detector: {
                trigger.key: trigger.text
                for trigger in containment.triggers(args.account, severity, detector)
            }
        )
        for trigger in containment.triggers(args.account, severity):
            self._trigger(trigger, patterns[trigger.key], function, queue.arn)
        self._alarms(function.name, queue.name)
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
        return tags(self._args.environment, name, CONTROL, containment.CLASS)

    def _key(self) -> pulumi.Output[str]:
        args = self._args
        key = aws.kms.Key(
            self._name,
            description=f"Containment in {args.environment.name}",
            policy=containment.key_policy(args.account, args.region, f"{self._name}-"),
            enable_key_rotation=True,
            deletion_window_in_days=30,
            tags=self._tags("key-containment"),
            # What is encrypted under a deleted key is gone.
            opts=pulumi.ResourceOptions(parent=self, protect=True),
        )
        aws.kms.Alias(self._name, target_key_id=key.key_id, opts=self._child)
        return key.arn

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
                    arn, args.account, args.region, f"{self._name}-"
                )
            ),
            opts=self._child,
        )
        return queue

    def _function(
        self,
        key_arn: pulumi.Output[str],
        quarantine: pulumi.Output[str],
        queue_arn: pulumi.Output[str],
    ) -> Function:
        args = self._args
        return Function(
            self._name,
            FunctionArgs(
                args.environment,
                containment.HANDLER,
                f"Contains and releases instances of {args.environment.name}",
                self._tags("containment"),
                containment.CLASS,
                args.key_arn,
                lambda found: containment.permissions(
                    args.environment, containment.Place(args.account, args.region, **found)
                ),
                {
                    "vpc": args.vpc_id,
                    "key": key_arn,
                    "topic": args.topic_arn,
                    "topic_key": args.topic_key_arn,
                    "queue": queue_arn,
                    "boundary": args.boundary_arn,
                },
                containment.TIMEOUT_SECONDS,
                {
                    "ENVIRONMENT": args.environment.name,
                    "QUARANTINE_GROUP": quarantine,
                    "RECORDS": containment.records(args.environment),
                    "SEVERITY": str(self._severity),
                    "TOPIC": args.topic_arn,
                },
                variables_key_arn=key_arn,
                memory_mib=containment.MEMORY_MIB,
                concurrency=containment.CONCURRENCY,
                # A destination rather than a dead-letter queue: it brings the error, too.
                # https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
                invoked={
                    "maximum_retry_attempts": containment.RETRIES,
                    "maximum_event_age_in_seconds": containment.EVENT_SECONDS,
                    "destination_config": {"on_failure": {"destination": queue_arn}},
                },
            ),
            self._child,
        )

    def _trigger(
        self,
        trigger: containment.Trigger,
        pattern: pulumi.Output[str],
        function: Function,
        queue_arn: pulumi.Output[str],
    ) -> None:
        name = f"{self._name}-{trigger.key}"
        rule = aws.cloudwatch.EventRule(
            name,
            description=trigger.says,
            event_pattern=pattern,
            tags=self._tags(f"containment-{trigger.key}"),
            opts=self._child,
        )
        permission = aws.lambda_.Permission(
            name,
            action="lambda:InvokeFunction",
            function=function.name,
            principal="events.amazonaws.com",
            source_arn=rule.arn,
            source_account=self._args.account,
            opts=self._child,
        )
        aws.cloudwatch.EventTarget(
            name,
            rule=rule.name,
            arn=function.arn,
            dead_letter_config={"arn": queue_arn},
            retry_policy={
                "maximum_retry_attempts": containment.DELIVERY_RETRIES,
                "maximum_event_age_in_seconds": containment.DELIVERY_SECONDS,
            },
            opts=pulumi.ResourceOptions(parent=self, depends_on=[permission]),
        )

    def _alarms(self, function: pulumi.Output[str], queue: pulumi.Output[str]) -> None:
        for key, says, namespace, metric, statistic, dimensions in (
            (
                "failed",
                "An event could not be answered: an instance may not be contained",
                "AWS/SQS",
                "ApproximateNumberOfMessagesVisible",
                "Maximum",
                {"QueueName": queue},
            ),
            (
                "errors",
                "Containment of an instance failed, and is tried again",
                "AWS/Lambda",
                "Errors",
                "Sum",
                {"FunctionName": function},
            ),
        ):
            aws.cloudwatch.MetricAlarm(
                f"{self._name}-{key}",
                alarm_description=says,
                namespace=namespace,
                metric_name=metric,
                dimensions=dimensions,
                statistic=statistic,
                comparison_operator="GreaterThanOrEqualToThreshold",
                threshold=1,
                period=60,
                evaluation_periods=1,
                treat_missing_data="notBreaching",
                alarm_actions=[self._args.topic_arn],
                tags=self._tags(f"containment-{key}"),
                opts=self._child,
            )
