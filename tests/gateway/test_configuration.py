"""The gateway serves a directory completely or not at all, and reports all of its errors at
once."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gateway_site import ROOT, Site, make_site, pinned
from ringfence.gateway.audit.events import AuditEvent
from ringfence.gateway.audit.journald import Journal
from ringfence.gateway.calls import versions
from ringfence.gateway.calls.metrics import Metrics
from ringfence.gateway.calls.versions import Version
from ringfence.gateway.configuration.model import ConfigurationError
from ringfence.gateway.configuration.reader import load
from tests.gateway.scripted import TOOL

Change = Callable[[Site], None]


@pytest.fixture
def place(tmp_path: Path) -> Site:
    site = make_site(tmp_path, {"tools": 9})
    (tmp_path / "pins/tools.json").write_text(json.dumps(pinned("tools", [TOOL])))
    return site


def problems(site: Site) -> list[str]:
    site.write()
    try:
        load(site.directory)
    except ConfigurationError as error:
        return error.problems
    return []


def put(*path: str, value: Any) -> Change:
    def change(site: Site) -> None:
        at = site.document
        for name in path[:-1]:
            at = at[name]
        at[path[-1]] = value

    return change


def write(name: str, content: str, mode: int = 0o600) -> Change:
    def change(site: Site) -> None:
        (site.directory / name).write_text(content)
        (site.directory / name).chmod(mode)

    return change


def mode(name: str, bits: int) -> Change:
    return lambda site: (site.directory / name).chmod(bits)


def twice(site: Site) -> None:
    """Add a second server whose tools have the same names as the first one's."""
    site.document["servers"]["more"] = site.document["servers"]["tools"]
    (site.directory / "pins/more.json").write_text(json.dumps(pinned("more", [TOOL])))


def test_a_good_one_is_loaded(place: Site):
    assert problems(place) == []
    configuration = load(place.directory)
    assert configuration.servers["tools"].pins.names == {"echo"}
    assert configuration.digest == load(place.directory).digest


TOOLS = ("servers", "tools", "tools")
BAD = {
    "unknown key": (put("surprise", value=1), "gateway.json: (whole)", "surprise"),
    "wrong type": (put("limits", "depth", value="deep"), "limits.depth", "integer"),
    "role nobody defined": (
        put("principals", "carol", "roles", value=["admin"]),
        "principals.carol.roles",
        "define it",
    ),
    "owner who is no person": (
        put("principals", "carol", "owner", value="robot"),
        "principals.carol.owner",
        "not a person",
    ),
    "tool nobody has": (
        put("roles", "user", "tools", value={"tools": ["shell"]}),
        "roles.user.tools.tools",
        "'shell'",
    ),
    "server nobody has": (
        put("roles", "user", "tools", value={"other": []}),
        "roles.user.tools.other",
        "no such server",
    ),
    "plain HTTP": (put("servers", "tools", "url", value="http://10.0.0.1/mcp"), "url", "https://"),
    "nobody approves": (
        put(*TOOLS, "echo", value={"data_class": "public", "sensitive": True}),
        "servers.tools.tools.echo",
        "name approvers",
    ),
    "an approver nobody knows": (
        put(*TOOLS, "delete_everything", "approvers", value=["eve"]),
        "delete_everything.approvers",
        "not a person",
    ),
    "a responder nobody knows": (put("responders", value=["eve"]), "responders", "not a person"),
    "an agent as responder": (
        lambda site: site.document.update(responders=["robot"]),
        "responders",
        "not a person or service",
    ),
    "unmasked outside of production": (
        put("inspection", "mask", value=False),
        "inspection.mask",
        "must be true",
    ),
    "HMAC": (
        lambda site: site.document["tokens"]["issuers"][0].update(algorithms=["HS256"]),
        "algorithms",
        "HS256",
    ),
    "no issuer's keys": (
        lambda site: site.document["tokens"]["issuers"][0].update(jwks_file=None),
        "tokens.issuers[0]",
        "jwks_file or jwks_url",
    ),
    "keys that are none": (write("jwks.json", '{"keys": []}', 0o644), "jwks_file", "jwks.json"),
    "missing keys": (lambda s: (s.directory / "jwks.json").unlink(), "jwks_file", "cannot be read"),
    "bad Cedar": (write("policies/extra.cedar", "permit (", 0o644), "policies/extra.cedar", ""),
    "Cedar outside of the schema": (
        write(
            "policies/extra.cedar",
            '@id("x") permit (principal, action, resource) when { principal.shoe_size > 3 };',
            0o644,
        ),
        "policies/extra.cedar",
        "shoe_size",
    ),
    "no policy": (
        lambda s: (s.directory / "policies/roles.cedar").unlink(),
        "policies",
        "no *.cedar",
    ),
    "pins of another server": (
        write("pins/tools.json", '{"version": 1, "server": "git", "tools": {}}'),
        "pins/tools.json",
        "approve again",
    ),
    "pins that are no JSON": (write("pins/tools.json", "{"), "pins/tools.json", "not JSON"),
    "open masking key": (mode("masking.key", 0o644), "inspection.key_file", "chmod o-rwx"),
    "short masking key": (write("masking.key", "short"), "inspection.key_file", "32"),
    "open host key": (mode("host.key", 0o604), "upstream.key_file", "chmod o-rwx"),
    "another host's key": (
        lambda s: (s.directory / "host.key").write_bytes((s.directory / "ca.key").read_bytes()),
        "upstream.key_file",
        "does not belong",
    ),
    "policy anybody may write": (mode("policies/roles.cedar", 0o666), "roles.cedar", "chmod o-w"),
    "no directory for grants": (
        put("grants", "directory", value="/nowhere"),
        "grants.directory",
        "create it",
    ),
    "no authority": (write("ca.crt", "nothing", 0o644), "authority_file", "ca.crt"),
}


