"""Proxy that adds tokens: the gateway requires them, and the conformance suite has none.

It does for each request what a client and HAProxy do together, and nothing else: it adds a token
and the certificate that the token is bound to. It passes everything else on unchanged, in both
directions.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
"""Headers that apply to one connection only (RFC 9110, section 7.6.1)."""


def passed(headers: Mapping[str, str]) -> CIMultiDict[str]:
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP
    )


class Proxy:
    def __init__(self, socket: Path, added: Mapping[str, str]) -> None:
        self._socket, self._added = socket, added

    async def start(self, port: int) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(self._socket), limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=["Accept", "Accept-Encoding", "Content-Type", "User-Agent"],
        )
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._pass)
        # A client that disconnects also ends its request to the gateway.
        self._runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=1, access_log=None
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        headers = passed(request.headers)
        headers.extend(self._added)
        async with self._session.request(
            request.method,
            f"http://gateway{request.raw_path}",
            headers=headers,
            data=await request.read(),
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers=passed(answer.headers))
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response


@contextmanager
def authorising(socket: Path, port: int, added: Mapping[str, str]) -> Iterator[None]:
    """Run the proxy on a port of the loopback interface, in its own thread."""
    proxy, loop = Proxy(socket, added), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(20)

    run(proxy.start(port))
    try:
        yield
    finally:
        run(proxy.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()
