"""Checks of Session Manager: each passes on our account and fails on an account with defaults and
on ours with exactly its property broken."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from breaking import (  # noqa: F401 - collected here
    Aws,
    Broken,
    Exports,
    checks,
    failing,
    test_a_broken_property_turns_exactly_its_checks_red,
    test_every_check_is_broken_by_something,
)

from ringfence.cloud.sessions import PREFERENCES
from ringfence.cloud.tags import ENVIRONMENT
from ringfence.manifest.model import Environment
from ringfence.rehearsal.account import emulated
from ringfence.rehearsal.record import Rehearsal
from ringfence.verify.account.cloud import Cloud

CHECKS = checks("sessions")
REGION = "eu-central-1"


def test_our_account_passes(rehearsal: Rehearsal, environment: Environment) -> None:
    assert failing(CHECKS, Cloud(rehearsal.account.session, environment)) == {}


def test_an_account_with_defaults_fails_everything_that_can_fail(environment: Environment) -> None:
    """Preferences as the console creates them, and AWS's sample policy for users."""
    with emulated(REGION) as account:
        _by_hand(account.client, environment.name)
        passing = CHECKS.keys() - failing(CHECKS, Cloud(account.session, environment)).keys()
    assert passing == set()


def _by_hand(aws: Aws, name: str) -> None:
    ssm, iam = aws("ssm"), aws("iam")
    account = aws("sts").get_caller_identity()["Account"]
    named = {ENVIRONMENT: name, "Name": f"{name}-sessions"}
    for document in (PREFERENCES, "sessions"):
        ssm.create_document(
            Name=document,
            DocumentType="Session",
            Content=json.dumps({"schemaVersion": "1.0", "sessionType": "Standard_Stream"}),
            Tags=_tags(named),
        )
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": account}}
    iam.create_role(
        RoleName="operators",
        AssumeRolePolicyDocument=_document(trust),
        Tags=_tags({**named, "Name": f"{name}-operators"}),
    )
    anything = {"Effect": "Allow", "Action": ["ssm:StartSession", "ssm:TerminateSession"]}
    iam.put_role_policy(
        RoleName="operators",
        PolicyName="sessions",
        PolicyDocument=_document({**anything, "Resource": "*"}),
    )


def _tags(found: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in found.items()]


