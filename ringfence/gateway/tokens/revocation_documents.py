"""The signed documents by which access is cut off, and given back.

They are signed as those of grants are (`grant_documents`): a gateway needs no trust in who brings
them, and the log says who it was. Who may cut off whom is decided here: responders anybody, and
everybody themselves and the agents they own. Only responders give back, and never to themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ringfence.gateway.consent.grant_documents import (
    LATEST,
    REASON_LENGTH,
    SKEW_SECONDS,
    Facts,
    Form,
    check_time,
    deny,
    verify_signed,
)

Kind = Literal["token", "principal", "certificate"]
KINDS: tuple[Kind, ...] = ("token", "principal", "certificate")
REVOCATION = "ringfence-access-revocation+jwt"
RESTORATION = "ringfence-access-restoration+jwt"
FRESH_SECONDS = 300
"""Within which a document has to arrive: an old one, sent again, changes nothing."""
UNTIL_RESTORED = LATEST

_ABOUT: Form = {"iss": str, "aud": str, "iat": int, "kind": str, "value": str, "reason": str}
FORMS: Mapping[str, Form] = {REVOCATION: {**_ABOUT, "exp": int}, RESTORATION: _ABOUT}
_TOKEN_ID = re.compile(r"[\x21-\x7e]{1,256}")
_TOKEN = re.compile(r"[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class Change:
    """Access that is cut off until a time (Unix seconds), or given back."""

    kind: Kind
    value: str
    """`jti` of a token, name of a principal, x5t#S256 of a certificate."""
    until: int | None
    """None: given back."""
    reason: str
    signer: str
    certificate: str
    """x5t#S256 of the signer's."""
    issued: int
    certified_until: float


def verify(document: bytes, facts: Facts) -> Change:
    """What somebody signed, whether or not it may be. Raises `Refusal`."""
    signed = verify_signed(document, facts, FORMS)
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


def check(change: Change, facts: Facts, now: float) -> None:
    """Raises `Refusal` unless this may be done now."""
    check_time(change.issued, change.certified_until, now)
    if change.issued < now - FRESH_SECONDS - SKEW_SECONDS:
        deny("too_old", "the document was signed too long ago; sign it again")
    shortest, longest = REASON_LENGTH
    if not shortest <= len(change.reason) <= longest or not change.reason.isprintable():
        deny("bad_reason", f"the reason must be one printable line of {shortest} to {longest}")
    if wrong := malformed(change.kind, change.value):
        deny("bad_value", wrong)
    if change.kind == "principal" and change.value not in facts.principals:
        deny("unknown_principal", "this environment has no such principal")
    responds = change.signer in facts.responders
    if change.until is None:
        own = change.value in (change.signer, change.certificate)
        if not responds or own:
            deny("not_a_responder", "only another responder gives access back")
        return
    if change.until <= now:
        deny("expired", "the time until which it would be cut off is over already")
    if not responds and not (change.kind == "principal" and _own(change, facts)):
        deny("not_a_responder", "only responders cut off others than themselves and their agents")


def malformed(kind: Kind, value: str) -> str | None:
    """What is wrong with the name of what is cut off."""
    if kind == "token" and _TOKEN.fullmatch(value):
        return "this is a token itself; name it by its jti, and treat it as disclosed"
    if kind == "token" and not _TOKEN_ID.fullmatch(value):
        return "a token's id is its jti: 1 to 256 visible characters"
    if kind == "certificate" and not _THUMBPRINT.fullmatch(value):
        return "a certificate is named by its x5t#S256: 43 characters of Base64url"
    return None


def _own(change: Change, facts: Facts) -> bool:
    named = facts.principals[change.value]
    return change.signer in (change.value, named.owner)
