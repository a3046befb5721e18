"""Access tokens, verified as a resource server of OAuth 2.1 does.

RFC 9068 (JWT access tokens) with RFC 8725 (best practice), 8707 (audience), 8705 (bound to a
client certificate), 9449 (DPoP); refusals as RFC 6750 section 3 and RFC 9728 section 5.1.

A verified token is cached. What depends on the call or the clock, or can be withdrawn, is checked
every time: certificate, proof, times, key, revocations, one-time use.
"""

from __future__ import annotations

import asyncio
import time
from base64 import urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from ringfence.gateway.jose import jws
from ringfence.gateway.jose.keys import KeySource, KeysUnavailableError, PublicKey
from ringfence.gateway.refusals import REFUSALS, Refusal
from ringfence.gateway.state.monotonic_clock import MonotonicClock
from ringfence.gateway.tokens.dpop import PROOF_SECONDS, Proof, ProofRequest, verify_proof
from ringfence.gateway.tokens.replays import Replays, ReplaysUnavailableError
from ringfence.gateway.tokens.revocations import Revocations, RevocationsUnreadableError

SenderConstraint = Literal["none", "certificate", "dpop"]

CACHED_TOKENS = 10_000
MAX_ID = 256
"""Characters of `kid` and `jti`."""

_SPELLINGS = {"EdDSA": {"EdDSA", "Ed25519"}, "Ed25519": {"EdDSA", "Ed25519"}}
_CONFIRMATIONS = frozenset({"x5t#S256", "jkt"})


@dataclass(frozen=True)
class TrustedIssuer:
    """An issuer whose tokens are accepted, for every principal."""

    name: str
    """`iss`, compared character by character."""
    keys: KeySource
    algorithms: frozenset[str]
    principal_claim: str = "sub"

    def __post_init__(self) -> None:
        """Raises `ValueError`."""
        unknown = self.algorithms - jws.ALGORITHMS
        if unknown or not self.algorithms:
            raise ValueError(
                f"issuer {self.name}: algorithms must be some of "
                f"{', '.join(sorted(jws.ALGORITHMS))}"
                + (f", not {', '.join(sorted(unknown))}" if unknown else "")
            )
        # One signature algorithm with two names: allowing one allows the other.
        allowed = {name for each in self.algorithms for name in _SPELLINGS.get(each, {each})}
        object.__setattr__(self, "algorithms", frozenset(allowed))


@dataclass(frozen=True)
class CallerIdentity:
    principal: str
    issuer: str
    token_id: str | None
    scopes: frozenset[str]
    expires: float
    """Unix seconds."""
    certificate: str | None
    """x5t#S256 of the client certificate presented, base64url."""


@dataclass(frozen=True)
class _Token:
    """A token whose signature and claims are valid for one audience."""

    identity: CallerIdentity
    issuer: TrustedIssuer
    key: PublicKey
    not_before: float
    certificate: str | None
    proof_key: str | None


class _RejectedError(Exception):
    """`reason` is for the audit log; `error` is for the caller (RFC 6750 section 3.1)."""

    def __init__(self, reason: str, error: str | None = "invalid_token") -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error


