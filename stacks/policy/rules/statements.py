"""Statements of policy documents, as rules read them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .rule import items

Statement = Mapping[str, Any]
Conditions = Mapping[str, frozenset[str]]


def allowing(policy: Any) -> Iterator[Statement]:
    """Yield statements of a document, text or object. AWS itself refuses anything else."""
    if policy is None:
        return
    document = policy if isinstance(policy, Mapping) else _parsed(str(policy))
    for statement in items(document.get("Statement")):
        if statement.get("Effect") == "Allow":
            yield statement


def texts(found: Any) -> tuple[str, ...]:
    """Return a value of a policy, one text or a list, as texts."""
    return tuple(str(each) for each in items(found))


def label(statement: Statement) -> str:
    return f"statement {statement['Sid']}" if statement.get("Sid") else "a statement"


def is_for_anybody(statement: Statement) -> bool:
    if statement.get("NotPrincipal") is not None:
        return True
    principal = statement.get("Principal")
    if isinstance(principal, Mapping):
        return "*" in texts(principal.get("AWS"))
    return "*" in texts(principal)


def conditions(statement: Statement) -> Conditions:
    """Values by operator and key, as in `StringEquals aws:SourceAccount`; keys have no case."""
    return {
        f"{operator} {key.lower()}": frozenset(texts(wanted))
        for operator, tests in (statement.get("Condition") or {}).items()
        for key, wanted in tests.items()
    }


def condition_keys(statement: Statement) -> frozenset[str]:
    return frozenset(each.split(" ", 1)[1] for each in conditions(statement))


def limits(statement: Statement, keys: frozenset[str]) -> bool:
    """Decide whether a condition demands one of these keys, with a value that is not everything.

    `…IfExists` and `ForAllValues` match an absent key, and a negation matches nearly every value.
    """
    for each, wanted in conditions(statement).items():
        operator, key = each.split(" ", 1)
        optional = operator.endswith("IfExists") or operator.startswith("ForAllValues")
        negated = "Not" in operator or operator == "Null"
        if key in keys and not optional and not negated and "*" not in wanted:
            return True
    return False


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}
