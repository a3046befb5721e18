"""The audit log: one event per decision, as OCSF 1.8 API Activity, chained by hash.

Written to a file of this process and to the journal, from where it is shipped. The file comes
first: `AuditError` means that the decision is not recorded, and must not be carried out. An event
has names of the manifest and words of our own. What a caller or a server says freely (arguments,
results, unknown names, URIs) is in it as a keyed digest or not at all.

`python -m ringfence.gateway.audit verify FILE…` holds files against their chains.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import orjson

from ringfence.gateway import VERSION
from ringfence.gateway.audit.file import AuditError, AuditFile
from ringfence.gateway.audit.hash_chain import GENESIS, digest
from ringfence.gateway.audit.journald import Journal
from ringfence.gateway.audit.verification import ChainLink
from ringfence.gateway.protocol.methods import METHODS, OPERATIONS, Activity

__all__ = ["AUDITED_METHODS", "Audit", "AuditError", "AuditEvent"]

OCSF_VERSION = "1.8.0"
IDENTIFIER = "ringfence-audit"
"""SYSLOG_IDENTIFIER of the journal's entries."""

_IDENTIFIER = IDENTIFIER.encode()

SEGMENT_BYTES = 64 << 20
RESERVE_BYTES = 8 << 20
"""Some 5,000 events: twice what may be under way in one process."""

TEXT_CHARACTERS = 256
POLICIES = 16
FINDINGS = 32

Outcome = Literal["allowed", "denied", "failed"]
"""Failed: it was allowed, and did not come to its result."""
Treatment = Literal["none", "flagged", "redacted", "blocked"]
"""What inspection did to the result, or the arguments."""

_OCSF: Mapping[Activity, int] = {"read": 2, "update": 3, "other": 99}
AUDITED_METHODS: Mapping[str, int] = {
    **{name: _OCSF[method.activity] for name, method in METHODS.items()},
    **{name: _OCSF[activity] for name, activity in OPERATIONS.items()},
}
"""OCSF activity by method. Others are recorded as `unknown`: their names are a caller's words."""

_ACTIVITIES = {0: "Unknown", 2: "Read", 3: "Update", 99: "Other"}
_SEVERITIES = {"allowed": (1, "Informational"), "denied": (2, "Low"), "failed": (3, "Medium")}
_PRIORITIES = {"allowed": b"6", "denied": b"5", "failed": b"4"}
_REASON = re.compile(r"[a-z][a-z0-9_]{0,63}")


class AuditEvent(NamedTuple):
    """A decision, and what came of it. By name only: there are too many to count.

    A tuple, because a frozen dataclass of this size takes three times as long to make.
    """

    request_id: str
    time: float
    """Of the request's arrival, Unix seconds."""
    duration: float
    """Until now, seconds."""
    outcome: Outcome
    status: int
    """HTTP."""
    reason: str
    """A word in snake case: `allowed`, or a refusal's."""
    address: str | None = None
    certificate: str | None = None
    """x5t#S256 of the client's certificate."""
    principal: str | None = None
    """Verified; None: nobody."""
    issuer: str | None = None
    token_id: str | None = None
    """`jti` of the verified token."""
    server: str | None = None
    """As the manifest names it; None: the request named none that there is."""
    version: str | None = None
    """Of the protocol, one that is supported."""
    method: str | None = None
    kind: str | None = None
    name: str | None = None
    """As the manifest has it: a tool, a prompt, the pattern that a resource's URI matches. None
    for any other name; it may be a secret pasted into the wrong place. Where the request is no
    call: who or what was cut off or given back."""
    named: str | None = None
    """`Audit.fingerprint` of the name or URI that the caller sent, where `name` is not that."""
    data_class: str | None = None
    sensitive: bool = False
    policies: Sequence[str] = ()
    """Ids of those that determined the decision."""
    policy_version: str = ""
    grant: str | None = None
    findings: Mapping[str, int] = MappingProxyType({})
    """How many of which type; never what."""
    treatment: Treatment = "none"
    arguments: str | None = None
    """`Audit.fingerprint` of the call's arguments."""


