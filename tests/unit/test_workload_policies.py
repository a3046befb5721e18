"""Permissions on secrets of workloads' instance roles and of functions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ringfence.cloud import roles, secrets, sessions
from ringfence.cloud.groups import host_group
from ringfence.manifest.model import Environment
from ringfence.verify.account.access import AccessRequest, IamDecision, IamPrincipal, decide

EXAMPLE = Path(__file__).parents[2] / "inventories" / "aws-example" / "environment.yaml"
ACCOUNT, REGION = "111122223333", "eu-central-1"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"
GROUP = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:payments-prod-x"
THROUGH = {"kms:ViaService": f"secretsmanager.{REGION}.amazonaws.com"}
READ = "secretsmanager:GetSecretValue"


@pytest.fixture(scope="module")
def environment() -> Environment:
    return Environment.load(EXAMPLE)


def own(environment: Environment, name: str) -> secrets.OwnSecret:
    return next(o for o in secrets.own_secrets(environment) if o.secret.name == name)


def arn(name: str) -> str:
    return f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:payments-prod-secret-{name}-1-AbCdEf"


def may(
    policy: str,
    action: str,
    resource: str,
    who: str = "x",
    guard: str | None = None,
    **context: Any,
) -> bool:
    principal = IamPrincipal("AWS", f"arn:aws:iam::{ACCOUNT}:role/{who}")
    request = AccessRequest(action, resource, principal, context)
    resource_policy = json.loads(guard) if guard else None
    return decide(request, [json.loads(policy)], resource=resource_policy) is IamDecision.ALLOWED


def role(environment: Environment, workload: str) -> str:
    return f"{roles.workload_path(environment, workload).removeprefix('/')}any"


def test_a_secret_belongs_to_the_highest_class_of_its_server(environment: Environment) -> None:
    found = {o.key: o.data_class for o in secrets.own_secrets(environment)}
    assert found == {"ledger.ledger-password": "restricted", "ledger.rates-api-key": "restricted"}


def test_secrets_of_two_servers_are_never_the_same(environment: Environment) -> None:
    """Hyphens alone would not distinguish them."""
    ledger, password = environment.servers["ledger"], environment.secrets["ledger-password"]
    keys = {
        secrets.OwnSecret(replace(ledger, name=server), replace(password, name=secret)).key
        for server, secret in (("a-b", "c"), ("a", "b-c"))
    }
    assert len(keys) == 2


def test_a_workload_acts_with_the_role_of_its_machine(environment: Environment) -> None:
    assert own(environment, "ledger-password").readers == ("host-mcp-ledger", "host-ledger-db-1")
    assert own(environment, "rates-api-key").readers == ("host-mcp-ledger",)


def test_a_reader_reads_its_own_through_secrets_manager(environment: Environment) -> None:
    policy = secrets.reader_permissions(secrets=[arn("rates")], keys=[KEY], region=REGION)
    guard = secrets.resource_policy(environment, own(environment, "rates-api-key"), ACCOUNT)
    server = role(environment, "host-mcp-ledger")
    assert may(policy, READ, arn("rates"), server, guard)
    assert not may(policy, READ, arn("other"), server, guard)
    assert not may(policy, READ, arn("rates"), role(environment, "host-tools-1"), guard)
    others = [h for h in environment.hosts.values() if h.name != "mcp-ledger"]
    for host in others:
        assert not may(policy, READ, arn("rates"), role(environment, host_group(host)), guard)
    assert not may(policy, "secretsmanager:PutSecretValue", arn("rates"), server, guard)
    assert may(policy, "kms:Decrypt", KEY, **THROUGH)
    assert not may(policy, "kms:Decrypt", KEY)
    assert not may(policy, "kms:GenerateDataKey", KEY, **THROUGH)


def test_the_function_makes_generated_secrets_of_the_environment_only(
    environment: Environment,
) -> None:
    policy = secrets.rotation_permissions(
        environment, account=ACCOUNT, region=REGION, keys=[KEY], log_group=GROUP
    )
    tagged = {
        "aws:ResourceTag/ringfence:environment": "payments-prod",
        "aws:ResourceTag/ringfence:rotation": "generated",
    }
    function = role(environment, secrets.ROTATION_WORKLOAD)
    guard = secrets.resource_policy(environment, own(environment, "ledger-password"), ACCOUNT)
    steps = {"secretsmanager:VersionStage": "AWSPENDING", "secretsmanager:VersionId": "1"}
    for action in (READ, "secretsmanager:PutSecretValue"):
        assert may(policy, action, arn("x"), function, guard, **tagged, **steps)
        for key, other in (("rotation", "external"), ("environment", "billing")):
            changed = {**tagged, f"aws:ResourceTag/ringfence:{key}": other}
            assert not may(policy, action, arn("x"), function, guard, **changed)
    external = secrets.resource_policy(environment, own(environment, "rates-api-key"), ACCOUNT)
    assert not may(policy, READ, arn("x"), function, external, **tagged)
    assert not may(policy, "secretsmanager:PutSecretValue", arn("x"), function, external, **tagged)
    assert not may(policy, "secretsmanager:PutResourcePolicy", arn("x"), function, **tagged)


def test_the_function_that_looks_at_dates_reads_no_value(environment: Environment) -> None:
    policy = secrets.age_permissions(environment, account=ACCOUNT, region=REGION, log_group=GROUP)
    tagged = {"aws:ResourceTag/ringfence:environment": "payments-prod"}
    assert may(policy, "secretsmanager:ListSecrets", "*")
    assert may(policy, "secretsmanager:ListSecretVersionIds", arn("x"), **tagged)
    for action in (READ, "secretsmanager:BatchGetSecretValue", *secrets.SET_VALUE):
        assert not may(policy, action, arn("x"), **tagged)
    assert not may(policy, "kms:Decrypt", KEY, **THROUGH)


def test_a_host_records_sessions_and_reads_no_record() -> None:
    policy = sessions.host_permissions(log_group=GROUP, key=KEY, account=ACCOUNT, region=REGION)
    stream = f"{GROUP}:log-stream:x"
    assert may(policy, "logs:PutLogEvents", stream)
    assert may(policy, "kms:Decrypt", KEY)
    for action in ("logs:GetLogEvents", "logs:DeleteLogStream", "logs:FilterLogEvents"):
        assert not may(policy, action, stream)
    assert not may(policy, "logs:PutLogEvents", stream.replace("payments-prod-x", "account-x"))
    assert not may(policy, "kms:Decrypt", f"{KEY}2")
