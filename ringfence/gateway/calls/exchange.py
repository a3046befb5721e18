"""One request on its way through the gateway, and what the stages have found out about it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from ringfence.gateway.audit.log import Treatment
from ringfence.gateway.policy.decisions import Decision
from ringfence.gateway.protocol.requests import Call
from ringfence.gateway.tokens.access_tokens import Identity

Headers = list[tuple[bytes, bytes]]
"""As ASGI has them: names in lower case, repetitions kept."""

JSON_HEADERS: Headers = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]
EMPTY_HEADERS: Headers = JSON_HEADERS[1:]
STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Headers
    body: bytes | AsyncGenerator[bytes, None]


@dataclass(slots=True)
class Exchange:
    headers: Headers
    request_id: str
    address: str | None
    """The client's, as HAProxy saw it."""
    certificate: bytes | None
    """The client's, verified by HAProxy, DER."""
    started: float
    """By the monotonic clock."""
    arrived: float
    """By the wall clock, Unix seconds."""
    server: str | None = None
    message_id: str | int | None = None
    """Of the JSON-RPC request, as soon as one could be read, for whatever answer it gets."""
    call: Call | None = None
    identity: Identity | None = None
    decision: Decision | None = None
    grant: str | None = None
    data_class: str | None = None
    subject: tuple[str, str] | None = None
    """Kind and name of what a request is about that is no call."""
    session: str | None = None
    """The server's own id of the session (older protocol versions)."""
    sensitive: bool = False
    findings: dict[str, int] = field(default_factory=dict)
    """Of arguments and results: how many of which type."""
    treatment: Treatment = "none"
    arguments: str | None = None
    """Keyed digest of the call's arguments."""
    waited: float = 0.0
    """Seconds spent waiting for the server."""
    forwarded: bool = False
    """The decision is in the audit log, and the call was sent on."""
    concluded: bool = False
    """What came of it is in the audit log."""
    held: AsyncExitStack = field(default_factory=AsyncExitStack)
    """What the request holds, given back at its end whatever happens."""

    def count(self, findings: Mapping[str, int]) -> None:
        for kind, number in findings.items():
            self.findings[kind] = self.findings.get(kind, 0) + number
