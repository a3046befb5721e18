"""IRP-01: an instance that is attacked is taken out of service within seconds, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from ringfence.cloud import containment, roles
from ringfence.cloud.tags import CONTROL, ENVIRONMENT
from ringfence.manifest.model import Environment
from ringfence.verify.account import event_patterns
from ringfence.verify.account.access import (
    AccessRequest,
    IamDecision,
    IamPrincipal,
    decide,
    granted,
)
from ringfence.verify.account.cloud import Cloud, Document
from ringfence.verify.account.identities import IamIdentity, Identities
from ringfence.verify.account.sample_events import Event, SampleEvents

UP = "run pulumi up"
SOMEBODY = "i-0123456789abcdef0"
ELSEWHERE = "999999999999"
"""An account that is none of ours."""

SERIOUS: Mapping[str, Callable[[SampleEvents], Event]] = {
    "GuardDuty": lambda samples: samples.guardduty(SOMEBODY, severity=7.0),
    "Security Hub": lambda samples: samples.security_hub(SOMEBODY, label="CRITICAL"),
    "a request": lambda samples: samples.request(SOMEBODY),
    "a release": lambda samples: samples.request(SOMEBODY, kind=containment.RELEASE),
}
HARMLESS: Mapping[str, Callable[[SampleEvents], Event]] = {
    "a scan": lambda samples: samples.guardduty(SOMEBODY, severity=6.9),
    "a vulnerability": lambda samples: samples.security_hub(
        SOMEBODY, kind="Software and Configuration Checks/Vulnerabilities/CVE"
    ),
    "what somebody handles": lambda samples: samples.security_hub(SOMEBODY, status="NOTIFIED"),
    "a request of nobody": lambda samples: samples.event(
        containment.SOURCE, containment.CONTAIN, {"instance": SOMEBODY, "reason": "x"}, "1"
    ),
    "another account's": lambda samples: replace(samples, account=ELSEWHERE).guardduty(SOMEBODY),
}


@pytest.mark.control("IRP-01")
@pytest.mark.parametrize("kind", SERIOUS)
def test_attacks_start_containment(cloud: Cloud, kind: str):
    """At night nobody reads a finding before the damage is done."""
    event = SERIOUS[kind](_samples(cloud))
    assert _started_by(cloud, event), f"{kind} starts nothing; {UP}"


@pytest.mark.control("IRP-01")
@pytest.mark.parametrize("kind", HARMLESS)
def test_nothing_less_starts_containment(cloud: Cloud, kind: str):
    """Anybody who can cause a finding could otherwise turn any server off."""
    event = HARMLESS[kind](_samples(cloud))
    found = _started_by(cloud, event)
    assert not found, f"{kind} makes {', '.join(found)} take an instance out of service; {UP}"


@pytest.mark.control("IRP-01")
def test_only_its_rules_start_containment(cloud: Cloud):
    """It can put an instance back, too: who may call it directly decides over both."""
    function = _function(cloud)
    arn, policy = function["FunctionArn"], _function_policy(cloud)
    rules = [rule["Arn"] for rule, _ in _rules(cloud)]
    silent = [rule for rule in rules if not _may_invoke(policy, arn, rule, cloud.account)]
    assert rules, f"no rule has it for a target; {UP}"
    assert not silent, f"{', '.join(silent)} may not start it; {UP}"
    strangers = (
        IamPrincipal("AWS", f"arn:aws:iam::{ELSEWHERE}:root"),
        IamPrincipal("Service", "s3.amazonaws.com"),
    )
    found = [
        who.name
        for who in strangers
        if granted([policy], AccessRequest("lambda:InvokeFunction", arn, who))
        is IamDecision.ALLOWED
    ]
    other = f"arn:aws:events:{cloud.place.region}:{cloud.account}:rule/other"
    if _may_invoke(policy, arn, other, cloud.account):
        found.append(other)
    assert not found, f"{', '.join(found)} may start it; {UP}"


@pytest.mark.control("IRP-01")
def test_quarantine_lets_nothing_through(cloud: Cloud):
    """One rule is enough for an attacker who waits for the instance to answer."""
    id_ = _function(cloud).get("Environment", {}).get("Variables", {}).get("QUARANTINE_GROUP")
    groups = [
        group
        for group in cloud.in_vpcs("describe_security_groups", "SecurityGroups")
        if group["GroupId"] == id_
    ]
    assert groups, f"the quarantine group {id_} is in no VPC of the environment; {UP}"
    (group,) = groups
    rules = [*group["IpPermissions"], *group["IpPermissionsEgress"]]
    assert not rules, f"the quarantine group {id_} has rules: {rules}; remove them"


@pytest.mark.control("IRP-01")
def test_containment_has_capacity_of_its_own(cloud: Cloud):
    """Where another function uses the account's up, an attack has the time that it needs."""
    name = _function(cloud)["FunctionName"]
    found = cloud.client("lambda").get_function_concurrency(FunctionName=name)
    assert found.get("ReservedConcurrentExecutions", 0) > 0, f"{name} has none reserved; {UP}"


