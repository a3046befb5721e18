"""Checks of egress: each passes on our account and fails on an account without a firewall and on
ours with exactly its property broken.

moto emulates no rules and policies of Network Firewall: tests try their checks on answers in AWS's
format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from breaking import Aws, Broken, Exports, checks, failing, failing_once, inapplicable
from moto.networkfirewall.models import networkfirewall_backends

from ringfence.cloud import egress
from ringfence.cloud.tags import ENVIRONMENT
from ringfence.manifest.model import Environment
from ringfence.rehearsal.account import emulated
from ringfence.rehearsal.engine.stacks import rehearsed_stack
from ringfence.rehearsal.record import Rehearsal
from ringfence.verify.account.cloud import Cloud

REGION = "eu-central-1"
ANYWHERE = "0.0.0.0/0"
WITHOUT_EGRESS = Path(__file__).parents[1] / "unit" / "manifests" / "cloud.yaml"
OF_RULES = ("test_only_declared_names_are_let_out", "test_everything_else_is_dropped")
ALL = checks("egress")
CHECKS = {name: check for name, check in ALL.items() if name not in OF_RULES}
RULE_CHECKS = {name: check for name, check in ALL.items() if name in OF_RULES}
NETWORK = checks("network")


def test_our_account_passes(rehearsal: Rehearsal, environment: Environment) -> None:
    cloud = Cloud(rehearsal.account.session, environment, emulated=True)
    assert failing(ALL, cloud) == {}
    assert inapplicable(ALL, cloud) == {*OF_RULES}


def test_an_account_without_a_firewall_fails_everything(environment: Environment) -> None:
    with emulated(REGION) as account:
        ec2 = account.client("ec2")
        (vpc,) = ec2.describe_vpcs()["Vpcs"]
        mine = {"Key": ENVIRONMENT, "Value": environment.name}
        ec2.create_tags(Resources=[vpc["VpcId"]], Tags=[mine])
        failed = failing(ALL, Cloud(account.session, environment))
    assert failed.keys() == ALL.keys()
    assert set(failed.values()) == {"no egress firewall is there; run pulumi up"}


def test_without_declared_domains_there_is_no_egress() -> None:
    environment = Environment.load(WITHOUT_EGRESS)
    with rehearsed_stack(environment, preview=False) as made:
        kinds = {resource.type for resource in made.resources}
        ec2 = made.account.client("ec2")
        cloud = Cloud(made.account.session, environment, emulated=True)
        assert inapplicable(ALL, cloud) == ALL.keys()
        assert failing(NETWORK, cloud) == {}
        tags = [{"Key": "ringfence:group", "Value": egress.GROUP_NAME}]
        gateway = ec2.create_internet_gateway(
            TagSpecifications=[{"ResourceType": "internet-gateway", "Tags": tags}]
        )["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=made.exports["vpc_id"])
        again = Cloud(made.account.session, environment, emulated=True)
        assert failing(NETWORK, again).keys() == {"test_no_gateway_leads_out_of_the_network"}
    assert not [k for k in kinds if "networkfirewall" in k or "ateway:Nat" in k or ":Eip" in k]


BROKEN = Broken()


def _table(aws: Aws, out: Exports, segment: str) -> str:
    subnet = out["subnet_ids"][segment][f"{REGION}a"]
    filters = [{"Name": "association.subnet-id", "Values": [subnet]}]
    (table,) = aws("ec2").describe_route_tables(Filters=filters)["RouteTables"]
    return table["RouteTableId"]


def _gateway(aws: Aws, out: Exports) -> str:
    filters = [{"Name": "attachment.vpc-id", "Values": [out["vpc_id"]]}]
    (found,) = aws("ec2").describe_internet_gateways(Filters=filters)["InternetGateways"]
    return found["InternetGatewayId"]


@BROKEN.by(
    "no_route_leads_out_of_the_network",
    "segments_are_apart",
    "servers_reach_and_are_reached_as_declared",
)
def a_route_leads_around_the_firewall(aws: Aws, out: Exports) -> None:
    """Use the declared gateway: a server behind the firewall now reaches every name."""
    ec2, way = aws("ec2"), {"DestinationCidrBlock": ANYWHERE}
    table = _table(aws, out, "servers")
    ec2.delete_route(RouteTableId=table, **way)
    ec2.create_route(RouteTableId=table, **way, GatewayId=_gateway(aws, out))


@BROKEN.by("no_route_leads_out_of_the_network", "segments_are_apart")
def a_segment_without_a_way_is_given_one(aws: Aws, out: Exports) -> None:
    aws("ec2").create_route(
        RouteTableId=_table(aws, out, "edge"),
        DestinationCidrBlock=ANYWHERE,
        GatewayId=_gateway(aws, out),
    )


@BROKEN.by("no_route_leads_out_of_the_network", "segments_are_apart")
def a_segment_is_given_the_table_behind_the_firewall(aws: Aws, out: Exports) -> None:
    ec2, subnet = aws("ec2"), out["subnet_ids"]["edge"][f"{REGION}a"]
    tables = ec2.describe_route_tables()["RouteTables"]
    behind = [t for t in tables if any("NatGatewayId" in route for route in t["Routes"])]
    (old,) = [
        association["RouteTableAssociationId"]
        for table in tables
        for association in table["Associations"]
        if association.get("SubnetId") == subnet
    ]
    ec2.replace_route_table_association(AssociationId=old, RouteTableId=behind[0]["RouteTableId"])


@BROKEN.by("servers_reach_and_are_reached_as_declared")
def a_server_without_domains_is_let_to_the_firewall(aws: Aws, out: Exports) -> None:
    permission = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443}
    permission["IpRanges"] = [{"CidrIp": "128.0.0.0/1"}]
    aws("ec2").authorize_security_group_egress(
        GroupId=out["group_ids"]["server-time"], IpPermissions=[permission]
    )


@BROKEN.by("declared_flows_are_possible")
def nothing_leads_to_the_firewall(aws: Aws, out: Exports) -> None:
    ec2 = aws("ec2")
    for subnet in out["subnet_ids"]["servers"].values():
        filters = [{"Name": "association.subnet-id", "Values": [subnet]}]
        (table,) = ec2.describe_route_tables(Filters=filters)["RouteTables"]
        ec2.delete_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock=ANYWHERE)


@BROKEN.by("no_gateway_leads_out_of_the_network")
def a_gateway_beside_the_declared_ones(aws: Aws, out: Exports) -> None:
    gateway = aws("ec2").create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    aws("ec2").attach_internet_gateway(InternetGatewayId=gateway, VpcId=out["vpc_id"])


def _model(aws: Aws) -> Any:
    account = aws("sts").get_caller_identity()["Account"]
    (found,) = networkfirewall_backends[account][REGION].firewalls.values()
    return found


@BROKEN.by("a_firewall_stands_in_every_zone")
def an_endpoint_fails(aws: Aws, out: Exports) -> None:
    """Fail an endpoint: routes still lead to it, and it drops their traffic."""
    _model(aws).firewall_status["SyncStates"][f"{REGION}a"]["Attachment"]["Status"] = "FAILED"


@BROKEN.by("the_firewall_is_not_removed_by_mistake")
def the_firewall_may_be_deleted(aws: Aws, out: Exports) -> None:
    """Allow deletion inside moto, which has no call for it."""
    _model(aws).delete_protection = False


@BROKEN.by("the_firewall_is_encrypted_with_our_key")
def the_firewall_is_under_a_key_of_aws(aws: Aws, out: Exports) -> None:
    _model(aws).encryption_configuration = {
        "Type": "AWS_OWNED_KMS_KEY",
        "KeyId": "AWS_OWNED_KMS_KEY",
    }


def _log(aws: Aws, change: Callable[[list[Any]], list[Any]]) -> None:
    client = aws("network-firewall")
    (firewall,) = client.list_firewalls()["Firewalls"]
    arn = firewall["FirewallArn"]
    logging = client.describe_logging_configuration(FirewallArn=arn)["LoggingConfiguration"]
    kept = change(logging["LogDestinationConfigs"])
    client.update_logging_configuration(
        FirewallArn=arn, LoggingConfiguration={"LogDestinationConfigs": kept}
    )


@BROKEN.by("what_leaves_is_recorded", "records_of_what_leaves_are_kept_encrypted")
def records_are_turned_off(aws: Aws, out: Exports) -> None:
    _log(aws, lambda _: [])


@BROKEN.by("what_leaves_is_recorded")
def refused_names_are_no_longer_recorded(aws: Aws, out: Exports) -> None:
    _log(aws, lambda configs: [c for c in configs if c["LogType"] != "ALERT"])


@BROKEN.by("records_of_what_leaves_are_kept_encrypted")
def records_are_kept_briefly(aws: Aws, out: Exports) -> None:
    aws("logs").put_retention_policy(logGroupName=out["egress_log_group"], retentionInDays=7)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_property_turns_exactly_its_checks_red(
    name: str, rehearsal: Rehearsal, environment: Environment
) -> None:
    change, expected = BROKEN[name]
    failed = failing_once(change, {**NETWORK, **ALL}, rehearsal, environment)
    assert failed.keys() == expected, failed


def test_every_check_is_broken_by_something() -> None:
    assert CHECKS.keys() <= set().union(*(named for _, named in BROKEN.values()))


class _Firewall:
    """Network Firewall that answers calls unknown to moto from the declared resources; moto answers
    the rest."""

    def __init__(self, client: Any, answers: Mapping[str, Any]) -> None:
        self._client, self._answers = client, answers

    def __getattr__(self, operation: str) -> Any:
        return getattr(self._client, operation)

    def describe_firewall_policy(self, *, FirewallPolicyArn: str) -> Any:  # noqa: N803
        return {"FirewallPolicy": self._answers[FirewallPolicyArn]}

    def describe_rule_group(self, *, RuleGroupArn: str) -> Any:  # noqa: N803
        return {"RuleGroup": {"RulesSource": self._answers[RuleGroupArn]}}


def _capitals(value: Any) -> Any:
    """Capitalise keys as the API does; Pulumi's begin with a small letter."""
    if isinstance(value, Mapping):
        return {key[0].upper() + key[1:]: _capitals(each) for key, each in value.items()}
    return [_capitals(each) for each in value] if isinstance(value, list) else value


