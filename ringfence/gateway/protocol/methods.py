"""Every MCP method that the gateway offers, in one table that all stages use.

Tasks are not offered: a task's id names no tool, and the specification leaves to each server who
may use it (SEP-2663), so there is nothing to authorise a call of `tasks/*` by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MODERN = "2026-07-28"
OLDER = ("2025-11-25", "2025-06-18")
"""Newest first."""
_ALL = (MODERN, *OLDER)

Kind = Literal["server", "tool", "resource", "prompt"]
Subject = Literal["server", "tool", "resource", "prompt", "reference", "subscription"]
"""A kind, or `reference` and `subscription`: the parameters say which kinds and names."""
Activity = Literal["read", "update", "other"]
"""The kind of activity in the audit log (OCSF API Activity)."""


@dataclass(frozen=True)
class Listing:
    """The place of the entries in the result of a list, and the member that names one."""

    key: str
    kind: Kind
    name: str


@dataclass(frozen=True)
class Method:
    name: str
    """The name of the Cedar action too: `schema.cedarschema` has the same ones."""
    subject: Subject
    """The kind of thing that a request acts on."""
    versions: tuple[str, ...] = _ALL
    """Versions of MCP in which clients send it."""
    activity: Activity = "read"
    listing: Listing | None = None
    mirrored: bool = False
    """Whether Mcp-Name repeats the name (MCP 2026-07-28)."""
    notification: bool = False


_ROWS = (
    Method("server/discover", "server", (MODERN,)),
    Method("initialize", "server", OLDER),
    Method("ping", "server", OLDER),
    Method("logging/setLevel", "server", OLDER, activity="update"),
    Method("tools/list", "server", listing=Listing("tools", "tool", "name")),
    Method("tools/call", "tool", activity="other", mirrored=True),
    Method("resources/list", "server", listing=Listing("resources", "resource", "uri")),
    Method(
        "resources/templates/list",
        "server",
        listing=Listing("resourceTemplates", "resource", "uriTemplate"),
    ),
    Method("resources/read", "resource", mirrored=True),
    Method("resources/subscribe", "resource", OLDER, activity="other"),
    Method("resources/unsubscribe", "resource", OLDER, activity="other"),
    Method("prompts/list", "server", listing=Listing("prompts", "prompt", "name")),
    Method("prompts/get", "prompt", mirrored=True),
    Method("completion/complete", "reference"),
    Method("subscriptions/listen", "subscription", (MODERN,), activity="other"),
    *(
        Method(f"notifications/{name}", "server", OLDER, activity="other", notification=True)
        for name in ("initialized", "cancelled", "progress", "roots/list_changed")
    ),
)

METHODS: Mapping[str, Method] = {each.name: each for each in _ROWS}

REQUESTS: Mapping[str, Mapping[str, Method]] = {
    version: {m.name: m for m in _ROWS if version in m.versions and not m.notification}
    for version in _ALL
}
"""The requests of each version."""

USES: Mapping[Kind, str] = {
    "server": "server/discover",
    "tool": "tools/call",
    "resource": "resources/read",
    "prompt": "prompts/get",
}
"""The method that makes an entry of a list worth showing."""

SERVER_NOTIFICATIONS = frozenset(
    {
        "notifications/cancelled",
        "notifications/message",
        "notifications/progress",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
        "notifications/subscriptions/acknowledged",
        "notifications/tools/list_changed",
    }
)
"""Notifications from server to client, in any version."""

LIST_CHANGES = frozenset({"toolsListChanged", "promptsListChanged", "resourcesListChanged"})
SUBSCRIPTION_FILTER = LIST_CHANGES | {"resourceSubscriptions"}
"""Members of the filter of `subscriptions/listen`: flags, and the URIs of resources."""

OPERATIONS: Mapping[str, Activity] = {
    "grants/list": "read",
    "grants/request": "update",
    "grants/approve": "update",
    "grants/revoke": "update",
    "access/list": "read",
    "access/revoke": "update",
    "access/restore": "update",
}
"""Steps of grants and revocations, which are not MCP and stand in the audit log beside it."""
