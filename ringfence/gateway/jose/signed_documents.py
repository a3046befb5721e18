"""Documents that people sign with their client certificate: grants, revocations, restorations.

Each is a JWS (RFC 7515, compact) signed with the key of a client certificate, whose chain is in
`x5c`. So the host that stores or passes it on needs no trust: it can withhold a document, but make
none. Each kind has a `typ` of its own (RFC 8725, 3.11), so that one never passes for another.
Claims are the registered ones of RFC 7519 where there is one: `iss` is the signer's URI, `aud` the
environment's.

`verify` returns who signed what. `consent/documents.py` and `tokens/revocation_documents.py` decide
whether the signer may do that. All functions are pure, and refuse by raising `Refusal`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import verification
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import Key, import_key

from ringfence.gateway.refusals import Refusal

KEY_TYPES: Mapping[str, Literal["EC", "OKP", "RSA"]] = {
    "ES256": "EC",
    "ES384": "EC",
    "ES512": "EC",
    "Ed25519": "OKP",
    "PS256": "RSA",
}
"""Key type by algorithm (RFC 7518, RFC 9864)."""
DOCUMENT_BYTES = 16 * 1024
CHAIN_LENGTH = 4
"""Certificates in `x5c`, including the signer's."""
SKEW_SECONDS = 30
"""Accepted difference between the clocks of signer and gateway."""
REASON_LENGTH = (10, 500)
LATEST = 253402300799
"""The last second that datetime can hold."""

_COMPACT = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
Form = Mapping[str, type[str] | type[int] | re.Pattern[str]]
"""The claims of a document: a text, a whole number of seconds, or a text that matches."""


@dataclass(frozen=True)
class Member:
    """A principal as the roster has it."""

    kind: str
    """person, agent or service; only a person approves."""
    owner: str | None


@dataclass(frozen=True)
class Roster:
    """The environment's principals, their duties, and the authorities of their certificates."""

    environment: str
    anchors: tuple[x509.Certificate, ...]
    """The authorities whose certificates count."""
    principals: Mapping[str, Member]
    approvers: Mapping[tuple[str, str], frozenset[str]]
    """Approvers by server and sensitive tool."""
    responders: frozenset[str] = frozenset()
    """Principals who may revoke and restore the access of others."""

    @classmethod
    def of(cls, document: Mapping[str, Any], authority: bytes) -> Roster:
        """Build it from the content of gateway.json and of its authority file (PEM).

        Raises `ValueError` for an authority file without an authority in it.
        """
        return cls(
            environment=document["environment"],
            anchors=anchors(authority),
            principals={
                name: Member(p["kind"], p.get("owner"))
                for name, p in document["principals"].items()
            },
            approvers={
                (server, tool): frozenset(t.get("approvers", ()))
                for server, s in document["servers"].items()
                for tool, t in s["tools"].items()
                if t.get("sensitive")
            },
            responders=frozenset(document.get("responders", ())),
        )

    @property
    def audience(self) -> str:
        return f"urn:ringfence:{self.environment}"

    def uri(self, principal: str) -> str:
        """The URI in a principal's certificate."""
        return f"{self.audience}:principal:{principal}"

    def principal_of(self, certificate: bytes) -> str:
        """The principal of a verified client certificate (DER). Raises `Refusal`."""
        try:
            names = (
                x509.load_der_x509_certificate(certificate)
                .extensions.get_extension_for_class(x509.SubjectAlternativeName)
                .value
            )
        except (ValueError, x509.ExtensionNotFound) as error:
            raise _untrusted() from error
        return self.named(list(names))

    def named(self, subjects: Collection[x509.GeneralName]) -> str:
        """The one principal among a certificate's names. Raises `Refusal`."""
        uris = [s.value for s in subjects if isinstance(s, x509.UniformResourceIdentifier)]
        prefix = self.uri("")
        if len(uris) != 1 or not uris[0].startswith(prefix):
            raise _untrusted()
        name = uris[0].removeprefix(prefix)
        if name not in self.principals:
            deny("unknown_principal", "the certificate names no principal of this environment")
        return name

    def eligible(self, principal: str, server: str, tool: str) -> frozenset[str]:
        """The persons who may approve a request: not the requester, nor the requester's owner."""
        requester = self.principals.get(principal)
        return frozenset(
            name
            for name in self.approvers.get((server, tool), ())
            if name in self.principals
            and self.principals[name].kind == "person"
            and name != principal
            and not (requester and requester.owner == name)
        )


