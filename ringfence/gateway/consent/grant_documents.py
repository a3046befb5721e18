"""The signed documents that a just-in-time grant is made of, and whether they count.

A request, an approval and a revocation are each a JWS (RFC 7515, compact) signed with the key of
a client certificate, with the certificate's chain in `x5c`. So a grant needs no trust in the host
that stores it: that host can lose or withhold a document, and thereby deny, but make none.

Each kind has a `typ` of its own (RFC 8725, 3.11), so that one never passes for another. Claims are
the registered ones of RFC 7519 where there is one: `iss` is the signer's URI, `aud` the
environment's, `jti` a request's id. An approval or a revocation names the request by id and by
`request_digest`: SHA-256, hex, of the request's JWS signing input (RFC 7515, 5.1). The signature is
left out of it because ECDSA lets anybody make a second valid one.

`verify` says who signed what; `check_request`, `check_approval` and `check_revocation` say whether
that may be. All are pure, and say no by raising `Refusal`.
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

from ringfence.gateway.refusal import Refusal

KEY_TYPES: Mapping[str, Literal["EC", "OKP", "RSA"]] = {
    "ES256": "EC",
    "ES384": "EC",
    "ES512": "EC",
    "Ed25519": "OKP",
    "PS256": "RSA",
}
"""By algorithm (RFC 7518, RFC 9864), of which every key has one."""
DOCUMENT_BYTES = 16 * 1024
CHAIN_LENGTH = 4
"""Certificates in `x5c`, the signer's own included."""
SKEW_SECONDS = 30
"""How far the clocks of signer and gateway may differ."""
START_AHEAD_SECONDS = 3600
"""A grant begins soon after it is asked for, while its reason still holds."""
SHORTEST_SECONDS = 60
REASON_LENGTH = (10, 500)

ID = re.compile(r"[0-9a-f]{32}")
"""128 random bits. Hex, because an id is a file name and a command's argument too."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_COMPACT = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
LATEST = 253402300799
"""The last second that datetime can hold."""
Form = Mapping[str, type]
"""The claims of a document, and what each is: text or whole number."""
_ANSWER: Form = {"iss": str, "aud": str, "iat": int, "request_id": str, "request_digest": str}
REQUEST = "ringfence-grant-request+jwt"
APPROVAL = "ringfence-grant-approval+jwt"
REVOCATION = "ringfence-grant-revocation+jwt"
FORMS: Mapping[str, Form] = {
    REQUEST: {
        "iss": str,
        "aud": str,
        "jti": str,
        "iat": int,
        "nbf": int,
        "exp": int,
        "server": str,
        "tool": str,
        "reason": str,
    },
    APPROVAL: _ANSWER,
    REVOCATION: _ANSWER,
}


@dataclass(frozen=True)
class Principal:
    kind: str
    """person, agent or service; only a person approves."""
    owner: str | None


@dataclass(frozen=True)
class Facts:
    """What the environment says about people and tools."""

    environment: str
    anchors: tuple[x509.Certificate, ...]
    """The authorities whose certificates count."""
    principals: Mapping[str, Principal]
    approvers: Mapping[tuple[str, str], frozenset[str]]
    """By server and tool: of each sensitive tool, who may approve."""
    responders: frozenset[str] = frozenset()
    """Who may cut others off."""

    @classmethod
    def of(cls, document: Mapping[str, Any], authority: bytes) -> Facts:
        """From the content of gateway.json and of its authority file (PEM).

        Raises `ValueError` for an authority file without an authority in it.
        """
        return cls(
            environment=document["environment"],
            anchors=anchors(authority),
            principals={
                name: Principal(p["kind"], p.get("owner"))
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
        """What stands in a principal's certificate."""
        return f"{self.audience}:principal:{principal}"

    def principal_of(self, certificate: bytes) -> str:
        """Whose a verified client certificate (DER) is. Raises `Refusal`."""
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
        """The one principal that a certificate's names tell. Raises `Refusal`."""
        uris = [s.value for s in subjects if isinstance(s, x509.UniformResourceIdentifier)]
        prefix = self.uri("")
        if len(uris) != 1 or not uris[0].startswith(prefix):
            raise _untrusted()
        name = uris[0].removeprefix(prefix)
        if name not in self.principals:
            deny("unknown_principal", "the certificate is of nobody whom this environment knows")
        return name

    def eligible(self, principal: str, server: str, tool: str) -> frozenset[str]:
        """Who may approve a request: persons other than who asks, and than whose agent asks."""
        asking = self.principals.get(principal)
        return frozenset(
            name
            for name in self.approvers.get((server, tool), ())
            if name in self.principals
            and self.principals[name].kind == "person"
            and name != principal
            and not (asking and asking.owner == name)
        )


@dataclass(frozen=True)
class Request:
    """Times in Unix seconds; good from `start` until before `end`."""

    id: str
    digest: str
    principal: str
    server: str
    tool: str
    reason: str
    issued: int
    start: int
    end: int
    certified_until: float
    """When the first certificate of the signer's chain ends."""
    certificate: str
    """x5t#S256 of the signer's."""