class Audit:
    """Writes the events of one process. Not for threads."""

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        key: bytes,
        journal: Journal | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        """`name`: of this process among those that share the directory, the same after a restart.

        `key`: for `fingerprint`, at least 32 bytes. Raises `AuditError` where the directory cannot
        be used, another process has the name, or there is no room.
        """
        if len(key) < 32:
            raise AuditError("the key for digests has less than 32 bytes; make a longer one")
        self._key = key
        self._product = {"name": "gateway", "vendor_name": "ringfence", "version": VERSION}
        self._journal = journal
        self._file = AuditFile(
            directory, name, segment_bytes=segment_bytes, reserve_bytes=reserve_bytes
        )
        self.writer = f"{name}-{self._file.generation:06d}-{secrets.token_hex(4)}"
        self._writer_field = self.writer.encode()
        self._last: ChainLink | None = self._file.before
        self._next = 0
        self._refused = 0
        try:
            self._begin_where_needed()
            self._file.admit()
        except AuditError:
            self._file.close()
            raise

    @property
    def path(self) -> Path:
        """The file that is written to."""
        return self._file.path

    @property
    def last(self) -> ChainLink | None:
        """The line that was written last."""
        return self._last

    @property
    def journal_lost(self) -> int:
        """Events that are in the file alone, because the journal did not take them."""
        return self._journal.lost if self._journal is not None else 0

    def use_journal(self, journal: Journal | None) -> None:
        """From the next event on; `None`: none."""
        if self._journal is not None:
            self._journal.close()
        self._journal = journal

    def fingerprint(self, value: Any) -> str:
        """Keyed digest (HMAC-SHA-256, hex) of a JSON value in canonical form.

        Without the key, arguments of few possible values cannot be guessed from the log; with it,
        two calls with the same arguments are known to be that.
        """
        try:
            canonical = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except TypeError:  # integers beyond 64 bits, lone surrogates
            canonical = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        return hmac.digest(self._key, canonical, "sha256").hex()

    def admit(self) -> None:
        """Before a call is made: raises `AuditError` where its event would find no room."""
        self._begin_where_needed()
        self._file.admit()

    def write(self, event: AuditEvent) -> None:
        """Record a decision. Raises `AuditError`: it is not recorded, so it must not be told."""
        try:
            self._begin_where_needed()
            self._tell_refused()
            self._append(_activity(event), _fields(event), event.time, _PRIORITIES[event.outcome])
        except AuditError:
            self._refused += 1
            raise

    def sync(self) -> None:
        """Have the disk keep what was written; for another thread's time, a second apart.

        Blocks for milliseconds, and raises `AuditError`. Without it, a power cut takes what the
        kernel has not written by itself; the journal's copy is on its way by then.
        """
        self._file.sync()

    def close(self) -> None:
        """End the chain, so that a reader sees that nothing came after."""
        try:
            self._append(
                self._lifecycle(4, "Stop", {"end": True}),
                {b"RINGFENCE_EVENT": b"stop"},
                time.time(),
            )
            self._file.sync()
        except AuditError:
            pass  # the missing end says so
        finally:
            self._file.close()
            if self._journal is not None:
                self._journal.close()

    def _begin_where_needed(self) -> None:
        why = self._file.needs_new_file()
        if why is None:
            return
        anchor: dict[str, Any] = {"why": why, "anchor": None}
        if self._last is not None:
            last = self._last
            anchor["anchor"] = {"writer": last.writer, "sequence": last.sequence, "hash": last.hash}
        if why == "start":
            anchor["torn"] = self._file.torn_before
        begins = self._lifecycle(3 if why == "start" else 99, "Start", anchor)
        line, link = b"", None

        def first_line() -> bytes:
            nonlocal line, link
            line, link = self._chained(begins, time.time())
            return line

        try:
            self._file.begin(first_line)
        except AuditError:
            if why == "rotation":
                return  # the old file has the room that was reserved there
            raise
        self._written(line, link, {b"RINGFENCE_EVENT": why.encode()}, b"6")

    def _tell_refused(self) -> None:
        """Say how many events there was no room for, now that there is."""
        if self._refused:
            told = self._lifecycle(99, "Resume", {"refused": self._refused})
            self._append(told, {b"RINGFENCE_EVENT": b"resume"}, time.time(), b"4")
            self._refused = 0

    def _append(
        self,
        document: dict[str, Any],
        fields: Mapping[bytes, bytes],
        when: float,
        priority: bytes = b"6",
    ) -> None:
        line, link = self._chained(document, when)
        self._file.append(line)
        self._written(line, link, fields, priority)

    def _chained(self, document: dict[str, Any], when: float) -> tuple[bytes, ChainLink]:
        sequence = self._next
        document["time"] = int(when * 1000)
        document["metadata"] = {
            "version": OCSF_VERSION,
            "product": self._product,
            "log_name": IDENTIFIER,
            "uid": f"{self.writer}-{sequence}",
            "sequence": sequence,
            **document["metadata"],
        }
        document["unmapped"]["chain"] = {
            "writer": self.writer,
            "sequence": sequence,
            "previous": self._last.hash if self._last is not None else GENESIS,
        }
        line = _encoded(document)
        return line + b"\n", ChainLink(self.writer, sequence, digest(line))

    def _written(
        self, line: bytes, link: ChainLink | None, fields: Mapping[bytes, bytes], priority: bytes
    ) -> None:
        assert link is not None
        self._last = link
        self._next = link.sequence + 1
        if self._journal is not None:
            self._journal.send(
                {
                    b"MESSAGE": line[:-1],
                    b"PRIORITY": priority,
                    b"SYSLOG_IDENTIFIER": _IDENTIFIER,
                    b"RINGFENCE_WRITER": self._writer_field,
                    b"RINGFENCE_SEQUENCE": b"%d" % link.sequence,
                    **fields,
                }
            )

    def _lifecycle(self, activity: int, name: str, unmapped: dict[str, Any]) -> dict[str, Any]:
        """OCSF Application Lifecycle (6002): about the log itself."""
        return {
            "class_uid": 6002,
            "class_name": "Application Lifecycle",
            "category_uid": 6,
            "category_name": "Application Activity",
            "activity_id": activity,
            "activity_name": name,
            "type_uid": 600200 + activity,
            "severity_id": 3 if "refused" in unmapped or unmapped.get("why") == "replaced" else 1,
            "app": self._product,
            "metadata": {},
            "unmapped": unmapped,
        }


