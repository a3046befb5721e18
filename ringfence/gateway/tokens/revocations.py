"""Tokens, principals and certificates that are cut off before they end by themselves.

`revoked.json` is read by all processes of a gateway, and replaced as a whole by whichever is told
of a change (`revocation_documents`) or by an administrator of the host:
`{"revoked": [{"kind": "principal", "value": "carol", "until": 1767225600, …}, …]}`. Without
`until` it is until somebody gives the access back. Without a file nobody is cut off; whoever was
stays so when the file goes.

Time: what was cut off for a time comes back when the clock says so and this process has run for as
long. A clock that jumps ahead gives nobody access back.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ringfence.gateway.consent.grant_documents import SKEW_SECONDS, Facts, deny
from ringfence.gateway.jose import jws
from ringfence.gateway.monotonic_clock import SteadyTime
from ringfence.gateway.refusal import Refusal
from ringfence.gateway.tokens.revocation_documents import (
    FRESH_SECONDS,
    KINDS,
    UNTIL_RESTORED,
    Change,
    Kind,
    check,
    verify,
)

MAX_BYTES = 4 * 1024 * 1024
ENTRIES = 4096
"""That are in force. More are an attack, or a matter for the manifest."""
_KEPT_SECONDS = FRESH_SECONDS + 2 * SKEW_SECONDS
"""After its end, for as long as an older document is taken."""


class RevocationsUnreadableError(Exception):
    """It is not known who is cut off."""


@dataclass(frozen=True)
class Entry:
    """Times in Unix seconds."""

    kind: Kind
    value: str
    until: int = UNTIL_RESTORED
    """0: it was given back, and stands here so that no older document undoes that."""
    by: str = ""
    reason: str = ""
    at: int = 0
    """When the document was signed that made it so."""

    def concerns(self, principal: str, facts: Facts) -> bool:
        """Whether a principal may see it."""
        if principal in facts.responders or self.by == principal:
            return True
        named = facts.principals.get(self.value) if self.kind == "principal" else None
        return named is not None and principal in (self.value, named.owner)


_Entries = Mapping[tuple[Kind, str], Entry]


@dataclass
class Revocations:
    """The present content of the file, read again when it changes.

    A file that cannot be read answers nothing: somebody meant to cut somebody off.
    """

    path: Path
    time: SteadyTime = field(default_factory=SteadyTime)
    _seen: tuple[int, int, int] | None = field(default=None, init=False)
    _entries: _Entries = field(default_factory=dict, init=False)
    _problem: str | None = field(default=None, init=False)

    def revoked(
        self, principal: str, token_id: str | None, certificates: Iterable[str], now: float
    ) -> bool:
        """Whether any of these is cut off. Raises `RevocationsUnreadableError`."""
        self._refresh()
        if self._problem is not None:
            raise RevocationsUnreadableError(self._problem)
        now = self.time.earliest(now)
        if not self._entries:
            return False
        named: set[tuple[Kind, str]] = {("principal", principal)}
        named |= {("certificate", each) for each in certificates}
        if token_id is not None:
            named.add(("token", token_id))
        return any((entry := self._entries.get(key)) and now < entry.until for key in named)

    def refuse_revoked(self, principal: str, certificate: str, now: float) -> None:
        """For who comes with a signature or a certificate rather than a token. Raises `Refusal`."""
        try:
            revoked = self.revoked(principal, None, [certificate], now)
        except RevocationsUnreadableError as error:
            raise _unavailable() from error
        if revoked:
            deny("revoked", "this principal or certificate is cut off; ask a responder")

    def accept(self, document: bytes, facts: Facts, now: float) -> tuple[Change, bool]:
        """Verify a change and put it in force; whether it is new. Raises `Refusal`.

        Waits for the disk and for other processes: not for an event loop.
        """
        change = verify(document, facts)
        check(change, facts, now)
        self.refuse_revoked(change.signer, change.certificate, now)
        try:
            with self._locked():
                self._refresh()
                if self._problem is not None:
                    raise _unavailable()
                entries = {
                    key: each
                    for key, each in self._entries.items()
                    if self.time.earliest(now) < max(each.until, each.at) + _KEPT_SECONDS
                }
                new = self._put(entries, change, now)
                if new:
                    self._write(entries.values())
        except OSError as error:
            raise _unavailable() from error
        return change, new

    def listing(self, facts: Facts, principal: str, now: float) -> list[dict[str, Any]]:
        """What is in force and a principal may see, oldest first. Raises `Refusal`."""
        self._refresh()
        if self._problem is not None:
            raise _unavailable()
        now = self.time.earliest(now)
        shown = [e for e in self._entries.values() if now < e.until]
        shown = [e for e in shown if e.concerns(principal, facts)]
        return [asdict(each) for each in sorted(shown, key=lambda each: each.at)]

    def _put(self, entries: dict[tuple[Kind, str], Entry], change: Change, now: float) -> bool:
        key = change.kind, change.value
        present = entries.get(key)
        if present is not None and change.issued < present.at:
            deny("overtaken", "somebody has signed something else about this since")
        if change.until is None:
            if present is None or present.until <= self.time.earliest(now):
                raise Refusal(404, -32602, "not_revoked", "this is not cut off here")
            until = 0
        else:
            until = change.until
            if present is not None and present.until == until and present.by == change.signer:
                return False
        entry = Entry(change.kind, change.value, until, change.signer, change.reason, change.issued)
        if key not in entries and len(entries) >= ENTRIES:
            raise Refusal(
                429, -32005, "too_many_revocations", "too many are cut off; change the manifest"
            )
        entries[key] = entry
        return True

    def _refresh(self) -> None:
        seen = None
        try:
            status = self.path.stat()
            seen = status.st_mtime_ns, status.st_size, status.st_ino
            if seen == self._seen:
                return
            self._entries = _read(self.path)
            self._seen, self._problem = seen, None
        except FileNotFoundError:
            self._seen, self._problem = None, None
        except OSError as error:
            self._seen, self._problem = None, f"{self.path} cannot be read: {error.strerror}"
        except (jws.JwsError, ValueError) as error:
            self._seen, self._problem = seen, f"{self.path}: {error}"

    def _write(self, entries: Iterable[Entry]) -> None:
        """Whole and at once: no process reads half of it."""
        content = json.dumps({"revoked": [asdict(each) for each in entries]}, indent=1)
        staged = self.path.with_name(f".{self.path.name}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(staged, flags, 0o640), "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(self.path)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Two processes that are told at once must not lose what the other was told."""
        name = self.path.with_name(f".{self.path.name}.lock")
        with os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o640), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _unavailable() -> Refusal:
    return Refusal(
        503,
        -32006,
        "revocations_unreadable",
        "who is cut off cannot be read or written now; an administrator has to look at it",
        headers=(("Retry-After", "5"),),
    )


def _read(path: Path) -> _Entries:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    document = jws.read_object(content)
    if document.keys() != {"revoked"} or not isinstance(document["revoked"], list):
        raise ValueError('only a list "revoked" is known')
    return {(each.kind, each.value): each for each in map(_entry, document["revoked"])}


def _entry(document: Any) -> Entry:
    try:
        entry = Entry(**document)
    except TypeError as error:
        raise ValueError(f"not an entry: {error}") from error
    texts = entry.value, entry.by, entry.reason
    if (
        entry.kind not in KINDS
        or not all(isinstance(each, str) for each in texts)
        or not entry.value
        or type(entry.until) is not int
        or type(entry.at) is not int
    ):
        raise ValueError(f"an entry has a kind ({', '.join(KINDS)}), a value, and whole seconds")
    return entry