def declared(rehearsal: Rehearsal) -> tuple[dict[str, Any], Any, Any]:
    """Return the answers by ARN, the answer of the policy, and the source of the rules."""
    (policy,) = rehearsal.of_type("aws:networkfirewall/firewallPolicy:FirewallPolicy")
    (group,) = rehearsal.of_type("aws:networkfirewall/ruleGroup:RuleGroup")
    described = _capitals(deepcopy(policy.inputs["firewallPolicy"]))
    described["StatefulRuleGroupReferences"] = described.pop("StatefulRuleGroupReferences")
    source = _capitals(deepcopy(group.inputs["ruleGroup"]["rulesSource"]))
    return {policy.id: described, group.id: source}, described, source


def failing_with(
    answers: Mapping[str, Any], rehearsal: Rehearsal, environment: Environment
) -> set[str]:
    cloud = Cloud(rehearsal.account.session, environment)
    make = cloud.client

    @cache
    def client(service: str) -> Any:
        made = make(service)
        return _Firewall(made, answers) if service == "network-firewall" else made

    cloud.client = client
    return {*failing(RULE_CHECKS, cloud)}


def test_what_the_stack_declares_passes(rehearsal: Rehearsal, environment: Environment) -> None:
    answers, *_ = declared(rehearsal)
    assert failing_with(answers, rehearsal, environment) == set()


