"""The store of just-in-time grants for sensitive tools: signed documents in, live grants out.

Every process of a gateway reads the same directory and needs nothing else. `documents` decides
whether a document counts, `files` reads and writes it, `index` remembers what is live.

In doubt there is no grant: a file that cannot be read, is not a file, or says something else than
its name, grants nothing. Of a revocation the name alone counts, even if the content is lost: who
can write here could as well delete the approval.

Time: a grant ends by the clock. Within a process it stays over when the clock is set back, as does
a revoked one when the revocation is deleted.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ringfence.gateway.consent.documents import (
    GrantApproval,
    GrantRequest,
    GrantRevocation,
    check_approval,
    check_request,
    check_revocation,
    verify,
)
from ringfence.gateway.consent.files import (
    EXPIRED,
    NAME,
    SWEPT_AFTER_SECONDS,
    UNUSABLE,
    FileFaults,
    GrantFiles,
    reason_of,
)
from ringfence.gateway.consent.index import Grant, GrantEntry, GrantIndex, Over
from ringfence.gateway.jose.signed_documents import Roster
from ringfence.gateway.refusals import Refusal
from ringfence.gateway.state import shared_files
from ringfence.gateway.state.monotonic_clock import MonotonicClock

REQUESTS = 1024
"""Requests in the directory, of all principals, including those that are over and not swept yet."""
REQUESTS_EACH = 64
OPEN_REQUESTS_EACH = 16
"""Requests of one principal, neither revoked nor expired."""
KEPT_SECONDS = 90 * 86400
"""Seconds that the documents of a grant stay in `expired/`, by default."""

_SWEEP_SECONDS = 600
_RETRY_SECONDS = 1.0

Step = Literal["requested", "approved", "revoked"]

_log = logging.getLogger(__name__)


def _nobody_is_revoked(principal: str, certificate: str, now: float) -> None:
    pass


@dataclass(frozen=True)
class Receipt:
    """An accepted document, for the audit log and as the answer to its sender."""

    step: Step
    new: bool
    """False: it was here already."""
    id: str
    actor: str
    principal: str
    server: str
    tool: str
    reason: str
    start: int
    end: int
    request_digest: str

    @classmethod
    def of(cls, step: Step, request: GrantRequest, actor: str, *, new: bool) -> Receipt:
        return cls(
            step,
            new,
            request.id,
            actor,
            request.principal,
            request.server,
            request.tool,
            request.reason,
            request.start,
            request.end,
            request.digest,
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class RequestState:
    """A request and what became of it."""

    state: Literal["pending", "approved", "revoked", "expired"]
    request: GrantRequest
    approvers: tuple[str, ...]
    """Those whose approval counts."""
    eligible: tuple[str, ...]
    """Those who may approve it."""
    owner: str | None
    """Owner of the agent that requests."""
    document: str
    """The request as it was signed."""

    def concerns(self, principal: str) -> bool:
        """Return whether it is shown to a principal: the requester, its owner or an approver."""
        request = self.request
        return principal in (request.principal, self.owner, *self.eligible, *self.approvers)

    def as_json(self) -> dict[str, Any]:
        request = self.request
        return {
            "id": request.id,
            "state": self.state,
            "principal": request.principal,
            "server": request.server,
            "tool": request.tool,
            "reason": request.reason,
            "start": request.start,
            "end": request.end,
            "approvers": list(self.approvers),
            "eligible": sorted(self.eligible),
            "document": self.document,
        }


class Grants:
    """The live grants of a directory. Thread-safe; files are written outside of locks."""

    def __init__(
        self,
        directory: Path,
        roster: Roster,
        ceiling: float,
        *,
        keep: float = KEPT_SECONDS,
        refuse_revoked: Callable[[str, str, float], None] = _nobody_is_revoked,
        report: Callable[[str], None] = _log.warning,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ceiling`: seconds a grant may last. `keep`: seconds its documents stay after its end.

        `refuse_revoked` raises `Refusal` for a revoked principal or certificate, whose signatures
        count for nothing. `report` takes a line for each file with a fault.
        """
        self._files = GrantFiles(directory, roster, ceiling)
        self._directory = shared_files.Directory(os.fspath(directory), NAME, monotonic)
        self._index = GrantIndex()
        self._faults = FileFaults(directory, report)
        self._keep = keep
        self._refuse_revoked = refuse_revoked
        self._report = report
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._time = MonotonicClock(monotonic)
        self._swept_at: float | None = None
        with suppress(OSError):
            directory.mkdir(mode=0o750, exist_ok=True)
        with self._lock:
            self._refresh()

    def reconfigure(self, roster: Roster, ceiling: float) -> None:
        """Use another roster from now on. What is over stays over."""
        with self._lock:
            self._files = GrantFiles(self._files.directory, roster, ceiling)
            # The environment may have another name, by which requests are found.
            self._directory.forget()
            self._index.clear()
            self._refresh()

    @property
    def roster(self) -> Roster:
        return self._files.roster

    def live(self, principal: str, server: str, tool: str, now: float) -> Grant | None:
        """The grant by which a principal may call a sensitive tool at a time (Unix seconds)."""
        with self._lock:
            now = self._now(now)
            for entry in self._index.of((principal, server, tool)):
                if not entry.judged and self._monotonic() >= entry.retry_at:
                    self._judge(entry, now)
                grant = entry.grant
                if grant and grant.start <= now < grant.end and self._signers_count(grant, now):
                    return grant
        return None

    def accept(self, document: bytes, now: float) -> Receipt:
        """Verify and store a request, an approval or a revocation. Raises `Refusal`.

        A document that is here already is accepted again. Verifying takes about a millisecond and
        storing waits for the disk: not for an event loop.
        """
        signed = verify(document, self._files.roster)
        self._refuse_revoked(signed.signer, signed.certificate, now)
        with self._lock:
            now = self._now(now)
            sweep = self._swept_at is None or now - self._swept_at > _SWEEP_SECONDS
            if sweep:
                self._swept_at = now
        try:
            if sweep:
                self.sweep(now)
            if isinstance(signed, GrantRequest):
                return self._accept_request(signed, document, now)
            if isinstance(signed, GrantApproval):
                return self._accept_approval(signed, document, now)
            return self._accept_revocation(signed, document, now)
        except OSError as error:
            self._report(
                f"cannot store a grant's document in {self._files.directory}: {error.strerror}"
            )
            raise Refusal("grants_unavailable") from error

    def listing(self, now: float, principal: str | None = None) -> tuple[RequestState, ...]:
        """Every request in the directory, oldest first; with `principal`, those that concern it.

        Verifies each: not for an event loop.
        """
        with self._lock:
            now = self._now(now)
            found: list[tuple[str, Over | None, list[str]]] = [
                (id, self._index.over.get(id), self._index.approvers_of(id))
                for id in self._index.entries
            ]
        listed: list[RequestState] = []
        for each in found:
            with suppress(*UNUSABLE):
                listed.append(self._state_of(*each, now))
        return tuple(
            sorted(
                (e for e in listed if principal is None or e.concerns(principal)),
                key=lambda e: (e.request.issued, e.request.id),
            )
        )

    def pending(self, now: float, principal: str | None = None) -> tuple[RequestState, ...]:
        """The part of the listing that waits for an approval."""
        return tuple(e for e in self.listing(now, principal) if e.state == "pending")

    def sweep(self, now: float) -> None:
        """Put away the documents of what ended an hour ago, and delete those kept long enough."""
        with self._lock:
            self._refresh()
            known = set(self._index.entries)
            ended = [
                (e.id, self._index.approvers_of(e.id))
                for e in self._index.entries.values()
                if e.claim.end + SWEPT_AFTER_SECONDS <= now
            ]
        self._files.put_away(ended, known, now, self._keep)

    # Documents that come in

    def _accept_request(self, request: GrantRequest, document: bytes, now: float) -> Receipt:
        check_request(request, self._files.roster, self._files.ceiling, now)
        self._refuse_over(request.id)
        present = self._request(request.id)
        if present is None:
            self._check_number(request.principal)
            name = f"{request.id}.request"
            if self._files.store(name, document, lambda: self._request(request.id) is not None):
                return Receipt.of("requested", request, request.principal, new=True)
            # Another process was faster, with the same one or not.
            return self._accept_request(request, document, now)
        if present.digest != request.digest:
            raise Refusal("id_taken")
        return Receipt.of("requested", request, request.principal, new=False)

    def _accept_approval(self, approval: GrantApproval, document: bytes, now: float) -> Receipt:
        files = self._files
        request = self._request_of(approval)
        check_approval(approval, request, files.roster, now)
        check_request(request, files.roster, files.ceiling, now)
        self._refuse_over(request.id)

        def counts() -> bool:
            with suppress(*UNUSABLE):
                return bool(files.approval(request, approval.signer, now))
            return False

        new = files.store(f"{request.id}.approval.{approval.signer}", document, counts)
        return Receipt.of("approved", request, approval.signer, new=new)

    def _accept_revocation(
        self, revocation: GrantRevocation, document: bytes, now: float
    ) -> Receipt:
        request = self._request_of(revocation)
        with self._lock:
            approved_by = self._index.approvers_of(request.id)
        check_revocation(revocation, request, approved_by, self._files.roster, now)
        if now >= request.end:
            raise Refusal("expired", "the requested time is over already")
        new = self._files.store(f"{request.id}.revocation", document, lambda: True)
        return Receipt.of("revoked", request, revocation.signer, new=new)

    def _request_of(self, answer: GrantApproval | GrantRevocation) -> GrantRequest:
        request = self._request(answer.request_id)
        if request is None:
            raise Refusal("unknown_request")
        return request

    def _request(self, id: str) -> GrantRequest | None:
        """The verified request with this id; None: there is none."""
        with suppress(*UNUSABLE):
            return self._files.request(id)[0]
        return None

    def _refuse_over(self, id: str) -> None:
        over = self._index.over.get(id)
        if over:
            raise Refusal(over, f"the request is {over} already; make a new one")

    def _check_number(self, principal: str) -> None:
        with self._lock:
            entries = self._index.entries
            own = [e.id for e in entries.values() if e.claim.subject[0] == principal]
            total, is_open = len(entries), sum(id not in self._index.over for id in own)
        if total >= REQUESTS or len(own) >= REQUESTS_EACH or is_open >= OPEN_REQUESTS_EACH:
            raise Refusal("too_many_requests")

    # The directory

    def _now(self, now: float) -> float:
        """The time that counts, after a look at the directory."""
        now = self._time.latest(now)
        self._refresh()
        self._index.end(now)
        return now

    def _refresh(self) -> None:
        try:
            changes = self._directory.changes()
        except OSError as error:
            self._index.clear()
            where = self._files.directory
            self._faults.add("", 0, f"{where}: {error.strerror}: there are no grants")
            return
        if changes is None:
            return
        present = self._directory.present
        unknown = {
            name: inode
            for name, inode in changes.unknown.items()
            if not name.startswith(".") and name != EXPIRED
        }
        self._faults.add_all(
            (name, inode, "is not a document of a grant and is ignored")
            for name, inode in unknown.items()
        )
        self._faults.keep((*present.items(), *unknown.items()))
        faults = [self._take(name) for name in sorted(changes.changed | changes.gone)]
        self._faults.add_all(fault for fault in faults if fault)

    def _take(self, name: str) -> tuple[str, int, str] | None:
        """Take in that a file is new, another, or gone; return its fault."""
        match = NAME.fullmatch(name)
        assert match
        id, approver = match["id"], match["approver"]
        inode = self._directory.present.get(name)
        if match["kind"] != "request":
            if approver:
                self._index.set_approver(id, approver, present=inode is not None)
            elif inode is not None:
                self._index.set_over(id, "revoked")
            self._index.reset(id)
            return None
        self._index.remove(id)
        if inode is None:
            return None
        try:
            self._index.add(id, self._files.claim(id))
        except UNUSABLE as error:
            self._directory.watch(name)
            return name, inode, f"is ignored: {reason_of(error)}"
        return None

    # What a request is worth

    def _judge(self, entry: GrantEntry, now: float) -> None:
        """Verify a request and its approvals; the outcome holds until a file changes."""
        entry.judged, entry.grant = True, None
        if f"{entry.id}.revocation" in self._directory.present:
            return
        name = f"{entry.id}.request"
        try:
            request, _ = self._files.valid_request(entry.id, now)
            if (request.principal, request.server, request.tool) != entry.claim.subject:
                raise ValueError("is not what it was")
        except UNUSABLE as error:
            self._postpone(entry, name, error)
            return
        for approver in self._index.approvers_of(entry.id):
            name = f"{entry.id}.approval.{approver}"
            try:
                approval = self._files.approval(request, approver, now)
            except UNUSABLE as error:
                self._postpone(entry, name, error)
                continue
            entry.judged = True
            entry.grant = Grant(
                request.id,
                request.principal,
                request.server,
                request.tool,
                approver,
                request.reason,
                request.start,
                min(request.end, request.certified_until, approval.certified_until),
                (
                    (request.principal, request.certificate),
                    (approver, approval.certificate),
                ),
            )
            return

    def _postpone(self, entry: GrantEntry, name: str, error: Exception) -> None:
        """Report a fault; judge again soon what only a lagging clock refuses."""
        if isinstance(error, Refusal) and error.reason == "issued_in_future":
            entry.judged, entry.retry_at = False, self._monotonic() + _RETRY_SECONDS
        inode = self._directory.present.get(name, 0)
        self._faults.add(name, inode, f"grants nothing: {reason_of(error)}")

    def _signers_count(self, grant: Grant, now: float) -> bool:
        try:
            for principal, certificate in grant.signers:
                self._refuse_revoked(principal, certificate, now)
        except Refusal:
            return False
        return True

    def _state_of(
        self, id: str, over: Over | None, approvers: list[str], now: float
    ) -> RequestState:
        """Raises `UNUSABLE`."""
        files = self._files
        request, document = files.request(id) if over else files.valid_request(id, now)
        # For a request that is over, an approval counts if it counted before.
        then = min(now, request.end - 1)
        approved_by: list[str] = []
        for approver in approvers:
            with suppress(*UNUSABLE):
                files.approval(request, approver, then)
                approved_by.append(approver)
        roster = files.roster
        return RequestState(
            over or ("approved" if approved_by else "pending"),
            request,
            tuple(approved_by),
            tuple(sorted(roster.eligible(request.principal, request.server, request.tool))),
            roster.principals[request.principal].owner,
            document.decode(),
        )
