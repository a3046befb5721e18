"""Access that is cut off at once, from the operator's side: revoke, restore, list.

As with grants, what is signed here is all that counts: every gateway verifies who says so, and
is in force with the next call of any of its processes.
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
from ringfence.identity.pki import PkiError, named_principal
from ringfence.manifest.model import Environment
from ringfence.operator.grants import GrantError, Signer, ask, seconds, send, told, with_certificate

PATH = "revocations"
SKEW_SECONDS = 120
"""The largest difference of clocks that a gateway can be told to bear."""


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
            help="whatever is bound to a client certificate or comes with it",
        )
        parser.add_argument("--reason", required=True, help="one line, for who looks later")
    if step == "revoke":
        parser.add_argument(
            "--for",
            dest="seconds",
            type=seconds,
            metavar="TIME",
            help="8h, 7d (default: a token as long as it can live, all else until restored)",
        )
    parser.add_argument(
        "--as",
        dest="signer",
        required=step != "revocations",
        metavar="PRINCIPAL",
        help="who does" if step != "revocations" else "who looks; otherwise all who can from here",
    )
    parser.add_argument("--environment", type=Path, default="inventories/lab/environment.yaml")


def run(args: Namespace) -> int:
    try:
        environment = Environment.load(args.environment)
        work = _list if args.step == "revocations" else _change
        return asyncio.run(work(args, environment))
    except (GrantError, PkiError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, PkiError) else 1


async def _change(args: Namespace, environment: Environment) -> int:
    kind, value = _subject(args, environment)
    signer = Signer.of(environment, args.signer)
    now = int(time.time())
    claims = {"kind": kind, "value": value, "reason": args.reason}
    if args.step == "revoke":
        lasts = args.seconds or (_longest_life(environment) if kind == "token" else None)
        claims["exp"] = now + lasts if lasts else UNTIL_RESTORED
    document = signer.sign(REVOCATION if args.step == "revoke" else RESTORATION, claims)
    facts = signer.facts
    try:
        check(verify(document, facts), facts, time.time())
    except Refusal as refusal:
        who = ", ".join(sorted(facts.responders)) or "nobody: name gateway.responders"
        hint = f"; responders: {who}" if refusal.reason == "not_a_responder" else ""
        raise GrantError(f"{refusal.message}{hint}") from refusal
    outcomes = await send(environment, signer, document, path=PATH)
    advice = (
        "on the others nothing has changed: run this again, or stop them"
        if args.step == "revoke"
        else "run this again when the others answer"
    )
    status = told(outcomes, advice)
    if any(outcome.good for outcome in outcomes):
        until = claims.get("exp")
        done = f"revoked {_ends(until)}" if until is not None else "restored"
        print(f"{done}: {kind} {value}  {args.reason}")
    return status


async def _list(args: Namespace, environment: Environment) -> int:
    directory = environment.state / "pki" / "principals"
    names = [args.signer] if args.signer else with_certificate(environment, directory)
    if not names:
        raise PkiError(f"no principal has a certificate in {directory}: say who looks, by --as")
    rows: dict[str, list[str]] = {}
    asked: set[str] = set()
    status = 0
    for name in names:
        for outcome in await ask(environment, Signer.of(environment, name), PATH):
            if not outcome.good:
                status = 1
                print(f"{outcome.gateway}  {outcome.text}", file=sys.stderr)
                continue
            asked.add(outcome.gateway)
            for row in map(_row, outcome.listed):
                on = rows.setdefault(row, [])
                on += [outcome.gateway] if outcome.gateway not in on else []
    if not rows and not status:
        print("nothing is cut off")
    for row, on in rows.items():
        print(row if set(on) == asked else f"{row}  (on {', '.join(on)} alone)")
    return status


def _subject(args: Namespace, environment: Environment) -> tuple[Kind, str]:
    kind: Kind = next(kind for kind in KINDS if getattr(args, kind) is not None)
    value = getattr(args, kind)
    if kind == "principal":
        return kind, named_principal(environment, value).name
    if kind == "certificate" and (path := Path(value)).is_file():
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError) as error:
            raise PkiError(f"{path} is not a certificate in PEM: {error}") from error
        digest = certificate.fingerprint(SHA256())
        return kind, base64.urlsafe_b64encode(digest).decode().rstrip("=")
    # As the audit log writes it.
    value = value.removeprefix("x5t#S256:") if kind == "certificate" else value
    if wrong := malformed(kind, value):
        raise PkiError(f"--{kind}: {wrong}")
    return kind, value


def _longest_life(environment: Environment) -> int:
    """Of a token that was issued a moment ago, by a clock that is ahead."""
    minutes = environment.gateway.tokens.lifetime_minutes if environment.gateway else 60
    return minutes * 60 + 2 * SKEW_SECONDS


def _row(entry: Mapping[str, Any]) -> str:
    until = entry.get("until")
    texts = [str(entry.get(name)) for name in ("kind", "value", "by", "reason")]
    # It comes from a gateway to a terminal.
    kind, value, by, reason = (text if text.isprintable() else ascii(text) for text in texts)
    ends = _ends(until) if isinstance(until, int) else "until ?"
    return f"{kind} {value}  {ends}  by {by or 'hand'}  {reason}"


def _ends(until: int) -> str:
    if not 0 < until < UNTIL_RESTORED:
        return "until it is restored"
    return f"until {datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M} UTC"
