"""Access tokens: valid ones, and attacks that a permissive verifier admits."""

from __future__ import annotations

import hmac
import json
import multiprocessing
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from joserfc import jws as joserfc_jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from test_grants import Clock

from ringfence.gateway.jose.keys import (
    FileKeys,
    KeySource,
    KeysUnavailableError,
    PublicKey,
    read_key_set,
)
from ringfence.gateway.refusals import Refusal
from ringfence.gateway.state.monotonic_clock import MonotonicClock
from ringfence.gateway.tokens import access_tokens
from ringfence.gateway.tokens.access_tokens import TrustedIssuer, Verifier
from ringfence.gateway.tokens.replays import Replays, ReplaysUnavailableError

NOW = time.time()
ISSUER = "https://issuer.lab.internal"
AUDIENCE = "https://edge-1.lab.internal/time/mcp"
SCOPE = "mcp:time"
CERTIFICATE, OTHER_CERTIFICATE = b"certificate of carol", b"certificate of mallory"
ALGORITHMS = frozenset({"ES256", "EdDSA", "RS256", "PS256"})

KEYS: dict[str, ECKey | OKPKey | RSAKey] = {
    "ec": ECKey.generate_key("P-256", {"kid": "ec", "alg": "ES256"}),
    "ed": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
    "rsa": RSAKey.generate_key(2048, {"kid": "rsa"}),
    "rs256": RSAKey.generate_key(2048, {"kid": "rs256", "alg": "RS256"}),
}
MALLORY = ECKey.generate_key("P-256", {"kid": "ec"})
JWKS = json.dumps({"keys": [key.as_dict() for key in KEYS.values()]}).encode()

Claims = dict[str, Any]


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**changes: Any) -> Claims:
    """Return the claims of a valid token; a change to None removes a claim."""
    usual = {
        "iss": ISSUER,
        "sub": "carol",
        "aud": AUDIENCE,
        "iat": int(NOW),
        "exp": int(NOW) + 600,
        "jti": "one",
        "scope": SCOPE,
        "cnf": {"x5t#S256": access_tokens.certificate_thumbprint(CERTIFICATE)},
    }
    return {name: value for name, value in (usual | changes).items() if value is not None}


_SIGNERS = {
    "ES256": "ES256",
    "EdDSA": "Ed25519",
    "Ed25519": "Ed25519",
    "RS256": "RS256",
    "PS256": "PS256",
}


def signed(header: bytes, payload: bytes, key: Key, algorithm: str) -> str:
    """Sign any bytes, even those that no library would sign."""
    covered = f"{b64(header)}.{b64(payload)}"
    model = joserfc_jws.JWSRegistry.algorithms[_SIGNERS[algorithm]]
    return f"{covered}.{b64(model.sign(covered.encode(), key))}"


def token(
    content: Claims | bytes | None = None,
    *,
    key: Key | None = None,
    algorithm: str = "ES256",
    header: Mapping[str, Any] | None = None,
    **changes: Any,
) -> str:
    key = key or KEYS["ec"]
    fields = {"alg": algorithm, "typ": "at+jwt", "kid": key.kid} | dict(header or {})
    body = content if isinstance(content, bytes) else json.dumps(claims(**changes)).encode()
    present = {name: value for name, value in fields.items() if value is not None}
    return signed(json.dumps(present).encode(), body, key, algorithm)


@pytest.fixture
def verifier(tmp_path: Path) -> Verifier:
    return make(tmp_path)


@dataclass(frozen=True)
class Known(KeySource):
    """Key set in memory."""

    keys: dict[str, PublicKey] = field(default_factory=lambda: dict(read_key_set(JWKS)))

    def find(self, kid: str) -> PublicKey | None:
        return self.keys.get(kid)


def make(state: Path, **changes: Any) -> Verifier:
    issuer = TrustedIssuer(ISSUER, changes.pop("keys", Known()), ALGORITHMS)
    usual: dict[str, Any] = {"principals": {"carol", "dana"}, "state": state}
    return Verifier([issuer], **(usual | changes))


