"""Reference for authorisation: evaluates the manifest again, without Cedar. Random tests compare
the gateway with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

USES = {
    "tools/call": ("tools", "name"),
    "prompts/get": ("prompts", "name"),
    "resources/read": ("resources", "uri"),
    "resources/subscribe": ("resources", "uri"),
    "resources/unsubscribe": ("resources", "uri"),
}
"""Kind of object that a method uses, and the parameter that names it."""
REFERENCES = {"ref/prompt": ("prompts", "name"), "ref/resource": ("resources", "uri")}
CONNECTS = frozenset(
    {
        *("initialize", "ping", "server/discover", "logging/setLevel", "subscriptions/listen"),
        *("tools/list", "resources/list", "resources/templates/list", "prompts/list"),
        *("notifications/initialized", "notifications/cancelled", "notifications/progress"),
        "notifications/roots/list_changed",
    }
)


@dataclass(frozen=True)
class Reference:
    manifest: Mapping[str, Any]
    granted: Set[tuple[str, str, str]] = frozenset()
    """Principal, server and sensitive tool of each live grant."""

    def allows(self, principal: str, server: str, method: str, params: Mapping[str, Any]) -> bool:
        used = list(self._used(method, params))
        if method in CONNECTS:
            return self._connects(principal, server) and all(
                self._uses(principal, server, *each) for each in used
            )
        return bool(used) and all(self._uses(principal, server, *each) for each in used)

    def visible(self, principal: str, server: str) -> set[str]:
        """Return the tools in a list; it includes a sensitive tool that lacks nothing but a
        grant."""
        tools = self.manifest["servers"][server]["tools"]
        anyone = Reference(self.manifest, {(principal, server, tool) for tool in tools})
        return {t for t in tools if anyone.allows(principal, server, "tools/call", {"name": t})}

    def _used(self, method: str, params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield kind and name of each object that the request uses."""
        if method in USES:
            kind, parameter = USES[method]
            yield kind, params.get(parameter)
        elif method == "completion/complete":
            kind, parameter = REFERENCES[params["ref"]["type"]]
            yield kind, params["ref"].get(parameter)
        elif method == "subscriptions/listen":
            for uri in params["notifications"].get("resourceSubscriptions", ()):
                yield "resources", uri

    def _roles(self, principal: str) -> Iterator[Mapping[str, Any]]:
        for role in self.manifest["principals"].get(principal, {}).get("roles", ()):
            yield self.manifest["roles"][role]

    def _connects(self, principal: str, server: str) -> bool:
        return any(
            role.get(kind, {}).get(server)
            for role in self._roles(principal)
            for kind in ("tools", "resources", "prompts")
        )

    def _uses(self, principal: str, server: str, kind: str, name: Any) -> bool:
        offered = self.manifest["servers"].get(server, {}).get(kind, {})
        entry = declared(offered, name) if kind == "resources" else name
        if entry not in offered:
            return False
        if not any(entry in role.get(kind, {}).get(server, ()) for role in self._roles(principal)):
            return False
        sensitive = offered[entry].get("sensitive", False)
        return not sensitive or (principal, server, name) in self.granted


def declared(patterns: Mapping[str, Any], uri: Any) -> str | None:
    """Return the pattern that a URI belongs to: the matching pattern with the most literal text."""
    matching = [each for each in patterns if isinstance(uri, str) and _expression(each).match(uri)]
    return max(matching, key=lambda each: len(each.replace("*", "")), default=None)


def _expression(pattern: str) -> re.Pattern[str]:
    parts = {"**": r"[^/?#]+(/[^/?#]+)*", "*": "[^/?#]+"}
    pieces = re.split(r"(\*\*|\*)", pattern)
    return re.compile("".join(parts.get(each, re.escape(each)) for each in pieces) + r"\Z")
