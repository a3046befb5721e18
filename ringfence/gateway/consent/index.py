"""Index of the directory of grants, in memory: requests by subject, and which of them are over.

Nothing here reads a file or verifies anything.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from ringfence.gateway.consent.files import Claim

REMEMBERED = 65536
"""Requests that are over; more than a directory holds in the longest time a grant may last."""

Over = Literal["expired", "revoked"]


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


@dataclass
class GrantEntry:
    """A request in the directory, as it claims to be; verified when somebody needs the grant."""

    id: str
    claim: Claim
    judged: bool = False
    retry_at: float = 0.0
    """Monotonic time before which it is not judged again."""
    grant: Grant | None = None

    def reset(self) -> None:
        self.judged, self.retry_at, self.grant = False, 0.0, None


@dataclass
class GrantIndex:
    """Not for threads."""

    entries: dict[str, GrantEntry] = field(default_factory=dict)
    approvers: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Approvers by id of the request, with an approval that is verified or not."""
    over: dict[str, Over] = field(default_factory=dict)
    """Kept when the files go and when the clock is set back."""
    _by_subject: dict[tuple[str, str, str], list[GrantEntry]] = field(default_factory=dict)
    _ends: list[tuple[int, str]] = field(default_factory=list)

    def add(self, id: str, claim: Claim) -> None:
        entry = self.entries[id] = GrantEntry(id, claim)
        self._by_subject.setdefault(claim.subject, []).append(entry)
        if id not in self.over:
            heapq.heappush(self._ends, (claim.end, id))

    def remove(self, id: str) -> None:
        if entry := self.entries.pop(id, None):
            alike = self._by_subject[entry.claim.subject]
            alike.remove(entry)
            if not alike:
                del self._by_subject[entry.claim.subject]

    def set_approver(self, id: str, approver: str, *, present: bool) -> None:
        if present:
            self.approvers[id].add(approver)
        else:
            self.approvers[id].discard(approver)
            if not self.approvers[id]:
                del self.approvers[id]

    def reset(self, id: str) -> None:
        """Have a request judged again."""
        if entry := self.entries.get(id):
            entry.reset()

    def clear(self) -> None:
        """Forget everything but what is over."""
        self.entries, self._by_subject, self._ends = {}, {}, []
        self.approvers.clear()

    def end(self, now: float) -> None:
        """Remember what has expired: it stays over, whatever the clock says next."""
        while self._ends and self._ends[0][0] <= now:
            self.set_over(heapq.heappop(self._ends)[1], "expired")

    def set_over(self, id: str, state: Over) -> None:
        self.over.setdefault(id, state)
        if len(self.over) > REMEMBERED:
            del self.over[next(iter(self.over))]

    def of(self, subject: tuple[str, str, str]) -> Iterable[GrantEntry]:
        """Requests of a principal for a server's tool that are not over."""
        return (e for e in self._by_subject.get(subject, ()) if e.id not in self.over)

    def approvers_of(self, id: str) -> list[str]:
        return sorted(self.approvers.get(id, ()))