def verify(verifier: Verifier, sent: str, **changes: Any) -> access_tokens.CallerIdentity:
    usual: dict[str, Any] = {
        "audience": AUDIENCE,
        "scope": SCOPE,
        "certificate_der": CERTIFICATE,
        "now": NOW,
        "sensitive": False,
    }
    scheme = changes.pop("scheme", "Bearer")
    return verifier.verify(f"{scheme} {sent}", **(usual | changes))


def refused(verifier: Verifier, sent: str, **changes: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        verify(verifier, sent, **changes)
    return caught.value


# Permissive baselines: verifiers as many programs implement them


def usual_verifier(sent: str) -> Claims:
    """Verify with PyJWT as documented: key by id, fixed algorithms, otherwise defaults."""
    kid = jwt.get_unverified_header(sent)["kid"]
    key = jwt.PyJWKSet.from_json(JWKS.decode())[kid].key
    algorithms = ["ES256", "EdDSA", "RS256", "PS256"]
    return decoded(sent, key, algorithms)


def decoded(sent: str, key: Any, algorithms: list[str]) -> Claims:
    since = time.time() - NOW  # the clock of these tests stands still, PyJWT's does not
    options: Any = {"verify_aud": False}
    return jwt.decode(sent, key, algorithms=algorithms, options=options, leeway=since)


def trusting_verifier(sent: str) -> Claims:
    """Trust the header: its algorithm and its key."""
    head, body, signature = (urlsafe_b64decode(part + "==") for part in sent.split("."))
    header = json.loads(head)
    covered = sent.rpartition(".")[0].encode()
    key = ECKey.import_key(header["jwk"]) if "jwk" in header else KEYS[header.get("kid", "ec")]
    if header["alg"] == "HS256":
        good = hmac.compare_digest(hmac.digest(key.as_pem(), covered, "sha256"), signature)
    elif header["alg"] == "none":
        good = True
    else:
        good = joserfc_jws.JWSRegistry.algorithms[header["alg"]].verify(covered, signature, key)
    assert good
    return json.loads(body)


def unsigned() -> str:
    header = {"alg": "none", "typ": "at+jwt", "kid": "ec"}
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims()).encode())}."


def signed_with_public_key() -> str:
    header = {"alg": "HS256", "typ": "at+jwt", "kid": "rsa"}
    covered = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims()).encode())}"
    secret = KEYS["rsa"].as_pem(private=False)
    return f"{covered}.{b64(hmac.digest(secret, covered.encode(), 'sha256'))}"


def with_duplicate(name: str, first: str, last: str) -> bytes:
    rest = json.dumps(claims(**{name: None}))[1:]
    return f'{{"{name}": "{first}", "{name}": "{last}", {rest}'.encode()


def padded(part: int) -> str:
    """Sign with the padding, as an issuer does that writes base64 instead of base64url."""
    for extra in ("a", "aa", "aaa"):
        segments = token(extra=extra, header={"x": extra}).split(".")[:2]
        if missing := -len(segments[part]) % 4:
            segments[part] += "=" * missing
            covered = ".".join(segments)
            model = joserfc_jws.JWSRegistry.algorithms["ES256"]
            return f"{covered}.{b64(model.sign(covered.encode(), KEYS['ec']))}"
    raise AssertionError("no length needs padding")


def sloppy_signature() -> str:
    """Change the last four of the 516 bits in 86 characters: a lax decoder ignores them."""
    sent = token()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return sent[:-1] + alphabet[alphabet.index(sent[-1]) + 1]


TEN_YEARS = 10 * 365 * 86400

