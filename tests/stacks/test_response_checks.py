"""Checks of the response to attacks: each passes on our account and fails on an account with
defaults and on ours with exactly its property broken."""

from __future__ import annotations

import io
import json
import zipfile
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

from ringfence.cloud.tags import CONTROL, ENVIRONMENT
from ringfence.manifest.model import Environment
from ringfence.rehearsal.account import emulated
from ringfence.rehearsal.record import Rehearsal
from ringfence.verify.account.cloud import Cloud

CHECKS = checks("response")


def test_our_account_passes(rehearsal: Rehearsal, environment: Environment) -> None:
    assert failing(CHECKS, Cloud(rehearsal.account.session, environment, emulated=True)) == {}


def test_an_empty_account_names_what_is_missing(environment: Environment) -> None:
    with emulated("eu-central-1") as account:
        failed = failing(CHECKS, Cloud(account.session, environment, emulated=True))
    assert failed.keys() == CHECKS.keys()
    message = "payments-prod has no function that contains; run pulumi up"
    assert set(failed.values()) == {message}


def test_a_function_made_by_hand_fails_everything_that_can_fail(environment: Environment) -> None:
    """A function as the console creates it; every event of GuardDuty and Security Hub starts it."""
    with emulated("eu-central-1") as account:
        _by_hand(account.client, environment.name)
        cloud = Cloud(account.session, environment, emulated=True)
        passing = CHECKS.keys() - failing(CHECKS, cloud).keys()
    assert passing == set()


def _by_hand(aws: Aws, name: str) -> None:
    ec2, iam, events = aws("ec2"), aws("iam"), aws("events")
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    ec2.create_tags(Resources=[vpc["VpcId"]], Tags=[{"Key": ENVIRONMENT, "Value": name}])
    # AWS lets a new group open any connection.
    group = ec2.create_security_group(GroupName="q", Description="q", VpcId=vpc["VpcId"])
    trust = {"Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    role = iam.create_role(RoleName="by-hand", AssumeRolePolicyDocument=_document(trust))["Role"]
    wide = {"Action": ["ec2:*", "iam:PutRolePolicy"], "Resource": "*"}
    iam.put_role_policy(RoleName="by-hand", PolicyName="ec2", PolicyDocument=_document(wide))
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("by_hand.py", "def handle(event, context): pass")
    arn = aws("lambda").create_function(
        FunctionName="by-hand",
        Runtime="python3.13",
        Handler="by_hand.handle",
        Role=role["Arn"],
        Code={"ZipFile": code.getvalue()},
        Environment={"Variables": {"QUARANTINE_GROUP": group["GroupId"], "TOPIC": "topic"}},
        Tags={ENVIRONMENT: name, CONTROL: "IRP-01"},
    )["FunctionArn"]
    aws("lambda").add_permission(
        FunctionName="by-hand",
        StatementId="anybody",
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
    )
    everything = {"source": ["aws.guardduty", "ringfence"]}
    events.put_rule(Name="by-hand", EventPattern=json.dumps(everything))
    events.put_targets(Rule="by-hand", Targets=[{"Id": "1", "Arn": arn}])
    logs = aws("logs")
    tags = {ENVIRONMENT: name, CONTROL: "IRP-01"}
    logs.create_log_group(logGroupName="/aws/lambda/by-hand", tags=tags)


def _document(*statements: dict[str, Any]) -> str:
    allowed = [{"Effect": "Allow", **statement} for statement in statements]
    return json.dumps({"Version": "2012-10-17", "Statement": allowed})


BROKEN = Broken()


def _name(out: Exports) -> str:
    return out["containment_function_arn"].rpartition(":")[2]


def _rule(aws: Aws, kind: str) -> str:
    names = [rule["Name"] for rule in aws("events").list_rules()["Rules"]]
    (found,) = (name for name in names if f"-containment-{kind}-" in name)
    return found


def _pattern(aws: Aws, kind: str, change: Any) -> None:
    events, name = aws("events"), _rule(aws, kind)
    pattern = json.loads(events.describe_rule(Name=name)["EventPattern"])
    change(pattern)
    events.put_rule(Name=name, EventPattern=json.dumps(pattern))


def _permissions(aws: Aws, out: Exports, change: Any) -> None:
    iam = aws("iam")
    arn = aws("lambda").get_function_configuration(FunctionName=_name(out))["Role"]
    role = arn.rpartition("/")[2]
    (policy,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
    found = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
    by_sid = {statement["Sid"]: statement for statement in found["Statement"]}
    change(by_sid)
    found["Statement"] = [*by_sid.values()]
    iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(found))


@BROKEN.by("attacks_start_containment")
def a_rule_is_disabled(aws: Aws, out: Exports) -> None:
    aws("events").disable_rule(Name=_rule(aws, "guardduty"))


@BROKEN.by("attacks_start_containment")
def a_rule_starts_something_else(aws: Aws, out: Exports) -> None:
    events, name = aws("events"), _rule(aws, "requests")
    (target,) = events.list_targets_by_rule(Rule=name)["Targets"]
    events.put_targets(Rule=name, Targets=[{**target, "Arn": f"{target['Arn']}-other"}])


@BROKEN.by("attacks_start_containment")
def only_the_worst_is_answered(aws: Aws, out: Exports) -> None:
    def change(pattern: Any) -> None:
        pattern["detail"]["severity"] = [{"numeric": [">=", 9]}]

    _pattern(aws, "guardduty", change)


@BROKEN.by("nothing_less_starts_containment")
def a_scan_stops_a_server(aws: Aws, out: Exports) -> None:
    _pattern(aws, "guardduty", lambda pattern: pattern["detail"].pop("severity"))


@BROKEN.by("nothing_less_starts_containment")
def a_vulnerability_stops_a_server(aws: Aws, out: Exports) -> None:
    _pattern(aws, "hub", lambda pattern: pattern["detail"]["findings"].pop("Types"))


@BROKEN.by("nothing_less_starts_containment")
def another_account_stops_a_server(aws: Aws, out: Exports) -> None:
    _pattern(aws, "guardduty", lambda pattern: pattern.pop("account"))


@BROKEN.by("only_its_rules_start_containment")
def any_rule_may_start_it(aws: Aws, out: Exports) -> None:
    aws("lambda").add_permission(
        FunctionName=_name(out),
        StatementId="any",
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
    )


@BROKEN.by("only_its_rules_start_containment")
def anybody_may_start_it(aws: Aws, out: Exports) -> None:
    aws("lambda").add_permission(
        FunctionName=_name(out),
        StatementId="anybody",
        Action="lambda:InvokeFunction",
        Principal="*",
    )


@BROKEN.by("only_its_rules_start_containment")
def a_rule_may_not_start_it(aws: Aws, out: Exports) -> None:
    client = aws("lambda")
    found = json.loads(client.get_policy(FunctionName=_name(out))["Policy"])["Statement"]
    client.remove_permission(FunctionName=_name(out), StatementId=found[0]["Sid"])


@BROKEN.by("quarantine_lets_nothing_through")
def quarantine_is_opened_outwards(aws: Aws, out: Exports) -> None:
    aws("ec2").authorize_security_group_egress(
        GroupId=out["quarantine_group_id"],
        IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "10.40.0.0/16"}]}],
    )