@pytest.mark.control("IRP-01")
def test_what_fails_is_kept_encrypted(cloud: Cloud):
    """An event that could not be answered is an instance that is still attacked."""
    kept = _kept(cloud)
    lost = [where for where, queue in kept.items() if queue is None]
    assert not lost, f"what fails is lost: {', '.join(lost)}; {UP}"
    plain = sorted({queue for queue in kept.values() if queue and not _key_of(cloud, queue)})
    assert not plain, f"{', '.join(plain)} has no key of ours; {UP}"


@pytest.mark.control("IRP-01")
@pytest.mark.parametrize("metric", ["ApproximateNumberOfMessagesVisible", "Errors"])
def test_failures_call_somebody(cloud: Cloud, metric: str):
    """Automation that fails in silence is worse than none: people rely on it."""
    wanted = {
        "Errors": {_function(cloud)["FunctionName"]},
        "ApproximateNumberOfMessagesVisible": {
            queue.rpartition(":")[2] for queue in _kept(cloud).values() if queue
        },
    }[metric]
    watched = {
        dimension["Value"]
        for alarm in cloud.all("cloudwatch", "describe_alarms", "MetricAlarms")
        if alarm["MetricName"] == metric and alarm["ActionsEnabled"] and alarm["AlarmActions"]
        for dimension in alarm["Dimensions"]
    }
    missing = wanted - watched
    assert wanted, f"there is nothing to watch for {metric}; {UP}"
    assert not missing, f"no alarm watches {metric} of {', '.join(sorted(missing))}; {UP}"


@pytest.mark.control("IRP-01")
def test_containment_is_on_record(cloud: Cloud, environment: Environment):
    """An investigation first asks what was done to which instance, and why."""
    logged = _function(cloud).get("LoggingConfig", {}).get("LogGroup")
    groups = [
        group
        for group in cloud.all("logs", "describe_log_groups", "logGroups")
        # The emulation does not say where a function logs: there, by the tags.
        if (cloud.emulated and _is_ours(cloud, group)) or group["logGroupName"] == logged
    ]
    assert groups, f"its log group {logged or ''} is not there; {UP}"
    for group in groups:
        assert "kmsKeyId" in group, f"{group['logGroupName']} has no key; {UP}"
        days = group.get("retentionInDays")
        wanted = environment.retention[containment.CLASS]
        assert days is None or days >= wanted, f"{group['logGroupName']} keeps {days} days; {UP}"


@pytest.mark.control("IRP-01")
def test_containment_may_do_all_of_it(cloud: Cloud, environment: Environment):
    """A permission that is missing is noticed in the incident."""
    missing = [
        request.action
        for request in _on_own(cloud, environment)
        if _decide(cloud, request) is not IamDecision.ALLOWED
    ]
    assert not missing, f"containment may not {', '.join(missing)}; {UP}"


