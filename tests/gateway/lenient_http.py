"""Server that accepts what HTTP forbids, in one of several ways that real servers show.

Request smuggling needs two servers that differ: the one in front reads one request, and the one
behind it reads two (RFC 9112, sections 6.3 and 11.2).
"""

from __future__ import annotations

import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...


Length = Callable[[bytes, Stream], None]
"""Function that reads the body of a request after its head."""


def values(head: bytes, name: bytes) -> list[bytes]:
    """Parse as lenient parsers do: bare LF, spaces before the colon, folded lines, control
    bytes."""
    unfolded = re.sub(rb"\r?\n[ \t]+", b" ", head)
    found = re.findall(rb"(?im)^" + name + rb"[ \t]*:(.*?)\r?$", unfolded)
    return [value.strip(b" \t\x0b\x0c\r") for value in found]


def number(value: bytes) -> int:
    return int(value.split(b",")[-1].strip(b" +"), 16 if b"0x" in value else 10)


def by_first_length(head: bytes, stream: Stream) -> None:
    lengths = values(head, b"content-length")
    stream.read(number(lengths[0].split(b",")[0]) if lengths else 0)


def by_last_length(head: bytes, stream: Stream) -> None:
    lengths = values(head, b"content-length")
    stream.read(number(lengths[-1]) if lengths else 0)


def by_strict_length(head: bytes, stream: Stream) -> None:
    """Treat a length that is not a number as no length."""
    lengths = values(head, b"content-length")
    stream.read(int(lengths[-1]) if lengths and lengths[-1].isdigit() else 0)


def by_chunks(head: bytes, stream: Stream) -> None:
    """Read chunks if any Transfer-Encoding contains "chunked"; otherwise read by length."""
    if not any(b"chunked" in value.lower() for value in values(head, b"transfer-encoding")):
        by_first_length(head, stream)
        return
    while size := int(stream.readline().split(b";")[0].strip() or b"0", 16):
        stream.read(size)
        stream.readline()
    while stream.readline().strip():
        pass


def by_chunks_to_crlf(head: bytes, stream: Stream) -> None:
    """Read chunks; an extension of a chunk may contain a bare LF."""
    while size := int(line_to_crlf(stream).split(b";")[0], 16):
        stream.read(size)
        line_to_crlf(stream)
    while line_to_crlf(stream):
        pass


def by_nothing(head: bytes, stream: Stream) -> None:
    """Read nothing, as a server does that expects no body in a POST (0.CL)."""


def line_to_crlf(stream: Stream) -> bytes:
    line = b""
    while not line.endswith(b"\r\n"):
        more = stream.readline()
        if not more:
            break
        line += more
    return line.removesuffix(b"\r\n")


@contextmanager
def lenient(read_body: Length) -> Iterator[tuple[int, list[str]]]:
    """Yield the server's port, and the paths of the requests that it received."""
    paths: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        timeout = 2

        def handle(self) -> None:
            while line := self.rfile.readline():
                parts = line.split()
                if len(parts) != 3:
                    break
                head = b""
                while (line := self.rfile.readline()).strip():
                    head += line
                paths.append(parts[1].decode("latin-1"))
                read_body(head, self.rfile)
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1], paths
        finally:
            server.shutdown()
            thread.join(5)