ATTACKS: dict[str, tuple[Callable[[], str], Callable[[str], Claims], str]] = {
    "no signature": (unsigned, trusting_verifier, "token_algorithm"),
    "HMAC with the public key": (signed_with_public_key, trusting_verifier, "token_algorithm"),
    "PS256 with a key for RS256": (
        lambda: token(key=KEYS["rs256"], algorithm="PS256"),
        usual_verifier,
        "token_algorithm",
    ),
    "a key in the header": (
        lambda: token(key=MALLORY, header={"jwk": MALLORY.as_dict(private=False)}),
        trusting_verifier,
        "token_embedded_key",
    ),
    "where the key is": (
        lambda: token(header={"jku": "https://mallory.example/jwks"}),
        usual_verifier,
        "token_embedded_key",
    ),
    "a certificate in the header": (
        lambda: token(header={"x5c": ["MIIB"]}),
        usual_verifier,
        "token_embedded_key",
    ),
    "no key id": (
        lambda: token(header={"kid": None}),
        trusting_verifier,
        "token_unknown_key",
    ),
    "an unknown critical extension": (
        lambda: token(header={"crit": ["exp"], "exp": 1}),
        trusting_verifier,
        "token_critical_header",
    ),
    "another issuer": (
        lambda: token(iss="https://mallory.example"),
        usual_verifier,
        "token_issuer",
    ),
    "an issuer with a slash more": (
        lambda: token(iss=ISSUER + "/"),
        usual_verifier,
        "token_issuer",
    ),
    "no issuer": (lambda: token(iss=None), usual_verifier, "token_issuer"),
    "another audience": (
        lambda: token(aud="https://edge-1.lab.internal/git/mcp"),
        usual_verifier,
        "token_audience",
    ),
    "an audience of which ours is the beginning": (
        lambda: token(aud=AUDIENCE + "/more"),
        usual_verifier,
        "token_audience",
    ),
    "others in the audience": (
        lambda: token(aud=[AUDIENCE, "https://elsewhere.example"]),
        usual_verifier,
        "token_audience",
    ),
    "no audience": (lambda: token(aud=None), usual_verifier, "token_audience"),
    "an ID token": (lambda: token(header={"typ": "id+jwt"}), usual_verifier, "token_type"),
    "a logout token": (
        lambda: token(header={"typ": "logout+jwt"}),
        usual_verifier,
        "token_type",
    ),
    "no type": (lambda: token(header={"typ": None}), usual_verifier, "token_type"),
    "no end": (lambda: token(exp=None), usual_verifier, "token_no_times"),
    "no beginning": (lambda: token(iat=None), usual_verifier, "token_no_times"),
    "true as a time": (lambda: token(iat=True), usual_verifier, "token_no_times"),
    "a time as text": (lambda: token(exp=str(int(NOW) + 600)), usual_verifier, "token_no_times"),
    "ten years": (
        lambda: token(exp=int(NOW) + TEN_YEARS),
        usual_verifier,
        "token_lifetime",
    ),
    "a second over the ceiling": (
        lambda: token(exp=int(NOW) + 901),
        usual_verifier,
        "token_lifetime",
    ),
    "an infinite time": (
        lambda: token(json.dumps(claims()).replace(f"{int(NOW) + 600}", "1e999").encode()),
        trusting_verifier,
        "token_no_times",
    ),
    "issued in the future": (
        lambda: token(iat=int(NOW) + 100),
        trusting_verifier,
        "token_not_yet",
    ),
    "not yet valid": (lambda: token(nbf=int(NOW) + 100), trusting_verifier, "token_not_yet"),
    "expired": (
        lambda: token(iat=int(NOW) - 800, exp=int(NOW) - 31),
        trusting_verifier,
        "token_expired",
    ),
    "an unknown principal": (lambda: token(sub="mallory"), usual_verifier, "token_principal"),
    "a list of principals": (lambda: token(sub=["carol"]), trusting_verifier, "token_principal"),
    "the same claim twice": (
        lambda: token(with_duplicate("sub", "mallory", "carol")),
        usual_verifier,
        "token_duplicate_name",
    ),
    "the same header twice": (
        lambda: signed(
            b'{"alg": "none", "alg": "ES256", "typ": "at+jwt", "kid": "ec"}',
            json.dumps(claims()).encode(),
            KEYS["ec"],
            "ES256",
        ),
        usual_verifier,
        "token_duplicate_name",
    ),
    "NaN": (
        lambda: token(json.dumps(claims(extra=float("nan"))).encode()),
        usual_verifier,
        "token_malformed",
    ),
    "half a surrogate pair": (
        lambda: token(json.dumps(claims(jti="\ud800")).encode()),
        usual_verifier,
        "token_malformed",
    ),
    "padding in the header": (lambda: padded(0), trusting_verifier, "token_malformed"),
    "padding in the claims": (lambda: padded(1), trusting_verifier, "token_malformed"),
    "padding in the signature": (lambda: token() + "==", usual_verifier, "token_malformed"),
    "bits that decoding drops": (sloppy_signature, trusting_verifier, "token_malformed"),
    "a line break in the signature": (
        lambda: token() + "\n",
        trusting_verifier,
        "token_malformed",
    ),
    "8 KiB and a bit": (lambda: token(extra="x" * 8192), usual_verifier, "token_too_large"),
    "a binding nobody here can hold": (
        lambda: token(cnf=claims()["cnf"] | {"kid": "x"}),
        usual_verifier,
        "token_confirmation",
    ),
    "no binding": (lambda: token(cnf=None), usual_verifier, "token_not_bound"),
    "an empty binding": (lambda: token(cnf={}), usual_verifier, "token_confirmation"),
    "a binding of another type": (
        lambda: token(cnf={"x5t#S256": [1]}),
        usual_verifier,
        "token_confirmation",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_that_a_permissive_verifier_lets_through(verifier: Verifier, name: str) -> None:
    forge, permissive, reason = ATTACKS[name]
    sent = forge()
    assert permissive(sent)["iat" if name != "no beginning" else "exp"]
    refusal = refused(verifier, sent)
    assert (refusal.status, refusal.code, refusal.reason) == (401, -32001, reason)
    assert refused(verifier, sent).reason == reason, "the cache let it through the second time"


@pytest.mark.parametrize(
    "kid", ["../uploads/mallory.pem", "/uploads/mallory.pem", "ec\0", "", "EC"]
)
def test_key_ids_choose_no_file(verifier: Verifier, tmp_path: Path, kid: str) -> None:
    """The baseline joins the id to a directory, and so finds a key that Mallory put there."""
    uploads, directory = tmp_path / "uploads", tmp_path / "keys"
    uploads.mkdir()
    directory.mkdir()
    (uploads / "mallory.pem").write_bytes(MALLORY.as_pem(private=False))
    sent = token(key=MALLORY, header={"kid": kid})
    if kid.startswith(".."):
        pem = (directory / jwt.get_unverified_header(sent)["kid"]).read_bytes()
        found: Any = load_pem_public_key(pem)
        assert decoded(sent, found, ["ES256"])
    assert refused(verifier, sent).reason == "token_unknown_key"


def test_a_signature_by_another_key_is_refused(verifier: Verifier) -> None:
    assert refused(verifier, token(key=MALLORY)).reason == "token_signature"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_no_character_of_a_token_can_be_changed(verifier: Verifier, place: int) -> None:
    segments = token().split(".")
    for index in range(0, len(segments[place]), 7):
        other = "A" if segments[place][index] != "A" else "B"
        changed = segments[place][:index] + other + segments[place][index + 1 :]
        sent = ".".join([*segments[:place], changed, *segments[place + 1 :]])
        assert refused(verifier, sent).status == 401


@pytest.mark.parametrize(
    "sent",
    [
        "",
        " ",
        ".",
        "..",
        "a.b",
        "a.b.c.d",
        "e30.e30.",
        "W10.W10.AA",
        "é.é.é",
        "[" * 2000,
        "0" * 9000,
    ],
)
def test_what_is_no_token_is_refused(verifier: Verifier, sent: str) -> None:
    assert refused(verifier, sent).status == 401


def test_deep_nesting_is_refused(verifier: Verifier) -> None:
    body = b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}"
    assert refused(verifier, token(body)).reason in ("token_malformed", "token_too_large")


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [("ec", "ES256"), ("ed", "EdDSA"), ("ed", "Ed25519"), ("rsa", "RS256"), ("rsa", "PS256")],
)
def test_a_good_token_names_the_caller(verifier: Verifier, key: str, algorithm: str) -> None:
    identity = verify(verifier, token(key=KEYS[key], algorithm=algorithm, scope="other mcp:time"))
    assert identity == access_tokens.CallerIdentity(
        principal="carol",
        issuer=ISSUER,
        token_id="one",  # noqa: S106
        scopes=frozenset({"other", "mcp:time"}),
        expires=int(NOW) + 600,
        certificate=access_tokens.certificate_thumbprint(CERTIFICATE),
    )
    again = verify(verifier, token(key=KEYS[key], algorithm=algorithm, scope="other mcp:time"))
    assert again == identity


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": [AUDIENCE]},
        {"iat": int(NOW) + 29},
        {"iat": int(NOW) - 620, "exp": int(NOW) - 29},
        {"nbf": int(NOW) + 29},
        {"iat": NOW - 0.5, "exp": NOW + 600.25},
        {"exp": int(NOW) + 900},
        {"header": {"typ": "JWT"}},
        {"header": {"typ": "application/at+jwt"}},
        {"header": {"x5t": "not looked at"}},
        {"scope": None, "scp": ["mcp:time"]},
        {"sub": "dana"},
        {"jti": None},
    ],
)
def test_what_a_token_may_be(verifier: Verifier, changes: dict[str, Any]) -> None:
    assert verify(verifier, token(**changes)).principal in ("carol", "dana")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_the_scheme_is_read_in_any_case(verifier: Verifier, scheme: str) -> None:
    assert verify(verifier, token(), scheme=scheme).principal == "carol"


