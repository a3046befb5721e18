"""Checks of an environment's alerts: each passes on our account and fails on an account with
defaults and on ours with exactly its property broken."""

from __future__ import annotations

import json
import re
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

from ringfence.cloud.event_alerts import event_alerts, flow_alarms
from ringfence.cloud.tags import ENVIRONMENT
from ringfence.events.flow_log import FLOW_LOG_FIELDS
from ringfence.manifest.model import Environment
from ringfence.rehearsal.account import emulated
from ringfence.rehearsal.record import Rehearsal
from ringfence.verify.account.cloud import Cloud

CHECKS = checks("alerts")
REGION = "eu-central-1"


def test_our_account_passes(rehearsal: Rehearsal, environment: Environment) -> None:
    assert failing(CHECKS, Cloud(rehearsal.account.session, environment)) == {}


def test_an_account_with_defaults_fails_everything_that_can_fail(environment: Environment) -> None:
    """A topic as the console creates it: no key, no subscriber, and no rule that sends to it."""
    with emulated(REGION) as account:
        tagged = {ENVIRONMENT: environment.name, "Name": f"{environment.name}-alerts"}
        topic = account.client("sns").create_topic(
            Name="by-hand", Tags=[{"Key": key, "Value": value} for key, value in tagged.items()]
        )["TopicArn"]
        _publish(account.client, topic, {"AWS": "*"})
        (vpc,) = account.client("ec2").describe_vpcs()["Vpcs"]
        mine = [{"Key": ENVIRONMENT, "Value": environment.name}]
        account.client("ec2").create_tags(Resources=[vpc["VpcId"]], Tags=mine)
        passing = CHECKS.keys() - failing(CHECKS, Cloud(account.session, environment)).keys()
    assert passing == set()


def test_an_empty_account_names_what_is_missing(environment: Environment) -> None:
    with emulated(REGION) as account:
        failed = failing(CHECKS, Cloud(account.session, environment))
    assert failed.keys() == CHECKS.keys()
    assert {*failed.values()} == {"payments-prod has no topic for alerts; run pulumi up"}


def test_flows_are_counted_where_the_format_has_their_fields(environment: Environment) -> None:
    """Each field of a pattern has the position that it has in the flow log."""
    for alarm in flow_alarms(environment):
        *fields, rest = alarm.pattern.strip("[]").split(", ")
        names = [re.match(r"\w+", field)[0].replace("_", "-") for field in fields]  # pyright: ignore[reportOptionalSubscript]
        assert (*names,) == FLOW_LOG_FIELDS[: len(names)]
        assert "action=REJECT" in fields
        assert rest == "..."
        assert len(alarm.pattern) <= 1024


def test_patterns_are_within_what_eventbridge_takes(environment: Environment) -> None:
    """https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html"""
    found = event_alerts(environment, account="111122223333", region=REGION)
    assert len({notice.key for notice in found}) == len(found)
    assert all(len(notice.text) <= 2048 for notice in found)


BROKEN = Broken()


def _publish(aws: Aws, topic: str, principal: Mapping[str, str], **more: Any) -> None:
    """Add a statement to the topic's policy that lets the principal publish."""
    anybody = {"Effect": "Allow", "Principal": principal, "Action": "sns:Publish"}
    found = aws("sns").get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"]
    policy = json.loads(found)
    policy["Statement"].append({**anybody, "Resource": topic, **more})
    aws("sns").set_topic_attributes(
        TopicArn=topic, AttributeName="Policy", AttributeValue=json.dumps(policy)
    )


