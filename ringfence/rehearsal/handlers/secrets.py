"""Secrets Manager."""

from __future__ import annotations

import time
from collections.abc import Mapping

from moto.secretsmanager.models import FakeSecret, secretsmanager_backends

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.naming import physical, tags
from ringfence.rehearsal.record import Create, Created, Inputs


def secret(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    key = {"KmsKeyId": inputs["kmsKeyId"]} if inputs.get("kmsKeyId") else {}
    made = aws.client("secretsmanager").create_secret(
        Name=physical(name, inputs, 512),
        Description=inputs.get("description", ""),
        Tags=tags(inputs),
        **key,
    )
    return Created(made["ARN"], {"arn": made["ARN"], "name": made["Name"]})


def policy(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    aws.client("secretsmanager").put_resource_policy(
        SecretId=inputs["secretArn"],
        ResourcePolicy=inputs["policy"],
        BlockPublicPolicy=inputs.get("blockPublicPolicy", False),
    )
    return Created(inputs["secretArn"], {})


def rotation(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    """Switched on, and nothing run: moto would start the function in Docker, and stumbles over a
    secret without a value, which AWS has its function fill."""
    function = aws.client("lambda").get_function(FunctionName=inputs["rotationLambdaArn"])
    found = secretsmanager_backends[aws.id][aws.region].secrets[inputs["secretId"]]
    assert isinstance(found, FakeSecret)
    days = inputs["rotationRules"]["automaticallyAfterDays"]
    found.rotation_requested = found.rotation_enabled = True
    found.rotation_lambda_arn = function["Configuration"]["FunctionArn"]
    found.auto_rotate_after_days = days
    found.next_rotation_date = int(time.time()) + days * 86400
    return Created(inputs["secretId"], {"rotationEnabled": True})


RESOURCES: Mapping[str, Create] = {
    "aws:secretsmanager/secret:Secret": secret,
    "aws:secretsmanager/secretPolicy:SecretPolicy": policy,
    "aws:secretsmanager/secretRotation:SecretRotation": rotation,
}