@pytest.mark.parametrize(
    "rule",
    [
        "pass ip any any -> any any (sid:1;)",
        'pass tls 10.40.16.0/20 any -> any 443 (tls.sni; content:"example.com"; endswith; sid:1;)',
    ],
)
def test_a_rule_that_lets_more_out_fails(
    rule: str, rehearsal: Rehearsal, environment: Environment
) -> None:
    answers, _, source = declared(rehearsal)
    source["RulesString"] += f"\n{rule}"
    assert failing_with(answers, rehearsal, environment) == {"test_only_declared_names_are_let_out"}


def test_a_missing_rule_fails(rehearsal: Rehearsal, environment: Environment) -> None:
    answers, _, source = declared(rehearsal)
    source["RulesString"] = "# nothing"
    assert failing_with(answers, rehearsal, environment) == {"test_only_declared_names_are_let_out"}


def test_a_list_of_domains_beside_the_rules_fails(
    rehearsal: Rehearsal, environment: Environment
) -> None:
    answers, policy, _ = declared(rehearsal)
    policy["StatefulRuleGroupReferences"].append({"ResourceArn": "other"})
    other = {"RulesSourceList": {"Targets": [".com"], "GeneratedRulesType": "ALLOWLIST"}}
    failed = failing_with({**answers, "other": other}, rehearsal, environment)
    assert failed == {"test_only_declared_names_are_let_out"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("StatefulDefaultActions", ["aws:alert_established"]),
        ("StatefulDefaultActions", []),
        ("StatelessDefaultActions", ["aws:pass"]),
        ("StatelessFragmentDefaultActions", ["aws:pass"]),
        ("StatelessRuleGroupReferences", [{"ResourceArn": "other", "Priority": 1}]),
        ("StatefulEngineOptions", {"RuleOrder": "DEFAULT_ACTION_ORDER"}),
        (
            "StatefulEngineOptions",
            {"RuleOrder": "STRICT_ORDER", "StreamExceptionPolicy": "CONTINUE"},
        ),
    ],
)
def test_a_policy_that_lets_the_rest_through_fails(
    key: str, value: Any, rehearsal: Rehearsal, environment: Environment
) -> None:
    answers, policy, _ = declared(rehearsal)
    policy[key] = value
    assert failing_with(answers, rehearsal, environment) == {"test_everything_else_is_dropped"}