@pytest.mark.control("IRP-01")
def test_containment_touches_nothing_else(cloud: Cloud, environment: Environment):
    """It stops servers and writes into roles: over others it would be the attack itself."""
    found = [
        f"{request.action} on {request.resource}"
        for request in (*_on_others(cloud, environment), *_beyond(cloud, environment))
        if _decide(cloud, request) is IamDecision.ALLOWED
    ]
    assert not found, f"containment may {', '.join(found)}; {UP}"


def _samples(cloud: Cloud) -> SampleEvents:
    """Findings are of the account's own detector."""
    detectors = cloud.client("guardduty").list_detectors()["DetectorIds"]
    return SampleEvents(cloud.account, cloud.place.region, *detectors[:1])


def _function(cloud: Cloud) -> Document:
    client = cloud.client("lambda")
    for function in cloud.all("lambda", "list_functions", "Functions"):
        tags = client.list_tags(Resource=function["FunctionArn"])["Tags"]
        if _ours(cloud, tags):
            return function
    raise AssertionError(f"{cloud.environment.name} has no function that contains; {UP}")


def _ours(cloud: Cloud, tags: Mapping[str, str]) -> bool:
    return (tags.get(ENVIRONMENT), tags.get(CONTROL)) == (cloud.environment.name, "IRP-01")


def _is_ours(cloud: Cloud, group: Document) -> bool:
    arn = group["arn"].removesuffix(":*")
    return _ours(cloud, cloud.client("logs").list_tags_for_resource(resourceArn=arn)["tags"])


def _rules(cloud: Cloud) -> list[tuple[Document, Document]]:
    """Enabled rules with the function as a target, and that target."""
    arn = _function(cloud)["FunctionArn"]
    return [
        (rule, target)
        for rule in cloud.all("events", "list_rules", "Rules")
        if rule["State"] == "ENABLED"
        for target in cloud.all("events", "list_targets_by_rule", "Targets", Rule=rule["Name"])
        if target["Arn"] == arn
    ]


def _started_by(cloud: Cloud, event: Event) -> list[str]:
    return [
        rule["Name"]
        for rule, _ in _rules(cloud)
        if event_patterns.matches(json.loads(rule["EventPattern"]), event)
    ]


def _function_policy(cloud: Cloud) -> Document:
    client = cloud.client("lambda")
    try:
        found = client.get_policy(FunctionName=_function(cloud)["FunctionName"])
    except client.exceptions.ResourceNotFoundException:
        return {}
    return json.loads(found["Policy"])


def _may_invoke(policy: Document, function: str, rule: str, account: str) -> bool:
    context = {"aws:SourceArn": rule, "aws:SourceAccount": account}
    principal = IamPrincipal("Service", "events.amazonaws.com")
    request = AccessRequest("lambda:InvokeFunction", function, principal, context)
    return granted([policy], request) is IamDecision.ALLOWED


def _kept(cloud: Cloud) -> dict[str, str | None]:
    """Where the events go that the function, or EventBridge, fails with: ARNs of queues."""
    client, name = cloud.client("lambda"), _function(cloud)["FunctionName"]
    try:
        found = client.get_function_event_invoke_config(FunctionName=name)
    except client.exceptions.ResourceNotFoundException:
        found = {}
    failed = found.get("DestinationConfig", {}).get("OnFailure", {})
    return {
        name: failed.get("Destination"),
        **{
            rule["Name"]: target.get("DeadLetterConfig", {}).get("Arn")
            for rule, target in _rules(cloud)
        },
    }


def _key_of(cloud: Cloud, queue: str) -> str | None:
    sqs = cloud.client("sqs")
    try:
        url = sqs.get_queue_url(QueueName=queue.rpartition(":")[2])["QueueUrl"]
    except sqs.exceptions.QueueDoesNotExist:
        return None
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["KmsMasterKeyId"])
    return found.get("Attributes", {}).get("KmsMasterKeyId")


def _decide(cloud: Cloud, request: AccessRequest) -> IamDecision:
    role = _role(cloud)
    asked = AccessRequest(request.action, request.resource, role.principal, request.context)
    return decide(asked, role.policies)


@cache
def _role(cloud: Cloud) -> IamIdentity:
    arn = _function(cloud)["Role"]
    (found,) = (role for role in Identities(cloud).roles if role.arn == arn)
    return found