class TestCertificates:
    """A token is valid only over the connection of its owner (RFC 8705)."""

    def test_a_stolen_token_is_of_no_use(self, verifier: Verifier) -> None:
        sent = token()
        assert usual_verifier(sent), "it would be, to a verifier that looks at the token alone"
        for _ in range(2):
            other = refused(verifier, sent, certificate_der=OTHER_CERTIFICATE)
            assert other.reason == "token_other_certificate"
            assert refused(verifier, sent, certificate_der=None).reason == "token_no_certificate"
            assert verify(verifier, sent).principal == "carol"

    @pytest.mark.parametrize("constraint", ["none", "certificate"])
    def test_a_bound_token_is_held_to_it_whatever_is_configured(
        self, tmp_path: Path, constraint: str
    ) -> None:
        verifier = make(tmp_path, sender_constraint=constraint)
        other = refused(verifier, token(), certificate_der=OTHER_CERTIFICATE)
        assert other.reason == "token_other_certificate"

    def test_an_unbound_token_is_good_where_no_binding_is_asked_for(self, tmp_path: Path) -> None:
        verifier = make(tmp_path, sender_constraint="none")
        assert verify(verifier, token(cnf=None), certificate_der=None).certificate is None
        # the audit log records a certificate that is there nonetheless
        seen = verify(verifier, token(cnf=None), certificate_der=OTHER_CERTIFICATE).certificate
        assert seen == access_tokens.certificate_thumbprint(OTHER_CERTIFICATE)


