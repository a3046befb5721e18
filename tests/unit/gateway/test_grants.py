"""Just-in-time grants: every attempt to get one without another person's approval, and the valid
way.

Where an attack deceives a plausible, simpler verifier, the test shows this first (`naive`).
"""

from __future__ import annotations

import base64
import errno
import hmac
import json
import multiprocessing
import os
import secrets
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st
from joserfc import jwk, jws

from ringfence.gateway.consent import documents, files, index, store
from ringfence.gateway.consent.documents import GrantApproval, GrantRequest, GrantRevocation
from ringfence.gateway.consent.store import Grants, Receipt
from ringfence.gateway.jose import signed_documents
from ringfence.gateway.jose.signed_documents import Roster
from ringfence.gateway.refusals import Refusal

NOW = int(time.time())
MINUTE = 60
HALF_AN_HOUR = 1800
CEILING = 3600
REQUEST, APPROVAL, REVOCATION = documents.FORMS
KINDS = (REQUEST, APPROVAL, REVOCATION)

TYPE_OF_KEY: dict[str, Literal["EC", "OKP", "RSA"]] = {**signed_documents.KEY_TYPES, "RS256": "RSA"}

CONFIGURATION = {
    "environment": "lab",
    "principals": {
        "carol": {"kind": "person", "owner": None},
        "dana": {"kind": "person", "owner": None},
        "erin": {"kind": "person", "owner": None},
        "frank": {"kind": "person", "owner": None},
        "robot": {"kind": "agent", "owner": "dana"},
        "other-robot": {"kind": "agent", "owner": "carol"},
    },
    "servers": {
        "sqlite": {
            "tools": {
                "read_query": {"sensitive": False},
                "write_query": {"sensitive": True, "approvers": ["dana", "erin", "other-robot"]},
                "create_table": {"sensitive": True, "approvers": ["frank"]},
                "lonely": {"sensitive": True, "approvers": ["carol"]},
            }
        },
        "git": {"tools": {"write_query": {"sensitive": True, "approvers": ["dana"]}}},
    },
}

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
WEEK = timedelta(days=7)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Issuer:
    """Our authority, or an attacker's."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, name: str = "lab", above: Issuer | None = None) -> Issuer:
        key = p256()
        certificate = _certificate(name, key, above, key, _authority=True)
        return cls(certificate, key)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def signer(self, name: str, key: Key | None = None, **how: Any) -> Signer:
        key = key or p256()
        how.setdefault("uris", (f"urn:ringfence:lab:principal:{name}",))
        return Signer(name, key, (_certificate(name, key, self, self.key, **how),))


@dataclass(frozen=True)
class Signer:
    name: str
    key: Key
    chain: tuple[x509.Certificate, ...]

    def sign(self, typ: str, claims: Mapping[str, Any] | bytes, **header: Any) -> bytes:
        public = self.key.public_key()
        protected = {
            "alg": signed_documents.algorithm_of(public),
            "typ": typ,
            "x5c": [
                base64.b64encode(c.public_bytes(serialization.Encoding.DER)).decode()
                for c in self.chain
            ],
        } | header
        payload = claims if isinstance(claims, bytes) else json.dumps(claims)
        pem = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        registry = jws.JWSRegistry(algorithms=[protected["alg"]], strict_check_header=False)
        key = jwk.import_key(pem, TYPE_OF_KEY[protected["alg"]])
        return jws.serialize_compact(protected, payload, key, registry=registry).encode()

    @property
    def thumbprint(self) -> str:
        """Return the certificate's thumbprint, x5t#S256."""
        digest = self.chain[0].fingerprint(hashes.SHA256())
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def request(self, **claims: Any) -> bytes:
        return self.sign(REQUEST, self.request_claims(**claims))

    def request_claims(self, **claims: Any) -> dict[str, Any]:
        return {
            "iss": f"urn:ringfence:lab:principal:{self.name}",
            "aud": "urn:ringfence:lab",
            "jti": secrets.token_hex(16),
            "iat": NOW,
            "nbf": NOW,
            "exp": NOW + HALF_AN_HOUR,
            "server": "sqlite",
            "tool": "write_query",
            "reason": "correct the addresses of ticket 4711",
        } | claims

    def answer_claims(self, request: bytes, **claims: Any) -> dict[str, Any]:
        original = documents.read(request)
        return {
            "iss": f"urn:ringfence:lab:principal:{self.name}",
            "aud": "urn:ringfence:lab",
            "iat": NOW,
            "request_id": original.claims["jti"],
            "request_digest": original.digest,
        } | claims

    def approve(self, request: bytes, **claims: Any) -> bytes:
        return self.sign(APPROVAL, self.answer_claims(request, **claims))

    def revoke(self, request: bytes, **claims: Any) -> bytes:
        return self.sign(REVOCATION, self.answer_claims(request, **claims))


def _certificate(
    name: str,
    key: Key,
    issuer: Issuer | Signer | None,
    issuer_key: Key,
    *,
    uris: tuple[str, ...] = (),
    start: float = NOW - 86400,
    end: float = NOW + 86400,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    _authority: bool = False,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    above = issuer.certificate if isinstance(issuer, Issuer) else issuer and issuer.chain[0]
    if _authority:
        start, end = NOW - 10 * 86400, NOW + 1000 * 86400
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above.subject if above else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at(start))
        .not_valid_after(at(end))
        .add_extension(x509.BasicConstraints(ca=_authority, path_length=None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                (above or key).public_key()  # pyright: ignore[reportArgumentType]
            ),
            critical=False,
        )
    )
    if _authority:
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        ).add_extension(
            x509.KeyUsage(False, False, False, False, False, True, True, False, False),
            critical=True,
        )
    else:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    signing = issuer.key if issuer else issuer_key
    algorithm = None if isinstance(signing, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signing, algorithm)


@cache
def authority() -> Issuer:
    return Issuer.create()


@cache
def person(name: str) -> Signer:
    return authority().signer(name)


@cache
def roster() -> Roster:
    return Roster.of(CONFIGURATION, authority().pem)


def naive(document: bytes) -> Mapping[str, Any]:
    """Verify a JWS as common code does: take the key from the header and check nothing else."""
    header = json.loads(unpart(document.split(b".")[0]))
    leaf = x509.load_der_x509_certificate(base64.b64decode(header["x5c"][0]))
    pem = leaf.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    registry = jws.JWSRegistry(algorithms=[header["alg"]], strict_check_header=False)
    registry.max_header_length = 1 << 16
    key = jwk.import_key(pem, TYPE_OF_KEY[header["alg"]])
    return json.loads(jws.deserialize_compact(document, key, registry=registry).payload)