@pytest.mark.parametrize(("change", "where", "what"), BAD.values(), ids=BAD)
def test_a_bad_one_is_refused_and_says_where(place: Site, change: Change, where: str, what: str):
    change(place)
    found = problems(place)
    assert any(where in problem and what in problem for problem in found), found
    assert all(problem.startswith(str(place.directory)) for problem in found), found


def test_all_problems_are_said_at_once(place: Site):
    for name in ("plain HTTP", "nobody approves", "unmasked outside of production"):
        BAD[name][0](place)
    for name in ("bad Cedar", "pins that are no JSON", "open masking key", "keys that are none"):
        BAD[name][0](place)
    assert len(problems(place)) >= 7


def test_a_key_of_gateway_json_that_is_there_twice(place: Site):
    place.write()
    path = place.directory / "gateway.json"
    path.write_text(path.read_text().replace('"stage"', '"stage": "production", "stage"', 1))
    with pytest.raises(ConfigurationError, match="'stage' appears twice"):
        load(place.directory)


def test_two_servers_with_a_tool_of_one_name_offer_it_neither(place: Site):
    twice(place)
    assert problems(place) == []
    for server in load(place.directory).servers.values():
        judged = server.pins.judge([TOOL])
        assert [each.reason for each in judged.withheld] == ["duplicate_across_servers"]


def test_a_credential_is_needed_in_the_service_and_not_for_a_check(
    place: Site, monkeypatch: pytest.MonkeyPatch
):
    put("inspection", "key_file", value="credential:mask")(place)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert problems(place) == []
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(place.directory))
    assert any("cannot be read" in problem for problem in problems(place))
    (place.directory / "masking.key").rename(place.directory / "mask")
    assert problems(place) == []


def check(site: Site) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ringfence.gateway", "check", site.directory],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=30,
    )


def test_check_says_one_problem_a_line(place: Site):
    place.write()
    assert check(place).returncode == 0
    BAD["plain HTTP"][0](place)
    BAD["pins of another server"][0](place)
    place.write()
    checked = check(place)
    assert checked.returncode == 2
    assert len(checked.stderr.splitlines()) == 2
    assert "Traceback" not in checked.stderr


def test_a_reload_begins_with_the_journal_and_leaves_it(
    place: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    event = AuditEvent("r-1", time.time(), 0.1, "allowed", 200, "allowed")

    async def run(journald: socket.socket) -> list[bool]:
        heard: list[bool] = []
        served: Version | None = None
        for journal in (False, True, False):
            place.document["audit"]["journal"] = journal
            place.write()
            before = served
            served = await Version.start(load(place.directory), Metrics(), "1", before)
            if before is not None:
                await before.leave()
            served.stores.audit.write(event)
            try:
                heard.append(b"RINGFENCE_REQUEST_ID=r-1" in journald.recv(65536))
            except BlockingIOError:
                heard.append(False)
        assert served is not None
        await served.close()
        return heard

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(tmp_path / "journal"))
        journald.setblocking(False)
        monkeypatch.setattr(versions, "Journal", lambda: Journal(tmp_path / "journal"))
        assert asyncio.run(run(journald)) == [False, True, False]
