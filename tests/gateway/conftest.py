"""Fixtures: a gateway in front of a server of the official SDK."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks.gateway_site import ROOT, Site, definitions, free_port, make_site, pinned, wait_for


@pytest.fixture(scope="session")
def upstream() -> Iterator[int]:
    """Return the port of the server behind the gateway."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, ROOT / "tests/gateway/upstream_server.py", str(port)]
    )

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(answers)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, upstream: int) -> Iterator[Site]:
    """Start a gateway in front of the SDK's server; all of the server's definitions are
    approved."""
    made = make_site(tmp_path_factory.mktemp("gateway"), {"tools": upstream})
    (made.directory / "pins/tools.json").write_text(
        json.dumps(pinned("tools", definitions(upstream)))
    )
    made.start()
    try:
        yield made
    finally:
        made.stop()
