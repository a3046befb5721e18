"""Limits: rates by caller, calls in flight by server, and circuit breakers of servers.

Rates and circuits get the time (`now`, seconds of a monotonic clock), so that tests need not wait.
Everything belongs to one process; HAProxy sends all calls of a caller to the same one.
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
"""An idle caller may make the calls of this time at once."""
MOST_BUCKETS = 65536
"""Callers, and their tools, with a bucket of their own; together some 16 MiB."""
QUEUE_SECONDS = 1.0
"""The longest wait for a server that is busy."""
FAILURES = 5
"""Failures in a row that open the circuit of a server."""
COOLING_SECONDS = 5.0
LONGEST_COOLING_SECONDS = 60.0


@dataclass(frozen=True)
class Rate:
    """The rate at which a bucket fills with tokens; a call takes one."""

    per_minute: int

    @property
    def interval(self) -> float:
        """Seconds until a token returns."""
        return 60 / self.per_minute

    @property
    def burst(self) -> float:
        """Seconds that a bucket takes to fill; it holds at least one token."""
        return max(BURST_SECONDS, self.interval)


class TokenBuckets:
    """Token buckets by key, each stored as the time at which it is full again.

    This is the generic cell rate algorithm (ITU-T I.371) in its virtual scheduling form: it needs
    one number for each bucket, and a full bucket needs none. So full ones are dropped as others
    are used, and memory follows the callers of the last few seconds. Beyond `most`, keys without a
    bucket share one for each rate: newcomers slow each other down, and nobody else.
    """

    def __init__(self, most: int = MOST_BUCKETS) -> None:
        self._most = most
        self._full_at: dict[Hashable, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, rates: Mapping[Hashable, Rate], now: float) -> float:
        """Take a token from every bucket, or from none.

        Returns 0, or the seconds until all of them have one if nobody else takes it.
        """
        self._drop_full(now)
        room = self._most - len(self._full_at)
        later: dict[Hashable, float] = {}
        wait = 0.0
        for key, rate in rates.items():
            if key not in self._full_at:
                room -= 1
                key = key if room >= 0 else (None, rate)
            full_at = max(self._full_at.get(key, now), now) + rate.interval
            later[key] = full_at
            wait = max(wait, full_at - now - rate.burst)
        if wait > 1e-9:
            return wait
        for key, full_at in later.items():
            # Removed first, so that the order of the dictionary is the order of last use.
            self._full_at.pop(key, None)
            self._full_at[key] = full_at
        return 0.0

    def _drop_full(self, now: float) -> None:
        """Drop full buckets among the least recently used: more of them than one call adds."""
        for _ in range(4):
            key = next(iter(self._full_at), None)
            if key is None or self._full_at[key] > now:
                return
            del self._full_at[key]


class Slots:
    """Calls in flight to one server. As many again may wait for a short time."""

    def __init__(self, concurrency: int, wait_seconds: float = QUEUE_SECONDS) -> None:
        self._concurrency = concurrency
        self._wait_seconds = wait_seconds
        self._semaphore = asyncio.Semaphore(concurrency)
        self._waiting = 0
        self.in_flight = 0

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Hold a slot for the time of the block. Raises `Refusal` (503) if none becomes free."""
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
    """A call that a circuit let through; its end is reported to the circuit."""

    era: int
    """Era of the circuit: a call that began before it opened says nothing about the server now."""


@dataclass
class Circuit:
    """A circuit breaker: sends no calls to a server that failed several times in a row.

    Closed: calls go through. Open: none does, until it has cooled. Half-open: one goes through,
    and its end closes the circuit or opens it again for twice as long. Only the transport fails:
    the server cannot be reached, or breaks off. Any answer is a success, even an error.
    """

    failures: int = FAILURES
    cooling: float = COOLING_SECONDS
    longest_cooling: float = LONGEST_COOLING_SECONDS
    _state: Literal["closed", "open", "half_open"] = field(default="closed", init=False)
    _era: int = field(default=0, init=False)
    _failed: int = field(default=0, init=False)
    _until: float = field(default=0.0, init=False)
    """Open: when it has cooled. Half-open: when an unfinished trial is abandoned."""
    _current_cooling: float = field(default=0.0, init=False)

    def state(self, now: float) -> Literal["closed", "open", "half_open"]:
        """The present state, for metrics."""
        return "half_open" if self._state == "open" and now >= self._until else self._state

    def enter(self, now: float) -> Attempt:
        """Let a call through. Raises `Refusal` (503) while the circuit is open."""
        if self._state != "closed":
            if now < self._until:
                wait = self._until - now if self._state == "open" else 1
                raise Refusal("circuit_open", headers=_retry_after(wait))
            self._turn("half_open")
            self._until = now + self.longest_cooling
        return Attempt(self._era)

    def succeeded(self, attempt: Attempt) -> None:
        """Note that the server answered."""
        if attempt.era != self._era:
            return
        self._failed = 0
        if self._state == "half_open":
            self._turn("closed")
            self._current_cooling = 0.0

    def failed(self, attempt: Attempt, now: float) -> None:
        """Note that the server could not be reached, or broke off."""
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
        """Note that the caller left first: nothing is known, so the next call is the trial."""
        if attempt.era == self._era and self._state == "half_open":
            self._turn("open")
            self._until = now

    def _turn(self, state: Literal["closed", "open", "half_open"]) -> None:
        self._state = state
        self._era += 1
        self._failed = 0


@dataclass(frozen=True)
class ServerLimits:
    """Limits of one server, from the manifest."""

    calls_per_minute: int
    """Calls that one principal may make."""
    concurrency: int
    tools: Mapping[str, int] = field(default_factory=dict)
    """Calls per minute of one principal, for tools that have a limit of their own."""


class CallLimits:
    """All limits of one process, for the servers of the manifest."""

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
        """Count one call. Raises `Refusal` (429), and then counts nothing."""
        rates: dict[Hashable, Rate] = {
            (principal,): self._principal,
            (principal, server): self._servers[server],
        }
        if tool is not None and (rate := self._tools.get((server, tool))):
            rates[principal, server, tool] = rate
        if wait := self._buckets.take(rates, now):
            raise Refusal("rate_limited", headers=_retry_after(wait))


def _retry_after(wait: float) -> tuple[tuple[str, str], ...]:
    """RFC 9110, section 10.2.3: whole seconds."""
    return (("Retry-After", str(max(1, math.ceil(wait)))),)
