"""Cost of the gateway per call, with every control on, beside the same call made directly.

One gateway process on one core in front of a stub; the client and the stub share the other core.
The alternatives on the same core, each in a virtual environment of its own (`gateway-NAME.txt`):
FastMCP's proxy with a verifier of tokens and scopes, and ContextForge with the tool registered;
neither has the other controls.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop
from gateway_site import (
    ISSUER,
    RESOURCE,
    Site,
    definitions,
    free_port,
    make_site,
    mcp,
    mcp_headers,
    pinned,
    wait_for,
)
from scratch import ROOT, report

SERVER = "tools"
ONE_BY_ONE = 3000
AT_ONCE = 16
TOGETHER = 20_000
WITH_ONE_TOKEN = 100_000
"""Number of calls. Even at a quarter of the usual rate they end before the token expires."""
OF_ALTERNATIVE = 40
"""Number of calls to an alternative, where each takes a tenth of a second."""
ARGUMENTS = {"order": "A-20261124-77"}
CALL = {"name": "lookup", "arguments": ARGUMENTS}
OLDER = "2025-11-25"
ALTERNATIVES = {
    "fastmcp": "FastMCP create_proxy, JWTVerifier and AuthMiddleware",
    "contextforge": "ContextForge, one tool of one server, calls of 2025-11-25",
}


def request(
    host: str,
    headers: Mapping[str, str],
    *,
    path: str = f"/{SERVER}/mcp",
    document: Mapping[str, Any] | None = None,
) -> bytes:
    body = json.dumps(document or mcp("tools/call", CALL)).encode()
    sent = {"host": host, "content-length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


class Client:
    """Sends the same request repeatedly over one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, message: bytes) -> None:
        self._writer.write(message)
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await self._reader.readexactly(size)


async def latencies(
    open_connection: Any, message: bytes, count: int, *, warm: int = 200
) -> list[float]:
    """Return the seconds of each call, made one after the other."""
    client = Client(*await open_connection())
    for _ in range(warm):
        await client.ask(message)
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        await client.ask(message)
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)