def _activity(event: AuditEvent) -> dict[str, Any]:
    """OCSF API Activity (6003) with the profile Security Control; time and chain are added."""
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
        **_verdict(
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


# The same few facts come again with every call: their part of an event is made once. Nothing that a
# caller can vary at will is among them, and nobody changes what is returned.


@lru_cache(maxsize=1024)
def _verdict(
    outcome: Outcome,
    status: int,
    reason: str,
    treatment: Treatment,
    policies: tuple[str, ...],
    policy_version: str,
) -> dict[str, Any]:
    severity = _SEVERITIES[outcome]
    action, disposition = _disposition(outcome, status, treatment)
    verdict: dict[str, Any] = {
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
        decision = "deny" if outcome == "denied" else "allow"
        verdict["authorizations"] = [
            {"decision": decision, "policy": {"uid": _text(policy)}} for policy in policies
        ]
    return verdict


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
    """OCSF action and disposition."""
    if outcome == "failed":
        return (1, "Allowed"), (27, "Error")
    if outcome == "allowed":
        if treatment == "redacted":
            return (4, "Modified"), (11, "Corrected")
        return (1, "Allowed"), (1, "Allowed")
    if status == 401:
        return (2, "Denied"), (26, "Unauthorized")
    return (2, "Denied"), (2, "Blocked") if status == 403 else (25, "Rejected")


def _fields(event: AuditEvent) -> dict[bytes, bytes]:
    """What the journal is searched by."""
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


def _encoded(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:  # a lone surrogate has no UTF-8; an event it is all the same
        text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
        return text.encode("utf-8", "replace")
