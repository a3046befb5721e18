"""Session ids of older protocol versions: each serves one principal at one server only.

Nothing is stored: a client's id is the server's own under a seal that only this environment's
gateways can make. An id that was sealed for another principal gets the answer of one that never
existed (MCP 2025-11-25, transports: 404; security best practices: session hijacking).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

from ringfence.gateway.refusals import Refusal

SHORTEST_KEY = 32
LONGEST = 1024
"""Characters of a server's own id."""

_PURPOSE = b"ringfence session 1"
_VISIBLE = re.compile(rf"[\x21-\x7e]{{1,{LONGEST}}}")
_SEAL = 43
"""Characters of a SHA-256 in Base64, without padding."""


def seal(key: bytes, upstream_id: str, principal: str, server: str) -> str:
    """The id for the client: visible ASCII, 43 characters longer than the server's.

    Raises `Refusal` 502 for an id that MCP does not allow.
    """
    if not _VISIBLE.fullmatch(upstream_id):
        raise Refusal("session_id")
    return _code(key, upstream_id, principal, server) + upstream_id


def open(key: bytes, sealed: str, principal: str, server: str) -> str:
    """The server's own id. Raises the same `Refusal` 404 whatever is wrong."""
    code, upstream_id = sealed[:_SEAL], sealed[_SEAL:]
    # An id that cannot be encoded, or is too long to hash, must not be distinguishable.
    plain = upstream_id if _VISIBLE.fullmatch(upstream_id) else ""
    expected = _code(key, plain, principal, server)
    if not hmac.compare_digest(expected.encode(), code.encode(errors="replace")):
        raise Refusal("unknown_session")
    return plain


def _code(key: bytes, *parts: str) -> str:
    if len(key) < SHORTEST_KEY:
        raise ValueError(f"the key of sessions has {len(key)} bytes; make one of {SHORTEST_KEY}")
    message = [_PURPOSE, *(part.encode() for part in parts)]
    # With lengths, so that no two lists of parts are one message.
    framed = b"".join(len(each).to_bytes(4, "big") + each for each in message)
    return base64.urlsafe_b64encode(hmac.digest(key, framed, hashlib.sha256)).rstrip(b"=").decode()
