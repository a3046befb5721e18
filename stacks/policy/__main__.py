"""Serves the rules to Pulumi's engine. Started by it: constructing the pack never returns."""

# The engine runs this folder in an environment of its own: decision policy-pack.
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from pulumi_policy import (
    EnforcementLevel,
    PolicyPack,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError
from rules import RULES, STACK_RULES, DeclaredResource, Properties, ResourceRule, StackRule


class Unknown:
    """A value that a preview does not know: it exists, and no rule may read it.

    The SDK refuses even to say whether it is there, so that every key of the same stack would
    keep its rule from being run. To look at it ends the rule, which the engine then reports as
    advice; the update, where the value is known, asks again before the resource is made.
    """

    def __init__(self, error: UnknownValueError) -> None:
        self._error = error

    def _refuse(self, *_: object) -> NoReturn:
        raise self._error

    __bool__ = __contains__ = __eq__ = __format__ = __getattr__ = __getitem__ = _refuse
    __hash__ = __iter__ = __len__ = __str__ = _refuse


def known(value: Any) -> Any:
    """Out of the SDK's proxies, which are neither lists nor dictionaries."""
    if isinstance(value, Mapping):
        return {key: _item(value, key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_item(value, index) for index in range(len(value))]
    return value


def _item(container: Any, key: Any) -> Any:
    try:
        return known(container[key])
    except UnknownValueError as error:
        return Unknown(error)


def resource_policy(rule: ResourceRule) -> ResourceValidationPolicy:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        for violation in rule.violations(args.resource_type, known(args.props)):
            report(f"{violation}. {rule.remedy} ({rule.control})", None)

    return ResourceValidationPolicy(
        name=rule.name,
        description=rule.description,
        validate=validate,
        tags=[rule.control],
        remediation_steps=rule.remedy,
    )


def stack_policy(rule: StackRule) -> StackValidationPolicy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        for resource, violation in rule.check([declared(each) for each in args.resources]):
            report(f"{violation}. {rule.remedy} ({rule.control})", resource.urn)

    return StackValidationPolicy(
        name=rule.name,
        description=rule.description,
        validate=validate,
        tags=[rule.control],
        remediation_steps=rule.remedy,
    )


def declared(resource: PolicyResource) -> DeclaredResource:
    properties: Properties = known(resource.props)
    references = {
        name: frozenset(each.urn for each in made_from)
        for name, made_from in resource.property_dependencies.items()
    }
    return DeclaredResource(resource.urn, resource.resource_type, properties, references)


PolicyPack(
    name="ringfence",
    enforcement_level=EnforcementLevel.MANDATORY,
    policies=[*map(resource_policy, RULES), *map(stack_policy, STACK_RULES)],
)