def refused(reason: str, action: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        action()
    assert caught.value.reason == reason
    return caught.value


def verified(document: bytes) -> Any:
    return documents.verify(document, roster())


class Clock:
    """Monotonic clock that the test advances."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Gateway:
    """One process of a gateway."""

    directory: Path
    clock: Clock = field(default_factory=Clock)
    reported: list[str] = field(default_factory=list)
    roster: Roster = field(default_factory=roster)
    keep: float = 86400
    revoked: set[str] = field(default_factory=set)
    """Revoked principals and certificates."""

    def refuse_revoked(self, principal: str, certificate: str, now: float) -> None:
        if {principal, certificate} & self.revoked:
            raise Refusal("revoked")

    def __post_init__(self) -> None:
        self.grants = Grants(
            self.directory,
            self.roster,
            CEILING,
            keep=self.keep,
            refuse_revoked=self.refuse_revoked,
            report=self.reported.append,
            monotonic=self.clock,
        )

    def accept(self, document: bytes, now: float = NOW) -> Receipt:
        return self.grants.accept(document, now)

    def live(
        self,
        now: float = NOW,
        who: str = "carol",
        tool: str = "write_query",
        server: str = "sqlite",
    ) -> index.Grant | None:
        return self.grants.live(who, server, tool, now)

    def settle(self) -> None:
        """Advance the clock until the store no longer looks for recent changes."""
        self.live()
        self.clock.seconds += 1
        self.live()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "grants"


@pytest.fixture
def gateway(directory: Path) -> Gateway:
    return Gateway(directory)


def put(directory: Path, name: str, content: bytes) -> Path:
    """Create a file as another process, or an intruder, does: by a rename into place."""
    staged = directory / f".{name}.staged"
    staged.write_bytes(content)
    return staged.rename(directory / name)


def put_pair(directory: Path, request: bytes, approval: bytes, approver: str = "dana") -> str:
    id = documents.read(request).claims["jti"]
    put(directory, f"{id}.request", request)
    put(directory, f"{id}.approval.{approver}", approval)
    return id


class TestADocument:
    @pytest.mark.parametrize(
        ("key", "algorithm"),
        [
            (p256(), "ES256"),
            (ec.generate_private_key(ec.SECP384R1()), "ES384"),
            (ec.generate_private_key(ec.SECP521R1()), "ES512"),
            (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
            (rsa.generate_private_key(65537, 2048), "PS256"),
        ],
        ids=["P-256", "P-384", "P-521", "Ed25519", "RSA"],
    )
    def test_is_signed_with_any_usual_key(self, key: Key, algorithm: str):
        carol = authority().signer("carol", key)
        document = carol.request(jti="0" * 32)
        assert documents.read(document).algorithm == algorithm
        request = verified(document)
        assert request == GrantRequest(
            id="0" * 32,
            digest=documents.read(document).digest,
            principal="carol",
            server="sqlite",
            tool="write_query",
            reason="correct the addresses of ticket 4711",
            issued=NOW,
            start=NOW,
            end=NOW + HALF_AN_HOUR,
            certified_until=NOW + 86400,
            certificate=carol.thumbprint,
        )

    @pytest.mark.parametrize(
        "document",
        [
            b"",
            b"..",
            b"a.b",
            b"a.b.c",
            b"\xff\xfe\x00",
            b"x" * (signed_documents.DOCUMENT_BYTES + 1),
            b".".join(base64.urlsafe_b64encode(p).rstrip(b"=") for p in (b"[]", b"[]", b"s")),
            b".".join([base64.urlsafe_b64encode(b"[" * 6000)] * 2 + [b"s"]),
            person("carol").request() + b"\n",
            person("carol").sign(REQUEST, b"NaN"),
            person("carol").sign(REQUEST, b'{"iat": 1, "iat": 2}'),
        ],
        ids=[
            "empty",
            "dots",
            "two parts",
            "no base64",
            "bytes",
            "large",
            "arrays",
            "deep",
            "trailing line",
            "NaN",
            "key twice",
        ],
    )
    def test_that_is_none_is_refused(self, document: bytes):
        assert refused("malformed_document", lambda: verified(document)).status == 400

    @pytest.mark.parametrize(
        "claims",
        [
            {"jti": "../../../../etc/passwd"},
            {"jti": "0" * 31 + "/"},
            {"jti": "A" * 32},
            {"jti": "0" * 32 + "\n"},
            {"jti": "\u0660" * 32},
            {"jti": 7},
            {"exp": True},
            {"exp": float(NOW)},
            {"exp": str(NOW)},
            {"exp": -1},
            {"iat": 10**30},
            {"reason": None},
            {"crit": "x"},
        ],
        ids=lambda claims: " ".join(claims),
    )
    def test_has_its_claims_and_no_others(self, claims: dict[str, Any]):
        document = person("carol").request(**claims)
        assert naive_payload(document)["server"] == "sqlite"
        refused("malformed_document", lambda: verified(document))

    @pytest.mark.parametrize(
        "header",
        [
            {"typ": "JWT"},
            {"typ": REQUEST.upper()},
            {"typ": None},
            {"kid": "1"},
            {"jku": "https://evil.example"},
            {"x5c": []},
            {"x5c": "text"},
            {"x5c": [7]},
            {"x5c": ["AAAA"] * (signed_documents.CHAIN_LENGTH + 1)},
        ],
        ids=str,
    )
    def test_has_its_header_and_no_other(self, header: dict[str, Any]):
        parts = person("carol").request().split(b".")
        parts[0] = part(json.loads(unpart(parts[0])) | header)
        refused("malformed_document", lambda: verified(b".".join(parts)))

    @pytest.mark.parametrize("algorithm", ["none", "HS256", "RS256", "ES512", "EdDSA", 7, None])
    def test_is_not_signed_with_another_algorithm(self, algorithm: object):
        parts = person("carol").request().split(b".")
        parts[0] = part(json.loads(unpart(parts[0])) | {"alg": algorithm})
        refused("bad_signature", lambda: verified(b".".join(parts)))

    def test_is_not_signed_with_the_public_key_as_a_secret(self):
        carol = person("carol")
        parts = carol.request().split(b".")
        parts[0] = part(json.loads(unpart(parts[0])) | {"alg": "HS256"})
        secret = (
            carol.chain[0]
            .public_key()
            .public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        signature = hmac.digest(secret, b".".join(parts[:2]), "sha256")
        parts[2] = base64.urlsafe_b64encode(signature).rstrip(b"=")
        refused("bad_signature", lambda: verified(b".".join(parts)))

    def test_is_not_signed_with_rsa_in_its_old_padding(self):
        carol = authority().signer("carol", rsa.generate_private_key(65537, 2048))
        document = carol.sign(REQUEST, carol.request_claims(), alg="RS256")
        assert naive(document)
        refused("bad_signature", lambda: verified(document))

    def test_is_not_another_once_it_is_signed(self):
        request = person("carol").request()
        parts = request.split(b".")
        claims = json.loads(unpart(parts[1])) | {"tool": "create_table"}
        refused("bad_signature", lambda: verified(b".".join((parts[0], part(claims), parts[2]))))

    def test_signed_with_a_key_that_the_certificate_does_not_have(self):
        thief = replace(person("dana"), key=p256())
        refused("bad_signature", lambda: verified(thief.approve(person("carol").request())))

    def test_says_nothing_twice(self):
        """Parsers differ in which of two members they use."""
        carol = person("carol")
        text = json.dumps(carol.request_claims())
        twice = text.replace('"tool":', '"tool": "create_table", "tool":').encode()
        document = carol.sign(REQUEST, twice)
        assert naive(document)["tool"] == "write_query"
        refused("malformed_document", lambda: verified(document))

    def test_of_another_environment(self):
        document = person("carol").request(aud="urn:ringfence:production")
        assert naive(document)
        refused("wrong_environment", lambda: verified(document))

    def test_in_the_name_of_somebody_else(self):
        document = person("carol").request(iss="urn:ringfence:lab:principal:erin")
        assert naive(document)["iss"].endswith("erin")
        refused("wrong_issuer", lambda: verified(document))

    def test_of_one_kind_never_passes_for_another(self):
        """A revocation has the same claims as an approval; only its type differs."""
        request = person("carol").request()
        claims = person("dana").answer_claims(request)
        revocation = person("dana").sign(REVOCATION, claims)
        assert naive(revocation) == naive(person("dana").sign(APPROVAL, claims))
        assert isinstance(verified(revocation), GrantRevocation)
        parts = revocation.split(b".")
        parts[0] = part(json.loads(unpart(parts[0])) | {"typ": APPROVAL})
        refused("bad_signature", lambda: verified(b".".join(parts)))

    @pytest.mark.parametrize("typ", [APPROVAL, REVOCATION])
    def test_with_the_claims_of_another_kind(self, typ: str):
        refused(
            "malformed_document",
            lambda: verified(person("carol").sign(typ, person("carol").request_claims())),
        )

    @given(st.data())
    @settings(max_examples=150)
    def test_with_any_byte_changed_says_the_same_or_nothing(self, data: st.DataObject):
        document = example_request()
        place = data.draw(st.integers(0, len(document) - 1))
        other = data.draw(st.integers(0, 255))
        changed = document[:place] + bytes([other]) + document[place + 1 :]
        try:
            result = verified(changed)
        except Refusal:
            return
        # Base64 has spare bits at the end of a signature; the digest omits them.
        assert result == verified(document)

    @given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
    @example(b"e30.e30.e30")
    def test_of_any_bytes_is_refused_and_nothing_else_happens(self, document: bytes):
        with pytest.raises(Refusal):
            verified(document)

    @given(
        st.dictionaries(
            st.sampled_from(["iss", "aud", "jti", "iat", "nbf", "exp", "server", "x"]),
            st.none()
            | st.booleans()
            | st.integers()
            | st.text()
            | st.floats()
            | st.lists(st.none()),
        )
    )
    def test_of_any_claims_is_refused_and_nothing_else_happens(self, claims: dict[str, Any]):
        document = person("carol").sign(REQUEST, person("carol").request_claims(**claims))
        try:
            request = verified(document)
        except Refusal:
            return
        assert request.principal == "carol"
        assert type(request.end) is int


@cache
def example_request() -> bytes:
    return person("carol").request()


def part(value: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def unpart(segment: bytes) -> bytes:
    return base64.urlsafe_b64decode(segment + b"==")


def naive_payload(document: bytes) -> Mapping[str, Any]:
    """Return the payload that a verifier without a schema would use."""
    return json.loads(unpart(document.split(b".")[1]))


class TestACertificate:
    def test_of_another_authority_with_the_same_names(self):
        forged = Issuer.create().signer("dana").approve(person("carol").request())
        assert naive(forged)["iss"] == "urn:ringfence:lab:principal:dana"
        refused("untrusted_certificate", lambda: verified(forged))

    def test_of_another_authority_that_is_sent_along(self):
        other = Issuer.create()
        signer = other.signer("dana")
        signer = replace(signer, chain=(*signer.chain, other.certificate))
        forged = signer.approve(person("carol").request())
        refused("untrusted_certificate", lambda: verified(forged))

    def test_issued_by_a_principal(self):
        carol = person("carol")
        key = p256()
        made = _certificate(
            "dana", key, carol, carol.key, uris=("urn:ringfence:lab:principal:dana",)
        )
        forged = Signer("dana", key, (made, *carol.chain)).approve(carol.request())
        assert naive(forged)
        refused("untrusted_certificate", lambda: verified(forged))

    def test_of_a_sibling_of_the_environments_authority(self):
        """The file also holds the root, which TLS needs; the root's other authorities are not
        ours."""
        root = Issuer.create("company root")
        ours, theirs = Issuer.create("lab", root), Issuer.create("another", root)
        both = ours.pem + root.pem
        documented = Roster.of(CONFIGURATION, both)
        careless = replace(documented, anchors=tuple(x509.load_pem_x509_certificates(both)))
        signer = theirs.signer("dana")
        signer = replace(signer, chain=(*signer.chain, theirs.certificate))
        forged = signer.approve(person("carol").request())
        assert isinstance(documents.verify(forged, careless), GrantApproval)
        refused("untrusted_certificate", lambda: documents.verify(forged, documented))
        assert documents.verify(ours.signer("carol").request(), documented)

    def test_of_either_authority_during_a_change(self):
        new = Issuer.create()
        both = Roster.of(CONFIGURATION, authority().pem + new.pem)
        assert documents.verify(person("carol").request(), both)
        assert documents.verify(new.signer("carol").request(), both)

    @pytest.mark.parametrize(
        "how",
        [
            {"uris": ("urn:ringfence:lab:host:dana",)},
            {"uris": ("urn:ringfence:production:principal:dana",)},
            {"uris": ("urn:ringfence:lab:principal:dana", "urn:ringfence:lab:principal:carol")},
            {"uris": ("https://dana.example",)},
            {"uris": ()},
            {"usage": ExtendedKeyUsageOID.SERVER_AUTH},
            {"start": NOW + 60},
            {"end": NOW - 60},
        ],
        ids=["host", "environment", "two", "web", "none", "server", "not yet", "expired"],
    )
    def test_that_is_no_principals_of_this_environment_now(self, how: dict[str, Any]):
        document = authority().signer("dana", **how).approve(person("carol").request())
        assert naive(document)
        refused("untrusted_certificate", lambda: verified(document))

    def test_of_somebody_who_left(self):
        refused("unknown_principal", lambda: verified(authority().signer("mallory").request()))

    def test_that_expired_signs_nothing_by_being_backdated(self, gateway: Gateway):
        expired = authority().signer("dana", end=NOW - 60)
        request = person("carol").request(iat=NOW - 300, nbf=NOW - 300)
        gateway.accept(request)
        approval = expired.approve(request, iat=NOW - 120)
        assert verified(approval).signer == "dana"
        refused("certificate_expired", lambda: gateway.accept(approval))
        put_pair(gateway.directory, request, approval)
        assert gateway.live() is None

    def test_tells_who_visits(self):
        der = person("dana").chain[0].public_bytes(serialization.Encoding.DER)
        assert roster().principal_of(der) == "dana"
        refused("untrusted_certificate", lambda: roster().principal_of(b"garbage"))
        nameless = authority().signer("dana", uris=()).chain[0]
        der = nameless.public_bytes(serialization.Encoding.DER)
        refused("untrusted_certificate", lambda: roster().principal_of(der))

    def test_there_must_be_an_authority(self):
        with pytest.raises(ValueError, match="Unable to load PEM file"):
            Roster.of(CONFIGURATION, b"")


class TestARequest:
    @pytest.mark.parametrize(
        ("claims", "reason"),
        [
            ({"tool": "read_query"}, "tool_not_sensitive"),
            ({"tool": "nothing"}, "tool_not_sensitive"),
            ({"server": "time"}, "tool_not_sensitive"),
            ({"tool": "../write_query"}, "tool_not_sensitive"),
            ({"tool": "lonely"}, "no_approver"),
            ({"reason": ""}, "bad_reason"),
            ({"reason": "too short"}, "bad_reason"),
            ({"reason": " " * 20}, "bad_reason"),
            ({"reason": "x" * 501}, "bad_reason"),
            ({"reason": "first line\nsecond line"}, "bad_reason"),
            ({"reason": "invisible\u202e in a terminal"}, "bad_reason"),
            ({"reason": "escape \x1b[2J in a terminal"}, "bad_reason"),
            ({"reason": "half of a pair \ud83d"}, "bad_reason"),
            ({"exp": NOW + CEILING + 1}, "too_long"),
            ({"exp": NOW + 10 * 365 * 86400}, "too_long"),
            ({"exp": NOW}, "too_short"),
            ({"exp": NOW - 60}, "too_short"),
            ({"nbf": NOW + 3601, "exp": NOW + 3700}, "bad_start"),
            ({"nbf": NOW - 60}, "bad_start"),
            ({"iat": NOW + 31, "nbf": NOW + 31}, "issued_in_future"),
            ({"iat": NOW - 600, "nbf": NOW - 600, "exp": NOW}, "expired"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_that_may_not_be(
        self, gateway: Gateway, directory: Path, claims: dict[str, Any], reason: str
    ):
        """Neither over the API nor as a file, even if an approver approves it."""
        request = person("carol").request(**claims)
        assert naive(request)
        refused(reason, lambda: gateway.accept(request))
        assert not list(directory.glob("*.request"))
        put_pair(directory, request, person("dana").approve(request))
        claimed = documents.read(request).claims
        assert gateway.live(who="carol", tool=claimed["tool"], server=claimed["server"]) is None

    @pytest.mark.parametrize(
        "claims",
        [
            {"reason": "x" * 10},
            {"reason": "\u00e9l\u00e8ve n\u00ba 7 \u2014 \u6f22\u5b57 in the ticket"},
            {"reason": "x" * 500},
            {"exp": NOW + CEILING},
            {"exp": NOW + 60},
            {"nbf": NOW + 3600, "exp": NOW + 7200},
            {"iat": NOW + 30, "nbf": NOW + 30},
        ],
        ids=["short", "letters", "long", "ceiling", "minute", "later", "skew"],
    )
    def test_at_the_edge_of_what_may_be(self, gateway: Gateway, claims: dict[str, Any]):
        assert gateway.accept(person("carol").request(**claims)).new

    def test_that_nobody_but_the_owner_of_the_agent_could_approve(self, gateway: Gateway):
        request = person("robot").request(server="git")
        refused("no_approver", lambda: gateway.accept(request))

    def test_under_an_id_that_is_taken(self, gateway: Gateway):
        """An attacker who knows an id cannot replace the request that is approved under it."""
        first, second = (person(n).request(jti="a" * 32) for n in ("carol", "erin"))
        gateway.accept(first)
        assert refused("id_taken", lambda: gateway.accept(second)).status == 409
        assert (gateway.directory / f"{'a' * 32}.request").read_bytes() == first

    def test_too_many_of_one_principal(self, gateway: Gateway):
        requests = [person("carol").request() for _ in range(store.OPEN_REQUESTS_EACH)]
        for request in requests:
            gateway.accept(request)
        refusal = refused("too_many_requests", lambda: gateway.accept(person("carol").request()))
        assert refusal.status == 429
        assert dict(refusal.headers)["Retry-After"]
        assert gateway.accept(person("erin").request()).new
        # Existing requests can still be approved and revoked, which frees places.
        gateway.accept(person("dana").approve(requests[0]))
        gateway.accept(person("dana").revoke(requests[1]))
        assert gateway.accept(person("carol").request()).new

    def test_that_are_revoked_at_once_do_not_fill_the_disk(
        self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(store, "REQUESTS_EACH", 3)
        for _ in range(3):
            request = person("carol").request()
            gateway.accept(request)
            gateway.accept(person("carol").revoke(request))
        refused("too_many_requests", lambda: gateway.accept(person("carol").request()))
        assert gateway.accept(person("erin").request()).new

    def test_too_many_altogether(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(store, "REQUESTS", 2)
        for name in ("carol", "erin"):
            gateway.accept(person(name).request())
        refused("too_many_requests", lambda: gateway.accept(person("frank").request()))


class TestAnApproval:
    @pytest.mark.parametrize("who", ["carol", "dana"])
    @pytest.mark.parametrize("what", ["principal", "certificate"])
    def test_counts_only_while_neither_signer_is_revoked(
        self, gateway: Gateway, who: str, what: str
    ):
        request = person("carol").request()
        gateway.accept(request)
        gateway.accept(person("dana").approve(request))
        assert gateway.live()
        gateway.revoked = {who if what == "principal" else person(who).thumbprint}
        assert gateway.live() is None
        gateway.revoked = set()
        assert gateway.live()

    def test_by_a_revoked_signer_is_refused(self, gateway: Gateway):
        request = person("carol").request()
        gateway.accept(request)
        gateway.revoked = {person("dana").thumbprint}
        refused("revoked", lambda: gateway.accept(person("dana").approve(request)))
        gateway.revoked = {"carol"}
        refused("revoked", lambda: gateway.accept(person("carol").request()))

    def test_by_an_approver_makes_a_grant(self, gateway: Gateway):
        request = person("carol").request()
        receipt = gateway.accept(request)
        assert gateway.live() is None
        approved = gateway.accept(person("dana").approve(request))
        grant = gateway.live()
        assert grant == index.Grant(
            receipt.id,
            "carol",
            "sqlite",
            "write_query",
            "dana",
            "correct the addresses of ticket 4711",
            NOW,
            NOW + HALF_AN_HOUR,
            (("carol", person("carol").thumbprint), ("dana", person("dana").thumbprint)),
        )
        assert (receipt.step, receipt.actor, receipt.new) == ("requested", "carol", True)
        assert (approved.step, approved.actor, approved.principal) == ("approved", "dana", "carol")
        assert (
            json.loads(json.dumps(approved.as_json()))["request_digest"] == receipt.request_digest
        )
        assert gateway.reported == []

    def test_is_for_one_tool_of_one_server_and_one_principal(self, gateway: Gateway):
        request = person("carol").request()
        put_pair(gateway.directory, request, person("dana").approve(request))
        assert gateway.live()
        assert gateway.live(who="erin") is None
        assert gateway.live(who="urn:ringfence:lab:principal:carol") is None
        assert gateway.live(tool="create_table") is None
        assert gateway.live(server="git") is None

    @pytest.mark.parametrize(
        ("asking", "approving", "reason"),
        [
            (person("erin"), person("erin"), "self_approval"),
            (person("erin"), authority().signer("erin"), "self_approval"),
            (person("robot"), person("robot"), "self_approval"),
            (person("robot"), person("dana"), "own_agent"),
            (person("carol"), person("other-robot"), "approver_not_a_person"),
            (person("carol"), person("frank"), "not_an_approver"),
        ],
        ids=["self", "two certificates", "agent", "own agent", "by an agent", "another tool's"],
    )
    def test_by_somebody_who_may_not(
        self, gateway: Gateway, asking: Signer, approving: Signer, reason: str
    ):
        request = asking.request()
        gateway.accept(request)
        approval = approving.approve(request)
        assert naive(approval)["request_id"] == documents.read(request).claims["jti"]
        assert refused(reason, lambda: gateway.accept(approval)).status == 403
        put_pair(gateway.directory, request, approval, approving.name)
        assert gateway.live(who=asking.name) is None

    def test_of_a_request_that_was_exchanged_afterwards(self, gateway: Gateway):
        """The intruder on the host is a principal too, and can sign any request."""
        carol = person("carol")
        shown = carol.request(jti="b" * 32, exp=NOW + MINUTE)
        wanted = carol.request(jti="b" * 32)
        approval = person("dana").approve(shown)
        assert naive(approval)["request_id"] == naive(wanted)["jti"]
        put_pair(gateway.directory, wanted, approval)
        assert gateway.live() is None
        assert any("wrong_request" in line for line in gateway.reported)
        refused("wrong_request", lambda: gateway.accept(approval))

    def test_is_not_moved_to_another_request(self, gateway: Gateway):
        approved, wanted = person("carol").request(), person("carol").request(tool="write_query")
        approval = person("dana").approve(approved)
        put_pair(gateway.directory, wanted, approval)
        assert gateway.live() is None

    def test_holds_for_a_second_signature_that_anybody_can_make(self, gateway: Gateway):
        """If ECDSA signature (r, s) verifies, so does (r, n - s): another file, the same
        request."""
        request = person("carol").request()
        head, _, signature = request.rpartition(b".")
        order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
        raw = unpart(signature)
        mirrored = raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32)
        twin = head + b"." + base64.urlsafe_b64encode(mirrored).rstrip(b"=")
        assert naive(twin) == naive(request)
        gateway.accept(twin)
        assert not gateway.accept(request).new
        gateway.accept(person("dana").approve(request))
        assert gateway.live()

    @pytest.mark.parametrize(
        ("iat", "reason"),
        [(NOW - 31, "bad_time"), (NOW + 31, "issued_in_future")],
        ids=["before the request", "in future"],
    )
    def test_at_another_time(self, gateway: Gateway, iat: int, reason: str):
        request = person("carol").request()
        gateway.accept(request)
        refused(reason, lambda: gateway.accept(person("dana").approve(request, iat=iat)))

    def test_that_comes_after_the_end(self, gateway: Gateway):
        request = person("carol").request()
        gateway.accept(request)
        approval = person("dana").approve(request, iat=NOW + HALF_AN_HOUR - 1)
        end = NOW + HALF_AN_HOUR
        refused("expired", lambda: gateway.accept(approval, end))
        put_pair(gateway.directory, request, approval)
        assert gateway.live(end) is None

    @pytest.mark.parametrize(
        ("iat", "now"),
        [(NOW, NOW + HALF_AN_HOUR), (NOW + HALF_AN_HOUR, NOW + HALF_AN_HOUR - 1)],
        ids=["arrives late", "signed late"],
    )
    def test_is_judged_by_itself(self, iat: int, now: int):
        """The command checks an approval alone, and refuses it as well."""
        document = person("carol").request()
        request, approval = verified(document), verified(person("dana").approve(document, iat=iat))
        documents.check_approval(replace(approval, issued=NOW), request, roster(), NOW)
        refused("expired", lambda: documents.check_approval(approval, request, roster(), now))

    def test_of_what_is_not_there(self, gateway: Gateway):
        approval = person("dana").approve(person("carol").request())
        assert refused("unknown_request", lambda: gateway.accept(approval)).status == 404

    def test_by_another_approver_stands_in_for_one_that_does_not_count(self, gateway: Gateway):
        request = person("carol").request()
        id = put_pair(gateway.directory, request, b"garbage", "dana")
        assert gateway.live() is None
        gateway.accept(person("erin").approve(request))
        grant = gateway.live()
        assert grant
        assert grant.approver == "erin"
        # The invalid file does not prevent dana's approval.
        assert gateway.accept(person("dana").approve(request)).new
        assert (gateway.directory / f"{id}.approval.dana").read_bytes() != b"garbage"

    def test_counts_only_while_its_signer_may_approve(self, gateway: Gateway):
        request = person("carol").request()
        put_pair(gateway.directory, request, person("dana").approve(request))
        assert gateway.live()
        fewer = replace(roster(), approvers={("sqlite", "write_query"): frozenset({"erin"})})
        gateway.grants.reconfigure(fewer, CEILING)
        assert gateway.live() is None
        gateway.grants.reconfigure(replace(roster(), approvers={}), CEILING)
        assert gateway.live() is None
        gateway.grants.reconfigure(roster(), HALF_AN_HOUR - 1)
        assert gateway.live() is None
        gateway.grants.reconfigure(roster(), CEILING)
        assert gateway.live()


@pytest.fixture
def granted(gateway: Gateway) -> bytes:
    """Create a request and approve it."""
    request = person("carol").request()
    gateway.accept(request)
    gateway.accept(person("dana").approve(request))
    assert gateway.live()
    return request


class TestTime:
    END = NOW + HALF_AN_HOUR

    def test_a_grant_holds_until_the_very_second(self, gateway: Gateway, granted: bytes):
        assert gateway.live(self.END - 0.001)
        assert gateway.live(self.END) is None

    def test_a_grant_begins_when_it_was_asked_to(self, gateway: Gateway):
        request = person("carol").request(nbf=NOW + 600)
        put_pair(gateway.directory, request, person("dana").approve(request))
        assert gateway.live(NOW + 599.9) is None
        assert gateway.live(NOW + 600)

    @pytest.mark.parametrize("whose", ["carol", "dana"])
    def test_a_grant_ends_with_the_certificates_it_was_signed_with(
        self, gateway: Gateway, whose: str
    ):
        soon = authority().signer(whose, end=NOW + 300)
        request = (soon if whose == "carol" else person("carol")).request()
        gateway.accept(request)
        gateway.accept((soon if whose == "dana" else person("dana")).approve(request))
        assert gateway.live(NOW + 299)
        assert gateway.live(NOW + 300) is None

    def test_a_clock_set_back_does_not_revive_what_was_seen_to_end(
        self, gateway: Gateway, granted: bytes
    ):
        assert gateway.live(self.END) is None
        assert gateway.live(self.END - 600) is None

    def test_a_clock_set_back_unnoticed_does_not_lengthen_a_grant(
        self, gateway: Gateway, granted: bytes
    ):
        gateway.clock.seconds += HALF_AN_HOUR
        assert gateway.live(self.END - 600) is None

    def test_nor_does_it_let_in_a_document_that_never_was_here(self, gateway: Gateway):
        gateway.live(NOW)
        gateway.clock.seconds += HALF_AN_HOUR
        request = person("carol").request()
        refused("expired", lambda: gateway.accept(request, NOW))
        put_pair(gateway.directory, request, person("dana").approve(request))
        assert gateway.live(NOW) is None

    def test_a_clock_that_jumped_ahead_costs_the_grants_of_then_and_no_others(
        self, gateway: Gateway, granted: bytes
    ):
        assert gateway.live(NOW + 86400) is None
        gateway.clock.seconds += 60
        assert gateway.live(NOW + 60) is None
        request = person("carol").request(iat=NOW + 60, nbf=NOW + 60)
        put_pair(gateway.directory, request, person("dana").approve(request, iat=NOW + 60))
        assert gateway.live(NOW + 60)

    def test_what_a_lagging_clock_did_not_believe_is_believed_in_time(self, gateway: Gateway):
        request = person("carol").request(iat=NOW + 60, nbf=NOW + 60)
        put_pair(gateway.directory, request, person("dana").approve(request, iat=NOW + 60))
        assert gateway.live(NOW) is None
        gateway.clock.seconds += 60
        assert gateway.live(NOW + 60)


class TestARevocation:
    @pytest.mark.parametrize("who", ["carol", "dana", "erin"])
    def test_by_who_asked_and_by_any_approver(self, gateway: Gateway, granted: bytes, who: str):
        event = gateway.accept(person(who).revoke(granted))
        assert (event.step, event.actor, event.new) == ("revoked", who, True)
        assert gateway.live() is None
        assert not gateway.accept(person(who).revoke(granted)).new

    def test_by_anybody_else(self, gateway: Gateway, granted: bytes):
        for who in ("frank", "robot"):
            document = person(who).revoke(granted)
            refused("not_a_revoker", lambda document=document: gateway.accept(document))
        assert gateway.live()

    def test_by_an_approver_who_is_none_any_more(self, gateway: Gateway, granted: bytes):
        fewer = {("sqlite", "write_query"): frozenset({"erin"})}
        gateway.grants.reconfigure(replace(roster(), approvers=fewer), CEILING)
        assert gateway.accept(person("dana").revoke(granted)).new

    def test_of_another_request(self, gateway: Gateway, granted: bytes):
        id = documents.read(granted).claims["jti"]
        document = person("dana").revoke(person("carol").request(), request_id=id)
        refused("wrong_request", lambda: gateway.accept(document))
        assert gateway.live()

    def test_before_the_approval(self, gateway: Gateway):
        request = person("carol").request()
        gateway.accept(request)
        gateway.accept(person("erin").revoke(request))
        refused("revoked", lambda: gateway.accept(person("dana").approve(request)))
        refused("revoked", lambda: gateway.accept(request))
        assert gateway.live() is None

    @pytest.mark.parametrize("order", ["qar", "qra", "raq", "rqa", "arq", "aqr"])
    def test_wins_whatever_arrives_first(self, directory: Path, gateway: Gateway, order: str):
        request = person("carol").request()
        id = documents.read(request).claims["jti"]
        files = {
            "q": ("request", request),
            "a": ("approval.dana", person("dana").approve(request)),
            "r": ("revocation", person("erin").revoke(request)),
        }
        for letter in order:
            suffix, content = files[letter]
            put(directory, f"{id}.{suffix}", content)
            alive = gateway.live() is not None
            assert alive == (
                set("qa") <= set(order[: order.index(letter) + 1])
                and letter != "r"
                and "r" not in order[: order.index(letter)]
            )
        assert gateway.live() is None
        assert Gateway(directory).live() is None

    def test_that_is_damaged_still_revokes(self, gateway: Gateway, granted: bytes):
        id = documents.read(granted).claims["jti"]
        put(gateway.directory, f"{id}.revocation", b"")
        assert gateway.live() is None
        assert Gateway(gateway.directory).live() is None

    def test_that_is_deleted_stays_in_force(self, gateway: Gateway, granted: bytes):
        gateway.accept(person("dana").revoke(granted))
        assert gateway.live() is None
        next(gateway.directory.glob("*.revocation")).unlink()
        assert gateway.live() is None
        gateway.grants.reconfigure(roster(), CEILING)
        assert gateway.live() is None

    def test_that_was_forgotten_counts_while_it_is_there(
        self, gateway: Gateway, granted: bytes, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(index, "REMEMBERED", 1)
        gateway.accept(person("dana").revoke(granted))
        put(gateway.directory, f"{'e' * 32}.revocation", b"")
        put(gateway.directory, f"{'f' * 32}.revocation", b"")
        assert gateway.live() is None

    def test_after_the_end(self, gateway: Gateway, granted: bytes):
        end = NOW + HALF_AN_HOUR
        refused("expired", lambda: gateway.accept(person("dana").revoke(granted, iat=end), end))


class TestTheDirectory:
    def test_a_grant_survives_the_process(self, gateway: Gateway, granted: bytes):
        assert Gateway(gateway.directory).live()

    def test_another_process_sees_a_change_at_once(self, gateway: Gateway):
        other = Gateway(gateway.directory)
        other.settle()
        request = person("carol").request()
        gateway.accept(request)
        gateway.accept(person("dana").approve(request))
        assert other.live()
        gateway.accept(person("dana").revoke(request))
        assert other.live() is None

    def test_a_change_within_one_tick_of_the_clock_is_seen(self, directory: Path, gateway: Gateway):
        """The directory's time stamp is unchanged, so the gateway reads again for a while."""
        request = person("carol").request()
        id = put_pair(directory, request, person("dana").approve(request))
        assert gateway.live()
        stamp = directory.stat().st_mtime_ns
        gateway.clock.seconds += 0.01
        put(directory, f"{id}.revocation", person("dana").revoke(request))
        os.utime(directory, ns=(stamp, stamp))
        assert gateway.live() is None

    def test_files_are_whole_private_and_nothing_else_is_left(
        self, gateway: Gateway, granted: bytes
    ):
        files = [p for p in gateway.directory.iterdir() if p.is_file()]
        assert sorted(p.suffixes[0] for p in files) == [".approval", ".request"]
        assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o640}
        assert {p.stat().st_nlink for p in files} == {1}

    def test_what_is_here_is_accepted_again(self, gateway: Gateway, granted: bytes):
        before = {p.name: p.stat().st_mtime_ns for p in gateway.directory.iterdir()}
        assert not gateway.accept(granted).new
        assert not gateway.accept(person("dana").approve(granted, iat=NOW + 1)).new
        assert {p.name: p.stat().st_mtime_ns for p in gateway.directory.iterdir()} == before

    @pytest.mark.parametrize("call", ["fsync", "link", "open"])
    def test_a_full_disk_stores_nothing_and_says_so(
        self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, call: str
    ):
        real = getattr(os, call)

        def full(*args: Any, **more: Any) -> Any:
            if call == "open" and not args[1] & os.O_CREAT:
                return real(*args, **more)
            raise OSError(errno.ENOSPC, "No space left on device")

        gateway.grants.sweep(NOW)
        monkeypatch.setattr(os, call, full)
        refusal = refused("grants_unavailable", lambda: gateway.accept(person("carol").request()))
        monkeypatch.undo()
        assert refusal.status == 503
        assert "space" in gateway.reported[0]
        assert [p.name for p in gateway.directory.iterdir()] == [files.EXPIRED]

    def test_that_is_missing_holds_no_grants(self, tmp_path: Path):
        gateway = Gateway(tmp_path / "not" / "there")
        assert gateway.live() is None
        assert gateway.live() is None
        assert len(gateway.reported) == 1
        refused("grants_unavailable", lambda: gateway.accept(person("carol").request()))

    def test_that_goes_away_takes_the_grants_with_it(self, gateway: Gateway, granted: bytes):
        away = gateway.directory.rename(gateway.directory.with_name("away"))
        assert gateway.live() is None
        away.rename(gateway.directory)
        assert gateway.live()

    def test_an_approval_that_is_deleted_grants_no_more(self, gateway: Gateway, granted: bytes):
        next(gateway.directory.glob("*.approval.*")).unlink()
        assert gateway.live() is None

    def test_a_request_that_is_deleted_grants_no_more(self, gateway: Gateway, granted: bytes):
        next(gateway.directory.glob("*.request")).unlink()
        assert gateway.live() is None

    @pytest.mark.parametrize("which", ["request", "approval.dana"])
    @pytest.mark.parametrize(
        "what", ["link", "pipe", "directory", "large", "half", "empty", "dangling"]
    )
    def test_what_is_no_whole_file_grants_nothing(
        self, directory: Path, gateway: Gateway, tmp_path: Path, which: str, what: str
    ):
        request = person("carol").request()
        id = documents.read(request).claims["jti"]
        content = {"request": request, "approval.dana": person("dana").approve(request)}
        for suffix, document in content.items():
            path = directory / f"{id}.{suffix}"
            if suffix != which:
                put(directory, path.name, document)
            elif what == "link":
                (tmp_path / "elsewhere").write_bytes(document)
                path.symlink_to(tmp_path / "elsewhere")
            elif what == "dangling":
                path.symlink_to("/nonexistent")
            elif what == "pipe":
                os.mkfifo(path)
            elif what == "directory":
                path.mkdir()
            elif what == "large":
                put(directory, path.name, document + b" " * signed_documents.DOCUMENT_BYTES)
            else:
                put(directory, path.name, document[: len(document) // 2 if what == "half" else 0])
        for _ in range(3):
            gateway.settle()
            assert gateway.live() is None
        assert len(gateway.reported) == 1, gateway.reported
        assert which in gateway.reported[0]
        if what != "directory":
            put(directory, f"{id}.{which}", content[which])
            assert gateway.live()

    def test_a_file_that_is_completed_in_place_counts_with_the_next_change(
        self, directory: Path, gateway: Gateway
    ):
        request = person("carol").request()
        id = documents.read(request).claims["jti"]
        put(directory, f"{id}.request", request[:100])
        put(directory, f"{id}.approval.dana", person("dana").approve(request))
        gateway.settle()
        assert gateway.live() is None
        (directory / f"{id}.request").write_bytes(request)
        put(directory, "anything", b"")
        assert gateway.live()

    @pytest.mark.parametrize(
        "name",
        [
            "{id}.request.bak",
            "{ID}.request",
            "{id}.REQUEST",
            "x{id}.request",
            "{id}.approval",
            "{id}.approval.",
            "{id}.approval.Dana",
            "{id}.approval.dana.dana",
            "{id}.request\n",
            "notes.txt",
        ],
    )
    def test_names_of_no_document_are_ignored_and_reported_once(
        self, directory: Path, gateway: Gateway, name: str
    ):
        request = person("carol").request(jti="c" * 32)
        id = put_pair(directory, request, person("dana").approve(request))
        (directory / f"{id}.request").rename(directory / "renamed")
        (directory / "renamed").rename(directory / name.format(id=id, ID=id.upper()))
        for _ in range(3):
            gateway.settle()
        assert gateway.live() is None
        assert len(gateway.reported) == 1
        assert gateway.reported[0].isprintable()

    def test_a_document_under_another_name_grants_nothing(self, directory: Path, gateway: Gateway):
        request = person("carol").request()
        approval = person("erin").approve(request)
        put_pair(directory, request, approval, approver="dana")
        assert gateway.live() is None
        other = "d" * 32
        put(directory, f"{other}.request", request)
        put(directory, f"{other}.approval.erin", approval)
        assert gateway.live() is None
        assert len(gateway.reported) == 2

    def test_a_request_that_is_overwritten_is_not_taken_for_what_it_was(
        self, directory: Path, gateway: Gateway
    ):
        """The overwrite does not change the directory; then an approval of the new request
        arrives."""
        path = put(directory, f"{'a' * 32}.request", person("carol").request(jti="a" * 32))
        gateway.settle()
        other = person("erin").request(jti="a" * 32)
        path.write_bytes(other)
        put(directory, f"{'a' * 32}.approval.dana", person("dana").approve(other))
        assert gateway.live() is None

    def test_a_revoked_request_does_not_live_on_under_another_id(
        self, directory: Path, gateway: Gateway
    ):
        path = put(directory, f"{'a' * 32}.request", person("carol").request(jti="a" * 32))
        gateway.settle()
        revoked = person("carol").request(jti="b" * 32)
        put(directory, f"{'b' * 32}.request", revoked)
        put(directory, f"{'b' * 32}.revocation", person("dana").revoke(revoked))
        path.write_bytes(revoked)
        put(directory, f"{'a' * 32}.approval.dana", person("dana").approve(revoked))
        assert gateway.live() is None

    def test_a_request_in_place_of_an_approval_and_the_reverse(
        self, directory: Path, gateway: Gateway
    ):
        request = person("carol").request()
        approval = person("dana").approve(request)
        put_pair(directory, request, person("dana").request())
        assert gateway.live() is None
        id = documents.read(request).claims["jti"]
        put(directory, f"{id}.request", approval)
        put(directory, f"{id}.approval.dana", approval)
        assert gateway.live() is None

    def test_ten_thousand_files_hide_nothing(self, directory: Path, gateway: Gateway):
        """Half of them have names of documents, half do not; the gateway finds the one that
        counts."""
        for number in range(5000):
            (directory / f"junk-{number}").touch()
            (directory / f"{number:032x}.request").touch()
        request = person("carol").request()
        put_pair(directory, request, person("dana").approve(request))
        assert gateway.live()
        gateway.settle()
        gateway.accept(person("erin").revoke(request))
        assert gateway.live() is None
        assert len(gateway.reported) < 50
        fresh = Gateway(directory)
        assert fresh.live() is None

    def test_what_is_unreadable_is_not_read_again_when_nothing_changed(
        self, directory: Path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ):
        put(directory, f"{'a' * 32}.request", b"half")
        request = person("carol").request()
        put_pair(directory, request, person("dana").approve(request))
        gateway.settle()
        assert gateway.live()
        monkeypatch.setattr(os, "open", None)
        monkeypatch.setattr(os, "scandir", None)
        assert gateway.live()


def accept_at_once(
    directory: Path, authority_pem: bytes, document: bytes, now: int, together: Any, says: Any
) -> None:
    """Accept in a separate process, at the same moment as the others."""
    gateway = Gateway(directory, roster=Roster.of(CONFIGURATION, authority_pem))
    together.wait(60)
    try:
        says.put(gateway.accept(document, now).new)
    except Refusal as refusal:
        says.put(refusal.reason)


class TestSeveralProcesses:
    @pytest.fixture
    def race(self, directory: Path) -> Callable[[list[bytes]], list[bool | str]]:
        def run(contenders: list[bytes]) -> list[bool | str]:
            spawn = multiprocessing.get_context("spawn")
            together, says = spawn.Barrier(len(contenders)), spawn.Queue()
            processes = [
                spawn.Process(
                    target=accept_at_once,
                    args=(directory, authority().pem, document, NOW, together, says),
                    daemon=True,
                )
                for document in contenders
            ]
            for process in processes:
                process.start()
            said = [says.get(timeout=90) for _ in processes]
            for process in processes:
                process.join(10)
            return said

        return run

    def test_accept_the_same_approval_once(
        self,
        directory: Path,
        gateway: Gateway,
        race: Callable[[list[bytes]], list[bool | str]],
    ):
        request = person("carol").request()
        gateway.accept(request)
        assert sorted(race([person("dana").approve(request)] * 2)) == [False, True]
        assert gateway.live()

    def test_give_an_id_to_one_request(
        self,
        directory: Path,
        gateway: Gateway,
        race: Callable[[list[bytes]], list[bool | str]],
    ):
        first, second = (person(n).request(jti="e" * 32) for n in ("carol", "erin"))
        assert set(race([first, second])) == {True, "id_taken"}
        assert (directory / f"{'e' * 32}.request").read_bytes() in (first, second)


class TestSweeping:
    LATER = NOW + HALF_AN_HOUR + 3601

    def names(self, directory: Path) -> set[str]:
        return {p.name for p in directory.iterdir() if p.name != files.EXPIRED}

    def test_what_ended_is_put_away_kept_and_deleted(self, gateway: Gateway, granted: bytes):
        unapproved = person("carol").request()
        gateway.accept(unapproved)
        id = documents.read(granted).claims["jti"]
        expired = gateway.directory / files.EXPIRED
        gateway.grants.sweep(NOW + HALF_AN_HOUR)
        assert len(self.names(gateway.directory)) == 3
        gateway.grants.sweep(self.LATER)
        assert self.names(gateway.directory) == set()
        kept = {f"{id}.request", f"{id}.approval.dana"}
        assert {p.name for p in expired.iterdir()} == kept
        for path in expired.iterdir():
            os.utime(path, (NOW, NOW))
        gateway.grants.sweep(NOW + 86400)
        assert {p.name for p in expired.iterdir()} == kept
        gateway.grants.sweep(NOW + 86400 + CEILING + 1)
        assert list(expired.iterdir()) == []

    def test_what_lasts_stays(self, gateway: Gateway, granted: bytes):
        gateway.grants.sweep(NOW + 60)
        assert gateway.live(NOW + 60)

    def test_it_happens_by_itself(self, gateway: Gateway, granted: bytes):
        request = person("erin").request(
            iat=self.LATER, nbf=self.LATER, exp=self.LATER + HALF_AN_HOUR
        )
        gateway.accept(request, self.LATER)
        assert self.names(gateway.directory) == {f"{documents.read(request).claims['jti']}.request"}

    def test_what_belongs_to_nothing_and_what_was_staged_goes_too(self, gateway: Gateway):
        old = NOW - 86400 - CEILING - 1
        names = {
            f"{'a' * 32}.revocation": old,
            f"{'b' * 32}.approval.dana": old,
            f"{'c' * 32}.request": old,
            f".{'d' * 32}.request.00ff": NOW - 3601,
            f"{'e' * 32}.revocation": NOW,
            f".{'f' * 32}.request.00ff": NOW,
            "notes.txt": old,
        }
        for name, when in names.items():
            (gateway.directory / name).touch()
            os.utime(gateway.directory / name, (when, when))
        gateway.live()
        gateway.grants.sweep(NOW)
        assert self.names(gateway.directory) == {*list(names)[4:]}


class TestListing:
    def test_says_what_became_of_each(self, gateway: Gateway):
        requests = {
            state: person("carol").request(iat=NOW - offset, nbf=NOW - offset, exp=NOW + 300)
            for offset, state in enumerate(("pending", "approved", "revoked", "expired"))
        }
        requests["expired"] = person("carol").request(iat=NOW - 99, nbf=NOW - 99, exp=NOW + 60)
        for request in requests.values():
            gateway.accept(request)
        gateway.accept(person("dana").approve(requests["approved"]))
        gateway.accept(person("dana").approve(requests["expired"]))
        gateway.accept(person("dana").revoke(requests["revoked"]))
        listed = gateway.grants.listing(NOW + 60)
        assert [e.state for e in listed] == ["expired", "revoked", "approved", "pending"]
        assert [e.document.encode() for e in listed] == [requests[e.state] for e in listed]
        assert listed[0].approvers == listed[2].approvers == ("dana",)
        shown = json.loads(json.dumps(listed[3].as_json()))
        assert shown["eligible"] == ["dana", "erin"]
        assert [e.state for e in gateway.grants.pending(NOW + 60)] == ["pending"]

    def test_shows_a_principal_what_concerns_it(self, gateway: Gateway):
        gateway.accept(person("robot").request())
        gateway.accept(person("carol").request(tool="create_table"))
        seen = {
            name: sorted(e.request.principal for e in gateway.grants.listing(NOW, name))
            for name in (*roster().principals, "mallory")
        }
        assert seen == {
            "carol": ["carol"],
            "dana": ["robot"],
            "erin": ["robot"],
            "frank": ["carol"],
            "robot": ["robot"],
            "other-robot": [],
            "mallory": [],
        }

    def test_does_not_show_what_nobody_accepted(self, directory: Path, gateway: Gateway):
        forged = Issuer.create().signer("carol").request()
        endless = person("carol").request(exp=NOW + 10 * 86400)
        for document in (forged, endless, b"garbage"):
            put(directory, f"{secrets.token_hex(16)}.request", document)
        for document in (forged, endless):
            put(directory, f"{documents.read(document).claims['jti']}.request", document)
        assert gateway.grants.listing(NOW) == ()
