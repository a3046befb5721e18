"""Versions of the configuration: each one serves the requests that it met until they have ended."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ringfence.gateway.audit.file import AuditError
from ringfence.gateway.audit.journald import Journal
from ringfence.gateway.audit.log import Audit
from ringfence.gateway.calls.answers import Answers
from ringfence.gateway.calls.endpoints import Endpoints
from ringfence.gateway.calls.exchange import Verb
from ringfence.gateway.calls.limits import CallLimits, ServerLimits
from ringfence.gateway.calls.metrics import Metrics
from ringfence.gateway.calls.recording import CallRecorder
from ringfence.gateway.calls.relay import Relay
from ringfence.gateway.calls.stages import Pipeline, StageServices
from ringfence.gateway.configuration.model import Configuration, ConfigurationError
from ringfence.gateway.consent.store import Grants
from ringfence.gateway.inspection.worker import InspectionWorker
from ringfence.gateway.pins.approved import Judgement, Pins
from ringfence.gateway.pins.observations import Observations
from ringfence.gateway.protocol.methods import MODERN
from ringfence.gateway.tokens.access_tokens import TrustedIssuer, Verifier
from ringfence.gateway.tokens.revocations import Revocations
from ringfence.gateway.upstream.catalogue import Catalogue
from ringfence.gateway.upstream.connections import Connections, tls_context


@dataclass(frozen=True)
class Stores:
    """State of one process that outlasts every version of the configuration."""

    audit: Audit
    grants: Grants
    revocations: Revocations

    def sync(self) -> None:
        """Write the audit log to disk. Blocks for milliseconds."""
        with suppress(AuditError):  # calls meet the same fault, and are refused
            self.audit.sync()


class Version:
    """One version of the configuration, with everything that serves it. Made by `start`."""

    def __init__(
        self,
        configuration: Configuration,
        metrics: Metrics,
        stores: Stores,
        predecessor: Version | None,
    ) -> None:
        """Raises `ConfigurationError` where an issuer's keys cannot be used."""
        self.configuration = configuration
        self.stores = stores
        self.recorder = CallRecorder(
            stores.audit, metrics, configuration.servers, configuration.digest
        )
        self._metrics = metrics
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._verifier = self._make_verifier(predecessor)
        self._limits = CallLimits(
            {
                name: ServerLimits(each.calls_per_minute, each.concurrency)
                for name, each in configuration.servers.items()
            },
            principal_calls_per_minute=configuration.limits.principal_calls_per_minute,
        )
        inspection = configuration.inspection
        self._inspection = InspectionWorker(
            inspection.classes,
            inspection.mask,
            inspection.key,
            arguments="pass" if inspection.arguments == "off" else inspection.arguments,
        )
        self._relays = self._make_relays()
        self.pipeline = Pipeline(
            StageServices(
                configuration,
                self._verifier,
                stores.grants,
                configuration.policies,
                self._inspection,
                self._limits,
                self.recorder,
                self._relays,
            )
        )
        self.endpoints = Endpoints(configuration, stores.grants, stores.revocations, self.recorder)
        self._fetching = asyncio.create_task(self._verifier.keep_keys_fresh())

    @classmethod
    async def start(
        cls,
        configuration: Configuration,
        metrics: Metrics,
        name: str,
        predecessor: Version | None = None,
    ) -> Version:
        """Serve a configuration, after a `predecessor` with its stores.

        `name`: of this process among those of the gateway. Raises `ConfigurationError`.
        """
        if predecessor is None:
            version = cls(configuration, metrics, _open_stores(configuration, name), None)
        else:
            before = predecessor.configuration
            for section in ("audit", "grants"):
                if getattr(before, section).directory != getattr(configuration, section).directory:
                    raise ConfigurationError(
                        [f"{configuration.directory}: {section}.directory: restart to change it"]
                    )
            version = cls(configuration, metrics, predecessor.stores, predecessor)
            grants = configuration.grants
            version.stores.grants.reconfigure(grants.roster, grants.ceiling_seconds)
            if configuration.audit.journal != before.audit.journal:
                version.stores.audit.use_journal(Journal() if configuration.audit.journal else None)
        metrics.serve(configuration.servers)
        # A server that cannot be listed now is listed with its first call.
        await asyncio.gather(
            *(relay.catalogue.current() for relay in version._relays.values()),
            return_exceptions=True,
        )
        return version

    def verbs(self, server: str) -> tuple[Verb, ...]:
        """The HTTP methods of a server's path: sessions of older MCP versions have three."""
        older = self.configuration.servers[server].protocols != {MODERN}
        return ("POST", "GET", "DELETE") if older else ("POST",)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Count a request for as long as it lasts."""
        self._in_flight += 1
        self._idle.clear()
        self._metrics.in_flight(self._in_flight)
        try:
            yield
        finally:
            self._in_flight -= 1
            self._metrics.in_flight(self._in_flight)
            if not self._in_flight:
                self._idle.set()

    def retire(self) -> None:
        """End streams that only listen; calls continue to their end."""
        for relay in self._relays.values():
            relay.retire()

    async def leave(self) -> None:
        """Close when the last request has ended. The stores stay with the successor."""
        self.retire()
        await self._idle.wait()
        await self._release()

    async def close(self) -> None:
        await self._release()
        self.stores.audit.close()

    async def _release(self) -> None:
        self._fetching.cancel()
        for relay in self._relays.values():
            await relay.close()
        await self._inspection.close()

    def problems(self) -> list[str]:
        """Reasons why calls would be refused now, one line each."""
        return [
            f"the tools of {name} could not be listed"
            for name, relay in self._relays.items()
            if not relay.catalogue.listed
        ]

    def exposition(self) -> bytes:
        """Metrics, with those that are only read when somebody asks for them."""
        now = time.monotonic()
        for name, circuit in self._limits.circuits.items():
            self._metrics.upstream(name, circuit.state(now))
        self._metrics.journal_lost(self.stores.audit.journal_lost)
        return self._metrics.exposition()

    def _make_verifier(self, predecessor: Version | None) -> Verifier:
        configuration, tokens = self.configuration, self.configuration.tokens
        return Verifier(
            [
                TrustedIssuer(each.issuer, keys, frozenset(each.algorithms), each.principal_claim)
                for each, keys in zip(tokens.issuers, configuration.key_sources(), strict=True)
            ],
            principals=configuration.principals,
            state=configuration.state_directory,
            revocations=self.stores.revocations,
            clock=predecessor._verifier.clock if predecessor else None,
            ceiling_seconds=tokens.ceiling_seconds,
            skew_seconds=tokens.skew_seconds,
            sender_constraint=tokens.sender_constraint,
        )

    def _make_relays(self) -> dict[str, Relay]:
        configuration, limits = self.configuration, self.configuration.limits
        observations = Observations(configuration.state_directory / "observed")
        tls = tls_context(configuration.upstream)
        relays: dict[str, Relay] = {}
        for name, server in configuration.servers.items():
            connections = Connections(server, tls)
            judge = self._judge(name, server.pins, observations)
            catalogue = Catalogue(server, connections, limits, judge)
            relays[name] = Relay(
                connections,
                catalogue,
                Answers(
                    server,
                    catalogue,
                    configuration.policies,
                    self._inspection,
                    limits,
                    self._verifier,
                    self.recorder,
                ),
                self.recorder,
                self._limits.slots[name],
                self._limits.circuits[name],
                configuration.secret("sessions"),
            )
        return relays

    def _judge(
        self, name: str, approved: Pins, observations: Observations
    ) -> Callable[[list[dict[str, Any]]], Judgement]:
        def judge(definitions: list[dict[str, Any]]) -> Judgement:
            observations.record(name, definitions)
            judgement = approved.judge(definitions)
            self._metrics.withheld(name, Counter(each.reason for each in judgement.withheld))
            return judgement

        return judge


def _open_stores(configuration: Configuration, name: str) -> Stores:
    try:
        audit = Audit(
            configuration.audit.directory,
            name,
            key=configuration.secret("audit"),
            journal=Journal() if configuration.audit.journal else None,
        )
    except AuditError as error:
        raise ConfigurationError([str(error)]) from error
    revocations = Revocations(configuration.state_directory / "revoked.json")
    grants = Grants(
        configuration.grants.directory,
        configuration.grants.roster,
        configuration.grants.ceiling_seconds,
        refuse_revoked=revocations.refuse_revoked,
    )
    return Stores(audit, grants, revocations)
