"""The ASGI application: routes requests, reads bodies within limits, and sends the answers.

A disconnect cancels the request: nothing is done for a client that has gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from ringfence.gateway.calls.exchange import Answer, Exchange, Headers, Verb
from ringfence.gateway.calls.versions import Version
from ringfence.gateway.protocol import request_line
from ringfence.gateway.refusals import Refusal
from ringfence.gateway.server import cors

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_SECONDS = 10.0
"""Time for a whole request body: enough for a slow line, too little for slowloris."""
WRITE_SECONDS = 30.0
"""Time for a client to take the next event of a stream."""
CLIENT_GONE = "client_gone"
WELL_KNOWN = b"/.well-known/oauth-protected-resource/"

logger = logging.getLogger(__name__)


class Application:
    """ASGI 3. `version` may be replaced at any time: a request stays with the one it met."""

    def __init__(self, version: Version) -> None:
        self.version = version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        version = self.version
        if shared := cors.origin_headers(scope["headers"], version.configuration.origins):
            send = _with_headers(send, shared)
        with version.serving():
            exchange = Exchange.begin(scope["headers"])
            try:
                await self._respond(version, exchange, scope, receive, send)
            except Refusal as refusal:
                answer = version.recorder.refuse(exchange, refusal)
                # A client that has gone, or takes nothing, gets no answer but a closed connection.
                if refusal.reason != CLIENT_GONE:
                    await _send(send, answer)
            except Exception:
                logger.exception("request %s failed", exchange.request_id)
                refusal = Refusal("internal_error")
                await _send(send, version.recorder.refuse(exchange, refusal))
            finally:
                await version.recorder.finish(exchange)

    async def _respond(
        self, version: Version, exchange: Exchange, scope: Scope, receive: Receive, send: Send
    ) -> None:
        method: str = scope["method"]
        path: bytes = scope["raw_path"]
        configuration = version.configuration
        limit = configuration.limits.body_bytes
        request_line.check_target(path.decode("latin-1"), scope["query_string"])
        request_line.check_host(exchange.headers, configuration.hosts)
        request_line.check_origin(exchange.headers, configuration.origins)
        preflight = method == "OPTIONS" and cors.is_preflight(exchange.headers)
        if (name := _server(path)) is not None and name in configuration.servers:
            exchange.server = name
            allowed = version.verbs(name)
            if preflight:
                await _send(send, _preflight(version, exchange, allowed))
                return
            exchange.verb = _verb(method, allowed)
            if method == "POST":
                exchange.body = await _body(exchange.headers, receive, limit)
            async with _Connected(receive) as client:
                await _stream(send, await version.pipeline.answer(exchange), client)
        elif path.startswith(WELL_KNOWN):
            name = _server(path[len(WELL_KNOWN) - 1 :])
            if name is None or name not in configuration.servers:
                raise Refusal("no_such_path")
            if preflight:
                await _send(send, _preflight(version, exchange, ("GET",)))
            else:
                _verb(method, ("GET",))
                await _send(send, version.endpoints.metadata(exchange, name))
        elif (endpoints := version.endpoints.by_path.get(path)) is not None:
            verb = _verb(method, tuple(endpoints))
            if verb == "POST":
                exchange.body = await _body(exchange.headers, receive, limit)
            await _send(send, await endpoints[verb](exchange))
        else:
            raise Refusal("no_such_path")


class _Connected:
    """Cancels the request's task as soon as its client is gone."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self.answered = False
        """Set before the last byte is sent: a disconnect after that is a normal end."""

    async def __aenter__(self) -> _Connected:
        self._task = asyncio.current_task()
        self._watch = asyncio.ensure_future(self._wait())
        return self

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.answered and self._task is not None:
            self._gone = True
            self._task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._watch.cancel()
        if kind is asyncio.CancelledError and self._gone and self._task is not None:
            self._task.uncancel()
            raise Refusal(CLIENT_GONE)


async def _body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """The request's body, at most `limit` bytes, whatever its headers say."""
    for name, value in headers:
        if name == b"content-length" and (not value.isdigit() or int(value) > limit):
            raise _too_large(limit)
        if name == b"content-encoding":
            raise Refusal("content_encoding")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(CLIENT_GONE)
                chunk: bytes = message.get("body", b"")
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                chunks.append(chunk)
                if not message.get("more_body"):
                    break
    except TimeoutError:
        raise Refusal(
            "body_timeout",
            f"send the whole body within {BODY_SECONDS:.0f} seconds",
            headers=(("Connection", "close"),),
        ) from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _with_headers(send: Send, headers: Headers) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *headers]
        await send(message)

    return send_with_headers


def _preflight(version: Version, exchange: Exchange, verbs: tuple[str, ...]) -> Answer:
    """The answer to what a browser asks before a page's request; its Origin was checked."""
    version.recorder.conclude(exchange, 204, reason="preflight")
    return Answer(204, cors.preflight(exchange.headers, verbs), b"")


async def _send(send: Send, answer: Answer) -> None:
    assert isinstance(answer.body, bytes)
    length = (b"content-length", b"%d" % len(answer.body))
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            # RFC 9110, section 8.6: a 204 has none.
            "headers": [*answer.headers, length] if answer.status != 204 else answer.headers,
        }
    )
    await send({"type": "http.response.body", "body": answer.body})


async def _stream(send: Send, answer: Answer, client: _Connected) -> None:
    if isinstance(answer.body, bytes):
        client.answered = True
        await _send(send, answer)
        return
    events = answer.body
    try:
        await send(
            {"type": "http.response.start", "status": answer.status, "headers": answer.headers}
        )
        async for event in events:
            try:
                async with asyncio.timeout(WRITE_SECONDS):
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            except TimeoutError:
                raise Refusal(CLIENT_GONE) from None
        client.answered = True
        await send({"type": "http.response.body", "body": b""})
    finally:
        await events.aclose()


def _server(path: bytes) -> str | None:
    """The server's name in `/<server>/mcp`; names need no percent-encoding, so none is undone."""
    parts = path.split(b"/")
    if len(parts) != 3 or parts[0] or parts[2] != b"mcp":
        return None
    return parts[1].decode("latin-1")


def _verb(method: str, allowed: Sequence[Verb]) -> Verb:
    for verb in allowed:
        if verb == method:
            return verb
    raise Refusal(
        "method_not_allowed",
        f"use {' or '.join(allowed)} here",
        headers=(("Allow", ", ".join(allowed)),),
    )


def _too_large(limit: int) -> Refusal:
    # Closing the connection spares reading the rest of the body.
    return Refusal(
        "body_too_large",
        f"the body may have at most {limit} bytes",
        headers=(("Connection", "close"),),
    )
