"""Endpoints beside the calls: metadata of servers, grants and revocations.

A grant or a revocation is a signed document, so it does not matter who sends it. A list is for the
owner of the client's certificate.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from ringfence.gateway.calls.exchange import JSON_HEADERS, Answer, Exchange, Verb
from ringfence.gateway.calls.recording import CallRecorder
from ringfence.gateway.configuration.model import Configuration
from ringfence.gateway.consent.store import Grants
from ringfence.gateway.protocol import strict_json
from ringfence.gateway.protocol.requests import Call
from ringfence.gateway.refusals import Refusal
from ringfence.gateway.tokens.access_tokens import CallerIdentity, certificate_thumbprint
from ringfence.gateway.tokens.revocations import Revocations

WELL_KNOWN_SECONDS = 3600
GRANT_STEPS = {
    "requested": "grants/request",
    "approved": "grants/approve",
    "revoked": "grants/revoke",
}

Endpoint = Callable[[Exchange], Awaitable[Answer]]


class Endpoints:
    def __init__(
        self,
        configuration: Configuration,
        grants: Grants,
        revocations: Revocations,
        recorder: CallRecorder,
    ) -> None:
        self._configuration = configuration
        self._grants = grants
        self._revocations = revocations
        self._recorder = recorder
        self.by_path: Mapping[bytes, Mapping[Verb, Endpoint]] = {
            b"/grants": {"GET": self._list_grants, "POST": self._accept_grant},
            b"/revocations": {"GET": self._list_revocations, "POST": self._accept_revocation},
        }
        """Endpoints by path and HTTP method."""

    def metadata(self, exchange: Exchange, server: str) -> Answer:
        """RFC 9728, section 2."""
        self._recorder.conclude(exchange, 200, reason="metadata")
        constraint = self._configuration.tokens.sender_constraint
        document = {
            "resource": self._configuration.resource_of(server),
            "authorization_servers": [each.issuer for each in self._configuration.tokens.issuers],
            "scopes_supported": [f"mcp:{server}"],
            "bearer_methods_supported": ["header"],
            "tls_client_certificate_bound_access_tokens": constraint == "certificate",
            "dpop_bound_access_tokens_required": constraint == "dpop",
        }
        cache = (b"cache-control", b"public, max-age=%d" % WELL_KNOWN_SECONDS)
        headers = [cache if name == b"cache-control" else (name, v) for name, v in JSON_HEADERS]
        return Answer(200, headers, strict_json.serialise(document))

    async def _accept_grant(self, exchange: Exchange) -> Answer:
        receipt = await asyncio.to_thread(self._grants.accept, exchange.body, time.time())
        exchange.identity = _signer(receipt.actor)
        exchange.server = receipt.server
        exchange.call = _step(GRANT_STEPS[receipt.step], receipt.server, receipt.tool)
        exchange.grant = receipt.id
        exchange.sensitive = True
        status = 201 if receipt.new else 200
        self._recorder.conclude(exchange, status, reason=f"grant_{receipt.step}")
        return Answer(status, JSON_HEADERS, strict_json.serialise(receipt.as_json()))

    async def _list_grants(self, exchange: Exchange) -> Answer:
        principal = self._certified(exchange)
        listed = await asyncio.to_thread(self._grants.listing, time.time(), principal)
        self._record_list(exchange, "grants/list", principal)
        grants = {"grants": [each.as_json() for each in listed]}
        return Answer(200, JSON_HEADERS, strict_json.serialise(grants))

    async def _accept_revocation(self, exchange: Exchange) -> Answer:
        roster = self._grants.roster
        change, new = await asyncio.to_thread(
            self._revocations.accept, exchange.body, roster, time.time()
        )
        restored = change.until is None
        exchange.identity = _signer(change.signer)
        exchange.subject = change.kind, change.value
        exchange.call = _step("access/restore" if restored else "access/revoke")
        step = "restored" if restored else "revoked"
        status = 201 if new else 200
        self._recorder.conclude(exchange, status, reason=f"{step}_{change.kind}")
        report = {"step": step, "new": new, "kind": change.kind, "value": change.value}
        return Answer(status, JSON_HEADERS, strict_json.serialise(report))

    async def _list_revocations(self, exchange: Exchange) -> Answer:
        principal = self._certified(exchange)
        listed = self._revocations.listing(self._grants.roster, principal, time.time())
        self._record_list(exchange, "access/list", principal)
        return Answer(200, JSON_HEADERS, strict_json.serialise({"revocations": listed}))

    def _record_list(self, exchange: Exchange, step: str, principal: str) -> None:
        exchange.identity = CallerIdentity(principal, "certificate", None, frozenset(), 0.0, None)
        exchange.call = _step(step)
        self._recorder.conclude(exchange, 200)

    def _certified(self, exchange: Exchange) -> str:
        """The principal of the client's certificate, which HAProxy has verified."""
        if exchange.certificate is None:
            raise Refusal("no_certificate")
        principal = self._grants.roster.principal_of(exchange.certificate)
        thumbprint = certificate_thumbprint(exchange.certificate)
        self._revocations.refuse_revoked(principal, thumbprint, time.time())
        return principal


def _signer(principal: str) -> CallerIdentity:
    return CallerIdentity(principal, "signature", None, frozenset(), 0.0, None)


def _step(step: str, server: str = "", tool: str | None = None) -> Call:
    """A step of `methods.OPERATIONS` in the form of a call, for the audit log."""
    kind = "server" if tool is None else "tool"
    return Call(server, "", None, step, {}, kind, tool, {})
