"""Audit events: a decision as OCSF 1.8 API Activity, and as fields of the journal.

An event has names of the manifest and words of our own. Whatever a caller or a server chooses
(arguments, results, unknown names, URIs) is a keyed digest in it, or left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from ringfence.gateway.protocol.methods import METHODS, OPERATIONS, Activity

TEXT_CHARACTERS = 256
POLICIES = 16
FINDINGS = 32

Outcome = Literal["allowed", "denied", "failed"]
"""Failed: the call was allowed, and had no result."""
Treatment = Literal["none", "flagged", "redacted", "blocked"]
"""The treatment of the result or the arguments by inspection."""

_OCSF: Mapping[Activity, int] = {"read": 2, "update": 3, "other": 99}
AUDITED_METHODS: Mapping[str, int] = {
    **{name: _OCSF[method.activity] for name, method in METHODS.items()},
    **{name: _OCSF[activity] for name, activity in OPERATIONS.items()},
}
"""OCSF activity by method. Others are recorded as `unknown`, because a caller chose their names."""

_ACTIVITIES = {0: "Unknown", 2: "Read", 3: "Update", 99: "Other"}
_SEVERITIES = {"allowed": (1, "Informational"), "denied": (2, "Low"), "failed": (3, "Medium")}
_REASON = re.compile(r"[a-z][a-z0-9_]{0,63}")


class AuditEvent(NamedTuple):
    """A decision and its outcome. Give the fields by name: there are too many to count.

    A tuple, because creating a frozen dataclass of this size takes three times as long.
    """

    request_id: str
    time: float
    """Arrival of the request, Unix seconds."""
    duration: float
    """Seconds since then."""
    outcome: Outcome
    status: int
    """HTTP."""
    reason: str
    """A word in snake case: `allowed`, or the reason of a refusal."""
    address: str | None = None
    certificate: str | None = None
    """x5t#S256 of the client's certificate."""
    principal: str | None = None
    """The verified caller; None: there is none."""
    issuer: str | None = None
    token_id: str | None = None
    """`jti` of the verified token."""
    server: str | None = None
    """Name in the manifest; None: the request named no server of the manifest."""
    version: str | None = None
    """A supported version of the protocol."""
    method: str | None = None
    kind: str | None = None
    name: str | None = None
    """Name in the manifest: a tool, a prompt, the pattern that a resource's URI matches. None
    for any other name: it may be a secret in the wrong place. Where the request is not a call: the
    subject of a revocation or restoration."""
    named: str | None = None
    """`Audit.fingerprint` of the name or URI that the caller sent, where `name` differs."""
    data_class: str | None = None
    sensitive: bool = False
    policies: Sequence[str] = ()
    """Ids of the policies that determined the decision."""
    policy_version: str = ""
    grant: str | None = None
    findings: Mapping[str, int] = MappingProxyType({})
    """Numbers by type; never values."""
    treatment: Treatment = "none"
    arguments: str | None = None
    """`Audit.fingerprint` of the call's arguments."""


def activity_of(event: AuditEvent) -> dict[str, Any]:
    """Write an event as OCSF API Activity (6003), without its time and its place in the chain."""
    unmapped: dict[str, Any] = {
        "outcome": event.outcome,
        "latency_us": round(event.duration * 1e6),
        "treatment": event.treatment,
    }
    if event.grant is not None:
        unmapped["grant"] = _text(event.grant)
    if event.findings:
        unmapped["findings"] = {
            _text(kind): number for kind, number in list(event.findings.items())[:FINDINGS]
        }
    if event.named is not None:
        unmapped["named"] = event.named
    if event.arguments is not None:
        unmapped["arguments"] = event.arguments
    return {
        **_decision(
            event.outcome,
            event.status,
            event.reason if _REASON.fullmatch(event.reason) else "unknown",
            event.treatment,
            tuple(event.policies[:POLICIES]),
            event.policy_version,
        ),
        **_request(
            event.method if event.method in AUDITED_METHODS else None,
            event.version,
            event.server,
            event.kind,
            event.name,
            event.data_class,
            event.sensitive,
        ),
        "actor": _actor(event.principal, event.certificate, event.issuer, event.token_id),
        "src_endpoint": _source(event.address),
        "duration": round(event.duration * 1000),
        "metadata": {
            "profiles": ["security_control"],
            "correlation_uid": _text(event.request_id),
        },
        "unmapped": unmapped,
    }


# Parts of an event that repeat with every call are built once. A caller cannot vary their arguments
# at will, and nothing changes what they return.


