"""Roles, principals and approvers: who may call what, and who approves."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.manifest.validation.cursor import Cursor
from ringfence.manifest.validation.problem import Violation, dotted
from ringfence.manifest.validation.rules.reference import exists
from ringfence.manifest.validation.wording import quoted, suggestion

KINDS = {"tools": "tool", "resources": "resource", "prompts": "prompt"}
"""Keys under which a server offers and a role names something, and the word for one of it."""


def roles_grant_what_exists(manifest: Cursor) -> Iterator[Violation]:
    for _, role in manifest["roles"].entries():
        for kind in KINDS:
            for server, granted in role[kind].entries():
                yield from _granted(manifest["servers"], kind, server, granted)


def _granted(servers: Cursor, kind: str, server: str, granted: Cursor) -> Iterator[Violation]:
    if servers.is_mapping and server not in servers:
        # The unknown name is a key, not a value.
        for violation in exists(Cursor(server, granted.path), servers, "server"):
            yield Violation(violation.path, violation.message, on_key=True)
        return
    offered = servers.at(server, kind)
    if not offered.is_mapping:
        return  # The schema refuses it; every name would look undefined.
    for each in granted.elements():
        if each.text is not None and each.text not in offered:
            define = f"; define it under {dotted(offered.path)}"
            hint = suggestion(each.text, offered.value) or define
            yield each.violation(
                f"server {quoted(server)} has no {KINDS[kind]} {quoted(each.text)}{hint}"
            )


def principals_have_roles_that_exist(manifest: Cursor) -> Iterator[Violation]:
    for _, principal in manifest["principals"].entries():
        for role in principal["roles"].elements():
            yield from exists(role, manifest["roles"], "role")


def agents_have_a_person(manifest: Cursor) -> Iterator[Violation]:
    principals = manifest["principals"]
    for _, principal in principals.entries():
        owner = principal["owner"]
        if principal["kind"].text == "person" and "owner" in principal:
            yield owner.violation("a person answers for themselves; remove the owner")
            continue
        yield from exists(owner, principals, "principal")
        if owner.text and principals.at(owner.text, "kind").text == "agent":
            yield owner.violation(
                f"{quoted(owner.text)} is an agent; name the person who answers for this one"
            )


def people_are_distinct(manifest: Cursor) -> Iterator[Violation]:
    first_by_email: dict[str, str] = {}
    for name, principal in manifest["principals"].entries():
        email = principal["email"].text
        if principal["kind"].text != "person" or email is None:
            continue
        other = first_by_email.setdefault(email.casefold(), name)
        if other != name:
            yield principal["email"].violation(
                f"this address belongs to {quoted(other)} already; give each person their own"
            )


def _tools(manifest: Cursor) -> Iterator[tuple[str, str, Cursor]]:
    for server_name, server in manifest["servers"].entries():
        for tool_name, tool in server["tools"].entries():
            yield server_name, tool_name, tool


def sensitive_tools_have_approvers(manifest: Cursor) -> Iterator[Violation]:
    for _, _, tool in _tools(manifest):
        if tool["sensitive"].value is True and "approvers" not in tool:
            yield tool["approvers"].violation(
                "the tool is sensitive and nobody may approve a call; "
                "add 'approvers', people among the principals"
            )
        elif "approvers" in tool and tool["sensitive"].value in (None, False):
            yield tool["approvers"].violation(
                "the tool is not sensitive, so nothing is approved; "
                "add 'sensitive: true', or remove the approvers"
            )


def approvers_are_people(manifest: Cursor) -> Iterator[Violation]:
    principals = manifest["principals"]
    for _, _, tool in _tools(manifest):
        for approver in tool["approvers"].elements():
            yield from exists(approver, principals, "principal")
            if approver.text and principals.at(approver.text, "kind").text == "agent":
                yield approver.violation(f"{quoted(approver.text)} is an agent; name a person")


def someone_else_can_approve(manifest: Cursor) -> Iterator[Violation]:
    """Nobody approves their own grant: a sole approver could never call the tool (IAM-03)."""
    holders: dict[tuple[str, str], set[str]] = {}
    roles = manifest["roles"]
    for name, principal in manifest["principals"].entries():
        if principal["kind"].text != "person":
            continue
        for role in set(principal["roles"].texts()):
            for server, granted in roles.at(role, "tools").entries():
                for tool in granted.texts():
                    holders.setdefault((server, tool), set()).add(name)
    for server, name, tool in _tools(manifest):
        approvers = set(tool["approvers"].texts())
        stuck = approvers & holders.get((server, name), set())
        if tool["sensitive"].value is True and len(approvers) == 1 and stuck:
            yield tool["approvers"].violation(
                f"{quoted(stuck.pop())} may call the tool and is its only approver, "
                "but nobody approves for themselves; add another person"
            )
