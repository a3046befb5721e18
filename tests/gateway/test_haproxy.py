"""Calls through the frontend that the role `tls` deploys: the real HAProxy with the real
templates."""

from __future__ import annotations

import contextlib
import json
import signal
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from benchmarks.gateway_site import MODERN, Site, definitions, make_site, mcp, pinned, wait_for
from tests.gateway import haproxy
from tests.gateway.haproxy import Front, in_front_of
from tests.gateway.scripted import TOOL, Handler, scripted

pytestmark = haproxy.required

ECHO = mcp("tools/call", {"name": "echo", "arguments": {"text": "x"}})
STREAMED = mcp("tools/call", {"name": "echo", "arguments": {}, "_meta": {"progressToken": "p"}})
Stage = tuple[Front, type[Handler]]


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with scripted() as (upstream, server):
        site = make_site(tmp_path_factory.mktemp("front"), {"tools": upstream})
        (site.directory / "pins/tools.json").write_text(json.dumps(pinned("tools", [TOOL])))
        site.start()
        try:
            with in_front_of(site) as front:
                yield front, server
        finally:
            site.stop()


@pytest.fixture
def stage(standing: Stage) -> Stage:
    standing[1].answer = None
    standing[1].received.clear()
    return standing


def calls(server: type[Handler]) -> list[dict[str, Any]]:
    return [document for _, document in server.received if document["method"] == "tools/call"]


def receive(client: ssl.SSLSocket, seconds: float = 10) -> bytes:
    """Return all bytes until the connection is closed."""
    client.settimeout(seconds)
    received = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while more := client.recv(65536):
            received += more
    return received


FRONTEND: dict[str, Any] = {
    "name": "time",
    "port": 4433,
    "ipv6": False,
    "sessions": True,
    "socket": "/run/mcp/time.sock",
    "callers": [{"principal": "carol", "subject": "CN=carol"}],
    "hosts": ["tools-1"],
}


@pytest.mark.parametrize("certificates", ["required", "optional"])
@pytest.mark.parametrize("forwarded", [False, True])
def test_what_the_role_writes_is_understood(stage: Stage, certificates: str, forwarded: bool):
    """This machine's release of HAProxy accepts the configuration without a warning."""
    gateway = haproxy.GATEWAY | {"port": 4434, "sockets": ["/a.sock", "/b.sock"]}
    directory = stage[0].site.directory / f"checked-{certificates}-{forwarded}"
    directory.mkdir()
    for name in ("ca.crt", "host.crt", "host.key"):
        (directory / name).symlink_to(stage[0].site.directory / name)
    checked = haproxy.check(
        haproxy.configured(
            directory,
            tls_frontends=[FRONTEND | {"forwarded": forwarded}],
            tls_gateway=gateway | {"client_certificates": certificates},
            __tls_host_names={"time": ["tools-1"]},
        )
    )
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


