"""JSON that every parser reads alike, or a refusal.

Where two parsers on the path of a call read a document differently, a caller can bypass every
decision in between (CVE-2026-27896, GHSA-4gph-2hhr-5mwg). So besides RFC 8259, this enforces RFC
7493 (I-JSON): UTF-8, no duplicate members, no unpaired surrogates; and no byte order mark, no NUL,
integers of 64 bits, numbers that a double can hold, a bounded depth. Where MCP names the members
of an object, no other member may have one of these names in another case: Go's encoding/json reads
`Method`, and even `METHOD` with U+212A in it, as `method`.

orjson parses; further tests find what it accepts, and cost little where nothing is wrong.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import orjson

from ringfence.gateway.refusals import Refusal

INLINE_BYTES = 16 * 1024
"""A larger document is parsed outside of the event loop."""

What = Literal["request", "result"]


class _Names(NamedTuple):
    """The members that MCP defines for an object."""

    exact: frozenset[str]
    folded: frozenset[str]


def fold(name: str) -> str:
    """Fold case at least as coarsely as any parser.

    Java compares character by character in both cases, so U+0131 and U+0130 are an i: the first
    only through upper case, the second only without the dot that Unicode leaves.
    """
    return name.upper().casefold().replace("\u0307", "")


def _names(text: str) -> _Names:
    exact = frozenset(text.split())
    return _Names(exact, frozenset(map(fold, exact)))


_ENVELOPE = _names("jsonrpc id method params result error")
_PARAMS = _names(
    "_meta name arguments uri cursor ref argument context notifications inputResponses"
    " requestState task taskId protocolVersion capabilities clientInfo level requestId reason"
    " progressToken progress total message logger data"
)
_META = _names(
    "progressToken traceparent tracestate baggage io.modelcontextprotocol/protocolVersion"
    " io.modelcontextprotocol/clientInfo io.modelcontextprotocol/clientCapabilities"
    " io.modelcontextprotocol/logLevel io.modelcontextprotocol/subscriptionId"
    " io.modelcontextprotocol/serverInfo io.modelcontextprotocol/related-task"
)
_WITHIN_PARAMS = (
    ("_meta", _META),
    ("ref", _names("type name uri title")),
    (
        "notifications",
        _names("toolsListChanged promptsListChanged resourcesListChanged resourceSubscriptions"),
    ),
)
_RESULT = _names(
    "_meta resultType content structuredContent isError nextCursor tools resources"
    " resourceTemplates prompts contents description messages completion ttlMs cacheScope"
    " supportedVersions protocolVersion capabilities serverInfo instructions inputRequests"
    " requestState task taskId status statusMessage createdAt lastUpdatedAt ttl pollInterval"
)
_WITHIN_RESULT = (("_meta", _META),)
_ERROR = _names("code message data")

_CONTAINERS = frozenset({dict, list})
_NUMBER = re.compile(rb"-?[0-9]+([.eE][0-9.eE+-]*)?")
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_NINETEEN_DIGITS = b"0" * 19
_FLATTEN = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse(body: bytes, *, depth: int, what: What = "request") -> Any:
    """The document, of JSON's types. `depth`: levels of arrays and objects, below 1000.

    Raises `Refusal`: 400 for a request, 502 for a server's result. Reasons: `invalid_json`,
    `nesting`, `duplicate_key`, `ambiguous_key`, `nul`, `number_range`.
    """
    if body.count(b"[") + body.count(b"{") > depth and _is_deeper(_outside_strings(body), depth):
        raise _refusal(
            what, "nesting", f"the request is nested deeper than {depth} levels; flatten it"
        )
    try:
        document = orjson.loads(body)
    except (orjson.JSONDecodeError, RecursionError):
        raise _refusal(what, "invalid_json") from None
    structure = _outside_strings(body)
    if structure.count(b":") != _members(document):
        raise _refusal(what, "duplicate_key")
    # orjson refuses what is beyond a double, and turns integers beyond 64 bits into doubles.
    if _NINETEEN_DIGITS in structure.translate(_DIGITS) and not _fit(structure):
        raise _refusal(what, "number_range")
    if b"\\u0000" in body and any("\0" in text for text in _strings(document)):
        raise _refusal(what, "nul")
    if document.__class__ is dict and _is_ambiguous(document):
        raise _refusal(what, "ambiguous_key")
    return document


async def parse_any_size(body: bytes, *, depth: int, what: What = "request") -> Any:
    """`parse`, in a thread where it may take a while."""
    if len(body) <= INLINE_BYTES:
        return parse(body, depth=depth, what=what)
    return await asyncio.to_thread(parse, body, depth=depth, what=what)


def serialise(document: Any) -> bytes:
    """JSON in UTF-8, without insignificant white space. Raises `TypeError` for what is no JSON."""
    return orjson.dumps(document)


def _refusal(what: What, reason: str, message: str | None = None) -> Refusal:
    return Refusal(reason, message) if what == "request" else Refusal.of_result(reason)


def _outside_strings(body: bytes) -> bytes:
    """The document without its strings: structure, numbers and literals."""
    if b"\\" in body:
        # Pairs from the left first: only an odd backslash at the end of a run escapes a quote.
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(body.split(b'"')[::2])


def _is_deeper(structure: bytes, depth: int) -> bool:
    """Whether brackets are left after `depth` rounds that each remove the innermost level."""
    brackets = structure.translate(_FLATTEN, _NOT_BRACKETS)
    for _ in range(depth):
        brackets = brackets.replace(b"[]", b"")
    return b"[" in brackets


def _members(document: Any) -> int:
    count = 0
    pending = [document]
    for node in pending:
        if node.__class__ is dict:
            count += len(node)
            node = node.values()
        elif node.__class__ is not list:
            continue
        for each in node:
            if each.__class__ in _CONTAINERS:
                pending.append(each)
    return count


def _strings(document: Any) -> Iterator[str]:
    pending = [document]
    for node in pending:
        if node.__class__ is str:
            yield node
        elif node.__class__ is dict:
            yield from node
            pending += node.values()
        elif node.__class__ is list:
            pending += node


def _fit(structure: bytes) -> bool:
    """Whether all integers are of 64 bits, with sign."""
    integers = (each[0] for each in _NUMBER.finditer(structure) if not each[1])
    return all(-(2**63) <= int(each) < 2**63 for each in integers)


def _is_ambiguous(document: dict[str, Any]) -> bool:
    return (
        _varies(document, _ENVELOPE)
        or ("params" in document and _varies_within(document["params"], _PARAMS, _WITHIN_PARAMS))
        or ("result" in document and _varies_within(document["result"], _RESULT, _WITHIN_RESULT))
        or ("error" in document and _varies(document["error"], _ERROR))
    )


def _varies_within(level: Any, known: _Names, inner: tuple[tuple[str, _Names], ...]) -> bool:
    return level.__class__ is dict and (
        _varies(level, known)
        or any(name in level and _varies(level[name], names) for name, names in inner)
    )


def _varies(level: Any, known: _Names) -> bool:
    """Whether a name differs only in case from a known one, or from another of this level."""
    if level.__class__ is not dict or level.keys() <= known.exact:
        return False
    unknown = [fold(name) for name in level if name not in known.exact]
    return not known.folded.isdisjoint(unknown) or len(set(unknown)) < len(unknown)
