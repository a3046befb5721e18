"""Secrets of MCP servers: each server that names one has a copy that only it can read (IAM-08).

A value is never in the manifest, in a stack or in Pulumi's state. The rotation function makes
`generated` values, the first one at once. A person stores `external` values, with MFA:

    read -rs VALUE; printf %s "$VALUE" |
        aws secretsmanager put-secret-value --secret-id ARN --secret-string file:///dev/stdin

A new value makes a leaked one worthless (`aws secretsmanager rotate-secret --secret-id ARN` for
a generated value, `put-secret-value` for one that its issuer has revoked): only the rotation
function can read a version other than the current one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ringfence.cloud.groups import host_group
from ringfence.cloud.policies import Statement, document, writing_logs
from ringfence.cloud.roles import role_arns, workload_path
from ringfence.cloud.services import DATA_CLASSES
from ringfence.cloud.tags import ENVIRONMENT, ROTATION
from ringfence.manifest.model import DataClass, Environment, Secret, Server

ROTATION_WORKLOAD, AGE_WORKLOAD = "secret-rotation", "secret-age"
HANDLERS = {ROTATION_WORKLOAD: "rotation.handler.rotate", AGE_WORKLOAD: "rotation.age.check"}
TIMEOUT_SECONDS = {ROTATION_WORKLOAD: 30, AGE_WORKLOAD: 120}
RECOVERY_DAYS = 30
"""A deleted secret can be restored for so long; AWS's maximum."""
LOG_CLASS: DataClass = "internal"
"""The functions log the name of a secret, never its value."""
AGE_SCHEDULE = "rate(6 hours)"
SET_VALUE = (
    *("secretsmanager:PutSecretValue", "secretsmanager:UpdateSecret"),
    "secretsmanager:UpdateSecretVersionStage",
)
"""Actions that change the current value."""


@dataclass(frozen=True)
class OwnSecret:
    """A server's copy of a secret."""

    server: Server
    secret: Secret

    @property
    def key(self) -> str:
        """Identify the copy; neither name contains a dot."""
        return f"{self.server.name}.{self.secret.name}"

    @property
    def data_class(self) -> DataClass:
        """Highest class that the server's tools return: the secret opens no more."""
        returned = {tool.data_class for tool in self.server.tools.values()}
        return next(each for each in reversed(DATA_CLASSES) if each in returned)

    @property
    def is_generated(self) -> bool:
        return self.secret.rotation == "generated"

    @property
    def readers(self) -> tuple[str, ...]:
        """Workloads that need the value."""
        return (host_group(self.server.host), *map(host_group, self.secret.readers))


def own_secrets(environment: Environment) -> tuple[OwnSecret, ...]:
    return tuple(
        OwnSecret(server, environment.secrets[name])
        for server in environment.servers.values()
        for name in server.secrets
    )


def name_prefix(environment: Environment) -> str:
    """Start of the names of the environment's secrets."""
    return f"{environment.name}-secret-"


def arns(environment: Environment, *, account: str, region: str) -> str:
    """Pattern of the ARNs of the environment's secrets."""
    return f"arn:aws:secretsmanager:{region}:{account}:secret:{name_prefix(environment)}*"


