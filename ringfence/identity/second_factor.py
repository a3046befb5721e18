"""Show a person the secret of their second factor: `ringfence enrol ACCOUNT --environment FILE`.

A secret is made once per person and environment and kept in `.state/totp/`; role ssh makes
it too, in the same format, where nobody has enrolled yet. It goes to the terminal and nowhere
else: not to a pipe, a log or a file, unless asked.
"""

from __future__ import annotations

import os
import secrets
import sys
from argparse import ArgumentParser, Namespace
from base64 import b32encode
from pathlib import Path

import segno
from pyotp.totp import TOTP

from ringfence.manifest.model import Administrator, Environment

SECRET_BYTES = 20


def secret_file(environment: Environment, account: str) -> Path:
    return environment.state / "totp" / account


def uses_codes(person: Administrator) -> bool:
    """Codes are typed at the login, and by everybody who may become root."""
    return person.second_factor == "totp" or person.sudo


def ensure_secret(environment: Environment, account: str) -> str:
    """The person's secret, made if there is none yet."""
    path = secret_file(environment, account)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{account}.{os.getpid()}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(f"{b32encode(secrets.token_bytes(SECRET_BYTES)).decode()}\n")
    try:
        # Fails where a secret exists, also one that was made in this moment.
        path.hardlink_to(partial)
    except FileExistsError:
        pass
    finally:
        partial.unlink()
    return path.read_text().strip()


def uri(environment: Environment, account: str) -> str:
    """What an authenticator app reads."""
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
        return _refuse(f"{args.account} is no administrator of {environment.name} (has: {known})")
    if not uses_codes(person):
        return _refuse(f"{args.account} logs in with a FIDO2 key and needs no code")
    if not args.uri and not sys.stdout.isatty():
        return _refuse("the secret is shown on a terminal only; --uri prints it to a pipe")
    try:
        text = uri(environment, args.account)
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
