"""How much may be asked: rates by caller, calls in flight by server, and servers that are down.

Rates and circuits are told the time (`now`, seconds of a monotonic clock), so that they can be
tried without waiting. Everything is of one process; HAProxy gives a caller's calls to the same
one.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from ringfence.gateway.refusals import Refusal

BURST_SECONDS = 10
"""An idle caller may at once make the calls of so many seconds."""
MOST_BUCKETS = 65536
"""Callers, and their tools, told apart at a time; together some 16 MiB."""
QUEUE_SECONDS = 1.0
"""The longest wait for a server that is busy."""
FAILURES = 5
"""In a row, after which a server is left alone."""
COOLING_SECONDS = 5.0
LONGEST_COOLING_SECONDS = 60.0


@dataclass(frozen=True)
class Rate:
    """Tokens of a bucket: one call takes one."""

    per_minute: int

    @property
    def interval(self) -> float:
        """Seconds in which a token comes back."""
        return 60 / self.per_minute

    @property
    def burst(self) -> float:
        """Seconds that a bucket takes to fill; it holds at least one token."""
        return max(BURST_SECONDS, self.interval)


class TokenBuckets:
    """Buckets by key, each held as the time at which it is full again.

    This is the generic cell rate algorithm (ITU-T I.371) in its virtual scheduling form: it needs
    one number a bucket, and a bucket that is full is one that does not exist. So full ones are
    dropped as others are used, and memory follows the callers of the last few seconds. Beyond
    `most`, keys that have no bucket share one for each rate: strangers slow each other down, and
    nobody who was there before.
    """

    def __init__(self, most: int = MOST_BUCKETS) -> None:
        self._most = most
        self._full_at: dict[Hashable, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, wanted: Mapping[Hashable, Rate], now: float) -> float:
        """A token from every bucket, or from none.

        Returns 0, or the seconds after which each of them has one, if it is left alone until then.
        """
        self._drop_full(now)
        room = self._most - len(self._full_at)
        taken: dict[Hashable, float] = {}
        wait = 0.0
        for key, rate in wanted.items():
            if key not in self._full_at:
                room -= 1
                key = key if room >= 0 else (None, rate)
            full_at = max(self._full_at.get(key, now), now) + rate.interval
            taken[key] = full_at
            wait = max(wait, full_at - now - rate.burst)
        if wait > 1e-9:
            return wait
        for key, full_at in taken.items():
            # Taken out first: the order of a dictionary is then the order of last use.
            self._full_at.pop(key, None)
            self._full_at[key] = full_at
        return 0.0

    def _drop_full(self, now: float) -> None:
        """Of the least recently used. More are looked at than one call adds, so they run out."""
        for _ in range(4):
            key = next(iter(self._full_at), None)
            if key is None or self._full_at[key] > now:
                return
            del self._full_at[key]


class Slots:
    """Calls in flight to one server; as many may wait for a short while."""

    def __init__(self, concurrency: int, wait_seconds: float = QUEUE_SECONDS) -> None:
        self._concurrency = concurrency
        self._wait_seconds = wait_seconds
        self._semaphore = asyncio.Semaphore(concurrency)
        self._waiting = 0
        self.in_flight = 0

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """A slot for the time of the block. Raises `Refusal` (503) where none becomes free."""
        await self._acquire()
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self._semaphore.release()

    async def _acquire(self) -> None:
        if not self._semaphore.locked():
            await self._semaphore.acquire()
            return
        if self._waiting >= self._concurrency:
            raise Refusal("server_busy")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._semaphore.acquire()
        except TimeoutError:
            raise Refusal("server_busy") from None
        finally:
            self._waiting -= 1


@dataclass(frozen=True)
class Attempt:
    """A call that a circuit let through, to be told how it ended."""

    era: int
    """Of the circuit: what began before it opened says nothing about the server now."""


@dataclass
class Circuit:
    """Leaves a server alone that failed several times in a row.

    Closed: calls go through. Open: none does, until it has cooled. Half-open: one goes through,
    and its end closes the circuit or opens it again for twice as long. A failure is one of the
    transport: the server could not be reached, or broke off. An answer, also one with an error,
    is a success.
    """

    failures: int = FAILURES
    cooling: float = COOLING_SECONDS
    longest_cooling: float = LONGEST_COOLING_SECONDS
    _state: Literal["closed", "open", "half_open"] = field(default="closed", init=False)
    _era: int = field(default=0, init=False)
    _failed: int = field(default=0, init=False)
    _until: float = field(default=0.0, init=False)
    """Open: when it has cooled. Half-open: when a trial that never ended is given up."""
    _current_cooling: float = field(default=0.0, init=False)

    def state(self, now: float) -> Literal["closed", "open", "half_open"]:
        """For metrics."""
        return "half_open" if self._state == "open" and now >= self._until else self._state

    def enter(self, now: float) -> Attempt:
        """Before a call is sent. Raises `Refusal` (503) while the server is left alone."""
        if self._state != "closed":
            if now < self._until:
                wait = self._until - now if self._state == "open" else 1
                raise Refusal("circuit_open", headers=_retry_after(wait))
            self._turn("half_open")
            self._until = now + self.longest_cooling
        return Attempt(self._era)

    def succeeded(self, attempt: Attempt) -> None:
        """The server answered."""
        if attempt.era != self._era:
            return
        self._failed = 0
        if self._state == "half_open":
            self._turn("closed")
            self._current_cooling = 0.0

    def failed(self, attempt: Attempt, now: float) -> None:
        """The server could not be reached, or broke off."""
        if attempt.era != self._era:
            return
        self._failed += 1
        if self._state == "half_open" or self._failed >= self.failures:
            self._turn("open")
            self._current_cooling = min(
                max(self.cooling, 2 * self._current_cooling), self.longest_cooling
            )
            self._until = now + self._current_cooling

    def abandoned(self, attempt: Attempt, now: float) -> None:
        """The caller went away first: nothing is known, and the next call is the trial."""
        if attempt.era == self._era and self._state == "half_open":
            self._turn("open")
            self._until = now

    def _turn(self, state: Literal["closed", "open", "half_open"]) -> None:
        self._state = state
        self._era += 1
        self._failed = 0


@dataclass(frozen=True)
class ServerLimits:
    """Of one server, as the manifest states them."""

    calls_per_minute: int
    """That one principal may make."""
    concurrency: int
    tools: Mapping[str, int] = field(default_factory=dict)
    """Calls that one principal may make of a tool in a minute, where fewer are stated for it."""


class CallLimits:
    """All limits of one process. Servers are those of the manifest."""

    def __init__(
        self,
        servers: Mapping[str, ServerLimits],
        *,
        principal_calls_per_minute: int,
        most_buckets: int = MOST_BUCKETS,
    ) -> None:
        self._principal = Rate(principal_calls_per_minute)
        self._servers = {name: Rate(each.calls_per_minute) for name, each in servers.items()}
        self._tools = {
            (name, tool): Rate(per_minute)
            for name, each in servers.items()
            for tool, per_minute in each.tools.items()
        }
        self._buckets = TokenBuckets(most_buckets)
        self.slots = {name: Slots(each.concurrency) for name, each in servers.items()}
        self.circuits = {name: Circuit() for name in servers}

    def admit(self, principal: str, server: str, tool: str | None, now: float) -> None:
        """Count one call. Raises `Refusal` (429): then it counts nowhere."""
        wanted: dict[Hashable, Rate] = {
            (principal,): self._principal,
            (principal, server): self._servers[server],
        }
        if tool is not None and (rate := self._tools.get((server, tool))):
            wanted[principal, server, tool] = rate
        if wait := self._buckets.take(wanted, now):
            raise Refusal("rate_limited", headers=_retry_after(wait))


def _retry_after(wait: float) -> tuple[tuple[str, str], ...]:
    """RFC 9110, section 10.2.3: whole seconds."""
    return (("Retry-After", str(max(1, math.ceil(wait)))),)
