"""A Lambda function with its own log and role, outside the VPC, and the events that start it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_aws as aws

from ringfence.cloud import functions
from ringfence.manifest.model import DataClass, Environment
from stacks.components.monitoring.log_group import evidence_log_group

CONTROLS = ("IAM-07",)


@dataclass(frozen=True, kw_only=True)
class FunctionArgs:
    environment: Environment
    handler: str
    """PACKAGE.MODULE.FUNCTION; the package is a folder of `stacks/functions`."""
    description: str
    tags: Mapping[str, str]
    log_class: DataClass
    log_key_arn: pulumi.Input[str]
    permissions: Callable[[Mapping[str, Any]], str]
    """Computes the role's policy from `resources` and the ARN of the log (`log_group`)."""
    resources: Mapping[str, pulumi.Input[Any]]
    timeout_seconds: int
    variables: Mapping[str, pulumi.Input[str]]
    """Environment variables; none is a secret."""
    variables_key_arn: pulumi.Input[str] | None = None
    role_path: str = "/"
    memory_mib: int | None = None
    concurrency: int | None = None
    """Reserved executions: other functions of the account cannot use them, nor this one theirs."""
    traced: bool = True
    log_format: str = "JSON"
    asynchronous: Mapping[str, Any] = field(default_factory=dict)
    """Retries and the destination of failed events (FunctionEventInvokeConfig)."""


class Function(pulumi.ComponentResource):
    arn: pulumi.Output[str]
    name: pulumi.Output[str]
    """Known once the role has its policy."""
    log_group_name: pulumi.Output[str]

    def __init__(
        self, name: str, args: FunctionArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Function", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        log_group = evidence_log_group(
            self,
            name,
            environment=args.environment,
            data_class=args.log_class,
            key_arn=args.log_key_arn,
            tags=args.tags,
        )
        role = aws.iam.Role(
            name,
            assume_role_policy=functions.trust(),
            description=args.description,
            path=args.role_path,
            tags=args.tags,
            opts=child,
        )
        policy = pulumi.Output.all(**args.resources, log_group=log_group.arn).apply(
            args.permissions
        )
        permissions = aws.iam.RolePolicy(name, role=role.name, policy=policy, opts=child)
        package = functions.CODE / args.handler.partition(".")[0]
        function = aws.lambda_.Function(
            name,
            description=args.description,
            code=pulumi.AssetArchive(
                {
                    f"{package.name}/{path.name}": pulumi.FileAsset(str(path))
                    for path in sorted(package.glob("*.py"))
                }
            ),
            handler=args.handler,
            runtime=functions.RUNTIME,
            architectures=[functions.ARCHITECTURE],
            memory_size=args.memory_mib,
            timeout=args.timeout_seconds,
            reserved_concurrent_executions=args.concurrency,
            role=role.arn,
            kms_key_arn=args.variables_key_arn,
            environment={"variables": args.variables},
            logging_config={"log_format": args.log_format, "log_group": log_group.name},
            tracing_config={"mode": "Active"} if args.traced else None,
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[permissions]),
        )
        if args.asynchronous:
            aws.lambda_.FunctionEventInvokeConfig(
                name, function_name=function.name, **args.asynchronous, opts=child
            )
        self.arn, self.name, self.log_group_name = function.arn, function.name, log_group.name
        self.register_outputs({"arn": self.arn, "log_group_name": self.log_group_name})


@dataclass(frozen=True, kw_only=True)
class TriggerArgs:
    function: Function
    account: str
    description: str
    tags: Mapping[str, str]
    pattern: pulumi.Input[str] | None = None
    """Events that start the function."""
    schedule: str | None = None
    permission_names_arn: bool = False
    """Permit by the function's ARN instead of its name: AWS replaces a permission to change it."""
    delivery: Mapping[str, Any] = field(default_factory=dict)
    """Retries and dead-letter queue of the target."""


def trigger(parent: pulumi.Resource, name: str, args: TriggerArgs) -> None:
    """Declare a rule of EventBridge that starts a function, and permit it."""
    child = pulumi.ResourceOptions(parent=parent)
    rule = aws.cloudwatch.EventRule(
        name,
        description=args.description,
        event_pattern=args.pattern,
        schedule_expression=args.schedule,
        tags=args.tags,
        opts=child,
    )
    permission = aws.lambda_.Permission(
        name,
        action="lambda:InvokeFunction",
        function=args.function.arn if args.permission_names_arn else args.function.name,
        principal="events.amazonaws.com",
        source_arn=rule.arn,
        source_account=args.account,
        opts=child,
    )
    aws.cloudwatch.EventTarget(
        name,
        rule=rule.name,
        arn=args.function.arn,
        **args.delivery,
        opts=pulumi.ResourceOptions(parent=parent, depends_on=[permission]),
    )
