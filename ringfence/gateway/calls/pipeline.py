"""The path of a call: every stage in the order in which a request meets it.

A `Pipeline` is one version of the configuration. The stages beside it decide; here they are put in
a row, and each decision is written down before it takes effect.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from ringfence.gateway.audit.journald import Journal
from ringfence.gateway.audit.log import Audit, AuditError, Event, Outcome
from ringfence.gateway.calls import limits
from ringfence.gateway.calls.exchange import EMPTY_HEADERS, JSON_HEADERS, Answer, Exchange, Headers
from ringfence.gateway.calls.relay import Relay
from ringfence.gateway.calls.results import error_message
from ringfence.gateway.configuration.configuration import Configuration, ConfigurationError
from ringfence.gateway.consent.store import Grants
from ringfence.gateway.inspection import worker as isolation
from ringfence.gateway.jose.keys import FileKeys, KeySetError, UrlKeys
from ringfence.gateway.monotonic_clock import SteadyTime
from ringfence.gateway.pins import definitions as pins
from ringfence.gateway.policy.decisions import Decision
from ringfence.gateway.protocol import mirrored_headers, sessions, strict_json
from ringfence.gateway.protocol import requests as protocol
from ringfence.gateway.protocol.methods import MODERN
from ringfence.gateway.refusals import Refusal
from ringfence.gateway.server import cors
from ringfence.gateway.server.metrics import Metrics
from ringfence.gateway.tokens import access_tokens as tokens
from ringfence.gateway.tokens import dpop
from ringfence.gateway.tokens.revocations import Revocations, RevocationsUnreadableError
from ringfence.gateway.upstream import connections as upstream
from ringfence.gateway.upstream.catalogue import Catalogue

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
SESSION_STREAM = "ping"
"""What a principal must be allowed to, to listen to a session of theirs or to end it."""
FORWARDED = 102
"""Status in the audit log of a call that is under way."""
GRANT_STEPS = {
    "requested": "grants/request",
    "approved": "grants/approve",
    "revoked": "grants/revoke",
}
WELL_KNOWN_SECONDS = 3600

logger = logging.getLogger(__name__)


class Pipeline:
    """Made by `start`; `close` ends what it runs in the background."""

    def __init__(
        self,
        configuration: Configuration,
        metrics: Metrics,
        audit: Audit,
        grants: Grants,
        revocations: Revocations,
        steady: SteadyTime,
    ) -> None:
        """Raises `ConfigurationError` where an issuer's keys cannot be used."""
        self.digest = configuration.digest
        self.servers = configuration.servers
        self.body_bytes = configuration.limits.body_bytes
        self.origins = configuration.origins
        self.audit = audit
        self.grants = grants
        self.revocations = revocations
        self.steady = steady
        self._configuration = configuration
        self._metrics = metrics
        self._flying = 0
        self._landed = asyncio.Event()
        self._landed.set()
        self.policies = configuration.policies
        self._keys = key_sources(configuration)
        self._verifier = tokens.Verifier(
            [
                tokens.Issuer(each.issuer, keys, frozenset(each.algorithms), each.principal_claim)
                for each, keys in zip(configuration.tokens.issuers, self._keys, strict=True)
            ],
            principals=configuration.principals.keys(),
            state=configuration.state_directory,
            revocations=revocations,
            steady=steady,
            ceiling_seconds=configuration.tokens.ceiling_seconds,
            skew_seconds=configuration.tokens.skew_seconds,
            sender_constraint=configuration.tokens.sender_constraint,
        )
        self._limits = limits.Limits(
            {
                name: limits.ServerLimits(each.calls_per_minute, each.concurrency)
                for name, each in configuration.servers.items()
            },
            principal_calls_per_minute=configuration.limits.principal_calls_per_minute,
        )
        settings = configuration.inspection
        self._inspection = isolation.Isolation(
            settings.classes,
            settings.mask,
            settings.key,
            arguments="pass" if settings.arguments == "off" else settings.arguments,
        )
        self._inspects_arguments = settings.arguments != "off"
        self._sessions_key = configuration.secret("sessions")
        observed = pins.Observations(configuration.state_directory / "observed")
        tls = upstream.context(configuration.upstream)
        self._relays: dict[str, Relay] = {}
        for name, server in configuration.servers.items():
            connections = upstream.Connections(server, tls)
            catalogue = Catalogue(
                server,
                connections,
                configuration.limits,
                self._judge(name, server.pins, observed),
            )
            self._relays[name] = Relay(
                server,
                connections,
                catalogue,
                self.policies,
                self._inspection,
                self._limits,
                configuration.limits,
                self._still_allowed,
            )
        self._background = [
            asyncio.create_task(keys.run()) for keys in self._keys if isinstance(keys, UrlKeys)
        ]

    @classmethod
    async def start(
        cls,
        configuration: Configuration,
        metrics: Metrics,
        name: str,
        predecessor: Pipeline | None = None,
    ) -> Pipeline:
        """`name`: of this process among those of the gateway. A `predecessor` hands on its log."""
        facts, ceiling = configuration.grants.facts, configuration.grants.ceiling_seconds
        if predecessor is None:
            audit = Audit(
                configuration.audit.directory,
                name,
                key=configuration.secret("audit"),
                journal=Journal() if configuration.audit.journal else None,
            )
            revocations = Revocations(configuration.state_directory / "revoked.json")
            grants = Grants(
                configuration.grants.directory,
                facts,
                ceiling,
                refuse_revoked=revocations.refuse_revoked,
            )
            pipeline = cls(configuration, metrics, audit, grants, revocations, SteadyTime())
        else:
            before = predecessor._configuration
            for section in ("audit", "grants"):
                if getattr(before, section).directory != getattr(configuration, section).directory:
                    raise ConfigurationError(
                        [f"{configuration.directory}: {section}.directory: restart to change it"]
                    )
            pipeline = cls(
                configuration,
                metrics,
                predecessor.audit,
                predecessor.grants,
                predecessor.revocations,
                predecessor.steady,
            )
            predecessor.grants.reconfigure(facts, ceiling)
            if configuration.audit.journal != before.audit.journal:
                pipeline.audit.use_journal(Journal() if configuration.audit.journal else None)
        metrics.serve(configuration.servers)
        # A server that cannot be listed now is listed with its first call.
        await asyncio.gather(
            *(relay.catalogue.current() for relay in pipeline._relays.values()),
            return_exceptions=True,
        )
        return pipeline

    # The life of a version

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        self._flying += 1
        self._landed.clear()
        self._metrics.in_flight(self._flying)
        try:
            yield
        finally:
            self._flying -= 1
            self._metrics.in_flight(self._flying)
            if not self._flying:
                self._landed.set()

    def retire(self) -> None:
        """Streams that only listen end; calls go on to their end."""
        for relay in self._relays.values():
            relay.retire()

    async def leave(self) -> None:
        """Close once the last request has ended. The log and the grants stay with the successor."""
        self.retire()
        await self._landed.wait()
        await self._release()

    async def close(self) -> None:
        await self._release()
        self.audit.close()

    async def _release(self) -> None:
        for task in self._background:
            task.cancel()
        for relay in self._relays.values():
            await relay.close()
        await self._inspection.close()

    def not_ready(self) -> list[str]:
        """Why calls would be refused now, one line each."""
        return [
            f"the tools of {name} could not be listed"
            for name, relay in self._relays.items()
            if not relay.catalogue.listed
        ]

    def exposition(self) -> bytes:
        """Metrics, with what is only looked at when somebody asks."""
        now = time.monotonic()
        for name, circuit in self._limits.circuits.items():
            self._metrics.upstream(name, circuit.state(now))
        self._metrics.journal_lost(self.audit.journal_lost)
        return self._metrics.exposition()

    def _judge(self, name: str, approved: pins.Pins, observed: pins.Observations) -> Any:
        def judge(definitions: list[dict[str, Any]]) -> pins.Judgement:
            observed.record(name, definitions)
            judgement = approved.judge(definitions)
            self._metrics.withheld(name, Counter(each.reason for each in judgement.withheld))
            return judgement

        return judge

    # Requests

    def exchange(self, headers: Headers) -> Exchange:
        """What HAProxy says of a request; it has deleted what a client said under these names."""
        told = {name: value for name, value in headers if name.startswith(b"x-ringfence-")}
        identifier = told.get(b"x-ringfence-request-id", b"")
        certificate = told.get(b"x-ringfence-client-certificate")
        address = told.get(b"x-ringfence-client-address")
        return Exchange(
            headers=headers,
            request_id=(
                identifier.decode() if REQUEST_ID.fullmatch(identifier) else uuid.uuid4().hex
            ),
            address=address.decode("latin-1") if address else None,
            certificate=_der(certificate) if certificate else None,
            started=time.monotonic(),
            arrived=time.time(),
        )

    def check_request_line(self, exchange: Exchange, path: bytes, query: bytes) -> None:
        protocol.check_target(path.decode("latin-1"), query)
        protocol.check_host(exchange.headers, self._configuration.hosts)
        protocol.check_origin(exchange.headers, self._configuration.origins)

    def methods(self, server: str) -> tuple[str, ...]:
        older = self.servers[server].protocols != {MODERN}
        return ("POST", "GET", "DELETE") if older else ("POST",)

    async def call(self, exchange: Exchange, body: bytes) -> Answer:
        """A POST to a server. Raises `Refusal`."""
        assert exchange.server is not None
        relay = self._relays[exchange.server]
        server = relay.server
        # 1. Protocol
        document = await isolation.parse(body, depth=self._configuration.limits.depth)
        exchange.message_id = protocol.request_id(document)
        call = protocol.read(
            exchange.headers, document, server=server.name, versions=server.protocols
        )
        exchange.call = call
        tool = server.tools.get(call.name or "") if call.kind == "tool" else None
        exchange.sensitive = tool is not None and tool.sensitive and call.method == "tools/call"
        # 2. Authentication
        identity = await self._authenticate(exchange, "POST")
        if call.session is not None:
            exchange.session = sessions.open(
                self._sessions_key, call.session, identity.principal, server.name
            )
        # 3. Authorization, 4. with a grant where the tool is sensitive
        self._authorise(exchange, identity, call)
        # 5. The definition of the tool as it was approved
        declared: tuple[mirrored_headers.ParamHeader, ...] = ()
        if call.method == "tools/call":
            assert call.name is not None
            judgement = await relay.catalogue.current()
            declared = judgement.tool(call.name).headers
            protocol.param_headers(call, declared, exchange.headers)
        # 6. Data on its way in
        if "arguments" in call.params:
            exchange.arguments = self.audit.fingerprint(call.params["arguments"])
        if self._inspects_arguments:
            inspected = await self._inspection.inspect_arguments(
                call.params,
                exchange.data_class or relay.own_class,
                size=len(body),
                of=f"principal {identity.principal}",
            )
            exchange.count(inspected.findings)
            if inspected.action == "block":
                exchange.treatment = "blocked"
                raise Refusal("arguments_withheld")
            if inspected.findings:
                exchange.treatment = "flagged"
        # 7. Limits
        self._limits.admit(
            identity.principal, server.name, call.name if tool else None, exchange.started
        )
        # A notification of the current protocol has no effect; nobody has to hear of it.
        if call.id is None and call.version == MODERN:
            self._conclude(exchange, 202)
            return Answer(202, EMPTY_HEADERS, b"")
        # 8. Audit, before it takes effect
        self._forwarding(exchange)
        return await relay.call(exchange, call, declared, self._seal, self._conclude)

    async def session(self, exchange: Exchange, method: str) -> Answer:
        """Listening to a session of an older protocol version, or its end. Raises `Refusal`."""
        assert exchange.server is not None
        relay = self._relays[exchange.server]
        verb = "GET" if method == "GET" else "DELETE"
        version, sealed = protocol.read_session(
            exchange.headers, verb=verb, versions=relay.server.protocols
        )
        identity = await self._authenticate(exchange, method)
        exchange.session = sessions.open(
            self._sessions_key, sealed, identity.principal, relay.server.name
        )
        call = protocol.Call(
            server=relay.server.name,
            version=version,
            id=None,
            method=SESSION_STREAM,
            params={},
            kind="server",
            name=None,
            document={},
            session=sealed,
        )
        exchange.call = call
        self._authorise(exchange, identity, call)
        self._limits.admit(identity.principal, relay.server.name, None, exchange.started)
        self._forwarding(exchange)
        return await relay.session(exchange, verb, call, self._conclude)

    async def _authenticate(self, exchange: Exchange, method: str) -> tokens.Identity:
        proofs = tuple(
            value.decode("latin-1") for name, value in exchange.headers if name == b"dpop"
        )
        resource = self._resource(exchange.server or "")

        def verify() -> tokens.Identity:
            return self._verifier.verify(
                tokens.authorization_header(exchange.headers),
                audience=resource,
                scope=f"mcp:{exchange.server}",
                certificate_der=exchange.certificate,
                dpop=dpop.Request(method, resource, proofs) if proofs else None,
                now=time.time(),
                sensitive=exchange.sensitive,
            )

        try:
            exchange.identity = verify()
        except Refusal as refusal:
            if refusal.reason != "token_unknown_key":
                raise
            # The issuer may have a new key already; `UrlKeys` bounds how often it is asked.
            renewed = [await keys.refresh() for keys in self._keys if isinstance(keys, UrlKeys)]
            if not any(renewed):
                raise
            exchange.identity = verify()
        return exchange.identity

    def _authorise(
        self, exchange: Exchange, identity: tokens.Identity, call: protocol.Call
    ) -> None:
        exchange.data_class = self.policies.data_class(call.server, call.kind, call.name)
        grant = None
        if exchange.sensitive and call.name is not None:
            grant = self.grants.live(identity.principal, call.server, call.name, time.time())
        exchange.grant = grant.id if grant else None
        decision = self.policies.decide(
            identity, call, granted=grant is not None, address=exchange.address
        )
        exchange.decision = decision
        if not decision.allowed:
            raise _denied(decision, call)

    def _seal(self, exchange: Exchange, session: str) -> str:
        assert exchange.identity is not None
        assert exchange.server is not None
        return sessions.seal(
            self._sessions_key, session, exchange.identity.principal, exchange.server
        )

    # What is written down

    def _forwarding(self, exchange: Exchange) -> None:
        """The decision to let a call through. Raises `Refusal` where it cannot be recorded."""
        try:
            self.audit.admit()
            self.audit.write(self._event(exchange, "allowed", FORWARDED, "forwarded"))
        except AuditError as error:
            raise self._unrecorded(error) from error
        exchange.forwarded = True

    def _conclude(
        self,
        exchange: Exchange,
        status: int,
        refusal: Refusal | None = None,
        said: str = "allowed",
    ) -> None:
        """What came of a request. Raises `Refusal` where it cannot be recorded."""
        if exchange.concluded:
            return
        exchange.concluded = True
        outcome: Outcome = "allowed"
        if refusal is not None:
            outcome = "failed" if exchange.forwarded else "denied"
        reason = said if refusal is None else refusal.reason
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

    def _unrecorded(self, error: AuditError) -> Refusal:
        self._metrics.audit_failed()
        logger.error("not recorded, so refused: %s", error)
        return Refusal("audit_unavailable")

    def _event(self, exchange: Exchange, outcome: Outcome, status: int, reason: str) -> Event:
        identity, call = exchange.identity, exchange.call
        kind, name = exchange.subject or (call.kind if call else None, None)
        named = None
        if call is not None and call.name is not None:
            name = self._known_name(call)
            if name != call.name:
                named = self.audit.fingerprint(call.name)
        thumbprint = None
        if exchange.certificate is not None:
            thumbprint = (
                identity.certificate if identity else None
            ) or tokens.certificate_thumbprint(exchange.certificate)
        return Event(
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
            policy_version=self.digest,
            grant=exchange.grant,
            findings=exchange.findings,
            treatment=exchange.treatment,
            arguments=exchange.arguments,
        )

    def _known_name(self, call: protocol.Call) -> str | None:
        """The name where the manifest has it: any other is a caller's words."""
        server = self.servers[call.server]
        known: Mapping[str, Any] = server.tools if call.kind == "tool" else server.prompts
        return call.name if call.kind in ("tool", "prompt") and call.name in known else None

    def refuse(self, exchange: Exchange, refusal: Refusal) -> Answer:
        """A refusal as an answer, recorded; one that cannot be recorded says only that."""
        try:
            self._conclude(exchange, refusal.status, refusal)
        except Refusal as unrecorded:
            refusal = unrecorded
        body = strict_json.serialise(error_message(exchange.message_id, refusal))
        more = [(name.lower().encode(), value.encode()) for name, value in refusal.headers]
        return Answer(refusal.status, [*JSON_HEADERS, *more], body)

    async def finish(self, exchange: Exchange, gone: Refusal | None = None) -> None:
        """Whatever happened: give back what the request holds, and record what was not yet."""
        await exchange.held.aclose()
        if not exchange.concluded:
            refusal = gone or Refusal("unfinished")
            # There is nobody left to tell; the log of the service has it.
            with suppress(Refusal):
                self._conclude(exchange, refusal.status, refusal)

    # What is not about a call

    def _resource(self, server: str) -> str:
        return f"{self._configuration.resource}/{server}/mcp"

    def preflight(self, exchange: Exchange, methods: Iterable[str]) -> Answer:
        """What a browser asks before a page's request; its Origin has been checked."""
        self._conclude(exchange, 204, said="preflight")
        return Answer(204, cors.preflight(exchange.headers, methods), b"")

    def metadata(self, exchange: Exchange, server: str) -> Answer:
        """RFC 9728, section 2."""
        self._conclude(exchange, 200, said="metadata")
        constraint = self._configuration.tokens.sender_constraint
        document = {
            "resource": self._resource(server),
            "authorization_servers": [each.issuer for each in self._configuration.tokens.issuers],
            "scopes_supported": [f"mcp:{server}"],
            "bearer_methods_supported": ["header"],
            "tls_client_certificate_bound_access_tokens": constraint == "certificate",
            "dpop_bound_access_tokens_required": constraint == "dpop",
        }
        cache = (b"cache-control", b"public, max-age=%d" % WELL_KNOWN_SECONDS)
        headers = [cache if name == b"cache-control" else (name, v) for name, v in JSON_HEADERS]
        return Answer(200, headers, strict_json.serialise(document))

    async def accept_grant(self, exchange: Exchange, body: bytes) -> Answer:
        """Store a signed document about a grant; who sends it does not matter."""
        event = await asyncio.to_thread(self.grants.accept, body, time.time())
        exchange.identity = _signed_by(event.actor)
        exchange.server = event.server
        exchange.call = _step(GRANT_STEPS[event.step], event.server, event.tool)
        exchange.grant = event.id
        exchange.sensitive = True
        status = 201 if event.new else 200
        self._conclude(exchange, status, said=f"grant_{event.step}")
        return Answer(status, JSON_HEADERS, strict_json.serialise(event.as_json()))

    async def accept_revocation(self, exchange: Exchange, body: bytes) -> Answer:
        """Cut somebody off, or give access back; who sends it does not matter."""
        facts = self.grants.facts
        change, new = await asyncio.to_thread(self.revocations.accept, body, facts, time.time())
        exchange.identity = _signed_by(change.signer)
        exchange.subject = change.kind, change.value
        exchange.call = _step("access/restore" if change.until is None else "access/revoke")
        step = "restored" if change.until is None else "revoked"
        status = 201 if new else 200
        self._conclude(exchange, status, said=f"{step}_{change.kind}")
        told = {"step": step, "new": new, "kind": change.kind, "value": change.value}
        return Answer(status, JSON_HEADERS, strict_json.serialise(told))

    async def list_revocations(self, exchange: Exchange) -> Answer:
        """Those that the owner of the client's certificate may see."""
        principal = self._certified(exchange)
        listed = self.revocations.listing(self.grants.facts, principal, time.time())
        exchange.identity = _certified_as(principal)
        exchange.call = _step("access/list")
        self._conclude(exchange, 200)
        return Answer(200, JSON_HEADERS, strict_json.serialise({"revocations": listed}))

    def _still_allowed(self, identity: tokens.Identity) -> None:
        """For whoever was let in already. Raises `Refusal`."""
        if self.steady.latest(time.time()) >= identity.expires:
            raise Refusal("token_expired", "the access token has expired meanwhile")
        certificates = [identity.certificate] if identity.certificate else []
        try:
            revoked = self.revocations.revoked(
                identity.principal, identity.token_id, certificates, time.time()
            )
        except RevocationsUnreadableError:
            revoked = True
        if revoked:
            raise Refusal("token_revoked", "the access was revoked meanwhile")

    async def list_grants(self, exchange: Exchange) -> Answer:
        """Those that the owner of the client's certificate may see."""
        principal = self._certified(exchange)
        listed = await asyncio.to_thread(self.grants.listing, time.time(), principal)
        exchange.identity = _certified_as(principal)
        exchange.call = _step("grants/list")
        self._conclude(exchange, 200)
        grants = {"grants": [each.as_json() for each in listed]}
        return Answer(200, JSON_HEADERS, strict_json.serialise(grants))

    def _certified(self, exchange: Exchange) -> str:
        """The principal of the client's certificate, which HAProxy has verified."""
        if exchange.certificate is not None:
            principal = self.grants.facts.principal_of(exchange.certificate)
            thumbprint = tokens.certificate_thumbprint(exchange.certificate)
            self.revocations.refuse_revoked(principal, thumbprint, time.time())
            return principal
        raise Refusal("no_certificate")


