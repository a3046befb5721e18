"""NET-02, NET-05: only known names are answered, and every question is kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ringfence.cloud.dns import EVERYTHING, QUERY_CLASS
from ringfence.report import not_applicable
from ringfence.verify.account.cloud import Cloud, Document

ADVICE = "run pulumi up"


@pytest.mark.control("NET-02")
def test_unknown_names_are_not_answered(cloud: Cloud):
    """Queries for names of an attacker's own domain carry data out."""
    _not_emulated(cloud)
    leaking = [vpc["VpcId"] for vpc in cloud.vpcs if not _blocks_the_rest(cloud, vpc)]
    assert not leaking, f"any name is answered in {', '.join(leaking)}; {ADVICE}"


@pytest.mark.control("NET-02")
def test_no_pattern_allows_everything(cloud: Cloud):
    """A list with an asterisk too many allows what the next rule means to block."""
    _not_emulated(cloud)
    wide = [
        domain
        for vpc in cloud.vpcs
        for rule in _rules(cloud, vpc)
        if rule["Action"] != "BLOCK"
        for domain in _domains(cloud, rule)
        if domain.startswith("*") and domain.strip("*.").count(".") < 1
    ]
    assert not wide, f"allowed: {', '.join(wide)}; {ADVICE}"


@pytest.mark.control("NET-02")
def test_nothing_is_answered_without_the_firewall(cloud: Cloud):
    """A firewall that opens on failure opens for anybody who makes it fail."""
    _not_emulated(cloud)
    client = cloud.client("route53resolver")
    open_ = [
        vpc["VpcId"]
        for vpc in cloud.vpcs
        if client.get_firewall_config(ResourceId=vpc["VpcId"])["FirewallConfig"]["FirewallFailOpen"]
        != "DISABLED"
    ]
    assert not open_, f"answered without the firewall in {', '.join(open_)}; {ADVICE}"


@pytest.mark.control("NET-05")
def test_every_question_is_recorded(cloud: Cloud):
    """Names tell what a flow to an address does not: what somebody meant to reach."""
    recorded = {
        association["ResourceId"]
        for association in _associations(cloud)
        if association["Status"] == "ACTIVE"
        and association["ResolverQueryLogConfigId"] in {config["Id"] for config in _configs(cloud)}
    }
    missing = [vpc["VpcId"] for vpc in cloud.vpcs if vpc["VpcId"] not in recorded]
    assert not missing, f"nobody records the questions of {', '.join(missing)}; {ADVICE}"


@pytest.mark.control("NET-05")
def test_questions_are_kept_encrypted(cloud: Cloud):
    """They tell who means to reach whom; a copy must be worthless, and there when asked for."""
    groups = list(_log_groups(cloud))
    wanted, found = cloud.environment.retention[QUERY_CLASS], list[str]()
    for group in groups:
        if "kmsKeyId" not in group:
            found.append(f"{group['logGroupName']} has no key")
        # Without a number of days, records never expire.
        days = group.get("retentionInDays")
        if days is not None and days < wanted:
            found.append(f"{group['logGroupName']} keeps {days} days")
    assert groups, f"no log group has the questions; {ADVICE}"
    assert not found, f"{', '.join(found)}; {ADVICE}"


def _not_emulated(cloud: Cloud) -> None:
    if cloud.emulated:
        not_applicable("the emulated account does not have Route 53 Resolver's firewall")


def _blocks_the_rest(cloud: Cloud, vpc: Document) -> bool:
    return any(
        rule["Action"] == "BLOCK" and EVERYTHING in {d.rstrip(".") for d in _domains(cloud, rule)}
        for rule in _rules(cloud, vpc)
    )


def _rules(cloud: Cloud, vpc: Document) -> Iterator[Document]:
    query = ("list_firewall_rule_group_associations", "FirewallRuleGroupAssociations")
    for association in cloud.all("route53resolver", *query, VpcId=vpc["VpcId"]):
        group = association["FirewallRuleGroupId"]
        query = ("list_firewall_rules", "FirewallRules")
        yield from cloud.all("route53resolver", *query, FirewallRuleGroupId=group)


def _domains(cloud: Cloud, rule: Document) -> list[str]:
    client, listed = cloud.client("route53resolver"), rule.get("FirewallDomainListId")
    if not listed:
        return []
    pages = client.get_paginator("list_firewall_domains").paginate(FirewallDomainListId=listed)
    return [domain for page in pages for domain in page["Domains"]]


def _associations(cloud: Cloud) -> list[Document]:
    """In the environment's VPCs."""
    own = {vpc["VpcId"] for vpc in cloud.vpcs}
    operation = "list_resolver_query_log_config_associations"
    found = cloud.all("route53resolver", operation, "ResolverQueryLogConfigAssociations")
    return [association for association in found if association["ResourceId"] in own]


def _configs(cloud: Cloud) -> list[Document]:
    """Those that keep records, of the environment's VPCs."""
    used = {association["ResolverQueryLogConfigId"] for association in _associations(cloud)}
    operation = "list_resolver_query_log_configs"
    found = cloud.all("route53resolver", operation, "ResolverQueryLogConfigs")
    return [each for each in found if each["Id"] in used and each["Status"] == "CREATED"]


def _log_groups(cloud: Cloud) -> Iterator[Document]:
    for config in _configs(cloud):
        service, _, name = config["DestinationArn"].partition(":log-group:")
        if service.startswith("arn:aws:logs:"):
            name = name.removesuffix(":*")
            found = cloud.all("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=name)
            yield from (group for group in found if group["logGroupName"] == name)
