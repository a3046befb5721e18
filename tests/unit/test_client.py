import asyncio
import shutil
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from ringfence import client
from ringfence.cli import main
from ringfence.environment import Environment

LAB = Path(__file__).parents[2] / "inventories/lab/environment.yaml"
DIRECT = Path(__file__).parent / "manifests/direct.yaml"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return Path(shutil.copy(DIRECT, tmp_path / "environment.yaml"))


def test_the_address_comes_from_the_manifest(manifest: Path):
    environment = Environment.load(manifest)
    server = environment.servers["time"]
    assert client.url_of(environment, server) == f"https://{server.host.address}:{server.port}/mcp"
    address = IPv6Address("fd00::1")
    alone = replace(server, host=replace(server.host, address=None, address6=address))
    assert client.url_of(environment, alone) == f"https://[fd00::1]:{server.port}/mcp"


def test_a_server_without_an_address_is_not_called(manifest: Path):
    environment = Environment.load(manifest)
    server = environment.servers["time"]
    nowhere = replace(server, host=replace(server.host, address=None, address6=None))
    with pytest.raises(client.CallError, match="provision it first"):
        client.url_of(environment, nowhere)


def test_a_gateway_stands_in_front_of_every_server():
    environment = Environment.load(LAB)
    assert environment.gateway
    address = environment.hosts["edge-1"].address
    for server in environment.servers.values():
        url = client.url_of(environment, server)
        assert url == f"https://{address}:{environment.gateway.port}/{server.name}/mcp"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nope", "tool"], "it has: time, git, sqlite"),
        (["time"], "use --list"),
        (["time", "tool", "{"], "are not JSON"),
        (["time", "tool", "[1]"], "must be a JSON object"),
    ],
    ids=["server", "tool", "JSON", "object"],
)
def test_wrong_usage_is_told_in_one_line(
    manifest: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
):
    assert main(["call", "--environment", str(manifest), "--as", "carol", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_an_unknown_principal_is_told(manifest: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["call", "--environment", str(manifest), "--as", "mallory", "time", "x"]) == 2
    assert "it has: carol" in capsys.readouterr().err


def test_a_server_that_does_not_run_is_told(manifest: Path):
    environment = Environment.load(manifest)
    carol = environment.principals["carol"]
    server = environment.servers["time"]
    # Nothing listens on this port of loopback.
    nowhere = replace(server, host=replace(server.host, address=IPv4Address("127.0.0.2")), port=9)

    async def attempt() -> None:
        async with client.connect(environment, nowhere, carol):
            pass

    with pytest.raises(client.CallError, match="cannot be reached"):
        asyncio.run(attempt())
