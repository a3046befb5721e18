"""The signed documents that revoke access and restore it, and whether they count.

They are signed like those of grants: a gateway needs no trust in the sender, and the audit log
names the signer. Responders may revoke anybody's access, everybody their own and that of agents
they own. Only responders restore access, and never their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ringfence.gateway.jose import signed_documents
from ringfence.gateway.jose.signed_documents import (
    LATEST,
    REASON_LENGTH,
    SKEW_SECONDS,
    Form,
    Roster,
    check_time,
    deny,
)

Kind = Literal["token", "principal", "certificate"]
KINDS: tuple[Kind, ...] = ("token", "principal", "certificate")
REVOCATION = "ringfence-access-revocation+jwt"
RESTORATION = "ringfence-access-restoration+jwt"
FRESH_SECONDS = 300
"""A document has to arrive within that time: an old one, sent again, changes nothing."""
UNTIL_RESTORED = LATEST

_ABOUT: Form = {"iss": str, "aud": str, "iat": int, "kind": str, "value": str, "reason": str}
FORMS: Mapping[str, Form] = {REVOCATION: {**_ABOUT, "exp": int}, RESTORATION: _ABOUT}
_TOKEN_ID = re.compile(r"[\x21-\x7e]{1,256}")
_TOKEN = re.compile(r"[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class Change:
    """Access that is revoked until a time (Unix seconds), or restored."""

    kind: Kind
    value: str
    """`jti` of a token, name of a principal, x5t#S256 of a certificate."""
    until: int | None
    """None: restored."""
    reason: str
    signer: str
    certificate: str
    """x5t#S256 of the signer's."""
    issued: int
    certified_until: float


def verify(document: bytes, roster: Roster) -> Change:
    """Verify who signed which change, whether or not it may be. Raises `Refusal`."""
    signed = signed_documents.verify(document, roster, FORMS)
    claims = signed.claims
    if claims["kind"] not in KINDS:
        deny("bad_kind", f"kind must be one of {', '.join(KINDS)}")
    return Change(
        claims["kind"],
        claims["value"],
        claims["exp"] if signed.typ == REVOCATION else None,
        claims["reason"],
        signed.signer,
        signed.certificate,
        claims["iat"],
        signed.certified_until,
    )


def check(change: Change, roster: Roster, now: float) -> None:
    """Raise `Refusal` unless this may be done now."""
    check_time(change.issued, change.certified_until, now)
    if change.issued < now - FRESH_SECONDS - SKEW_SECONDS:
        deny("too_old", "the document was signed too long ago; sign it again")
    shortest, longest = REASON_LENGTH
    if not shortest <= len(change.reason) <= longest or not change.reason.isprintable():
        deny("bad_reason", f"the reason must be one printable line of {shortest} to {longest}")
    if wrong := malformed(change.kind, change.value):
        deny("bad_value", wrong)
    if change.kind == "principal" and change.value not in roster.principals:
        deny("unknown_principal", "this environment has no such principal")
    responds = change.signer in roster.responders
    if change.until is None:
        own = change.value in (change.signer, change.certificate)
        if not responds or own:
            deny("not_a_responder", "only another responder restores access")
        return
    if change.until <= now:
        deny("expired", "the revocation would be over already")
    if not responds and not (change.kind == "principal" and _own(change, roster)):
        deny(
            "not_a_responder",
            "only responders revoke the access of others than themselves and their agents",
        )


def malformed(kind: Kind, value: str) -> str | None:
    """The fault in the name of a token, principal or certificate; None if there is none."""
    if kind == "token" and _TOKEN.fullmatch(value):
        return "this is a token itself; name it by its jti, and treat it as disclosed"
    if kind == "token" and not _TOKEN_ID.fullmatch(value):
        return "a token's id is its jti: 1 to 256 visible characters"
    if kind == "certificate" and not _THUMBPRINT.fullmatch(value):
        return "a certificate is named by its x5t#S256: 43 characters of Base64url"
    return None


def _own(change: Change, roster: Roster) -> bool:
    named = roster.principals[change.value]
    return change.signer in (change.value, named.owner)
