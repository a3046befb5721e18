"""A secret for each server that names it, without its value, and what renews it (IAM-08)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import secrets
from ringfence.cloud.groups import server_group
from ringfence.cloud.roles import workload_path
from ringfence.cloud.services import retention_days
from ringfence.cloud.tags import ROTATION, ROTATION_DAYS, SECRET, tags
from ringfence.environment import DataClass, Environment

CONTROL = "IAM-08"


@dataclass(frozen=True)
class SecretsArgs:
    environment: Environment
    key_arns: Mapping[DataClass, pulumi.Output[str]]
    account: str
    region: str


class Secrets(pulumi.ComponentResource):
    arns: Mapping[str, Mapping[str, pulumi.Output[str]]]
    """By server and name."""
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
                    CONTROL,
                    own.data_class,
                    group=server_group(own.server),
                ),
                SECRET: own.secret.name,
                ROTATION: own.secret.rotation,
                ROTATION_DAYS: str(own.secret.rotation_days),
            },
            # A person put its value there, and Pulumi has no copy.
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
                # The first value, too, is one that nobody has seen.
                rotate_immediately=True,
                opts=pulumi.ResourceOptions(parent=self, depends_on=[policy, rotation]),
            )
        return secret.arn

    def _rotation(self, generated: list[secrets.OwnSecret]) -> aws.lambda_.Permission:
        args, workload = self._args, secrets.ROTATION_WORKLOAD
        used: dict[DataClass, None] = dict.fromkeys(own.data_class for own in generated)
        function, _ = self._function(
            workload,
            f"Makes the generated secrets of {args.environment.name}",
            lambda log_group, keys: secrets.rotation_permissions(
                args.environment, args.account, args.region, keys, log_group
            ),
            [args.key_arns[data_class] for data_class in used],
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
        function, log_group = self._function(
            workload,
            f"Finds secrets of {args.environment.name} that are due",
            lambda log_group, _: secrets.age_permissions(
                args.environment, args.account, args.region, log_group
            ),
            [],
        )
        rule = aws.cloudwatch.EventRule(
            f"{self._name}-age",
            description="Secrets are looked through for those that are due",
            schedule_expression=secrets.AGE_SCHEDULE,
            tags=tags(args.environment, "secret-age", CONTROL),
            opts=self._child,
        )
        permission = aws.lambda_.Permission(
            f"{self._name}-age",
            action="lambda:InvokeFunction",
            function=function.arn,
            principal="events.amazonaws.com",
            source_arn=rule.arn,
            source_account=args.account,
            opts=self._child,
        )
        aws.cloudwatch.EventTarget(
            f"{self._name}-age",
            rule=rule.name,
            arn=function.arn,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[permission]),
        )
        return log_group

    def _function(
        self,
        workload: str,
        description: str,
        permissions: Callable[[str, list[str]], str],
        keys: list[pulumi.Output[str]],
    ) -> tuple[aws.lambda_.Function, pulumi.Output[str]]:
        """Outside the VPC: it calls Secrets Manager and nothing else."""
        environment = self._args.environment
        name, key_arn = f"{environment.name}-{workload}", self._args.key_arns[secrets.LOG_CLASS]
        named = tags(environment, workload, CONTROL, secrets.LOG_CLASS)
        log_group = aws.cloudwatch.LogGroup(
            name,
            kms_key_id=key_arn,
            retention_in_days=retention_days(environment, secrets.LOG_CLASS),
            tags=named,
            # Evidence of every rotation.
            opts=pulumi.ResourceOptions(parent=self, protect=True),
        )
        role = aws.iam.Role(
            name,
            assume_role_policy=secrets.function_trust(),
            description=description,
            # Policies of secrets know it by its path.
            path=workload_path(environment, workload),
            tags=named,
            opts=self._child,
        )
        policy = pulumi.Output.all(log_group.arn, *keys).apply(
            lambda found: permissions(found[0], found[1:])
        )
        permitted = aws.iam.RolePolicy(name, role=role.name, policy=policy, opts=self._child)
        function = aws.lambda_.Function(
            name,
            description=description,
            code=pulumi.AssetArchive(
                {
                    f"{secrets.CODE.name}/{path.name}": pulumi.FileAsset(str(path))
                    for path in sorted(secrets.CODE.glob("*.py"))
                }
            ),
            handler=secrets.HANDLERS[workload],
            runtime=secrets.RUNTIME,
            architectures=[secrets.ARCHITECTURE],
            timeout=secrets.TIMEOUT_SECONDS[workload],
            role=role.arn,
            environment={"variables": {"ENVIRONMENT": environment.name}},
            # Plain text: a metric filter reads the lines as the function writes them.
            logging_config={"log_format": "Text", "log_group": log_group.name},
            tags=named,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[permitted]),
        )
        return function, log_group.name