@BROKEN.by("quarantine_lets_nothing_through")
def quarantine_is_opened_inwards(aws: Aws, out: Exports) -> None:
    permission: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    permission["IpRanges"] = [{"CidrIp": "10.40.0.0/22"}]
    aws("ec2").authorize_security_group_ingress(
        GroupId=out["quarantine_group_id"], IpPermissions=[permission]
    )


@BROKEN.by("quarantine_lets_nothing_through")
def the_quarantine_group_goes(aws: Aws, out: Exports) -> None:
    aws("ec2").delete_security_group(GroupId=out["quarantine_group_id"])


@BROKEN.by("containment_has_capacity_of_its_own")
def its_capacity_is_given_to_all(aws: Aws, out: Exports) -> None:
    aws("lambda").delete_function_concurrency(FunctionName=_name(out))


@BROKEN.by("containment_has_capacity_of_its_own")
def it_is_throttled_to_nothing(aws: Aws, out: Exports) -> None:
    """Switch the function off unnoticed."""
    aws("lambda").put_function_concurrency(FunctionName=_name(out), ReservedConcurrentExecutions=0)


@BROKEN.by("what_fails_is_kept_encrypted")
def what_the_function_fails_with_is_lost(aws: Aws, out: Exports) -> None:
    aws("lambda").delete_function_event_invoke_config(FunctionName=_name(out))


@BROKEN.by("what_fails_is_kept_encrypted")
def what_is_not_delivered_is_lost(aws: Aws, out: Exports) -> None:
    events, name = aws("events"), _rule(aws, "requests")
    (target,) = events.list_targets_by_rule(Rule=name)["Targets"]
    events.put_targets(Rule=name, Targets=[{"Id": target["Id"], "Arn": target["Arn"]}])


@BROKEN.by("what_fails_is_kept_encrypted")
def the_queue_loses_its_key(aws: Aws, out: Exports) -> None:
    aws("sqs").set_queue_attributes(
        QueueUrl=out["failed_events_url"], Attributes={"KmsMasterKeyId": ""}
    )


@BROKEN.by("what_fails_is_kept_encrypted")
def the_queue_goes(aws: Aws, out: Exports) -> None:
    aws("sqs").delete_queue(QueueUrl=out["failed_events_url"])


