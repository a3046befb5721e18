"""HTTP headers that repeat values of the body (MCP 2026-07-28, Streamable HTTP).

Two readers of one call may trust different ones, so a reader of both must compare them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

PARAM_PREFIX = b"mcp-param-"
LARGEST_SAFE = 2**53 - 1
"""The largest integer that JavaScript represents exactly; mirrored ones are not beyond it."""

_ANNOTATION = "x-mcp-header"
_TYPES = frozenset({"string", "integer", "boolean"})
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PLAIN = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?")
_SENTINEL = re.compile(r"=\?base64\?(.*)\?=")
_ON_THE_WIRE = re.compile(rb"[\t\x20-\x7e]*")
_DECIMAL = re.compile(r"(-?[0-9]{1,16})(?:\.0{1,16})?")

# Keywords of JSON Schema 2020-12 that hold schemas. `$ref` is not followed: an annotation has
# effect where it stands or not at all.
_HOLDS_ONE = (
    "items", "contains", "additionalProperties", "propertyNames", "unevaluatedItems",
    "unevaluatedProperties", "not", "if", "then", "else", "contentSchema",
)  # fmt: skip
_HOLDS_LIST = ("allOf", "anyOf", "oneOf", "prefixItems")
_HOLDS_MAP = ("patternProperties", "dependentSchemas", "$defs", "definitions")


class AnnotationError(ValueError):
    """An `x-mcp-header` that the specification forbids; clients must not offer such a tool."""


@dataclass(frozen=True)
class ParamHeader:
    """One argument of a tool that is mirrored into a header."""

    header: bytes
    """Name in lower case, with its prefix."""
    path: tuple[str, ...]
    """Names of properties, from the arguments down."""
    type: str
    """`string`, `integer` or `boolean`."""


def encode(value: str) -> str:
    """Encode a value: as it is where a header can carry it, else in the Base64 sentinel."""
    if _PLAIN.fullmatch(value) and not _SENTINEL.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def decode(raw: bytes) -> str:
    """The value that a header mirrors. Raises `ValueError` for what no client may send: other than
    visible ASCII, space and tab, or Base64 that is not canonical or not of UTF-8."""
    if not _ON_THE_WIRE.fullmatch(raw):
        raise ValueError
    text = raw.decode("ascii")
    sentinel = _SENTINEL.fullmatch(text)
    if not sentinel:
        return text
    try:
        value = base64.b64decode(sentinel[1], validate=True)
    except binascii.Error:
        raise ValueError from None
    if base64.b64encode(value).decode() != sentinel[1]:
        raise ValueError
    return value.decode()


def declared(input_schema: Any) -> tuple[ParamHeader, ...]:
    """The headers that a tool's `inputSchema` declares. Raises `AnnotationError`.

    Takes time linear in the schema: do it once for a definition, not for every call.
    """
    headers: dict[bytes, ParamHeader] = {}
    for path, schema in _positions(input_schema):
        if _ANNOTATION not in schema:
            continue
        if not path:
            raise AnnotationError(f"{_ANNOTATION} can only be reached by `properties`")
        where = ".".join(path)
        token, kind = schema[_ANNOTATION], schema.get("type")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise AnnotationError(f"{_ANNOTATION} of {where!r} is not a token of RFC 9110")
        if not isinstance(kind, str) or kind not in _TYPES:
            raise AnnotationError(f"{_ANNOTATION} of {where!r} needs a string, integer or boolean")
        header = PARAM_PREFIX + token.lower().encode()
        if header in headers:
            raise AnnotationError(f"{_ANNOTATION} of {where!r} is that of another property")
        headers[header] = ParamHeader(header, path, kind)
    return tuple(headers.values())


def _positions(schema: Any) -> Iterator[tuple[tuple[str, ...] | None, Mapping[str, Any]]]:
    """Every schema within; with the names that lead there, or None if anything but names does."""
    pending: list[tuple[tuple[str, ...] | None, Any]] = [((), schema)]
    for path, node in pending:
        if not isinstance(node, dict):
            continue
        yield path, node
        if isinstance(properties := node.get("properties"), dict):
            pending += [
                (None if path is None else (*path, name), each) for name, each in properties.items()
            ]
        pending += [(None, node[keyword]) for keyword in _HOLDS_ONE if keyword in node]
        for keyword in _HOLDS_LIST:
            if isinstance(inner := node.get(keyword), list):
                pending += [(None, each) for each in inner]
        for keyword in _HOLDS_MAP:
            if isinstance(inner := node.get(keyword), dict):
                pending += [(None, each) for each in inner.values()]


def render(value: Any) -> str | None:
    """The text of an argument; None if it is absent, null, or nothing that a header mirrors."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def mirrors(header: ParamHeader, text: str, value: Any) -> bool:
    """Whether a decoded header says what the argument does; integers compare as numbers."""
    if header.type == "integer" and isinstance(value, int | float) and not isinstance(value, bool):
        number = _DECIMAL.fullmatch(text)
        return number is not None and int(number[1]) == value and abs(value) <= LARGEST_SAFE
    return text == render(value)
