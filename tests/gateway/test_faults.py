"""Faults around a gateway: callers always get an answer, and the gateway never guesses."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from benchmarks.gateway_site import (
    Site,
    free_port,
    make_site,
    mcp,
    mcp_headers,
    pinned,
    wait_for,
)
from ringfence.gateway.audit.verification import verify_all
from tests.gateway.scripted import TOOL, Handler, scripted

Stage = tuple[Site, type[Handler]]


def made(directory: Path, port: int) -> Site:
    site = make_site(directory, {"tools": port})
    site.document["servers"]["tools"]["timeout_seconds"] = 2
    (directory / "pins/tools.json").write_text(json.dumps(pinned("tools", [TOOL])))
    return site


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with scripted() as (port, server):
        site = made(tmp_path, port)
        try:
            site.start()
            yield site, server
        finally:
            site.stop()


def refusal(answer: httpx2.Response) -> tuple[int, int, Any]:
    document = answer.json()
    return answer.status_code, document["error"]["code"], document["id"]


def calls(server: type[Handler]) -> int:
    return sum(document["method"] == "tools/call" for _, document in server.received)


def last(site: Site) -> dict[str, Any]:
    return [event for event in site.events() if event["class_uid"] == 6003][-1]


def stream(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.send_header("connection", "close")
    handler.end_headers()


def progress(number: int, token: str = "p") -> bytes:  # noqa: S107
    params = {"progressToken": token, "progress": number}
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
    return f"data: {json.dumps(note)}\n\n".encode()


STREAMED = mcp("tools/call", {"name": "echo", "arguments": {}, "_meta": {"progressToken": "p"}})


def messages(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines]


class TestUpstream:
    def test_dead(self, stage: Stage):
        """A server that has gone: 503 with a time to retry; no call waits."""
        site, _ = stage
        site.document["servers"]["tools"]["url"] = f"http://127.0.0.1:{free_port()}/mcp"
        site.write()
        site.process_reloads()
        started = time.monotonic()
        answer = site.call("echo")
        assert refusal(answer) == (503, -32006, 1)
        assert int(answer.headers["retry-after"]) >= 1
        assert time.monotonic() - started < 2

    @pytest.mark.parametrize("after", ["nothing", "the head", "half of the body"])
    def test_silent(self, stage: Stage, after: str):
        site, server = stage
        done = threading.Event()

        def answer(handler: Handler, _: Any) -> None:
            if after != "nothing":
                handler.send_response(200)
                handler.send_header("content-type", "application/json")
                handler.send_header("content-length", "1000")
                handler.end_headers()
            if after == "half of the body":
                handler.wfile.write(b'{"jsonrpc": "2.0",')
            handler.wfile.flush()
            done.wait(10)

        server.answer = answer
        started = time.monotonic()
        try:
            assert refusal(site.call("echo")) == (503, -32006, 1)
        finally:
            done.set()
        assert time.monotonic() - started < 5
        assert last(site)["status_detail"] == "upstream_timeout"
        assert calls(server) == 1

    @pytest.mark.parametrize("when", ["before the head", "in the body"])
    def test_resetting(self, stage: Stage, when: str):
        """The gateway never retries: the server may have processed a call that it did not
        answer."""
        site, server = stage

        def answer(handler: Handler, _: Any) -> None:
            if when == "in the body":
                handler.send_response(200)
                handler.send_header("content-type", "application/json")
                handler.send_header("content-length", "1000")
                handler.end_headers()
                handler.wfile.write(b"{")
            abort(handler)

        server.answer = answer
        assert refusal(site.call("echo")) == (502, -32006, 1)
        assert calls(server) == 1

    def test_resetting_in_a_stream(self, stage: Stage):
        site, server = stage

        def answer(handler: Handler, _: Any) -> None:
            stream(handler)
            handler.wfile.write(progress(1))
            handler.wfile.flush()
            time.sleep(0.2)
            abort(handler)

        server.answer = answer
        answer_ = site.post(STREAMED)
        told = messages(answer_.text)
        assert [each.get("method") for each in told] == ["notifications/progress", None]
        assert (told[-1]["id"], told[-1]["error"]["code"]) == (1, -32006)
        assert last(site)["status_detail"] == "upstream_reset"

    def test_ending_a_stream_without_an_answer(self, stage: Stage):
        site, server = stage

        def answer(handler: Handler, _: Any) -> None:
            stream(handler)
            handler.wfile.write(progress(1) + b"data: {half an event")
            handler.close_connection = True

        server.answer = answer
        assert messages(site.post(STREAMED).text)[-1]["error"]["code"] == -32006

    def test_silent_in_a_stream(self, stage: Stage):
        site, server = stage
        done = threading.Event()

        def answer(handler: Handler, _: Any) -> None:
            stream(handler)
            handler.wfile.write(progress(1))
            handler.wfile.flush()
            done.wait(10)

        server.answer = answer
        try:
            told = messages(site.post(STREAMED).text)
        finally:
            done.set()
        assert told[-1]["error"]["code"] == -32006
        assert last(site)["status_detail"] == "upstream_timeout"

    @pytest.mark.parametrize(
        "answer",
        [
            lambda h, d: h.raw(b"<html>", "text/html"),
            lambda h, d: h.raw(b"not json", "application/json"),
            lambda h, d: h.raw(b"", "application/json", 500),
            lambda h, d: h.raw(b"{}", "application/json", 302),
            lambda h, d: h.raw(b"[" * 5000, "application/json"),
            lambda h, d: h.json({"jsonrpc": "2.0", "id": 1}),
            lambda h, d: h.raw(b"data: [1]\n\n", "text/event-stream"),
            lambda h, d: h.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
            lambda h, d: h.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"),
        ],
        ids=["html", "text", "500", "302", "deep", "empty", "stream", "ssh", "length"],
    )
    def test_talking_nonsense(self, stage: Stage, answer: Callable[[Handler, Any], None]):
        site, server = stage

        def and_close(handler: Handler, document: Any) -> None:
            answer(handler, document)
            handler.close_connection = True

        server.answer = and_close
        said = site.call("echo")
        error = messages(said.text)[-1] if "event-stream" in said.headers["content-type"] else None
        assert (error or said.json())["error"]["code"] == -32006, said.text
        assert said.status_code == (200 if error else 502)
        server.answer = None
        assert site.call("echo").status_code == 200

    @pytest.mark.parametrize("declared", [True, False])
    def test_too_large(self, stage: Stage, declared: bool):
        site, server = stage

        def answer(handler: Handler, document: dict[str, Any]) -> None:
            big = {"content": [{"type": "text", "text": "x" * (9 << 20)}]}
            body = json.dumps({"jsonrpc": "2.0", "id": document["id"], "result": big}).encode()
            with contextlib.suppress(OSError):
                if declared:
                    handler.raw(body, "application/json")
                else:
                    handler.send_response(200)
                    handler.send_header("content-type", "application/json")
                    handler.send_header("connection", "close")
                    handler.end_headers()
                    handler.wfile.write(body)
            handler.close_connection = True

        server.answer = answer
        assert refusal(site.call("echo")) == (502, -32006, 1)

    def test_failing_again_and_again_is_left_alone(self, stage: Stage):
        site, server = stage
        server.answer = lambda handler, _: abort(handler)
        statuses = [site.call("echo").status_code for _ in range(8)]
        assert statuses == [502] * 5 + [503] * 3
        assert calls(server) == 5
        assert 'upstream{server="tools",state="open"} 1.0' in site.ask_admin("/metrics").text

    def test_another_callers_progress_is_dropped(self, stage: Stage):
        site, server = stage

        def answer(handler: Handler, document: dict[str, Any]) -> None:
            result = {"jsonrpc": "2.0", "id": document["id"], "result": {"content": []}}
            stream(handler)
            handler.wfile.write(progress(1, "another") + progress(2))
            handler.wfile.write(f"data: {json.dumps(result)}\n\n".encode())
            handler.close_connection = True

        server.answer = answer
        told = messages(site.post(STREAMED).text)
        assert [each.get("params", {}).get("progress") for each in told] == [2, None]


def abort(handler: Handler) -> None:
    """Reset the connection at once."""
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


HOSTILE = "jane.doe@example.org " * 180_000
"""3.6 MiB of text that takes seconds to search."""


class TestHostileData:
    @pytest.mark.parametrize("where", ["result", "stream", "arguments"])
    def test_others_are_answered_while_it_is_searched(self, stage: Stage, where: str):
        site, server = stage
        if where == "arguments":
            site.document["limits"]["body_bytes"] = 8 << 20
            site.write()
            site.process_reloads()
        ended: list[str] = []

        def answer(handler: Handler, document: dict[str, Any]) -> None:
            large = document["params"]["arguments"].get("text") == "large"
            text = HOSTILE if large else "said"
            result = {"resultType": "complete", "content": [{"type": "text", "text": text}]}
            message = {"jsonrpc": "2.0", "id": document["id"], "result": result}
            if where == "stream":
                stream(handler)
                handler.wfile.write(f"data: {json.dumps(message)}\n\n".encode())
            else:
                handler.json(message)

        server.answer = answer
        asked = HOSTILE if where == "arguments" else "large"

        def slow() -> httpx2.Response:
            answered = site.call("echo", {"text": asked}, timeout=60)
            ended.append("slow")
            return answered

        with ThreadPoolExecutor() as pool:
            first = pool.submit(slow)
            # The worker process exists, so the search has begun.
            wait_for(lambda: bool(workers(site)))
            for _ in range(5):
                assert site.call("echo", {"text": "small"}).status_code == 200
                ended.append("small")
            answered = first.result()
        assert ended == [*["small"] * 5, "slow"]
        assert "jane.doe" not in answered.text

    def test_what_cannot_be_searched_in_time_is_refused(self, stage: Stage):
        site, server = stage
        large = {"content": [{"type": "text", "text": "x" * 100_000}]}
        server.answer = lambda handler, document: handler.result(document, large)
        assert site.call("echo").status_code == 200
        (worker,) = workers(site)
        os.kill(worker, signal.SIGSTOP)
        assert refusal(site.call("echo", timeout=60)) == (403, -32007, 1)
        assert last(site)["status_detail"] == "inspection_timeout"
        assert site.call("echo").status_code == 200
        assert workers(site) != [worker]

    @pytest.mark.parametrize("unit", ["4111 1111 1111 1111 ", "a@b.co ", "\uff14", "[[[["])
    def test_a_small_limit_holds(self, stage: Stage, unit: str):
        """The gateway bounds a server's answers before it parses them."""
        site, server = stage
        site.document["limits"]["result_bytes"] = limit = 4096
        site.write()
        site.process_reloads()

        def sent(text: str) -> bytes:
            result = {"resultType": "complete", "content": [{"type": "text", "text": text}]}
            message = {"jsonrpc": "2.0", "id": 1, "result": result}
            return json.dumps(message, ensure_ascii=False).encode()

        around, each = len(sent("")), len(unit.encode())
        fitting = sent(unit * ((limit - around) // each))
        for body in (fitting, sent(unit * ((limit - around) // each + 1))):
            server.answer = lambda handler, _, body=body: handler.raw(body, "application/json")
            answered = site.call("echo")
            if body is fitting:
                assert answered.status_code == 200, answered.text
                assert "4111 1111" not in answered.text
                assert "a@b.co" not in answered.text
            else:
                assert refusal(answered) == (502, -32006, 1)
                assert last(site)["status_detail"] == "result_too_large"


def workers(site: Site) -> list[int]:
    """Return the processes of the gateway's inspection worker."""
    assert site.process is not None
    children = Path(f"/proc/{site.process.pid}/task/{site.process.pid}/children").read_text()
    return [int(each) for each in children.split()]


HOUR = 3600


class TestClock:
    """The host's clock is set while the gateway runs."""

    @pytest.fixture
    def stage(self, tmp_path: Path) -> Iterator[Stage]:
        with scripted() as (port, server):
            site = made(tmp_path, port)
            site.with_a_clock()
            try:
                site.start()
                yield site, server
            finally:
                site.stop()

    def test_ahead_and_back_again(self, stage: Stage):
        site, _ = stage
        headers = site.headers("carol")
        assert site.call("echo", headers=headers).status_code == 200
        site.set_clock(HOUR)
        assert site.call("echo", headers=headers).status_code == 401
        assert last(site)["status_detail"] == "token_expired"
        site.set_clock(0)
        assert site.call("echo", headers=headers).status_code == 200

    def test_back_it_does_not_revive_a_token(self, stage: Stage):
        site, _ = stage
        now = int(time.time())
        headers = site.headers("carol", iat=now, exp=now + 1)
        assert site.call("echo", headers=headers).status_code == 200
        skew = site.document["tokens"]["skew_seconds"]
        wait_for(lambda: time.time() >= now + 1 + skew, skew + 2)
        assert site.call("echo", headers=headers).status_code == 401
        site.set_clock(-HOUR)
        assert site.call("echo", headers=headers).status_code == 401
        assert last(site)["status_detail"] == "token_expired"
        # The same after the configuration is loaded again.
        site.process_reloads()
        assert site.call("echo", headers=headers).status_code == 401

    @pytest.mark.parametrize("jump", [HOUR, -HOUR])
    def test_it_gives_nobody_more_calls(self, stage: Stage, jump: int):
        site, _ = stage
        site.document["servers"]["tools"]["calls_per_minute"] = 1
        site.document["tokens"]["skew_seconds"] = 120
        site.write()
        site.process_reloads()
        assert site.call("echo").status_code == 200
        assert site.call("echo").status_code == 429
        site.set_clock(jump)
        now = int(time.time()) + jump
        issued = site.headers("carol", iat=now, exp=now + 600)
        answer = site.call("echo", headers=issued)
        assert answer.status_code == (429 if jump > 0 else 401)
        site.set_clock(0)
        assert site.call("echo").status_code == 429

    def test_ahead_it_ends_no_revocation(self, stage: Stage):
        site, _ = stage
        entry = {"kind": "principal", "value": "carol", "until": int(time.time()) + HOUR}
        path = Path(site.document["grants"]["directory"]).with_name("revoked.json")
        path.write_text(json.dumps({"revoked": [entry]}))
        assert site.call("echo").status_code == 401
        site.set_clock(2 * HOUR)
        now = int(time.time()) + 2 * HOUR
        ahead = site.headers("carol", iat=now, exp=now + 600)
        assert site.call("echo", headers=ahead).status_code == 401
        assert last(site)["status_detail"] == "token_revoked"
        path.write_text(json.dumps({"revoked": []}))
        assert site.call("echo", headers=ahead).status_code == 200

    def test_the_log_stays_in_order(self, stage: Stage):
        site, _ = stage
        for offset in (0, HOUR, -HOUR, 0):
            site.set_clock(offset)
            site.call("echo")
        site.stop()
        (report,) = verify_all(sorted((site.directory / "audit").glob("*.jsonl")))
        assert report.ok


class TestClients:
    def test_a_body_of_100_mb(self, stage: Stage):
        """The gateway refuses it because of its declared length, and neither reads nor stores
        it."""
        site, _ = stage
        before = resident_mib(site)
        with connected(site) as client:
            client.sendall(head(site, b"content-length: 104857600"))
            assert client.recv(100).startswith(b"HTTP/1.1 413 ")
            assert closes(client)
        with connected(site) as client, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(head(site, b"transfer-encoding: chunked"))
            for _ in range(1600):
                client.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        assert resident_mib(site) - before < 20
        assert site.call("echo").status_code == 200

    def test_a_body_that_never_ends(self, stage: Stage):
        """Slowloris: a client that sends a byte now and then is disconnected after ten seconds at
        most."""
        site, _ = stage
        with connected(site) as client:
            client.sendall(head(site, b"content-length: 1000"))
            started = time.monotonic()
            client.setblocking(False)
            answer = b""
            while not answer and time.monotonic() - started < 15:
                with contextlib.suppress(OSError):
                    client.send(b" ")
                with contextlib.suppress(BlockingIOError):
                    answer = client.recv(100)
                time.sleep(0.25)
        assert answer.startswith(b"HTTP/1.1 408 "), answer
        assert 9 < time.monotonic() - started < 12

    @pytest.mark.parametrize("streamed", [False, True])
    def test_who_leaves_takes_the_call_along(self, stage: Stage, streamed: bool):
        """A disconnect cancels the request (MCP 2026-07-28): the gateway closes its connection to
        the server."""
        site, server = stage
        asked, cut = threading.Event(), threading.Event()

        def answer(handler: Handler, _: Any) -> None:
            if streamed:
                stream(handler)
                handler.wfile.write(progress(1))
                handler.wfile.flush()
            asked.set()
            handler.connection.settimeout(5)
            with contextlib.suppress(TimeoutError):
                if handler.connection.recv(1) == b"":
                    cut.set()
            handler.close_connection = True

        server.answer = answer
        with connected(site) as client:
            client.sendall(request(site, STREAMED))
            assert asked.wait(5)
            if streamed:
                assert client.recv(10)
        # Less than the server's time-out, which would end the connection anyway.
        assert cut.wait(1)
        wait_for(lambda: last(site)["status_detail"] == "client_gone", 5)
        server.answer = None
        assert site.call("echo").status_code == 200

    def test_who_does_not_read_holds_little(self, stage: Stage):
        site, server = stage
        sent: list[int] = []

        def answer(handler: Handler, _: Any) -> None:
            stream(handler)
            handler.connection.settimeout(1)
            with contextlib.suppress(OSError):
                for number in range(400_000):
                    handler.wfile.write(progress(number))
                    sent.append(number)
            handler.close_connection = True

        server.answer = answer
        before = resident_mib(site)
        with connected(site) as client:
            client.sendall(request(site, STREAMED))
            wait_for(lambda: sent != [] and not time.sleep(1.5), 10)
            assert resident_mib(site) - before < 30
            assert len(sent) < 400_000


class TestProcess:
    def test_a_bad_configuration_leaves_the_old_one(self, stage: Stage):
        """The role switches a link; calls pass all the time."""
        site, _ = stage
        good = site.document["limits"]["depth"]
        for bad in ({"depth": 100000}, {"depth": "x"}):
            site.document["limits"] |= bad
            site.write()
            site.process_reloads()
            assert site.call("echo").status_code == 200
        (site.directory / "policies/roles.cedar").write_text("permit (")
        site.document["limits"]["depth"] = good
        site.write()
        site.process_reloads()
        assert site.call("echo").status_code == 200
        text = site.ask_admin("/metrics").text
        assert 'ringfence_gateway_reloads_total{result="refused"} 3.0' in text
        errors = (site.directory / "stderr").read_text()
        assert errors.count("the old one keeps serving") >= 3
        assert "Traceback" not in errors

    def test_a_new_configuration_counts_for_the_next_call(self, stage: Stage):
        site, server = stage
        held, go = threading.Event(), threading.Event()

        def answer(handler: Handler, document: dict[str, Any]) -> None:
            held.set()
            go.wait(2)
            handler.result(document, {"content": []})

        server.answer = answer
        with ThreadPoolExecutor(1) as pool:
            before = pool.submit(site.call, "echo")
            assert held.wait(5)
            site.document["principals"]["carol"]["roles"] = []
            site.write()
            site.process_reloads()
            denied = site.call("echo")
            go.set()
            assert before.result(10).status_code == 200
        assert denied.status_code == 403

    def test_it_ends_after_what_is_under_way(self, stage: Stage):
        site, server = stage
        held = threading.Event()

        def answer(handler: Handler, document: dict[str, Any]) -> None:
            held.set()
            time.sleep(1)
            handler.result(document, {"content": []})

        server.answer = answer
        assert site.process is not None
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(site.call, "echo")
            assert held.wait(5)
            site.process.send_signal(signal.SIGTERM)
            wait_for(lambda: refuses_connections(site), 5)
            assert under_way.result(10).status_code == 200
        assert site.process.wait(10) == 0
        assert all(report.ok for report in verify_all(logs(site)))
        assert site.events()[-1]["unmapped"].get("end") is True

    def test_killed_under_load(self, stage: Stage):
        """Callers see a broken connection; no call runs twice; the log records the calls that
        began."""
        site, server = stage
        seen: list[Any] = []
        stop = threading.Event()

        def answer(handler: Handler, document: dict[str, Any]) -> None:
            seen.append(document["params"]["arguments"]["text"])
            handler.result(document, {"content": []})

        def call(worker: int) -> dict[str, int | None]:
            ended: dict[str, int | None] = {}
            for number in range(10_000):
                if stop.is_set():
                    break
                text = f"{worker}/{number}"
                try:
                    ended[text] = site.call("echo", {"text": text}).status_code
                except httpx2.TransportError:
                    ended[text] = None
                    time.sleep(0.05)
            return ended

        server.answer = answer
        site.person("carol")  # once, before four threads need her certificate
        assert site.process is not None
        with ThreadPoolExecutor(4) as pool:
            workers = [pool.submit(call, number) for number in range(4)]
            try:
                for _ in range(2):
                    time.sleep(1)
                    site.process.send_signal(signal.SIGKILL)
                    site.process.wait(5)
                    site.start()
                time.sleep(0.5)
            finally:
                stop.set()
            ended = {text: status for each in workers for text, status in each.result(20).items()}
        assert len(seen) == len(set(seen)), "a call was made twice"
        assert set(ended.values()) == {200, None}
        answered = {text for text, status in ended.items() if status == 200}
        assert answered <= set(seen)
        reports = verify_all(logs(site))
        assert all(report.ok for report in reports), reports
        begun = [e for e in site.events() if e.get("status_detail") == "forwarded"]
        assert len(begun) >= len(seen)

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system of its own, as root")
    def test_no_room_for_the_log(self, tmp_path: Path):
        """The gateway refuses a call that it cannot log, and serves again when there is space."""
        full = tmp_path / "small"
        full.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(full)], capture_output=True
        )
        if mounted.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
        try:
            with scripted() as (port, server):
                site = made(tmp_path, port)
                (full / "log").mkdir(mode=0o750)
                site.document["audit"]["directory"] = str(full / "log")
                try:
                    site.start()
                    assert site.call("echo").status_code == 200
                    fill(full / "ballast")
                    # The reserved space is used up first.
                    statuses = list(until_refused(site))
                    assert set(statuses) == {200, 503}
                    made_before = calls(server)
                    assert refusal(site.call("echo")) == (503, -32006, 1)
                    assert calls(server) == made_before
                    (full / "ballast").unlink()
                    wait_for(lambda: site.call("echo").status_code == 200, 5)
                    assert all(report.ok for report in verify_all(logs(site)))
                finally:
                    site.stop()
        finally:
            subprocess.run(["umount", "-l", str(full)], check=True)
            shutil.rmtree(full, ignore_errors=True)


# Functions for the tests above


def until_refused(site: Site, most: int = 20_000) -> Iterator[int]:
    """Yield the statuses of calls over one connection, up to the first that is not 200."""
    document = mcp("tools/call", {"name": "echo", "arguments": {}})
    headers = mcp_headers(document) | site.headers("carol")
    with site.client(timeout=10, headers=headers) as client:
        for _ in range(most):
            status = client.post("/tools/mcp", json=document).status_code
            yield status
            if status != 200:
                return


def fill(path: Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(file, b"x" * 4096)
    os.close(file)


def logs(site: Site) -> list[Path]:
    return sorted(Path(site.document["audit"]["directory"]).glob("*.jsonl"))


def resident_mib(site: Site) -> float:
    assert site.process is not None
    return int(Path(f"/proc/{site.process.pid}/statm").read_text().split()[1]) * 4096 / 2**20


def refuses_connections(site: Site) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(site.socket)) != 0


def request(site: Site, document: dict[str, Any]) -> bytes:
    body = json.dumps(document).encode()
    return head(site, b"content-length: %d" % len(body), document) + body


def head(site: Site, length: bytes, document: dict[str, Any] | None = None) -> bytes:
    headers = mcp_headers(document or STREAMED) | site.headers("carol") | {"host": "gateway.test"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return b"POST /tools/mcp HTTP/1.1\r\n" + lines.encode() + length + b"\r\n\r\n"


@contextlib.contextmanager
def connected(site: Site) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(15)
        client.connect(str(site.socket))
        yield client


def closes(client: socket.socket) -> bool:
    """Return whether the peer closes the connection after its remaining data."""
    with contextlib.suppress(ConnectionResetError):
        while client.recv(65536):
            pass
    return True