def resource_policy(environment: Environment, own: OwnSecret, account: str) -> str:
    """Policy of a secret, which no permission of a principal overrides.

    Only the server reads, and the hosts that the manifest names for the other end; not even an
    administrator does. Setting a value needs a second factor, because a person does it. So does
    changing the key or description: Pulumi does both by the same call. A principal that may change
    this policy could read and set; that call is recorded and raises an alert, and it remains as
    the last resort.
    https://docs.aws.amazon.com/secretsmanager/latest/userguide/auth-and-access_resource-policies.html
    """

    def roles(workload: str) -> str:
        return role_arns(account=account, path=workload_path(environment, workload))

    function = [roles(ROTATION_WORKLOAD)] if own.is_generated else []
    not_function = {"ArnNotLike": {"aws:PrincipalArn": function}} if function else {}
    readers = sorted({*map(roles, own.readers), *function})
    stage, version = "secretsmanager:VersionStage", "secretsmanager:VersionId"
    return document(
        _nobody("OthersDoNotRead", "secretsmanager:GetSecretValue", ArnNotLike=_principal(readers)),
        _nobody(
            "OnlyTheCurrentValue",
            "secretsmanager:GetSecretValue",
            StringNotEquals={stage: "AWSCURRENT"},
            Null={stage: "false"},  # without a stage, the call returns the current value
            **not_function,
        ),
        _nobody(
            "NoValueByItsVersion",
            "secretsmanager:GetSecretValue",
            Null={version: "false"},
            **not_function,
        ),
        _nobody(
            "ValuesAreSetWithMfa",
            SET_VALUE,
            BoolIfExists={"aws:MultiFactorAuthPresent": "false"},
            **not_function,
        ),
    )


def _principal(arns: Sequence[str]) -> dict[str, list[str]]:
    return {"aws:PrincipalArn": list(arns)}


def _nobody(sid: str, actions: str | Sequence[str], **condition: object) -> Statement:
    return {
        "Sid": sid,
        "Effect": "Deny",
        "Principal": "*",
        "Action": actions if isinstance(actions, str) else list(actions),
        "Resource": "*",
        "Condition": condition,
    }


def reader_permissions(*, secrets: Sequence[str], keys: Sequence[str], region: str) -> str:
    """Permissions of a workload's instance role: to read its secrets, by their ARNs.

    https://docs.aws.amazon.com/secretsmanager/latest/userguide/security-encryption.html
    """
    return document(
        {
            "Sid": "ReadOwnSecrets",
            "Effect": "Allow",
            "Action": "secretsmanager:GetSecretValue",
            "Resource": sorted(secrets),
        },
        _keys("OpenThem", ("kms:Decrypt",), keys=keys, region=region),
    )


def rotation_permissions(
    environment: Environment, *, account: str, region: str, keys: Sequence[str], log_group: str
) -> str:
    """Permissions of the function that makes values, for generated secrets only.

    https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotating-secrets-required-permissions-function.html
    """
    return document(
        {
            "Sid": "RotateGeneratedSecrets",
            "Effect": "Allow",
            "Action": [
                *("secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"),
                *("secretsmanager:PutSecretValue", "secretsmanager:UpdateSecretVersionStage"),
            ],
            "Resource": arns(environment, account=account, region=region),
            "Condition": _tagged(environment, {ROTATION: "generated"}),
        },
        _keys("EncryptThem", ("kms:Decrypt", "kms:GenerateDataKey"), keys=keys, region=region),
        writing_logs(log_group),
    )


def age_permissions(environment: Environment, *, account: str, region: str, log_group: str) -> str:
    """Permissions of the function that searches for overdue secrets: it can read no value."""
    return document(
        {
            "Sid": "FindSecrets",
            "Effect": "Allow",
            "Action": "secretsmanager:ListSecrets",
            "Resource": "*",  # AWS supports no narrower resource
        },
        {
            "Sid": "ReadDates",
            "Effect": "Allow",
            "Action": "secretsmanager:ListSecretVersionIds",
            "Resource": arns(environment, account=account, region=region),
            "Condition": _tagged(environment, {}),
        },
        writing_logs(log_group),
    )


def _tagged(environment: Environment, more: dict[str, str]) -> Statement:
    wanted = {ENVIRONMENT: environment.name, **more}
    return {"StringEquals": {f"aws:ResourceTag/{key}": value for key, value in wanted.items()}}


def _keys(sid: str, actions: Sequence[str], *, keys: Sequence[str], region: str) -> Statement:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": sorted(set(keys)),
        "Condition": {"StringEquals": {"kms:ViaService": f"secretsmanager.{region}.amazonaws.com"}},
    }
