"""Roles, principals and approval: who may call what, and who says yes."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.manifest.validation.cursor import Cursor
from ringfence.manifest.validation.finding import Finding, dotted, quoted, suggestion
from ringfence.manifest.validation.rules.reference import exists

KINDS = {"tools": "tool", "resources": "resource", "prompts": "prompt"}
"""What a server offers and a role grants: by key, one of them in words."""


def roles_grant_what_exists(manifest: Cursor) -> Iterator[Finding]:
    for _, role in manifest["roles"].entries():
        for kind in KINDS:
            for server, granted in role[kind].entries():
                yield from _granted(manifest["servers"], kind, server, granted)


def _granted(servers: Cursor, kind: str, server: str, granted: Cursor) -> Iterator[Finding]:
    if servers.is_mapping and server not in servers:
        # The name stands in a key, so that is where the finding belongs.
        for finding in exists(Cursor(server, granted.path), servers, "server"):
            yield Finding(finding.path, finding.message, on_key=True)
        return
    offered = servers.at(server, kind)
    may_be_absent = servers[server].is_mapping and kind != "tools" and kind not in servers[server]
    if not offered.is_mapping and not may_be_absent:
        return  # broken itself: every name would look undefined
    names = offered.value if offered.is_mapping else {}
    for each in granted.elements():
        if each.text is not None and each.text not in names:
            define = f"; define it under {dotted(offered.path)}"
            hint = suggestion(each.text, names) or define
            yield each.finding(
                f"server {quoted(server)} has no {KINDS[kind]} {quoted(each.text)}{hint}"
            )


def principals_have_roles_that_exist(manifest: Cursor) -> Iterator[Finding]:
    for _, principal in manifest["principals"].entries():
        for role in principal["roles"].elements():
            yield from exists(role, manifest["roles"], "role")


def agents_have_a_person(manifest: Cursor) -> Iterator[Finding]:
    principals = manifest["principals"]
    for _, principal in principals.entries():
        owner = principal["owner"]
        if principal["kind"].text == "person" and "owner" in principal:
            yield owner.finding("a person answers for themselves; remove the owner")
            continue
        yield from exists(owner, principals, "principal")
        if owner.text and principals.at(owner.text, "kind").text == "agent":
            yield owner.finding(
                f"{quoted(owner.text)} is an agent; name the person who answers for this one"
            )


def people_are_told_apart(manifest: Cursor) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for name, principal in manifest["principals"].entries():
        email = principal["email"].text
        if principal["kind"].text != "person" or email is None:
            continue
        other = seen.setdefault(email.casefold(), name)
        if other != name:
            yield principal["email"].finding(
                f"this is the address of {quoted(other)} already; give every person their own"
            )


def _tools(manifest: Cursor) -> Iterator[tuple[str, str, Cursor]]:
    for server_name, server in manifest["servers"].entries():
        for tool_name, tool in server["tools"].entries():
            yield server_name, tool_name, tool


def sensitive_tools_have_approvers(manifest: Cursor) -> Iterator[Finding]:
    for _, _, tool in _tools(manifest):
        if tool["sensitive"].value is True and "approvers" not in tool:
            yield tool["approvers"].finding(
                "the tool is sensitive and nobody may approve a call; "
                "add 'approvers', people among the principals"
            )
        elif "approvers" in tool and tool["sensitive"].value in (None, False):
            yield tool["approvers"].finding(
                "the tool is not sensitive, so nothing is approved; "
                "add 'sensitive: true', or remove the approvers"
            )


def approvers_are_people(manifest: Cursor) -> Iterator[Finding]:
    principals = manifest["principals"]
    for _, _, tool in _tools(manifest):
        for approver in tool["approvers"].elements():
            yield from exists(approver, principals, "principal")
            if approver.text and principals.at(approver.text, "kind").text == "agent":
                yield approver.finding(f"{quoted(approver.text)} is an agent; name a person")


def someone_else_can_approve(manifest: Cursor) -> Iterator[Finding]:
    """Nobody approves for themselves: a sole approver could never call the tool (IAM-03)."""
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
            yield tool["approvers"].finding(
                f"{quoted(stuck.pop())} may call the tool and is its only approver, "
                "but nobody approves for themselves; add another person"
            )