@dataclass(frozen=True)
class UnverifiedDocument:
    """The claims of a document whose signature was not verified yet."""

    typ: str
    algorithm: str
    chain: tuple[str, ...]
    claims: Mapping[str, Any]
    digest: str
    """SHA-256, hex, of the JWS signing input (RFC 7515, 5.1). Without the signature, because ECDSA
    lets anybody make a second valid one."""


@dataclass(frozen=True)
class SignedDocument:
    """A document and its signer, of this environment; whether it may be is not decided yet."""

    typ: str
    claims: Mapping[str, Any]
    digest: str
    signer: str
    certificate: str
    """x5t#S256 of the signer's."""
    certified_until: float
    """The end of the first certificate to expire in the signer's chain."""


def read(document: bytes, forms: Mapping[str, Form]) -> UnverifiedDocument:
    """Read a well-formed document of one of these forms, by `typ`. Raises `Refusal`."""
    if len(document) > DOCUMENT_BYTES:
        malform(f"the document is larger than {DOCUMENT_BYTES} bytes")
    if not _COMPACT.fullmatch(document):
        malform("the document is not a JWS in compact serialisation")
    signing_input, _, _ = document.rpartition(b".")
    head, _, body = signing_input.partition(b".")
    header, claims = _object(head), _object(body)
    if header.keys() != {"alg", "typ", "x5c"}:
        malform("the header must have alg, typ and x5c, and nothing else")
    typ = header["typ"]
    form = forms.get(typ) if isinstance(typ, str) else None
    if form is None:
        malform(f"typ must be one of {', '.join(forms)}")
    # `type` rather than isinstance: true is no number.
    if claims.keys() != form.keys() or any(
        type(claims[name]) is not (kind if isinstance(kind, type) else str)
        for name, kind in form.items()
    ):
        malform(f"{typ} has exactly the claims {', '.join(form)}, texts and whole seconds")
    for name, kind in form.items():
        if kind is int and not 0 < claims[name] <= LATEST:
            malform("a time is out of range")
        if isinstance(kind, re.Pattern) and not kind.fullmatch(claims[name]):
            malform(f"{name} must match {kind.pattern}")
    chain = header["x5c"]
    if not (
        isinstance(chain, list)
        and 0 < len(chain) <= CHAIN_LENGTH
        and all(isinstance(c, str) for c in chain)
    ):
        malform(f"x5c must be a list of 1 to {CHAIN_LENGTH} certificates")
    return UnverifiedDocument(
        typ, header["alg"], tuple(chain), claims, hashlib.sha256(signing_input).hexdigest()
    )


def verify(document: bytes, roster: Roster, forms: Mapping[str, Form]) -> SignedDocument:
    """Verify who signed a document of one of these forms. Raises `Refusal`.

    The chain must lead to an anchor and have been valid at the time that the signer gives;
    `certified_until` says whether it still is.
    """
    unverified = read(document, forms)
    claims = unverified.claims
    signer, leaf, certified_until = _signer(unverified, roster)
    key = leaf.public_key()
    if unverified.algorithm != _algorithm(key):
        deny("bad_signature", "the algorithm is not the one for the certificate's key")
    try:
        jws.deserialize_compact(
            document, _jwk(key, unverified.algorithm), registry=_Registry(unverified.algorithm)
        )
    except (JoseError, ValueError) as error:
        raise Refusal("bad_signature") from error
    if claims["iss"] != roster.uri(signer):
        deny("wrong_issuer", "iss is not the URI in the certificate")
    if claims["aud"] != roster.audience:
        deny("wrong_environment", "the document is of another environment")
    return SignedDocument(
        unverified.typ,
        claims,
        unverified.digest,
        signer,
        base64.urlsafe_b64encode(leaf.fingerprint(hashes.SHA256())).decode().rstrip("="),
        certified_until,
    )


