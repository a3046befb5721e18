"""The small issuer: its tokens pass the gateway's verifier, and a key rotation invalidates no
token."""

from __future__ import annotations

import json
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.cli import main
from ringfence.gateway.jose.keys import KeySet, KeySource, PublicKey, read_key_set
from ringfence.gateway.refusals import Refusal
from ringfence.gateway.tokens.access_tokens import TrustedIssuer, Verifier
from ringfence.identity import issuer
from ringfence.identity.pki import principal_identity
from ringfence.identity.state import StateError
from ringfence.manifest.model import Environment

INVENTORIES = Path(__file__).parents[2] / "inventories"
LAB, AWS = (INVENTORIES / name / "environment.yaml" for name in ("lab", "aws-example"))
DIRECT = Path(__file__).parent / "manifests/direct.yaml"
RESOURCE = "https://edge-1.lab.internal"
AUDIENCE = f"{RESOURCE}/time/mcp"
START = 1_800_000_000.0

ARGUMENTS = ["--server", "time", "--resource", RESOURCE]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    shutil.copy(LAB, tmp_path / "environment.yaml")
    return Environment.load(tmp_path / "environment.yaml")


@pytest.fixture
def certificate(environment: Environment) -> bytes:
    identity = principal_identity(environment, environment.principals["carol"])
    leaf = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
    return leaf.public_bytes(Encoding.DER)


class Delivered(KeySource):
    """The key set that a gateway has at the moment."""

    def __init__(self) -> None:
        self.keys: KeySet = {}

    def deliver(self, document: dict[str, Any]) -> None:
        self.keys = read_key_set(json.dumps(document).encode())

    def find(self, kid: str) -> PublicKey | None:
        return self.keys.get(kid)


def gateway(environment: Environment, keys: Delivered, state: Path) -> Verifier:
    trusted = TrustedIssuer(issuer.issuer_url(environment), keys, frozenset({"ES256"}))
    return Verifier([trusted], principals=environment.principals, state=state)


def issue(environment: Environment, certificate: bytes, now: float, seconds: int = 600) -> str:
    return issuer.token(
        environment,
        environment.principals["carol"],
        AUDIENCE,
        "mcp:time",
        certificate=certificate,
        seconds=seconds,
        now=now,
    )


def verify(verifier: Verifier, token: str, certificate: bytes | None, now: float) -> str:
    return verifier.verify(
        f"Bearer {token}",
        audience=AUDIENCE,
        scope="mcp:time",
        certificate_der=certificate,
        now=now,
        sensitive=True,
    ).principal


def command(environment: Environment, *arguments: str) -> int:
    return main(["token", "--environment", str(environment.path), *arguments])


