"""A small issuer of access tokens, for labs and demonstrations: `ringfence token PRINCIPAL`.

In production an identity provider takes its place; the gateway knows both by their key sets alone.

Keys rotate by the clock, and nobody is cut off by it: a key is published `PUBLISHED_AHEAD_SECONDS`
before it signs, and stays published until the last token that it signed is dead. So a gateway that
gets each key set within that bound always has the key of every living token. The bound holds also
where nobody asked for a long time: a key's first signature counts from when it was made.
"""

from __future__ import annotations

import fcntl
import json
import os
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

from ringfence.identity.pki import PkiError, named_principal, principal_identity
from ringfence.manifest.model import Environment, Principal, Server

DAY = 86400
PUBLISHED_AHEAD_SECONDS = 14 * DAY
"""A key set must reach every gateway within this time: apply the playbook at least that often."""
SIGNING_SECONDS = 30 * DAY
"""How long a key signs, where the next is made in time."""
MAX_MINUTES = 15
SKEW_SECONDS = 60
"""By which a gateway's clock may be behind: its own bound is below."""
ALGORITHM = "ES256"


class IssuerError(Exception):
    """No token: what is wrong, where, and what to do."""


@dataclass(frozen=True)
class SigningKey:
    signs_from: float
    """Unix seconds; until the next key does."""
    jwk: dict[str, Any]
    """Private while it signs or will; public afterwards."""

    @property
    def kid(self) -> str:
        return self.jwk["kid"]

    @property
    def public(self) -> dict[str, Any]:
        return {name: value for name, value in self.jwk.items() if name != "d"}


def issuer_url(environment: Environment) -> str:
    """`iss` of an environment's tokens. Nothing has to answer there: keys travel as a file."""
    return f"https://issuer.{environment.domain}"


def resource_url(environment: Environment, server: Server) -> str:
    """`aud`: the address of a server at the gateway (RFC 8707). Raises `IssuerError`."""
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
    """The key set to hand to gateways (RFC 7517), after making and dropping what is due.

    `now` in Unix seconds. Raises `IssuerError`.
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
    """An access token (RFC 9068) bound to a client certificate in DER (RFC 8705).

    Raises `IssuerError`.
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
    """Make the next key before it is due; the one that is on its way, if there is one.

    With `at_once`, after a leak: every other key is dropped and the new one signs from now on.
    Until gateways get the new set they accept the old keys, and no token of the new one.
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
        # joserfc is an extra: whoever has no gateway does not install it.
        import joserfc  # noqa: F401
    except ModuleNotFoundError:
        print(
            "there is no Python package joserfc; install it: pip install 'ringfence[gateway]'",
            file=sys.stderr,
        )
        return 2
    environment = Environment.load(args.environment)
    try:
        if args.jwks:
            print(json.dumps(jwks(environment, time.time()), sort_keys=True))
        else:
            print(_rotated(environment, args) if args.rotate else _issued(environment, args))
    except (IssuerError, PkiError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _issued(environment: Environment, args: Namespace) -> str:
    if args.at_once:
        raise IssuerError("--at-once goes with --rotate")
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
    """The keys, oldest first, locked; what is due is made, and every change is written.

    Raises `IssuerError`.
    """
    path = environment.state / "issuer" / "keys.json"
    with _locked(path.parent):
        stored = _load(path)
        keys = _due(stored, now)
        yield keys
        if keys != stored:
            document = [{"signs_from": key.signs_from, "jwk": key.jwk} for key in keys]
            _write(path, json.dumps(document, indent=2))


def _load(path: Path) -> list[SigningKey]:
    if not path.exists():
        return []
    if path.stat().st_mode & 0o077:
        raise IssuerError(f"{path} can be read by others: chmod 600 {path}")
    try:
        stored = json.loads(path.read_text())
        return [SigningKey(float(key["signs_from"]), dict(key["jwk"])) for key in stored]
    except OSError as error:
        raise IssuerError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise IssuerError(
            f"{path} is damaged; restore it, or remove it and apply the playbook: tokens issued "
            "before are refused then"
        ) from error


def _due(stored: list[SigningKey], now: float) -> list[SigningKey]:
    """What the clock makes of the keys: those needed at `now`, with a next one where it is time."""
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
    """The newest that signs already; the oldest private one where the clock was set back."""
    private = [key for key in keys if "d" in key.jwk]
    if not private:
        raise IssuerError("no key can sign; make one: ringfence token --rotate --at-once")
    return next((key for key in reversed(private) if key.signs_from <= now), private[0])


def _new_key(signs_from: float) -> SigningKey:
    from joserfc.jwk import ECKey

    key = ECKey.generate_key("P-256", {"use": "sig", "alg": ALGORITHM}, auto_kid=True)
    return SigningKey(signs_from, dict(key.as_dict(private=True)))


def _write(path: Path, content: str) -> None:
    """Replace a file at once: no reader sees half of it, nobody else sees any of it."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.unlink(missing_ok=True)
    with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Two who ask at once would each make a key that the other does not publish."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
