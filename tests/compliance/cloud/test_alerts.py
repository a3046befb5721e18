"""MON-03: what happens in an environment in AWS reaches its security contact."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ringfence.cloud import event_alerts, roles, secrets
from ringfence.cloud.sessions import SSH
from ringfence.manifest.model import Environment
from ringfence.report import not_applicable
from ringfence.verify.account import event_patterns, tagged_resources
from ringfence.verify.account.access import (
    AccessRequest,
    Document,
    IamDecision,
    IamPrincipal,
    granted,
)
from ringfence.verify.account.cloud import Cloud
from ringfence.verify.account.tagged_resources import UP

NOBODY = "999999999999"
"""An account that is none of ours."""
ALL_CALLS = "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"


@pytest.mark.control("MON-03")
def test_alerts_of_the_environment_reach_a_person(cloud: Cloud, environment: Environment):
    """An address that was never confirmed receives nothing, and nobody notices."""
    topic, address = tagged_resources.topic(cloud), environment.contacts["security"].email
    found = cloud.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    reached = {each["Endpoint"]: each["SubscriptionArn"] for each in found}
    assert address in reached, f"{topic} does not reach {address}; {UP}"
    confirmed = reached[address].startswith("arn:")
    assert confirmed, f"{address} has not confirmed {topic}: see the mail from AWS"


@pytest.mark.control("MON-03")
def test_alerts_of_the_environment_are_encrypted(cloud: Cloud):
    """Alerts reveal what was found and what was not; their senders can use the key."""
    topic = tagged_resources.topic(cloud)
    key = _attributes(cloud, topic).get("KmsMasterKeyId")
    assert tagged_resources.is_own_key(cloud, key), f"{topic} is not under a key of ours; {UP}"
    policy = json.loads(
        cloud.client("kms").get_key_policy(KeyId=key, PolicyName="default")["Policy"]
    )
    for service in ("cloudwatch.amazonaws.com", event_alerts.EVENTS):
        for action in ("kms:Decrypt", "kms:GenerateDataKey"):
            may = granted([policy], _as_service(cloud, action, str(key), service, topic))
            assert may is IamDecision.ALLOWED, f"{service} cannot use the key of {topic}; {UP}"
    elsewhere = topic.replace(cloud.account, NOBODY)
    foreign = _as_service(cloud, "kms:Decrypt", str(key), event_alerts.EVENTS, elsewhere)
    refused = granted([policy], foreign) is not IamDecision.ALLOWED
    assert refused, f"the key of {topic} serves topics of other accounts; {UP}"
    admin = AccessRequest(
        "kms:Decrypt", str(key), _admin(cloud), {"kms:CallerAccount": cloud.account}
    )
    direct = granted([policy], admin) is IamDecision.ALLOWED
    assert not direct, f"the key of {topic} opens alerts without SNS; {UP}"


@pytest.mark.control("MON-03")
def test_alerts_of_the_environment_are_its_own(cloud: Cloud):
    """False alarms from elsewhere teach people to ignore them."""
    topic = tagged_resources.topic(cloud)
    policy = json.loads(_attributes(cloud, topic)["Policy"])
    for service in ("cloudwatch.amazonaws.com", event_alerts.EVENTS):
        own = _as_service(cloud, "sns:Publish", topic, service, topic)
        may = granted([policy], own) is IamDecision.ALLOWED
        assert may, f"{service} cannot reach {topic}; {UP}"
        foreign = _as_service(cloud, "sns:Publish", topic, service, topic, NOBODY)
        refused = granted([policy], foreign) is not IamDecision.ALLOWED
        assert refused, f"{topic} takes alerts of other accounts; {UP}"
    mallory = IamPrincipal("AWS", f"arn:aws:iam::{NOBODY}:user/mallory")
    anybody = granted([policy], AccessRequest("sns:Publish", topic, mallory)) is IamDecision.ALLOWED
    assert not anybody, f"anybody may publish to {topic}; {UP}"


@pytest.mark.control("MON-03")
def test_many_refused_flows_call_somebody(cloud: Cloud, environment: Environment):
    """Nothing outside reaches the network: a source that is refused a hundred times is inside."""
    alarm, *_ = event_alerts.flow_alarms(environment)
    topic, space = tagged_resources.topic(cloud), event_alerts.namespace(environment)
    logs = {
        log.get("LogGroupName") or log.get("LogDestination", "").rpartition(":")[2]
        for log in cloud.in_vpcs("describe_flow_logs", "FlowLogs", "resource-id")
    }
    raised = [
        each
        for found, each in tagged_resources.alarms_of_logs(cloud, topic, logs, space)
        if found["filterPattern"] == alarm.pattern and each["Threshold"] <= alarm.threshold
    ]
    assert raised, f"nobody is notified: {alarm.message}; {UP}"


@pytest.mark.control("MON-03")
def test_findings_call_somebody(cloud: Cloud):
    """GuardDuty's own console is read by nobody at night."""
    for severity in (4, 5.3, 8.9):
        event = _finding(severity)
        assert _told(cloud, event), f"a finding of severity {severity} reaches nobody; {UP}"
    assert not _told(cloud, _finding(2)), "findings of low severity call people; raise the limit"


@pytest.mark.control("MON-03")
def test_sessions_call_somebody(cloud: Cloud):
    """A shell on a host is opened when something is wrong, by somebody or with somebody."""
    for document in ("any-document", "AWS-StartPortForwardingSession", None):
        event = _session(document)
        assert _told(cloud, event), f"a session by {document or 'no document'} reaches nobody; {UP}"
    assert not _told(cloud, _session(SSH)), "each connection of Ansible calls people; leave it out"


