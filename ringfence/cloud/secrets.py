"""Secrets of MCP servers: one for each server that names it, that only this server reads (IAM-08).

A value is never in the manifest, in a stack or in Pulumi's state. A `generated` one is made by
the rotation function, the first at once. An `external` one is put there by a person, with MFA:

    read -rs VALUE; printf %s "$VALUE" |
        aws secretsmanager put-secret-value --secret-id ARN --secret-string file:///dev/stdin

A value that leaked is worthless as soon as there is another one (`aws secretsmanager
rotate-secret --secret-id ARN` for a generated one, `put-secret-value` for one that its issuer
has revoked): nobody but the rotation function reads a version that is not the current one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ringfence.cloud.groups import host_group
from ringfence.cloud.policies import Statement, document
from ringfence.cloud.roles import role_arns, workload_path
from ringfence.cloud.services import DATA_CLASSES
from ringfence.cloud.tags import ENVIRONMENT, ROTATION
from ringfence.manifest.model import DataClass, Environment, Secret, Server

ROTATION_WORKLOAD, AGE_WORKLOAD = "secret-rotation", "secret-age"
HANDLERS = {ROTATION_WORKLOAD: "rotation.handler.rotate", AGE_WORKLOAD: "rotation.age.check"}
TIMEOUT_SECONDS = {ROTATION_WORKLOAD: 30, AGE_WORKLOAD: 120}
RECOVERY_DAYS = 30
"""In which a deleted secret can be had back; the longest that AWS offers."""
LOG_CLASS: DataClass = "internal"
"""The functions log which secret, and nothing of its value."""
AGE_SCHEDULE = "rate(6 hours)"
SET_VALUE = (
    *("secretsmanager:PutSecretValue", "secretsmanager:UpdateSecret"),
    "secretsmanager:UpdateSecretVersionStage",
)
"""Actions that decide what the current value is."""


@dataclass(frozen=True)
class OwnSecret:
    """The copy of a secret that one server has."""

    server: Server
    secret: Secret

    @property
    def key(self) -> str:
        """Neither name has a dot in it."""
        return f"{self.server.name}.{self.secret.name}"

    @property
    def data_class(self) -> DataClass:
        """It opens at most what the server's tools give out."""
        given_out = {tool.data_class for tool in self.server.tools.values()}
        return next(each for each in reversed(DATA_CLASSES) if each in given_out)

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
    """How the names of its secrets begin."""
    return f"{environment.name}-secret-"


def arns(environment: Environment, account: str, region: str) -> str:
    return f"arn:aws:secretsmanager:{region}:{account}:secret:{name_prefix(environment)}*"


def resource_policy(environment: Environment, own: OwnSecret, account: str) -> str:
    """Of a secret: what no permission of anybody's overrides.

    Reading is for the server, and the hosts that the manifest names for the other end; not even
    an administrator reads. Setting takes a second factor, since a person does it; so does another
    key or description, which Pulumi sets by the same call. Whoever may
    change this policy could do both, which is recorded, and told to the security contact: that
    is the way in when everything else is broken.
    https://docs.aws.amazon.com/secretsmanager/latest/userguide/auth-and-access_resource-policies.html
    """

    def roles(workload: str) -> str:
        return role_arns(account, workload_path(environment, workload))

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
            Null={stage: "false"},  # not asked for is the current one
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


def reader_permissions(secrets: Sequence[str], keys: Sequence[str], region: str) -> str:
    """Of the instance role of a workload: to read its secrets, by their ARNs.

    https://docs.aws.amazon.com/secretsmanager/latest/userguide/security-encryption.html
    """
    return document(
        {
            "Sid": "ReadOwnSecrets",
            "Effect": "Allow",
            "Action": "secretsmanager:GetSecretValue",
            "Resource": sorted(secrets),
        },
        _keys("OpenThem", ("kms:Decrypt",), keys, region),
    )


def rotation_permissions(
    environment: Environment, account: str, region: str, keys: Sequence[str], log_group: str
) -> str:
    """Of the function that makes values: of generated secrets only.

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
            "Resource": arns(environment, account, region),
            "Condition": _tagged(environment, {ROTATION: "generated"}),
        },
        _keys("EncryptThem", ("kms:Decrypt", "kms:GenerateDataKey"), keys, region),
        _log(log_group),
    )


def age_permissions(environment: Environment, account: str, region: str, log_group: str) -> str:
    """Of the function that looks at dates: it can read no value."""
    return document(
        {
            "Sid": "FindSecrets",
            "Effect": "Allow",
            "Action": "secretsmanager:ListSecrets",
            "Resource": "*",  # AWS offers it for the whole account only
        },
        {
            "Sid": "ReadDates",
            "Effect": "Allow",
            "Action": "secretsmanager:ListSecretVersionIds",
            "Resource": arns(environment, account, region),
            "Condition": _tagged(environment, {}),
        },
        _log(log_group),
    )


def _tagged(environment: Environment, more: dict[str, str]) -> Statement:
    wanted = {ENVIRONMENT: environment.name, **more}
    return {"StringEquals": {f"aws:ResourceTag/{key}": value for key, value in wanted.items()}}


def _keys(sid: str, actions: Sequence[str], keys: Sequence[str], region: str) -> Statement:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": sorted(set(keys)),
        "Condition": {"StringEquals": {"kms:ViaService": f"secretsmanager.{region}.amazonaws.com"}},
    }


def _log(log_group: str) -> Statement:
    return {
        "Sid": "Log",
        "Effect": "Allow",
        "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
        "Resource": f"{log_group}:*",
    }
