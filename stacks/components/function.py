"""A function with a log and a role of its own. It is outside the VPC: it calls AWS's APIs only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_aws as aws

from ringfence.cloud import functions
from ringfence.cloud.services import retention_days
from ringfence.manifest.model import DataClass, Environment


@dataclass(frozen=True)
class FunctionArgs:
    environment: Environment
    handler: str
    """PACKAGE.MODULE.FUNCTION; the package is a folder of `stacks/functions`."""
    description: str
    tags: Mapping[str, str]
    log_class: DataClass
    log_key_arn: pulumi.Input[str]
    permissions: Callable[[Mapping[str, Any]], str]
    """Its policy, from what is `given` and from the ARN of its log (`log_group`)."""
    given: Mapping[str, pulumi.Input[Any]]
    timeout_seconds: int
    variables: Mapping[str, pulumi.Input[str]]
    """None of them a secret."""
    variables_key_arn: pulumi.Input[str] | None = None
    role_path: str = "/"
    memory_mib: int | None = None
    concurrency: int | None = None
    """Reserved: the account's other functions cannot use it up, nor this one what is theirs."""
    traced: bool = True
    log_format: str = "JSON"
    invoked: Mapping[str, Any] = field(default_factory=dict)
    """How events are retried, and where those go that fail (FunctionEventInvokeConfig)."""


class Function(pulumi.ComponentResource):
    arn: pulumi.Output[str]
    name: pulumi.Output[str]
    """Known once it may do what it is for."""
    log_group_name: pulumi.Output[str]

    def __init__(
        self, name: str, args: FunctionArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Function", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        log_group = aws.cloudwatch.LogGroup(
            name,
            kms_key_id=args.log_key_arn,
            retention_in_days=retention_days(args.environment, args.log_class),
            tags=args.tags,
            # Evidence: what was done to which thing, and why.
            opts=pulumi.ResourceOptions(parent=self, protect=True),
        )
        role = aws.iam.Role(
            name,
            assume_role_policy=functions.trust(),
            description=args.description,
            path=args.role_path,
            tags=args.tags,
            opts=child,
        )
        policy = pulumi.Output.all(**args.given, log_group=log_group.arn).apply(args.permissions)
        permitted = aws.iam.RolePolicy(name, role=role.name, policy=policy, opts=child)
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
            opts=pulumi.ResourceOptions(parent=self, depends_on=[permitted]),
        )
        if args.invoked:
            aws.lambda_.FunctionEventInvokeConfig(
                name, function_name=function.name, **args.invoked, opts=child
            )
        self.arn, self.name, self.log_group_name = function.arn, function.name, log_group.name
        self.register_outputs({"arn": self.arn, "log_group_name": self.log_group_name})