def _ec2(cloud: Cloud, resource: str) -> str:
    return f"arn:aws:ec2:{cloud.place.region}:{cloud.account}:{resource}"


def _on_own(cloud: Cloud, environment: Environment) -> list[AccessRequest]:
    """Every call of the function, on things of the environment."""
    topic = _function(cloud)["Environment"]["Variables"]["TOPIC"]
    region, account = cloud.place.region, cloud.account
    here = {"aws:RequestedRegion": region}
    owned = {**here, f"aws:ResourceTag/{ENVIRONMENT}": environment.name}
    vpc = {"ec2:Vpc": _ec2(cloud, f"vpc/{cloud.vpcs[0]['VpcId']}")}
    instance = _ec2(cloud, f"instance/{SOMEBODY}")
    made = f"arn:aws:ec2:{region}::snapshot/*"
    path = roles.workloads_path(environment)
    role = f"arn:aws:iam::{account}:role{path}time"
    profile = f"arn:aws:iam::{account}:instance-profile{path}time"
    group = (
        f"arn:aws:autoscaling:{region}:{account}:autoScalingGroup:0a1b:autoScalingGroupName/time"
    )
    record = f"arn:aws:ssm:{region}:{account}:parameter{containment.records(environment)}x"
    looks = ("ec2:DescribeInstances", "ec2:DescribeSnapshots")
    return [
        *(AccessRequest(action, "*", context=here) for action in looks),
        AccessRequest("ec2:DescribeIamInstanceProfileAssociations", "*", context=here),
        AccessRequest("autoscaling:DescribeAutoScalingInstances", "*", context=here),
        AccessRequest("ec2:DescribeInstanceAttribute", instance, context=owned),
        *_changed_groups(cloud, owned | vpc),
        *(
            AccessRequest(f"autoscaling:{action}Instances", group, context=owned)
            for action in ("Attach", "Detach")
        ),
        AccessRequest(
            "ec2:ModifyInstanceAttribute",
            instance,
            context={**owned, "ec2:Attribute": "DisableApiTermination"},
        ),
        AccessRequest("ec2:CreateSnapshots", instance, context=owned),
        AccessRequest("ec2:CreateSnapshots", _ec2(cloud, "volume/vol-0a1b"), context=owned),
        AccessRequest(
            "ec2:CreateSnapshots",
            made,
            context={
                **here,
                f"aws:RequestTag/{ENVIRONMENT}": environment.name,
                f"aws:RequestTag/{CONTROL}": "IRP-01",
            },
        ),
        AccessRequest(
            "ec2:CreateTags", made, context={**here, "ec2:CreateAction": "CreateSnapshots"}
        ),
        *(
            AccessRequest(
                action, instance, context={**owned, "aws:TagKeys": containment.STATE_TAGS}
            )
            for action in ("ec2:CreateTags", "ec2:DeleteTags")
        ),
        AccessRequest("iam:GetInstanceProfile", profile),
        AccessRequest("iam:GetRolePolicy", role),
        AccessRequest("iam:PutRolePolicy", role, context=_boundary(cloud, path)),
        *(
            AccessRequest(f"ec2:{action}IamInstanceProfile", instance, context=owned)
            for action in ("Associate", "Disassociate")
        ),
        AccessRequest("iam:PassRole", role, context={"iam:PassedToService": "ec2.amazonaws.com"}),
        *(
            AccessRequest(f"ssm:{action}Parameter", record, context=here)
            for action in ("Delete", "Get", "Put")
        ),
        AccessRequest("sns:Publish", topic),
        *(AccessRequest("sqs:SendMessage", queue) for queue in _kept(cloud).values() if queue),
    ]


def _changed_groups(cloud: Cloud, context: Mapping[str, Any]) -> Iterable[AccessRequest]:
    action = "ec2:ModifyNetworkInterfaceAttribute"
    for resource in ("network-interface/eni-0a1b", "security-group/sg-0a1b"):
        yield AccessRequest(action, _ec2(cloud, resource), context=context)


