"""Cedar texts, checked as a whole before one of them decides anything."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import cedarpy
from cedarpy import pst

NAMESPACE = "Ringfence"

# Lexemes that can contain a semicolon, and the semicolons that end a policy.
_LEXEME = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|;|[^\s;"/]+|.', re.DOTALL)
_POSITION = re.compile(r"\bpolicy(\d+)\b")


class PolicySourceError(Exception):
    """Policies that cannot be used. `problems`: each with file, line and what to do."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class PolicySource:
    """Policies that are valid: each has an id of its own and fits the schema and the facts."""

    policies: cedarpy.PolicySet
    ids: Mapping[str, str]
    """The id by which its author names a policy, by the one that Cedar assigns."""


def read(
    texts: Mapping[str, str], schema: cedarpy.Schema, entities: Set[tuple[str, str]]
) -> PolicySource:
    """Check the texts, by file name, and make one set of policies of them.

    `entities`: type, without namespace, and id of everything that policies may name; a rule about
    a tool that does not exist would otherwise forbid nothing, silently. Validation is Cedar's
    strict mode. Raises `PolicySourceError` with every problem of every file.
    """
    problems: list[str] = []
    owners: dict[str, str] = {}
    for file, text in texts.items():
        problems += _problems(file, text, schema, entities, owners)
    if problems:
        raise PolicySourceError(problems)
    policies = cedarpy.PolicySet.from_str("\n".join(texts.values()))
    numbered = policies.to_pst().static_policies
    return PolicySource(policies, {key: each.annotations["id"] for key, each in numbered.items()})


def _problems(
    file: str,
    text: str,
    schema: cedarpy.Schema,
    entities: Set[tuple[str, str]],
    owners: dict[str, str],
) -> Iterator[str]:
    """Problems of one file. `owners`: the place of every id so far; this file adds its own."""
    statements = list(_statements(text))
    try:
        parsed = cedarpy.policies_to_pst(text)
    except ValueError as error:
        line, reason = _syntax_error(statements, str(error))
        yield f"{file}:{line}: in the policy that begins here: {reason}; correct its syntax"
        return
    for key in parsed.templates:
        yield (
            f"{file}:{_line(statements, key)}: a template (?principal, ?resource) decides nothing"
            " here: name the principal and the resource"
        )
    for key, policy in parsed.static_policies.items():
        place = f"{file}:{_line(statements, key)}"
        name = policy.annotations.get("id")
        if not name:
            yield f'{place}: a policy without an id: put @id("...") in front of it'
        elif name in owners:
            yield f"{place}: @id({name!r}) is also at {owners[name]}: give one another id"
        owners.setdefault(name or place, place)
        for kind, eid in sorted(_named(policy) - entities):
            yield (
                f'{place}: {kind}::"{eid}" does not exist: correct the name, or remove it from the'
                " policy"
            )
    for error in cedarpy.validate_policies(text, schema).errors:
        reason = re.sub(r"^for policy `policy\d+`[,:] ", "", error.error)
        yield (
            f"{file}:{_line(statements, error.policy_id)}: {reason}; schema.cedarschema says what"
            " policies can speak of"
        )


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Policies in their order, each with its first line."""
    begin: int | None = None
    for lexeme in _LEXEME.finditer(text):
        if lexeme[0].isspace() or lexeme[0].startswith("//"):
            continue
        if begin is None:
            begin = lexeme.start()
        if lexeme[0] == ";":
            yield text.count("\n", 0, begin) + 1, text[begin : lexeme.end()]
            begin = None
    if begin is not None:
        yield text.count("\n", 0, begin) + 1, text[begin:]


def _syntax_error(statements: list[tuple[int, str]], reason: str) -> tuple[int, str]:
    """Find the policy with the error, since Cedar's bindings name no place: parse each alone."""
    for line, statement in statements:
        try:
            cedarpy.policies_to_pst(statement)
        except ValueError as error:
            return line, str(error)
    return 1, reason


def _line(statements: list[tuple[int, str]], key: str) -> int:
    """The line of a policy, from the number in the id that Cedar assigns."""
    position = _POSITION.search(key)
    number = int(position[1]) if position else 0
    return statements[number][0] if number < len(statements) else 1


def _named(node: Any) -> set[tuple[str, str]]:
    """Type and id of every entity of ours in a policy, except actions and enumerated ones."""
    if isinstance(node, pst.EntityUid):
        kind = node.type
        ours = kind.namespace == (NAMESPACE,) and kind.basename not in _IN_SCHEMA
        return {(kind.basename, node.id)} if ours else set()
    if isinstance(node, Mapping):
        node = tuple(node.values())
    elif is_dataclass(node):
        node = tuple(getattr(node, each.name) for each in fields(node))
    if not isinstance(node, (tuple, list, set, frozenset)):
        return set()
    return set[tuple[str, str]]().union(*map(_named, node))


_IN_SCHEMA = frozenset({"Action", "DataClass", "Stage", "Kind"})
"""Types whose ids the schema lists: validation checks them."""