def test_rules_are_those_a_reader_expects(environment: Environment) -> None:
    (rule,) = egress.rules(environment).split("\n")
    assert rule.startswith(
        'pass tls 10.40.16.0/20 any -> $EXTERNAL_NET 443 (tls.sni; content:"rates.example.com"; '
        "startswith; endswith; nocase; flow:to_server, established; sid:"
    )
    http = egress.Destination(IPv4Network("10.40.16.0/20"), "rates.example.com", 80).rule
    assert http.startswith("pass http 10.40.16.0/20 any -> $EXTERNAL_NET 80 (http.host; ")
    assert "nocase" not in http


def test_the_way_back_is_through_the_firewall(rehearsal: Rehearsal) -> None:
    """In every zone, the route of the answers uses the same firewall endpoint as that of the
    requests."""
    routes = [
        (each.name.removeprefix("payments-prod-egress-"), each.inputs)
        for each in rehearsal.of_type("aws:ec2/route:Route")
    ]
    (firewall,) = rehearsal.of_type("aws:networkfirewall/firewall:Firewall")
    (status,) = firewall.outputs["firewallStatuses"]
    for state in status["syncStates"]:
        zone, (attached,) = state["availabilityZone"], state["attachments"]
        through = {n for n, i in routes if i.get("vpcEndpointId") == attached["endpointId"]}
        assert through == {f"servers-{zone}-out", f"nat-{zone}-servers"}
