"""A small issuer of access tokens, for labs and demonstrations: `ringfence token PRINCIPAL`.

In production an identity provider takes its place; the gateway knows both only by their key sets.

Keys rotate by the clock, and no token becomes invalid by it: a key is published
`PUBLISHED_AHEAD_SECONDS` before it signs, and until the last token that it signed has expired. A
gateway that gets each key set within that time always has the key of every valid token. This is
also true after a long time without requests: the time counts from when the key was made.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from ringfence.identity import state
from ringfence.identity.pki import named_principal, principal_identity
from ringfence.identity.state import StateError
from ringfence.manifest.model import Environment, Principal, Server

DAY = 86400
PUBLISHED_AHEAD_SECONDS = 14 * DAY
"""A key set must reach every gateway within this time: apply the playbook at least that often."""
SIGNING_SECONDS = 30 * DAY
"""Seconds for which a key signs, if its successor is made in time."""
MAX_MINUTES = 15
SKEW_SECONDS = 60
"""Largest tolerated lag of a gateway's clock; the gateway itself tolerates less."""
ALGORITHM = "ES256"


class IssuerError(StateError):
    """No token can be issued: what is wrong, where, and what to do."""


@dataclass(frozen=True)
class SigningKey:
    signs_from: float
    """Unix seconds; the key signs until its successor does."""
    jwk: dict[str, Any]
    """Private until the key has stopped signing, then public."""

    @property
    def kid(self) -> str:
        return self.jwk["kid"]

    @property
    def public(self) -> dict[str, Any]:
        return {name: value for name, value in self.jwk.items() if name != "d"}


def issuer_url(environment: Environment) -> str:
    """Return `iss` of an environment's tokens. No server answers there: keys travel as a file."""
    return f"https://issuer.{environment.domain}"


def resource_url(environment: Environment, server: Server) -> str:
    """Return `aud`: the address of a server at the gateway (RFC 8707). Raises `IssuerError`."""
    if environment.gateway_url:
        return _resource(environment.gateway_url, server)
    gateways = environment.group("edge")
    if not gateways:
        raise IssuerError(
            f"{environment.path} has no host in group edge, so no gateway to issue tokens for; "
            "add one, or name the resource: --resource https://HOST"
        )
    return _resource(f"https://{gateways[0].fqdn}", server)


def jwks(environment: Environment, now: float) -> dict[str, Any]:
    """Rotate keys that are due and return the key set for gateways (RFC 7517).

    `now` is in Unix seconds. Raises `StateError`.
    """
    with _keys(environment, now) as keys:
        return {"keys": [key.public for key in keys]}


def token(
    environment: Environment,
    principal: Principal,
    audience: str,
    scope: str,
    *,
    certificate: bytes,
    seconds: int,
    now: float,
) -> str:
    """Issue an access token (RFC 9068) bound to a client certificate in DER (RFC 8705).

    Raises `StateError`.
    """
    from joserfc.util import urlsafe_b64encode

    if not 0 < seconds <= MAX_MINUTES * 60:
        raise IssuerError(f"a token lives from 1 to {MAX_MINUTES} minutes, not {seconds / 60:g}")
    digest = x509.load_der_x509_certificate(certificate).fingerprint(SHA256())
    issued = int(now)
    return signed(
        environment,
        {
            "iss": issuer_url(environment),
            "sub": principal.name,
            "client_id": principal.name,
            "aud": audience,
            "scope": scope,
            "iat": issued,
            "nbf": issued,
            "exp": issued + seconds,
            "jti": secrets.token_urlsafe(16),
            "cnf": {"x5t#S256": urlsafe_b64encode(digest).decode()},
        },
        now,
    )


def signed(environment: Environment, claims: Mapping[str, Any], now: float) -> str:
    """Sign claims as an access token, without a look at them. Raises `IssuerError`.

    Checks present tokens to the gateway that `token` would never issue.
    """
    from joserfc import jwt
    from joserfc.jwk import ECKey

    with _keys(environment, now) as keys:
        signer = _signer(keys, now)
    header = {"alg": ALGORITHM, "typ": "at+jwt", "kid": signer.kid}
    key = ECKey.import_key(signer.jwk)
    return jwt.encode(header, dict(claims), key, algorithms=[ALGORITHM])


def rotate(environment: Environment, now: float, *, at_once: bool = False) -> SigningKey:
    """Make the next key before it is due, and return it. A published successor stays.

    With `at_once`, after a leak, all other keys are dropped and the new one signs from now on.
    Until gateways get the new set they accept tokens of the old keys, and none of the new one.
    """
    with _keys(environment, now) as keys:
        if at_once:
            keys[:] = [_new_key(now)]
        elif keys[-1].signs_from <= now:
            keys.append(_new_key(now + PUBLISHED_AHEAD_SECONDS))
        return keys[-1]


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--environment", type=Path, default="inventories/lab/environment.yaml")
    parser.add_argument(
        "principal", metavar="PRINCIPAL", nargs="?", help="a principal of the environment"
    )
    parser.add_argument("--server", metavar="NAME", help="the MCP server that the token is for")
    parser.add_argument(
        "--minutes", type=int, default=10, help=f"lifetime, at most {MAX_MINUTES} (default: 10)"
    )
    parser.add_argument(
        "--certificate",
        type=Path,
        metavar="FILE",
        help="PEM client certificate to bind it to (default: the principal's own)",
    )
    parser.add_argument(
        "--resource", metavar="URL", help="the gateway (default: the manifest's host in group edge)"
    )
    parser.add_argument(
        "--jwks", action="store_true", help="print the public keys, as gateways need them"
    )
    parser.add_argument(
        "--rotate", action="store_true", help="make the next signing key now; issues no token"
    )
    parser.add_argument(
        "--at-once", action="store_true", help="with --rotate, after a leak: drop all other keys"
    )