@dataclass(frozen=True)
class Approval:
    request_id: str
    request_digest: str
    approver: str
    issued: int
    certified_until: float
    certificate: str


@dataclass(frozen=True)
class Revocation:
    request_id: str
    request_digest: str
    revoker: str
    issued: int
    certified_until: float
    certificate: str


Document = Request | Approval | Revocation


@dataclass(frozen=True)
class Unverified:
    """What a document claims; nobody has looked at its signature yet."""

    typ: str
    algorithm: str
    chain: tuple[str, ...]
    claims: Mapping[str, Any]
    digest: str


@dataclass(frozen=True)
class Signed:
    """A document and its signer, of this environment; what it says nobody has judged yet."""

    typ: str
    claims: Mapping[str, Any]
    digest: str
    signer: str
    certificate: str
    """x5t#S256 of the signer's."""
    certified_until: float


def read(document: bytes, forms: Mapping[str, Form] = FORMS) -> Unverified:
    """The claims of a well-formed document, `forms` by `typ`. Raises `Refusal`."""
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
    expected = forms.get(typ) if isinstance(typ, str) else None
    if expected is None:
        malform(f"typ must be one of {', '.join(forms)}")
    # `type` rather than isinstance: true is no number.
    if claims.keys() != expected.keys() or any(
        type(claims[name]) is not kind_of for name, kind_of in expected.items()
    ):
        malform(f"{typ} has exactly the claims {', '.join(expected)}, texts and whole seconds")
    if any(not 0 < claims[n] <= LATEST for n, t in expected.items() if t is int):
        malform("a time is out of range")
    if not all(ID.fullmatch(claims[name]) for name in ("jti", "request_id") if name in claims):
        malform("a request's id is 32 hexadecimal digits")
    if not _DIGEST.fullmatch(claims.get("request_digest", "0" * 64)):
        malform("request_digest is 64 hexadecimal digits")
    chain = header["x5c"]
    if not (
        isinstance(chain, list)
        and 0 < len(chain) <= CHAIN_LENGTH
        and all(isinstance(c, str) for c in chain)
    ):
        malform(f"x5c must be a list of 1 to {CHAIN_LENGTH} certificates")
    return Unverified(
        typ, header["alg"], tuple(chain), claims, hashlib.sha256(signing_input).hexdigest()
    )


def verify(document: bytes, facts: Facts) -> Document:
    """Who signed what about a grant, whether or not it may be. Raises `Refusal`."""
    signed = verify_signed(document, facts, FORMS)
    claims = signed.claims
    if signed.typ == REQUEST:
        return Request(
            claims["jti"],
            signed.digest,
            signed.signer,
            claims["server"],
            claims["tool"],
            claims["reason"],
            claims["iat"],
            claims["nbf"],
            claims["exp"],
            signed.certified_until,
            signed.certificate,
        )
    answer = Approval if signed.typ == APPROVAL else Revocation
    return answer(
        claims["request_id"],
        claims["request_digest"],
        signed.signer,
        claims["iat"],
        signed.certified_until,
        signed.certificate,
    )


def verify_signed(document: bytes, facts: Facts, forms: Mapping[str, Form]) -> Signed:
    """Who signed a document of one of these forms. Raises `Refusal`.

    The chain must lead to an anchor and have been valid when the document was signed, as far as
    its signer tells; whether it still is, `certified_until` says.
    """
    unverified = read(document, forms)
    claims = unverified.claims
    signer, leaf, certified_until = _signer(unverified, facts)
    key = leaf.public_key()
    if unverified.algorithm != _algorithm(key):
        deny("bad_signature", "the algorithm is not the one for the certificate's key")
    try:
        jws.deserialize_compact(
            document, _jwk(key, unverified.algorithm), registry=_Registry(unverified.algorithm)
        )
    except (JoseError, ValueError) as error:
        raise Refusal(403, -32003, "bad_signature", "the signature does not verify") from error
    if claims["iss"] != facts.uri(signer):
        deny("wrong_issuer", "iss is not the URI in the certificate")
    if claims["aud"] != facts.audience:
        deny("wrong_environment", "the document is of another environment")
    return Signed(
        unverified.typ,
        claims,
        unverified.digest,
        signer,
        base64.urlsafe_b64encode(leaf.fingerprint(hashes.SHA256())).decode().rstrip("="),
        certified_until,
    )


