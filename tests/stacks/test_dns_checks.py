"""Checks of DNS in the cloud: each passes on our account and fails on an account with defaults and
on ours with exactly its property broken.

moto does not emulate the resolver's firewall: tests try its checks on answers in AWS's format.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from breaking import Aws, Broken, Exports, checks, failing, failing_once
from moto.route53resolver.models import route53resolver_backends

from ringfence.cloud.tags import ENVIRONMENT
from ringfence.manifest.model import Environment
from ringfence.rehearsal.account import emulated
from ringfence.rehearsal.record import Rehearsal
from ringfence.verify.account.cloud import Cloud

REGION = "eu-central-1"
FIREWALL = (
    "test_unknown_names_are_not_answered",
    "test_no_pattern_allows_everything",
    "test_nothing_is_answered_without_the_firewall",
)
CHECKS = {name: check for name, check in checks("dns").items() if name not in FIREWALL}
OF_FIREWALL = {name: check for name, check in checks("dns").items() if name in FIREWALL}


def test_our_account_passes(rehearsal: Rehearsal, environment: Environment) -> None:
    assert failing(CHECKS, Cloud(rehearsal.account.session, environment)) == {}


def test_an_account_with_defaults_fails_everything(environment: Environment) -> None:
    with emulated(REGION) as account:
        ec2 = account.client("ec2")
        (vpc,) = ec2.describe_vpcs()["Vpcs"]
        mine = {"Key": ENVIRONMENT, "Value": environment.name}
        ec2.create_tags(Resources=[vpc["VpcId"]], Tags=[mine])
        failed = failing(CHECKS, Cloud(account.session, environment))
    assert failed.keys() == CHECKS.keys()


BROKEN = Broken()


@BROKEN.by("every_question_is_recorded", "questions_are_kept_encrypted")
def questions_are_no_longer_recorded(aws: Aws, out: Exports) -> None:
    """Remove the association inside moto, which has no call for it."""
    account = aws("sts").get_caller_identity()["Account"]
    route53resolver_backends[account][REGION].resolver_query_log_config_associations.clear()


@BROKEN.by("questions_are_kept_encrypted")
def questions_are_kept_briefly(aws: Aws, out: Exports) -> None:
    aws("logs").put_retention_policy(logGroupName=out["dns_log_group"], retentionInDays=7)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_property_turns_exactly_its_checks_red(
    name: str, rehearsal: Rehearsal, environment: Environment
) -> None:
    change, expected = BROKEN[name]
    failed = failing_once(change, CHECKS, rehearsal, environment)
    assert failed.keys() == expected, failed


def test_every_check_is_broken_by_something() -> None:
    assert set().union(*(named for _, named in BROKEN.values())) == CHECKS.keys()


class _Resolver:
    """Resolver that answers as AWS does, from the declared resources."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._answers = answers

    def get_paginator(self, operation: str) -> _Resolver:
        return _Resolver({"": self._answers[operation]})

    def paginate(self, **asked: str) -> list[Any]:
        found = self._answers[""]
        return [found[asked["FirewallDomainListId"]] if "FirewallDomainListId" in asked else found]

    def get_firewall_config(self, **_: str) -> Any:
        return {"FirewallConfig": {"FirewallFailOpen": self._answers["fail_open"]}}


def declared(rehearsal: Rehearsal) -> dict[str, Any]:
    def of(kind: str) -> list[Any]:
        return [*rehearsal.of_type(f"aws:route53/resolverFirewall{kind}:ResolverFirewall{kind}")]

    (config,) = of("Config")
    (association,) = of("RuleGroupAssociation")
    assert association.inputs["vpcId"] == config.inputs["resourceId"] == rehearsal.exports["vpc_id"]
    return {
        "list_firewall_rule_group_associations": {
            "FirewallRuleGroupAssociations": [
                {"FirewallRuleGroupId": association.inputs["firewallRuleGroupId"]}
            ]
        },
        "list_firewall_rules": {
            "FirewallRules": [
                {
                    "Action": rule.inputs["action"],
                    "Priority": rule.inputs["priority"],
                    "FirewallDomainListId": rule.inputs["firewallDomainListId"],
                }
                for rule in of("Rule")
            ]
        },
        "list_firewall_domains": {
            each.id: {"Domains": [f"{domain}." for domain in each.inputs["domains"]]}
            for each in of("DomainList")
        },
        "fail_open": config.inputs["firewallFailOpen"],
    }


def failing_with(
    answers: Mapping[str, Any], rehearsal: Rehearsal, environment: Environment
) -> set[str]:
    cloud = Cloud(rehearsal.account.session, environment)
    make = cloud.client

    @cache
    def client(service: str) -> Any:
        return _Resolver(answers) if service == "route53resolver" else make(service)

    cloud.client = client
    return {*failing(OF_FIREWALL, cloud)}


def test_what_the_stack_declares_passes(rehearsal: Rehearsal, environment: Environment) -> None:
    assert failing_with(declared(rehearsal), rehearsal, environment) == set()


def test_no_firewall_fails(rehearsal: Rehearsal, environment: Environment) -> None:
    none = {"list_firewall_rule_group_associations": {"FirewallRuleGroupAssociations": []}}
    answers = {**declared(rehearsal), **none}
    expected = {"test_unknown_names_are_not_answered"}
    assert failing_with(answers, rehearsal, environment) == expected


def test_an_asterisk_too_many_fails(rehearsal: Rehearsal, environment: Environment) -> None:
    answers = declared(rehearsal)
    for found in answers["list_firewall_domains"].values():
        found["Domains"].append("*.com.")
    expected = {"test_no_pattern_allows_everything"}
    assert failing_with(answers, rehearsal, environment) == expected


def test_open_on_failure_fails(rehearsal: Rehearsal, environment: Environment) -> None:
    answers = {**declared(rehearsal), "fail_open": "ENABLED"}
    expected = {"test_nothing_is_answered_without_the_firewall"}
    assert failing_with(answers, rehearsal, environment) == expected


def test_only_declared_names_are_allowed(rehearsal: Rehearsal) -> None:
    kind = "aws:route53/resolverFirewallDomainList:ResolverFirewallDomainList"
    lists = {r.name.rpartition("-")[2]: r.inputs["domains"] for r in rehearsal.of_type(kind)}
    assert lists["others"] == ["*"]
    links = {name for name in lists["allowed"] if ".vpce." in name}
    assert links
    services = ("dynamodb", "ec2messages", "kms", "logs", "monitoring", "s3")
    agents = ("secretsmanager", "ssm", "ssmmessages", "sts")
    assert {*lists["allowed"]} - links == {
        *("payments.example.internal", "*.payments.example.internal", "rates.example.com"),
        *(f"{service}.eu-central-1.amazonaws.com" for service in (*services, *agents)),
        "*.s3.eu-central-1.amazonaws.com",
        "*.eu-central-1.compute.internal",
    }


def test_known_names_are_asked_for_first(rehearsal: Rehearsal) -> None:
    """The resolver evaluates the lowest priority first, and the first matching rule decides."""
    rules = declared(rehearsal)["list_firewall_rules"]["FirewallRules"]
    ordered = sorted(rules, key=lambda rule: rule["Priority"])
    assert [rule["Action"] for rule in ordered] == ["ALLOW", "BLOCK"]
