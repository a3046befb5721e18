"""Evaluation of IAM policies, with the semantics of AWS.

AWS's own simulator does not read the resource policies of every service and needs an account.
Syntax that this module does not know (an operator, a variable with a default) is an error, never a
guess.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import ip_address, ip_network
from typing import Any

Document = Mapping[str, Any]
Values = tuple[str, ...]


class IamDecision(StrEnum):
    ALLOWED = "allowed"
    DENIED = "denied"
    """A statement denies the request; no other statement can allow it."""
    NOT_ALLOWED = "not allowed"
    """No statement allows the request."""


class IamPolicyError(ValueError):
    """A policy uses syntax that this module does not know."""


@dataclass(frozen=True)
class IamPrincipal:
    kind: str
    """`AWS`, `Service` or `Federated`."""
    name: str
    """ARN of an identity, or name of a service or provider."""

    @property
    def account(self) -> str:
        return self.name.split(":")[4] if self.kind == "AWS" else ""

    @property
    def context(self) -> Mapping[str, str]:
        """Condition keys that AWS sets for every principal of this kind."""
        if self.kind == "Service":
            return {"aws:PrincipalServiceName": self.name, "aws:PrincipalIsAWSService": "true"}
        if self.kind == "AWS":
            return {"aws:PrincipalArn": self.name, "aws:PrincipalAccount": self.account}
        return {}


@dataclass(frozen=True)
class AccessRequest:
    action: str
    resource: str = "*"
    principal: IamPrincipal | None = None
    context: Mapping[str, str | Sequence[str]] = field(default_factory=dict)

    def values(self, key: str) -> Values:
        """Return the values of a condition key (case-insensitive); empty if it is absent."""
        known = {**(self.principal.context if self.principal else {}), **self.context}
        for name, value in known.items():
            if name.lower() == key.lower():
                return (value,) if isinstance(value, str) else tuple(value)
        return ()


def decide(
    request: AccessRequest,
    identity: Iterable[Document],
    *,
    boundary: Iterable[Document] | None = None,
    resource: Document | None = None,
) -> IamDecision:
    """Evaluate the policies of an identity, its boundary and the resource policy, in one account.

    A resource policy that names the identity itself is enough to allow the request. One that names
    the account leaves the decision to the identity's policies.
    """
    by_identity = granted(identity, request)
    limit = IamDecision.ALLOWED if boundary is None else granted(boundary, request)
    by_resource = granted([resource], request) if resource else IamDecision.NOT_ALLOWED
    if IamDecision.DENIED in (by_identity, limit, by_resource):
        return IamDecision.DENIED
    if by_identity == limit == IamDecision.ALLOWED:
        return IamDecision.ALLOWED
    if resource and by_resource == IamDecision.ALLOWED and not _delegated(resource, request):
        return IamDecision.ALLOWED
    return IamDecision.NOT_ALLOWED


def granted(policies: Iterable[Document], request: AccessRequest) -> IamDecision:
    """Evaluate these policies, without any others."""
    effects = {
        statement["Effect"]
        for policy in policies
        for statement in statements(policy)
        if applies(statement, request)
    }
    if "Deny" in effects:
        return IamDecision.DENIED
    return IamDecision.ALLOWED if "Allow" in effects else IamDecision.NOT_ALLOWED


def statements(policy: Document) -> list[Document]:
    """Return the statements of a policy. A policy may have a single one without a list."""
    found = policy.get("Statement", [])
    return [found] if isinstance(found, Mapping) else list(found)


def applies(statement: Document, request: AccessRequest) -> bool:
    return (
        _applies_to_action(statement, request)
        and _applies_to_resource(statement, request)
        and _applies_to_principal(statement, request)
        and _conditions_hold(statement.get("Condition", {}), request)
    )


def _applies_to_action(statement: Document, request: AccessRequest) -> bool:
    def named(key: str) -> bool:
        patterns = _list(statement[key])
        return any(_like(each.lower(), request.action.lower()) for each in patterns)

    return named("Action") if "Action" in statement else not named("NotAction")


def _applies_to_resource(statement: Document, request: AccessRequest) -> bool:
    """Return whether a statement covers the resource. A trust policy names no resource."""

    def named(key: str) -> bool:
        return any(_like(each, request.resource, request) for each in _list(statement[key]))

    if "NotResource" in statement:
        return not named("NotResource")
    return named("Resource") if "Resource" in statement else True


def _applies_to_principal(statement: Document, request: AccessRequest) -> bool:
    """Return whether a statement covers the principal. Policies of identities name none."""
    if "NotPrincipal" in statement:
        return not _named(statement["NotPrincipal"], request.principal)
    return _named(statement["Principal"], request.principal) if "Principal" in statement else True


def _named(principals: str | Mapping[str, Any], principal: IamPrincipal | None) -> bool:
    if principals == "*":
        return True
    if principal is None or isinstance(principals, str):
        return False
    names = _list(principals.get(principal.kind, []))
    if "*" in _list(principals.get("AWS", [])) or principal.name in names:
        return True
    accounts = (principal.account, f"arn:aws:iam::{principal.account}:root")
    return principal.kind == "AWS" and any(account in names for account in accounts)


def _delegated(policy: Document, request: AccessRequest) -> bool:
    """Return whether every allowing statement names the account rather than the identity."""
    principal = request.principal
    if principal is None or principal.kind != "AWS":
        return False
    return not any(
        statement["Effect"] == "Allow"
        and applies(statement, request)
        and _names_itself(statement.get("Principal", {}), principal)
        for statement in statements(policy)
    )


def _names_itself(principals: str | Mapping[str, Any], principal: IamPrincipal) -> bool:
    if isinstance(principals, str):
        return principals == "*"
    return bool({"*", principal.name} & set(_list(principals.get("AWS", []))))


def _conditions_hold(conditions: Mapping[str, Mapping[str, Any]], request: AccessRequest) -> bool:
    return all(
        _condition_holds(operator, key, tuple(map(_text, _list(wanted))), request)
        for operator, tests in conditions.items()
        for key, wanted in tests.items()
    )


def _condition_holds(operator: str, key: str, wanted: Values, request: AccessRequest) -> bool:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-logic-multiple-context-keys-or-values.html"""
    quantifier, _, name = operator.rpartition(":")
    if quantifier not in ("", "ForAllValues", "ForAnyValue"):
        raise IamPolicyError(f"condition operator {operator} is not known")
    present = request.values(key)
    if name == "Null":
        return (not present) == (wanted[0].lower() == "true")
    optional = name.endswith("IfExists")
    name = name.removesuffix("IfExists")
    negated = name in _NEGATED
    compare = _COMPARISONS.get(_NEGATED.get(name, name))
    if compare is None:
        raise IamPolicyError(f"condition operator {operator} is not known")

    def matches(value: str) -> bool:
        return any(compare(each, value, request) for each in wanted) is not negated

    if not present:
        return optional or quantifier == "ForAllValues" or (negated and not quantifier)
    if quantifier == "ForAnyValue":
        return any(map(matches, present))
    # Without a quantifier a key has one value. If it has several, a negation must be true for each.
    return (all if quantifier or negated else any)(map(matches, present))


