"""A secret for each server that names it, without its value, and its rotation (IAM-08)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import secrets
from ringfence.cloud.groups import server_group
from ringfence.cloud.roles import workload_path
from ringfence.cloud.tags import ROTATION, ROTATION_DAYS, SECRET, tags
from ringfence.manifest.model import DataClass, Environment
from stacks.components.function import Function, FunctionArgs, TriggerArgs, trigger

CONTROLS = ("IAM-08",)
(SECRETS,) = CONTROLS


@dataclass(frozen=True, kw_only=True)
class SecretsArgs:
    environment: Environment
    key_arns: Mapping[DataClass, pulumi.Output[str]]
    account: str
    region: str


class Secrets(pulumi.ComponentResource):
    arns: Mapping[str, Mapping[str, pulumi.Output[str]]]
    """ARNs by server and name."""
    age_log_group: pulumi.Output[str]

    def __init__(
        self, name: str, args: SecretsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Secrets", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._own = secrets.own_secrets(args.environment)
        generated = [own for own in self._own if own.is_generated]
        rotation = self._rotation(generated) if generated else None
        self.arns = {own.server.name: {} for own in self._own}
        for own in self._own:
            arn = self._secret(own, rotation)
            self.arns = {
                **self.arns,
                own.server.name: {**self.arns[own.server.name], own.secret.name: arn},
            }
        self.age_log_group = self._age()
        self.register_outputs({"arns": self.arns, "age_log_group": self.age_log_group})

    def _secret(
        self, own: secrets.OwnSecret, rotation: aws.lambda_.Permission | None
    ) -> pulumi.Output[str]:
        environment, account = self._args.environment, self._args.account
        name = f"{self._name}-{own.key}"
        secret = aws.secretsmanager.Secret(
            name,
            description=f"{own.secret.name} of MCP server {own.server.name}",
            kms_key_id=self._args.key_arns[own.data_class],
            recovery_window_in_days=secrets.RECOVERY_DAYS,
            tags={
                **tags(
                    environment,
                    f"secret-{own.key}",
                    control=SECRETS,
                    data_class=own.data_class,
                    group=server_group(own.server),
                ),
                SECRET: own.secret.name,
                ROTATION: own.secret.rotation,
                ROTATION_DAYS: str(own.secret.rotation_days),
            },
            # A person stored the value, and Pulumi has no copy.
            opts=pulumi.ResourceOptions(parent=self, protect=True),
        )
        policy = aws.secretsmanager.SecretPolicy(
            name,
            secret_arn=secret.arn,
            policy=secrets.resource_policy(environment, own, account),
            block_public_policy=True,
            opts=self._child,
        )
        if own.is_generated and rotation:
            aws.secretsmanager.SecretRotation(
                name,
                secret_id=secret.id,
                rotation_lambda_arn=rotation.function,
                rotation_rules={"automatically_after_days": own.secret.rotation_days},
                # Nobody may know the first value either.
                rotate_immediately=True,
                opts=pulumi.ResourceOptions(parent=self, depends_on=[policy, rotation]),
            )
        return secret.arn

    def _rotation(self, generated: list[secrets.OwnSecret]) -> aws.lambda_.Permission:
        args, workload = self._args, secrets.ROTATION_WORKLOAD
        used: dict[DataClass, None] = dict.fromkeys(own.data_class for own in generated)
        function = self._function(
            workload,
            description=f"Makes the generated secrets of {args.environment.name}",
            permissions=lambda log_group, keys: secrets.rotation_permissions(
                args.environment,
                account=args.account,
                region=args.region,
                keys=keys,
                log_group=log_group,
            ),
            keys=[args.key_arns[data_class] for data_class in used],
        )
        return aws.lambda_.Permission(
            f"{self._name}-rotation",
            action="lambda:InvokeFunction",
            function=function.arn,
            principal="secretsmanager.amazonaws.com",
            source_account=args.account,
            opts=self._child,
        )

    def _age(self) -> pulumi.Output[str]:
        args, workload = self._args, secrets.AGE_WORKLOAD
        function = self._function(
            workload,
            description=f"Finds overdue secrets of {args.environment.name}",
            permissions=lambda log_group, _: secrets.age_permissions(
                args.environment, account=args.account, region=args.region, log_group=log_group
            ),
            keys=[],
        )
        trigger(
            self,
            f"{self._name}-age",
            TriggerArgs(
                function=function,
                account=args.account,
                description="Starts the search for overdue secrets",
                tags=tags(args.environment, "secret-age", control=SECRETS),
                schedule=secrets.AGE_SCHEDULE,
                permission_names_arn=True,
            ),
        )
        return function.log_group_name

    def _function(
        self,
        workload: str,
        *,
        description: str,
        permissions: Callable[[str, list[str]], str],
        keys: list[pulumi.Output[str]],
    ) -> Function:
        environment = self._args.environment
        return Function(
            f"{environment.name}-{workload}",
            FunctionArgs(
                environment=environment,
                handler=secrets.HANDLERS[workload],
                description=description,
                tags=tags(environment, workload, control=SECRETS, data_class=secrets.LOG_CLASS),
                log_class=secrets.LOG_CLASS,
                log_key_arn=self._args.key_arns[secrets.LOG_CLASS],
                permissions=lambda found: permissions(found["log_group"], found["keys"]),
                resources={"keys": pulumi.Output.all(*keys)},
                timeout_seconds=secrets.TIMEOUT_SECONDS[workload],
                variables={"ENVIRONMENT": environment.name},
                # The resource policies of secrets name the role by its path.
                role_path=workload_path(environment, workload),
                traced=False,
                log_format="Text",  # a metric filter reads the lines as the function writes them
            ),
            self._child,
        )