def check_time(issued: int, certified_until: float, now: float) -> None:
    """Raise `Refusal` for a document of the future, or whose certificate has expired."""
    if issued > now + SKEW_SECONDS:
        deny("issued_in_future", "the document was signed in the future; compare the clocks")
    if now > certified_until:
        deny("certificate_expired", "the certificate it was signed with has expired")


def algorithm_of(key: object) -> str | None:
    """The JWS algorithm (RFC 7518, RFC 9864) for a public key; None: it signs no document."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}.get(
            key.curve.name
        )
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519"
    return "PS256" if isinstance(key, rsa.RSAPublicKey) else None


def anchors(authority: bytes) -> tuple[x509.Certificate, ...]:
    """The authorities in a PEM file that issue for principals. Raises `ValueError` without any.

    A file may hold an authority and its issuers up to the root. Other certificates of those
    issuers, perhaps of other environments, are not of this environment's principals.
    """
    certificates = x509.load_pem_x509_certificates(authority)
    issuing = tuple(
        certificate
        for certificate in certificates
        if not any(_issued(other, certificate) for other in certificates if other != certificate)
    )
    if not issuing:
        raise ValueError("the authority file holds only authorities that issued one another")
    return issuing


def malform(message: str) -> NoReturn:
    raise Refusal("malformed_document", message)


def deny(reason: str, message: str) -> NoReturn:
    raise Refusal(reason, message)


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


class _Registry(jws.JWSRegistry):
    """One algorithm, and headers as large as a chain makes them."""

    max_header_length = DOCUMENT_BYTES

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithms=[algorithm])


def _signer(document: UnverifiedDocument, roster: Roster) -> tuple[str, x509.Certificate, float]:
    """Name, certificate, and when the first certificate of the chain ends."""
    try:
        leaf, *intermediates = (
            x509.load_der_x509_certificate(base64.b64decode(c, validate=True))
            for c in document.chain
        )
        verified = (
            verification.PolicyBuilder()
            .store(verification.Store(list(roster.anchors)))
            .time(datetime.fromtimestamp(document.claims["iat"], UTC))
            .max_chain_depth(CHAIN_LENGTH)
            .build_client_verifier()
            .verify(leaf, intermediates)
        )
    except (ValueError, binascii.Error, verification.VerificationError, x509.InvalidVersion) as e:
        raise _untrusted() from e
    ends = min(c.not_valid_after_utc.timestamp() for c in verified.chain)
    return roster.named(verified.subjects or ()), leaf, ends


def _algorithm(key: object) -> str:
    return algorithm_of(key) or deny("bad_signature", "no document is signed with such a key")


def _jwk(key: Any, algorithm: str) -> Key:
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return import_key(pem, KEY_TYPES[algorithm])


def _object(segment: bytes) -> dict[str, Any]:
    """A base64url segment (RFC 7515, 2) that holds one JSON object without a repeated key."""
    try:
        value = json.loads(
            base64.b64decode(segment + b"=" * (-len(segment) % 4), b"-_", validate=True),
            object_pairs_hook=_unique,
        )
    except (ValueError, RecursionError) as error:
        raise Refusal("malformed_document", "a part is not JSON") from error
    if not isinstance(value, dict):
        malform("header and claims are JSON objects")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result


def _untrusted() -> Refusal:
    return Refusal("untrusted_certificate")
