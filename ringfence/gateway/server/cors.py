"""Headers that let a browser's pages of other origins call (Fetch standard, section 3.2).

A page may call the gateway where the configuration names its origin; answers to any other, and to
callers that are no browser, have none of these headers. The browser's own credentials (cookies,
client certificates) are never requested: a page sends its token itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from ringfence.gateway.calls.exchange import EMPTY_HEADERS, Headers
from ringfence.gateway.protocol.mirrored_headers import PARAM_PREFIX

PREFLIGHT_SECONDS = 3600
"""Time for which a browser keeps an answer; the origin is checked with every request."""
SENT = frozenset(
    {
        b"accept",
        b"authorization",
        b"content-type",
        b"dpop",
        b"last-event-id",
        b"mcp-method",
        b"mcp-name",
        b"mcp-protocol-version",
        b"mcp-session-id",
    }
)
"""Headers of an MCP client, besides those that mirror arguments."""
_EXPOSED = b"mcp-session-id, retry-after, www-authenticate, x-request-id"
_MIRRORING = re.compile(re.escape(PARAM_PREFIX) + rb"[!#$%&'*+\-.^_`|~0-9a-z]{1,128}")
_VARY = (b"vary", b"origin")


def origin_headers(headers: Headers, origins: Collection[str]) -> Headers:
    """Headers for any answer to a request, also for a refusal: its page must be able to read it."""
    if not origins:
        return []
    # Even without an Origin: a cache must not give that answer to a page.
    origin = _single(headers, b"origin")
    if origin is None or origin.decode("latin-1") not in origins:
        return [_VARY]
    return [
        _VARY,
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _EXPOSED),
    ]


def is_preflight(headers: Headers) -> bool:
    names = {name for name, _ in headers}
    return {b"origin", b"access-control-request-method"} <= names


def preflight(headers: Headers, methods: Iterable[str]) -> Headers:
    """Headers that name what a browser may send to an address that takes `methods`."""
    requested = {
        each.strip(b" \t").lower()
        for name, value in headers
        if name == b"access-control-request-headers"
        for each in value.split(b",")
    }
    mirroring = {each for each in requested if _MIRRORING.fullmatch(each)}
    return [
        (b"access-control-allow-methods", ", ".join(methods).encode()),
        (b"access-control-allow-headers", b", ".join(sorted(SENT | mirroring))),
        (b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS),
        *EMPTY_HEADERS,
    ]


def _single(headers: Headers, name: bytes) -> bytes | None:
    values = [value.strip(b" \t") for each, value in headers if each == name]
    return values[0] if len(values) == 1 else None
