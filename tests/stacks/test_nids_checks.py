"""Checks of the sensors' traffic: each passes on our account and fails on an account with defaults
and on ours with exactly its property broken.

The tests start instances as Auto Scaling would, and then run the function on the emulated account.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from breaking import Aws, Broken, Exports, checks, failing
from example import EXAMPLE
from generated import BASE, manifest

from ringfence.cloud.groups import host_group
from ringfence.cloud.tags import CONTROL, ENVIRONMENT, GROUP
from ringfence.manifest.model import Environment
from ringfence.rehearsal.account import emulated
from ringfence.rehearsal.engine.stacks import rehearsed_stack
from ringfence.rehearsal.record import Rehearsal
from ringfence.verify.account.access import AccessRequest, IamDecision, decide
from ringfence.verify.account.cloud import Cloud
from stacks.functions.mirroring import handler

# moto has no rules of filters; a test below tries their check on documents.
CHECKS = {
    name: check for name, check in checks("nids").items() if name != "test_all_traffic_is_mirrored"
}
EVERYTHING = checks("nids")["test_all_traffic_is_mirrored"]
ENVIRONMENT_NAME = "payments-prod"
SENSOR = "host-sensor-1"


def started(aws: Aws, out: Exports, group: str, segment: str) -> str:
    """Start an instance with the tags of the launch template; return the id of its interface."""
    ec2 = aws("ec2")
    tagged = {ENVIRONMENT: ENVIRONMENT_NAME, GROUP: group}
    made = ec2.run_instances(
        ImageId="ami-12345678",
        MinCount=1,
        MaxCount=1,
        SubnetId=next(iter(out["subnet_ids"][segment].values())),
        TagSpecifications=[
            {
                "ResourceType": "instance",
                "Tags": [{"Key": key, "Value": value} for key, value in tagged.items()],
            }
        ],
    )["Instances"][0]
    return made["NetworkInterfaces"][0]["NetworkInterfaceId"]


def settings(out: Exports) -> handler.MirroringSettings:
    mirror = out["mirroring"]
    return handler.MirroringSettings(
        control="NET-04",
        environment=ENVIRONMENT_NAME,
        sensors=frozenset({SENSOR}),
        target=mirror["target_id"],
        filter=mirror["filter_id"],
    )


@contextmanager
def running() -> Iterator[tuple[Rehearsal, Environment]]:
    environment = Environment.load(EXAMPLE)
    with rehearsed_stack(environment, preview=False) as made:
        aws, out = made.account.client, made.exports
        for host in environment.hosts.values():
            started(aws, out, host_group(host), host.segment.name)
        handler.mirror(aws("ec2"), settings(out))
        yield made, environment


def test_our_account_passes() -> None:
    with running() as (made, environment):
        assert failing(CHECKS, Cloud(made.account.session, environment)) == {}


def test_an_account_with_defaults_fails_everything_that_can_fail(environment: Environment) -> None:
    """A server in the default VPC, without a mirror session."""
    with emulated("eu-central-1") as account:
        aws = account.client
        (vpc,) = aws("ec2").describe_vpcs()["Vpcs"]
        mine = {"Key": ENVIRONMENT, "Value": environment.name}
        aws("ec2").create_tags(Resources=[vpc["VpcId"]], Tags=[mine])
        subnet = aws("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
        started(aws, {"subnet_ids": {"servers": {"": subnet}}}, "host-tools-1", "servers")
        passing = CHECKS.keys() - failing(CHECKS, Cloud(account.session, environment)).keys()
    assert passing == {
        # The manifest declares one; a test below uses a manifest without one.
        "test_a_sensor_is_declared",
        # Nothing is mirrored: tried in BROKEN.
        "test_sensors_are_not_mirrored",
    }


def test_without_a_sensor_the_control_is_not_fulfilled() -> None:
    with manifest(BASE) as environment, rehearsed_stack(environment, preview=False) as made:
        failed = failing(CHECKS, Cloud(made.account.session, environment))
    assert "test_a_sensor_is_declared" in failed


@pytest.mark.parametrize(
    ("rules", "passes"),
    [
        ([{"RuleNumber": 1, "RuleAction": "accept"}], True),
        ([{"RuleNumber": 1, "RuleAction": "accept", "Protocol": 6}], False),
        ([{"RuleNumber": 1, "RuleAction": "reject"}], False),
        ([{"RuleNumber": 1, "RuleAction": "accept", "SourceCidrBlock": "10.0.0.0/8"}], False),
        ([], False),
    ],
)
def test_a_filter_must_take_everything(
    environment: Environment, rules: list[dict[str, Any]], passes: bool
) -> None:
    anywhere = {"SourceCidrBlock": "0.0.0.0/0", "DestinationCidrBlock": "0.0.0.0/0"}
    whole = [{**anywhere, "RuleNumber": 1, "RuleAction": "accept"}]
    found = {
        "TrafficMirrorFilterId": "tmf-1",
        "Tags": [{"Key": ENVIRONMENT, "Value": environment.name}],
        "IngressFilterRules": whole,
        "EgressFilterRules": [anywhere | rule for rule in rules],
    }

    class Answering(Cloud):
        def all(self, *_: object, **__: object) -> list[Any]:
            return [found]

    with emulated("eu-central-1") as account:
        failed = failing(
            {"test_all_traffic_is_mirrored": EVERYTHING}, Answering(account.session, environment)
        )
    assert (failed == {}) == passes


BROKEN = Broken()


@BROKEN.by("sensors_are_a_target_of_mirroring")
def the_sensors_listen_no_more(aws: Aws, out: Exports) -> None:
    elbv2 = aws("elbv2")
    for balancer in elbv2.describe_load_balancers()["LoadBalancers"]:
        arn = balancer["LoadBalancerArn"]
        for listener in elbv2.describe_listeners(LoadBalancerArn=arn)["Listeners"]:
            elbv2.delete_listener(ListenerArn=listener["ListenerArn"])


@BROKEN.by("every_interface_is_mirrored")
def a_session_is_ended(aws: Aws, out: Exports) -> None:
    ec2 = aws("ec2")
    session = ec2.describe_traffic_mirror_sessions()["TrafficMirrorSessions"][0]
    ec2.delete_traffic_mirror_session(TrafficMirrorSessionId=session["TrafficMirrorSessionId"])


@BROKEN.by("every_interface_is_mirrored")
def an_instance_is_started_and_missed(aws: Aws, out: Exports) -> None:
    started(aws, out, "host-tools-1", "servers")


@BROKEN.by("sensors_are_not_mirrored")
def a_sensor_mirrors_itself(aws: Aws, out: Exports) -> None:
    filters = [{"Name": f"tag:{GROUP}", "Values": [SENSOR]}]
    found = aws("ec2").describe_instances(Filters=filters)["Reservations"][0]["Instances"][0]
    aws("ec2").create_traffic_mirror_session(
        NetworkInterfaceId=found["NetworkInterfaces"][0]["NetworkInterfaceId"],
        TrafficMirrorTargetId=out["mirroring"]["target_id"],
        TrafficMirrorFilterId=out["mirroring"]["filter_id"],
        SessionNumber=1,
    )


def _rules(aws: Aws, key: str) -> list[str]:
    rules = aws("events").list_rules(NamePrefix=f"{ENVIRONMENT_NAME}-mirroring-{key}")["Rules"]
    return [rule["Name"] for rule in rules]


@BROKEN.by("instances_are_mirrored_as_they_start")
def starts_are_not_told(aws: Aws, out: Exports) -> None:
    for rule in _rules(aws, "started"):
        aws("events").disable_rule(Name=rule)


@BROKEN.by("instances_are_mirrored_as_they_start")
def nobody_looks_for_missed_ones(aws: Aws, out: Exports) -> None:
    for rule in _rules(aws, "sweep"):
        aws("events").disable_rule(Name=rule)


@BROKEN.by("a_failure_to_mirror_raises_an_alarm")
def the_alarm_goes(aws: Aws, out: Exports) -> None:
    cloudwatch = aws("cloudwatch")
    alarms = cloudwatch.describe_alarms(AlarmNamePrefix=f"{ENVIRONMENT_NAME}-mirroring-errors")
    cloudwatch.delete_alarms(AlarmNames=[each["AlarmName"] for each in alarms["MetricAlarms"]])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_property_turns_exactly_its_checks_red(name: str) -> None:
    change, expected = BROKEN[name]
    with running() as (made, environment):
        change(made.account.client, made.exports)
        failed = failing(CHECKS, Cloud(made.account.session, environment))
    assert failed.keys() == expected, failed


def test_every_check_is_broken_by_something() -> None:
    by_manifest = {"test_a_sensor_is_declared"}
    assert by_manifest.union(*(named for _, named in BROKEN.values())) == CHECKS.keys()


def test_tags_are_those_of_the_stack() -> None:
    """The function runs without the package `ringfence`, so it repeats the tags."""
    assert (handler.ENVIRONMENT, handler.GROUP, handler.CONTROL) == (ENVIRONMENT, GROUP, CONTROL)


def test_the_function_gets_what_the_stack_made() -> None:
    with running() as (made, _):
        (function,) = (
            each
            for each in made.of_type("aws:lambda/function:Function")
            if each.inputs["handler"] == "mirroring.handler.handle"
        )
        deployed = handler.MirroringSettings.read(function.inputs["environment"]["variables"])
        assert deployed == settings(made.exports)


def test_a_second_run_starts_nothing() -> None:
    with running() as (made, _):
        assert handler.mirror(made.account.client("ec2"), settings(made.exports)) == {}


def test_a_number_that_is_taken_is_left_alone() -> None:
    """Another user already mirrors the interface, to a target outside the environment."""
    with running() as (made, _):
        aws, out = made.account.client, made.exports
        interface = started(aws, out, "host-tools-1", "servers")
        aws("ec2").create_traffic_mirror_session(
            NetworkInterfaceId=interface,
            TrafficMirrorTargetId="tmt-else",
            TrafficMirrorFilterId="tmf-else",
            SessionNumber=1,
        )
        assert handler.mirror(aws("ec2"), settings(out)).keys() == {interface}
        sessions = aws("ec2").describe_traffic_mirror_sessions()["TrafficMirrorSessions"]
        own = [s for s in sessions if s["NetworkInterfaceId"] == interface]
        assert {s["SessionNumber"] for s in own} == {1, 2}


def test_one_that_fails_does_not_keep_the_others_from_being_mirrored() -> None:
    """The run fails at the end, so that Lambda retries and the alarm is raised."""
    with running() as (made, _):
        aws, out = made.account.client, made.exports
        interfaces = [started(aws, out, "host-tools-1", "servers") for _ in range(2)]
        with pytest.raises(handler.IncompleteMirroringError, match=interfaces[0]):
            handler.mirror(_Refusing(aws("ec2"), interfaces[0]), settings(out))
        sessions = aws("ec2").describe_traffic_mirror_sessions()["TrafficMirrorSessions"]
        mirrored = {s["NetworkInterfaceId"] for s in sessions}
        assert interfaces[1] in mirrored
        assert interfaces[0] not in mirrored


def test_the_role_mirrors_this_network_to_these_sensors_only() -> None:
    with running() as (made, _):
        name = f"{ENVIRONMENT_NAME}-mirroring"
        policy = next(r for r in made.of_type("aws:iam/rolePolicy:RolePolicy") if r.name == name)
        out, arn = made.exports, lambda kind, id_: made.account.arn("ec2", f"{kind}/{id_}")
    vpc = {"ec2:Vpc": arn("vpc", out["vpc_id"])}
    own = {f"aws:RequestTag/{ENVIRONMENT}": ENVIRONMENT_NAME, f"aws:RequestTag/{CONTROL}": "NET-04"}
    mirror, target = "ec2:CreateTrafficMirrorSession", "traffic-mirror-target"
    asked = [
        (AccessRequest(mirror, arn("network-interface", "eni-1"), context=vpc), True),
        (
            AccessRequest(mirror, arn("network-interface", "eni-1"), context={"ec2:Vpc": "else"}),
            False,
        ),
        (AccessRequest(mirror, arn(target, out["mirroring"]["target_id"])), True),
        (AccessRequest(mirror, arn(target, "tmt-else")), False),
        (AccessRequest(mirror, arn("traffic-mirror-session", "*"), context=own), True),
        (AccessRequest(mirror, arn("traffic-mirror-session", "*")), False),
        (
            AccessRequest("ec2:DeleteTrafficMirrorSession", arn("traffic-mirror-session", "tms-1")),
            False,
        ),
    ]
    decisions = [
        decide(request, [json.loads(policy.inputs["policy"])]) is IamDecision.ALLOWED
        for request, _ in asked
    ]
    assert decisions == [allowed for _, allowed in asked]


class _Refusing:
    """EC2 that refuses one interface."""

    def __init__(self, ec2: Any, interface: str) -> None:
        self._ec2, self._interface = ec2, interface

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ec2, name)

    def create_traffic_mirror_session(self, **given: Any) -> Any:
        from botocore.exceptions import ClientError

        if given["NetworkInterfaceId"] == self._interface:
            error = {"Error": {"Code": "TrafficMirrorSessionLimitExceeded", "Message": "no more"}}
            raise ClientError(error, "CreateTrafficMirrorSession")
        return self._ec2.create_traffic_mirror_session(**given)
