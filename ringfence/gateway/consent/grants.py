"""Just-in-time grants for sensitive tools: a directory of signed documents, and what is live.

Every process of a gateway reads the same directory and needs nothing else. A request is the file
`<id>.request`, an approval `<id>.approval.<approver>`, a revocation `<id>.revocation`; each appears
whole and under its final name at once. What they mean is decided in `grant_documents`.

In doubt there is no grant: a file that cannot be read, is not a file, or says something else than
its name, grants nothing. Of a revocation the name alone counts, also when the rest is lost: who
can write here could as well delete the approval.

Time: a grant ends by the clock. Within a process it stays ended when the clock is set back, as
does one that was revoked when the revocation is deleted.
"""

from __future__ import annotations

import heapq
import logging
import os
import re
import secrets
import stat
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ringfence.gateway.consent.grant_documents import (
    DOCUMENT_BYTES,
    Approval,
    Document,
    Facts,
    Request,
    Revocation,
    check_approval,
    check_request,
    check_revocation,
    read,
    verify,
)
from ringfence.gateway.monotonic_clock import SteadyTime
from ringfence.gateway.refusal import Refusal

REQUESTS = 1024
"""Requests in the directory, of all principals, what is over and not yet put away included."""
REQUESTS_EACH = 64
OPEN_REQUESTS_EACH = 16
"""Of one principal, neither revoked nor over."""
KEPT_SECONDS = 90 * 86400
"""How long the documents of a grant stay in `expired/`, unless it is said otherwise."""
EXPIRED = "expired"

Over = Literal["expired", "revoked"]

_NAME = re.compile(
    r"(?P<id>[0-9a-f]{32})"
    r"\.(?P<kind>request|revocation|approval\.(?P<approver>[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?))"
)
_SETTLED_SECONDS = 0.05
"""Time stamps of files are as coarse as the kernel's tick, 10 ms at most: a second change within
one would not show."""
_SWEEP_SECONDS = 600
_SWEPT_AFTER_SECONDS = 3600
_RETRIED_SECONDS = 1.0
_REMEMBERED = 65536
_TOLD_AT_ONCE = 16

_log = logging.getLogger(__name__)


def _nobody_is_revoked(principal: str, certificate: str, now: float) -> None:
    pass


@dataclass(frozen=True)
class Grant:
    """Times in Unix seconds: live from `start` until before `end`."""

    id: str
    principal: str
    server: str
    tool: str
    approver: str
    reason: str
    start: float
    end: float
    signers: tuple[tuple[str, str], ...]
    """Principals whose signatures make it, each with the x5t#S256 of their certificate."""


@dataclass(frozen=True)
class Event:
    """A document that was accepted, for the audit log and as the answer to who sent it."""

    step: Literal["requested", "approved", "revoked"]
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

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Listed:
    """A request and what became of it."""

    state: Literal["pending", "approved", "revoked", "expired"]
    request: Request
    approvers: tuple[str, ...]
    """Who approved it and may."""
    eligible: tuple[str, ...]
    """Who may approve it."""
    owner: str | None
    """Of the agent that asks."""
    document: str
    """The request as it was signed."""

    def concerns(self, principal: str) -> bool:
        """Whether a principal may see it: who asks, whose agent asks, who may approve."""
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


@dataclass
class _Entry:
    """A request that is in the directory, as it claims to be until somebody looks closer."""

    id: str
    about: tuple[str, str, str]
    end: int
    judged: bool = False
    retried: float = 0.0
    grant: Grant | None = None


