"""Tool pinning: a definition is what a person approved, or it does not exist.

A description is an instruction to the model, and a server may change it after it was approved
(OWASP MCP03). So the gateway shows only definitions that are equal to the approved one, by hash,
and shows the approved one itself: fields that nobody reviewed (`icons`, `_meta`, `execution`) do
not pass. `pins/<server>.json`, written by `ringfence pins approve`:

    {"version": 1, "server": "time", "tools": {"convert_time": {
        "sha256": "…", "approved": {"by": "alice", "at": "2026-11-24T13:57:02Z"},
        "accepted": false, "definition": {"name": "convert_time", …}}}}
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import jsonschema_rs
import orjson

from ringfence.gateway.inspection import hidden_characters
from ringfence.gateway.protocol.mirrored_headers import AnnotationError, ParamHeader, declared
from ringfence.gateway.refusals import Refusal
from ringfence.gateway.state import shared_files

FIELDS = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
"""Fields that a model or a client acts on, and a person approves."""

BACKTRACKS = 100_000
"""Steps of a `pattern` of a schema: a value that costs more does not match."""

DEFINITION_BYTES = 128 << 10
"""Canonical; more is withheld. What servers offer has some kilobytes."""

OBSERVED_BYTES = 1 << 20
OBSERVED_TOOLS = 512

Reason = Literal[
    "new",
    "changed",
    "nameless",
    "too_large",
    "duplicate",
    "duplicate_across_servers",
    "hidden_characters",
    "invalid_schema",
    "external_reference",
    "invalid_header",
]
REASONS: tuple[str, ...] = get_args(Reason)

_DIALECTS: dict[str, type[jsonschema_rs.Validator]] = {
    "https://json-schema.org/draft/2020-12/schema": jsonschema_rs.Draft202012Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema_rs.Draft201909Validator,
    "http://json-schema.org/draft-07/schema": jsonschema_rs.Draft7Validator,
    "http://json-schema.org/draft-06/schema": jsonschema_rs.Draft6Validator,
    "http://json-schema.org/draft-04/schema": jsonschema_rs.Draft4Validator,
}

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")

logger = logging.getLogger(__name__)


class PinsError(ValueError):
    """A file of pins does not say what was approved."""


class _Absent:
    """Stands for a result without `structuredContent`; null is a value."""


ABSENT = _Absent()


@dataclass(frozen=True)
class Fault:
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Tool:
    """An approved definition, compiled."""

    name: str
    digest: str
    encoded: bytes
    """The definition as it is given to clients."""
    input_schema: Mapping[str, Any]
    output: jsonschema_rs.Validator | None
    """Validator of `outputSchema`; it looks nothing up."""
    headers: tuple[ParamHeader, ...]
    """Arguments that a client repeats as `Mcp-Param-*`."""

    @property
    def definition(self) -> dict[str, Any]:
        """A copy: what a caller changes in it stays with the caller."""
        return orjson.loads(self.encoded)


@dataclass(frozen=True)
class Withheld:
    name: str
    """As the server said it, at most 128 characters, hidden ones written out."""
    reason: Reason
    fields: tuple[str, ...] = ()
    """Fields of a changed definition that differ."""
    detail: str = ""


@dataclass(frozen=True)
class Judgement:
    """Judgement of a server's list of tools: which may be shown and called."""

    approved: Mapping[str, Tool]
    withheld: tuple[Withheld, ...]

    def tool(self, name: str) -> Tool:
        """Raises `Refusal` (403) where the tool is withheld, or is not in the list any more."""
        if (tool := self.approved.get(name)) is not None:
            return tool
        raise Refusal("tool_withheld")


def canonical(value: Any) -> bytes:
    """Keys sorted, no spaces, UTF-8: RFC 8785, except that numbers keep their JSON form.

    So 1 and 1.0 are two definitions: a difference more shown is harmless, one less is not.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # integers beyond 64 bits
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def definition_of(tool: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an entry of `tools/list` that is pinned."""
    return {field: tool[field] for field in FIELDS if field in tool}


def digest(tool: Mapping[str, Any]) -> str:
    """SHA-256, hex, of the canonical form of a definition."""
    return hashlib.sha256(canonical(definition_of(tool))).hexdigest()


def changed_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        field
        for field in FIELDS
        if (field in before) != (field in after)
        or canonical(before.get(field)) != canonical(after.get(field))
    )


def faults(tool: Mapping[str, Any]) -> tuple[Fault, ...]:
    """Why a definition can not be used as it is, whoever approves it; hidden text excepted.

    MCP 2026-07-28, Tools: input and output schemas are valid JSON Schema, of dialect 2020-12
    where none is named; `x-mcp-header` holds the constraints of Custom Headers. References that
    lead out of the schema would have somebody fetch what nobody approved.
    """
    found = [*_visible_faults(tool)]
    if not found:
        for field in ("inputSchema", "outputSchema"):
            try:
                if field in tool:
                    _validator(tool[field])
            except (ValueError, jsonschema_rs.ReferencingError) as error:
                reason = hidden_characters.reveal(str(error).partition("\n")[0])[:200]
                found.append(Fault("invalid_schema", f"{field}: {reason}"))
    return tuple(found)


def hidden(tool: Mapping[str, Any]) -> tuple[str, ...]:
    """Kinds of hidden characters anywhere in a definition, sorted."""
    found: set[str] = set()
    for text in _texts(definition_of(tool)):
        found |= hidden_characters.kinds(text)
    return tuple(sorted(found))