async def together(open_connection: Any, message: bytes, count: int) -> float:
    """Return the seconds that `count` calls take over several concurrent connections."""
    clients = [Client(*await open_connection()) for _ in range(AT_ONCE)]

    async def work(client: Client) -> None:
        for _ in range(count // AT_ONCE):
            await client.ask(message)

    started = time.perf_counter()
    await asyncio.gather(*map(work, clients))
    return time.perf_counter() - started


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def percentile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


def prepared(directory: Path, port: int) -> Site:
    site = make_site(directory, {SERVER: port})
    tool = {"data_class": "internal", "sensitive": False}
    site.document["servers"][SERVER] |= {"tools": {"lookup": tool}, "concurrency": 64}
    site.document["servers"][SERVER]["calls_per_minute"] = 10**9
    site.document["limits"]["principal_calls_per_minute"] = 10**9
    site.document["roles"]["user"]["tools"] = {SERVER: ["lookup"]}
    approved = pinned(SERVER, definitions(port))
    (directory / f"pins/{SERVER}.json").write_text(json.dumps(approved))
    return site


async def measured(site: Site, port: int, calls: int) -> dict[str, Any]:
    assert site.process is not None
    pid = site.process.pid
    headers = mcp_headers(mcp("tools/call", CALL))
    direct = request("127.0.0.1", headers)

    def through() -> bytes:
        return request("gateway.test", headers | site.headers("carol"))

    async def to_gateway() -> Any:
        return await asyncio.open_unix_connection(str(site.socket))

    baseline = await latencies(to(port), direct, ONE_BY_ONE)
    added = await latencies(to_gateway, through(), ONE_BY_ONE)
    before, memory = processor_seconds(pid), resident_mib(pid)
    parts = [min(WITH_ONE_TOKEN, calls - done) for done in range(0, calls, WITH_ONE_TOKEN)]
    seconds = sum([await together(to_gateway, through(), part) for part in parts])
    busy = processor_seconds(pid) - before
    direct_seconds = await together(to(port), direct, TOGETHER)
    return {
        "added_p50_ms": 1000 * (statistics.median(added) - statistics.median(baseline)),
        "added_p99_ms": 1000 * (percentile(added, 0.99) - percentile(baseline, 0.99)),
        "calls_per_second": calls / seconds,
        "processor_ms_per_call": 1000 * busy / calls,
        "calls_per_second_and_core": calls / busy,
        "memory_mib_before": memory,
        "memory_mib_after": resident_mib(pid),
        "calls": calls,
        "direct_p50_ms": 1000 * statistics.median(baseline),
        "direct_calls_per_second": TOGETHER / direct_seconds,
        "load_average": os.getloadavg()[0],
    }


async def compared(
    site: Site, name: str, port: int, told: Mapping[str, Any], ours: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the figures of an alternative; `told` has its path, tool and headers."""
    document = mcp("tools/call", {"name": told["tool"], "arguments": ARGUMENTS})
    headers = mcp_headers(document) | site.headers("carol") | told.get("headers", {})
    if "headers" in told:  # a gateway with its own tokens and an older version of MCP
        del document["params"]["_meta"]
        headers["mcp-protocol-version"] = OLDER
    message = request("127.0.0.1", headers, path=told["path"], document=document)
    seconds = await latencies(to(port), message, OF_ALTERNATIVE, warm=10)
    p50, count = 1000 * statistics.median(seconds) - ours["direct_p50_ms"], 4 * OF_ALTERNATIVE
    return {
        name: ALTERNATIVES[name],
        f"{name}_added_p50_ms": p50,
        f"{name}_calls_per_second": count / await together(to(port), message, count),
        f"{name}_ratio": ours["added_p50_ms"] / p50,
    }


def to(port: int) -> Callable[[], Any]:
    return lambda: asyncio.open_connection("127.0.0.1", port)


def environment(name: str) -> Path:
    """Return the alternative's Python, installed once per lock. Raises `CalledProcessError`."""
    lock = ROOT / f"benchmarks/gateway-{name}.txt"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    place = cache / f"ringfence/{name}-{digest}"
    if not (place / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        install = ["-q", "--disable-pip-version-check", "--no-deps", "--require-hashes", "-r", lock]
        subprocess.run([place / "bin/pip", "install", *install], check=True)
        (place / "complete").touch()
    return place / "bin/python"


@contextmanager
def alternative(site: Site, name: str, upstream: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run it; yield its port and how to call it. Raises `CalledProcessError`."""
    python, port = environment(name), free_port()
    told = site.directory / f"{name}.told"
    facts = {
        "upstream": f"http://127.0.0.1:{upstream}/mcp",
        "port": port,
        "key": site.key.as_pem(private=False).decode(),
        "issuer": ISSUER,
        "audience": f"{RESOURCE}/{SERVER}/mcp",
        "scope": f"mcp:{SERVER}",
        "told": str(told),
    }
    path = site.directory / f"{name}.json"
    path.write_text(json.dumps(facts))
    with (site.directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [python, ROOT / f"benchmarks/gateway_{name}.py", path], stdout=log, stderr=log
        )
    os.sched_setaffinity(process.pid, {min(range(os.cpu_count() or 1))})
    try:
        wait_for(lambda: told.exists() and _listens(port), 120)
        yield port, json.loads(told.read_text())
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=TOGETHER)
    parser.add_argument("--alone", action="store_true", help="without the alternatives")
    options = parser.parse_args()
    calls, alone = options.calls, options.alone
    port = free_port()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    stub = subprocess.Popen([sys.executable, ROOT / "benchmarks/gateway_stub.py", str(port)])
    with TemporaryDirectory(prefix="ringfence-bench-") as directory:
        site = None
        try:
            wait_for(lambda: _answers(port))
            site = prepared(Path(directory), port)
            site.start()
            assert site.process is not None
            os.sched_setaffinity(site.process.pid, {min(range(os.cpu_count() or 1))})
            figures = uvloop.run(measured(site, port, calls))
            for name in () if alone else ALTERNATIVES:
                try:
                    with alternative(site, name, port) as (at, told):
                        figures |= uvloop.run(compared(site, name, at, told, figures))
                except (subprocess.CalledProcessError, OSError) as error:
                    figures[name] = f"could not be installed ({error})"
            report("gateway", figures)
        finally:
            if site is not None:
                site.stop()
            stub.terminate()
            stub.wait(10)


def _answers(port: int) -> bool:
    try:
        return bool(definitions(port))
    except Exception:
        return False


if __name__ == "__main__":
    main()
