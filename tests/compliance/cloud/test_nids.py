"""NET-04: a sensor sees the traffic of every instance."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ringfence.cloud import mirroring
from ringfence.cloud.balancers import VXLAN
from ringfence.cloud.groups import host_group
from ringfence.cloud.tags import CONTROL, ENVIRONMENT, GROUP
from ringfence.report import not_applicable
from ringfence.verify.account import event_patterns
from ringfence.verify.account.cloud import Cloud, Document, tag


@pytest.mark.control("NET-04")
def test_a_sensor_is_declared(cloud: Cloud):
    """An intruder edits what his host writes down, and not what a sensor has seen."""
    assert cloud.environment.group("sensor"), (
        "no host is a sensor; give one the group sensor, and run pulumi up"
    )


@pytest.mark.control("NET-04")
def test_sensors_are_a_target_of_mirroring(cloud: Cloud):
    """Behind a load balancer, which takes a sensor that is not well out of the way."""
    elbv2 = cloud.client("elbv2")
    listening = [
        arn
        for arn in _targets(cloud).values()
        for listener in elbv2.describe_listeners(LoadBalancerArn=arn)["Listeners"]
        if (listener["Protocol"], listener["Port"]) == ("UDP", VXLAN)
    ]
    assert listening, "traffic is mirrored to no load balancer of sensors; run pulumi up"


@pytest.mark.control("NET-04")
def test_all_traffic_is_mirrored(cloud: Cloud):
    """A filter that leaves out a port is where an intruder talks."""
    if cloud.emulated:
        not_applicable("the emulated account does not have rules of traffic mirror filters")
    query = ("ec2", "describe_traffic_mirror_filters", "TrafficMirrorFilters")
    own = [found for found in cloud.all(*query) if tag(found, ENVIRONMENT) == _name(cloud)]
    partial = [
        found["TrafficMirrorFilterId"]
        for found in own
        if not _takes_everything(found.get("IngressFilterRules", []))
        or not _takes_everything(found.get("EgressFilterRules", []))
    ]
    assert own, "there is no traffic mirror filter of the environment; run pulumi up"
    assert not partial, f"{', '.join(partial)} leaves traffic out; run pulumi up"


@pytest.mark.control("NET-04")
def test_every_interface_is_mirrored(cloud: Cloud):
    """An intruder stays where no sensor looks."""
    if cloud.emulated:
        not_applicable("nothing runs the function that starts sessions in an emulated account")
    mirrored = {s["NetworkInterfaceId"] for s in _sessions(cloud)}
    found = list(_interfaces(cloud, sensors=False))
    missing = [interface for interface in found if interface not in mirrored]
    assert found, "no instance of the environment runs; run pulumi up"
    assert not missing, (
        f"not mirrored: {', '.join(missing)}; the log of the function mirroring tells why"
    )


@pytest.mark.control("NET-04")
def test_sensors_are_not_mirrored(cloud: Cloud):
    """A copy of the copies would never end, and the sensor sees nothing else."""
    sensors = set(_interfaces(cloud, sensors=True))
    found = _sessions(cloud)
    looping = [s["TrafficMirrorSessionId"] for s in found if s["NetworkInterfaceId"] in sensors]
    if not sensors or not found:
        not_applicable("no sensor runs, or nothing is mirrored yet")
    assert not looping, f"{', '.join(looping)} mirror a sensor; delete them"


@pytest.mark.control("NET-04")
def test_instances_are_mirrored_as_they_start(cloud: Cloud):
    """Auto Scaling replaces instances at any hour; the new one must be mirrored, too."""
    event = {
        "account": cloud.account,
        "source": "aws.ec2",
        "detail-type": "EC2 Instance State-change Notification",
        "detail": {"instance-id": "i-0123456789abcdef0", "state": "running"},
    }
    rules = list(_rules(cloud))
    at_start = [
        rule["Name"]
        for rule in rules
        if "EventPattern" in rule
        and event_patterns.matches(json.loads(rule["EventPattern"]), event)
    ]
    assert at_start, "nothing mirrors an instance that starts; run pulumi up"
    assert any("ScheduleExpression" in rule for rule in rules), (
        "nothing looks for instances that were missed; run pulumi up"
    )


@pytest.mark.control("NET-04")
def test_a_failure_to_mirror_raises_an_alarm(cloud: Cloud):
    """A sensor that sees nothing is silent, and so is one that sees nothing evil."""
    names = [function["FunctionName"] for function in _functions(cloud)]
    watched = {
        dimension["Value"]
        for alarm in cloud.all("cloudwatch", "describe_alarms", "MetricAlarms")
        if alarm["MetricName"] == "Errors" and alarm["ActionsEnabled"] and alarm["AlarmActions"]
        for dimension in alarm["Dimensions"]
    }
    assert names, "there is no function that mirrors; run pulumi up"
    assert watched.issuperset(names), "no alarm tells of an instance that is not mirrored"


def _name(cloud: Cloud) -> str:
    return cloud.environment.name


def _targets(cloud: Cloud) -> dict[str, str]:
    """Load balancers of the environment by the target that they are."""
    own = {balancer["LoadBalancerArn"] for balancer in cloud.balancers}
    query = ("ec2", "describe_traffic_mirror_targets", "TrafficMirrorTargets")
    return {
        target["TrafficMirrorTargetId"]: target["NetworkLoadBalancerArn"]
        for target in cloud.all(*query)
        if target.get("NetworkLoadBalancerArn") in own
    }


def _sessions(cloud: Cloud) -> list[Document]:
    """To the environment's sensors."""
    targets = _targets(cloud)
    query = ("ec2", "describe_traffic_mirror_sessions", "TrafficMirrorSessions")
    return [s for s in cloud.all(*query) if s["TrafficMirrorTargetId"] in targets]


def _interfaces(cloud: Cloud, *, sensors: bool) -> Iterator[str]:
    """Yield interfaces of instances in the environment's network: of sensors, or of others."""
    own = {host_group(host) for host in cloud.environment.group("sensor")}
    for reservation in cloud.in_vpcs("describe_instances", "Reservations"):
        for instance in reservation["Instances"]:
            running = instance["State"]["Name"] == "running"
            if running and (tag(instance, GROUP) in own) == sensors:
                for interface in instance["NetworkInterfaces"]:
                    yield interface["NetworkInterfaceId"]


def _takes_everything(rules: list[Document]) -> bool:
    """The first rule decides."""
    for rule in sorted(rules, key=lambda rule: rule["RuleNumber"]):
        ends = {rule["SourceCidrBlock"], rule["DestinationCidrBlock"]}
        return rule["RuleAction"] == "accept" and ends == {"0.0.0.0/0"} and "Protocol" not in rule
    return False


def _functions(cloud: Cloud) -> Iterator[Document]:
    client = cloud.client("lambda")
    for function in cloud.all("lambda", "list_functions", "Functions"):
        tags = client.list_tags(Resource=function["FunctionArn"])["Tags"]
        named = (tags.get(ENVIRONMENT), tags.get(CONTROL)) == (_name(cloud), "NET-04")
        if named and function["Handler"] == mirroring.HANDLER:
            yield function


def _rules(cloud: Cloud) -> Iterator[Document]:
    arns = {function["FunctionArn"] for function in _functions(cloud)}
    for rule in cloud.all("events", "list_rules", "Rules"):
        if rule["State"] == "ENABLED":
            query = ("events", "list_targets_by_rule", "Targets")
            if any(target["Arn"] in arns for target in cloud.all(*query, Rule=rule["Name"])):
                yield rule
