"""Checks of secrets in the cloud: each passes on our account and fails on an account with defaults
and on ours with exactly its property broken."""

from __future__ import annotations

import json
from typing import Any

from breaking import (  # noqa: F401 - collected here
    Aws,
    Broken,
    Exports,
    checks,
    failing,
    inapplicable,
    test_a_broken_property_turns_exactly_its_checks_red,
    test_every_check_is_broken_by_something,
)
from generated import BASE, documents, loaded, manifest
from hypothesis import HealthCheck, given, settings
from moto.secretsmanager.models import FakeSecret, secretsmanager_backends

from ringfence.cloud.tags import ENVIRONMENT, GROUP, SECRET
from ringfence.manifest.model import Environment
from ringfence.rehearsal.account import emulated
from ringfence.rehearsal.engine.stacks import rehearsed_stack
from ringfence.rehearsal.record import Rehearsal
from ringfence.verify.account.cloud import Cloud
from ringfence.verify.account.tagged_resources import secrets

CHECKS = checks("secrets")
REGION = "eu-central-1"


def test_our_account_passes(rehearsal: Rehearsal, environment: Environment) -> None:
    assert failing(CHECKS, Cloud(rehearsal.account.session, environment)) == {}


def test_an_account_with_defaults_fails_everything_that_can_fail(environment: Environment) -> None:
    """Secrets as the console creates them: no policy, AWS's key, no rotation; one of two exists."""
    with emulated(REGION) as account:
        _secret(account.client, environment.name, "ledger-password")
        passing = CHECKS.keys() - failing(CHECKS, Cloud(account.session, environment)).keys()
    # Nothing denies the server access, either.
    assert passing == {"test_a_server_can_read_its_secrets"}


def _secret(aws: Aws, environment: str, name: str, **given: str) -> None:
    tagged = {ENVIRONMENT: environment, GROUP: "server-ledger", SECRET: name}
    aws("secretsmanager").create_secret(
        Name=f"by-hand-{name}",
        Tags=[{"Key": key, "Value": value} for key, value in tagged.items()],
        **given,
    )


def test_an_empty_account_names_what_is_missing(environment: Environment) -> None:
    with emulated(REGION) as account:
        failed = failing(CHECKS, Cloud(account.session, environment))
    assert failed.keys() == CHECKS.keys()
    missing = failed[min(name for name in failed if name.startswith("test_every"))]
    assert missing == (
        "Secrets Manager does not hold ledger.ledger-password, ledger.rates-api-key; run pulumi up"
    )


def test_without_secrets_there_is_nothing_to_verify() -> None:
    with emulated(REGION) as account:
        cloud = Cloud(account.session, loaded(BASE))
        checked = {name: check for name, check in CHECKS.items() if _takes_cloud_only(check)}
        assert inapplicable(checked, cloud) == checked.keys()


def _takes_cloud_only(check: Any) -> bool:
    return check.__code__.co_varnames[: check.__code__.co_argcount] == ("cloud",)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents())
def test_every_manifest_passes(document: dict[str, Any]) -> None:
    with manifest(document) as environment, rehearsed_stack(environment, preview=False) as made:
        cloud = Cloud(made.account.session, environment)
        assert failing(CHECKS, cloud) == {}
        assert len(secrets(cloud)) == sum(len(s.secrets) for s in environment.servers.values())


BROKEN = Broken()


def _arn(out: Exports, name: str = "ledger-password") -> str:
    return out["secret_arns"]["ledger"][name]


def _change(aws: Aws, arn: str, sid: str, **changes: Any) -> None:
    """Change one statement of the policy; without changes, remove it."""
    client = aws("secretsmanager")
    policy = json.loads(client.get_resource_policy(SecretId=arn)["ResourcePolicy"])
    policy["Statement"] = [
        {**each, **changes} if each["Sid"] == sid else each
        for each in policy["Statement"]
        if changes or each["Sid"] != sid
    ]
    client.put_resource_policy(SecretId=arn, ResourcePolicy=json.dumps(policy))


