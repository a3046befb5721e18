"""Pooled connections to one MCP server, over mutual TLS 1.3.

Only bytes, a status and a few headers come back; anything else that a server sends is dropped
here. A request is sent once: after a failure it is not repeated, because the server may have acted
on it already.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Literal

import aiohttp
from yarl import URL

from ringfence.gateway.configuration.model import ServerConfiguration, UpstreamSettings
from ringfence.gateway.refusals import Refusal

IDLE_SECONDS = 4.0
"""Life of an unused connection: shorter than on servers (uvicorn: 5 s), so that no request, which
could not be repeated, meets a connection that is being closed."""
CONNECT_SECONDS = 5.0
LISTENING = aiohttp.ClientTimeout(
    total=None, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=None
)


def tls_context(settings: UpstreamSettings) -> ssl.SSLContext:
    """TLS 1.3 with the gateway's own certificate, trusting only the environment's authority."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    tls.load_verify_locations(settings.authority_file)
    tls.load_cert_chain(settings.certificate_file, settings.key_file)
    return tls


class Reply:
    """An answer with an unread body. Close it, whatever happens."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self.session = response.headers.get("Mcp-Session-Id")
        self.retry_after = response.headers.get("Retry-After")

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises `Refusal` where it is larger than `limit` bytes or breaks off."""
        declared = self._response.content_length
        if declared is not None and declared > limit:
            raise Refusal("result_too_large")
        content = self._response.content
        chunks: list[bytes] = []
        size = 0
        try:
            while chunk := await content.readany():
                size += len(chunk)
                if size > limit:
                    raise Refusal("result_too_large")
                chunks.append(chunk)
        except TimeoutError as error:
            raise Refusal("upstream_timeout") from error
        except aiohttp.ClientError as error:
            raise Refusal("upstream_reset") from error
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives; an empty chunk for each second of silence.

        Raises `Refusal` where the connection breaks, or nothing arrives for the server's time-out,
        unless the reply is to listening.
        """
        content = self._response.content
        reading: asyncio.Task[bytes] | None = None
        try:
            while True:
                reading = reading or asyncio.ensure_future(content.readany())
                done, _ = await asyncio.wait((reading,), timeout=1.0)
                if not done:
                    yield b""
                    continue
                chunk, reading = reading.result(), None
                if not chunk:
                    return
                yield chunk
        except TimeoutError as error:
            raise Refusal("upstream_timeout") from error
        except aiohttp.ClientError as error:
            raise Refusal("upstream_reset") from error
        finally:
            if reading is not None:
                reading.cancel()

    def close(self) -> None:
        """Return the connection to the pool if the body was read to its end; else close it."""
        self._response.close()


class Connections:
    """The connection pool of one server. Make it inside a running event loop."""

    def __init__(self, server: ServerConfiguration, tls: ssl.SSLContext | None) -> None:
        self._url = URL(server.url)
        self._name = server.server_name
        self._seconds = server.timeout_seconds
        self._timeout = aiohttp.ClientTimeout(
            total=None,
            connect=CONNECT_SECONDS,
            sock_connect=CONNECT_SECONDS,
            sock_read=server.timeout_seconds,
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # the server's concurrency is bounded before this
                keepalive_timeout=IDLE_SECONDS,
                ssl=tls if tls is not None else True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent",),
            trust_env=False,
        )

    async def send(
        self,
        method: Literal["POST", "GET", "DELETE"],
        headers: Mapping[str, str],
        body: bytes,
        *,
        listening: bool = False,
    ) -> Reply:
        """Send a request once; returns when the head of the answer is there.

        `listening`: the body may be silent for a long time.
        """
        try:
            async with asyncio.timeout(self._seconds if listening else None):
                response = await self._session.request(
                    method,
                    self._url,
                    data=body if method == "POST" else None,
                    headers=headers,
                    allow_redirects=False,
                    server_hostname=self._name,
                    timeout=LISTENING if listening else self._timeout,
                )
        except TimeoutError as error:
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                raise Refusal("upstream_unreachable") from error
            raise Refusal("upstream_timeout") from error
        except aiohttp.ClientConnectorError as error:
            raise Refusal("upstream_unreachable") from error
        except aiohttp.ServerDisconnectedError as error:
            raise Refusal("upstream_reset") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Refusal("upstream_reset") from error
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            response.close()
            raise Refusal("upstream_encoding")
        return Reply(response)

    async def close(self) -> None:
        await self._session.close()
