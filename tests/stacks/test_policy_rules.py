"""Rules of the policy pack: our stacks break none, and each rule refuses what it must."""

from __future__ import annotations

import importlib
import json
import typing
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import pulumi_aws as aws
import pytest
from judges import iam_definition
from policy_cases import ALWAYS, CASES, STACK_CASES, Case, StackCase
from pulumi._types import input_type_py_to_pulumi_names, input_type_types

from ringfence.cloud import tags as cloud_tags
from ringfence.cloud.groups import host_group, server_group
from ringfence.controls import catalogue as controls
from ringfence.manifest.model import Environment
from ringfence.rehearsal.engine.stacks import rehearsed_stack
from ringfence.rehearsal.record import Rehearsal, RehearsedResource
from stacks.policy.rules import RULES, STACK_RULES, DeclaredResource, tags
from stacks.policy.rules.access import WITHOUT_RESOURCES

Inputs = Mapping[str, Any]


def broken(kind: str, properties: Inputs) -> dict[str, list[str]]:
    found = {rule.name: list(rule.violations(kind, properties)) for rule in RULES}
    return {name: violations for name, violations in found.items() if violations}


@pytest.fixture(scope="module")
def stacks(rehearsal: Rehearsal, environment: Environment) -> Iterator[tuple[Rehearsal, ...]]:
    with rehearsed_stack(environment, "account", preview=False) as account:
        yield rehearsal, account


def test_our_stacks_break_no_rule(stacks: tuple[Rehearsal, ...]) -> None:
    resources = [resource for stack in stacks for resource in stack.resources]
    found = {
        f"{resource.type} {resource.name}": violations
        for resource in resources
        if (violations := broken(resource.type, resource.inputs))
    }
    assert len(resources) > 200
    assert found == {}


def test_our_stacks_break_no_rule_of_what_stands_together(stacks: tuple[Rehearsal, ...]) -> None:
    for stack in stacks:
        resources = declared(stack.resources)
        assert any(resource.references for resource in resources)
        found = [(r.urn, says) for rule in STACK_RULES for r, says in rule.check(resources)]
        assert found == []


def declared(resources: tuple[RehearsedResource, ...]) -> list[DeclaredResource]:
    """Return the resources with references: the engine knows them from outputs, this test finds
    them by ids.

    A resource that has another's id, as a bucket's policy does, refers to it in its inputs.
    """
    urns = {each.id: each.urn for each in resources if each.id not in each.inputs.values()}
    return [
        DeclaredResource(
            resource.urn,
            resource.type,
            resource.inputs,
            {
                name: frozenset({urns[found]})
                for name, found in resource.inputs.items()
                if isinstance(found, str) and found in urns
            },
        )
        for resource in resources
    ]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_rule_refuses_what_breaks_it_and_nothing_else(case: Case) -> None:
    assert broken(case.type, case.broken).keys() == {case.rule}
    assert broken(case.type, case.passing) == {}


@pytest.mark.parametrize(("rule", "kind", "properties"), ALWAYS)
def test_some_resources_are_refused_whatever_they_say(
    rule: str, kind: str, properties: Inputs
) -> None:
    assert broken(kind, properties).keys() == {rule}


@pytest.mark.parametrize("case", STACK_CASES, ids=lambda case: case.rule)
def test_a_rule_of_stacks_refuses_what_breaks_it(case: StackCase) -> None:
    found = [(rule.name, each) for rule in STACK_RULES for each, _ in rule.check(case.broken)]
    assert found == [(case.rule, case.broken[0])]
    assert [says for rule in STACK_RULES for _, says in rule.check(case.passing)] == []


def test_every_rule_has_been_seen_to_refuse() -> None:
    seen = {case.rule for case in (*CASES, *STACK_CASES)} | {rule for rule, _, _ in ALWAYS}
    assert seen == {rule.name for rule in (*RULES, *STACK_RULES)}


def test_rules_are_of_controls_in_the_cloud() -> None:
    names = [rule.name for rule in (*RULES, *STACK_RULES)]
    catalogue = controls.load()
    assert len(names) == len({*names})
    for rule in (*RULES, *STACK_RULES):
        # Also a rule about AWS's keys, although these are secrets of servers too.
        assert "cloud" in catalogue[rule.control].layers, rule.name
        assert rule.description.endswith(".")
        assert rule.remedy.endswith(".")