def ambiguous_names(pins: Mapping[str, Mapping[str, Any] | None]) -> dict[str, frozenset[str]]:
    """Return, for each server, the names that other servers have a pin for too."""
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
        tell tools apart by their server. Raises `PinsError` where the document is not what
        `ringfence pins approve` wrote.
        """
        self.server = server
        self._pinned: dict[str, tuple[str, dict[str, Any]]] = {}
        self._tools: dict[str, Tool] = {}
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
        """Return the names of every approved tool, usable or not."""
        return frozenset(self._pinned)

    def judge(self, definitions: Iterable[Mapping[str, Any]]) -> Judgement:
        """Judge all tools of the server, of all pages of its list together.

        A name that is there twice is approved for neither: which one a call reaches is the
        server's secret.
        """
        entries = list(definitions)
        count = Counter(name for e in entries if isinstance(name := e.get("name"), str))
        approved: dict[str, Tool] = {}
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
        """A result of `tools/list` with what is approved, as it was approved, in its order.

        `judgement`: of all pages together; what it withholds is not on this page either.
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
        """Does a result hold the approved output schema? Where there is none, anything does.

        MCP 2026-07-28, Output Schema: where there is one, structured content must be there too.
        Not for results with `isError`, nor for those that ask for input.
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
        if (found := _suspicion(entry)) is not None:
            return Withheld(_shown(name), found.reason, self._changes(name, entry), found.detail)
        if pinned is None:
            return Withheld(_shown(name), "new")
        return Withheld(_shown(name), "changed", self._changes(name, entry))

    def _changes(self, name: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
        return changed_fields(self._pinned[name][1], entry) if name in self._pinned else ()


class Observations:
    """Definitions of tools as servers list them, in files for an operator to review.

    One file per server, replaced as a whole, at most `OBSERVED_BYTES`; processes of one gateway
    may share the directory. Losing one costs a review its material, and no call anything.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written: dict[str, bytes] = {}

    def record(self, server: str, definitions: Iterable[Mapping[str, Any]]) -> bool:
        """Write a server's definitions where they differ from what was written last.

        True: written. A failure is logged, and tried again with the next listing.
        """
        kept: list[dict[str, Any]] = []
        size = omitted = 0
        for entry in definitions:
            definition = definition_of(entry)
            size += len(canonical(definition))
            if size > OBSERVED_BYTES or len(kept) == OBSERVED_TOOLS:
                omitted += 1
            else:
                kept.append(definition)
        identity = hashlib.sha256(canonical([kept, omitted])).digest()
        if self._written.get(server) == identity:
            return False
        document = {
            "version": 1,
            "server": server,
            "seen": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "omitted": omitted,
            "tools": kept,
        }
        try:
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            content = json.dumps(document, ensure_ascii=True).encode()
            shared_files.replace(self._directory / f"{server}.json", content, durable=False)
        except OSError as error:
            logger.warning(
                "definitions of %s were not left for review in %s: %s; make room there",
                *(server, self._directory, error.strerror),
            )
            return False
        self._written[server] = identity
        return True


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


def _visible_faults(tool: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield the faults that a reader finds, in linear time.

    A schema that nobody approved is not compiled: one of many patterns takes minutes, and the
    server that sends it would stop the calls of all others.
    """
    if len(canonical(definition_of(tool))) > DEFINITION_BYTES:
        yield Fault("too_large", f"has more than {DEFINITION_BYTES} bytes")
        return
    schema = tool.get("inputSchema")
    if not isinstance(schema, dict) or schema.get("type") != "object":
        yield Fault("invalid_schema", "inputSchema is no schema of an object")
        return
    if not isinstance(tool.get("outputSchema", {}), dict):
        yield Fault("invalid_schema", "outputSchema is no object")
        return
    for field in ("inputSchema", "outputSchema"):
        if any(_leads_out(node) for node in _objects(tool.get(field))):
            yield Fault("external_reference", f"{field} refers to another document")
    try:
        declared(schema)
    except AnnotationError as error:
        yield Fault("invalid_header", hidden_characters.reveal(str(error))[:200])


def _leads_out(node: Mapping[str, Any]) -> bool:
    return any(
        isinstance(target := node.get(keyword), str) and not target.startswith("#")
        for keyword in _REFERENCES
    )


def _suspicion(definition: Mapping[str, Any]) -> Fault | None:
    """Return a fault that weighs more than a missing approval."""
    if kinds := hidden(definition):
        return Fault("hidden_characters", ", ".join(kinds))
    return next(_visible_faults(definition), None)


def _compile(definition: dict[str, Any], sha256: str) -> Tool:
    output = definition.get("outputSchema")
    return Tool(
        name=definition["name"],
        digest=sha256,
        encoded=_encode(definition),
        input_schema=definition["inputSchema"],
        output=None if output is None else _validator(output),
        headers=declared(definition["inputSchema"]),
    )


def _encode(definition: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(definition)
    except TypeError:  # integers beyond 64 bits
        return json.dumps(definition, separators=(",", ":"), allow_nan=False).encode()


def _shown(name: str) -> str:
    return hidden_characters.reveal(name[:128])


def _texts(value: Any) -> Iterator[str]:
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, dict):
            yield from node
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)


def _validator(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    """Raises `ValueError` for an invalid schema, or one of a dialect that is not published."""
    dialect = schema.get("$schema", "https://json-schema.org/draft/2020-12/schema")
    kind = _DIALECTS.get(dialect.rstrip("#")) if isinstance(dialect, str) else None
    if kind is None:
        raise ValueError("$schema names no published dialect of JSON Schema")
    return kind(
        schema,
        offline=True,
        pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACKS),
    )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of a document, schema or data: a reference can make a schema of any."""
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield node
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
