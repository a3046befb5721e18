"""`ringfence token revoke`, with gateways that store real revocations but have no sockets."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ringfence.cli import main
from ringfence.gateway.jose.signed_documents import Roster
from ringfence.gateway.refusals import Refusal
from ringfence.gateway.tokens.revocations import Revocations
from ringfence.identity import pki
from ringfence.identity.pki import Identity
from ringfence.manifest.model import Environment
from ringfence.operator import signer, transport

LAB = Path(__file__).parents[2] / "inventories/lab/environment.yaml"
REASON = "its key was on a laptop that is gone"


@dataclass
class Edge:
    revocations: Revocations
    facts: Roster
    fails: Exception | None = None
    answers: Any = None
    received: list[str] = field(default_factory=list)

    def handle(self, request: httpx2.Request, visitor: str) -> httpx2.Response:
        if self.fails:
            raise self.fails
        now = time.time()
        if request.method == "GET":
            listed = self.answers or self.revocations.listing(self.facts, visitor, now)
            return httpx2.Response(200, json={"revocations": listed})
        try:
            change, new = self.revocations.accept(request.content, self.facts, now)
        except Refusal as refusal:
            error = {"code": refusal.code, "message": refusal.message}
            return httpx2.Response(refusal.status, json={"error": error})
        self.received.append(change.kind)
        return httpx2.Response(201, json={"new": new})

    def cut_off(self, principal: str, token_id: str | None = None, certificate: str = "") -> bool:
        return self.revocations.revoked(principal, token_id, [certificate], time.time())


@dataclass
class World:
    environment: Environment
    edges: list[Edge]
    capture: pytest.CaptureFixture[str]

    def run(self, step: str, *arguments: str) -> tuple[int, str, str]:
        try:
            path = str(self.environment.path)
            status = main(["token", step, *arguments, "--environment", path])
        except SystemExit as exit:
            status = int(str(exit.code))
        out, err = self.capture.readouterr()
        return status, out, err

    def revoke(self, *subject: str, who: str = "dana") -> tuple[int, str, str]:
        return self.run("revoke", *subject, "--as", who, "--reason", REASON)


@pytest.fixture
def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> World:
    lab = Environment.load(shutil.copy(LAB, tmp_path / "environment.yaml"))
    edge = lab.hosts["edge-1"]
    second = replace(edge, name="edge-2", address=IPv4Address("10.213.50.12"))
    environment = replace(lab, hosts={**lab.hosts, "edge-2": second})
    monkeypatch.setattr(Environment, "load", lambda _: environment)
    facts = signer.roster_of(environment, pki.authority_of(environment).bundle.encode())
    edges = [Edge(Revocations(tmp_path / f"revoked-{n}.json"), facts) for n in (1, 2)]

    def http_client(identity: Identity) -> httpx2.AsyncClient:
        def handle(request: httpx2.Request) -> httpx2.Response:
            assert request.url.path == "/revocations"
            number = int(request.url.host.rpartition(".")[2]) - 11
            return edges[number].handle(request, identity.certificate.stem)

        return httpx2.AsyncClient(transport=httpx2.MockTransport(handle))

    monkeypatch.setattr(transport, "http_client", http_client)
    return World(environment, edges, capsys)


def certificate_of(world: World, name: str) -> Path:
    principal = world.environment.principals[name]
    return pki.principal_identity(world.environment, principal).certificate


def test_a_principal_is_cut_off_at_every_gateway_and_let_in_again(world: World):
    status, out, err = world.revoke("--principal", "carol")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "edge-1  has stored it",
        "edge-2  has stored it",
        f"revoked until it is restored: principal carol  {REASON}",
    ]
    assert [edge.cut_off("carol") for edge in world.edges] == [True, True]
    assert [edge.cut_off("dana") for edge in world.edges] == [False, False]
    status, out, _ = world.run("revocations", "--as", "dana")
    assert (status, out) == (
        0,
        f"principal carol  until it is restored  by dana  {REASON}\n",
    )
    arguments = ("--principal", "carol", "--as", "dana", "--reason", "the laptop was found")
    assert world.run("restore", *arguments)[0] == 0
    assert [edge.cut_off("carol") for edge in world.edges] == [False, False]
    assert world.run("revocations", "--as", "dana")[1] == "nothing is revoked\n"


def test_a_token_is_cut_off_for_as_long_as_it_can_live(world: World):
    before = time.time()
    assert world.revoke("--token", "t-1")[0] == 0
    assert world.edges[0].cut_off("carol", "t-1")
    assert not world.edges[0].cut_off("carol", "t-2")
    (entry,) = world.edges[0].revocations.listing(world.edges[0].facts, "dana", before)
    assert 19 * 60 - 2 <= entry["until"] - before <= 19 * 60 + 5


@pytest.mark.parametrize("form", ["file", "thumbprint", "as the log has it"])
def test_a_certificate_is_named_by_file_or_thumbprint(world: World, form: str):
    from ringfence.gateway.tokens.access_tokens import certificate_thumbprint

    path = certificate_of(world, "carol")
    pem = x509.load_pem_x509_certificates(path.read_bytes())[0]
    thumbprint = certificate_thumbprint(pem.public_bytes(serialization.Encoding.DER))
    given = {"file": str(path), "thumbprint": thumbprint}.get(form, f"x5t#S256:{thumbprint}")
    assert world.revoke("--certificate", given)[0] == 0
    assert world.edges[1].cut_off("carol", certificate=thumbprint)
    assert not world.edges[1].cut_off("carol", certificate="d" * 43)


def test_for_a_time(world: World):
    status, out, _ = world.revoke("--principal", "build-agent", "--for", "7d")
    assert status == 0
    assert "revoked until 2" in out


def test_a_gateway_that_is_away_is_named(world: World):
    world.edges[1].fails = httpx2.ConnectError("no route")
    status, out, err = world.revoke("--principal", "carol")
    assert status == 1
    assert "edge-1  has stored it" in out
    assert "edge-2  cannot be reached" in err
    assert "edge-1 has it; the others still allow it" in err
    world.edges[1].fails = None
    assert world.revoke("--principal", "carol")[0] == 0
    assert world.edges[1].cut_off("carol")


def test_where_gateways_differ_the_list_says_so(world: World):
    world.edges[1].fails = httpx2.ConnectError("no route")
    world.revoke("--principal", "carol")
    world.edges[1].fails = None
    assert "(on edge-1 only)" in world.run("revocations", "--as", "dana")[1]


@pytest.mark.parametrize(
    ("subject", "status", "says"),
    [
        (("--principal", "mallory"), 2, "names no principal 'mallory'"),
        (("--token", ".".join(["e" * 20] * 3)), 2, "this is a token itself"),
        (("--token", "two words"), 2, "visible characters"),
        (("--certificate", "nowhere.crt"), 2, "43 characters"),
        (("--principal", "carol", "--for", "soon"), 2, "such as 30m"),
        (("--principal", "carol", "--token", "t-1"), 2, "not allowed with"),
        ((), 2, "required"),
    ],
)
def test_an_invalid_revocation_reaches_no_gateway(
    world: World, subject: tuple[str, ...], status: int, says: str
):
    ended, out, err = world.revoke(*subject)
    assert (ended, out) == (status, "")
    assert says in err
    assert [edge.received for edge in world.edges] == [[], []]


def test_an_error_names_the_responders(world: World):
    status, _, err = world.revoke("--principal", "dana", who="carol")
    assert status == 1
    assert "responders: dana" in err
    assert world.edges[0].received == []
    assert world.revoke("--principal", "clock-agent", who="carol")[0] == 0, "her own agent"


def test_what_a_gateway_says_does_not_play_with_the_terminal(world: World):
    entry = {"kind": "principal", "value": "carol", "by": "\x1b[2J", "reason": "x\n", "until": "x"}
    world.edges[0].answers = [entry]
    _, out, _ = world.run("revocations", "--as", "dana")
    assert "\x1b" not in out
    assert out.count("\n") == 1


def test_a_token_is_issued_as_before(world: World, capsys: pytest.CaptureFixture[str]):
    path = str(world.environment.path)
    assert main(["token", "carol", "--server", "time", "--environment", path]) == 0
    assert capsys.readouterr().out.startswith("ey")
