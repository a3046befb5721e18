import ast
import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import httpx2
import pytest

from ringfence.cli import main
from ringfence.gateway.refusals import REFUSALS, Refusal
from ringfence.manifest.model import Environment
from ringfence.operator import call, transport
from ringfence.operator.errors import InputError, OperationError

ROOT = Path(__file__).parents[2]
LAB = ROOT / "inventories/lab/environment.yaml"
DIRECT = Path(__file__).parent / "manifests/direct.yaml"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return Path(shutil.copy(DIRECT, tmp_path / "environment.yaml"))


def test_the_address_comes_from_the_manifest(manifest: Path):
    environment = Environment.load(manifest)
    server = environment.servers["time"]
    assert call.url_of(environment, server) == f"https://{server.host.address}:{server.port}/mcp"
    address = IPv6Address("fd00::1")
    alone = replace(server, host=replace(server.host, address=None, address6=address))
    assert call.url_of(environment, alone) == f"https://[fd00::1]:{server.port}/mcp"


def test_a_server_without_an_address_is_not_called(manifest: Path):
    environment = Environment.load(manifest)
    server = environment.servers["time"]
    nowhere = replace(server, host=replace(server.host, address=None, address6=None))
    with pytest.raises(InputError, match="provision it first"):
        call.url_of(environment, nowhere)


def test_a_gateway_stands_in_front_of_every_server():
    environment = Environment.load(LAB)
    assert environment.gateway
    address = environment.hosts["edge-1"].address
    for server in environment.servers.values():
        url = call.url_of(environment, server)
        assert url == f"https://{address}:{environment.gateway.port}/{server.name}/mcp"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nope", "tool"], "it has: time, git, sqlite"),
        (["time"], "with --list"),
        (["time", "tool", "{"], "are not JSON"),
        (["time", "tool", "[1]"], "must be a JSON object"),
    ],
    ids=["server", "tool", "JSON", "object"],
)
def test_wrong_usage_takes_one_line(
    manifest: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
):
    assert main(["call", "--environment", str(manifest), "--as", "carol", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_an_unknown_principal_is_reported(manifest: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["call", "--environment", str(manifest), "--as", "mallory", "time", "x"]) == 2
    assert "it has: carol" in capsys.readouterr().err


def test_a_server_that_does_not_run_is_reported(manifest: Path):
    environment = Environment.load(manifest)
    carol = environment.principals["carol"]
    server = environment.servers["time"]
    # Nothing listens on this port of loopback.
    nowhere = replace(server, host=replace(server.host, address=IPv4Address("127.0.0.2")), port=9)

    async def attempt() -> None:
        async with call.connect(environment, nowhere, carol):
            pass

    with pytest.raises(OperationError, match="cannot be reached"):
        asyncio.run(attempt())


NOBODY_IS_THERE = 499


def messages() -> Iterator[tuple[str, str]]:
    """Return all messages of the gateway's refusals: those of the table and those at call sites."""
    for reason, answer in REFUSALS.items():
        yield reason, answer.message
    for path in sorted((ROOT / "ringfence/gateway").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Refusal", "deny"):
                named = {each.arg: each.value for each in node.keywords}
                for message in (*node.args[1:2], *filter(None, [named.get("message")])):
                    words = [n.value for n in ast.walk(message) if isinstance(n, ast.Constant)]
                    text = "".join(word for word in words if isinstance(word, str))
                    yield f"{path.name}:{node.lineno}", text


def test_every_status_that_the_gateway_refuses_with_has_a_meaning():
    statuses = {answer.status for answer in REFUSALS.values()}
    statuses.add(Refusal.of_result("invalid_json").status)
    assert len(statuses) > 10
    assert statuses - {NOBODY_IS_THERE} <= transport.REFUSALS.keys()


def test_what_the_gateway_says_is_shown_as_it_is():
    found = list(messages())
    assert len(found) > len(REFUSALS) + 30, "the messages of call sites were not found"
    for place, message in found:
        assert message.isprintable(), f"{place}: {message!a} would be replaced by a text of ours"
        assert len(message) < transport.LONGEST_REFUSAL - 100, place


def answered(status: int, message: object) -> str | None:
    return transport.refusal(httpx2.Response(status, json={"error": {"message": message}}))


def test_a_refusal_has_the_words_of_the_gateway():
    assert answered(403, "ask for a role") == "ask for a role (HTTP 403)"
    assert answered(403, "\x1b[2Jgood") == f"{transport.REFUSALS[403]} (HTTP 403)"
    assert transport.refusal(httpx2.Response(502, text="<html>")) == (
        f"{transport.REFUSALS[502]} (HTTP 502)"
    )
    assert transport.refusal(httpx2.Response(418)) is None


def test_a_refused_token_comes_with_what_to_look_at():
    reason = answered(401, "the access token is not valid here, or not any more")
    assert reason is not None
    for each in ("revoked", "clocks", "playbook", "HTTP 401"):
        assert each in reason