def _document(*statements: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def test_an_empty_account_names_what_is_missing(environment: Environment) -> None:
    with emulated(REGION) as account:
        failed = failing(CHECKS, Cloud(account.session, environment))
    assert failed.keys() == CHECKS.keys()
    assert {*failed.values()} == {
        "payments-prod has no document for sessions; run pulumi up",
        "payments-prod has no role operators; run pulumi up",
    }


BROKEN = Broken()


def _role(out: Exports) -> str:
    return out["operators_role_arn"].rsplit("/", 1)[1]


def _trust(aws: Aws, out: Exports, change: Any) -> None:
    """Change the conditions for assuming the role."""
    role = aws("iam").get_role(RoleName=_role(out))["Role"]
    document = role["AssumeRolePolicyDocument"]
    change(document["Statement"][0]["Condition"])
    aws("iam").update_assume_role_policy(RoleName=_role(out), PolicyDocument=json.dumps(document))


def _permissions(aws: Aws, out: Exports, sid: str, **changes: Any) -> None:
    iam, role = aws("iam"), _role(out)
    (name,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
    document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    document["Statement"] = [
        {**each, **changes} if each["Sid"] == sid else each for each in document["Statement"]
    ]
    iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(document))


def _condition(aws: Aws, out: Exports, sid: str) -> dict[str, Any]:
    iam, role = aws("iam"), _role(out)
    (name,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
    document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    return next(each["Condition"] for each in document["Statement"] if each["Sid"] == sid)


def _inputs(aws: Aws, name: str, **changes: Any) -> None:
    """Change a document by a new version."""
    ssm = aws("ssm")
    content = json.loads(ssm.get_document(Name=name)["Content"])
    content["inputs"] |= changes
    made = ssm.update_document(Name=name, Content=json.dumps(content), DocumentVersion="$LATEST")[
        "DocumentDescription"
    ]["DocumentVersion"]
    ssm.update_document_default_version(Name=name, DocumentVersion=made)


@BROKEN.by("operators_are_administrators_with_mfa")
def the_second_factor_is_forgotten(aws: Aws, out: Exports) -> None:
    _trust(aws, out, lambda found: (found.pop("Bool"), found.pop("NumericLessThan")))


@BROKEN.by("operators_are_administrators_with_mfa")
def a_code_is_good_for_a_day(aws: Aws, out: Exports) -> None:
    _trust(aws, out, lambda found: found.pop("NumericLessThan"))


@BROKEN.by("operators_are_administrators_with_mfa")
def anybody_with_a_second_factor_operates(aws: Aws, out: Exports) -> None:
    _trust(aws, out, lambda found: found["StringEquals"].pop("aws:username"))


@BROKEN.by("operators_are_themselves_on_hosts")
def operators_choose_who_they_are(aws: Aws, out: Exports) -> None:
    key = "aws:RequestTag/SSMSessionRunAs"
    _trust(aws, out, lambda found: found["StringEquals"].pop(key))


@BROKEN.by("operators_are_themselves_on_hosts")
def everybody_is_root_by_sudo(aws: Aws, out: Exports) -> None:
    _inputs(aws, out["session_document"], runAsEnabled=False)


@BROKEN.by("operators_are_themselves_on_hosts")
def everybody_is_the_same(aws: Aws, out: Exports) -> None:
    _inputs(aws, PREFERENCES, runAsDefaultUser="admin")


@BROKEN.by("sessions_end_by_themselves")
def sessions_have_no_end(aws: Aws, out: Exports) -> None:
    _inputs(aws, out["session_document"], maxSessionDuration="")


@BROKEN.by("sessions_end_by_themselves")
def sessions_idle_for_an_hour(aws: Aws, out: Exports) -> None:
    _inputs(aws, PREFERENCES, idleSessionTimeout="60")


@BROKEN.by("operators_reach_hosts_of_this_environment_only")
def operators_reach_every_host(aws: Aws, out: Exports) -> None:
    found = _condition(aws, out, "OnHostsOfTheEnvironment")
    del found["StringEquals"]
    _permissions(aws, out, "OnHostsOfTheEnvironment", Condition=found)


@BROKEN.by("operators_reach_hosts_of_this_environment_only")
def operators_reach_hosts_of_similar_names(aws: Aws, out: Exports) -> None:
    found = _condition(aws, out, "OnHostsOfTheEnvironment")
    found["StringLike"] = {f"ssm:resourceTag/{ENVIRONMENT}": "payments-prod*"}
    del found["StringEquals"]
    _permissions(aws, out, "OnHostsOfTheEnvironment", Condition=found)


@BROKEN.by("operators_end_their_own_sessions_only")
def operators_end_any_session(aws: Aws, out: Exports) -> None:
    _permissions(aws, out, "OwnSessions", Condition={})


@BROKEN.by("operators_end_their_own_sessions_only")
def operators_end_what_bears_their_name(aws: Aws, out: Exports) -> None:
    """Use the condition of AWS's sample for users; a role has no user name."""
    owned = {"StringLike": {"ssm:resourceTag/aws:ssmmessages:session-id": "${aws:username}"}}
    _permissions(aws, out, "OwnSessions", Condition=owned)


@BROKEN.by("operators_have_recorded_ways_only")
def operators_use_any_document(aws: Aws, out: Exports) -> None:
    _permissions(aws, out, "ByTheseDocuments", Resource="arn:aws:ssm:*:*:document/*")


@BROKEN.by("operators_have_recorded_ways_only")
def the_document_is_not_checked(aws: Aws, out: Exports) -> None:
    found = _condition(aws, out, "OnHostsOfTheEnvironment")
    del found["BoolIfExists"]
    _permissions(aws, out, "OnHostsOfTheEnvironment", Condition=found)


@BROKEN.by("operators_have_recorded_ways_only")
def operators_send_commands(aws: Aws, out: Exports) -> None:
    more = {"Effect": "Allow", "Action": "ssm:Send*", "Resource": "*"}
    aws("iam").put_role_policy(
        RoleName=_role(out), PolicyName="more", PolicyDocument=_document(more)
    )


@BROKEN.by("operators_have_recorded_ways_only")
def operators_lose_ssh(aws: Aws, out: Exports) -> None:
    account = out["operators_role_arn"].split(":")[4]
    own = f"arn:aws:ssm:{REGION}:{account}:document/{out['session_document']}"
    _permissions(aws, out, "ByTheseDocuments", Resource=own)


@BROKEN.by("sessions_are_encrypted_end_to_end", "the_key_of_sessions_opens_sessions_only")
def sessions_are_left_to_tls(aws: Aws, out: Exports) -> None:
    _inputs(aws, out["session_document"], kmsKeyId="")


@BROKEN.by("sessions_are_encrypted_end_to_end", "the_key_of_sessions_opens_sessions_only")
def the_key_of_sessions_is_disabled(aws: Aws, out: Exports) -> None:
    aws("kms").disable_key(KeyId=out["session_key_arn"].split("/")[1])


@BROKEN.by("the_key_of_sessions_opens_sessions_only")
def the_key_of_sessions_opens_anything(aws: Aws, out: Exports) -> None:
    kms, key = aws("kms"), out["session_key_arn"]
    policy = json.loads(kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"])
    for statement in policy["Statement"]:
        if statement["Sid"] == "Sessions":
            del statement["Condition"]
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=json.dumps(policy))


@BROKEN.by("the_key_of_sessions_opens_sessions_only")
def the_key_of_sessions_stops_rotating(aws: Aws, out: Exports) -> None:
    aws("kms").disable_key_rotation(KeyId=out["session_key_arn"].split("/")[1])


@BROKEN.by("sessions_are_recorded")
def sessions_are_recorded_at_their_end(aws: Aws, out: Exports) -> None:
    _inputs(aws, out["session_document"], cloudWatchStreamingEnabled=False)


@BROKEN.by("sessions_are_recorded", "records_of_sessions_are_kept_encrypted")
def sessions_without_a_document_are_not_recorded(aws: Aws, out: Exports) -> None:
    _inputs(aws, PREFERENCES, cloudWatchLogGroupName="")


@BROKEN.by(
    *("operators_are_themselves_on_hosts", "sessions_end_by_themselves"),
    *("sessions_are_encrypted_end_to_end", "the_key_of_sessions_opens_sessions_only"),
    *("sessions_are_recorded", "records_of_sessions_are_kept_encrypted"),
)
def the_preferences_are_deleted(aws: Aws, out: Exports) -> None:
    aws("ssm").delete_document(Name=PREFERENCES)


@BROKEN.by("records_of_sessions_are_kept_encrypted")
def a_log_in_the_clear_would_do(aws: Aws, out: Exports) -> None:
    _inputs(aws, out["session_document"], cloudWatchEncryptionEnabled=False)


@BROKEN.by("records_of_sessions_are_kept_encrypted")
def sessions_are_forgotten_in_a_month(aws: Aws, out: Exports) -> None:
    aws("logs").put_retention_policy(logGroupName=out["session_log_group"], retentionInDays=30)


@BROKEN.by("records_of_sessions_are_kept_encrypted")
def the_log_is_under_a_lesser_key(aws: Aws, out: Exports) -> None:
    aws("logs").create_log_group(logGroupName="payments-prod-x", kmsKeyId=out["key_arns"]["public"])
    _inputs(aws, out["session_document"], cloudWatchLogGroupName="payments-prod-x")