def _alarm(aws: Aws, metric: str) -> dict[str, Any]:
    found = aws("cloudwatch").describe_alarms()["MetricAlarms"]
    (alarm,) = (
        alarm
        for alarm in found
        if alarm["MetricName"] == metric and "-containment-" in alarm["AlarmName"]
    )
    return alarm


@BROKEN.by("failures_call_somebody")
def nobody_is_told_of_what_failed(aws: Aws, out: Exports) -> None:
    name = _alarm(aws, "ApproximateNumberOfMessagesVisible")["AlarmName"]
    aws("cloudwatch").disable_alarm_actions(AlarmNames=[name])


@BROKEN.by("failures_call_somebody")
def nobody_watches_the_errors(aws: Aws, out: Exports) -> None:
    name = _alarm(aws, "Errors")["AlarmName"]
    aws("cloudwatch").delete_alarms(AlarmNames=[name])


def _log_group(aws: Aws) -> dict[str, Any]:
    found = aws("logs").describe_log_groups()["logGroups"]
    (group,) = (each for each in found if "-containment-" in each["logGroupName"])
    return group


@BROKEN.by("containment_is_on_record")
def the_log_group_goes(aws: Aws, out: Exports) -> None:
    aws("logs").delete_log_group(logGroupName=_log_group(aws)["logGroupName"])


@BROKEN.by("containment_is_on_record")
def the_log_is_kept_briefly(aws: Aws, out: Exports) -> None:
    name = _log_group(aws)["logGroupName"]
    aws("logs").put_retention_policy(logGroupName=name, retentionInDays=7)


@BROKEN.by("containment_is_on_record")
def the_log_loses_its_key(aws: Aws, out: Exports) -> None:
    logs, group = aws("logs"), _log_group(aws)
    tags = logs.list_tags_for_resource(resourceArn=group["arn"].removesuffix(":*"))["tags"]
    logs.delete_log_group(logGroupName=group["logGroupName"])
    logs.create_log_group(logGroupName=group["logGroupName"], tags=tags)


@BROKEN.by("containment_may_do_all_of_it")
def it_may_not_cut_the_network(aws: Aws, out: Exports) -> None:
    _permissions(aws, out, lambda by_sid: by_sid.pop("ChangeGroups"))


@BROKEN.by("containment_may_do_all_of_it")
def it_may_not_keep_what_failed(aws: Aws, out: Exports) -> None:
    _permissions(aws, out, lambda by_sid: by_sid.pop("KeepFailed"))


def _without_condition(*sids: str) -> Any:
    def change(by_sid: Any) -> None:
        for sid in sids:
            by_sid[sid].pop("Condition")

    return change


@BROKEN.by("containment_touches_nothing_else")
def it_may_snapshot_instances_of_others(aws: Aws, out: Exports) -> None:
    _permissions(aws, out, _without_condition("SnapshotInstance"))


@BROKEN.by("containment_touches_nothing_else")
def it_may_change_groups_in_other_networks(aws: Aws, out: Exports) -> None:
    _permissions(aws, out, _without_condition("ChangeGroups"))


@BROKEN.by("containment_touches_nothing_else")
def it_may_give_an_instance_to_another_environment(aws: Aws, out: Exports) -> None:
    def change(by_sid: Any) -> None:
        by_sid["Mark"]["Condition"].pop("ForAllValues:StringEquals")

    _permissions(aws, out, change)


@BROKEN.by("containment_touches_nothing_else")
def it_may_take_all_tags_away(aws: Aws, out: Exports) -> None:
    def change(by_sid: Any) -> None:
        by_sid["Mark"]["Condition"].pop("Null")

    _permissions(aws, out, change)


@BROKEN.by("containment_touches_nothing_else")
def it_may_change_what_an_instance_runs(aws: Aws, out: Exports) -> None:
    def change(by_sid: Any) -> None:
        by_sid["Protect"]["Condition"].pop("StringEqualsIgnoreCase")

    _permissions(aws, out, change)


@BROKEN.by("containment_touches_nothing_else")
def it_may_write_into_any_role(aws: Aws, out: Exports) -> None:
    def change(by_sid: Any) -> None:
        by_sid["DenyCredentials"]["Resource"] = "*"

    _permissions(aws, out, change)


@BROKEN.by("containment_touches_nothing_else")
def it_may_delete_evidence(aws: Aws, out: Exports) -> None:
    def change(by_sid: Any) -> None:
        by_sid["TagSnapshotMade"] = {
            **by_sid["TagSnapshotMade"],
            "Action": ["ec2:CreateTags", "ec2:DeleteSnapshot"],
            "Resource": "*",
            "Condition": {},
        }

    _permissions(aws, out, change)