def test_the_command_prints_a_token_that_the_gateway_takes_over_that_connection_only(
    environment: Environment,
    certificate: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(environment, "carol", *ARGUMENTS) == 0
    printed = capsys.readouterr()
    token = printed.out.removesuffix("\n")
    assert token.count(".") == 2
    assert printed.err == ""
    keys = Delivered()
    keys.deliver(issuer.jwks(environment, time.time()))
    verifier = gateway(environment, keys, tmp_path / "state")
    with pytest.raises(Refusal) as caught:
        verify(verifier, token, None, time.time())
    assert caught.value.reason == "token_no_certificate"
    assert verify(verifier, token, certificate, time.time()) == "carol"
    with pytest.raises(Refusal) as caught:
        verify(verifier, token, certificate, time.time() + 640)
    assert caught.value.reason == "token_expired"


def test_a_token_can_be_bound_to_another_certificate(
    environment: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dana = principal_identity(environment, environment.principals["dana"]).certificate
    assert command(environment, "carol", *ARGUMENTS, "--certificate", str(dana)) == 0
    token = capsys.readouterr().out.strip()
    keys = Delivered()
    keys.deliver(issuer.jwks(environment, time.time()))
    der = x509.load_pem_x509_certificate(dana.read_bytes()).public_bytes(Encoding.DER)
    assert verify(gateway(environment, keys, tmp_path / "s"), token, der, time.time()) == "carol"


def test_the_gateway_is_the_manifests(tmp_path: Path) -> None:
    shutil.copy(AWS, tmp_path / "environment.yaml")
    environment = Environment.load(tmp_path / "environment.yaml")
    edge = environment.group("edge")[0]
    server = environment.servers["ledger"]
    assert issuer.resource_url(environment, server) == f"https://{edge.fqdn}/ledger/mcp"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mallory", *ARGUMENTS], "names no principal 'mallory'; it has: carol"),
        (["carol", "--server", "mail"], "names no server 'mail'; it has: time"),
        (["carol"], "name a principal and a server"),
        (["--server", "time"], "name a principal and a server"),
        (["carol", *ARGUMENTS, "--minutes", "16"], "from 1 to 15 minutes, not 16"),
        (["carol", *ARGUMENTS, "--minutes", "0"], "from 1 to 15 minutes"),
        (["carol", *ARGUMENTS, "--certificate", "/none.crt"], "/none.crt cannot be read"),
        (["carol", *ARGUMENTS, "--certificate", str(LAB)], "is not a certificate in PEM"),
        (["carol", *ARGUMENTS, "--at-once"], "needs --rotate"),
    ],
)
def test_what_is_wrong_takes_one_line(
    environment: Environment,
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(environment, *arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err
    assert printed.err.count("\n") == 1


def test_tokens_are_for_a_gateway(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(DIRECT, environment.path)
    assert command(environment, "carol", "--server", "time") == 2
    assert "has no host in group edge" in capsys.readouterr().err


def test_keys_are_private_and_what_is_published_is_not(environment: Environment) -> None:
    document = issuer.jwks(environment, START)
    path = environment.state / "issuer" / "keys.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert '"d"' in path.read_text()
    assert [sorted(key) for key in document["keys"]] == [
        ["alg", "crv", "kid", "kty", "use", "x", "y"]
    ]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.chmod(0o644), "chmod 600"),
        (lambda path: path.write_text("{"), "is damaged"),
        (lambda path: path.write_text('[{"signs_from": "x"}]'), "is damaged"),
    ],
)
def test_key_files_that_cannot_be_relied_on_are_refused(
    environment: Environment, damage: Callable[[Path], object], says: str
) -> None:
    issuer.jwks(environment, START)
    damage(environment.state / "issuer" / "keys.json")
    with pytest.raises(StateError, match=says):
        issuer.jwks(environment, START)


def test_a_retired_key_is_public_only_and_gone_with_its_last_token(
    environment: Environment,
) -> None:
    first = kids(issuer.jwks(environment, START))
    at = START + issuer.SIGNING_SECONDS - issuer.PUBLISHED_AHEAD_SECONDS
    assert kids(issuer.jwks(environment, at - 1)) == first
    both = kids(issuer.jwks(environment, at))
    assert (len(both), both[:1]) == (2, first)
    switch = at + issuer.PUBLISHED_AHEAD_SECONDS
    assert kids(issuer.jwks(environment, switch + issuer.MAX_MINUTES * 60)) == both
    stored = json.loads((environment.state / "issuer" / "keys.json").read_text())
    assert ["d" in key["jwk"] for key in stored] == [False, True]
    assert kids(issuer.jwks(environment, switch + 3600)) == both[1:]


def test_rotation_before_its_time_overlaps_too_and_happens_once(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    first = kids(issuer.jwks(environment, time.time()))
    assert command(environment, "--rotate") == 0
    output = capsys.readouterr().out
    assert command(environment, "--rotate") == 0
    assert capsys.readouterr().out == output
    both = kids(issuer.jwks(environment, time.time()))
    assert (len(both), both[:1]) == (2, first)
    assert output.startswith(f"{both[1]} signs from ")


def test_after_a_leak_no_old_key_is_left(
    environment: Environment,
    certificate: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = time.time()
    keys = Delivered()
    keys.deliver(issuer.jwks(environment, now))
    verifier = gateway(environment, keys, tmp_path / "state")
    old = issue(environment, certificate, now)
    assert verify(verifier, old, certificate, now)
    assert command(environment, "--rotate", "--at-once") == 0
    assert "apply the playbook now" in capsys.readouterr().out
    keys.deliver(issuer.jwks(environment, now))
    with pytest.raises(Refusal) as caught:
        verify(verifier, old, certificate, now)
    assert caught.value.reason == "token_unknown_key"
    assert verify(verifier, issue(environment, certificate, now), certificate, now)


HOUR = 3600.0
BOUND = issuer.PUBLISHED_AHEAD_SECONDS

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["deliver", "token", "token", "rotate", "nothing"]),
        st.floats(60, 9 * 24 * HOUR),
    ),
    min_size=20,
    max_size=60,
)