Comparison = Callable[[str, str, AccessRequest], bool]
"""Compares a value of the policy with a value of the request."""


def _arn_like(wanted: str, value: str, request: AccessRequest) -> bool:
    """Compare ARNs part by part: a * does not match beyond its part."""
    patterns, parts = wanted.split(":", 5), value.split(":", 5)
    return len(patterns) == len(parts) == 6 and all(
        _like(pattern, part, request) for pattern, part in zip(patterns, parts, strict=True)
    )


def _number(compare: Callable[[float, float], bool]) -> Comparison:
    return lambda wanted, value, _: compare(float(value), float(wanted))


def _date(compare: Callable[[datetime, datetime], bool]) -> Comparison:
    return lambda wanted, value, _: compare(_moment(value), _moment(wanted))


def _moment(text: str) -> datetime:
    """Parse ISO 8601, as IAM does; without an offset it is UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise IamPolicyError(f"the date {text} is not known: {error}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


_COMPARISONS: Mapping[str, Comparison] = {
    "StringEquals": lambda wanted, value, request: _substituted(wanted, request) == value,
    "StringEqualsIgnoreCase": lambda wanted, value, request: (
        (_substituted(wanted, request) or "").lower() == value.lower()
    ),
    "StringLike": lambda wanted, value, request: _like(wanted, value, request),
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "Bool": lambda wanted, value, _: wanted.lower() == value.lower(),
    "IpAddress": lambda wanted, value, _: ip_address(value) in ip_network(wanted, strict=False),
    "NumericEquals": _number(lambda value, wanted: value == wanted),
    "NumericLessThan": _number(lambda value, wanted: value < wanted),
    "NumericLessThanEquals": _number(lambda value, wanted: value <= wanted),
    "NumericGreaterThan": _number(lambda value, wanted: value > wanted),
    "NumericGreaterThanEquals": _number(lambda value, wanted: value >= wanted),
    "DateLessThan": _date(lambda value, wanted: value < wanted),
    "DateGreaterThan": _date(lambda value, wanted: value > wanted),
}
_NEGATED: Mapping[str, str] = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NotIpAddress": "IpAddress",
    "NumericNotEquals": "NumericEquals",
}
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_LITERAL = ("*", "?", "$")
"""Variables for literal characters: `${*}` is an asterisk, not a wildcard."""


def _substituted(text: str, request: AccessRequest) -> str | None:
    """Replace the variables in a text. None if one is absent: then nothing matches."""
    values = {name: _variable(name, request) for name in _VARIABLE.findall(text)}
    if None in values.values():
        return None
    return _VARIABLE.sub(lambda found: str(values[found[1]]), text)


def _variable(name: str, request: AccessRequest) -> str | None:
    if "," in name:
        raise IamPolicyError(f"the default of policy variable ${{{name}}} is not evaluated")
    if name in _LITERAL:
        return name
    return next(iter(request.values(name)), None)


def _like(pattern: str, text: str, request: AccessRequest | None = None) -> bool:
    """Match a pattern. `*` and `?` are wildcards, except in the value of a variable."""
    expression, end = "", 0
    for found in _VARIABLE.finditer(pattern) if request else ():
        value = _variable(found[1], request) if request else None
        if value is None:
            return False
        expression += _wild(pattern[end : found.start()]) + re.escape(value)
        end = found.end()
    return re.fullmatch(expression + _wild(pattern[end:]), text, re.DOTALL) is not None


def _wild(text: str) -> str:
    return re.escape(text).replace(r"\*", ".*").replace(r"\?", ".")


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _text(value: Any) -> str:
    """Return a condition value as text. JSON allows unquoted booleans and numbers."""
    return str(value).lower() if isinstance(value, bool) else str(value)
