"""Prometheus metrics of one gateway process.

No caller chooses the value of a label: servers are those of the manifest, methods those of the
protocol, reasons those of `refusals`. Anything else counts as `other`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from ringfence.gateway.audit.events import AUDITED_METHODS, Outcome
from ringfence.gateway.pins.definitions import REASONS

SECONDS = (
    *(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064),
    *(0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
)
OTHER = "other"
WORDS = 128
"""Most different reasons, and most types of findings."""

Breaker = Literal["closed", "open", "half_open"]
BREAKERS: tuple[Breaker, ...] = get_args(Breaker)


class Metrics:
    """Counts for the life of the process; servers may change with the configuration."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._servers: frozenset[str] = frozenset()
        self._words: dict[str, set[str]] = {}
        self._children: dict[tuple[str | None, str | None, Outcome], tuple[Counter, Histogram]] = {}
        self._decisions = Counter(
            "ringfence_gateway_decisions",
            "Decisions about requests, by server, method and outcome.",
            ("server", "method", "outcome"),
            registry=self._registry,
        )
        self._refusals = Counter(
            "ringfence_gateway_refusals",
            "Requests that were denied or failed, by server and reason.",
            ("server", "reason"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "ringfence_gateway_request_seconds",
            "From a request's arrival to the end of its answer, upstream included.",
            ("server", "outcome"),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._own_seconds = Histogram(
            "ringfence_gateway_own_seconds",
            "The part of it that was not spent waiting for upstream.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self._findings = Counter(
            "ringfence_gateway_findings",
            "Findings in arguments and results, by type.",
            ("server", "type"),
            registry=self._registry,
        )
        self._withheld = Gauge(
            "ringfence_gateway_tools_withheld",
            "Tools of a server that are withheld now, by reason.",
            ("server", "reason"),
            registry=self._registry,
        )
        self._breakers = Gauge(
            "ringfence_gateway_upstream",
            "1 for the state that a server's circuit breaker is in.",
            ("server", "state"),
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "ringfence_gateway_in_flight", "Requests under way.", registry=self._registry
        )
        self._reloads = Counter(
            "ringfence_gateway_reloads",
            "Reloads of the configuration.",
            ("result",),
            registry=self._registry,
        )
        self._audit_failures = Counter(
            "ringfence_gateway_audit_failures",
            "Requests refused because they could not be recorded.",
            registry=self._registry,
        )
        self._journal_lost = Gauge(
            "ringfence_gateway_journal_lost",
            "Audit events since the start that the journal did not take; they are in the file.",
            registry=self._registry,
        )
        for result in ("accepted", "refused"):
            self._reloads.labels(result)

    def serve(self, servers: Iterable[str]) -> None:
        """Set the servers of the configuration in force; metrics of removed ones end."""
        gone, self._servers = self._servers, frozenset(servers)
        self._children.clear()
        for server in gone - self._servers:
            for state in BREAKERS:
                self._breakers.remove(server, state)
            for reason in REASONS:
                self._withheld.remove(server, reason)
        for server in self._servers - gone:
            self.upstream(server, "closed")
            self.withheld(server, {})

    def decided(
        self,
        server: str | None,
        method: str | None,
        outcome: Outcome,
        reason: str,
        seconds: float,
        own_seconds: float | None = None,
    ) -> None:
        """Count a request. `own_seconds`: without waiting for upstream."""
        key = (server, method, outcome)
        if (children := self._children.get(key)) is None:
            children = self._labelled(*key)
        children[0].inc()
        children[1].observe(seconds)
        if own_seconds is not None:
            self._own_seconds.observe(own_seconds)
        if outcome != "allowed":
            self._refusals.labels(self._server(server), self._word("reason", reason)).inc()

    def found(self, server: str | None, findings: Mapping[str, int]) -> None:
        for kind, number in findings.items():
            self._findings.labels(self._server(server), self._word("type", kind)).inc(number)

    def withheld(self, server: str, reasons: Mapping[str, int]) -> None:
        """Set how many tools of a server are withheld for each reason of a pin."""
        if server in self._servers:
            for reason in REASONS:
                self._withheld.labels(server, reason).set(reasons.get(reason, 0))

    def upstream(self, server: str, state: Breaker) -> None:
        if server in self._servers:
            for each in BREAKERS:
                self._breakers.labels(server, each).set(each == state)

    def in_flight(self, number: int) -> None:
        self._in_flight.set(number)

    def reloaded(self, *, accepted: bool) -> None:
        self._reloads.labels("accepted" if accepted else "refused").inc()

    def audit_failed(self) -> None:
        self._audit_failures.inc()

    def journal_lost(self, number: int) -> None:
        self._journal_lost.set(number)

    def exposition(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)

    def _labelled(
        self, server: str | None, method: str | None, outcome: Outcome
    ) -> tuple[Counter, Histogram]:
        shown = self._server(server)
        children = (
            self._decisions.labels(shown, method if method in AUDITED_METHODS else OTHER, outcome),
            self._seconds.labels(shown, outcome),
        )
        # Names that callers invent are not cached: they would fill the memory.
        if (server is None or shown == server) and (method is None or method in AUDITED_METHODS):
            self._children[server, method, outcome] = children
        return children

    def _server(self, server: str | None) -> str:
        return server if server in self._servers and server is not None else OTHER

    def _word(self, label: str, word: str) -> str:
        """A word as a label, up to `WORDS` different ones: more would be a defect here."""
        known = self._words.setdefault(label, set())
        if word not in known:
            if len(known) >= WORDS:
                return OTHER
            known.add(word)
        return word