class TestCache:
    def test_a_cached_token_still_expires(self, verifier: Verifier) -> None:
        sent = token()
        assert verify(verifier, sent)
        assert refused(verifier, sent, now=NOW + 631).reason == "token_expired"

    def test_a_cached_token_is_for_one_audience(self, verifier: Verifier) -> None:
        sent = token()
        assert verify(verifier, sent)
        elsewhere = "https://edge-1.lab.internal/git/mcp"
        assert refused(verifier, sent, audience=elsewhere).reason == "token_audience"

    def test_a_cached_token_dies_with_its_key(self, tmp_path: Path) -> None:
        keys = Known()
        verifier = make(tmp_path, keys=keys)
        assert verify(verifier, token())
        replaced = MALLORY.as_dict(private=False) | {"kid": "ec"}
        for present in ({}, dict(read_key_set(json.dumps({"keys": [replaced]}).encode()))):
            keys.keys.clear()
            keys.keys.update(present)
            assert refused(verifier, token()).reason in ("token_unknown_key", "token_signature")

    def test_it_stays_small(self, tmp_path: Path) -> None:
        verifier = make(tmp_path, cached_tokens=8)
        for number in range(40):
            verify(verifier, token(key=KEYS["ed"], algorithm="EdDSA", jti=f"{number}"))
        assert len(verifier._cache) == 8