class Verifier:
    """Verifies access tokens of some issuers for some principals."""

    def __init__(
        self,
        issuers: Iterable[TrustedIssuer],
        *,
        principals: Collection[str],
        state: Path,
        replays: Path | None = None,
        revocations: Revocations | None = None,
        clock: MonotonicClock | None = None,
        ceiling_seconds: float = 900,
        skew_seconds: float = 30,
        sender_constraint: SenderConstraint = "certificate",
        realm: str = "mcp",
        cached_tokens: int = CACHED_TOKENS,
    ) -> None:
        """`state`: the directory that all processes of a gateway share. `revocations`: by default
        those of `revoked.json` in it.

        `replays`: the directory of ids that were used, by default below `state`. In memory (tmpfs)
        it is ten times faster, and forgotten when the host starts. Raises `OSError` if it cannot
        be made.
        """
        self._issuers = {issuer.name: issuer for issuer in issuers}
        self._principals = frozenset(principals)
        self._ceiling = ceiling_seconds
        self._skew = skew_seconds
        self._constraint: SenderConstraint = sender_constraint
        self._realm = realm
        self._cached_tokens = cached_tokens
        self._cache: OrderedDict[bytes, _Token] = OrderedDict()
        replays = replays or state / "replays"
        self.clock = clock or MonotonicClock()
        self._used_tokens = Replays(replays / "tokens", clock=self.clock)
        self._used_proofs = Replays(replays / "proofs", capacity=1 << 19, clock=self.clock)
        self._revocations = revocations or Revocations(state / "revoked.json")

    async def authenticate(
        self,
        authorization: str | None,
        *,
        audience: str,
        scope: str,
        certificate_der: bytes | None,
        dpop: ProofRequest | None = None,
        sensitive: bool,
    ) -> CallerIdentity:
        """`verify` for now. A token by a key that is unknown has it fetched, and is tried again."""

        def verify() -> CallerIdentity:
            return self.verify(
                authorization,
                audience=audience,
                scope=scope,
                certificate_der=certificate_der,
                dpop=dpop,
                now=time.time(),
                sensitive=sensitive,
            )

        try:
            return verify()
        except Refusal as refusal:
            if refusal.reason != "token_unknown_key":
                raise
            # The key sources bound how often an issuer is asked.
            fetched = [await each.keys.refresh() for each in self._issuers.values()]
            if not any(fetched):
                raise
            return verify()

    async def keep_keys_fresh(self) -> None:
        """Fetch the issuers' keys in the background until cancelled."""
        await asyncio.gather(*(each.keys.run() for each in self._issuers.values()))

    def check_still_valid(self, identity: CallerIdentity) -> None:
        """Check again a caller who was authenticated before. Raises `Refusal`."""
        now = time.time()
        if self.clock.latest(now) >= identity.expires:
            raise Refusal("token_expired", "the access token has expired meanwhile")
        certificates = [identity.certificate] if identity.certificate else []
        try:
            revoked = self._revocations.revoked(
                identity.principal, identity.token_id, certificates, now
            )
        except RevocationsUnreadableError:
            revoked = True
        if revoked:
            raise Refusal("token_revoked", "the access was revoked meanwhile")

    def verify(
        self,
        authorization: str | None,
        *,
        audience: str,
        scope: str,
        certificate_der: bytes | None,
        dpop: ProofRequest | None = None,
        now: float,
        sensitive: bool,
    ) -> CallerIdentity:
        """The caller, if the token is valid for this audience, scope, connection and moment.

        `audience` is the URL of the resource (RFC 8707); `now` in Unix seconds. A sensitive call
        consumes its token. Raises `Refusal`: 401 or 403 with a challenge; 503 where keys, replays
        or revocations are unavailable. Fetching the issuer's keys again may help against the
        reason `token_unknown_key`.
        """
        wall, now = now, self.clock.latest(now)
        try:
            scheme, token = _presented(authorization)
            thumbprint = certificate_thumbprint(certificate_der) if certificate_der else None
            verified = self._read(token, audience, now)
            self._check_present(verified, now)
            self._check_revocations(verified, thumbprint, wall)
            self._check_certificate(verified, thumbprint)
            proof = self._check_proof(verified, scheme, token, dpop, now)
            identity = verified.identity
            if scope not in identity.scopes:
                raise _RejectedError("token_scope", "insufficient_scope")
            if proof:
                self._use_proof(proof, wall)
            if sensitive:
                self._use_token(identity, wall)
        except _RejectedError as error:
            raise self._challenge(error, authorization, audience, scope) from None
        except KeysUnavailableError as error:
            raise Refusal("keys_unavailable") from error
        except ReplaysUnavailableError as error:
            raise Refusal("replays_unavailable") from error
        except RevocationsUnreadableError as error:
            raise Refusal("revocations_unreadable") from error
        return identity if thumbprint is None else replace(identity, certificate=thumbprint)

    def _read(self, token: str, audience: str, now: float) -> _Token:
        if len(token) > jws.MAX_BYTES:
            raise _RejectedError("token_too_large")
        # By hash, so that nobody can use what they read in memory.
        name = sha256(f"{len(token)}:{token}{audience}".encode()).digest()
        if verified := self._cache.get(name):
            self._cache.move_to_end(name)
            return verified
        try:
            verified = self._decide(jws.Signed.parse(token), audience, now)
        except jws.JwsError as error:
            raise _RejectedError(f"token_{error}") from error
        self._cache[name] = verified
        if len(self._cache) > self._cached_tokens:
            self._cache.popitem(last=False)
        return verified

    def _decide(self, signed: jws.Signed, audience: str, now: float) -> _Token:
        """Check what never changes about a token."""
        claims = signed.claims
        if not signed.has_type("at+jwt", "jwt"):
            raise _RejectedError("token_type")
        name = claims.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise _RejectedError("token_issuer")
        key = _signing_key(signed, issuer)
        signed.verify(key.key)
        # With more audiences, any of them could forward the token to us.
        if claims.get("aud") not in (audience, [audience]):
            raise _RejectedError("token_audience")
        issued, expires = (jws.numeric_date(claims.get(claim)) for claim in ("iat", "exp"))
        if issued is None or expires is None:
            raise _RejectedError("token_no_times")
        if not 0 < expires - issued <= self._ceiling:
            raise _RejectedError("token_lifetime")
        not_before = issued
        if "nbf" in claims:
            starts = jws.numeric_date(claims["nbf"])
            if starts is None:
                raise _RejectedError("token_no_times")
            not_before = max(issued, starts)
        principal = claims.get(issuer.principal_claim)
        if not isinstance(principal, str) or principal not in self._principals:
            raise _RejectedError("token_principal")
        token_id = claims.get("jti")
        if token_id is not None and not _is_id(token_id):
            raise _RejectedError("token_id")
        certificate, proof_key = self._confirmations(claims)
        identity = CallerIdentity(principal, issuer.name, token_id, _scopes(claims), expires, None)
        return _Token(identity, issuer, key, not_before, certificate, proof_key)

    def _confirmations(self, claims: Mapping[str, Any]) -> tuple[str | None, str | None]:
        """The certificate and the key that a token is bound to (`cnf`, RFC 7800)."""
        bound = claims.get("cnf", {})
        # A binding that is not understood cannot be checked, so the token is refused.
        if not isinstance(bound, dict) or not bound.keys() <= _CONFIRMATIONS:
            raise _RejectedError("token_confirmation")
        if not all(isinstance(value, str) and value for value in bound.values()):
            raise _RejectedError("token_confirmation")
        if "cnf" in claims and not bound:
            raise _RejectedError("token_confirmation")
        certificate, proof_key = bound.get("x5t#S256"), bound.get("jkt")
        if (self._constraint == "certificate" and certificate is None) or (
            self._constraint == "dpop" and proof_key is None
        ):
            raise _RejectedError("token_not_bound")
        return certificate, proof_key

    def _check_present(self, verified: _Token, now: float) -> None:
        identity = verified.identity
        if now >= identity.expires + self._skew:
            raise _RejectedError("token_expired")
        if verified.not_before > now + self._skew:
            raise _RejectedError("token_not_yet")
        key = verified.issuer.keys.find(verified.key.kid)
        if key is not verified.key and (key is None or key.thumbprint != verified.key.thumbprint):
            raise _RejectedError("token_unknown_key")

    def _check_revocations(self, verified: _Token, thumbprint: str | None, now: float) -> None:
        identity = verified.identity
        certificates = {each for each in (verified.certificate, thumbprint) if each}
        if self._revocations.revoked(identity.principal, identity.token_id, certificates, now):
            raise _RejectedError("token_revoked")

    def _check_certificate(self, verified: _Token, thumbprint: str | None) -> None:
        if verified.certificate is not None and verified.certificate != thumbprint:
            raise _RejectedError(
                "token_other_certificate" if thumbprint else "token_no_certificate"
            )

    def _check_proof(
        self,
        verified: _Token,
        scheme: str,
        token: str,
        request: ProofRequest | None,
        now: float,
    ) -> Proof | None:
        if verified.proof_key is None:
            if scheme == "dpop":
                raise _RejectedError("token_not_bound")
            return None
        if scheme != "dpop":  # RFC 9449 section 7.2
            raise _RejectedError("token_without_proof")
        if request is None:
            raise _RejectedError("proof_one_proof_needed", "invalid_dpop_proof")
        try:
            return verify_proof(
                request,
                token,
                thumbprint=verified.proof_key,
                now=now,
                skew_seconds=self._skew,
            )
        except jws.JwsError as error:
            raise _RejectedError(f"proof_{error}", "invalid_dpop_proof") from error

    def _use_proof(self, proof: Proof, now: float) -> None:
        expires = proof.issued + PROOF_SECONDS + self._skew
        names = proof.thumbprint, proof.token_id
        if not self._used_proofs.first_use(*names, expires=expires, now=now):
            raise _RejectedError("proof_replayed", "invalid_dpop_proof")

    def _use_token(self, identity: CallerIdentity, now: float) -> None:
        if identity.token_id is None:
            raise _RejectedError("token_no_id")
        expires = identity.expires + self._skew
        names = identity.issuer, identity.token_id
        if not self._used_tokens.first_use(*names, expires=expires, now=now):
            raise _RejectedError("token_replayed")

    def _challenge(
        self, rejected: _RejectedError, authorization: str | None, audience: str, scope: str
    ) -> Refusal:
        sent = (authorization or "").partition(" ")[0].lower()
        parameters = {"realm": self._realm}
        if rejected.error:
            parameters |= {
                "error": rejected.error,
                "error_description": REFUSALS[rejected.reason].message,
            }
        parameters |= {"scope": scope, "resource_metadata": metadata_url(audience)}
        scheme = "Bearer"
        if self._constraint == "dpop" or sent == "dpop":
            scheme = "DPoP"
            parameters["algs"] = " ".join(sorted(jws.ALGORITHMS))
        value = ", ".join(f'{name}="{text}"' for name, text in parameters.items())
        return Refusal(rejected.reason, headers=(("WWW-Authenticate", f"{scheme} {value}"),))