@BROKEN.by("every_secret_is_in_secrets_manager")
def a_secret_is_deleted(aws: Aws, out: Exports) -> None:
    aws("secretsmanager").delete_secret(
        SecretId=_arn(out, "rates-api-key"), ForceDeleteWithoutRecovery=True
    )


@BROKEN.by("secrets_are_under_the_key_of_their_class")
def a_secret_is_under_a_lesser_key(aws: Aws, out: Exports) -> None:
    aws("secretsmanager").update_secret(
        SecretId=_arn(out, "rates-api-key"), KmsKeyId=out["key_arns"]["public"]
    )


@BROKEN.by("a_secret_is_read_by_its_server_only")
def anybody_reads_who_may(aws: Aws, out: Exports) -> None:
    _change(aws, _arn(out), "OthersDoNotRead")


@BROKEN.by("a_secret_is_read_by_its_server_only")
def every_workload_reads(aws: Aws, out: Exports) -> None:
    account = _arn(out).split(":")[4]
    path = f"arn:aws:iam::{account}:role/ringfence/payments-prod/workloads/*"
    condition = {"ArnNotLike": {"aws:PrincipalArn": path}}
    _change(aws, _arn(out, "rates-api-key"), "OthersDoNotRead", Condition=condition)


@BROKEN.by("a_server_can_read_its_secrets")
def the_host_at_the_other_end_is_shut_out(aws: Aws, out: Exports) -> None:
    account = _arn(out).split(":")[4]
    path = f"arn:aws:iam::{account}:role/ringfence/payments-prod/workloads"
    readers = [f"{path}/host-mcp-ledger/*", f"{path}/secret-rotation/*"]
    condition = {"ArnNotLike": {"aws:PrincipalArn": readers}}
    _change(aws, _arn(out), "OthersDoNotRead", Condition=condition)


@BROKEN.by("a_secret_is_read_by_its_server_only")
def another_account_is_let_in(aws: Aws, out: Exports) -> None:
    """Set a policy that denies the account's own people, and by mistake allows another account."""
    client, arn = aws("secretsmanager"), _arn(out)
    policy = json.loads(client.get_resource_policy(SecretId=arn)["ResourcePolicy"])
    wide = {"Effect": "Allow", "Principal": {"AWS": "999999999999"}, "Resource": "*"}
    mallory = "arn:aws:iam::999999999999:user/mallory"
    readers = policy["Statement"][0]["Condition"]["ArnNotLike"]["aws:PrincipalArn"]
    readers.append(mallory)
    policy["Statement"].append({**wide, "Action": "secretsmanager:GetSecretValue"})
    client.put_resource_policy(SecretId=arn, ResourcePolicy=json.dumps(policy))


@BROKEN.by("a_value_that_was_replaced_cannot_be_read")
def the_previous_value_is_there_for_the_asking(aws: Aws, out: Exports) -> None:
    _change(aws, _arn(out), "OnlyTheCurrentValue")


@BROKEN.by("a_value_that_was_replaced_cannot_be_read")
def a_value_is_there_by_its_version(aws: Aws, out: Exports) -> None:
    _change(aws, _arn(out, "rates-api-key"), "NoValueByItsVersion")


@BROKEN.by("values_are_set_with_mfa")
def a_stolen_key_file_replaces_values(aws: Aws, out: Exports) -> None:
    _change(aws, _arn(out, "rates-api-key"), "ValuesAreSetWithMfa")


@BROKEN.by("values_are_set_with_mfa")
def the_second_factor_is_asked_of_those_who_mention_it(aws: Aws, out: Exports) -> None:
    """Bool instead of BoolIfExists: a request with an access key lacks the condition's key."""
    condition = {"Bool": {"aws:MultiFactorAuthPresent": "false"}}
    _change(aws, _arn(out, "rates-api-key"), "ValuesAreSetWithMfa", Condition=condition)


@BROKEN.by("values_are_set_with_mfa")
def nobody_can_replace_a_value(aws: Aws, out: Exports) -> None:
    _change(aws, _arn(out, "rates-api-key"), "ValuesAreSetWithMfa", Condition={})


