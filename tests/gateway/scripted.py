"""Server behind the gateway that behaves as a test scripts it, and records what it receives."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

TOOL: dict[str, Any] = {
    "name": "echo",
    "description": "Say it again.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
}
Received = tuple[dict[str, str], dict[str, Any]]
Answer = Callable[["Handler", dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    tools: ClassVar[list[dict[str, Any]]]
    listed_besides: ClassVar[dict[str, Any]]
    received: ClassVar[list[Received]]
    answer: ClassVar[Answer | None]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        document = json.loads(body)
        self.received.append(({k.lower(): v for k, v in self.headers.items()}, document))
        if document["method"] == "tools/list":
            listed = {"tools": self.tools, "ttlMs": 0, "cacheScope": "public"}
            self.result(document, {**listed, **self.listed_besides})
        elif (answer := type(self).__dict__["answer"]) is not None:
            answer(self, document)
        else:
            self.result(document, {"content": [{"type": "text", "text": "said"}]})

    def do_GET(self) -> None:
        """Refuse to stream or end a session: this server supports neither."""
        self.received.append(({k.lower(): v for k, v in self.headers.items()}, {}))
        self.raw(b"", "text/plain", 405)

    def do_DELETE(self) -> None:
        self.do_GET()

    def result(self, document: dict[str, Any], result: dict[str, Any]) -> None:
        full = {"resultType": "complete", **result}
        self.json({"jsonrpc": "2.0", "id": document["id"], "result": full})

    def json(self, message: Any, status: int = 200) -> None:
        self.raw(json.dumps(message).encode(), "application/json", status)

    def raw(self, body: bytes, media_type: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(body)))
        self.send_header("set-cookie", "upstream=1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def scripted() -> Iterator[tuple[int, type[Handler]]]:
    class Own(Handler):
        tools: ClassVar = [dict(TOOL)]
        listed_besides: ClassVar = {}
        received: ClassVar = []
        answer: ClassVar = None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_port, Own
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