def authorization_header(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """The one Authorization header of a request; names in lower case, as ASGI has them.

    Raises `Refusal` (400) for two: proxies and servers differ in which of them counts.
    """
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) > 1:
        raise Refusal(
            "authorization_repeated",
            headers=(("WWW-Authenticate", 'Bearer realm="mcp", error="invalid_request"'),),
        )
    return values[0].decode("latin-1") if values else None


def certificate_thumbprint(der: bytes) -> str:
    """x5t#S256 of a certificate, base64url (RFC 8705 section 3.1)."""
    return urlsafe_b64encode(sha256(der).digest()).rstrip(b"=").decode("ascii")


def metadata_url(resource: str) -> str:
    """The address of the metadata of a resource (RFC 9728 section 3.1)."""
    parts = urlsplit(resource)
    path = "" if parts.path == "/" else parts.path
    return f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{path}"


def _presented(authorization: str | None) -> tuple[str, str]:
    """Scheme in lower case, and token."""
    if authorization is None:
        raise _RejectedError("no_token", None)
    scheme, _, token = authorization.partition(" ")
    scheme = scheme.lower()
    if scheme not in ("bearer", "dpop"):
        raise _RejectedError("no_token", None)
    return scheme, token.lstrip(" ")


def _signing_key(signed: jws.Signed, issuer: TrustedIssuer) -> PublicKey:
    if signed.algorithm not in issuer.algorithms:
        raise _RejectedError("token_algorithm")
    kid = signed.header.get("kid")
    if not isinstance(kid, str) or not _is_id(kid):
        raise _RejectedError("token_unknown_key")
    key = issuer.keys.find(kid)
    if key is None:
        raise _RejectedError("token_unknown_key")
    if signed.algorithm not in key.algorithms:
        raise _RejectedError("token_algorithm")
    return key


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """Scopes of a token: `scope` (RFC 9068), or `scp`, as some providers name it."""
    granted = claims.get("scope", claims.get("scp", ""))
    if isinstance(granted, str):
        return frozenset(granted.split(" ")) - {""}
    if isinstance(granted, list) and all(isinstance(each, str) for each in granted):
        return frozenset(granted)
    raise _RejectedError("token_scope_malformed")
