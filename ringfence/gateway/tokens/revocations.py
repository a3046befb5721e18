"""Tokens, principals and certificates whose access is revoked before it ends by itself.

All processes of a gateway read `revoked.json`. It is replaced as a whole, by the process that gets
a change (`revocation_documents`) or by an administrator of the host:
`{"revoked": [{"kind": "principal", "value": "carol", "until": 1767225600, …}, …]}`. An entry
without `until` holds until somebody restores the access. Without a file nothing is revoked; what
this process read before stays revoked when the file goes.

Time: a revocation with an end is over when the clock says so and this process has run for as long.
A clock that jumps ahead restores nobody's access.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ringfence.gateway.jose import jws
from ringfence.gateway.jose.signed_documents import SKEW_SECONDS, Roster, deny
from ringfence.gateway.refusals import Refusal
from ringfence.gateway.state import shared_files
from ringfence.gateway.state.monotonic_clock import MonotonicClock
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
"""Limit of entries in force. More are an attack, or a matter for the manifest."""
_KEPT_SECONDS = FRESH_SECONDS + 2 * SKEW_SECONDS
"""Time that an entry stays after its end: as long as an older document is accepted."""


class RevocationsUnreadableError(Exception):
    """It is not known what is revoked."""


@dataclass(frozen=True)
class RevocationEntry:
    """Times in Unix seconds."""

    kind: Kind
    value: str
    until: int = UNTIL_RESTORED
    """0: access is restored; the entry stays so that no older document undoes that."""
    by: str = ""
    reason: str = ""
    at: int = 0
    """Time of the signature."""

    def concerns(self, principal: str, roster: Roster) -> bool:
        """Return whether it is shown to a principal."""
        if principal in roster.responders or self.by == principal:
            return True
        named = roster.principals.get(self.value) if self.kind == "principal" else None
        return named is not None and principal in (self.value, named.owner)


_Entries = Mapping[tuple[Kind, str], RevocationEntry]


@dataclass
class Revocations:
    """The present content of the file, read again when it changes.

    An unreadable file refuses everybody: it may hold a revocation.
    """

    path: Path
    time: MonotonicClock = field(default_factory=MonotonicClock)
    _stamp: shared_files.Stamp | None = field(default=None, init=False)
    _entries: _Entries = field(default_factory=dict, init=False)
    _problem: str | None = field(default=None, init=False)

    def revoked(
        self, principal: str, token_id: str | None, certificates: Iterable[str], now: float
    ) -> bool:
        """Return whether any of these is revoked. Raises `RevocationsUnreadableError`."""
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
        """Raise `Refusal` for a revoked principal or certificate, where there is no token."""
        try:
            revoked = self.revoked(principal, None, [certificate], now)
        except RevocationsUnreadableError as error:
            raise _unavailable() from error
        if revoked:
            deny("revoked", "this principal or certificate is revoked; ask a responder")

    def accept(self, document: bytes, roster: Roster, now: float) -> tuple[Change, bool]:
        """Verify a change and put it in force; return whether it is new. Raises `Refusal`.

        Waits for the disk and for other processes: not for an event loop.
        """
        change = verify(document, roster)
        check(change, roster, now)
        self.refuse_revoked(change.signer, change.certificate, now)
        try:
            # No process may lose what another one writes at the same time.
            with shared_files.lock(self.path.with_name(f".{self.path.name}.lock")):
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
                    shared_files.sweep(self.path)
                    content = {"revoked": [asdict(each) for each in entries.values()]}
                    shared_files.replace(self.path, json.dumps(content, indent=1).encode())
        except OSError as error:
            raise _unavailable() from error
        return change, new

    def listing(self, roster: Roster, principal: str, now: float) -> list[dict[str, Any]]:
        """The revocations in force that concern a principal, oldest first. Raises `Refusal`."""
        self._refresh()
        if self._problem is not None:
            raise _unavailable()
        now = self.time.earliest(now)
        shown = [e for e in self._entries.values() if now < e.until]
        shown = [e for e in shown if e.concerns(principal, roster)]
        return [asdict(each) for each in sorted(shown, key=lambda each: each.at)]

    def _put(
        self, entries: dict[tuple[Kind, str], RevocationEntry], change: Change, now: float
    ) -> bool:
        key = change.kind, change.value
        present = entries.get(key)
        if present is not None and change.issued < present.at:
            deny("overtaken", "a later document about this is in force")
        if change.until is None:
            if present is None or present.until <= self.time.earliest(now):
                raise Refusal("not_revoked")
            until = 0
        else:
            until = change.until
            if present is not None and present.until == until and present.by == change.signer:
                return False
        if key not in entries and len(entries) >= ENTRIES:
            raise Refusal("too_many_revocations")
        entries[key] = RevocationEntry(
            change.kind, change.value, until, change.signer, change.reason, change.issued
        )
        return True

    def _refresh(self) -> None:
        stamp = None
        try:
            stamp = shared_files.stamp(self.path, follow=True)
            if stamp == self._stamp:
                return
            self._entries = _read(self.path)
            self._stamp, self._problem = stamp, None
        except FileNotFoundError:
            self._stamp, self._problem = None, None
        except OSError as error:
            self._stamp, self._problem = None, f"{self.path} cannot be read: {error.strerror}"
        except (jws.JwsError, ValueError) as error:
            self._stamp, self._problem = stamp, f"{self.path}: {error}"


def _unavailable() -> Refusal:
    return Refusal(
        "revocations_unreadable",
        "revocations cannot be read or written now; an administrator has to look at it",
    )


def _read(path: Path) -> _Entries:
    document = jws.read_object(shared_files.read(path, MAX_BYTES, follow=True))
    if document.keys() != {"revoked"} or not isinstance(document["revoked"], list):
        raise ValueError('only a list "revoked" is known')
    return {(each.kind, each.value): each for each in map(_entry, document["revoked"])}


def _entry(document: Any) -> RevocationEntry:
    try:
        entry = RevocationEntry(**document)
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
