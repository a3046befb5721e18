"""What the gateway costs a call, with every control on, beside the same call made directly.

One gateway process on one core in front of a stub; the client and the stub share the other core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop
from scratch import ROOT, report

sys.path.insert(0, str(ROOT))

from tests.gateway.conftest import (
    Site,
    definitions,
    free_port,
    make_site,
    mcp,
    mcp_headers,
    pinned,
    wait_for,
)

SERVER = "tools"
ONE_BY_ONE = 3000
AT_ONCE = 16
TOGETHER = 20_000
CALL = {"name": "lookup", "arguments": {"order": "A-20261124-77"}}


def request(host: str, headers: dict[str, str]) -> bytes:
    body = json.dumps(mcp("tools/call", CALL)).encode()
    sent = {"host": host, "content-length": str(len(body))} | headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    return f"POST /{SERVER}/mcp HTTP/1.1\r\n{lines}\r\n".encode() + body


class Client:
    """Sends one request again and again over one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, message: bytes) -> None:
        self._writer.write(message)
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await self._reader.readexactly(size)


async def latencies(open_connection: Any, message: bytes, count: int) -> list[float]:
    """Seconds of each call, one after the other."""
    client = Client(*await open_connection())
    for _ in range(200):
        await client.ask(message)
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        await client.ask(message)
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)


async def together(open_connection: Any, message: bytes, count: int) -> float:
    """Calls a second, from several connections at once."""
    clients = [Client(*await open_connection()) for _ in range(AT_ONCE)]

    async def work(client: Client) -> None:
        for _ in range(count // AT_ONCE):
            await client.ask(message)

    started = time.perf_counter()
    await asyncio.gather(*map(work, clients))
    return count / (time.perf_counter() - started)


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
    through = request("gateway.test", headers | site.headers("carol"))

    async def to_stub() -> Any:
        return await asyncio.open_connection("127.0.0.1", port)

    async def to_gateway() -> Any:
        return await asyncio.open_unix_connection(str(site.socket))

    baseline = await latencies(to_stub, direct, ONE_BY_ONE)
    added = await latencies(to_gateway, through, ONE_BY_ONE)
    before, memory = processor_seconds(pid), resident_mib(pid)
    rate = await together(to_gateway, through, calls)
    busy = processor_seconds(pid) - before
    direct_rate = await together(to_stub, direct, calls)
    return {
        "added_p50_ms": 1000 * (statistics.median(added) - statistics.median(baseline)),
        "added_p99_ms": 1000 * (percentile(added, 0.99) - percentile(baseline, 0.99)),
        "calls_per_second": rate,
        "processor_ms_per_call": 1000 * busy / calls,
        "calls_per_second_and_core": calls / busy,
        "memory_mib_before": memory,
        "memory_mib_after": resident_mib(pid),
        "calls": calls,
        "alternative": "the same calls straight to the stub",
        "alternative_p50_ms": 1000 * statistics.median(baseline),
        "alternative_calls_per_second": direct_rate,
        "ratio": statistics.median(added) / statistics.median(baseline),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=TOGETHER)
    calls = parser.parse_args().calls
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
            report("gateway", uvloop.run(measured(site, port, calls)))
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
