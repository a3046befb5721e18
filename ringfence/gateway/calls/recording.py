"""The audit log and the metrics of requests: each decision is recorded before it takes effect."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ringfence.gateway.audit.events import AuditEvent, Outcome
from ringfence.gateway.audit.file import AuditError
from ringfence.gateway.audit.log import Audit
from ringfence.gateway.calls.exchange import JSON_HEADERS, Answer, Exchange
from ringfence.gateway.calls.metrics import Metrics
from ringfence.gateway.calls.results import error_message
from ringfence.gateway.configuration.model import ServerConfiguration
from ringfence.gateway.protocol import strict_json
from ringfence.gateway.protocol.requests import Call
from ringfence.gateway.refusals import Refusal
from ringfence.gateway.tokens.access_tokens import certificate_thumbprint

FORWARDED = 102
"""Status in the audit log of a call that is under way."""

logger = logging.getLogger(__name__)


class CallRecorder:
    """Records requests that one version of the configuration decides."""

    def __init__(
        self,
        audit: Audit,
        metrics: Metrics,
        servers: Mapping[str, ServerConfiguration],
        version: str,
    ) -> None:
        """`version`: the digest of the configuration."""
        self.audit = audit
        self._metrics = metrics
        self._servers = servers
        self._version = version

    def forward(self, exchange: Exchange) -> None:
        """Record that a call is let through. Raises `Refusal` if that fails."""
        try:
            self.audit.admit()
            self.audit.write(self._event(exchange, "allowed", FORWARDED, "forwarded"))
        except AuditError as error:
            raise self._unrecorded(error) from error
        exchange.forwarded = True

    def conclude(
        self,
        exchange: Exchange,
        status: int,
        refusal: Refusal | None = None,
        reason: str = "allowed",
    ) -> None:
        """Record the outcome of a request, once. Raises `Refusal` if that fails."""
        if exchange.concluded:
            return
        exchange.concluded = True
        outcome: Outcome = "allowed"
        if refusal is not None:
            outcome = "failed" if exchange.forwarded else "denied"
            reason = refusal.reason
        event = self._event(exchange, outcome, status, reason)
        self._metrics.decided(
            event.server, event.method, outcome, reason, event.duration,
            event.duration - exchange.waited,
        )  # fmt: skip
        self._metrics.found(event.server, exchange.findings)
        try:
            self.audit.write(event)
        except AuditError as error:
            raise self._unrecorded(error) from error

    def refuse(self, exchange: Exchange, refusal: Refusal) -> Answer:
        """Record a refusal and make it an answer; if it cannot be recorded, answer only that."""
        try:
            self.conclude(exchange, refusal.status, refusal)
        except Refusal as unrecorded:
            refusal = unrecorded
        body = strict_json.serialise(error_message(exchange.message_id, refusal))
        more = [(name.lower().encode(), value.encode()) for name, value in refusal.headers]
        return Answer(refusal.status, [*JSON_HEADERS, *more], body)

    async def finish(self, exchange: Exchange) -> None:
        """Release what the request holds, and record it if nothing did."""
        await exchange.held.aclose()
        if not exchange.concluded:
            refusal = Refusal("unfinished")
            # There is nobody left to answer; the service's own log has the failure.
            with suppress(Refusal):
                self.conclude(exchange, refusal.status, refusal)

    def _unrecorded(self, error: AuditError) -> Refusal:
        self._metrics.audit_failed()
        logger.error("not recorded, so refused: %s", error)
        return Refusal("audit_unavailable")

    def _event(self, exchange: Exchange, outcome: Outcome, status: int, reason: str) -> AuditEvent:
        identity, call = exchange.identity, exchange.call
        kind, name = exchange.subject or (call.kind if call else None, None)
        named = None
        if call is not None and call.name is not None:
            name = self._known_name(call)
            if name != call.name:
                named = self.audit.fingerprint(call.name)
        thumbprint = None
        if exchange.certificate is not None:
            thumbprint = (identity.certificate if identity else None) or certificate_thumbprint(
                exchange.certificate
            )
        return AuditEvent(
            request_id=exchange.request_id,
            time=exchange.arrived,
            duration=time.monotonic() - exchange.started,
            outcome=outcome,
            status=status,
            reason=reason,
            address=exchange.address,
            certificate=thumbprint,
            principal=identity.principal if identity else None,
            issuer=identity.issuer if identity else None,
            token_id=identity.token_id if identity else None,
            server=exchange.server,
            version=(call.version or None) if call else None,
            method=call.method if call else None,
            kind=kind,
            name=name,
            named=named,
            data_class=exchange.data_class,
            sensitive=exchange.sensitive,
            policies=exchange.decision.policies if exchange.decision else (),
            policy_version=self._version,
            grant=exchange.grant,
            findings=exchange.findings,
            treatment=exchange.treatment,
            arguments=exchange.arguments,
        )

    def _known_name(self, call: Call) -> str | None:
        """The name where the manifest has it: any other is the caller's words."""
        server = self._servers[call.server]
        known: Mapping[str, Any] = server.tools if call.kind == "tool" else server.prompts
        return call.name if call.kind in ("tool", "prompt") and call.name in known else None
