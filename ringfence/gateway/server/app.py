"""The ASGI shell: routes, reads bodies within bounds, runs the pipeline, sends what it says.

Who disconnects cancels: nothing is done for a client that has gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ringfence.gateway.calls.exchange import Answer, Exchange, Headers
from ringfence.gateway.calls.pipeline import Pipeline
from ringfence.gateway.refusals import Refusal
from ringfence.gateway.server import cors

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_SECONDS = 10.0
"""For a whole request body: what a client on a bad line needs, and no more (slowloris)."""
WRITE_SECONDS = 30.0
"""For a client to take the next event of a stream."""
CLIENT_GONE = "client_gone"
WELL_KNOWN = b"/.well-known/oauth-protected-resource/"

logger = logging.getLogger(__name__)


class Application:
    """ASGI 3. `pipeline` may be replaced at any time: a request stays with the one it met."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        pipeline = self.pipeline
        if stamp := cors.stamp(scope["headers"], pipeline.origins):
            send = _stamped(send, stamp)
        with pipeline.in_flight():
            exchange = pipeline.exchange(scope["headers"])
            try:
                await self._respond(pipeline, exchange, scope, receive, send)
            except Refusal as refusal:
                answer = pipeline.refuse(exchange, refusal)
                # Who is gone, or takes nothing, gets nothing: its connection is cut.
                if refusal.reason != CLIENT_GONE:
                    await _send(send, answer)
            except Exception:
                logger.exception("request %s failed", exchange.request_id)
                await _send(send, pipeline.refuse(exchange, Refusal("internal_error")))
            finally:
                await pipeline.finish(exchange)

    async def _respond(
        self, pipeline: Pipeline, exchange: Exchange, scope: Scope, receive: Receive, send: Send
    ) -> None:
        method: str = scope["method"]
        path: bytes = scope["raw_path"]
        pipeline.check_request_line(exchange, path, scope["query_string"])
        server = _server(path)
        if server is not None and server in pipeline.servers:
            exchange.server = server
            allowed = pipeline.methods(server)
            if method == "OPTIONS" and cors.is_preflight(exchange.headers):
                await _send(send, pipeline.preflight(exchange, allowed))
            elif method not in allowed:
                raise _method_not_allowed(*allowed)
            elif method == "POST":
                body = await _body(exchange.headers, receive, pipeline.body_bytes)
                async with _Connected(receive) as client:
                    await _stream(send, await pipeline.call(exchange, body), client)
            else:
                async with _Connected(receive) as client:
                    await _stream(send, await pipeline.session(exchange, method), client)
        elif path.startswith(WELL_KNOWN):
            server = _server(path[len(WELL_KNOWN) - 1 :])
            if server is None or server not in pipeline.servers:
                raise Refusal("no_such_path")
            if method == "OPTIONS" and cors.is_preflight(exchange.headers):
                await _send(send, pipeline.preflight(exchange, ("GET",)))
            elif method != "GET":
                raise _method_not_allowed("GET")
            else:
                await _send(send, pipeline.metadata(exchange, server))
        elif path == b"/grants":
            if method == "POST":
                body = await _body(exchange.headers, receive, pipeline.body_bytes)
                await _send(send, await pipeline.accept_grant(exchange, body))
            elif method == "GET":
                await _send(send, await pipeline.list_grants(exchange))
            else:
                raise _method_not_allowed("GET", "POST")
        elif path == b"/revocations":
            if method == "POST":
                body = await _body(exchange.headers, receive, pipeline.body_bytes)
                await _send(send, await pipeline.accept_revocation(exchange, body))
            elif method == "GET":
                await _send(send, await pipeline.list_revocations(exchange))
            else:
                raise _method_not_allowed("GET", "POST")
        else:
            raise Refusal("no_such_path")


class _Connected:
    """Cancels the request's task as soon as its client is gone."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self.answered = False
        """Set before the last byte is sent: what is reported after that is our own end."""

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


def _stamped(send: Send, stamp: Headers) -> Send:
    async def stamped(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *stamp]
        await send(message)

    return stamped


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


def _method_not_allowed(*allowed: str) -> Refusal:
    return Refusal(
        "method_not_allowed",
        f"use {' or '.join(allowed)} here",
        headers=(("Allow", ", ".join(allowed)),),
    )


def _too_large(limit: int) -> Refusal:
    # Closing spares reading what is still to come.
    return Refusal(
        "body_too_large",
        f"the body may have at most {limit} bytes",
        headers=(("Connection", "close"),),
    )
