"""Answers of one server, read strictly and cut to what the caller may see.

Lists are cut to what the caller may use, and definitions to what was approved; results are
inspected, and masked or withheld, before anybody sees them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from typing import Any

from ringfence.gateway.audit.events import Treatment
from ringfence.gateway.calls import results
from ringfence.gateway.calls.exchange import OWN_CLASS, Exchange
from ringfence.gateway.calls.recording import CallRecorder
from ringfence.gateway.configuration.model import MessageLimits, ServerConfiguration
from ringfence.gateway.inspection.inspector import Inspected
from ringfence.gateway.inspection.streams import StreamInspector
from ringfence.gateway.inspection.worker import InspectionWorker
from ringfence.gateway.pins.approved import ABSENT, Judgement
from ringfence.gateway.policy.decisions import Policies
from ringfence.gateway.protocol import strict_json
from ringfence.gateway.protocol.requests import Call
from ringfence.gateway.protocol.responses import concerns, is_response
from ringfence.gateway.refusals import Refusal
from ringfence.gateway.tokens.access_tokens import Verifier
from ringfence.gateway.upstream import sse
from ringfence.gateway.upstream.catalogue import Catalogue
from ringfence.gateway.upstream.connections import Reply

SUBSCRIPTION = "subscriptions/listen"
KEEP_ALIVE_SECONDS = 15
"""Silence after which the client gets a comment, so that no proxy closes the connection."""
TREATMENTS: dict[str, Treatment] = {
    "pass": "none",
    "flag": "flagged",
    "redact": "redacted",
    "block": "blocked",
}
_STRENGTH: dict[Treatment, int] = {name: n for n, name in enumerate(TREATMENTS.values())}


class Answers:
    """Reads the answers of one server."""

    def __init__(
        self,
        server: ServerConfiguration,
        catalogue: Catalogue[Judgement],
        policies: Policies,
        inspection: InspectionWorker,
        limits: MessageLimits,
        verifier: Verifier,
        recorder: CallRecorder,
    ) -> None:
        self._server = server
        self._catalogue = catalogue
        self._policies = policies
        self._inspection = inspection
        self._source = f"server {server.name}"
        self._limits = limits
        self._verifier = verifier
        self._recorder = recorder
        self._retired = False

    def retire(self) -> None:
        """End streams that only listen."""
        self._retired = True

    async def document(self, exchange: Exchange, reply: Reply) -> dict[str, Any]:
        """The one message of a reply in JSON. Raises `Refusal`."""
        call, _ = exchange.identified()
        started = time.monotonic()
        body = await reply.read(self._limits.result_bytes)
        exchange.waited += time.monotonic() - started
        message = await self._parse(body)
        if isinstance(message, dict) and message.get("id") is None and "error" in message:
            message["id"] = call.id  # it could not read which call it was; there was only this one
        if not is_response(message, call):
            raise Refusal("upstream_not_jsonrpc")
        message = await self._shape(exchange, call, message)
        aside = results.set_aside(message, call.method)
        inspected = await self._inspection.inspect_result(
            message,
            exchange.data_class or OWN_CLASS,
            self._schema_check(call),
            size=len(body),
            source=self._source,
        )
        self._note(exchange, inspected)
        if (refusal := inspected.refusal) is not None:
            raise refusal
        return results.put_back(inspected.document, aside)

    async def events(self, exchange: Exchange, reply: Reply) -> AsyncGenerator[bytes, None]:
        """The events of a reply, whole and serialised again; the last one is the answer."""
        call, identity = exchange.identified()
        parser = sse.Parser(self._limits.result_bytes)
        stream = StreamInspector(
            self._inspection.inspector,
            exchange.data_class or OWN_CLASS,
            partial(self._inspection.inspect_together, source=self._source),
        )
        silent = 0
        listening = call.id is None or call.method == SUBSCRIPTION
        try:
            async for chunk in reply.chunks():
                if self._retired and listening:
                    raise Refusal("listening_ended")
                self._verifier.check_still_valid(identity)
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
                    message = await self._parse(body)
                    if self._is_answer(message, call):
                        message = await self._shape(exchange, call, message)
                        aside = results.set_aside(message, call.method)
                        check = self._schema_check(call) if "result" in message else None
                        *before, last = await stream.inspect(message, check, size=len(body))
                        for notification in self._notifications(exchange, before):
                            yield notification
                        results.put_back(last.document, aside)
                        answer = self._event(exchange, last)
                        self._recorder.conclude(exchange, 200, last.refusal)
                        yield answer
                        return
                    if message["method"] == "notifications/tools/list_changed":
                        self._catalogue.changed()
                    if concerns(message, call) and self._may_receive(exchange, message):
                        passed = await stream.inspect(message, size=len(body))
                        for notification in self._notifications(exchange, passed):
                            yield notification
            for event in self._notifications(exchange, await stream.release()):
                yield event
            if call.id is None:
                self._recorder.conclude(exchange, 200)
                return
            raise Refusal("upstream_reset")
        except Refusal as refusal:
            yield self._failure(exchange, call, refusal)

    async def _parse(self, body: bytes) -> Any:
        return await strict_json.parse_any_size(body, depth=self._limits.depth, what="result")

    async def _shape(
        self, exchange: Exchange, call: Call, message: dict[str, Any]
    ) -> dict[str, Any]:
        """A response with what this caller may see of it."""
        result = message.get("result")
        if result is None:
            return message
        if call.method == "tools/list":
            result = self._server.pins.filtered(result, await self._catalogue.current())
        if (listing := results.listing_of(call.method)) is not None:
            _, identity = exchange.identified()
            result = results.filtered(
                result,
                listing,
                lambda kind, names: self._policies.visible(
                    identity, call.server, kind, names, address=exchange.address
                ),
            )
        elif call.method == "server/discover":
            result = results.offered(results.described(result), self._server.protocols)
        elif call.method == "initialize":
            results.check_version(result, self._server.protocols)
            result = results.described(result)
        elif call.method == "tools/call":
            self._check_output(call, result)
        return {**message, "result": results.private(result)}

    def _check_output(self, call: Call, result: dict[str, Any]) -> None:
        """MCP 2026-07-28, Output Schema: structured results MUST conform to it."""
        if result.get("isError") or result.get("resultType", "complete") != "complete":
            return
        structured = result.get("structuredContent", ABSENT)
        if not self._server.pins.check_output(call.name or "", structured):
            raise Refusal("upstream_schema")

    def _schema_check(self, call: Call) -> Callable[[Any], bool] | None:
        if call.method != "tools/call":
            return None
        return lambda structured: self._server.pins.check_output(call.name or "", structured)

    def _note(self, exchange: Exchange, inspected: Inspected) -> None:
        exchange.count(inspected.findings)
        treatment = TREATMENTS[inspected.action]
        if inspected.findings and _STRENGTH[treatment] > _STRENGTH[exchange.treatment]:
            exchange.treatment = treatment

    def _may_receive(self, exchange: Exchange, notification: dict[str, Any]) -> bool:
        """Whether a resource that changed is one that the caller could read."""
        if notification["method"] != "notifications/resources/updated":
            return True
        uri = notification.get("params", {}).get("uri")
        _, identity = exchange.identified()
        return isinstance(uri, str) and bool(
            self._policies.visible(
                identity, self._server.name, "resource", [uri], address=exchange.address
            )
        )

    def _is_answer(self, message: Any, call: Call) -> bool:
        answers = is_response(message, call)
        if answers and call.id is None:
            raise Refusal("upstream_other_id")
        return answers

    def _notifications(self, exchange: Exchange, held: list[Inspected]) -> Iterator[bytes]:
        """Events of inspected notifications; blocked ones are left out."""
        for inspected in held:
            event = self._event(exchange, inspected)
            if inspected.action != "block":
                yield event

    def _event(self, exchange: Exchange, inspected: Inspected) -> bytes:
        self._note(exchange, inspected)
        return _serialise(inspected.document)

    def _failure(self, exchange: Exchange, call: Call, refusal: Refusal) -> bytes:
        try:
            self._recorder.conclude(exchange, refusal.status, refusal)
        except Refusal as unrecorded:
            refusal = unrecorded
        return _serialise(results.error_message(call.id, refusal))


def _serialise(message: dict[str, Any]) -> bytes:
    return sse.serialise(sse.Event(data=strict_json.serialise(message).decode(), event="message"))
