"""The stages of a call, in the order in which every call meets them.

A stage looks at the exchange, adds to it what it found out, and raises `Refusal` or returns. The
last one returns the answer. The decisions themselves are made in the package of the stage; here
they get what they need. `README.md` describes the same order.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ringfence.gateway import (
    audit,
    consent,
    inspection,
    pins,
    policy,
    protocol,
    tokens,
    upstream,
)
from ringfence.gateway.calls.exchange import EMPTY_HEADERS, OWN_CLASS, Answer, Exchange
from ringfence.gateway.calls.limits import CallLimits
from ringfence.gateway.calls.recording import CallRecorder
from ringfence.gateway.calls.relay import Relay
from ringfence.gateway.configuration.model import Configuration
from ringfence.gateway.consent.store import Grants
from ringfence.gateway.inspection.worker import InspectionWorker
from ringfence.gateway.policy.decisions import Policies
from ringfence.gateway.protocol import requests, sessions, strict_json
from ringfence.gateway.protocol.methods import MODERN
from ringfence.gateway.refusals import Refusal
from ringfence.gateway.tokens.access_tokens import Verifier, authorization_header
from ringfence.gateway.tokens.dpop import ProofRequest


@dataclass(frozen=True)
class StageServices:
    """The services that the stages of one version of the configuration use."""

    configuration: Configuration
    verifier: Verifier
    grants: Grants
    policies: Policies
    inspection: InspectionWorker
    limits: CallLimits
    recorder: CallRecorder
    relays: Mapping[str, Relay]


class Stage(ABC):
    name: ClassVar[str]
    """The package that decides."""
    controls: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __init__(self, services: StageServices) -> None: ...

    @abstractmethod
    async def __call__(self, exchange: Exchange) -> Answer | None:
        """Let the exchange pass, or answer it. Raises `Refusal`."""


class ReadRequest(Stage):
    """Read the request strictly, and find out what it calls."""

    name, controls = "protocol", protocol.CONTROLS

    def __init__(self, services: StageServices) -> None:
        self._servers = services.configuration.servers
        self._depth = services.configuration.limits.depth

    async def __call__(self, exchange: Exchange) -> None:
        server = self._servers[exchange.server or ""]
        if exchange.verb != "POST":
            exchange.call = requests.read_session(
                exchange.headers,
                server=server.name,
                verb=exchange.verb,
                versions=server.protocols,
            )
            return
        document = await strict_json.parse_any_size(exchange.body, depth=self._depth)
        exchange.message_id = requests.request_id(document)
        exchange.call = call = requests.read(
            exchange.headers, document, server=server.name, versions=server.protocols
        )
        if call.method == "tools/call":
            tool = server.tools.get(call.name or "")
            exchange.sensitive = tool is not None and tool.sensitive


class Authenticate(Stage):
    """Verify the access token, its proof and its session."""

    name, controls = "tokens", tokens.CONTROLS

    def __init__(self, services: StageServices) -> None:
        self._verifier = services.verifier
        self._resource = services.configuration.resource_of
        self._sessions_key = services.configuration.secret("sessions")

    async def __call__(self, exchange: Exchange) -> None:
        assert exchange.call is not None
        server = exchange.call.server
        resource = self._resource(server)
        proofs = tuple(
            value.decode("latin-1") for name, value in exchange.headers if name == b"dpop"
        )
        exchange.identity = await self._verifier.authenticate(
            authorization_header(exchange.headers),
            audience=resource,
            scope=f"mcp:{server}",
            certificate_der=exchange.certificate,
            dpop=ProofRequest(exchange.verb, resource, proofs) if proofs else None,
            sensitive=exchange.sensitive,
        )
        if exchange.call.session is not None:
            exchange.session = sessions.open(
                self._sessions_key, exchange.call.session, exchange.identity.principal, server
            )


class FindGrant(Stage):
    """Look up the live grant for a sensitive tool."""

    name, controls = "consent", consent.CONTROLS

    def __init__(self, services: StageServices) -> None:
        self._grants = services.grants

    async def __call__(self, exchange: Exchange) -> None:
        call, identity = exchange.identified()
        if exchange.sensitive and call.name is not None:
            grant = self._grants.live(identity.principal, call.server, call.name, time.time())
            exchange.grant = grant.id if grant else None


class Authorise(Stage):
    """Let Cedar decide whether the caller may make this call."""

    name, controls = "policy", policy.CONTROLS

    def __init__(self, services: StageServices) -> None:
        self._policies = services.policies

    async def __call__(self, exchange: Exchange) -> None:
        call, identity = exchange.identified()
        exchange.data_class = self._policies.data_class(call.server, call.kind, call.name)
        exchange.decision = decision = self._policies.decide(
            identity, call, granted=exchange.grant is not None, address=exchange.address
        )
        if decision.reason == "no_grant":
            raise Refusal(
                "no_grant",
                "this tool is sensitive: another person must approve its use first; run: "
                f"ringfence grant request {call.server} {call.name} --for 30m --reason '…'",
            )
        if not decision.allowed:
            raise Refusal(decision.reason)


class CheckDefinition(Stage):
    """Refuse a tool that differs from its pin, and headers that differ from their arguments."""

    name, controls = "pins", pins.CONTROLS

    def __init__(self, services: StageServices) -> None:
        self._relays = services.relays

    async def __call__(self, exchange: Exchange) -> None:
        call, _ = exchange.identified()
        if call.method == "tools/call":
            assert call.name is not None
            judgement = await self._relays[call.server].catalogue.current()
            exchange.declared = judgement.tool(call.name).headers
            requests.param_headers(call, exchange.declared, exchange.headers)


class InspectArguments(Stage):
    """Search the arguments for personal data and secrets."""

    name, controls = "inspection", inspection.CONTROLS

    def __init__(self, services: StageServices) -> None:
        self._inspection = services.inspection
        self._enabled = services.configuration.inspection.arguments != "off"
        self._fingerprint: Callable[[Any], str] = services.recorder.audit.fingerprint

    async def __call__(self, exchange: Exchange) -> None:
        call, identity = exchange.identified()
        if "arguments" in call.params:
            exchange.arguments = self._fingerprint(call.params["arguments"])
        if not self._enabled:
            return
        inspected = await self._inspection.inspect_arguments(
            call.params,
            exchange.data_class or OWN_CLASS,
            size=len(exchange.body),
            source=f"principal {identity.principal}",
        )
        exchange.count(inspected.findings)
        if inspected.action == "block":
            exchange.treatment = "blocked"
            raise Refusal("arguments_withheld")
        if inspected.findings:
            exchange.treatment = "flagged"


class LimitRate(Stage):
    """Count the call against the limits of its caller."""

    name = "limits"

    def __init__(self, services: StageServices) -> None:
        self._limits = services.limits
        self._servers = services.configuration.servers

    async def __call__(self, exchange: Exchange) -> None:
        call, identity = exchange.identified()
        is_known = call.kind == "tool" and call.name in self._servers[call.server].tools
        tool = call.name if is_known else None
        self._limits.admit(identity.principal, call.server, tool, exchange.started)


class RecordDecision(Stage):
    """Record the decision first; without a record, no call is made."""

    name, controls = "audit", audit.CONTROLS

    def __init__(self, services: StageServices) -> None:
        self._recorder = services.recorder

    async def __call__(self, exchange: Exchange) -> Answer | None:
        call, _ = exchange.identified()
        if call.id is None and call.version == MODERN:
            # A notification of the current protocol has no effect, so no server gets it.
            self._recorder.conclude(exchange, 202)
            return Answer(202, EMPTY_HEADERS, b"")
        self._recorder.forward(exchange)
        return None


class Forward(Stage):
    """Send the call to its server once, and return the part of the answer the caller may see."""

    name, controls = "upstream", upstream.CONTROLS

    def __init__(self, services: StageServices) -> None:
        self._relays = services.relays

    async def __call__(self, exchange: Exchange) -> Answer:
        call, _ = exchange.identified()
        return await self._relays[call.server].forward(exchange)


STAGES: tuple[type[Stage], ...] = (
    ReadRequest,
    Authenticate,
    FindGrant,
    Authorise,
    CheckDefinition,
    InspectArguments,
    LimitRate,
    RecordDecision,
    Forward,
)


class Pipeline:
    """The stages of one version of the configuration."""

    def __init__(self, services: StageServices) -> None:
        self.stages = tuple(stage(services) for stage in STAGES)

    async def answer(self, exchange: Exchange) -> Answer:
        """Lead a call through the stages, each of them once. Raises `Refusal`."""
        for stage in self.stages:
            if (answer := await stage(exchange)) is not None:
                return answer
        raise AssertionError("the last stage answers")


def describe() -> str:
    """One line for each stage: number, name, controls, and what it does."""
    return "\n".join(
        f"{number}. {stage.name} ({', '.join(stage.controls) or 'none'}): {stage.__doc__}"
        for number, stage in enumerate(STAGES, 1)
    )