@BROKEN.by(
    "a_secret_is_read_by_its_server_only",
    "a_value_that_was_replaced_cannot_be_read",
    "values_are_set_with_mfa",
)
def a_policy_goes(aws: Aws, out: Exports) -> None:
    aws("secretsmanager").delete_resource_policy(SecretId=_arn(out))


@BROKEN.by("generated_secrets_rotate")
def the_rotation_is_cancelled(aws: Aws, out: Exports) -> None:
    aws("secretsmanager").cancel_rotate_secret(SecretId=_arn(out))


@BROKEN.by("generated_secrets_rotate")
def the_rotation_is_slow(aws: Aws, out: Exports) -> None:
    arn = _arn(out)
    found = secretsmanager_backends[arn.split(":")[4]][REGION].secrets[arn]
    assert isinstance(found, FakeSecret)
    found.auto_rotate_after_days = 365


def _function(aws: Aws, use: str) -> str:
    found = aws("lambda").list_functions()["Functions"]
    return next(each["FunctionName"] for each in found if use in each["FunctionName"])


def _statement(aws: Aws, function: str) -> str:
    policy = json.loads(aws("lambda").get_policy(FunctionName=function)["Policy"])
    return policy["Statement"][0]["Sid"]


@BROKEN.by("generated_secrets_rotate")
def secrets_manager_may_not_start_the_function(aws: Aws, out: Exports) -> None:
    name = _function(aws, "secret-rotation")
    aws("lambda").remove_permission(FunctionName=name, StatementId=_statement(aws, name))


@BROKEN.by("generated_secrets_rotate")
def secrets_of_any_account_start_the_function(aws: Aws, out: Exports) -> None:
    aws("lambda").add_permission(
        FunctionName=_function(aws, "secret-rotation"),
        StatementId="wide",
        Action="lambda:InvokeFunction",
        Principal="secretsmanager.amazonaws.com",
    )


@BROKEN.by("secrets_that_are_due_call_somebody")
def nobody_looks_for_secrets_that_are_due(aws: Aws, out: Exports) -> None:
    rules = aws("events").list_rules()["Rules"]
    (rule,) = [each["Name"] for each in rules if "secret-age" in each["Name"]]
    aws("events").disable_rule(Name=rule)


@BROKEN.by("secrets_that_are_due_call_somebody")
def the_function_that_looks_is_not_started(aws: Aws, out: Exports) -> None:
    name = _function(aws, "secret-age")
    aws("lambda").remove_permission(FunctionName=name, StatementId=_statement(aws, name))


@BROKEN.by("secrets_that_are_due_call_somebody")
def nobody_counts_secrets_that_are_due(aws: Aws, out: Exports) -> None:
    for each in aws("logs").describe_metric_filters()["metricFilters"]:
        if "overdue" in each["filterPattern"]:
            aws("logs").delete_metric_filter(
                logGroupName=each["logGroupName"], filterName=each["filterName"]
            )


def _alarm(aws: Aws, key: str) -> dict[str, Any]:
    alarms = aws("cloudwatch").describe_alarms()["MetricAlarms"]
    return next(alarm for alarm in alarms if alarm["MetricName"] == key)


@BROKEN.by("secrets_that_are_due_call_somebody")
def silence_is_taken_for_good_news(aws: Aws, out: Exports) -> None:
    alarm = _alarm(aws, "secrets-overdue")
    kept = ("AlarmName", "AlarmActions", "MetricName", "Namespace", "Statistic", "Period")
    more = ("EvaluationPeriods", "Threshold", "ComparisonOperator")
    given = {key: alarm[key] for key in (*kept, *more)}
    aws("cloudwatch").put_metric_alarm(**given, TreatMissingData="notBreaching")


@BROKEN.by("secrets_that_are_due_call_somebody")
def the_alarm_is_silenced(aws: Aws, out: Exports) -> None:
    name = _alarm(aws, "secrets-overdue")["AlarmName"]
    aws("cloudwatch").disable_alarm_actions(AlarmNames=[name])
