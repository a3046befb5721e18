"""IAM-08: each MCP server has its secrets in Secrets Manager, to itself, and renewed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ringfence.cloud import roles
from ringfence.cloud.event_alerts import age_alarms, namespace
from ringfence.cloud.groups import host_group, server_group
from ringfence.cloud.secrets import (
    AGE_WORKLOAD,
    ROTATION_WORKLOAD,
    SET_VALUE,
    OwnSecret,
    own_secrets,
)
from ringfence.manifest.model import Environment
from ringfence.report import not_applicable
from ringfence.verify.account import tagged_resources
from ringfence.verify.account.access import (
    AccessRequest,
    Document,
    IamDecision,
    IamPrincipal,
    decide,
    granted,
)
from ringfence.verify.account.cloud import Cloud
from ringfence.verify.account.identities import Identities
from ringfence.verify.account.tagged_resources import UP

READ = "secretsmanager:GetSecretValue"
EVERYTHING: Document = {"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
"""Policy of an administrator."""
NOBODY = "999999999999"
"""An account that is none of ours."""
MFA = {"aws:MultiFactorAuthPresent": "true"}
WITHOUT_MFA = ({}, {"aws:MultiFactorAuthPresent": "false"})
"""With an access key nothing is said about a second factor."""


@pytest.mark.control("IAM-08")
def test_every_secret_is_in_secrets_manager(cloud: Cloud, environment: Environment):
    """A secret elsewhere ends up in a file, an environment variable or a chat."""
    held = tagged_resources.secrets(cloud)
    missing = [own.key for own in _declared(environment) if _place(own) not in held]
    assert not missing, f"Secrets Manager does not hold {', '.join(missing)}; {UP}"


@pytest.mark.control("IAM-08")
def test_secrets_are_under_the_key_of_their_class(cloud: Cloud):
    """A secret opens its server's data: an identity for a lower class must not read it."""
    found = [
        f"{own.key} (not of class {own.data_class})"
        for own, secret in _held(cloud)
        if not tagged_resources.is_key_of_class(cloud, secret.get("KmsKeyId"), own.data_class)
    ]
    assert not found, f"under another key: {', '.join(found)}; {UP}"


@pytest.mark.control("IAM-08")
def test_a_secret_is_read_by_its_server_only(cloud: Cloud):
    """Neither a neighbour nor an administrator has a use for it, but an intruder in them has."""
    found: list[str] = []
    for own, secret in _held(cloud):
        policy, readers = _policy(cloud, secret), {*own.readers}
        if own.is_generated:
            readers.add(ROTATION_WORKLOAD)
        found += [
            f"{own.key} by {principal.name}"
            for principal in _others(cloud, readers)
            if _read(secret, principal, policy) is not IamDecision.DENIED
        ]
        stranger = IamPrincipal("AWS", f"arn:aws:iam::{NOBODY}:user/mallory")
        if (
            granted([policy], AccessRequest(READ, secret["ARN"], stranger, MFA))
            is IamDecision.ALLOWED
        ):
            found.append(f"{own.key} by other accounts")
    assert not found, f"may be read: {', '.join(found[:4])}; {UP}"


@pytest.mark.control("IAM-08")
def test_a_server_can_read_its_secrets(cloud: Cloud):
    """A guard that blocks the server is removed by the next person who needs it to run."""
    found = [
        f"{own.key} by {workload}"
        for own, secret in _held(cloud)
        for workload in own.readers
        for context in ({}, {"secretsmanager:VersionStage": "AWSCURRENT"})
        if _read(secret, _workload(cloud, workload), _policy(cloud, secret), **context)
        is not IamDecision.ALLOWED
    ]
    assert not found, f"cannot be read: {', '.join(found)}; {UP}"


