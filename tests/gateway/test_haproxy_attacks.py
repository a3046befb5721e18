"""HAProxy protects the gateway from two attacks: request smuggling and slow callers.

Each smuggling attempt is first shown to work between two servers that parse leniently.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from benchmarks.gateway_site import make_site, mcp, pinned
from tests.gateway import haproxy
from tests.gateway.haproxy import Front, in_front_of
from tests.gateway.lenient_http import (
    Length,
    by_chunks,
    by_chunks_to_crlf,
    by_first_length,
    by_last_length,
    by_nothing,
    by_strict_length,
    lenient,
)
from tests.gateway.scripted import TOOL, Handler, scripted

pytestmark = haproxy.required

ECHO = mcp("tools/call", {"name": "echo", "arguments": {"text": "x"}})
SMUGGLED = b"POST /smuggled HTTP/1.1\r\nhost: gateway.test\r\ncontent-length: 0\r\n\r\n"
Stage = tuple[Front, type[Handler]]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with scripted() as (upstream, server):
        site = make_site(tmp_path_factory.mktemp("front"), {"tools": upstream})
        (site.directory / "pins/tools.json").write_text(json.dumps(pinned("tools", [TOOL])))
        site.start()
        try:
            with in_front_of(site) as front:
                yield front, server
        finally:
            site.stop()


@dataclass(frozen=True)
class Attempt:
    """A smuggling attempt: `lines` of a head before `body`; `%d` and `%x` stand for the length of
    `body`."""

    lines: tuple[str, ...]
    body: bytes
    front: Length
    """Length for a server that reads one request."""
    back: Length
    """Length for a server that reads two."""

    def sent(self, start: bytes) -> bytes:
        size = len(self.body)
        lines = [line.replace("%d", str(size)).replace("%x", f"{size:x}") for line in self.lines]
        return start + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + self.body


AFTER_CHUNKS = b"0\r\n\r\n" + SMUGGLED
IN_A_CHUNK = b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n0\r\n\r\n"
CHUNKED_SAYS = "transfer-encoding: chunked"


def te(*lines: str) -> Attempt:
    """Build an attempt: `lines` mean chunked to a lenient server, and nothing to one that uses the
    length."""
    return Attempt(("content-length: %d", *lines), AFTER_CHUNKS, by_first_length, by_chunks)


ATTEMPTS = {
    "CL.TE": te(CHUNKED_SAYS),
    "TE.CL": Attempt((CHUNKED_SAYS, "content-length: 4"), IN_A_CHUNK, by_chunks, by_first_length),
    "TE.TE misspelt": te("transfer-encoding: xchunked"),
    "TE.TE in a list": te("transfer-encoding: chunked, identity"),
    "TE.TE in two lines": te("transfer-encoding: identity", CHUNKED_SAYS),
    "TE.TE space before the colon": te("transfer-encoding : chunked"),
    "TE.TE tab": te("transfer-encoding:\tchunked"),
    "TE.TE vertical tab": te("transfer-encoding: \x0bchunked"),
    "TE.TE folded line": te("transfer-encoding:\r\n chunked"),
    "TE.TE bare LF": te("x: y\ntransfer-encoding: chunked"),
    "TE.TE bare CR": te("x: y\rz: z\r\ntransfer-encoding: chunked\r"),
    "two lengths": Attempt(
        ("content-length: %d", "content-length: 5"), AFTER_CHUNKS, by_first_length, by_last_length
    ),
    "a list of lengths": Attempt(
        ("content-length: %d, 5",), AFTER_CHUNKS, by_first_length, by_last_length
    ),
    "signed length": Attempt(("content-length: +%d",), SMUGGLED, by_first_length, by_strict_length),
    "hexadecimal length": Attempt(
        ("content-length: 0x%x",), SMUGGLED, by_first_length, by_strict_length
    ),
    "length after a space": Attempt(
        ("content-length : %d",), SMUGGLED, by_first_length, by_nothing
    ),
    "a request as the body": Attempt(
        ("content-length: %d",), SMUGGLED, by_first_length, by_nothing
    ),
    "chunk extension": Attempt(
        (CHUNKED_SAYS,), b"0;\n\r\n" + SMUGGLED, by_chunks_to_crlf, by_chunks
    ),
}


def answers(address: tuple[str, int], sent: bytes) -> None:
    with socket.create_connection(address, 5) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while client.recv(65536):
                pass


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_no_request_is_smuggled_in_another(stage: Stage, attempt: Attempt):
    """HAProxy and the gateway agree on the end of a request, or HAProxy refuses it."""
    seen: list[list[str]] = []
    for reading in (attempt.front, attempt.back):
        with lenient(reading) as (port, paths):
            start = b"POST /tools/mcp HTTP/1.1\r\nhost: gateway.test\r\n"
            answers(("127.0.0.1", port), attempt.sent(start))
            seen.append(paths)
    assert seen == [["/tools/mcp"], ["/tools/mcp", "/smuggled"]], "it is no attack"

    front, server = stage
    server.received.clear()
    before = len(front.site.events())
    with (
        front.connected() as client,
        contextlib.suppress(ConnectionError, TimeoutError, ssl.SSLError),
    ):
        client.settimeout(7)
        client.sendall(attempt.sent(front.head(ECHO).removesuffix(b"\r\n")))
        while client.recv(65536):
            client.settimeout(0.5)
    reasons = [event.get("status_detail") for event in front.site.events()[before:]]
    assert "no_such_path" not in reasons, "the gateway took a body for a request"
    assert len(reasons) <= 1
    assert not [document for _, document in server.received if document["method"] == "tools/call"]


def test_what_follows_a_whole_request_is_one_of_its_own(stage: Stage):
    """Baseline of the test above: an openly sent second request is observed."""
    front, _ = stage
    body = json.dumps(ECHO).encode()
    before = len(front.site.events())
    with front.connected() as client:
        client.settimeout(6)
        client.sendall(front.head(ECHO, f"content-length: {len(body)}") + body + SMUGGLED)
        received = b""
        while received.count(b"HTTP/1.1 ") < 2:
            more = client.recv(65536)
            assert more, received
            received += more
    reasons = [event.get("status_detail") for event in front.site.events()[before:]]
    assert "no_such_path" in reasons


HEAD_SECONDS = 5
"""`timeout http-request`; for a body, `wait-for-body`, or the gateway's limit where it is
longer."""
LONG_BODY_SECONDS = 10
BUFFER = 20000
"""Bytes of a body, more than HAProxy buffers: it passes the rest on as it arrives."""


@dataclass
class Slow:
    """Connection that sends a byte now and then."""

    kind: str
    limit: float
    client: socket.socket
    begun: float
    ended: float | None = None
    answer: bytes = b""

    def trickle(self) -> None:
        with contextlib.suppress(OSError):
            self.client.send(b"a")
        try:
            if not select.select([self.client], [], [], 0)[0]:
                return
            self.answer = self.client.recv(4096)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            pass
        self.ended = time.monotonic()


def test_who_takes_their_time_is_given_up_and_holds_nobody_up(
    stage: Stage,
):
    """Slowloris, by headers, by a short body and by a long one, fifteen connections of each at
    once.

    The request ends with its answer. HAProxy 3.0 continues to read the rest of the body and drops
    it: the connection still counts towards the limit per address.
    """
    front, _ = stage
    start = front.head(ECHO).removesuffix(b"\r\n")
    kinds = {
        "headers": (HEAD_SECONDS, start + b"x: "),
        "body": (HEAD_SECONDS, front.head(ECHO, "content-length: 1000")),
        "long body": (
            LONG_BODY_SECONDS,
            front.head(ECHO, "content-length: 100000") + b" " * BUFFER,
        ),
    }
    with contextlib.ExitStack() as stack, lenient(by_first_length) as (port, _):
        plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
        plain.sendall(start + b"x: ")
        lenient_one = Slow("lenient", 0, plain, time.monotonic())
        slow: list[Slow] = []
        for kind, (limit, sent) in kinds.items():
            for _ in range(15):
                client = stack.enter_context(front.connected())
                client.sendall(sent)
                client.setblocking(False)
                slow.append(Slow(kind, limit, client, time.monotonic()))
        longest = 0.0
        kept = stack.enter_context(front.client())
        deadline = time.monotonic() + LONG_BODY_SECONDS + 5
        while time.monotonic() < deadline and not all(each.ended for each in slow):
            began = time.monotonic()
            assert front.post(ECHO, client=kept).status_code == 200
            longest = max(longest, time.monotonic() - began)
            for each in [*slow, lenient_one]:
                if each.ended is None:
                    each.trickle()
            time.sleep(0.2)
        assert lenient_one.ended is None, "a lenient server does not wait for ever either"
    assert longest < 2, "an honest caller had to wait"
    for each in slow:
        assert each.ended is not None, f"{each.kind}: still open"
        lasted = each.ended - each.begun
        assert each.limit - 1 < lasted < each.limit + 2, f"{each.kind}: {lasted:.1f} s"
        assert each.answer.startswith(b"HTTP/1.1 408 "), (each.kind, each.answer[:100])
