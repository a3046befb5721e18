"""Serve a stdio MCP server as Streamable HTTP on a socket that systemd passes.

Both sides use the official MCP SDK: its client speaks to the server's process and its HTTP server
to callers, so every protocol version of the SDK works on either side. The bridge relays the methods
that the server offers, and no others.

    mcp_bridge.py --concurrency 16 --timeout 30 -- mcp-server-time --local-timezone UTC
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from typing import Any, get_args

import mcp_types as types
import uvicorn
from mcp import Client, MCPError, StdioServerParameters
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp_types import methods
from mcp_types.jsonrpc import CONNECTION_CLOSED
from pydantic import TypeAdapter

SYSTEMD_FIRST_FD = 3
MAX_BODY_BYTES = 1024 * 1024

METHODS = {
    "tools": ("tools/list", "tools/call"),
    "resources": ("resources/list", "resources/templates/list", "resources/read"),
    "prompts": ("prompts/list", "prompts/get"),
    "completions": ("completion/complete",),
}
"""Relayed methods, by the capability that announces them."""


class Bridge:
    def __init__(self, client: Client, timeout: float) -> None:
        self.client = client
        self.timeout = timeout
        self.disconnected = asyncio.Event()
        """Set when the server's process has ended; the bridge ends too."""

    def server(self) -> Server[Any]:
        identity = self.client.server_info
        server: Server[Any] = Server(
            identity.name if identity else "server",
            version=identity.version if identity else "",
            instructions=self.client.instructions,
        )
        for capability, names in METHODS.items():
            if getattr(self.client.server_capabilities, capability) is not None:
                for name in names:
                    server.add_request_handler(name, parameters_of(name), self._relay(name))
        return server

    def _relay(self, method: str) -> Any:
        request = methods.MONOLITH_REQUESTS[method]
        kind: Any = methods.MONOLITH_RESULTS[method]
        # Typed: the adapter fills fields that newer versions require and older servers omit.
        result: TypeAdapter[Any] = TypeAdapter(kind)

        async def relay(_: ServerRequestContext[Any], parameters: types.RequestParams) -> Any:
            try:
                return await self.client.session.send_request(
                    request(method=method, params=parameters), result, self.timeout
                )
            except MCPError as error:
                if error.code == CONNECTION_CLOSED:
                    self.disconnected.set()
                raise

        return relay


def parameters_of(method: str) -> Any:
    annotation = methods.MONOLITH_REQUESTS[method].model_fields["params"].annotation
    return next(kind for kind in get_args(annotation) or (annotation,) if kind is not type(None))


async def serve(command: list[str], concurrency: int, timeout: float) -> int:
    parameters = StdioServerParameters(command=command[0], args=command[1:])
    async with Client(parameters, cache=None) as client:
        bridge = Bridge(client, timeout)
        app = bridge.server().streamable_http_app(
            # The TLS frontend authenticates callers and checks Host and Origin; only it can open
            # the socket.
            host="unix",
            json_response=True,
            stateless_http=True,
            max_request_body_size=MAX_BODY_BYTES,
        )
        http = uvicorn.Server(
            uvicorn.Config(
                app,
                fd=SYSTEMD_FIRST_FD,
                http="h11",
                ws="none",
                limit_concurrency=concurrency + 1,
                timeout_graceful_shutdown=5,
                access_log=False,
                log_config=None,
                server_header=False,
                date_header=False,
            )
        )
        serving = asyncio.create_task(http.serve())
        disconnection = asyncio.create_task(bridge.disconnected.wait())
        await asyncio.wait({serving, disconnection}, return_when=asyncio.FIRST_COMPLETED)
        http.should_exit = True
        await serving
        disconnection.cancel()
        if bridge.disconnected.is_set():
            logging.error("the server's process ended; systemd restarts both")
    return int(bridge.disconnected.is_set())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    return asyncio.run(serve(args.command, args.concurrency, args.timeout))


if __name__ == "__main__":
    sys.exit(main())