def _signed_by(principal: str) -> tokens.Identity:
    return tokens.Identity(principal, "signature", None, frozenset(), 0.0, None)


def _certified_as(principal: str) -> tokens.Identity:
    return tokens.Identity(principal, "certificate", None, frozenset(), 0.0, None)


def key_sources(configuration: Configuration) -> list[FileKeys | UrlKeys]:
    """Raises `ConfigurationError`."""
    sources: list[FileKeys | UrlKeys] = []
    for each in configuration.tokens.issuers:
        try:
            if each.jwks_file is not None:
                sources.append(FileKeys(each.jwks_file))
            else:
                assert each.jwks_url is not None
                sources.append(UrlKeys(each.jwks_url, authority_file=each.ca_file))
        except (KeySetError, ValueError, OSError) as error:
            raise ConfigurationError(
                [f"{configuration.directory}: tokens: issuer {each.issuer}: {error}"]
            ) from error
    return sources


def _step(method: str, server: str = "", tool: str | None = None) -> protocol.Call:
    """For the audit log: what is not MCP, told as if it were."""
    kind = "server" if tool is None else "tool"
    return protocol.Call(server, "", None, method, {}, kind, tool, {})


def _der(value: bytes) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return None


def _denied(decision: Decision, call: protocol.Call) -> Refusal:
    if decision.reason == "no_grant":
        return Refusal(
            "no_grant",
            "this tool is sensitive: another person has to agree first; run: ringfence grant "
            f"request {call.server} {call.name} --for 30m --reason '…'",
        )
    return Refusal(decision.reason)