class TestIdentity:
    def test_a_call_comes_through_and_the_log_knows_from_where(self, stage: Stage):
        front, server = stage
        answer = front.post(ECHO)
        assert answer.status_code == 200, answer.text
        assert len(calls(server)) == 1
        event = front.site.events()[-1]
        assert event["src_endpoint"]["ip"] == "127.0.0.1"
        assert event["actor"]["user"]["credential_uid"].startswith("x5t#S256:")
        assert event["metadata"]["correlation_uid"] == answer.headers["x-request-id"]

    def test_a_stolen_token_is_of_no_use_with_another_certificate(self, stage: Stage):
        """The owner's certificate is public, but of no use in the header that HAProxy sets."""
        front, server = stage
        certificate = front.site.person("carol").header().popitem()[1]
        for name in (
            "x-ringfence-client-certificate",
            "X-RINGFENCE-Client-Certificate",
            "x_ringfence_client_certificate",
        ):
            answer = front.post(ECHO, who="mallory", headers={name: certificate})
            assert answer.status_code == 401, name
        assert front.post(ECHO, who="mallory").status_code == 401
        assert not calls(server)

    def test_a_certificate_that_is_only_told_is_none(self, stage: Stage):
        """Where connections need no certificate, HAProxy removes a client's own certificate
        headers."""
        front, server = stage
        person = front.site.person("carol")
        with in_front_of(front.site, client_certificates="optional") as open_to_all:
            told = {f"X-{name.title()[2:]}": value for name, value in person.header().items()}
            for headers in (person.header(), told):
                assert open_to_all.post(ECHO, who=None, headers=headers).status_code == 401
            assert open_to_all.post(ECHO).status_code == 200
        assert len(calls(server)) == 1

    def test_what_a_client_says_of_itself_is_not_heard(self, stage: Stage):
        front, server = stage
        told = {
            "X-Ringfence-Principal": "dana",
            "X-Ringfence-Request-Id": "of-the-client",
            "X-Ringfence-Client-Address": "10.0.0.1",
            "X-Ringfence-Anything": "else",
            "X-Forwarded-For": "10.0.0.1",
            "Forwarded": "for=10.0.0.1",
        }
        answer = front.post(ECHO, headers=told)
        assert answer.status_code == 200, answer.text
        headers = server.received[-1][0]
        assert headers["x-ringfence-principal"] == "carol"
        event = front.site.events()[-1]
        assert event["src_endpoint"]["ip"] == "127.0.0.1"
        assert event["metadata"]["correlation_uid"] == answer.headers["x-request-id"]
        seen = json.dumps([event, headers])
        assert not [value for value in told.values() if value in seen]

    def test_without_a_certificate_or_tls_13_there_is_no_answer(self, stage: Stage):
        front, _ = stage

        def answered(who: str | None, **limits: Any) -> bool:
            try:
                with front.connected(who, **limits) as client:
                    client.sendall(front.head(ECHO, "content-length: 0"))
                    return client.recv(1) != b""
            except (ssl.SSLError, ConnectionError):
                return False

        assert answered("carol")
        assert not answered(None)
        assert not answered("carol", maximum_version=ssl.TLSVersion.TLSv1_2)

    def test_nobody_speaks_http_2(self, stage: Stage):
        """HTTP/2 has other rules, and HAProxy would switch to it for any client that begins with
        it."""
        front, _ = stage
        with front.connected() as client:
            client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            assert receive(client).startswith(b"HTTP/1.1 400 ")


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory, upstream: int) -> Iterator[Front]:
    site = make_site(tmp_path_factory.mktemp("sdk"), {"tools": upstream})
    site.document["servers"]["tools"]["protocols"] = [MODERN, "2025-11-25"]
    pins = json.dumps(pinned("tools", definitions(upstream)))
    (site.directory / "pins/tools.json").write_text(pins)
    site.start()
    try:
        with in_front_of(site) as front:
            yield front
    finally:
        site.stop()


class TestOfficialClient:
    @pytest.mark.parametrize("mode", ["auto", "legacy"])
    def test_calls_and_hears_of_progress_meanwhile(self, official: Front, mode: Any):
        seen: list[float] = []

        async def named(request: httpx2.Request) -> None:
            request.headers["host"] = "gateway.test"
            request.extensions["sni_hostname"] = "edge-1.test"

        async def report(progress: float, total: float | None, message: str | None) -> None:
            seen.append(time.monotonic())

        async def run() -> None:
            with anyio.fail_after(30):
                async with (
                    httpx2.AsyncClient(
                        verify=official.context("carol"),
                        headers=official.authorized("carol"),
                        event_hooks={"request": [named]},
                        trust_env=False,
                        timeout=10,
                    ) as http,
                    Client(
                        streamable_http_client(official.url, http_client=http),
                        mode=mode,
                        cache=None,
                    ) as client,
                ):
                    assert {t.name for t in (await client.list_tools()).tools} >= {"add", "count"}
                    called = await client.call_tool("add", {"first": 2, "second": 40})
                    assert called.structured_content == {"total": 42}
                    await client.call_tool("count", {"to": 20}, progress_callback=report)

        anyio.run(run)
        assert len(seen) == 20
        assert seen[-1] - seen[0] > 0.1, "they came together at the end"


@pytest.mark.parametrize("streamed", [False, True])
def test_who_leaves_takes_the_call_along(stage: Stage, streamed: bool):
    """Closing the connection cancels a call (MCP 2026-07-28): the server sees its connection
    closed."""
    front, server = stage
    asked, cut = threading.Event(), threading.Event()

    def answer(handler: Handler, _: Any) -> None:
        if streamed:
            handler.send_response(200)
            handler.send_header("content-type", "text/event-stream")
            handler.end_headers()
            handler.wfile.write(b": on it\n\n")
            handler.wfile.flush()
        asked.set()
        handler.connection.settimeout(4)
        with contextlib.suppress(TimeoutError):
            if handler.connection.recv(1) == b"":
                cut.set()
        handler.close_connection = True

    server.answer = answer
    body = json.dumps(STREAMED).encode()
    with front.connected() as client:
        client.settimeout(5)
        client.sendall(front.head(STREAMED, f"content-length: {len(body)}") + body)
        assert asked.wait(5)
        if streamed:
            assert client.recv(100)
    assert cut.wait(2), "the server works on for nobody"
    wait_for(lambda: front.site.events()[-1]["status_detail"] == "client_gone", 5)


