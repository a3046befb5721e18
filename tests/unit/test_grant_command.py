"""`ringfence grant`, with gateways that store real grants but have no sockets."""

from __future__ import annotations

import base64
import json
import shutil
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import httpx2
import pytest

from ringfence.cli import main
from ringfence.gateway.consent import documents
from ringfence.gateway.consent.store import Grants
from ringfence.gateway.jose import signed_documents
from ringfence.gateway.refusals import Refusal
from ringfence.identity import pki
from ringfence.identity.pki import Identity
from ringfence.manifest.model import Environment, Host, Principal
from ringfence.operator import grants, signer, transport
from ringfence.operator.signer import Signer

LAB = Path(__file__).parents[2] / "inventories" / "lab" / "environment.yaml"
REASON = "correct the addresses of ticket 4711"
ASK = ["request", "sqlite", "write_query", "--as", "carol", "--for", "30m", "--reason", REASON]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Return the lab with two gateways; its principals and its approver belong to the test."""
    lab = Environment.load(shutil.copy(LAB, tmp_path / "environment.yaml"))
    assert lab.gateway
    segment = lab.segments["clients"]
    edges = {
        "edge-1": {"address": IPv4Address("10.213.20.41")},
        "edge-2": {"address6": IPv6Address("fd0d:213:20::42")},
    }
    hosts = {n: h for n, h in lab.hosts.items() if "edge" not in h.groups}
    sqlite = lab.servers["sqlite"]
    tools = dict(sqlite.tools)
    for name in ("write_query", "create_table"):
        tools[name] = replace(tools[name], sensitive=True, approvers=("dana",))
    owner = ("database-owner",)
    return replace(
        lab,
        gateway=replace(lab.gateway, responders=("dana",)),
        hosts={
            **hosts,
            **{
                name: Host(name, segment, frozenset({"edge"}), lab.domain, 22, **address)
                for name, address in edges.items()
            },
        },
        servers={**lab.servers, "sqlite": replace(sqlite, tools=tools)},
        principals={
            "carol": Principal("carol", "person", owner),
            "dana": Principal("dana", "person", ()),
            "erin": Principal("erin", "person", owner),
            "db-agent": Principal("db-agent", "agent", owner, owner="carol"),
            "own-agent": Principal("own-agent", "agent", owner, owner="dana"),
        },
    )


@dataclass
class Edge:
    """A gateway: its store, and its present fault."""

    grants: Grants
    fails: Exception | None = None
    answers: httpx2.Response | None = None
    received: list[str] = field(default_factory=list)
    now: float = 0

    def handle(self, request: httpx2.Request, visitor: str) -> httpx2.Response:
        if self.fails:
            raise self.fails
        if self.answers:
            return self.answers
        now = self.now or grants.time.time()
        if request.method == "GET":
            listed = [entry.as_json() for entry in self.grants.listing(now, visitor)]
            return httpx2.Response(200, json={"grants": listed})
        assert request.headers["Content-Type"] == "application/jose"
        try:
            event = self.grants.accept(request.content, now)
        except Refusal as refusal:
            self.received.append(refusal.reason)
            error = {"code": refusal.code, "message": refusal.message}
            return httpx2.Response(refusal.status, json={"error": error})
        self.received.append(event.step)
        return httpx2.Response(201 if event.new else 200, json=event.as_json())


@dataclass
class World:
    environment: Environment
    edges: dict[str, Edge]
    capture: pytest.CaptureFixture[str]

    def run(self, *arguments: str) -> tuple[int, str, str]:
        try:
            status = main(["grant", *arguments, "--environment", str(self.environment.path)])
        except SystemExit as exit:
            status = int(str(exit.code))
        out, err = self.capture.readouterr()
        return status, out, err

    def ask(self, *arguments: str) -> str:
        """Request a grant, and return its id."""
        status, out, err = self.run(*(arguments or ASK))
        assert status == 0, err
        return out.partition("ringfence grant approve ")[2].split()[0]

    def live(self, who: str = "carol") -> dict[str, bool]:
        now = grants.time.time()
        return {
            name: edge.grants.live(who, "sqlite", "write_query", now) is not None
            for name, edge in self.edges.items()
        }


@pytest.fixture
def world(
    environment: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> World:
    monkeypatch.setattr(grants.Environment, "load", lambda _: environment)
    authority = pki.authority_of(environment).bundle.encode()
    facts = signer.roster_of(environment, authority)
    edges = {name: Edge(Grants(tmp_path / name, facts, 3600)) for name in ("edge-1", "edge-2")}
    addresses = {"10.213.20.41": "edge-1", "fd0d:213:20::42": "edge-2"}

    def http_client(identity: Identity) -> httpx2.AsyncClient:
        def handle(request: httpx2.Request) -> httpx2.Response:
            assert (request.url.scheme, request.url.path) == ("https", "/grants")
            return edges[addresses[request.url.host]].handle(request, identity.certificate.stem)

        return httpx2.AsyncClient(transport=httpx2.MockTransport(handle))

    monkeypatch.setattr(transport, "http_client", http_client)
    return World(environment, edges, capsys)


def test_a_request_an_approval_and_a_revocation_reach_every_gateway(world: World):
    status, out, err = world.run(*ASK)
    assert (status, err) == (0, "")
    first, second, summary, by, command = out.splitlines()
    assert (first, second) == ("edge-1  has stored it", "edge-2  has stored it")
    assert "carol  sqlite write_query  " in summary
    assert summary.endswith(f"UTC  {REASON}")
    assert by == "to be approved by dana:"
    assert set(world.live().values()) == {False}

    # The command that the output shows also works.
    verb, *arguments = command.split()[1:]
    assert verb == "grant"
    status, out, err = world.run(*arguments[:-2])
    assert (status, err) == (0, "")
    assert f"approved: {summary}" in out
    assert set(world.live().values()) == {True}

    status, out, err = world.run("revoke", arguments[1], "--as", "carol")
    assert (status, err) == (0, "")
    assert set(world.live().values()) == {False}


def test_the_list_shows_each_with_its_state(world: World):
    assert world.run("list", "--as", "dana") == (0, "there are no requests and no grants\n", "")
    pending, approved, revoked = (world.ask() for _ in range(3))
    world.run("approve", approved, "--as", "dana")
    world.run("revoke", revoked, "--as", "dana")
    for viewer in (["--as", "dana"], ["--as", "carol"], []):
        status, out, err = world.run("list", *viewer)
        assert (status, err) == (0, "")
        states = {line.split()[1]: line.split()[0] for line in out.splitlines()}
        assert states == {pending: "pending", approved: "approved", revoked: "revoked"}
    assert world.run("list", "--as", "erin")[1] == "there are no requests and no grants\n"


def test_the_list_says_where_gateways_differ(world: World):
    id = world.ask()
    world.edges["edge-2"].fails = httpx2.ConnectError("refused")
    world.run("approve", id, "--as", "dana")
    world.edges["edge-2"].fails = None
    status, out, _ = world.run("list", "--as", "dana")
    assert status == 0
    assert out.startswith(f"approved on edge-1, pending on edge-2 {id}")


def test_a_list_needs_somebody_to_look(world: World):
    status, _, err = world.run("list")
    assert status == 2
    assert "name one with --as" in err


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["nope", "write_query", "--as", "carol"], 2, "it has: time, git, sqlite"),
        (["sqlite", "nope", "--as", "carol"], 2, "write_query"),
        (["sqlite", "write_query", "--as", "mallory"], 2, "it has: carol, dana, erin"),
        (["sqlite", "read_query", "--as", "carol"], 1, "is not sensitive"),
        (["sqlite", "write_query", "--as", "dana"], 1, "no role of dana names sqlite write_query"),
        (["sqlite", "write_query", "--as", "own-agent"], 1, "nobody may approve this"),
    ],
    ids=["server", "tool", "principal", "not sensitive", "no role", "no approver"],
)
def test_a_useless_request_reaches_no_gateway(
    world: World, arguments: list[str], status: int, says: str
):
    got, out, err = world.run("request", *arguments, "--for", "30m", "--reason", REASON)
    assert (got, out) == (status, "")
    assert says in err
    assert err.count("\n") == 1
    assert not any(edge.received for edge in world.edges.values())


@pytest.mark.parametrize(
    ("seconds", "reason", "status", "says"),
    [
        ("30m", "short", 1, "reason must be one printable line"),
        ("30m", "two lines\nof reasons", 1, "reason must be one printable line"),
        ("30s", REASON, 1, "at least 60 seconds"),
        ("2h", REASON, 1, "edge-1  refuses: a grant lasts at most 3600 seconds"),
        ("soon", REASON, 2, "such as 30m"),
        ("-5m", REASON, 2, "argument"),
        ("1e9s", REASON, 2, "such as 30m"),
    ],
)
def test_reason_and_time_have_their_bounds(
    world: World, seconds: str, reason: str, status: int, says: str
):
    got, _, err = world.run(
        "request", "sqlite", "write_query", "--as", "carol", "--for", seconds, "--reason", reason
    )
    assert got == status
    assert says in err
    assert not any("requested" in edge.received for edge in world.edges.values())


@pytest.mark.parametrize(
    ("who", "says"),
    [
        ("carol", "nobody approves a request of their own; approvers: dana"),
        ("erin", "erin is neither its requester nor an approver"),
    ],
)
def test_an_error_names_the_approvers(world: World, who: str, says: str):
    id = world.ask()
    status, out, err = world.run("approve", id, "--as", who)
    assert (status, out) == (1, "")
    assert says in err
    assert err.count("\n") == 1
    assert set(world.live().values()) == {False}


def test_the_owner_of_an_agent_does_not_approve_for_it(world: World):
    ask = [*ASK]
    ask[ask.index("carol")] = "db-agent"
    id = world.ask(*ask)
    status, _, err = world.run("approve", id, "--as", "carol")
    assert status == 1
    assert "nobody approves for an agent of their own; approvers: dana" in err
    assert world.run("approve", id, "--as", "dana")[0] == 0
    assert set(world.live("db-agent").values()) == {True}


def test_what_is_over_is_not_approved(world: World, monkeypatch: pytest.MonkeyPatch):
    id = world.ask()
    later = grants.time.time() + 1801
    monkeypatch.setattr(grants.time, "time", lambda: later)
    status, _, err = world.run("approve", id, "--as", "dana")
    assert status == 1
    assert "the requested time is over" in err


def test_what_was_revoked_is_not_approved(world: World):
    id = world.ask()
    world.run("revoke", id, "--as", "dana")
    status, _, err = world.run("approve", id, "--as", "dana")
    assert status == 1
    assert "edge-1  refuses: the request is revoked already" in err
    assert "no gateway has it" in err


def test_only_who_is_concerned_revokes(world: World):
    id = world.ask()
    world.run("approve", id, "--as", "dana")
    status, _, err = world.run("revoke", id, "--as", "erin")
    assert status == 1
    assert "neither its requester nor an approver" in err
    assert set(world.live().values()) == {True}


@pytest.mark.parametrize("step", ["approve", "revoke"])
def test_an_unknown_id_is_reported(world: World, step: str):
    status, _, err = world.run(step, "0" * 32, "--as", "dana")
    assert status == 1
    assert f"edge-1, edge-2 shows dana no request {'0' * 32}" in err


@pytest.mark.parametrize(
    "id", ["../../etc/passwd", "0" * 31, "A" * 32, "--help-me", "0" * 32 + "\n"]
)
def test_an_invalid_id_is_refused(world: World, id: str):
    status, _, _ = world.run("approve", id, "--as", "dana")
    assert status == 2
    assert not any(edge.received for edge in world.edges.values())


FAILURES: dict[str, tuple[Exception, str]] = {
    "refused": (httpx2.ConnectError("Connection refused"), "cannot be reached: Connection refused"),
    "slow": (httpx2.ReadTimeout("x"), "does not answer within 10 s"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_gateway_that_is_away_is_named_and_learns_it_later(world: World, failure: str):
    world.edges["edge-2"].fails, says = FAILURES[failure]
    status, out, err = world.run(*ASK)
    assert status == 1
    assert "edge-1  has stored it" in out
    assert f"edge-2  {says}" in err
    assert "edge-1 has it; an approval sends it to the others as well" in err
    id = out.partition("ringfence grant approve ")[2].split()[0]
    status, _, err = world.run("approve", id, "--as", "dana")
    assert status == 1
    assert "edge-1 has it; run this again" in err
    assert world.live() == {"edge-1": True, "edge-2": False}
    world.edges["edge-2"].fails = None
    status, out, _ = world.run("approve", id, "--as", "dana")
    assert status == 0
    assert "edge-1  has it already" in out
    assert world.live() == {"edge-1": True, "edge-2": True}


def test_a_revocation_says_where_the_grant_may_still_be_live(world: World):
    id = world.ask()
    world.run("approve", id, "--as", "dana")
    world.edges["edge-2"].fails = httpx2.ConnectError("Connection refused")
    status, out, err = world.run("revoke", id, "--as", "dana")
    assert status == 1
    assert "revoked: " in out
    assert "edge-1 has it; it may still be in force on the others" in err
    assert world.live() == {"edge-1": False, "edge-2": True}
    world.edges["edge-2"].fails = None
    # By now the first gateway refuses the request; the revocation counts.
    assert world.run("revoke", id, "--as", "dana")[0] == 0
    assert world.live() == {"edge-1": False, "edge-2": False}


def test_without_any_gateway_nothing_is_asked_for(world: World):
    for edge in world.edges.values():
        edge.fails = httpx2.ConnectError("Connection refused")
    status, out, err = world.run(*ASK)
    assert status == 1
    assert "ringfence grant approve" not in out
    assert "no gateway has it" in err
    status, _, err = world.run("approve", "0" * 32, "--as", "dana")
    assert status == 1
    assert "no gateway answers" in err
    status, _, err = world.run("list", "--as", "dana")
    assert status == 1
    assert "edge-2  cannot be reached" in err


def test_a_failure_of_tls_is_named(world: World):
    error = httpx2.ConnectError("x")
    error.__cause__ = ssl.SSLCertVerificationError("certificate verify failed")
    world.edges["edge-2"].fails = error
    assert "edge-2  cannot be reached: TLS failed" in world.run(*ASK)[2]


def strange(world: World, forge: Callable[[Signer], bytes]) -> httpx2.Response:
    document = forge(Signer.named("carol", world.environment)).decode()
    return httpx2.Response(200, json={"grants": [{"document": document, "state": "pending"}]})


class TestAGatewayThatLies:
    """The gateway's host may be compromised, and an intruder there wants the approver's
    signature."""

    def test_shows_a_request_that_nobody_signed(self, world: World):
        id = world.ask()
        genuine = world.edges["edge-1"].grants.listing(grants.time.time())[0].document
        head, claims, signature = genuine.split(".")
        other = json.loads(base64.urlsafe_b64decode(claims + "=="))
        other["tool"] = "create_table"
        forged = base64.urlsafe_b64encode(json.dumps(other).encode()).rstrip(b"=")
        document = f"{head}.{forged.decode()}.{signature}"
        world.edges["edge-1"].answers = httpx2.Response(
            200, json={"grants": [{"document": document, "id": id, "tool": "write_query"}]}
        )
        status, out, err = world.run("list", "--as", "dana")
        assert "create_table" not in out
        assert "edge-1  shows an invalid request: the signature does not verify" in err
        assert status == 0

    def test_shows_another_request_under_the_id(self, world: World):
        id = world.ask()
        now = int(grants.time.time())
        claims = {"jti": id, "nbf": now, "exp": now + 3000, "server": "sqlite"}
        world.edges["edge-2"].answers = strange(
            world,
            lambda carol: carol.sign(
                documents.REQUEST, {**claims, "tool": "create_table", "reason": REASON}
            ),
        )
        status, _, err = world.run("approve", id, "--as", "dana")
        assert status == 1
        assert "different requests with" in err

    def test_shows_a_text_that_plays_with_the_terminal(self, world: World):
        now = int(grants.time.time())
        claims = {"jti": "0" * 32, "nbf": now, "exp": now + 3000, "server": "sqlite"}
        world.edges["edge-2"].answers = strange(
            world,
            lambda carol: carol.sign(
                documents.REQUEST,
                {**claims, "tool": "write_query", "reason": "\x1b[2Jharmless text"},
            ),
        )
        _, out, err = world.run("list", "--as", "dana")
        assert "\x1b" not in out + err
        assert "control characters" in err

    @pytest.mark.parametrize(
        "answer",
        [
            httpx2.Response(200, text="<html>"),
            httpx2.Response(200, json=[]),
            httpx2.Response(200, json={"grants": 7}),
            httpx2.Response(502, text="bad\x1b[2J gateway"),
            httpx2.Response(403, json={"error": {"message": "no\x1b[2J"}}),
        ],
        ids=["text", "list", "number", "502", "message"],
    )
    def test_answers_something_else(self, world: World, answer: httpx2.Response):
        world.edges["edge-2"].answers = answer
        for arguments in (ASK, ["list", "--as", "dana"]):
            status, _, err = world.run(*arguments)
            assert status == 1
            assert "edge-2  " in err
            assert "\x1b" not in err


def test_an_environment_without_a_gateway_is_reported(
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    without = {n: h for n, h in environment.hosts.items() if "edge" not in h.groups}
    monkeypatch.setattr(grants.Environment, "load", lambda _: replace(environment, hosts=without))
    assert main(["grant", *ASK, "--environment", str(environment.path)]) == 2
    assert "no host in group edge" in capsys.readouterr().err


def test_the_roster_from_the_manifest_is_that_of_the_gateway(environment: Environment):
    """The facts are the same, whether rendered for the gateway or read from the manifest."""
    authority = pki.authority_of(environment).bundle.encode()
    rendered = {
        "environment": environment.name,
        "responders": ["dana"],
        "principals": {
            p.name: {"kind": p.kind, "owner": p.owner} for p in environment.principals.values()
        },
        "servers": {
            server.name: {
                "tools": {
                    tool.name: {"sensitive": tool.sensitive, "approvers": list(tool.approvers)}
                    for tool in server.tools.values()
                }
            }
            for server in environment.servers.values()
        },
    }
    facts = signed_documents.Roster.of(rendered, authority)
    assert signer.roster_of(environment, authority) == facts
    carol = pki.CertificateSubject.of_principal(environment, environment.principals["carol"])
    assert facts.uri("carol") == carol.uri