@pytest.mark.control("IAM-08")
def test_a_value_that_was_replaced_cannot_be_read(cloud: Cloud):
    """Revoked at once: a leaked value must not be there for the asking under its old name."""
    found = [
        f"{own.key} ({', '.join(context.values())})"
        for own, secret in _held(cloud)
        for context in (
            {"secretsmanager:VersionStage": "AWSPREVIOUS"},
            {"secretsmanager:VersionStage": "AWSPENDING"},
            {"secretsmanager:VersionId": "11111111-2222-3333-4444-555555555555"},
        )
        if _read(secret, _workload(cloud, own.readers[0]), _policy(cloud, secret), **context)
        is not IamDecision.DENIED
    ]
    assert not found, f"old values can be read: {', '.join(found)}; {UP}"


@pytest.mark.control("IAM-08")
def test_values_are_set_with_mfa(cloud: Cloud):
    """A new secret decides whom the server trusts; a stolen key file must not set one."""
    person = IamPrincipal("AWS", f"arn:aws:iam::{cloud.account}:user/alice")
    for own, secret in _held(cloud):
        policy = _policy(cloud, secret)

        def may(
            action: str,
            context: dict[str, str],
            arn: str = secret["ARN"],
            policy: Document = policy,
        ) -> bool:
            request = AccessRequest(action, arn, person, context)
            return decide(request, [EVERYTHING], resource=policy) is IamDecision.ALLOWED

        without = sorted({a for a in SET_VALUE for context in WITHOUT_MFA if may(a, context)})
        assert not without, f"{own.key}: {', '.join(without)} without MFA; {UP}"
        shut_out = [action for action in SET_VALUE if not may(action, MFA)]
        assert not shut_out, f"{own.key}: nobody may {', '.join(shut_out)}; {UP}"


@pytest.mark.control("IAM-08")
def test_generated_secrets_rotate(cloud: Cloud):
    """A value that nobody has to type can change before it has leaked."""
    found: list[str] = []
    generated = [(own, secret) for own, secret in _held(cloud) if own.is_generated]
    for own, secret in generated:
        if not secret.get("RotationEnabled"):
            found.append(f"{own.key} does not rotate")
        elif not 0 < (days := _days(secret)) <= own.secret.rotation_days:
            found.append(f"{own.key} rotates every {days} days")
        elif not _may_start(
            cloud, secret["RotationLambdaARN"], "secretsmanager.amazonaws.com", secret["ARN"]
        ):
            found.append(f"{own.key}: its function cannot be started, or by any account")
    if not generated:
        not_applicable("the manifest has no secret that is generated")
    assert not found, f"{', '.join(found)}; {UP}"


@pytest.mark.control("IAM-08")
def test_secrets_that_are_due_call_somebody(cloud: Cloud, environment: Environment):
    """Keys that others issue wait for a person, who forgets; and a rotation may fail unseen."""
    if not own_secrets(environment):
        not_applicable("no server of the manifest has a secret")
    (wanted,) = age_alarms()
    looks = [
        arn
        for arn, rule in _started_on_schedule(cloud)
        if f":function:{environment.name}-{AGE_WORKLOAD}" in arn
        and _may_start(cloud, arn, "events.amazonaws.com", rule)
    ]
    assert looks, f"nothing looks for secrets that are due; {UP}"
    counted = [
        each
        for each in cloud.all("logs", "describe_metric_filters", "metricFilters")
        if each["filterPattern"] == wanted.pattern
        and any(
            (metric["metricNamespace"], metric["metricName"], metric["metricValue"])
            == (namespace(environment), wanted.key, wanted.value)
            for metric in each["metricTransformations"]
        )
    ]
    assert counted, f"nobody counts the secrets that are due; {UP}"
    topic = tagged_resources.topic(cloud)
    alarms = [
        alarm
        for alarm in cloud.all("cloudwatch", "describe_alarms", "MetricAlarms")
        if (alarm["Namespace"], alarm["MetricName"]) == (namespace(environment), wanted.key)
        and alarm["Threshold"] <= 1
        and alarm["ActionsEnabled"]
        and topic in alarm["AlarmActions"]
        # Silence of the function is an alarm as well.
        and alarm["TreatMissingData"] == "breaching"
    ]
    assert alarms, f"nobody is notified of secrets that are due; {UP}"