class TestReplay:
    def test_a_sensitive_call_uses_the_token_up(self, tmp_path: Path) -> None:
        """The gateway's other processes refuse it too; here, two verifiers of one directory."""
        one, other = make(tmp_path / "a"), make(tmp_path / "a")
        assert verify(one, token())
        assert verify(one, token(), sensitive=True)
        assert refused(one, token(), sensitive=True).reason == "token_replayed"
        assert refused(other, token(), sensitive=True).reason == "token_replayed"
        assert verify(make(tmp_path / "b"), token(), sensitive=True), "memory apart lets it through"

    def test_a_refused_call_does_not_use_it_up(self, verifier: Verifier) -> None:
        sent = token()
        assert refused(verifier, sent, sensitive=True, certificate_der=OTHER_CERTIFICATE)
        assert refused(verifier, sent, sensitive=True, scope="mcp:git")
        assert verify(verifier, sent, sensitive=True)

    def test_a_sensitive_call_needs_an_id(self, verifier: Verifier) -> None:
        assert refused(verifier, token(jti=None), sensitive=True).reason == "token_no_id"
        assert refused(verifier, token(jti="x" * 257)).reason == "token_id"

    def test_of_two_processes_at_once_one_wins(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        barrier, wins = context.Barrier(2), context.Queue()
        racers = [
            context.Process(target=race, args=(str(tmp_path / "race"), barrier, wins))
            for _ in range(2)
        ]
        for racer in racers:
            racer.start()
        won = [wins.get(timeout=60) for _ in racers]
        for racer in racers:
            racer.join(60)
        assert sorted(won[0] + won[1]) == sorted(f"id {number}" for number in range(RACES))

    def test_ids_choose_no_path_and_are_kept_apart(self, tmp_path: Path) -> None:
        used = Replays(tmp_path / "used")
        for names in [
            ("../../x", "/etc/passwd"),
            ("a", "bc"),
            ("ab", "c"),
            ("", "1:a"),
            ("x" * 999,),
        ]:
            assert used.first_use(*names, expires=NOW + 60, now=NOW)
            assert not used.first_use(*names, expires=NOW + 60, now=NOW)
        assert {entry.name for entry in tmp_path.iterdir()} == {"used"}

    def test_a_full_store_refuses_until_something_has_expired(self, tmp_path: Path) -> None:
        clock = Clock()
        used = Replays(tmp_path, capacity=10, clock=MonotonicClock(clock))
        for number in range(10):
            assert used.first_use(f"{number}", expires=NOW + 60 * (number // 5), now=NOW)
        with pytest.raises(ReplaysUnavailableError, match="is full: 10 ids"):
            used.first_use("more", expires=NOW + 60, now=NOW)
        with pytest.raises(ReplaysUnavailableError, match="is full"):
            Replays(tmp_path, capacity=10).first_use("more", expires=NOW + 60, now=NOW)
        later = (NOW // 60 + 2) * 60 + 1
        clock.seconds += later - NOW
        assert used.first_use("more", expires=later + 60, now=later)

    def test_what_has_expired_is_forgotten_and_nothing_else(self, tmp_path: Path) -> None:
        used = Replays(tmp_path)
        names = [f"{number}" for number in range(50)]
        for name in names:
            assert used.first_use(name, expires=NOW, now=NOW)
            assert used.first_use("kept", name, expires=NOW + 600, now=NOW)
        restarted = Replays(tmp_path)
        for number in range(20):
            assert restarted.first_use("new", f"{number}", expires=NOW + 600, now=NOW + 121)
        assert sum(1 for _ in tmp_path.glob("*/*")) == 50 + 20
        assert not any(
            used.first_use("kept", name, expires=NOW + 600, now=NOW + 599) for name in names
        )

    def test_a_full_or_missing_store_refuses(self, tmp_path: Path) -> None:
        verifier = make(tmp_path)
        assert verify(verifier, token(), sensitive=True)
        (tmp_path / "replays").rename(tmp_path / "away")
        refusal = refused(verifier, token(), sensitive=True)
        assert (refusal.status, refusal.code, refusal.reason) == (
            503,
            -32006,
            "replays_unavailable",
        )
        assert ("Retry-After", "5") in refusal.headers


RACES = 300


def race(directory: str, barrier: Barrier, wins: Any) -> None:
    used = Replays(Path(directory))
    barrier.wait(30)
    names = [f"id {number}" for number in range(RACES)]
    wins.put([name for name in names if used.first_use(name, expires=NOW, now=NOW)])


class TestClock:
    """A change of the clock, by an administrator or an attacker, makes no refused token valid."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def verifier(self, tmp_path: Path, clock: Clock) -> Verifier:
        return make(tmp_path, clock=MonotonicClock(clock))

    def test_set_back_it_does_not_revive_a_token(
        self, verifier: Verifier, clock: Clock, tmp_path: Path
    ) -> None:
        sent = token()
        assert verify(verifier, sent)
        clock.seconds += 700
        assert refused(verifier, sent, now=NOW).reason == "token_expired"
        assert refused(verifier, sent, now=NOW - 86400).reason == "token_expired"
        assert verify(make(tmp_path), sent), "a process that knows no better"

    def test_that_is_behind_at_first_it_lets_nobody_in_early(self, verifier: Verifier) -> None:
        assert refused(verifier, token(), now=NOW - 3600).reason == "token_not_yet"

    def test_ahead_it_lets_nobody_in_and_right_again_everybody(self, verifier: Verifier) -> None:
        assert verify(verifier, token())
        assert refused(verifier, token(), now=NOW + 86400).reason == "token_expired"
        assert verify(verifier, token())

    def test_ahead_it_does_not_forget_what_was_used(self, verifier: Verifier) -> None:
        sent = token(jti="used")
        assert verify(verifier, sent, sensitive=True)
        later = NOW + 86400
        # From an issuer with a clock that also jumped: each use removes expired entries.
        for number in range(10):
            fresh = token(jti=f"{number}", iat=later, nbf=later, exp=later + 600)
            assert verify(verifier, fresh, sensitive=True, now=later)
        assert refused(verifier, sent, sensitive=True).reason == "token_replayed"


class TestRevocation:
    def test_tokens_and_principals_are_cut_off_at_once_and_let_in_again(
        self, verifier: Verifier, tmp_path: Path
    ) -> None:
        assert verify(verifier, token())
        revoke(tmp_path, token="one")  # noqa: S106
        assert refused(verifier, token()).reason == "token_revoked"
        assert verify(verifier, token(jti="two"))
        revoke(tmp_path, certificate=access_tokens.certificate_thumbprint(CERTIFICATE))
        assert refused(verifier, token(jti="two")).reason == "token_revoked"
        revoke(tmp_path, principal="carol")
        assert refused(verifier, token(jti="two")).reason == "token_revoked"
        assert verify(verifier, token(sub="dana"))
        (tmp_path / "revoked.json").unlink()
        assert refused(verifier, token()).reason == "token_revoked", "a lost file lets nobody in"
        revoke(tmp_path)
        assert verify(verifier, token())

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "{",
            "[]",
            "{}",
            '{"revoked": "one"}',
            '{"revoked": [1]}',
            '{"revoked": [], "more": []}',
            '{"revoked": [{"kind": "principals", "value": "carol"}]}',
            '{"revoked": [{"kind": "principal", "value": ""}]}',
            '{"revoked": [{"kind": "principal", "value": ["carol"]}]}',
            '{"revoked": [{"kind": "principal", "value": "carol", "untill": 1}]}',
            '{"revoked": [{"kind": "principal", "value": "carol", "until": "1"}]}',
            '{"revoked": [{"kind": "principal", "value": "carol", "until": true}]}',
            "x" * 5,
        ],
    )
    def test_what_cannot_be_read_lets_nobody_in(
        self, verifier: Verifier, tmp_path: Path, content: str
    ) -> None:
        (tmp_path / "revoked.json").write_text(content)
        refusal = refused(verifier, token())
        assert (refusal.status, refusal.reason) == (503, "revocations_unreadable")
        revoke(tmp_path)
        assert verify(verifier, token())


def revoke(directory: Path, **names: str) -> None:
    staged = directory / ".revoked.json"
    entries = [{"kind": kind, "value": value} for kind, value in names.items()]
    staged.write_text(json.dumps({"revoked": entries}))
    staged.replace(directory / "revoked.json")


class TestChallenges:
    """RFC 6750 section 3, RFC 9728 section 5.1."""

    def test_without_a_token_there_is_no_error(self, verifier: Verifier) -> None:
        for sent in (None, "Basic Y2Fyb2w6eA==", "Negotiate x", ""):
            with pytest.raises(Refusal) as caught:
                verifier.verify(
                    sent,
                    audience=AUDIENCE,
                    scope=SCOPE,
                    certificate_der=CERTIFICATE,
                    now=NOW,
                    sensitive=False,
                )
            assert (caught.value.status, caught.value.reason) == (401, "no_token")
            assert caught.value.headers == (
                (
                    "WWW-Authenticate",
                    'Bearer realm="mcp", scope="mcp:time", resource_metadata='
                    '"https://edge-1.lab.internal/.well-known/oauth-protected-resource/time/mcp"',
                ),
            )

    def test_the_caller_is_not_told_which_check_failed(self, verifier: Verifier) -> None:
        told = {
            (refusal.message, refusal.headers, refusal.data)
            for refusal in (
                refused(verifier, token(key=MALLORY)),
                refused(verifier, token(sub="mallory")),
                refused(verifier, token(exp=int(NOW) + TEN_YEARS)),
                refused(verifier, token(), certificate_der=None),
                refused(verifier, "nonsense"),
            )
        }
        assert len(told) == 1
        assert 'error="invalid_token"' in str(told)

    def test_a_lack_of_scope_says_which(self, verifier: Verifier) -> None:
        for scope in ("mcp:git", "mcp:time2", "xmcp:time", "mcp", ""):
            refusal = refused(verifier, token(scope=scope))
            assert (refusal.status, refusal.code) == (403, -32003)
            ((name, value),) = refusal.headers
            assert name == "WWW-Authenticate"
            assert 'error="insufficient_scope"' in value
            assert 'scope="mcp:time"' in value
            assert "resource_metadata=" in value

    def test_two_authorization_headers_are_refused(self) -> None:
        one = (b"authorization", b"Bearer a")
        assert access_tokens.authorization_header([(b"host", b"x"), one]) == "Bearer a"
        assert access_tokens.authorization_header([(b"host", b"x")]) is None
        with pytest.raises(Refusal) as caught:
            access_tokens.authorization_header([one, (b"authorization", b"Bearer b")])
        assert (caught.value.status, caught.value.reason) == (400, "authorization_repeated")

    @pytest.mark.parametrize("joined", ["{}, Bearer {}", "{},{}", "{} {}", "{};x", "x={}"])
    def test_headers_that_a_proxy_joined_are_refused(self, verifier: Verifier, joined: str) -> None:
        good = token()
        assert refused(verifier, joined.replace("{}", good)).reason == "token_malformed"


def test_an_issuer_without_keys_is_not_believed(tmp_path: Path) -> None:
    class Gone:
        def find(self, kid: str) -> PublicKey | None:
            raise KeysUnavailableError

    refusal = refused(make(tmp_path, keys=Gone()), token())
    assert (refusal.status, refusal.code, refusal.reason) == (503, -32006, "keys_unavailable")


@pytest.mark.parametrize("algorithms", [{"none"}, {"HS256"}, {"ES256", "HS256"}, {"RS512"}, set()])
def test_weak_algorithms_cannot_be_configured(algorithms: set[str]) -> None:
    with pytest.raises(ValueError, match="algorithms must be some of"):
        TrustedIssuer(ISSUER, Known(), frozenset(algorithms))


def test_an_algorithm_that_the_issuer_does_not_use_is_refused(tmp_path: Path) -> None:
    issuer = TrustedIssuer(ISSUER, Known(), frozenset({"ES256"}))
    verifier = Verifier([issuer], principals={"carol"}, state=tmp_path)
    assert verify(verifier, token())
    sent = token(key=KEYS["rsa"], algorithm="RS256")
    assert usual_verifier(sent)
    assert refused(verifier, sent).reason == "token_algorithm"


def test_keys_of_one_issuer_do_not_sign_for_another(tmp_path: Path) -> None:
    """Mallory runs a separate issuer, which is also trusted under its own name."""
    document = json.dumps({"keys": [MALLORY.as_dict(private=False) | {"kid": "m"}]}).encode()
    (tmp_path / "jwks.json").write_bytes(document)
    theirs = TrustedIssuer("https://other.example", FileKeys(tmp_path / "jwks.json"), ALGORITHMS)
    ours = TrustedIssuer(ISSUER, Known(), ALGORITHMS)
    verifier = Verifier([ours, theirs], principals={"carol"}, state=tmp_path)
    sent = token(key=MALLORY, header={"kid": "m"})
    assert verify(verifier, token(key=MALLORY, header={"kid": "m"}, iss="https://other.example"))
    assert refused(verifier, sent).reason == "token_unknown_key"
