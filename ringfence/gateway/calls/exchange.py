"""One request on its way through the gateway, and what the stages found out about it."""

from __future__ import annotations

import base64
import binascii
import re
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal

from ringfence.gateway.audit.events import Treatment
from ringfence.gateway.policy.decisions import Decision
from ringfence.gateway.protocol.mirrored_headers import ParamHeader
from ringfence.gateway.protocol.requests import Call
from ringfence.gateway.tokens.access_tokens import CallerIdentity

Headers = list[tuple[bytes, bytes]]
"""Headers of ASGI: names in lower case, repetitions kept."""
Verb = Literal["POST", "GET", "DELETE"]

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

OWN_CLASS = "internal"
"""Data class of what a server says about itself as a whole, which no manifest classifies."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


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
    """The client's address, as HAProxy observed it."""
    certificate: bytes | None
    """The client's certificate, verified by HAProxy, DER."""
    started: float
    """Seconds of the monotonic clock."""
    arrived: float
    """Unix seconds of the wall clock."""
    server: str | None = None
    verb: Verb = "POST"
    body: bytes = b""
    message_id: str | int | None = None
    """The id of the JSON-RPC request as soon as it is read, for whatever answer it gets."""
    call: Call | None = None
    identity: CallerIdentity | None = None
    decision: Decision | None = None
    grant: str | None = None
    data_class: str | None = None
    declared: tuple[ParamHeader, ...] = ()
    """Headers that the approved definition of the tool declares."""
    subject: tuple[str, str] | None = None
    """Kind and name of the subject of a request that is no call."""
    session: str | None = None
    """The server's own id of the session (older protocol versions)."""
    sensitive: bool = False
    findings: dict[str, int] = field(default_factory=dict)
    """Number of each type in arguments and results."""
    treatment: Treatment = "none"
    arguments: str | None = None
    """Keyed digest of the call's arguments."""
    waited: float = 0.0
    """Seconds spent waiting for the server."""
    forwarded: bool = False
    """The decision is in the audit log, and the call was sent on."""
    concluded: bool = False
    """The outcome is in the audit log."""
    held: AsyncExitStack = field(default_factory=AsyncExitStack)
    """Resources that the request holds; its end releases them whatever happens."""

    @classmethod
    def begin(cls, headers: Headers) -> Exchange:
        """Read what HAProxy adds to a request; it deletes what a client sent by these names."""
        added = {name: value for name, value in headers if name.startswith(b"x-ringfence-")}
        identifier = added.get(b"x-ringfence-request-id", b"")
        certificate = added.get(b"x-ringfence-client-certificate")
        address = added.get(b"x-ringfence-client-address")
        return cls(
            headers=headers,
            request_id=(
                identifier.decode() if _REQUEST_ID.fullmatch(identifier) else uuid.uuid4().hex
            ),
            address=address.decode("latin-1") if address else None,
            certificate=_der(certificate) if certificate else None,
            started=time.monotonic(),
            arrived=time.time(),
        )

    def identified(self) -> tuple[Call, CallerIdentity]:
        """The call and its caller, for stages that come after authentication."""
        assert self.call is not None
        assert self.identity is not None
        return self.call, self.identity

    def count(self, findings: Mapping[str, int]) -> None:
        for kind, number in findings.items():
            self.findings[kind] = self.findings.get(kind, 0) + number


def _der(value: bytes) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return None