@lru_cache(maxsize=1024)
def _decision(
    outcome: Outcome,
    status: int,
    reason: str,
    treatment: Treatment,
    policies: tuple[str, ...],
    policy_version: str,
) -> dict[str, Any]:
    severity = _SEVERITIES[outcome]
    action, disposition = _disposition(outcome, status, treatment)
    decision: dict[str, Any] = {
        "class_uid": 6003,
        "class_name": "API Activity",
        "category_uid": 6,
        "category_name": "Application Activity",
        "severity_id": severity[0],
        "severity": severity[1],
        "status_id": 1 if outcome == "allowed" else 2,
        "status": "Success" if outcome == "allowed" else "Failure",
        "status_code": str(status),
        "status_detail": reason,
        "action_id": action[0],
        "action": action[1],
        "disposition_id": disposition[0],
        "disposition": disposition[1],
        "policy": {"type": "Cedar", "version": policy_version},
    }
    if policies:
        kind = "deny" if outcome == "denied" else "allow"
        decision["authorizations"] = [
            {"decision": kind, "policy": {"uid": _text(policy)}} for policy in policies
        ]
    return decision


@lru_cache(maxsize=4096)
def _request(
    method: str | None,
    version: str | None,
    server: str | None,
    kind: str | None,
    name: str | None,
    data_class: str | None,
    sensitive: bool,
) -> dict[str, Any]:
    activity = AUDITED_METHODS[method] if method is not None else 0
    api: dict[str, Any] = {"operation": method or "unknown"}
    if version is not None:
        api["version"] = _text(version)
    request: dict[str, Any] = {
        "activity_id": activity,
        "activity_name": "Call" if method == "tools/call" else _ACTIVITIES[activity],
        "type_uid": 600300 + activity,
        "api": api,
    }
    if server is not None:
        api["service"] = {"name": _text(server)}
        kind = kind or "server"
        named = server if kind == "server" else name or "unknown"
        resource: dict[str, Any] = {
            "namespace": _text(server),
            "type": _text(kind),
            "name": _text(named),
        }
        if data_class is not None:
            resource["labels"] = [f"data_class:{_text(data_class)}"]
        if sensitive:
            resource["criticality"] = "sensitive"
        request["resources"] = [resource]
    elif kind is not None and name is not None:
        request["resources"] = [{"type": _text(kind), "name": _text(name)}]
    return request


@lru_cache(maxsize=4096)
def _actor(
    principal: str | None, certificate: str | None, issuer: str | None, token_id: str | None
) -> dict[str, Any]:
    user: dict[str, Any] = {"name": "unauthenticated", "type_id": 0}
    if principal is not None:
        shown = _text(principal)
        user = {"uid": shown, "name": shown, "type_id": 99, "type": "principal"}
    if certificate is not None:
        user["credential_uid"] = f"x5t#S256:{_text(certificate)}"
    actor: dict[str, Any] = {"user": user}
    if issuer is not None:
        actor["session"] = {"issuer": _text(issuer)}
        if token_id is not None:
            actor["session"]["uid"] = _text(token_id)
    return actor


@lru_cache(maxsize=4096)
def _source(address: str | None) -> dict[str, str]:
    try:
        return {"ip": str(ip_address(address or ""))}
    except ValueError:
        return {"name": "unknown"}


def _disposition(
    outcome: Outcome, status: int, treatment: Treatment
) -> tuple[tuple[int, str], tuple[int, str]]:
    """The OCSF action and disposition."""
    if outcome == "failed":
        return (1, "Allowed"), (27, "Error")
    if outcome == "allowed":
        if treatment == "redacted":
            return (4, "Modified"), (11, "Corrected")
        return (1, "Allowed"), (1, "Allowed")
    if status == 401:
        return (2, "Denied"), (26, "Unauthorized")
    return (2, "Denied"), (2, "Blocked") if status == 403 else (25, "Rejected")


def fields_of(event: AuditEvent) -> dict[bytes, bytes]:
    """Fields by which the journal is searched."""
    fields = {
        b"RINGFENCE_EVENT": b"decision",
        b"RINGFENCE_OUTCOME": event.outcome.encode(),
        b"RINGFENCE_REQUEST_ID": _field(event.request_id),
    }
    if event.principal is not None:
        fields[b"RINGFENCE_PRINCIPAL"] = _field(event.principal)
    if event.server is not None:
        fields[b"RINGFENCE_SERVER"] = _field(event.server)
        if event.name is not None:
            fields[b"RINGFENCE_NAME"] = _field(event.name)
    return fields


def _field(text: str) -> bytes:
    return _text(text).encode("utf-8", "backslashreplace")


def _text(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS else text[: TEXT_CHARACTERS - 1] + "…"
