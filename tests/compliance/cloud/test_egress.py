"""NET-02, NET-05: what leaves goes to declared names only, past a firewall that keeps records."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ringfence.cloud import egress
from ringfence.report import not_applicable
from ringfence.verify.account.cloud import Cloud, Document

ADVICE = "run pulumi up"
PROTECTIONS = ("DeleteProtection", "SubnetChangeProtection", "FirewallPolicyChangeProtection")


@pytest.mark.control("NET-02")
def test_only_declared_names_are_let_out(cloud: Cloud):
    """A name that nobody declared is where a tricked server carries its data to."""
    _rules_are_known(cloud)
    declared = {*egress.rules(cloud.environment).split("\n")}
    found = {rule for firewall in _firewalls(cloud) for rule in _rules(cloud, firewall)}
    undeclared, missing = sorted(found - declared), sorted(declared - found)
    assert not undeclared, f"let out and not declared: {', '.join(undeclared)}; {ADVICE}"
    assert not missing, f"declared and not let out: {', '.join(missing)}; {ADVICE}"


@pytest.mark.control("NET-02")
def test_everything_else_is_dropped(cloud: Cloud):
    """A firewall passes by default what none of its rules names."""
    _rules_are_known(cloud)
    found = [
        f"{firewall['FirewallName']}: {fault}"
        for firewall in _firewalls(cloud)
        for fault in _leaks(_policy(cloud, firewall))
    ]
    assert not found, f"{', '.join(found)}; {ADVICE}"


@pytest.mark.control("NET-02")
def test_a_firewall_stands_in_every_zone(cloud: Cloud):
    """A zone without one has no egress, and somebody will add an uncontrolled one."""
    ready = {
        zone
        for each in _described(cloud)
        for zone, state in each["FirewallStatus"].get("SyncStates", {}).items()
        if state.get("Attachment", {}).get("Status") == "READY"
    }
    subnets = cloud.in_vpcs("describe_subnets", "Subnets")
    missing = sorted({subnet["AvailabilityZone"] for subnet in subnets} - ready)
    assert not missing, f"no egress firewall in {', '.join(missing)}; {ADVICE}"


@pytest.mark.control("NET-02")
def test_the_firewall_is_not_removed_by_mistake(cloud: Cloud):
    """Without its firewall egress is closed, or opened to everywhere in haste."""
    if cloud.environment.stage != "production":
        not_applicable("protected in production only")
    found = [
        f"{firewall['FirewallName']} has no {protection}"
        for firewall in _firewalls(cloud)
        for protection in PROTECTIONS
        if not firewall.get(protection)
    ]
    assert not found, f"{', '.join(found)}; {ADVICE}"


@pytest.mark.control("NET-02")
def test_the_firewall_is_encrypted_with_our_key(cloud: Cloud):
    """Its rules tell what servers do, and with whom; who may read them is for our key to say."""
    keys = {key["Arn"] for key in cloud.keys.get(egress.LOG_CLASS, [])}
    found = [
        firewall["FirewallName"]
        for firewall in _firewalls(cloud)
        if firewall.get("EncryptionConfiguration", {}).get("KeyId") not in keys
    ]
    assert not found, f"not under a key of the environment: {', '.join(found)}; {ADVICE}"


@pytest.mark.control("NET-05")
def test_what_leaves_is_recorded(cloud: Cloud):
    """Who tried which name is the first trace of a server that was talked into something."""
    silent = [
        f"{log_type} of {firewall['FirewallName']}"
        for firewall in _firewalls(cloud)
        for log_type in egress.LOG_TYPES
        if log_type not in {kind for kind, _ in _log_groups(cloud, firewall)}
    ]
    assert not silent, f"nobody keeps {', '.join(silent)}; {ADVICE}"


@pytest.mark.control("NET-05")
def test_records_of_what_leaves_are_kept_encrypted(cloud: Cloud):
    """They tell who talks to whom; a copy must be worthless, and there when it is asked for."""
    groups = [group for f in _firewalls(cloud) for _, group in _log_groups(cloud, f)]
    wanted, found = cloud.environment.retention[egress.LOG_CLASS], set[str]()
    for group in groups:
        if "kmsKeyId" not in group:
            found.add(f"{group['logGroupName']} has no key")
        # Without a number of days, records never expire.
        days = group.get("retentionInDays")
        if days is not None and days < wanted:
            found.add(f"{group['logGroupName']} keeps {days} days")
    assert groups, f"no log group has the records; {ADVICE}"
    assert not found, f"{', '.join(sorted(found))}; {ADVICE}"


def _described(cloud: Cloud) -> list[Document]:
    if not egress.destinations(cloud.environment):
        not_applicable("no server has egress to a domain")
    assert cloud.firewalls, f"no egress firewall is there; {ADVICE}"
    return cloud.firewalls


def _firewalls(cloud: Cloud) -> list[Document]:
    return [each["Firewall"] for each in _described(cloud)]


def _rules_are_known(cloud: Cloud) -> None:
    if egress.destinations(cloud.environment) and cloud.emulated:
        not_applicable("the emulated account does not have rules and policies of Network Firewall")


def _policy(cloud: Cloud, firewall: Document) -> Document:
    describe = cloud.client("network-firewall").describe_firewall_policy
    return describe(FirewallPolicyArn=firewall["FirewallPolicyArn"])["FirewallPolicy"]


def _rules(cloud: Cloud, firewall: Document) -> Iterator[str]:
    """Yield rules of every group that the policy refers to: another one could let anything out."""
    describe = cloud.client("network-firewall").describe_rule_group
    for reference in _policy(cloud, firewall).get("StatefulRuleGroupReferences", []):
        source = describe(RuleGroupArn=reference["ResourceArn"])["RuleGroup"]["RulesSource"]
        if "RulesString" not in source:
            yield f"whatever {reference['ResourceArn']} says"
        lines = map(str.strip, source.get("RulesString", "").split("\n"))
        yield from (line for line in lines if line and not line.startswith("#"))


def _leaks(policy: Document) -> Iterator[str]:
    options = policy.get("StatefulEngineOptions", {})
    if options.get("RuleOrder") != egress.STRICT_ORDER:
        yield "rules are not asked in order"
    if options.get("StreamExceptionPolicy") == "CONTINUE":
        yield "a connection that began unseen goes on"
    if not any(a.startswith("aws:drop_") for a in policy.get("StatefulDefaultActions", [])):
        yield "what no rule names is not dropped"
    if policy.get("StatelessRuleGroupReferences"):
        yield "stateless rules decide before names are read"
    for kind in ("StatelessDefaultActions", "StatelessFragmentDefaultActions"):
        if policy.get(kind) != [egress.FORWARD]:
            yield f"{kind} do not lead to the rules"


def _log_groups(cloud: Cloud, firewall: Document) -> Iterator[tuple[str, Document]]:
    describe = cloud.client("network-firewall").describe_logging_configuration
    said = describe(FirewallArn=firewall["FirewallArn"]).get("LoggingConfiguration", {})
    for config in said.get("LogDestinationConfigs", []):
        if name := config["LogDestination"].get("logGroup"):
            found = cloud.all("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=name)
            yield from ((config["LogType"], g) for g in found if g["logGroupName"] == name)