class TestBodies:
    """HAProxy refuses a body above the gateway's limit at once, and does not store it.

    HAProxy 2.6 then closes the connection; 3.0 reads the rest and drops it.
    """

    def test_100_mb_that_are_declared(self, stage: Stage):
        front, _ = stage
        events = len(front.site.events())
        with front.connected() as client:
            client.settimeout(2)
            client.sendall(front.head(ECHO, "content-length: 104857600"))
            assert client.recv(4096).startswith(b"HTTP/1.1 413 ")
        assert len(front.site.events()) == events, "it came through to the gateway"

    @pytest.mark.parametrize("verb", ["POST", "GET", "DELETE"])
    def test_100_mb_in_chunks(self, stage: Stage, verb: str):
        front, _ = stage
        events, before = len(front.site.events()), front.resident_mib()
        with front.connected() as client:
            client.settimeout(5)
            client.sendall(front.head(ECHO, "transfer-encoding: chunked", verb=verb))
            assert client.recv(4096).startswith(b"HTTP/1.1 400 ")
            with contextlib.suppress(OSError):
                for _ in range(1600):
                    client.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        assert len(front.site.events()) == events, "it came through to the gateway"
        assert front.resident_mib() - before < 20


def test_a_reload_loses_nothing(stage: Stage):
    """Calls in flight finish; open and new connections are answered during the reload."""
    front, server = stage
    entered, go_on = threading.Event(), threading.Event()

    def answer(handler: Handler, document: dict[str, Any]) -> None:
        if document["params"]["arguments"].get("text") == "wait":
            entered.set()
            go_on.wait(10)
        handler.result(document, {"content": []})

    server.answer = answer
    waiting = mcp("tools/call", {"name": "echo", "arguments": {"text": "wait"}})
    stop = threading.Event()

    def keep_calling(client: httpx2.Client | None) -> list[int]:
        statuses: list[int] = []
        while not stop.is_set():
            statuses.append(front.post(ECHO, client=client).status_code)
            time.sleep(0.02)
        return statuses

    body = json.dumps(ECHO).encode()

    def answered(idle: ssl.SSLSocket) -> bool:
        idle.settimeout(5)
        idle.sendall(front.head(ECHO, f"content-length: {len(body)}") + body)
        return idle.recv(65536).startswith(b"HTTP/1.1 200 ")

    with front.client() as kept, front.connected() as idle, ThreadPoolExecutor(3) as pool:
        assert answered(idle)
        in_flight = pool.submit(front.post, waiting)
        others = [pool.submit(keep_calling, client) for client in (kept, None)]
        try:
            assert entered.wait(5)
            front.reload()
            time.sleep(0.5)
            assert answered(idle)
        finally:
            stop.set()
            go_on.set()
        assert in_flight.result(10).status_code == 200
        for statuses in others:
            assert set(statuses.result(10)) == {200}


def served_by(site: Site) -> float:
    """Return the number of requests that a process has answered since it started."""
    lines = site.ask_admin("/metrics").text.splitlines()
    counted = [line for line in lines if line.startswith("ringfence_gateway_request_seconds_count")]
    return sum(float(line.rpartition(" ")[2]) for line in counted)


@dataclass(frozen=True)
class Outcome:
    text: str
    began: float
    told: int | str