def _without(aws: Aws, topic: str, sid: str) -> None:
    policy = json.loads(aws("sns").get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"])
    policy["Statement"] = [each for each in policy["Statement"] if each.get("Sid") != sid]
    aws("sns").set_topic_attributes(
        TopicArn=topic, AttributeName="Policy", AttributeValue=json.dumps(policy)
    )


@BROKEN.by("alerts_of_the_environment_reach_a_person")
def nobody_receives_alerts(aws: Aws, out: Exports) -> None:
    sns = aws("sns")
    (found,) = sns.list_subscriptions_by_topic(TopicArn=out["alerts_topic_arn"])["Subscriptions"]
    sns.unsubscribe(SubscriptionArn=found["SubscriptionArn"])


@BROKEN.by("alerts_of_the_environment_are_encrypted")
def alerts_are_under_amazons_key(aws: Aws, out: Exports) -> None:
    aws("sns").set_topic_attributes(
        TopicArn=out["alerts_topic_arn"],
        AttributeName="KmsMasterKeyId",
        AttributeValue="alias/aws/sns",
    )


def _key(aws: Aws, out: Exports, change: Any) -> None:
    kms, key = aws("kms"), out["alerts_key_arn"]
    policy = json.loads(kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"])
    policy["Statement"] = change(policy["Statement"])
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=json.dumps(policy))


@BROKEN.by("alerts_of_the_environment_are_encrypted")
def events_cannot_use_the_key(aws: Aws, out: Exports) -> None:
    """Delivery then fails, and only a metric shows it."""
    _key(aws, out, lambda found: [s for s in found if s["Sid"] != "Events"])


@BROKEN.by("alerts_of_the_environment_are_encrypted")
def the_key_serves_topics_of_anybody(aws: Aws, out: Exports) -> None:
    events = {"Service": "events.amazonaws.com"}
    wide = {"Effect": "Allow", "Principal": events, "Action": "kms:Decrypt", "Resource": "*"}
    _key(aws, out, lambda found: [*found, wide])


@BROKEN.by("alerts_of_the_environment_are_encrypted")
def the_key_opens_for_administrators(aws: Aws, out: Exports) -> None:
    root = {"AWS": f"arn:aws:iam::{out['alerts_key_arn'].split(':')[4]}:root"}
    wide = {"Effect": "Allow", "Principal": root, "Action": "kms:Decrypt", "Resource": "*"}
    _key(aws, out, lambda found: [*found, wide])


@BROKEN.by("alerts_of_the_environment_are_its_own")
def anybody_may_alert(aws: Aws, out: Exports) -> None:
    _publish(aws, out["alerts_topic_arn"], {"AWS": "*"})


@BROKEN.by("alerts_of_the_environment_are_its_own")
def rules_of_any_account_may_alert(aws: Aws, out: Exports) -> None:
    _publish(aws, out["alerts_topic_arn"], {"Service": "events.amazonaws.com"})


@BROKEN.by("alerts_of_the_environment_are_its_own")
def rules_may_not_alert(aws: Aws, out: Exports) -> None:
    _without(aws, out["alerts_topic_arn"], "Events")


@BROKEN.by("many_refused_flows_call_somebody")
def the_alarm_of_flows_is_silenced(aws: Aws, out: Exports) -> None:
    alarms = aws("cloudwatch").describe_alarms()["MetricAlarms"]
    (name,) = [each["AlarmName"] for each in alarms if each["MetricName"] == "refused-flows"]
    aws("cloudwatch").disable_alarm_actions(AlarmNames=[name])


@BROKEN.by("many_refused_flows_call_somebody")
def the_filter_counts_another_field(aws: Aws, out: Exports) -> None:
    """The default format has the action in another position."""
    logs, group = aws("logs"), out["flow_log_group"]
    filters = logs.describe_metric_filters(logGroupName=group)["metricFilters"]
    (found,) = [each for each in filters if "refused-flows" in each["filterName"]]
    logs.delete_metric_filter(logGroupName=group, filterName=found["filterName"])
    logs.put_metric_filter(
        logGroupName=group,
        filterName=found["filterName"],
        filterPattern=found["filterPattern"].replace("version, ", ""),
        metricTransformations=found["metricTransformations"],
    )


def _rule(aws: Aws, use: str) -> dict[str, Any]:
    rules = aws("events").list_rules()["Rules"]
    return next(rule for rule in rules if f"-alerts-{use}-" in rule["Name"])


def _put(aws: Aws, use: str, change: Any, **more: str) -> None:
    rule = _rule(aws, use)
    pattern = json.loads(rule["EventPattern"])
    change(pattern["detail"])
    given = {"State": rule["State"], **more}
    aws("events").put_rule(Name=rule["Name"], EventPattern=json.dumps(pattern), **given)


@BROKEN.by("findings_call_somebody")
def findings_are_switched_off(aws: Aws, out: Exports) -> None:
    aws("events").disable_rule(Name=_rule(aws, "finding")["Name"])


@BROKEN.by("findings_call_somebody")
def only_the_worst_findings_count(aws: Aws, out: Exports) -> None:
    high = [{"numeric": [">=", 7]}]
    _put(aws, "finding", lambda detail: detail.update(severity=high))


@BROKEN.by("findings_call_somebody")
def every_finding_wakes_somebody(aws: Aws, out: Exports) -> None:
    _put(aws, "finding", lambda detail: detail.update(severity=[{"numeric": [">=", 0]}]))


@BROKEN.by("sessions_call_somebody")
def sessions_without_a_document_go_unnoticed(aws: Aws, out: Exports) -> None:
    named = {"documentName": [{"anything-but": "AWS-StartSSHSession"}]}
    _put(aws, "session", lambda detail: detail.update(requestParameters=named))


@BROKEN.by("sessions_call_somebody")
def every_session_of_ansible_wakes_somebody(aws: Aws, out: Exports) -> None:
    _put(aws, "session", lambda detail: detail.pop("requestParameters"))


@BROKEN.by("unknown_readers_of_secrets_raise_an_alarm")
def readers_are_looked_for_among_changes(aws: Aws, out: Exports) -> None:
    """A rule's default state: EventBridge then delivers no read-only calls."""
    _put(aws, "secret-read", lambda _: None, State="ENABLED")


@BROKEN.by("unknown_readers_of_secrets_raise_an_alarm")
def a_user_without_a_role_goes_unnoticed(aws: Aws, out: Exports) -> None:
    _put(aws, "secret-read", lambda detail: detail.update(detail.pop("$or")[1]))


@BROKEN.by("unknown_readers_of_secrets_raise_an_alarm")
def refusals_lead_nowhere(aws: Aws, out: Exports) -> None:
    rule = _rule(aws, "secret-refused")["Name"]
    targets = aws("events").list_targets_by_rule(Rule=rule)["Targets"]
    aws("events").remove_targets(Rule=rule, Ids=[target["Id"] for target in targets])


@BROKEN.by("unknown_readers_of_secrets_raise_an_alarm")
def each_use_of_a_secret_wakes_somebody(aws: Aws, out: Exports) -> None:
    _put(aws, "secret-read", lambda detail: detail.pop("$or"))


@BROKEN.by("changed_guards_of_secrets_call_somebody")
def a_changed_policy_goes_unnoticed(aws: Aws, out: Exports) -> None:
    _put(aws, "secret-guard", lambda detail: detail["eventName"].remove("PutResourcePolicy"))


@BROKEN.by("changed_guards_of_secrets_call_somebody")
def failed_rotations_go_unnoticed(aws: Aws, out: Exports) -> None:
    aws("events").disable_rule(Name=_rule(aws, "rotation")["Name"])