def _boundary(cloud: Cloud, path: str) -> dict[str, str]:
    """Return boundaries of hosts' roles, where they have one."""
    iam = cloud.client("iam")
    for role in cloud.all("iam", "list_roles", "Roles", PathPrefix=path):
        found = iam.get_role(RoleName=role["RoleName"])["Role"].get("PermissionsBoundary")
        if found:
            return {"iam:PermissionsBoundary": found["PermissionsBoundaryArn"]}
    return {}


def _on_others(cloud: Cloud, environment: Environment) -> Iterable[AccessRequest]:
    """The same calls on things of another environment, and on those of nobody."""
    name, path = f"/{environment.name}/", roles.workloads_path(environment)
    tagged = f"aws:ResourceTag/{ENVIRONMENT}"
    for request in _on_own(cloud, environment):
        if request.resource == "*":
            continue
        if tagged in request.context:
            untagged = {k: v for k, v in request.context.items() if k not in (tagged, "ec2:Vpc")}
            # Disks come with their instance, and that is refused.
            if ":volume/" not in request.resource:
                yield AccessRequest(request.action, request.resource, context=untagged)
                other = {**untagged, tagged: "other", "ec2:Vpc": _ec2(cloud, "vpc/vpc-0a1b")}
                yield AccessRequest(request.action, request.resource, context=other)
        elif path in request.resource or name in request.resource:
            elsewhere = request.resource.replace(name, "/other/")
            yield AccessRequest(request.action, elsewhere, context=request.context)


def _beyond(cloud: Cloud, environment: Environment) -> Iterable[AccessRequest]:
    """Yield requests that it must never make: they would destroy, open or spread."""
    owned = {
        "aws:RequestedRegion": cloud.place.region,
        f"aws:ResourceTag/{ENVIRONMENT}": environment.name,
    }
    instance, made = _ec2(cloud, f"instance/{SOMEBODY}"), _ec2(cloud, "snapshot/snap-0a1b")
    for action in ("TerminateInstances", "StopInstances", "RunInstances"):
        yield AccessRequest(f"ec2:{action}", instance, context=owned)
    for attribute in ("UserData", "InstanceType", "GroupSet"):
        context = {**owned, "ec2:Attribute": attribute}
        yield AccessRequest("ec2:ModifyInstanceAttribute", instance, context=context)
    for keys in ((), (ENVIRONMENT,), (ENVIRONMENT, *containment.STATE_TAGS)):
        for action in ("ec2:CreateTags", "ec2:DeleteTags"):
            yield AccessRequest(action, instance, context={**owned, "aws:TagKeys": keys})
    for action in ("DeleteSnapshot", "ModifySnapshotAttribute", "CopySnapshot"):
        yield AccessRequest(f"ec2:{action}", made, context=owned)
    group = _ec2(cloud, "security-group/sg-0a1b")
    yield AccessRequest("ec2:AuthorizeSecurityGroupIngress", group, context=owned)
    own = _function(cloud)["Role"]
    host = f"arn:aws:iam::{cloud.account}:role{roles.workloads_path(environment)}time"
    for role in (own, f"arn:aws:iam::{cloud.account}:role/administrator"):
        for action in ("PutRolePolicy", "GetRolePolicy"):
            yield AccessRequest(f"iam:{action}", role, context=owned)
        context = {"iam:PassedToService": "ec2.amazonaws.com"}
        yield AccessRequest("iam:PassRole", role, context=context)
    yield AccessRequest(
        "iam:PassRole", host, context={"iam:PassedToService": "lambda.amazonaws.com"}
    )
    for action in ("AttachRolePolicy", "UpdateAssumeRolePolicy", "DeleteRolePermissionsBoundary"):
        yield AccessRequest(f"iam:{action}", host, context=owned)
    for action in ("ssm:SendCommand", "secretsmanager:GetSecretValue", "s3:GetObject"):
        yield AccessRequest(action, "*", context=owned)
    for key in (key for keys in cloud.keys.values() for key in keys):
        yield AccessRequest("kms:Decrypt", key["Arn"], context=owned)