def test_a_document_that_is_no_policy_is_left_to_aws() -> None:
    for text in ("", "{", "[]", '"*"', "{}", '{"Statement": {"Effect": "Deny"}}'):
        assert broken("aws:iam/rolePolicy:RolePolicy", {"role": "r", "policy": text}) == {}


def test_a_single_statement_and_an_object_are_read_too() -> None:
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    for policy in ({"Statement": statement}, {"Statement": [statement]}):
        for given in (policy, json.dumps(policy)):
            found = broken("aws:iam/rolePolicy:RolePolicy", {"role": "r", "policy": given})
            assert found.keys() == {"no-wildcard-permission"}


def test_tags_have_the_names_that_our_stacks_give(environment: Environment) -> None:
    assert (tags.ENVIRONMENT, tags.CONTROL, tags.DATA_CLASS, tags.SCOPE, tags.GROUP) == (
        cloud_tags.ENVIRONMENT,
        cloud_tags.CONTROL,
        cloud_tags.DATA_CLASS,
        cloud_tags.SCOPE,
        cloud_tags.GROUP,
    )
    servers = [server_group(server) for server in environment.servers.values()]
    hosts = [host_group(host) for host in environment.hosts.values()]
    assert all(group.startswith(tags.WORKLOADS) for group in (*servers, *hosts))


def test_whatever_our_stacks_tag_has_to_be_tagged(stacks: tuple[Rehearsal, ...]) -> None:
    ours = {r.type for stack in stacks for r in stack.resources if "tags" in r.inputs}
    assert ours <= {*tags.TAGGED}


def test_actions_without_resources_have_none_in_aws() -> None:
    offered = {
        f"{service['prefix']}:{privilege['privilege']}": privilege["resource_types"]
        for service in iam_definition
        for privilege in service["privileges"]
    }
    assert offered.keys() >= WITHOUT_RESOURCES
    for action in WITHOUT_RESOURCES:
        assert all(not each["resource_type"] for each in offered[action]), action


def test_types_and_properties_are_those_of_the_provider() -> None:
    """A rule for a misspelt type or property would never refuse anything."""
    kinds = {kind for rule in RULES for kind in rule.types}
    kinds |= {resource.type for case in STACK_CASES for resource in case.passing}
    arguments = {kind: arguments_of(kind) for kind in kinds}
    for kind in tags.TAGGED:
        assert "tags" in input_type_py_to_pulumi_names(arguments[kind]), kind
    given = [(case.type, case.broken) for case in CASES]
    given += [(case.type, case.passing) for case in CASES]
    given += [(kind, properties) for _, kind, properties in ALWAYS]
    for kind, properties in given:
        assert list(unknown(arguments[kind], properties, kind)) == []


def arguments_of(token: str) -> type:
    """Return the class of the arguments of a resource type."""
    _, place, name = token.split(":")
    module: ModuleType = importlib.import_module(
        f"{aws.__name__}.{place.split('/')[0].replace('lambda', 'lambda_')}"
    )
    resource = getattr(module, name)
    assert resource.pulumi_type == token
    # The class has this name if a nested argument has the other one.
    return getattr(module, f"{name}InitArgs", None) or getattr(module, f"{name}Args")


def unknown(arguments: type, properties: Inputs, path: str) -> Iterator[str]:
    names = input_type_py_to_pulumi_names(arguments)
    kinds = input_type_types(arguments)
    for wire, found in properties.items():
        if wire not in names.values():
            yield f"{path}.{wire}"
            continue
        inner = next(iter(argument_classes(kinds[wire])), None)
        for each in found if isinstance(found, list) else [found]:
            if inner and isinstance(each, Mapping):
                yield from unknown(inner, each, f"{path}.{wire}")


def argument_classes(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and hasattr(annotation, "_pulumi_input_type"):
        yield annotation
    for each in typing.get_args(annotation):
        yield from argument_classes(each)