def check_request(request: Request, facts: Facts, ceiling: float, now: float) -> None:
    """Raises `Refusal` unless this may be asked for now. `ceiling`: seconds a grant may last."""
    if (request.server, request.tool) not in facts.approvers:
        deny("tool_not_sensitive", "no tool of that name needs a grant")
    shortest, longest = REASON_LENGTH
    if (
        not shortest <= len(request.reason) <= longest
        or request.reason != request.reason.strip()
        or not request.reason.isprintable()
    ):
        deny("bad_reason", f"the reason must be one printable line of {shortest} to {longest}")
    if request.end - request.start < SHORTEST_SECONDS:
        deny("too_short", f"a grant lasts at least {SHORTEST_SECONDS} seconds")
    if request.end - request.start > ceiling:
        deny("too_long", f"a grant lasts at most {ceiling:.0f} seconds")
    if not request.issued <= request.start <= request.issued + START_AHEAD_SECONDS:
        deny("bad_start", f"a grant begins within {START_AHEAD_SECONDS} seconds of the request")
    if not facts.eligible(request.principal, request.server, request.tool):
        deny("no_approver", "nobody may approve this: every approver asks, or owns who asks")
    check_time(request.issued, request.certified_until, now)
    if now >= request.end:
        deny("expired", "the time that was asked for is over; ask again")


def check_approval(approval: Approval, request: Request, facts: Facts, now: float) -> None:
    """Raises `Refusal` unless this approves that request now."""
    _check_same(approval.request_id, approval.request_digest, request)
    approver = approval.approver
    if approver == request.principal:
        deny("self_approval", "nobody approves a request of their own")
    if facts.principals[approver].kind != "person":
        deny("approver_not_a_person", "only a person approves")
    owner = facts.principals[request.principal].owner
    if approver == owner:
        deny("own_agent", "nobody approves for an agent of their own")
    if approver not in facts.approvers.get((request.server, request.tool), ()):
        deny("not_an_approver", "the signer is not an approver of this tool")
    if approval.issued < request.issued - SKEW_SECONDS:
        deny("bad_time", "the approval is older than the request")
    check_time(approval.issued, approval.certified_until, now)
    if now >= request.end or approval.issued >= request.end:
        deny("expired", "the time that was asked for is over; it has to be asked for again")


def check_revocation(
    revocation: Revocation,
    request: Request,
    approved_by: Collection[str],
    facts: Facts,
    now: float,
) -> None:
    """Raises `Refusal` unless this ends that request.

    `approved_by`: who has approved it, though they may not be an approver any more.
    """
    _check_same(revocation.request_id, revocation.request_digest, request)
    may = {request.principal, *approved_by}
    may |= facts.approvers.get((request.server, request.tool), frozenset())
    if revocation.revoker not in may:
        deny("not_a_revoker", "only who asked and the tool's approvers revoke")
    check_time(revocation.issued, revocation.certified_until, now)


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

    A file may hold an authority and its issuers up to the root; certificates that the issuers
    vouch for otherwise, of other environments perhaps, are not this environment's principals'.
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


def _signer(document: Unverified, facts: Facts) -> tuple[str, x509.Certificate, float]:
    """Name, certificate, and when the first certificate of the chain ends."""
    try:
        leaf, *intermediates = (
            x509.load_der_x509_certificate(base64.b64decode(c, validate=True))
            for c in document.chain
        )
        verified = (
            verification.PolicyBuilder()
            .store(verification.Store(list(facts.anchors)))
            .time(datetime.fromtimestamp(document.claims["iat"], UTC))
            .max_chain_depth(CHAIN_LENGTH)
            .build_client_verifier()
            .verify(leaf, intermediates)
        )
    except (ValueError, binascii.Error, verification.VerificationError, x509.InvalidVersion) as e:
        raise _untrusted() from e
    ends = min(c.not_valid_after_utc.timestamp() for c in verified.chain)
    return facts.named(verified.subjects or ()), leaf, ends


def _algorithm(key: object) -> str:
    return algorithm_of(key) or deny("bad_signature", "no document is signed with such a key")


def _jwk(key: Any, algorithm: str) -> Key:
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return import_key(pem, KEY_TYPES[algorithm])


def _check_same(request_id: str, digest: str, request: Request) -> None:
    if (request_id, digest) != (request.id, request.digest):
        deny("wrong_request", "the document was signed over another request")


def check_time(issued: int, certified_until: float, now: float) -> None:
    if issued > now + SKEW_SECONDS:
        deny("issued_in_future", "the document was signed in the future; compare the clocks")
    if now > certified_until:
        deny("certificate_expired", "the certificate it was signed with has expired")


def _object(segment: bytes) -> dict[str, Any]:
    """A base64url segment (RFC 7515, 2) that holds one JSON object, no key twice."""
    try:
        value = json.loads(
            base64.b64decode(segment + b"=" * (-len(segment) % 4), b"-_", validate=True),
            object_pairs_hook=_unique,
        )
    except (ValueError, RecursionError) as error:
        raise Refusal(400, -32600, "malformed_document", "a part is not JSON") from error
    if not isinstance(value, dict):
        malform("header and claims are JSON objects")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result


def malform(message: str) -> NoReturn:
    raise Refusal(400, -32600, "malformed_document", message)


def deny(reason: str, message: str) -> NoReturn:
    raise Refusal(403, -32003, reason, message)


def _untrusted() -> Refusal:
    return Refusal(
        403,
        -32003,
        "untrusted_certificate",
        "the certificate is not a principal's of this environment, or was not valid at the time",
    )