class TestProcesses:
    CALLERS = tuple(f"caller-{number}" for number in range(6))

    @pytest.fixture
    def two(self, tmp_path: Path) -> Iterator[tuple[Front, list[Site], type[Handler]]]:
        with scripted() as (upstream, server):
            first = make_site(tmp_path, {"tools": upstream})
            first.document["principals"] |= {
                name: {
                    "kind": "person",
                    "owner": None,
                    "roles": ["user"],
                    "uri": f"urn:ringfence:test:principal:{name}",
                }
                for name in self.CALLERS
            }
            (tmp_path / "pins/tools.json").write_text(json.dumps(pinned("tools", [TOOL])))
            run = tmp_path / "run"
            second = replace(first, socket=run / "2.sock", admin=run / "admin-2.sock")
            sites = [first, second]
            try:
                for site in sites:
                    site.start()
                with in_front_of(first, [site.socket for site in sites]) as front:
                    yield front, sites, server
            finally:
                for site in sites:
                    site.stop()

    @pytest.mark.parametrize("who", ["carol", None], ids=["certificate", "address"])
    def test_a_caller_stays_with_one_of_them(
        self, two: tuple[Front, list[Site], type[Handler]], who: str | None
    ):
        """Limits apply per process: a caller that reached every process would have them twice."""
        front, sites, _ = two
        sockets = [site.socket for site in sites]
        before = [served_by(site) for site in sites]
        with in_front_of(front.site, sockets, client_certificates="optional") as open_to_all:
            for _ in range(12):
                with open_to_all.connected(who) as client:
                    client.sendall(open_to_all.head(ECHO, "content-length: 0"))
                    assert client.recv(12) == b"HTTP/1.1 400"
        served = [served_by(site) - was for site, was in zip(sites, before, strict=True)]
        assert sorted(served) == [0, 12]

    @pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "asked"])
    def test_one_that_ends_takes_along_what_it_had_and_no_more(
        self, two: tuple[Front, list[Site], type[Handler]], ended_by: signal.Signals
    ):
        """Under load: callers with a call in flight get an error, others notice nothing, no call
        runs twice.

        Half of the callers keep their connection. HAProxy signals the failure to those by closing
        the connection, as a dying server would, and to the others by 502. A process that is asked
        to stop finishes its calls first.
        """
        front, sites, server = two

        def answer(handler: Handler, document: dict[str, Any]) -> None:
            time.sleep(0.05)
            with contextlib.suppress(BrokenPipeError):
                handler.result(document, {"content": []})

        server.answer = answer
        stop = threading.Event()

        def keep_calling(number: int, who: str) -> list[Outcome]:
            seen: list[Outcome] = []
            with front.client(who) as kept:
                while not stop.is_set():
                    text = f"{who}/{len(seen)}"
                    call = mcp("tools/call", {"name": "echo", "arguments": {"text": text}})
                    began = time.monotonic()
                    client = kept if number % 2 else None
                    try:
                        told = front.post(call, who, token_of=who, client=client).status_code
                    except httpx2.RemoteProtocolError:
                        told = "closed"
                    seen.append(Outcome(text, began, told))
            return seen

        with ThreadPoolExecutor(len(self.CALLERS)) as pool:
            callers = [pool.submit(keep_calling, *each) for each in enumerate(self.CALLERS)]
            try:
                wait_for(lambda: all(served_by(site) > 10 for site in sites))
                process = sites[0].process
                assert process is not None
                process.send_signal(ended_by)
                process.wait(30)
                ended = time.monotonic()
                time.sleep(1)
                sites[0].start()
                wait_for(lambda: served_by(sites[0]) > 10, 10)
            finally:
                stop.set()
            seen = [each for caller in callers for each in caller.result(15)]
        executed = Counter(call["params"]["arguments"]["text"] for call in calls(server))
        assert set(executed.values()) == {1}, "a call was carried out twice"
        assert all(executed[each.text] for each in seen if each.told == 200)
        failed = [each for each in seen if each.told != 200]
        if ended_by == signal.SIGTERM:
            assert not failed
        else:
            assert len(failed) <= len(self.CALLERS)
            assert {each.told for each in failed} <= {502, "closed"}
            assert all(each.began <= ended for each in failed), "after it was gone"

    @pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
    def test_without_any_there_is_an_answer_at_once(
        self, two: tuple[Front, list[Site], type[Handler]], kept: bool
    ):
        """HAProxy does not send calls in flight again to the process that remains."""
        front, sites, server = two
        entered = threading.Event()

        def answer(handler: Handler, _: Any) -> None:
            entered.set()
            handler.connection.settimeout(4)
            with contextlib.suppress(OSError):
                handler.connection.recv(1)
            handler.close_connection = True

        with front.client() as client, ThreadPoolExecutor(1) as pool:
            if kept:
                assert front.post(ECHO, client=client).status_code == 200
            server.received.clear()
            server.answer = answer
            in_flight = pool.submit(front.post, ECHO, client=client)
            assert entered.wait(5)
            for site in sites:
                assert site.process is not None
                site.process.kill()
                site.process.wait(5)
            if kept:
                with pytest.raises(httpx2.RemoteProtocolError):
                    in_flight.result(5)
            else:
                assert in_flight.result(5).status_code == 502
        assert len(calls(server)) == 1
        started = time.monotonic()
        assert front.post(ECHO).status_code == 503
        assert time.monotonic() - started < 2
