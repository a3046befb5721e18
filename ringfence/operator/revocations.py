"""Revocations of access, from the operator's side: revoke, restore, list.

As with grants, only a signed document has effect: every gateway verifies its signer, and the order
is in force with the next call to any of its processes.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from ringfence.gateway.refusals import Refusal
from ringfence.gateway.tokens.revocation_documents import (
    KINDS,
    RESTORATION,
    REVOCATION,
    UNTIL_RESTORED,
    Kind,
    check,
    malformed,
    verify,
)
from ringfence.identity.pki import named_principal
from ringfence.identity.state import StateError
from ringfence.manifest.model import Environment
from ringfence.operator.durations import seconds
from ringfence.operator.errors import InputError, OperationError
from ringfence.operator.signer import Signer, signers_on_this_machine
from ringfence.operator.transport import query, report, send

PATH = "revocations"
SKEW_SECONDS = 120
"""Largest difference of clocks that a gateway can be configured to tolerate."""


def arguments(parser: ArgumentParser) -> None:
    step = (parser.prog or "").rpartition(" ")[2]
    parser.set_defaults(step=step)
    if step in ("revoke", "restore"):
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument(
            "--token", metavar="JTI", help="one token, by its jti, as the audit log has it"
        )
        what.add_argument("--principal", metavar="NAME", help="all tokens of a principal")
        what.add_argument(
            "--certificate",
            metavar="FILE|X5T#S256",
            help="all calls with a client certificate or with tokens bound to it",
        )
        parser.add_argument("--reason", required=True, help="one line for the record")
    if step == "revoke":
        parser.add_argument(
            "--for",
            dest="seconds",
            type=seconds,
            metavar="TIME",
            help="8h, 7d (default: a token until it has expired, all else until restored)",
        )
    parser.add_argument(
        "--as",
        dest="signer",
        required=step != "revocations",
        metavar="PRINCIPAL",
        help="the responder"
        if step != "revocations"
        else "the viewer (default: every principal with a certificate here)",
    )
    parser.add_argument("--environment", type=Path, default="inventories/lab/environment.yaml")


def run(args: Namespace) -> int:
    try:
        environment = Environment.load(args.environment)
        work = _list if args.step == "revocations" else _change
        return asyncio.run(work(args, environment))
    except (InputError, StateError) as error:
        print(error, file=sys.stderr)
        return 2
    except OperationError as error:
        print(error, file=sys.stderr)
        return 1


async def _change(args: Namespace, environment: Environment) -> int:
    kind, value = _target(args, environment)
    signer = Signer.named(args.signer, environment)
    now = int(time.time())
    claims = {"kind": kind, "value": value, "reason": args.reason}
    if args.step == "revoke":
        duration = args.seconds or (_longest_life(environment) if kind == "token" else None)
        claims["exp"] = now + duration if duration else UNTIL_RESTORED
    document = signer.sign(REVOCATION if args.step == "revoke" else RESTORATION, claims)
    roster = signer.roster
    try:
        check(verify(document, roster), roster, time.time())
    except Refusal as refusal:
        names = ", ".join(sorted(roster.responders)) or "none; name some in gateway.responders"
        hint = f"; responders: {names}" if refusal.reason == "not_a_responder" else ""
        raise OperationError(f"{refusal.message}{hint}") from refusal
    answers = await send(environment, signer.identity, PATH, document)
    advice = (
        "the others still allow it: run this again, or stop them"
        if args.step == "revoke"
        else "run this again when the others answer"
    )
    status = report(answers, advice)
    if any(answer.ok for answer in answers):
        until = claims.get("exp")
        effect = f"revoked {_ends(until)}" if until is not None else "restored"
        print(f"{effect}: {kind} {value}  {args.reason}")
    return status


async def _list(args: Namespace, environment: Environment) -> int:
    names = [args.signer] if args.signer else signers_on_this_machine(environment)
    rows: dict[str, list[str]] = {}
    answering: set[str] = set()
    status = 0
    for name in names:
        for answer in await query(environment, Signer.named(name, environment).identity, PATH):
            if not answer.ok:
                status = 1
                print(f"{answer.gateway}  {answer.text}", file=sys.stderr)
                continue
            answering.add(answer.gateway)
            for row in map(_row, answer.entries):
                on = rows.setdefault(row, [])
                on += [answer.gateway] if answer.gateway not in on else []
    if not rows and not status:
        print("nothing is revoked")
    for row, on in rows.items():
        print(row if set(on) == answering else f"{row}  (on {', '.join(on)} only)")
    return status


def _target(args: Namespace, environment: Environment) -> tuple[Kind, str]:
    kind: Kind = next(kind for kind in KINDS if getattr(args, kind) is not None)
    value = getattr(args, kind)
    if kind == "principal":
        return kind, named_principal(environment, value).name
    if kind == "certificate" and (path := Path(value)).is_file():
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is not a certificate in PEM: {error}") from error
        digest = certificate.fingerprint(SHA256())
        return kind, base64.urlsafe_b64encode(digest).decode().rstrip("=")
    # The audit log writes this prefix.
    value = value.removeprefix("x5t#S256:") if kind == "certificate" else value
    if fault := malformed(kind, value):
        raise InputError(f"--{kind}: {fault}")
    return kind, value


def _longest_life(environment: Environment) -> int:
    """Return the seconds until a token issued just now, by a clock that is ahead, has expired."""
    minutes = environment.gateway.tokens.lifetime_minutes if environment.gateway else 60
    return minutes * 60 + 2 * SKEW_SECONDS


def _row(entry: Mapping[str, Any]) -> str:
    until = entry.get("until")
    texts = [str(entry.get(name)) for name in ("kind", "value", "by", "reason")]
    # The text comes from a gateway and goes to a terminal.
    kind, value, by, reason = (text if text.isprintable() else ascii(text) for text in texts)
    ends = _ends(until) if isinstance(until, int) else "until ?"
    return f"{kind} {value}  {ends}  by {by or 'hand'}  {reason}"


def _ends(until: int) -> str:
    if not 0 < until < UNTIL_RESTORED:
        return "until it is restored"
    return f"until {datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M} UTC"