class Grants:
    """What is live, according to a directory. Thread-safe; files are written outside of locks."""

    def __init__(
        self,
        directory: Path,
        facts: Facts,
        ceiling: float,
        *,
        keep: float = KEPT_SECONDS,
        refuse_revoked: Callable[[str, str, float], None] = _nobody_is_revoked,
        report: Callable[[str], None] = _log.warning,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ceiling`: seconds a grant may last. `keep`: seconds its documents stay after it ended.

        `refuse_revoked` raises `Refusal` for a principal and certificate that are cut off: their
        signatures count for nothing. `report` is told, once each, what is wrong with files.
        """
        self._directory = directory
        self._path = os.fspath(directory)
        self._facts = facts
        self._ceiling = ceiling
        self._keep = keep
        self._refuse_revoked = refuse_revoked
        self._report = report
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._time = SteadyTime(monotonic)
        self._version: tuple[int, int, int] | None = None
        self._changed = 0.0
        self._settled = False
        self._present: dict[str, int] = {}
        self._broken: dict[str, tuple[int, int, int]] = {}
        self._told: set[tuple[str, int]] = set()
        self._entries: dict[str, _Entry] = {}
        self._index: dict[tuple[str, str, str], list[_Entry]] = {}
        self._approvals: dict[str, set[str]] = defaultdict(set)
        self._ends: list[tuple[int, str]] = []
        self._over: dict[str, Over] = {}
        self._swept: float | None = None
        with suppress(OSError):
            directory.mkdir(mode=0o750, exist_ok=True)
        with self._lock:
            self._refresh()

    def reconfigure(self, facts: Facts, ceiling: float) -> None:
        """Other facts count from now on. What is over stays over."""
        with self._lock:
            self._facts, self._ceiling = facts, ceiling
            # The environment may have another name, by which requests are found.
            self._version, self._settled, self._present = None, False, {}
            self._forget_all()
            self._refresh()

    @property
    def facts(self) -> Facts:
        return self._facts

    def live(self, principal: str, server: str, tool: str, now: float) -> Grant | None:
        """The grant by which a principal may call a sensitive tool at a time (Unix seconds)."""
        with self._lock:
            now = self._time.latest(now)
            self._refresh()
            self._end(now)
            for entry in self._index.get((principal, server, tool), ()):
                if entry.id in self._over:
                    continue
                if not entry.judged and self._monotonic() >= entry.retried:
                    self._judge(entry, now)
                grant = entry.grant
                if grant and grant.start <= now < grant.end and self._signers_count(grant, now):
                    return grant
        return None

    def _signers_count(self, grant: Grant, now: float) -> bool:
        try:
            for principal, certificate in grant.signers:
                self._refuse_revoked(principal, certificate, now)
        except Refusal:
            return False
        return True

    def accept(self, document: bytes, now: float) -> Event:
        """Verify and store a request, an approval or a revocation. Raises `Refusal`.

        What is here already is accepted again. Verifying takes about a millisecond and storing
        waits for the disk: not for an event loop.
        """
        signed = verify(document, self._facts)
        self._refuse_revoked(_signer(signed), signed.certificate, now)
        with self._lock:
            now = self._time.latest(now)
            self._refresh()
            self._end(now)
            sweep = self._swept is None or now - self._swept > _SWEEP_SECONDS
            if sweep:
                self._swept = now
        try:
            if sweep:
                self.sweep(now)
            if isinstance(signed, Request):
                return self._accept_request(signed, document, now)
            if isinstance(signed, Approval):
                return self._accept_approval(signed, document, now)
            return self._accept_revocation(signed, document, now)
        except OSError as error:
            self._report(f"cannot store a grant's document in {self._path}: {error.strerror}")
            raise Refusal(
                503, -32006, "grants_unavailable", "the document could not be stored; try again"
            ) from error

    def listing(self, now: float, principal: str | None = None) -> tuple[Listed, ...]:
        """Every request in the directory, oldest first; with `principal`, those it may see.

        Verifies each: not for an event loop.
        """
        with self._lock:
            now = self._time.latest(now)
            self._refresh()
            self._end(now)
            entries = list(self._entries)
            over: dict[str, Over | None] = {id: self._over.get(id) for id in entries}
            approvals = {id: sorted(self._approvals.get(id, ())) for id in entries}
        listed = []
        for id in entries:
            with suppress(Refusal, OSError, ValueError):
                listed.append(self._listed(id, over[id], approvals[id], now))
        return tuple(
            sorted(
                (e for e in listed if principal is None or e.concerns(principal)),
                key=lambda e: (e.request.issued, e.request.id),
            )
        )

    def pending(self, now: float, principal: str | None = None) -> tuple[Listed, ...]:
        """Of the listing, what waits for an approval."""
        return tuple(e for e in self.listing(now, principal) if e.state == "pending")

    def sweep(self, now: float) -> None:
        """Put away the documents of what ended an hour ago, and delete those kept long enough.

        Those of a request that nobody approved are deleted: they never gave anybody anything.
        """
        with self._lock:
            self._refresh()
            ended = [e for e in self._entries.values() if e.end + _SWEPT_AFTER_SECONDS <= now]
            approvals = {e.id: sorted(self._approvals.get(e.id, ())) for e in ended}
            known = {f"{id}.request" for id in self._entries}
        expired = self._directory / EXPIRED
        with suppress(FileExistsError):
            expired.mkdir(mode=0o750)
        for entry in ended:
            # The approval first and the revocation last: half of it is never a grant.
            names = [f"{entry.id}.approval.{a}" for a in approvals[entry.id]]
            for name in (*names, f"{entry.id}.request", f"{entry.id}.revocation"):
                with suppress(FileNotFoundError):
                    if names:
                        (self._directory / name).rename(expired / name)
                    else:
                        (self._directory / name).unlink()
        for path in (*self._orphans(known), *expired.iterdir()):
            kept = _SWEPT_AFTER_SECONDS if path.name.startswith(".") else self._keep + self._ceiling
            with suppress(FileNotFoundError):
                if path.lstat().st_mtime + kept < now:
                    path.unlink()

    # What is asked to be stored

    def _accept_request(self, request: Request, document: bytes, now: float) -> Event:
        check_request(request, self._facts, self._ceiling, now)
        self._refuse_over(request.id)
        name = f"{request.id}.request"
        present = self._verified_request(request.id)
        if present:
            if present.digest != request.digest:
                raise Refusal(409, -32600, "id_taken", "another request has this id already")
            return _event("requested", request, request.principal, new=False)
        with self._lock:
            own = [e.id for e in self._entries.values() if e.about[0] == request.principal]
            total = len(self._entries)
        if (
            total >= REQUESTS
            or len(own) >= REQUESTS_EACH
            or sum(id not in self._over for id in own) >= OPEN_REQUESTS_EACH
        ):
            raise Refusal(
                429,
                -32005,
                "too_many_requests",
                "too many requests; revoke one that is open, or wait until some are put away",
                headers=(("Retry-After", "60"),),
            )
        new = self._store(name, document)
        if not new:
            # Another process was faster, with the same one or not.
            return self._accept_request(request, document, now)
        return _event("requested", request, request.principal, new=True)

    def _accept_approval(self, approval: Approval, document: bytes, now: float) -> Event:
        request = self._request_of(approval)
        check_approval(approval, request, self._facts, now)
        check_request(request, self._facts, self._ceiling, now)
        self._refuse_over(request.id)
        name = f"{request.id}.approval.{approval.approver}"
        new = self._store(
            name, document, unless=lambda: self._verified_approval(name, request, now) is not None
        )
        return _event("approved", request, approval.approver, new=new)

    def _accept_revocation(self, revocation: Revocation, document: bytes, now: float) -> Event:
        request = self._request_of(revocation)
        with self._lock:
            approved_by = frozenset(self._approvals.get(request.id, ()))
        check_revocation(revocation, request, approved_by, self._facts, now)
        if now >= request.end:
            raise Refusal(403, -32003, "expired", "the time that was asked for is over already")
        new = self._store(f"{request.id}.revocation", document, unless=lambda: True)
        return _event("revoked", request, revocation.revoker, new=new)

    def _request_of(self, answer: Approval | Revocation) -> Request:
        request = self._verified_request(answer.request_id)
        if request is None:
            raise Refusal(404, -32602, "unknown_request", "no request here has this id")
        return request

    def _refuse_over(self, id: str) -> None:
        state = self._over.get(id)
        if state:
            raise Refusal(403, -32003, state, f"the request is {state} already; ask again")

    def _verified_request(self, id: str) -> Request | None:
        """The request of that id in the directory; None: there is none that can be verified."""
        try:
            request = verify(self._read(f"{id}.request"), self._facts)
        except (OSError, ValueError, Refusal):
            return None
        return request if isinstance(request, Request) and request.id == id else None

    def _verified_approval(self, name: str, request: Request, now: float) -> Approval | None:
        """The approval in a file; None: there is none, or it does not count."""
        try:
            approval = verify(self._read(name), self._facts)
            if not isinstance(approval, Approval):
                return None
            if name != f"{request.id}.approval.{approval.approver}":
                return None
            check_approval(approval, request, self._facts, now)
        except (OSError, ValueError, Refusal):
            return None
        return approval

    def _store(self, name: str, document: bytes, unless: Callable[[], bool] | None = None) -> bool:
        """Whether a document was stored, whole and at once.

        A name is taken once, except from a file that is good for nothing: `unless` says that the
        present one is good; for a request the caller has looked before.
        """
        if not _NAME.fullmatch(name):
            raise Refusal(403, -32003, "unknown_principal", "the signer's name is not usable here")
        staged = f"{self._path}/.{name}.{secrets.token_hex(8)}"
        final = f"{self._path}/{name}"
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o640)
                file.write(document)
                file.flush()
                os.fsync(descriptor)
            try:
                # rename(2) would replace; two processes must not both think they were first.
                os.link(staged, final)
            except FileExistsError:
                if unless is None:
                    if self._verified_request(name.partition(".")[0]):
                        return False
                elif unless():
                    return False
                os.rename(staged, final)  # noqa: PTH104  (paths are strings on purpose here)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(staged)  # noqa: PTH108
        _sync(self._path)
        return True

    # What is in the directory

    def _end(self, now: float) -> None:
        """Remember what is over: it stays over, whatever the clock says next."""
        while self._ends and self._ends[0][0] <= now:
            self._remember(heapq.heappop(self._ends)[1], "expired")

    def _remember(self, id: str, state: Over) -> None:
        self._over.setdefault(id, state)
        if len(self._over) > _REMEMBERED:
            del self._over[next(iter(self._over))]

    def _refresh(self) -> None:
        """Read what changed since the last time; one stat(2) when nothing did."""
        try:
            status = os.stat(self._path)  # noqa: PTH116  (a fifth of Path.stat's time)
            version = (status.st_dev, status.st_ino, status.st_mtime_ns)
            if version == self._version and self._settled:
                return
            monotonic = self._monotonic()
            if version != self._version:
                self._version, self._changed = version, monotonic
            settled = monotonic - self._changed > _SETTLED_SECONDS
            self._scan()
            self._settled = settled
        except OSError as error:
            self._version, self._settled, self._present = None, False, {}
            self._forget_all()
            self._tell("", 0, f"{self._path}: {error.strerror}: there are no grants")

    def _scan(self) -> None:
        present: dict[str, int] = {}
        strange: list[os.DirEntry[str]] = []
        with os.scandir(self._path) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    present[entry.name] = entry.inode()
                elif not entry.name.startswith(".") and entry.name != EXPIRED:
                    strange.append(entry)
        self._tell_all(
            (e.name, e.inode(), "is no document of a grant and is ignored") for e in strange
        )
        changed = {n for n, inode in present.items() if self._present.get(n) != inode}
        changed |= {n for n, was in self._broken.items() if n in present and was != self._look(n)}
        gone = self._present.keys() - present.keys()
        self._present = present
        self._told &= {*present.items(), *((e.name, e.inode()) for e in strange)}
        faults = [fault for name in sorted(changed | gone) if (fault := self._take(name))]
        self._tell_all(iter(faults))

    def _take(self, name: str) -> tuple[str, int, str] | None:
        """Take in that a file is new, another, or gone; returns what is wrong with it."""
        match = _NAME.fullmatch(name)
        assert match
        id, approver = match["id"], match["approver"]
        inode = self._present.get(name)
        self._broken.pop(name, None)
        if match["kind"] == "revocation":
            if inode is not None:
                self._remember(id, "revoked")
            self._reconsider(id)
            return None
        if approver:
            self._approvals[id].discard(approver)
            if inode is not None:
                self._approvals[id].add(approver)
            elif not self._approvals[id]:
                del self._approvals[id]
            self._reconsider(id)
            return None
        self._forget(id)
        if inode is None:
            return None
        try:
            claims = read(self._read(name)).claims
            if claims.get("jti") != id:
                raise ValueError("says something else than its name")
        except (OSError, ValueError, Refusal) as error:
            self._broken[name] = self._look(name)
            return name, inode, f"is ignored: {_why(error)}"
        asking = claims["iss"].removeprefix(self._facts.uri(""))
        entry = _Entry(id, (asking, claims["server"], claims["tool"]), claims["exp"])
        self._entries[id] = entry
        self._index.setdefault(entry.about, []).append(entry)
        if id not in self._over:
            heapq.heappush(self._ends, (entry.end, id))
        return None

    def _reconsider(self, id: str) -> None:
        if entry := self._entries.get(id):
            entry.judged, entry.retried, entry.grant = False, 0.0, None

    def _forget(self, id: str) -> None:
        entry = self._entries.pop(id, None)
        if entry:
            self._index[entry.about].remove(entry)
            if not self._index[entry.about]:
                del self._index[entry.about]

    def _forget_all(self) -> None:
        self._entries, self._index, self._ends = {}, {}, []
        self._approvals.clear()
        self._broken.clear()

    def _judge(self, entry: _Entry, now: float) -> None:
        """Verify a request and its approvals; what comes of it holds until a file changes."""
        entry.judged, entry.grant = True, None
        if f"{entry.id}.revocation" in self._present:
            return
        name = f"{entry.id}.request"
        try:
            request = verify(self._read(name), self._facts)
            if not isinstance(request, Request) or request.id != entry.id:
                raise ValueError("says something else than its name")
            if (request.principal, request.server, request.tool) != entry.about:
                raise ValueError("is not what it was")
            check_request(request, self._facts, self._ceiling, now)
        except (OSError, ValueError, Refusal) as error:
            self._postpone(entry, error)
            self._tell(name, self._present.get(name, 0), f"grants nothing: {_why(error)}")
            return
        for approver in sorted(self._approvals.get(entry.id, ())):
            name = f"{entry.id}.approval.{approver}"
            try:
                approval = verify(self._read(name), self._facts)
                if not isinstance(approval, Approval) or approval.approver != approver:
                    raise ValueError("says something else than its name")
                check_approval(approval, request, self._facts, now)
            except (OSError, ValueError, Refusal) as error:
                self._postpone(entry, error)
                self._tell(name, self._present.get(name, 0), f"grants nothing: {_why(error)}")
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

    def _postpone(self, entry: _Entry, error: Exception) -> None:
        """What a clock that lags says no to is looked at again."""
        if isinstance(error, Refusal) and error.reason == "issued_in_future":
            entry.judged, entry.retried = False, self._monotonic() + _RETRIED_SECONDS

    def _listed(self, id: str, over: Over | None, approvals: list[str], now: float) -> Listed:
        document = self._read(f"{id}.request")
        request = verify(document, self._facts)
        if not isinstance(request, Request) or request.id != id:
            raise ValueError("says something else than its name")
        if over is None:
            check_request(request, self._facts, self._ceiling, now)
        # Of what is over it counts who approved it while it was not.
        then = min(now, request.end - 1)
        approved_by = tuple(
            a
            for a in approvals
            if self._verified_approval(f"{id}.approval.{a}", request, then) is not None
        )
        asking = self._facts.principals[request.principal]
        return Listed(
            over or ("approved" if approved_by else "pending"),
            request,
            approved_by,
            tuple(sorted(self._facts.eligible(request.principal, request.server, request.tool))),
            asking.owner,
            document.decode(),
        )

    def _read(self, name: str) -> bytes:
        """A file's content. Raises `OSError` or `ValueError` for what is not a plain small file."""
        descriptor = os.open(
            f"{self._path}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("is not a file")
            if status.st_size > DOCUMENT_BYTES:
                raise ValueError(f"is larger than {DOCUMENT_BYTES} bytes")
            return os.read(descriptor, DOCUMENT_BYTES + 1)
        finally:
            os.close(descriptor)

    def _look(self, name: str) -> tuple[int, int, int]:
        try:
            status = os.lstat(f"{self._path}/{name}")
        except OSError:
            return 0, 0, 0
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _orphans(self, known: set[str]) -> Iterator[Path]:
        """Documents without a request that can be read, and what a killed process left behind."""
        for path in self._directory.iterdir():
            staged = path.name.startswith(".") and _NAME.match(path.name[1:])
            match = _NAME.fullmatch(path.name)
            if staged or (match and f"{match['id']}.request" not in known):
                yield path

    def _tell_all(self, faults: Iterator[tuple[str, int, str]]) -> None:
        new = [fault for fault in faults if fault[:2] not in self._told]
        for name, inode, what in new[:_TOLD_AT_ONCE]:
            self._tell(name, inode, what)
        if rest := new[_TOLD_AT_ONCE:]:
            self._told.update((name, inode) for name, inode, _ in rest)
            self._report(f"{self._path}: {len(rest)} more files are ignored")

    def _tell(self, name: str, inode: int, what: str) -> None:
        if (name, inode) not in self._told:
            self._told.add((name, inode))
            # Names are whatever somebody wrote there, lines and escapes included.
            self._report(f"{self._path}: {name!a} {what}" if name else what)


def _signer(signed: Document) -> str:
    if isinstance(signed, Request):
        return signed.principal
    return signed.approver if isinstance(signed, Approval) else signed.revoker


def _event(
    step: Literal["requested", "approved", "revoked"], request: Request, actor: str, *, new: bool
) -> Event:
    return Event(
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


def _why(error: Exception) -> str:
    if isinstance(error, Refusal):
        return f"{error.message} ({error.reason})"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