def walk(
    base: Environment, certificate: bytes, steps: list[tuple[str, float]], ahead: float
) -> tuple[int, int]:
    """Simulate months with late deliveries of key sets; return (tokens refused, keys that signed).

    A gateway's key set is never older than the documented bound: before a step that would exceed
    it, the walk delivers a set at the last moment.
    """
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patched:
        patched.setattr(issuer, "PUBLISHED_AHEAD_SECONDS", ahead)
        environment = replace(base, path=Path(directory) / "environment.yaml")
        keys = Delivered()
        verifier = gateway(environment, keys, Path(directory) / "gateway")
        now = generated = START
        keys.deliver(issuer.jwks(environment, now))
        refused, signers = 0, set()

        def advance(seconds: float) -> None:
            nonlocal now, generated
            while now + seconds > generated + BOUND:
                seconds -= generated + BOUND - now
                now = generated = generated + BOUND
                keys.deliver(issuer.jwks(environment, now))
            now += seconds

        def good(token: str) -> bool:
            try:
                return bool(verify_again(verifier, token, certificate, now))
            except Refusal:
                return False

        for action, wait in steps:
            if action == "deliver":
                keys.deliver(issuer.jwks(environment, now))
                generated = now
            elif action == "rotate":
                issuer.rotate(environment, now)
            elif action == "token":
                token = issue(environment, certificate, now, seconds=900)
                signers.add(token.split(".")[0])
                outcomes = [good(token)]
                # also at its end, with a key set published during its life
                advance(890)
                outcomes.append(good(token))
                held, newest = keys.keys, issuer.jwks(environment, now)
                keys.deliver(newest)
                outcomes.append(good(token))
                keys.keys = held
                refused += outcomes.count(False)
            advance(wait)
        return refused, len(signers)


def verify_again(verifier: Verifier, token: str, certificate: bytes, now: float) -> str:
    return verifier.verify(
        f"Bearer {token}",
        audience=AUDIENCE,
        scope="mcp:time",
        certificate_der=certificate,
        now=now,
        sensitive=False,
    ).principal


@settings(max_examples=40)
@given(steps=STEPS)
def test_every_token_verifies_by_the_key_set_delivered_last(steps: list[tuple[str, float]]) -> None:
    environment, certificate = shared()
    refused, _ = walk(environment, certificate, steps, BOUND)
    assert refused == 0


def test_that_property_is_lost_without_the_overlap() -> None:
    """Keys do rotate in such a walk: otherwise the property would show nothing."""
    environment, certificate = shared()
    steps = [("token", 9 * 24 * HOUR), ("nothing", 3 * 24 * HOUR)] * 20
    assert walk(environment, certificate, steps, 0.0)[0] > 0
    refused, signers = walk(environment, certificate, steps, BOUND)
    assert refused == 0
    assert signers >= 4


@cache
def shared() -> tuple[Environment, bytes]:
    """Return one manifest and certificate for all examples."""
    with TemporaryDirectory() as directory:
        shutil.copy(LAB, Path(directory) / "environment.yaml")
        environment = Environment.load(Path(directory) / "environment.yaml")
        identity = principal_identity(environment, environment.principals["carol"])
        leaf = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
    return environment, leaf.public_bytes(Encoding.DER)


def kids(document: dict[str, Any]) -> list[str]:
    return [key["kid"] for key in document["keys"]]