def run(args: Namespace) -> int:
    try:
        # joserfc is an extra: an environment without a gateway does not need it.
        import joserfc  # noqa: F401
    except ModuleNotFoundError:
        print(
            "the Python package joserfc is not installed; run: pip install 'ringfence[gateway]'",
            file=sys.stderr,
        )
        return 2
    environment = Environment.load(args.environment)
    try:
        if args.jwks:
            print(json.dumps(jwks(environment, time.time()), sort_keys=True))
        else:
            print(_rotated(environment, args) if args.rotate else _issued(environment, args))
    except StateError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _issued(environment: Environment, args: Namespace) -> str:
    if args.at_once:
        raise IssuerError("--at-once needs --rotate")
    if args.principal is None or args.server is None:
        raise IssuerError("name a principal and a server: ringfence token PRINCIPAL --server NAME")
    principal = named_principal(environment, args.principal)
    server = environment.servers.get(args.server)
    if server is None:
        known = ", ".join(environment.servers)
        raise IssuerError(f"{environment.path} names no server {args.server!r}; it has: {known}")
    audience = (
        _resource(args.resource, server) if args.resource else resource_url(environment, server)
    )
    certificate = args.certificate or principal_identity(environment, principal).certificate
    return token(
        environment,
        principal,
        audience,
        f"mcp:{server.name}",
        certificate=_der(certificate),
        seconds=args.minutes * 60,
        now=time.time(),
    )


def _rotated(environment: Environment, args: Namespace) -> str:
    key = rotate(environment, time.time(), at_once=args.at_once)
    if args.at_once:
        return (
            f"{key.kid} signs from now on and all other keys are dropped; apply the playbook now, "
            "gateways refuse new tokens and accept old ones until then"
        )
    starts = time.strftime("%Y-%m-%d %H:%M", time.gmtime(key.signs_from))
    return f"{key.kid} signs from {starts} UTC; apply the playbook before, so that gateways know it"


def _resource(gateway: str, server: Server) -> str:
    return f"{gateway.rstrip('/')}/{server.name}/mcp"


def _der(certificate: Path) -> bytes:
    try:
        leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
    except OSError as error:
        raise IssuerError(f"{certificate} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise IssuerError(f"{certificate} is not a certificate in PEM: {error}") from error
    return leaf.public_bytes(Encoding.DER)


@contextmanager
def _keys(environment: Environment, now: float) -> Iterator[list[SigningKey]]:
    """Lock the keys, rotate those that are due, and write every change. Oldest key first.

    Raises `StateError`.
    """
    path = environment.state / "issuer" / "keys.json"
    # Two processes at once would each make a key that the other does not publish.
    with state.locked(path.parent):
        stored = _load(path)
        keys = _due(stored, now)
        yield keys
        if keys != stored:
            document = [{"signs_from": key.signs_from, "jwk": key.jwk} for key in keys]
            state.write(path, json.dumps(document, indent=2).encode())


def _load(path: Path) -> list[SigningKey]:
    if not path.exists():
        return []
    content = state.read_private(path)
    try:
        stored = json.loads(content)
        return [SigningKey(float(key["signs_from"]), dict(key["jwk"])) for key in stored]
    except (ValueError, KeyError, TypeError) as error:
        raise IssuerError(
            f"{path} is damaged; restore it, or remove it and apply the playbook, "
            "which makes all present tokens invalid"
        ) from error


def _due(stored: list[SigningKey], now: float) -> list[SigningKey]:
    """Return the keys needed at `now`, with a successor if it is time for one."""
    if not stored:
        return [_new_key(now)]
    signer = stored.index(_signer(stored, now))
    kept = [
        SigningKey(key.signs_from, key.public)
        for key, successor in pairwise(stored[: signer + 1])
        if now <= successor.signs_from + MAX_MINUTES * 60 + SKEW_SECONDS
    ]
    keys = kept + stored[signer:]
    last = keys[-1]
    if now >= last.signs_from + SIGNING_SECONDS - PUBLISHED_AHEAD_SECONDS:
        keys.append(_new_key(now + PUBLISHED_AHEAD_SECONDS))
    return keys


def _signer(keys: list[SigningKey], now: float) -> SigningKey:
    """Return the newest key that signs already; the oldest private one if the clock is behind."""
    private = [key for key in keys if "d" in key.jwk]
    if not private:
        raise IssuerError("no key can sign; make one: ringfence token --rotate --at-once")
    return next((key for key in reversed(private) if key.signs_from <= now), private[0])


def _new_key(signs_from: float) -> SigningKey:
    from joserfc.jwk import ECKey

    key = ECKey.generate_key("P-256", {"use": "sig", "alg": ALGORITHM}, auto_kid=True)
    return SigningKey(signs_from, dict(key.as_dict(private=True)))
