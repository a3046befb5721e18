"""Pins of a server: a tool is shown as a person approved it, or withheld.

A description is an instruction to the model, and a server may change it after the approval (OWASP
MCP03). So the gateway shows only definitions whose hash is the approved one, and shows the approved
definition itself: fields that nobody reviewed (`icons`, `_meta`, `execution`) do not pass.
`pins/<server>.json`, written by `ringfence pins approve`:

    {"version": 1, "server": "time", "tools": {"convert_time": {
        "sha256": "…", "approved": {"by": "alice", "at": "2026-11-24T13:57:02Z"},
        "accepted": false, "definition": {"name": "convert_time", …}}}}
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import orjson

from ringfence.gateway.inspection import hidden_characters
from ringfence.gateway.pins.definitions import (
    FIELDS,
    Reason,
    changed_fields,
    digest,
    faults,
    hidden,
    suspicion,
    validator,
)
from ringfence.gateway.protocol.mirrored_headers import ParamHeader, declared
from ringfence.gateway.refusals import Refusal


class PinsError(ValueError):
    """A file of pins is not what `ringfence pins approve` wrote."""


class _Absent:
    """The type of `ABSENT`, which is not null: null is a value."""


ABSENT = _Absent()


@dataclass(frozen=True)
class ApprovedTool:
    """An approved definition, compiled."""

    name: str
    digest: str
    encoded: bytes
    """The definition that clients get."""
    input_schema: Mapping[str, Any]
    output: jsonschema_rs.Validator | None
    """Validator of `outputSchema`; fetches nothing."""
    headers: tuple[ParamHeader, ...]
    """Arguments that a client repeats in `Mcp-Param-*`."""

    @property
    def definition(self) -> dict[str, Any]:
        """A copy that the caller may change."""
        return orjson.loads(self.encoded)


@dataclass(frozen=True)
class Withheld:
    name: str
    """The name that the server sends, at most 128 characters, hidden ones written out."""
    reason: Reason
    fields: tuple[str, ...] = ()
    """The fields that differ in a changed definition."""
    detail: str = ""


@dataclass(frozen=True)
class Judgement:
    """The tools of a server that may be shown and called, and those that may not."""

    approved: Mapping[str, ApprovedTool]
    withheld: tuple[Withheld, ...]

    def tool(self, name: str) -> ApprovedTool:
        """An approved tool. Raises `Refusal` (403) where it is withheld or not in the list."""
        if (tool := self.approved.get(name)) is not None:
            return tool
        raise Refusal("tool_withheld")


def ambiguous_names(pins: Mapping[str, Mapping[str, Any] | None]) -> dict[str, frozenset[str]]:
    """Return, by server, the names of tools for which other servers have a pin too."""
    names = {
        server: frozenset((document or {}).get("tools", ())) for server, document in pins.items()
    }
    count = Counter(name for tools in names.values() for name in tools)
    return {
        server: frozenset(name for name in tools if count[name] > 1)
        for server, tools in names.items()
    }


class Pins:
    """The approved definitions of one server."""

    def __init__(
        self,
        server: str,
        document: Mapping[str, Any] | None,
        *,
        ambiguous: frozenset[str] = frozenset(),
    ) -> None:
        """`document`: `pins/<server>.json`, None where nothing was approved yet.

        `ambiguous`: names that other servers have too (`ambiguous_names`), where clients do not
        distinguish tools by their server. Raises `PinsError`.
        """
        self.server = server
        self._pinned: dict[str, tuple[str, dict[str, Any]]] = {}
        self._tools: dict[str, ApprovedTool] = {}
        self._unusable: dict[str, Withheld] = {}
        for name, pin in _entries(server, document).items():
            definition = pin["definition"]
            self._pinned[name] = (pin["sha256"], definition)
            if name in ambiguous:
                self._unusable[name] = Withheld(name, "duplicate_across_servers")
            elif found := faults(definition):
                self._unusable[name] = Withheld(_shown(name), found[0].reason, (), found[0].detail)
            elif (kinds := hidden(definition)) and not pin["accepted"]:
                self._unusable[name] = Withheld(
                    _shown(name), "hidden_characters", (), ", ".join(kinds)
                )
            else:
                self._tools[name] = _compile(definition, pin["sha256"])

    @property
    def names(self) -> frozenset[str]:
        """The names of all approved tools, usable or not."""
        return frozenset(self._pinned)

    def judge(self, definitions: Iterable[Mapping[str, Any]]) -> Judgement:
        """Judge all tools of the server, from all pages of its list together.

        A name that is there twice is approved for neither: only the server knows which one a call
        reaches.
        """
        entries = list(definitions)
        count = Counter(name for e in entries if isinstance(name := e.get("name"), str))
        approved: dict[str, ApprovedTool] = {}
        withheld: list[Withheld] = []
        twice: set[str] = set()
        for entry in entries:
            name = entry.get("name")
            if not isinstance(name, str) or not name:
                withheld.append(Withheld("", "nameless"))
            elif count[name] > 1:
                if name not in twice:
                    twice.add(name)
                    withheld.append(Withheld(_shown(name), "duplicate"))
            elif (objection := self._objection(name, entry)) is not None:
                withheld.append(objection)
            else:
                approved[name] = self._tools[name]
        return Judgement(approved, tuple(withheld))

    def filtered(
        self, result: Mapping[str, Any], judgement: Judgement | None = None
    ) -> dict[str, Any]:
        """Reduce a result of `tools/list` to the approved definitions, in its order.

        `judgement`: of all pages together; this page omits what it withholds.
        """
        tools = result.get("tools")
        shown: list[dict[str, Any]] = []
        if isinstance(tools, list):
            approved = self.judge(tool for tool in tools if isinstance(tool, dict)).approved
            shown = [
                tool.definition
                for name, tool in approved.items()
                if judgement is None or name in judgement.approved
            ]
        return {**result, "tools": shown}

    def check_output(self, tool: str, structured: Any = ABSENT) -> bool:
        """Check a result against the approved output schema; without one, any result is good.

        MCP 2026-07-28, Output Schema: with a schema there must be structured content. Not for
        results with `isError`, nor for those that request input.
        """
        known = self._tools.get(tool)
        if known is None:
            return False
        if known.output is None:
            return True
        return structured is not ABSENT and known.output.is_valid(structured)

    def _objection(self, name: str, entry: Mapping[str, Any]) -> Withheld | None:
        pinned = self._pinned.get(name)
        if pinned is not None and digest(entry) == pinned[0]:
            return self._unusable.get(name)
        if (found := suspicion(entry)) is not None:
            return Withheld(_shown(name), found.reason, self._changes(name, entry), found.detail)
        if pinned is None:
            return Withheld(_shown(name), "new")
        return Withheld(_shown(name), "changed", self._changes(name, entry))

    def _changes(self, name: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
        return changed_fields(self._pinned[name][1], entry) if name in self._pinned else ()


def _entries(server: str, document: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    if document is None:
        return {}
    remedy = f"approve again with: ringfence pins approve {server}"
    if document.get("version") != 1 or document.get("server") != server:
        raise PinsError(f"pins/{server}.json: not version 1 of {server}'s pins; {remedy}")
    tools = document.get("tools")
    if not isinstance(tools, dict):
        raise PinsError(f"pins/{server}.json: tools: not an object; {remedy}")
    for name, pin in tools.items():
        where = f"pins/{server}.json: tools.{hidden_characters.reveal(name)}"
        if not isinstance(pin, dict) or not isinstance(pin.get("definition"), dict):
            raise PinsError(f"{where}: there is no definition; {remedy} --tool {name}")
        if pin["definition"].get("name") != name or set(pin["definition"]) - set(FIELDS):
            raise PinsError(f"{where}: the definition is of another tool; {remedy}")
        if pin.get("sha256") != digest(pin["definition"]):
            raise PinsError(f"{where}: sha256 is not of this definition; {remedy}")
        if not isinstance(pin.get("accepted"), bool):
            raise PinsError(f"{where}: accepted is neither true nor false; {remedy}")
    return tools


def _compile(definition: dict[str, Any], sha256: str) -> ApprovedTool:
    output = definition.get("outputSchema")
    return ApprovedTool(
        name=definition["name"],
        digest=sha256,
        encoded=_encode(definition),
        input_schema=definition["inputSchema"],
        output=None if output is None else validator(output),
        headers=declared(definition["inputSchema"]),
    )


def _encode(definition: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(definition)
    except TypeError:  # integers beyond 64 bits
        return json.dumps(definition, separators=(",", ":"), allow_nan=False).encode()


def _shown(name: str) -> str:
    return hidden_characters.reveal(name[:128])
