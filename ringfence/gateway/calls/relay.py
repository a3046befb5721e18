"""One MCP server: a call goes to it once, and of its answer comes back what may.

Answers are read as strictly as requests. Lists are cut to what the caller may use and definitions
to what was approved; results are searched, and masked or withheld, before anybody sees them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from typing import Any, Literal

from ringfence.gateway.audit.log import Treatment
from ringfence.gateway.calls import results
from ringfence.gateway.calls.exchange import (
    EMPTY_HEADERS,
    JSON_HEADERS,
    STREAM_HEADERS,
    Answer,
    Exchange,
    Headers,
)
from ringfence.gateway.calls.limits import Limits as CallLimits
from ringfence.gateway.configuration.configuration import Limits, Server
from ringfence.gateway.inspection.inspector import Inspected, StreamInspector
from ringfence.gateway.inspection.worker import Isolation, parse
from ringfence.gateway.pins import definitions as pins
from ringfence.gateway.policy.decisions import Policies
from ringfence.gateway.protocol import mirrored_headers, strict_json
from ringfence.gateway.protocol import requests as protocol
from ringfence.gateway.protocol.methods import MODERN
from ringfence.gateway.refusals import Refusal
from ringfence.gateway.tokens.access_tokens import Identity
from ringfence.gateway.upstream import sse
from ringfence.gateway.upstream.catalogue import Catalogue
from ringfence.gateway.upstream.connections import Connections, Reply

SUBSCRIPTION = "subscriptions/listen"
LISTENERS = 4
"""Such streams of one principal at one server, in one process."""
KEEP_ALIVE_SECONDS = 15
"""Of silence, after which a comment goes to the client, so that nobody in between cuts it off."""
OWN_CLASS = "internal"
"""Data class of what a server says about itself as a whole, which no manifest classifies."""
TREATMENTS: dict[str, Treatment] = {
    "pass": "none",
    "flag": "flagged",
    "redact": "redacted",
    "block": "blocked",
}
HARDER: dict[Treatment, int] = {name: number for number, name in enumerate(TREATMENTS.values())}

Conclude = Callable[..., None]
"""(exchange, status, refusal=None): writes down what came of it, or raises `Refusal`."""


class Relay:
    own_class = OWN_CLASS

    def __init__(
        self,
        server: Server,
        connections: Connections,
        catalogue: Catalogue,
        policies: Policies,
        inspection: Isolation,
        calls: CallLimits,
        limits: Limits,
        still_allowed: Callable[[Identity], None],
    ) -> None:
        self.server = server
        self.catalogue = catalogue
        self._connections = connections
        self._approved = server.pins
        self._policies = policies
        self._inspection = inspection
        self._whose = f"server {server.name}"
        self._slots = calls.slots[server.name]
        self._circuit = calls.circuits[server.name]
        self._limits = limits
        self._still_allowed = still_allowed
        self._retired = False
        self._listeners: Counter[str] = Counter()

    def retire(self) -> None:
        self._retired = True

    async def close(self) -> None:
        self.catalogue.close()
        await self._connections.close()

    async def call(
        self,
        exchange: Exchange,
        call: protocol.Call,
        declared: tuple[mirrored_headers.ParamHeader, ...],
        seal: Callable[[Exchange, str], str],
        conclude: Conclude,
    ) -> Answer:
        headers = protocol.upstream_headers(call, declared)
        headers["Content-Type"] = "application/json"
        reply = await self._send(
            exchange,
            "POST",
            headers,
            strict_json.serialise(call.document),
            listening=call.method == SUBSCRIPTION,
        )
        session: Headers = []
        if reply.session is not None and call.version != MODERN:
            session = [(b"mcp-session-id", seal(exchange, reply.session).encode())]
        if call.id is None and reply.status in (200, 202, 204):
            conclude(exchange, 202)
            return Answer(202, EMPTY_HEADERS, b"")
        if reply.status == 200 and reply.media_type == "text/event-stream":
            events = self._events(exchange, call, reply, conclude)
            return Answer(200, [*STREAM_HEADERS, *session], events)
        if reply.status in (200, 400, 404) and reply.media_type == "application/json":
            document = await self._document(exchange, call, reply)
            conclude(exchange, reply.status)
            return Answer(reply.status, [*JSON_HEADERS, *session], strict_json.serialise(document))
        raise self._refused(reply, call)

    async def session(
        self,
        exchange: Exchange,
        method: Literal["GET", "DELETE"],
        call: protocol.Call,
        conclude: Conclude,
    ) -> Answer:
        headers = protocol.upstream_headers(call)
        reply = await self._send(exchange, method, headers, b"", listening=method == "GET")
        if method == "GET" and reply.status == 200 and reply.media_type == "text/event-stream":
            return Answer(200, STREAM_HEADERS, self._events(exchange, call, reply, conclude))
        if method == "DELETE" and reply.status in (200, 202, 204):
            conclude(exchange, 204)
            return Answer(204, EMPTY_HEADERS, b"")
        if reply.status == 405:
            raise Refusal("method_not_allowed")
        raise self._refused(reply, call)

    async def _send(
        self,
        exchange: Exchange,
        method: Literal["POST", "GET", "DELETE"],
        headers: dict[str, str],
        body: bytes,
        *,
        listening: bool = False,
    ) -> Reply:
        assert exchange.identity is not None
        headers["Accept"] = "application/json, text/event-stream"
        headers["X-Ringfence-Principal"] = exchange.identity.principal
        headers["X-Ringfence-Request-Id"] = exchange.request_id
        if exchange.session is not None:
            headers["Mcp-Session-Id"] = exchange.session
        if listening:
            self._listen(exchange, exchange.identity.principal)
        else:
            await exchange.held.enter_async_context(self._slots.taken())
        started = time.monotonic()
        attempt = self._circuit.enter(started)
        try:
            reply = await self._connections.send(method, headers, body, listening=listening)
        except Refusal as refusal:
            # A slow tool says nothing about the server: others would be cut off for it.
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
        """Listening lasts: it takes no slot from calls, and each principal has a few of its own."""
        if self._listeners[principal] >= LISTENERS:
            raise Refusal(
                "too_many_listeners",
                f"this principal listens {LISTENERS} times already; end one of them",
            )
        self._listeners[principal] += 1
        exchange.held.callback(self._listeners.subtract, (principal,))

    def _refused(self, reply: Reply, call: protocol.Call) -> Refusal:
        if reply.status == 404 and call.session is not None:
            return Refusal("session_unknown")
        if reply.status in (429, 503):
            wait = reply.retry_after if (reply.retry_after or "").isdigit() else "1"
            return Refusal("upstream_busy", headers=(("Retry-After", wait or "1"),))
        return Refusal("upstream_status")

    # What comes back

    async def _document(
        self, exchange: Exchange, call: protocol.Call, reply: Reply
    ) -> dict[str, Any]:
        started = time.monotonic()
        body = await reply.read(self._limits.result_bytes)
        exchange.waited += time.monotonic() - started
        message = await self._parsed(body)
        if isinstance(message, dict) and message.get("id") is None and "error" in message:
            message["id"] = call.id  # it could not read which call it was; there was only this one
        if not results.is_response(message, call):
            raise Refusal("upstream_not_jsonrpc")
        message = await self._shaped(exchange, call, message)
        data_class = exchange.data_class or OWN_CLASS
        aside = results.set_aside(message, call.method)
        inspected = await self._inspection.inspect_result(
            message, data_class, self._check(call), size=len(body), of=self._whose
        )
        self._note(exchange, inspected)
        if (refusal := inspected.refusal) is not None:
            raise refusal
        return results.put_back(inspected.document, aside)

    async def _parsed(self, body: bytes) -> Any:
        """As strictly as a request; the fault is the server's."""
        return await parse(body, depth=self._limits.depth, what="result")

    async def _shaped(
        self, exchange: Exchange, call: protocol.Call, message: dict[str, Any]
    ) -> dict[str, Any]:
        """A response with what this caller may see of it."""
        result = message.get("result")
        if result is None:
            return message
        if call.method == "tools/list":
            judgement = await self.catalogue.current()
            result = self._approved.filtered(result, judgement)
        if (listed := results.listing_of(call.method)) is not None:
            identity, address = exchange.identity, exchange.address
            assert identity is not None
            result = results.filtered(
                result,
                listed,
                lambda kind, names: self._policies.visible(
                    identity, call.server, kind, names, address=address
                ),
            )
        elif call.method == "server/discover":
            result = results.offered(results.described(result), self.server.protocols)
        elif call.method == "initialize":
            results.initialised(result, self.server.protocols)
            result = results.described(result)
        elif call.method == "tools/call":
            self._hold_schema(call, result)
        return {**message, "result": results.private(result, call.method)}

    def _hold_schema(self, call: protocol.Call, result: dict[str, Any]) -> None:
        """MCP 2026-07-28, Output Schema: structured results MUST conform to it."""
        if result.get("isError") or result.get("resultType", "complete") != "complete":
            return
        structured = result.get("structuredContent", pins.ABSENT)
        if not self._approved.check_output(call.name or "", structured):
            raise Refusal("upstream_schema")

    def _check(self, call: protocol.Call) -> Callable[[Any], bool] | None:
        if call.method != "tools/call":
            return None
        return lambda structured: self._approved.check_output(call.name or "", structured)

    def _note(self, exchange: Exchange, inspected: Inspected) -> None:
        exchange.count(inspected.findings)
        treatment = TREATMENTS[inspected.action]
        if inspected.findings and HARDER[treatment] > HARDER[exchange.treatment]:
            exchange.treatment = treatment

    async def _events(
        self, exchange: Exchange, call: protocol.Call, reply: Reply, conclude: Conclude
    ) -> AsyncGenerator[bytes, None]:
        """Whole events of our own making; the last one tells how it ended."""
        parser = sse.Parser(self._limits.result_bytes)
        stream = StreamInspector(
            self._inspection.inspector,
            exchange.data_class or OWN_CLASS,
            partial(self._inspection.inspect_together, of=self._whose),
        )
        silent = 0
        listening = call.id is None or call.method == SUBSCRIPTION
        assert exchange.identity is not None
        try:
            async for chunk in reply.chunks():
                if self._retired and listening:
                    raise Refusal("listening_ended")
                self._still_allowed(exchange.identity)
                if not chunk:
                    for event in self._notifications(exchange, await stream.release()):
                        yield event
                    silent += 1
                    if silent >= KEEP_ALIVE_SECONDS:
                        silent = 0
                        yield sse.serialise(sse.KEEP_ALIVE)
                    continue
                silent = 0
                for event in parser.feed(chunk):
                    if not event.data:
                        continue
                    body = event.data.encode()
                    message = await self._parsed(body)
                    if self._answers(message, call):
                        message = await self._shaped(exchange, call, message)
                        aside = results.set_aside(message, call.method)
                        check = self._check(call) if "result" in message else None
                        *before, last = await stream.inspect(message, check, size=len(body))
                        for notification in self._notifications(exchange, before):
                            yield notification
                        results.put_back(last.document, aside)
                        answer = self._event(exchange, last)
                        conclude(exchange, 200, last.refusal)
                        yield answer
                        return
                    if message["method"] == "notifications/tools/list_changed":
                        self.catalogue.changed()
                    if results.concerns(message, call) and self._may_hear(exchange, message):
                        may_go = await stream.inspect(message, size=len(body))
                        for notification in self._notifications(exchange, may_go):
                            yield notification
            for event in self._notifications(exchange, await stream.release()):
                yield event
            if call.id is None:
                conclude(exchange, 200)
                return
            raise Refusal("upstream_reset")
        except Refusal as refusal:
            yield self._failure(exchange, call, refusal, conclude)

    def _may_hear(self, exchange: Exchange, notification: dict[str, Any]) -> bool:
        """Whether a resource that changed is one that the caller could read."""
        if notification["method"] != "notifications/resources/updated":
            return True
        uri = notification.get("params", {}).get("uri")
        assert exchange.identity is not None
        return isinstance(uri, str) and bool(
            self._policies.visible(
                exchange.identity, self.server.name, "resource", [uri], address=exchange.address
            )
        )

    def _answers(self, message: Any, call: protocol.Call) -> bool:
        answers = results.is_response(message, call)
        if answers and call.id is None:
            raise Refusal("upstream_other_id")
        return answers

    def _notifications(self, exchange: Exchange, held: list[Inspected]) -> Iterator[bytes]:
        """What is withheld of them has no answer to be missed in."""
        for inspected in held:
            event = self._event(exchange, inspected)
            if inspected.action != "block":
                yield event

    def _event(self, exchange: Exchange, inspected: Inspected) -> bytes:
        self._note(exchange, inspected)
        return _serialised(inspected.document)

    def _failure(
        self, exchange: Exchange, call: protocol.Call, refusal: Refusal, conclude: Conclude
    ) -> bytes:
        try:
            conclude(exchange, refusal.status, refusal)
        except Refusal as unrecorded:
            refusal = unrecorded
        return _serialised(results.error_message(call.id, refusal))


def _serialised(message: dict[str, Any]) -> bytes:
    return sse.serialise(sse.Event(data=strict_json.serialise(message).decode(), event="message"))
