"""The table of refusals is complete: the code uses every row, and every reason has a row."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from ringfence.gateway.consent.index import Over
from ringfence.gateway.policy.decisions import ENTITY_TYPES
from ringfence.gateway.refusals import REFUSALS, Refusal

GATEWAY = Path(__file__).parents[3] / "ringfence/gateway"
REFUSERS = ("Refusal", "Refusal.of_result", "deny", "_refusal", "_RejectedError")
"""Functions that take a reason: `_refusal` as its second argument, the others as their first."""


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(GATEWAY.rglob("*.py")):
        if path.name != "refusals.py":
            yield str(path.relative_to(GATEWAY)), ast.parse(path.read_text())


def constants(node: ast.expr) -> list[str]:
    if isinstance(node, ast.IfExp):
        return [*constants(node.body), *constants(node.orelse)]
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def reasons_given(*functions: str) -> Iterator[tuple[str, str]]:
    """Yield place and text of each literal reason that is passed to one of these functions."""
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in functions:
                at = 1 if ast.unparse(node.func) == "_refusal" else 0
                for text in constants(node.args[at]) if len(node.args) > at else ():
                    yield f"{name}:{node.lineno}", text


def reasons() -> set[str]:
    """Return all reasons, both literal and composed ones."""
    jose = {text for _, text in reasons_given("JwsError", "jws.JwsError")}
    of_tokens = {
        text for place, text in reasons_given("JwsError") if place.startswith("jose/jws.py")
    }
    literal = {text for _, text in reasons_given(*REFUSERS)}
    decided = {text for text in literal_decisions() if text != "allowed"}
    unknown = {f"unknown_{kind}" for kind in ENTITY_TYPES}
    over = set(get_args(Over))
    return (
        literal
        | decided
        | unknown
        | over
        | {f"token_{text}" for text in of_tokens}
        | {f"proof_{text}" for text in jose}
    )


def literal_decisions() -> Iterator[str]:
    for name, tree in trees():
        for node in ast.walk(tree):
            if (
                name == "policy/decisions.py"
                and isinstance(node, ast.Call)
                and ast.unparse(node.func) == "Decision"
            ):
                yield from constants(node.args[2])


def test_the_code_was_read():
    for function in ("Refusal", "deny", "_refusal", "_RejectedError", "JwsError", "jws.JwsError"):
        assert any(reasons_given(function)), function


def test_every_reason_of_the_code_is_a_row():
    assert reasons() <= REFUSALS.keys()


def test_every_row_is_a_reason_of_the_code():
    mentioned = {
        node.value
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert REFUSALS.keys() <= reasons() | mentioned


def test_no_refusal_outside_of_the_table():
    with pytest.raises(KeyError):
        Refusal("because")
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Refusal":
                assert not any(each.arg == "answer" for each in node.keywords), name


def test_a_row_answers_as_http_and_json_rpc_require():
    for reason, answer in REFUSALS.items():
        assert 400 <= answer.status < 600, reason
        assert -32768 <= answer.code <= -32000, reason
        assert reason.isidentifier(), reason
        assert reason.islower(), reason


def test_a_reason_to_wait_says_how_long():
    assert dict(Refusal("audit_unavailable").headers) == {"Retry-After": "5"}
    assert dict(Refusal("rate_limited", headers=(("Retry-After", "7"),)).headers) == {
        "Retry-After": "7"
    }
