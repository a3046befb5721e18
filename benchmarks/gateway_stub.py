"""A stub MCP server, to measure only the path to a server: `gateway_stub.py PORT`."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

TOOL = {
    "name": "lookup",
    "description": "Look up an order.",
    "inputSchema": {"type": "object", "properties": {"order": {"type": "string"}}},
    "outputSchema": {
        "type": "object",
        "properties": {"order": {"type": "string"}, "state": {"type": "string"}},
        "required": ["order", "state"],
    },
}
ORDER = {"order": "A-20261124-77", "state": "packed, leaves the warehouse on Thursday"}
TEXT = f"Order {ORDER['order']} is {ORDER['state']}. " + "Nothing else is known about it yet. " * 10
RESULTS = {
    "tools/list": {"tools": [TOOL], "ttlMs": 0, "cacheScope": "private"},
    "tools/call": {"content": [{"type": "text", "text": TEXT}], "structuredContent": ORDER},
    "server/discover": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}},
    # Older versions of MCP, which an alternative speaks, have this method.
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "stub", "version": "1"},
    },
    "ping": {},
}


class Stub(asyncio.Protocol):
    """Just enough HTTP/1.1 for known clients: complete requests over kept-alive connections."""

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            start = head.find(b"content-length:") + 15
            size = int(head[start:].partition(b"\r\n")[0]) if start > 14 else 0
            if len(self.received) < end + 4 + size:
                return
            body, self.received = (
                self.received[end + 4 : end + 4 + size],
                self.received[end + 4 + size :],
            )
            if not body:  # a request to open the stream of a session, or to end it
                self.transport.write(
                    b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n"
                )
                continue
            request = json.loads(body)
            if "id" not in request:
                self.transport.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
                continue
            result = {"resultType": "complete", **RESULTS[request["method"]]}
            answer = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                % (len(answer), answer)
            )


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Stub, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
