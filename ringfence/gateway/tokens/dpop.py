"""Proofs that the caller holds the key of its token (DPoP, RFC 9449 section 4.3).

The caller sees to it that a proof is used once: it has the record of used ones.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from ringfence.gateway.jose import jws
from ringfence.gateway.jose.keys import KeySetError, public_key

PROOF_SECONDS = 60
"""The age that a proof may have, beside the skew of clocks."""


@dataclass(frozen=True)
class ProofRequest:
    """The request that a proof must be about."""

    method: str
    url: str
    """The address that the client used: https, the host of the resource, the path."""
    proofs: tuple[str, ...] = ()
    """Every DPoP header of the request."""


@dataclass(frozen=True)
class Proof:
    thumbprint: str
    """Thumbprint of the key that signed it (RFC 7638)."""
    token_id: str
    issued: float
    """Unix seconds."""


def verify_proof(
    request: ProofRequest, token: str, *, thumbprint: str, now: float, skew_seconds: float
) -> Proof:
    """The proof of a request for this token, by the key that the token names (`cnf.jkt`).

    Raises `jws.JwsError`.
    """
    if len(request.proofs) != 1:
        raise jws.JwsError("one_proof_needed")
    signed = jws.Signed.parse(request.proofs[0], embedded_key=True)
    if not signed.has_type("dpop+jwt"):
        raise jws.JwsError("type")
    embedded = signed.header.get("jwk")
    if not isinstance(embedded, dict):
        raise jws.JwsError("key")
    try:
        key = public_key(embedded, "of the proof")
    except KeySetError as error:
        raise jws.JwsError("key") from error
    if not hmac.compare_digest(key.thumbprint, thumbprint):
        raise jws.JwsError("other_key")
    if signed.algorithm not in key.algorithms:
        raise jws.JwsError("algorithm")
    signed.verify(key.key)
    claims = signed.claims
    if claims.get("htm") != request.method:
        raise jws.JwsError("method")
    if not _same_address(claims.get("htu"), request.url):
        raise jws.JwsError("address")
    if claims.get("ath") != token_hash(token):
        raise jws.JwsError("other_token")
    issued = jws.numeric_date(claims.get("iat"))
    if issued is None or not (now - PROOF_SECONDS - skew_seconds <= issued <= now + skew_seconds):
        raise jws.JwsError("time")
    token_id = claims.get("jti")
    if not isinstance(token_id, str) or not token_id:
        raise jws.JwsError("id")
    return Proof(key.thumbprint, token_id, issued)


def token_hash(token: str) -> str:
    """`ath`, RFC 9449 section 4.2."""
    return urlsafe_b64encode(sha256(token.encode()).digest()).rstrip(b"=").decode()


def _same_address(claimed: object, actual: str) -> bool:
    return isinstance(claimed, str) and _address(claimed) == _address(actual) is not None


def _address(url: str) -> tuple[str, str, int, str] | None:
    """Scheme, host, port and path; query and fragment do not count (RFC 9449 section 4.3)."""
    if not url.isascii() or not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, 443 if port is None else port, parts.path or "/"
