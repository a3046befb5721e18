"""Show a person the secret of their second factor: `ringfence enrol ACCOUNT --environment FILE`.

A secret is made once per person and environment and kept in `.state/totp/`. Role `ssh` makes it
too, in the same format, if the person has not enrolled yet. The secret is shown on a terminal only,
never in a pipe, log or file, unless requested.
"""

from __future__ import annotations

import secrets
import sys
from argparse import ArgumentParser, Namespace
from base64 import b32encode
from pathlib import Path

import segno
from pyotp.totp import TOTP

from ringfence.identity import state
from ringfence.identity.state import StateError
from ringfence.manifest.model import Administrator, Environment

SECRET_BYTES = 20


def secret_file(environment: Environment, account: str) -> Path:
    return environment.state / "totp" / account


def uses_codes(person: Administrator) -> bool:
    """Return whether a person needs one-time codes: to log in, or to become root."""
    return person.second_factor == "totp" or person.sudo


def ensure_secret(environment: Environment, account: str) -> str:
    """Return the person's secret, made if there is none yet."""
    path = secret_file(environment, account)
    if not path.exists():
        state.create(path, b32encode(secrets.token_bytes(SECRET_BYTES)) + b"\n")
    return state.read_private(path).decode().strip()


def uri(environment: Environment, account: str) -> str:
    """Return the URI that an authenticator app reads."""
    issuer = f"Ringfence {environment.name}"
    return TOTP(ensure_secret(environment, account)).provisioning_uri(
        name=account, issuer_name=issuer
    )


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("account", help="one of the manifest's administrators")
    parser.add_argument(
        "--environment",
        type=Path,
        metavar="FILE",
        default=Path("inventories/lab/environment.yaml"),
        help="the manifest (default: %(default)s)",
    )
    parser.add_argument("--uri", action="store_true", help="print the otpauth URI, also to a pipe")


def run(args: Namespace) -> int:
    environment = Environment.load(args.environment)
    person = environment.administrators.get(args.account)
    if person is None:
        known = ", ".join(environment.administrators)
        return _refuse(
            f"{environment.path} names no administrator {args.account!r}; it has: {known}"
        )
    if not uses_codes(person):
        return _refuse(f"{args.account} logs in with a FIDO2 key and needs no one-time code")
    if not args.uri and not sys.stdout.isatty():
        return _refuse("the secret is shown on a terminal only; --uri prints it to a pipe")
    try:
        text = uri(environment, args.account)
    except StateError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{error.filename} cannot be used: {error.strerror}")
    if args.uri:
        print(text)
        return 0
    segno.make(text, micro=False).terminal(compact=True)
    print(f"{text}\n\nScan it with an authenticator app, then clear the terminal.")
    return 0


def _refuse(reason: str) -> int:
    print(f"ringfence: {reason}", file=sys.stderr)
    return 2