def _declared(environment: Environment) -> tuple[OwnSecret, ...]:
    found = own_secrets(environment)
    if not found:
        not_applicable("no server of the manifest has a secret")
    return found


def _place(own: OwnSecret) -> tuple[str, str]:
    return server_group(own.server), own.secret.name


def _held(cloud: Cloud) -> list[tuple[OwnSecret, Document]]:
    """Those that are there; that others are missing another check says."""
    held = tagged_resources.secrets(cloud)
    found = [
        (own, held[_place(own)]) for own in _declared(cloud.environment) if _place(own) in held
    ]
    assert found, f"Secrets Manager holds nothing of {cloud.environment.name}; {UP}"
    return found


def _policy(cloud: Cloud, secret: Document) -> Document:
    found = cloud.client("secretsmanager").get_resource_policy(SecretId=secret["ARN"])
    return json.loads(found.get("ResourcePolicy") or "{}")


def _workload(cloud: Cloud, workload: str) -> IamPrincipal:
    """A role as the stack makes it for one."""
    path = roles.workload_path(cloud.environment, workload)
    return IamPrincipal("AWS", f"{roles.role_prefix(account=cloud.account, path=path)}any")


def _others(cloud: Cloud, readers: set[str]) -> Iterator[IamPrincipal]:
    """Yield everybody in the account, and anybody to come, except the readers."""
    environment = cloud.environment
    workloads = {
        *map(host_group, environment.hosts.values()),
        *map(server_group, environment.servers.values()),
        *(AGE_WORKLOAD, ROTATION_WORKLOAD),
    }
    yield from (_workload(cloud, each) for each in sorted(workloads - readers))
    own = [
        roles.role_prefix(account=cloud.account, path=roles.workload_path(environment, each))
        for each in readers
    ]
    found = Identities(cloud)
    for identity in (*found.users, *found.roles):
        if not identity.arn.startswith(tuple(own)):
            yield identity.principal
    for name in ("root", "user/admin", "role/admin", "role/ringfence/other/workloads/x/y"):
        yield IamPrincipal("AWS", f"arn:aws:iam::{cloud.account}:{name}")


def _read(secret: Document, who: IamPrincipal, policy: Document, **context: str) -> IamDecision:
    """Decide for a principal with all permissions of its own."""
    request = AccessRequest(READ, secret["ARN"], who, {**MFA, **context})
    return decide(request, [EVERYTHING], resource=policy)


def _days(secret: Document) -> int:
    rules = secret.get("RotationRules", {})
    expression = rules.get("ScheduleExpression", "")
    if expression.startswith("rate(") and "day" in expression:
        return int(expression.removeprefix("rate(").split()[0])
    return rules.get("AutomaticallyAfterDays", 0)


def _may_start(cloud: Cloud, function: str, service: str, source: str) -> bool:
    """Whether the service may, for this source and for no other account's."""
    client = cloud.client("lambda")
    try:
        policy = json.loads(client.get_policy(FunctionName=function)["Policy"])
    except client.exceptions.ResourceNotFoundException:
        return False

    def may(account: str) -> bool:
        arn = source.replace(cloud.account, account)
        context = {"aws:SourceAccount": account, "aws:SourceArn": arn}
        request = AccessRequest(
            "lambda:InvokeFunction", function, IamPrincipal("Service", service), context
        )
        return granted([policy], request) is IamDecision.ALLOWED

    return may(cloud.account) and not may(NOBODY)


def _started_on_schedule(cloud: Cloud) -> Iterator[tuple[str, str]]:
    """Targets, with the rule that starts them."""
    for rule in cloud.all("events", "list_rules", "Rules"):
        if rule.get("ScheduleExpression") and rule["State"] == "ENABLED":
            listed = cloud.client("events").list_targets_by_rule(Rule=rule["Name"])
            yield from ((target["Arn"], rule["Arn"]) for target in listed["Targets"])
