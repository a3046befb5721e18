"""The signed documents that make a grant, and whether they count: request, approval, revocation.

A request's id is `jti`. An approval or a revocation names the request by `request_id` and by
`request_digest`, so it counts for that one text and no other.

`verify` returns who signed what; `check_request`, `check_approval` and `check_revocation` raise
`Refusal` unless that may be. The gateway calls them for every document, the operator's side
(`operator/grants.py`) for its own before it sends them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ringfence.gateway.jose import signed_documents
from ringfence.gateway.jose.signed_documents import (
    REASON_LENGTH,
    SKEW_SECONDS,
    Form,
    Roster,
    UnverifiedDocument,
    check_time,
    deny,
)

START_AHEAD_SECONDS = 3600
"""A grant begins soon after its request, while the reason still holds."""
SHORTEST_SECONDS = 60

ID = re.compile(r"[0-9a-f]{32}")
"""128 random bits. Hex, because an id is a file name and a command's argument too."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ANSWER: Form = {"iss": str, "aud": str, "iat": int, "request_id": ID, "request_digest": _DIGEST}
REQUEST = "ringfence-grant-request+jwt"
APPROVAL = "ringfence-grant-approval+jwt"
REVOCATION = "ringfence-grant-revocation+jwt"
FORMS: Mapping[str, Form] = {
    REQUEST: {
        "iss": str,
        "aud": str,
        "jti": ID,
        "iat": int,
        "nbf": int,
        "exp": int,
        "server": str,
        "tool": str,
        "reason": str,
    },
    APPROVAL: _ANSWER,
    REVOCATION: _ANSWER,
}


@dataclass(frozen=True)
class GrantRequest:
    """Times in Unix seconds; good from `start` until before `end`."""

    id: str
    digest: str
    principal: str
    server: str
    tool: str
    reason: str
    issued: int
    start: int
    end: int
    certified_until: float
    """The end of the first certificate to expire in the signer's chain."""
    certificate: str
    """x5t#S256 of the signer's."""

    @property
    def signer(self) -> str:
        return self.principal


@dataclass(frozen=True)
class GrantApproval:
    request_id: str
    request_digest: str
    signer: str
    issued: int
    certified_until: float
    certificate: str


@dataclass(frozen=True)
class GrantRevocation:
    request_id: str
    request_digest: str
    signer: str
    issued: int
    certified_until: float
    certificate: str


GrantDocument = GrantRequest | GrantApproval | GrantRevocation


def read(document: bytes) -> UnverifiedDocument:
    """Read a well-formed document about a grant, without verifying it. Raises `Refusal`."""
    return signed_documents.read(document, FORMS)


def verify(document: bytes, roster: Roster) -> GrantDocument:
    """Verify who signed what about a grant, whether or not it may be. Raises `Refusal`."""
    signed = signed_documents.verify(document, roster, FORMS)
    claims = signed.claims
    if signed.typ == REQUEST:
        return GrantRequest(
            claims["jti"],
            signed.digest,
            signed.signer,
            claims["server"],
            claims["tool"],
            claims["reason"],
            claims["iat"],
            claims["nbf"],
            claims["exp"],
            signed.certified_until,
            signed.certificate,
        )
    answer = GrantApproval if signed.typ == APPROVAL else GrantRevocation
    return answer(
        claims["request_id"],
        claims["request_digest"],
        signed.signer,
        claims["iat"],
        signed.certified_until,
        signed.certificate,
    )


def check_request(request: GrantRequest, roster: Roster, ceiling: float, now: float) -> None:
    """Raise `Refusal` unless this may be requested now. `ceiling`: seconds a grant may last."""
    if (request.server, request.tool) not in roster.approvers:
        deny("tool_not_sensitive", "no tool of that name needs a grant")
    shortest, longest = REASON_LENGTH
    if (
        not shortest <= len(request.reason) <= longest
        or request.reason != request.reason.strip()
        or not request.reason.isprintable()
    ):
        deny("bad_reason", f"the reason must be one printable line of {shortest} to {longest}")
    if request.end - request.start < SHORTEST_SECONDS:
        deny("too_short", f"a grant lasts at least {SHORTEST_SECONDS} seconds")
    if request.end - request.start > ceiling:
        deny("too_long", f"a grant lasts at most {ceiling:.0f} seconds")
    if not request.issued <= request.start <= request.issued + START_AHEAD_SECONDS:
        deny("bad_start", f"a grant begins within {START_AHEAD_SECONDS} seconds of the request")
    if not roster.eligible(request.principal, request.server, request.tool):
        deny("no_approver", "nobody may approve this: every approver is the requester or its owner")
    check_time(request.issued, request.certified_until, now)
    if now >= request.end:
        deny("expired", "the requested time is over; request it again")


def check_approval(
    approval: GrantApproval, request: GrantRequest, roster: Roster, now: float
) -> None:
    """Raise `Refusal` unless this approves that request now."""
    _check_same(approval, request)
    if approval.signer == request.principal:
        deny("self_approval", "nobody approves a request of their own")
    if roster.principals[approval.signer].kind != "person":
        deny("approver_not_a_person", "only a person approves")
    if approval.signer == roster.principals[request.principal].owner:
        deny("own_agent", "nobody approves for an agent of their own")
    if approval.signer not in roster.approvers.get((request.server, request.tool), ()):
        deny("not_an_approver", "the signer is not an approver of this tool")
    if approval.issued < request.issued - SKEW_SECONDS:
        deny("bad_time", "the approval is older than the request")
    check_time(approval.issued, approval.certified_until, now)
    if now >= request.end or approval.issued >= request.end:
        deny("expired", "the requested time is over; it has to be requested again")


def check_revocation(
    revocation: GrantRevocation,
    request: GrantRequest,
    approved_by: Collection[str],
    roster: Roster,
    now: float,
) -> None:
    """Raise `Refusal` unless this ends that request.

    `approved_by`: those who approved it, even if they are no longer approvers.
    """
    _check_same(revocation, request)
    may = {request.principal, *approved_by}
    may |= roster.approvers.get((request.server, request.tool), frozenset())
    if revocation.signer not in may:
        deny("not_a_revoker", "only the requester and the tool's approvers revoke")
    check_time(revocation.issued, revocation.certified_until, now)


def _check_same(answer: GrantApproval | GrantRevocation, request: GrantRequest) -> None:
    if (answer.request_id, answer.request_digest) != (request.id, request.digest):
        deny("wrong_request", "the document was signed over another request")