@pytest.mark.control("MON-03")
def test_unknown_readers_of_secrets_raise_an_alarm(cloud: Cloud):
    """They are refused; that they asked is how an intruder shows."""
    own, name, arn = _own_secret(cloud)
    role = roles.role_prefix(
        account=cloud.account, path=roles.workload_path(cloud.environment, own.readers[0])
    )
    for who in (f"arn:aws:iam::{cloud.account}:role/admin", None):
        for secret in (name, arn):
            event = _read(secret, who)
            assert _told(cloud, event, reading=True), f"{who or 'a user'} at {name}: nobody; {UP}"
    refused = _read(arn, f"{role}x", errorCode="AccessDenied")
    assert _told(cloud, refused, reading=True), f"a refused workload reaches nobody; {UP}"
    usual = _told(cloud, _read(arn, f"{role}x"), reading=True)
    assert not usual, "each use of a secret by its server calls people; leave it out"


@pytest.mark.control("MON-03")
def test_changed_guards_of_secrets_call_somebody(cloud: Cloud):
    """A person who changes a policy can read a secret: that is for emergencies only."""
    _, name, arn = _own_secret(cloud)
    guards = ("PutResourcePolicy", "DeleteResourcePolicy", "DeleteSecret", "CancelRotateSecret")
    for action in guards:
        event = _call("secretsmanager", action, {"secretId": name})
        assert _told(cloud, event), f"{action} on {name} reaches nobody; {UP}"
    failed = {
        "source": "aws.secretsmanager",
        "detail-type": "AWS Service Event via CloudTrail",
        "detail": {"eventName": "RotationFailed", "additionalEventData": {"SecretId": arn}},
    }
    assert _told(cloud, failed), f"a failed rotation of {name} reaches nobody; {UP}"


def _attributes(cloud: Cloud, topic: str) -> Document:
    return cloud.client("sns").get_topic_attributes(TopicArn=topic)["Attributes"]


def _admin(cloud: Cloud) -> IamPrincipal:
    return IamPrincipal("AWS", f"arn:aws:iam::{cloud.account}:role/admin")


def _as_service(
    cloud: Cloud, action: str, resource: str, service: str, topic: str, account: str | None = None
) -> AccessRequest:
    """As a service publishes on behalf of an alarm or a rule of an account."""
    account, region, name = account or cloud.account, cloud.place.region, cloud.environment.name
    sources = {
        "cloudwatch.amazonaws.com": f"arn:aws:cloudwatch:{region}:{account}:alarm:{name}-alerts-1",
        event_alerts.EVENTS: f"arn:aws:events:{region}:{account}:rule/{name}-alerts-1",
    }
    context = {
        "aws:SourceArn": sources[service],
        "aws:SecureTransport": "true",
        "kms:EncryptionContext:aws:sns:topicArn": topic,
        # EventBridge does not say so to KMS.
        **({} if service == event_alerts.EVENTS else {"aws:SourceAccount": account}),
    }
    return AccessRequest(action, resource, IamPrincipal("Service", service), context)


def _told(cloud: Cloud, event: Mapping[str, Any], *, reading: bool = False) -> bool:
    """Whether a rule that is on sends an event to the topic."""
    states = [ALL_CALLS] if reading else [ALL_CALLS, "ENABLED"]
    return any(
        rule["State"] in states and event_patterns.matches(json.loads(rule["EventPattern"]), event)
        for rule in _rules_to(cloud, tagged_resources.topic(cloud))
    )


def _rules_to(cloud: Cloud, topic: str) -> Iterator[Document]:
    for rule in cloud.all("events", "list_rules", "Rules"):
        if "EventPattern" in rule:
            listed = cloud.client("events").list_targets_by_rule(Rule=rule["Name"])
            if topic in {target["Arn"] for target in listed["Targets"]}:
                yield rule


def _own_secret(cloud: Cloud) -> tuple[secrets.OwnSecret, str, str]:
    """One of the manifest's, with the name and ARN that it has, or would have."""
    found = secrets.own_secrets(cloud.environment)
    if not found:
        not_applicable("no server of the manifest has a secret")
    name = f"{secrets.name_prefix(cloud.environment)}{found[0].key}-0123456"
    arn = f"arn:aws:secretsmanager:{cloud.place.region}:{cloud.account}:secret:{name}-AbCdEf"
    return found[0], name, arn


def _finding(severity: float) -> dict[str, Any]:
    return {
        "source": "aws.guardduty",
        "detail-type": "GuardDuty Finding",
        "detail": {"severity": severity},
    }


def _call(service: str, action: str, parameters: Document, **more: Any) -> dict[str, Any]:
    return {
        "source": f"aws.{service}",
        "detail-type": "AWS API Call via CloudTrail",
        "detail": {
            "eventSource": f"{service}.amazonaws.com",
            "eventName": action,
            "requestParameters": parameters,
            **more,
        },
    }


def _session(document: str | None) -> dict[str, Any]:
    named = {"documentName": document} if document else {}
    return _call("ssm", "StartSession", {"target": "i-0123456789abcdef0", **named})


def _read(secret: str, role: str | None, **more: Any) -> dict[str, Any]:
    identity = {"type": "IAMUser"}
    if role:
        issuer = {"sessionContext": {"sessionIssuer": {"arn": role}}}
        identity = {"type": "AssumedRole", **issuer}
    parameters = {"secretId": secret}
    return _call("secretsmanager", "GetSecretValue", parameters, userIdentity=identity, **more)
