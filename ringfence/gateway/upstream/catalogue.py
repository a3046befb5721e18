"""The tools of each server, listed by the gateway itself.

Pins are judged on what the server offers now, not on what it offered to some client before. The
tools of a server that cannot be listed are unavailable until it can.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from ringfence.gateway.configuration.model import MessageLimits, ServerConfiguration
from ringfence.gateway.protocol import strict_json
from ringfence.gateway.protocol.methods import MODERN
from ringfence.gateway.protocol.requests import META, Call
from ringfence.gateway.protocol.responses import is_response
from ringfence.gateway.refusals import UNKNOWN_METHOD, Refusal
from ringfence.gateway.upstream import sse
from ringfence.gateway.upstream.connections import Connections

FRESH_SECONDS = 60.0
"""The age that the listing behind a call may have."""
RENEWED_SECONDS = 45.0
"""Age at which it is renewed in the background, so that no call waits."""
FAILED_SECONDS = 1.0
"""Time between two attempts at a server that cannot be listed."""
PAGES = 100
OWN_NAME = "ringfence:gateway"
"""The gateway as a principal; no principal of a manifest has a colon."""


J = TypeVar("J")


class Catalogue(Generic[J]):
    """The tools of one server, as `judge` judges them; all calls share a judgement."""

    def __init__(
        self,
        server: ServerConfiguration,
        connections: Connections,
        limits: MessageLimits,
        judge: Callable[[list[dict[str, Any]]], J],
    ) -> None:
        self._server = server
        self._connections = connections
        self._limits = limits
        self._judge = judge
        self._judgement: J | None = None
        self._listed = float("-inf")
        self._failed = float("-inf")
        self._listing: asyncio.Task[J] | None = None

    @property
    def listed(self) -> bool:
        return self._judgement is not None

    def changed(self) -> None:
        """Note that the list has changed: the next call waits for a new listing."""
        self._listed = float("-inf")

    async def current(self) -> J:
        """A judgement of at most `FRESH_SECONDS`. Raises `Refusal` (503) where there is none."""
        age = time.monotonic() - self._listed
        if self._judgement is not None and age < RENEWED_SECONDS:
            return self._judgement
        if self._judgement is not None and age < FRESH_SECONDS:
            if self._may_list():
                self._list()
            return self._judgement
        if not self._may_list():
            raise Refusal("upstream_unlisted")
        return await asyncio.shield(self._list())

    def close(self) -> None:
        if self._listing is not None:
            self._listing.cancel()

    def _may_list(self) -> bool:
        return self._listing is not None or time.monotonic() - self._failed >= FAILED_SECONDS

    def _list(self) -> asyncio.Task[J]:
        """Start a listing unless one runs; it continues when its caller has left."""
        if self._listing is None:
            self._listing = asyncio.create_task(self._renew())
            self._listing.add_done_callback(self._done)
        return self._listing

    def _done(self, task: asyncio.Task[J]) -> None:
        self._listing = None
        if not task.cancelled():
            task.exception()  # its callers have it, if there are any

    async def _renew(self) -> J:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._server.timeout_seconds):
                if MODERN in self._server.protocols:
                    definitions = await self._pages({}, None)
                else:
                    definitions = await self._with_session()
            judgement = self._judge(definitions)
        except (Refusal, TimeoutError) as error:
            self._failed = time.monotonic()
            raise Refusal("upstream_unlisted") from error
        # The list may have changed again during the reading.
        self._judgement, self._listed = judgement, started
        return judgement

    async def _with_session(self) -> list[dict[str, Any]]:
        version = max(self._server.protocols)
        client = {"name": "ringfence-gateway", "version": "1"}
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": client}
        answer, session = await self._request("initialize", params, {})
        if answer.get("protocolVersion") not in self._server.protocols:
            raise Refusal("upstream_version")
        headers = {"MCP-Protocol-Version": str(answer["protocolVersion"])}
        if session is not None:
            headers["Mcp-Session-Id"] = session
        try:
            await self._notify("notifications/initialized", headers)
            return await self._pages(headers, answer["protocolVersion"])
        finally:
            if session is not None:
                await self._end(headers)

    async def _pages(self, headers: Mapping[str, str], version: str | None) -> list[dict[str, Any]]:
        definitions: list[dict[str, Any]] = []
        cursor: str | None = None
        for _ in range(PAGES):
            params: dict[str, Any] = {} if cursor is None else {"cursor": cursor}
            modern = {}
            if version is None:
                params["_meta"] = {
                    f"{META}protocolVersion": MODERN,
                    f"{META}clientCapabilities": {},
                }
                modern = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/list"}
            page, _ = await self._request("tools/list", params, {**headers, **modern})
            tools = page.get("tools")
            if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
                raise Refusal("upstream_not_mcp")
            definitions.extend(tools)
            cursor = page.get("nextCursor")
            if cursor is None:
                return definitions
            if not isinstance(cursor, str):
                break
        raise Refusal("upstream_not_mcp")

    async def _request(
        self, method: str, params: Mapping[str, Any], headers: Mapping[str, str]
    ) -> tuple[dict[str, Any], str | None]:
        """The result of a request of the gateway's own, and the session that came with it."""
        document = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        call = Call(
            server=self._server.name,
            version="",
            id=1,
            method=method,
            params=params,
            kind="server",
            name=None,
            document=document,
        )
        reply = await self._connections.send(
            "POST", {**_headers(), **headers}, strict_json.serialise(document)
        )
        try:
            if reply.status != 200:
                raise Refusal("upstream_status")
            if reply.media_type == "text/event-stream":
                message = await self._last_event(reply, call)
            else:
                body = await reply.read(self._limits.result_bytes)
                message = strict_json.parse(body, depth=self._limits.depth, what="result")
            if not is_response(message, call):
                raise Refusal("upstream_not_jsonrpc")
        finally:
            reply.close()
        if "error" in message:
            if message["error"]["code"] == UNKNOWN_METHOD and method == "tools/list":
                return {"tools": []}, None
            raise Refusal("upstream_error")
        return message["result"], reply.session

    async def _last_event(self, reply: Any, call: Call) -> Any:
        parser = sse.Parser(self._limits.result_bytes)
        async for chunk in reply.chunks():
            for event in parser.feed(chunk):
                if not event.data:
                    continue
                message = strict_json.parse(
                    event.data.encode(), depth=self._limits.depth, what="result"
                )
                if is_response(message, call):
                    return message
        raise Refusal("upstream_reset")

    async def _notify(self, method: str, headers: Mapping[str, str]) -> None:
        document = {"jsonrpc": "2.0", "method": method}
        reply = await self._connections.send(
            "POST", {**_headers(), **headers}, strict_json.serialise(document)
        )
        reply.close()

    async def _end(self, headers: Mapping[str, str]) -> None:
        try:
            reply = await self._connections.send("DELETE", {**_headers(), **headers}, b"")
            reply.close()
        except Refusal:
            pass  # a session that is not ended expires at the server


def _headers() -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "X-Ringfence-Principal": OWN_NAME,
    }
