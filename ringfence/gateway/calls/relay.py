"""One MCP server: a call goes to it once, within its limits."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from ringfence.gateway.calls.answers import SUBSCRIPTION, Answers
from ringfence.gateway.calls.exchange import (
    EMPTY_HEADERS,
    JSON_HEADERS,
    STREAM_HEADERS,
    Answer,
    Exchange,
    Headers,
)
from ringfence.gateway.calls.limits import Circuit, Slots
from ringfence.gateway.calls.recording import CallRecorder
from ringfence.gateway.pins.approved import Judgement
from ringfence.gateway.protocol import requests, sessions, strict_json
from ringfence.gateway.protocol.methods import MODERN
from ringfence.gateway.protocol.requests import Call
from ringfence.gateway.refusals import Refusal
from ringfence.gateway.upstream.catalogue import Catalogue
from ringfence.gateway.upstream.connections import Connections, Reply

LISTENERS = 4
"""Listening streams of one principal at one server, in one process."""


class Relay:
    def __init__(
        self,
        connections: Connections,
        catalogue: Catalogue[Judgement],
        answers: Answers,
        recorder: CallRecorder,
        slots: Slots,
        circuit: Circuit,
        sessions_key: bytes,
    ) -> None:
        self.catalogue = catalogue
        self._connections = connections
        self._answers = answers
        self._recorder = recorder
        self._slots = slots
        self._circuit = circuit
        self._sessions_key = sessions_key
        self._listeners: Counter[str] = Counter()

    def retire(self) -> None:
        self._answers.retire()

    async def close(self) -> None:
        self.catalogue.close()
        await self._connections.close()

    async def forward(self, exchange: Exchange) -> Answer:
        """Send a call and return its answer. Raises `Refusal`."""
        call, _ = exchange.identified()
        reply = await self._send(exchange, call)
        if exchange.verb == "POST":
            return await self._answer(exchange, call, reply)
        return self._session_answer(exchange, call, reply)

    async def _answer(self, exchange: Exchange, call: Call, reply: Reply) -> Answer:
        session = self._session_header(exchange, call, reply)
        if call.id is None and reply.status in (200, 202, 204):
            self._recorder.conclude(exchange, 202)
            return Answer(202, EMPTY_HEADERS, b"")
        if reply.status == 200 and reply.media_type == "text/event-stream":
            events = self._answers.events(exchange, reply)
            return Answer(200, [*STREAM_HEADERS, *session], events)
        if reply.status in (200, 400, 404) and reply.media_type == "application/json":
            document = await self._answers.document(exchange, reply)
            self._recorder.conclude(exchange, reply.status)
            return Answer(reply.status, [*JSON_HEADERS, *session], strict_json.serialise(document))
        raise _refusal(reply, call)

    def _session_answer(self, exchange: Exchange, call: Call, reply: Reply) -> Answer:
        """The answer to listening to a session of an older protocol version, or to its end."""
        listening = exchange.verb == "GET"
        if listening and reply.status == 200 and reply.media_type == "text/event-stream":
            return Answer(200, STREAM_HEADERS, self._answers.events(exchange, reply))
        if not listening and reply.status in (200, 202, 204):
            self._recorder.conclude(exchange, 204)
            return Answer(204, EMPTY_HEADERS, b"")
        if reply.status == 405:
            raise Refusal("method_not_allowed")
        raise _refusal(reply, call)

    def _session_header(self, exchange: Exchange, call: Call, reply: Reply) -> Headers:
        """The id of a session that the server began, sealed for this caller."""
        if reply.session is None or call.version == MODERN:
            return []
        _, identity = exchange.identified()
        sealed = sessions.seal(self._sessions_key, reply.session, identity.principal, call.server)
        return [(b"mcp-session-id", sealed.encode())]

    async def _send(self, exchange: Exchange, call: Call) -> Reply:
        _, identity = exchange.identified()
        headers = requests.upstream_headers(call, exchange.declared)
        body = b""
        if exchange.verb == "POST":
            headers["Content-Type"] = "application/json"
            body = strict_json.serialise(call.document)
        headers["Accept"] = "application/json, text/event-stream"
        headers["X-Ringfence-Principal"] = identity.principal
        headers["X-Ringfence-Request-Id"] = exchange.request_id
        if exchange.session is not None:
            headers["Mcp-Session-Id"] = exchange.session
        listening = exchange.verb == "GET" or call.method == SUBSCRIPTION
        if listening:
            self._listen(exchange, identity.principal)
        else:
            await exchange.held.enter_async_context(self._slots.hold())
        started = time.monotonic()
        attempt = self._circuit.enter(started)
        try:
            reply = await self._connections.send(exchange.verb, headers, body, listening=listening)
        except Refusal as refusal:
            # A slow tool is no sign that the server is down, and must not block other tools.
            if refusal.reason == "upstream_timeout":
                self._circuit.abandoned(attempt, time.monotonic())
            else:
                self._circuit.failed(attempt, time.monotonic())
            raise
        except asyncio.CancelledError:
            self._circuit.abandoned(attempt, time.monotonic())
            raise
        self._circuit.succeeded(attempt)
        exchange.held.callback(reply.close)
        exchange.waited += time.monotonic() - started
        return reply

    def _listen(self, exchange: Exchange, principal: str) -> None:
        """Count a listening stream: it lasts, so it takes no slot, and each principal has a few."""
        if self._listeners[principal] >= LISTENERS:
            raise Refusal(
                "too_many_listeners",
                f"this principal listens {LISTENERS} times already; end one of them",
            )
        self._listeners[principal] += 1
        exchange.held.callback(self._listeners.subtract, (principal,))


def _refusal(reply: Reply, call: Call) -> Refusal:
    if reply.status == 404 and call.session is not None:
        return Refusal("session_unknown")
    if reply.status in (429, 503):
        wait = reply.retry_after if (reply.retry_after or "").isdigit() else "1"
        return Refusal("upstream_busy", headers=(("Retry-After", wait or "1"),))
    return Refusal("upstream_status")
