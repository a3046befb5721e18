"""Definitions of tools: canonical form, hash, and faults that make one unusable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jsonschema_rs
import orjson

from ringfence.gateway.inspection import hidden_characters
from ringfence.gateway.protocol.mirrored_headers import AnnotationError, declared

FIELDS = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
"""The fields that a model or a client acts on, and a person approves."""

BACKTRACKS = 100_000
"""Steps of a `pattern` of a schema: a value that costs more does not match."""

DEFINITION_BYTES = 128 << 10
"""Limit of the canonical form; a larger definition is withheld. Usual ones have kilobytes."""

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


@dataclass(frozen=True)
class Fault:
    reason: Reason
    detail: str


def canonical(value: Any) -> bytes:
    """Write a value with sorted keys, without spaces, in UTF-8: RFC 8785 but for numbers.

    Numbers keep their JSON form, so 1 and 1.0 differ: one difference too many is harmless, one too
    few is not.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # integers beyond 64 bits
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def definition_of(tool: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an entry of `tools/list` that are pinned."""
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
    """Find faults that make a definition unusable, approved or not; hidden text excepted.

    MCP 2026-07-28, Tools: input and output schemas are valid JSON Schema, of dialect 2020-12
    where none is named; `x-mcp-header` holds the constraints of Custom Headers. References that
    lead out of the schema would fetch what nobody approved.
    """
    found = [*_visible_faults(tool)]
    if not found:
        for field in ("inputSchema", "outputSchema"):
            try:
                if field in tool:
                    validator(tool[field])
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


def _visible_faults(tool: Mapping[str, Any]) -> Iterator[Fault]:
    """Faults that show without compiling the schemas, in linear time.

    An unapproved schema is not compiled: one with many patterns takes minutes, and the server that
    sends it would stop the calls of all others.
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


def suspicion(definition: Mapping[str, Any]) -> Fault | None:
    """A fault that matters more than the missing approval."""
    if kinds := hidden(definition):
        return Fault("hidden_characters", ", ".join(kinds))
    return next(_visible_faults(definition), None)


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


def validator(schema: dict[str, Any]) -> jsonschema_rs.Validator:
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
    """Every object of a document: a reference can use any of them as a schema."""
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield node
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
