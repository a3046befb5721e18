"""Just-in-time grants, from the operator's side: ask, approve, revoke, list.

What is signed here with a principal's key is all that counts; a gateway only stores it. So what a
gateway shows is verified before it is displayed or approved, and whatever it says about a request
beyond the signed text is not believed. Approving and revoking send the request along: a gateway
that was away when it was made learns it then.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
import ssl
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from joserfc import jws
from joserfc.jwk import import_key

from ringfence.gateway.consent.documents import (
    APPROVAL,
    ID,
    REQUEST,
    REVOCATION,
    GrantApproval,
    GrantRequest,
    GrantRevocation,
    check_approval,
    check_request,
    check_revocation,
    verify,
)
from ringfence.gateway.jose.signed_documents import (
    KEY_TYPES,
    Member,
    Roster,
    algorithm_of,
    anchors,
)
from ringfence.gateway.refusals import Refusal
from ringfence.identity.pki import Identity, PkiError, named_principal, principal_identity
from ringfence.manifest.model import Environment, Host, Tool
from ringfence.operator.client import tls_context

SECONDS = 10
"""How long a gateway may take to answer."""
PORT = 443
MEDIA_TYPE = "application/jose"
"""RFC 7515, 9.2.1."""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
PATH = "grants"


class GrantError(Exception):
    """What was asked is not done, in one line."""


@dataclass(frozen=True)
class Gateway:
    name: str
    url: str

    @classmethod
    def of(cls, environment: Environment, host: Host) -> Gateway:
        if not host.addresses:
            raise PkiError(f"host {host.name} has no address yet; provision it first")
        address = host.addresses[0]
        literal = f"{address}" if address.version == 4 else f"[{address}]"
        return cls(host.name, f"https://{literal}:{_port(environment)}")


@dataclass(frozen=True)
class Outcome:
    """What a gateway said."""

    gateway: str
    good: bool
    text: str
    listed: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Signer:
    """A principal with its key."""

    name: str
    environment: Environment
    identity: Identity

    @classmethod
    def of(cls, environment: Environment, name: str) -> Signer:
        principal = named_principal(environment, name)
        return cls(name, environment, principal_identity(environment, principal))

    @property
    def facts(self) -> Roster:
        return facts_of(self.environment, self.identity.authority.read_bytes())

    def sign(self, typ: str, claims: Mapping[str, Any]) -> bytes:
        """A document by this principal, of now."""
        pem = self.identity.key.read_bytes()
        algorithm = algorithm_of(serialization.load_pem_private_key(pem, None).public_key())
        if algorithm is None:
            raise PkiError(f"{self.identity.key} is of a kind that signs no document")
        header = {
            "alg": algorithm,
            "typ": typ,
            "x5c": [
                base64.b64encode(c.public_bytes(serialization.Encoding.DER)).decode()
                for c in x509.load_pem_x509_certificates(self.identity.certificate.read_bytes())
            ],
        }
        facts = self.facts
        issuer = {"iss": facts.uri(self.name), "aud": facts.audience}
        payload = json.dumps({**issuer, "iat": int(time.time()), **claims})
        registry = jws.JWSRegistry(algorithms=[algorithm])
        key = import_key(pem, KEY_TYPES[algorithm])
        return jws.serialize_compact(header, payload, key, registry=registry).encode()

    def answer(self, typ: str, request: GrantRequest) -> bytes:
        """An approval or a revocation of a request."""
        return self.sign(typ, {"request_id": request.id, "request_digest": request.digest})


def facts_of(environment: Environment, authority: bytes) -> Roster:
    """What the gateways are told, from the manifest; `authority` is PEM."""
    return Roster(
        environment.name,
        anchors(authority),
        {name: Member(p.kind, p.owner) for name, p in environment.principals.items()},
        {
            (server.name, tool.name): frozenset(tool.approvers)
            for server in environment.servers.values()
            for tool in server.tools.values()
            if tool.sensitive
        },
        frozenset(environment.gateway.responders if environment.gateway else ()),
    )


def _port(environment: Environment) -> int:
    # A manifest may say nothing of the gateway itself.
    return getattr(getattr(environment, "gateway", None), "port", PORT)


def gateways(environment: Environment) -> tuple[Gateway, ...]:
    found = tuple(Gateway.of(environment, host) for host in environment.group("edge"))
    if not found:
        raise PkiError(f"{environment.path} names no host in the group edge, so it has no gateway")
    return found


def http_client(identity: Identity) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(verify=tls_context(identity), trust_env=False, timeout=SECONDS)


def arguments(parser: ArgumentParser) -> None:
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")

    request = steps.add_parser("request", help="ask for a sensitive tool, for a time")
    request.add_argument("server", metavar="SERVER")
    request.add_argument("tool", metavar="TOOL")
    request.add_argument(
        "--for", dest="seconds", required=True, type=seconds, metavar="TIME", help="30m, 1h, 90s"
    )
    request.add_argument("--reason", required=True, help="what for: one line, for who approves")

    approve = steps.add_parser("approve", help="say yes to somebody else's request")
    revoke = steps.add_parser("revoke", help="end a grant, or say no to a request")
    for step in (approve, revoke):
        step.add_argument("id", metavar="ID", type=_id, help="of the request")

    listing = steps.add_parser("list", help="show requests and grants")
    for step in (request, approve, revoke, listing):
        step.add_argument(
            "--as",
            dest="principal",
            required=step is not listing,
            metavar="PRINCIPAL",
            help="who does"
            if step is not listing
            else "who looks; otherwise all who can from here",
        )
        step.add_argument("--environment", type=Path, default="inventories/lab/environment.yaml")


def run(args: Namespace) -> int:
    try:
        environment = Environment.load(args.environment)
        return asyncio.run(_STEPS[args.step](args, environment))
    except (GrantError, PkiError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, PkiError) else 1


async def _request(args: Namespace, environment: Environment) -> int:
    signer = Signer.of(environment, args.principal)
    _check_tool(environment, args.principal, args.server, args.tool)
    start = int(time.time())
    document = signer.sign(
        REQUEST,
        {
            "jti": secrets.token_hex(16),
            "nbf": start,
            "exp": start + args.seconds,
            "server": args.server,
            "tool": args.tool,
            "reason": args.reason,
        },
    )
    facts = signer.facts
    try:
        request = verify(document, facts)
        assert isinstance(request, GrantRequest)
        check_request(request, facts, float("inf"), time.time())
    except Refusal as refusal:
        raise GrantError(refusal.message) from refusal
    outcomes = await send(environment, signer, document)
    if not any(o.good for o in outcomes):
        return told(outcomes, "no gateway has the request")
    status = told(outcomes, "approving sends it to the others as well")
    approvers = sorted(facts.eligible(request.principal, request.server, request.tool))
    print(f"{_summary(request)}\nto be approved by {' or '.join(approvers)}:")
    print(
        f"ringfence grant approve {request.id} --as {approvers[0]} --environment {args.environment}"
    )
    return status


async def _approve(args: Namespace, environment: Environment) -> int:
    signer = Signer.of(environment, args.principal)
    request, original = await _found(environment, signer, args.id)
    facts = signer.facts
    approval = signer.answer(APPROVAL, request)
    try:
        signed = verify(approval, facts)
        assert isinstance(signed, GrantApproval)
        check_approval(signed, request, facts, time.time())
        check_request(request, facts, float("inf"), time.time())
    except Refusal as refusal:
        may = sorted(facts.eligible(request.principal, request.server, request.tool))
        who = f"; who may: {', '.join(may)}" if refusal.reason in _NOT_THIS_PERSON else ""
        raise GrantError(f"{args.id}: {refusal.message}{who}") from refusal
    outcomes = await send(environment, signer, original, approval)
    status = told(outcomes, "run this again when the others answer")
    if any(o.good for o in outcomes):
        print(f"approved: {_summary(request)}")
    return status


async def _revoke(args: Namespace, environment: Environment) -> int:
    signer = Signer.of(environment, args.principal)
    request, original = await _found(environment, signer, args.id)
    revocation = signer.answer(REVOCATION, request)
    try:
        signed = verify(revocation, signer.facts)
        assert isinstance(signed, GrantRevocation)
        # Who approved it and is no approver any more is known to the gateways alone.
        check_revocation(signed, request, {signer.name}, signer.facts, time.time())
    except Refusal as refusal:
        raise GrantError(f"{args.id}: {refusal.message}") from refusal
    # A gateway that refuses the request has nothing of it to revoke, and says so.
    outcomes = await send(environment, signer, original, revocation, known=True)
    status = told(outcomes, "it may still be live on the others: run this again, or stop them")
    if any(o.good for o in outcomes):
        print(f"revoked: {_summary(request)}")
    return status


async def _list(args: Namespace, environment: Environment) -> int:
    directory = environment.state / "pki" / "principals"
    names = [args.principal] if args.principal else with_certificate(environment, directory)
    if not names:
        raise PkiError(f"no principal has a certificate in {directory}: say who looks, by --as")
    rows: dict[str, tuple[GrantRequest, dict[str, str]]] = {}
    status = 0
    for name in names:
        signer = Signer.of(environment, name)
        outcomes = await ask(environment, signer)
        for outcome in outcomes:
            if not outcome.good:
                status = 1
                print(f"{outcome.gateway}  {outcome.text}", file=sys.stderr)
            for request, _, state in _shown(outcome, signer.facts):
                rows.setdefault(request.id, (request, {}))[1][outcome.gateway] = state
        if status:
            break
    if not rows and not status:
        print("no requests, no grants")
    for request, states in sorted(rows.values(), key=lambda row: row[0].issued):
        state = (
            next(iter(states.values()))
            if len(set(states.values())) == 1
            else ", ".join(f"{state} on {gateway}" for gateway, state in states.items())
        )
        print(f"{state:9} {_summary(request)}")
    return status


_STEPS = {"request": _request, "approve": _approve, "revoke": _revoke, "list": _list}
_NOT_THIS_PERSON = {"self_approval", "own_agent", "approver_not_a_person", "not_an_approver"}


def _check_tool(environment: Environment, principal: str, server: str, tool: str) -> Tool:
    if server not in environment.servers:
        known = ", ".join(environment.servers)
        raise PkiError(f"{environment.path} names no server {server!r}; it has: {known}")
    tools = environment.servers[server].tools
    if tool not in tools:
        raise PkiError(f"server {server} has no tool {tool!r}; it has: {', '.join(tools)}")
    if not tools[tool].sensitive:
        raise GrantError(f"{server} {tool} is not sensitive: who may call it needs no grant")
    if (server, tool) not in environment.tools_of(environment.principals[principal]):
        raise GrantError(f"no role of {principal} names {server} {tool}: a grant would not help")
    return tools[tool]


async def _found(environment: Environment, signer: Signer, id: str) -> tuple[GrantRequest, bytes]:
    """A request as its signer signed it, from whichever gateway has it."""
    outcomes = await ask(environment, signer)
    if not any(o.good for o in outcomes):
        failures = "; ".join(f"{o.gateway} {o.text}" for o in outcomes)
        raise GrantError(f"no gateway can be asked for {id}: {failures}")
    found = {
        request.digest: (request, document)
        for outcome in outcomes
        for request, document, _ in _shown(outcome, signer.facts)
        if request.id == id
    }
    if not found:
        asked = ", ".join(o.gateway for o in outcomes if o.good)
        raise GrantError(
            f"{asked} shows {signer.name} no request {id}: there is none, it was put away after "
            f"its end, or {signer.name} is neither who asks nor an approver of the tool"
        )
    if len(found) > 1:
        raise GrantError(f"the gateways have different requests under {id}: have it asked again")
    return found.popitem()[1]


def _shown(outcome: Outcome, facts: Roster) -> Iterator[tuple[GrantRequest, bytes, str]]:
    """Requests in an answer whose signature verifies, their documents, and alleged states."""
    for entry in outcome.listed:
        document = str(entry.get("document", "")).encode()
        try:
            request = _verified(document, facts)
        except GrantError as error:
            print(f"{outcome.gateway}  shows a request that is none: {error}", file=sys.stderr)
            continue
        state = str(entry.get("state"))
        yield request, document, state if state.isalpha() else "unknown"


def _verified(document: bytes, facts: Roster) -> GrantRequest:
    try:
        request = verify(document, facts)
    except Refusal as refusal:
        raise GrantError(refusal.message) from refusal
    if not isinstance(request, GrantRequest):
        raise GrantError("it is an answer to one")
    # Whoever has a certificate may have signed it; it comes to a terminal.
    if not f"{request.server}{request.tool}{request.reason}".isprintable():
        raise GrantError("it has characters that cannot be shown")
    return request


async def ask(environment: Environment, signer: Signer, path: str = PATH) -> list[Outcome]:
    async with http_client(signer.identity) as http:
        return await asyncio.gather(*(_get(http, g, path) for g in gateways(environment)))


async def send(
    environment: Environment,
    signer: Signer,
    *documents: bytes,
    path: str = PATH,
    known: bool = False,
) -> list[Outcome]:
    """Send documents, in order, to every gateway. `known`: only the answer to the last counts."""
    async with http_client(signer.identity) as http:
        return await asyncio.gather(
            *(_post(http, g, path, documents, known) for g in gateways(environment))
        )


async def _get(http: httpx2.AsyncClient, gateway: Gateway, path: str) -> Outcome:
    url = f"{gateway.url}/{path}"
    try:
        response = await http.get(url)
        if response.status_code != 200:
            return Outcome(gateway.name, False, _refusal(response))
        listed = response.json()[path]
        return Outcome(
            gateway.name, True, "answers", tuple(each for each in listed if isinstance(each, dict))
        )
    except (httpx2.HTTPError, OSError) as error:
        return Outcome(gateway.name, False, _unreachable(error))
    except (ValueError, KeyError, TypeError):
        return Outcome(gateway.name, False, f"{url} answers something else than {path}")


async def _post(
    http: httpx2.AsyncClient,
    gateway: Gateway,
    path: str,
    documents: tuple[bytes, ...],
    known: bool,
) -> Outcome:
    url = f"{gateway.url}/{path}"
    response = None
    for document in documents:
        try:
            response = await http.post(url, content=document, headers={"Content-Type": MEDIA_TYPE})
        except (httpx2.HTTPError, OSError) as error:
            return Outcome(gateway.name, False, _unreachable(error))
        if response.status_code not in (200, 201) and not (known and document != documents[-1]):
            return Outcome(gateway.name, False, _refusal(response))
    try:
        new = response.json()["new"] if response is not None else None
    except (ValueError, KeyError, TypeError):
        new = None
    if not isinstance(new, bool):
        return Outcome(gateway.name, False, f"{url} answers something else than an event")
    return Outcome(gateway.name, True, "has stored it" if new else "has it already")


def _refusal(response: httpx2.Response) -> str:
    try:
        error = response.json()["error"]
        message = str(error["message"])
    except (ValueError, KeyError, TypeError):
        return f"refuses (HTTP {response.status_code})"
    return f"refuses: {message}" if message.isprintable() else "refuses"


def _unreachable(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return f"cannot be reached: TLS failed: {getattr(cause, 'reason', None) or cause}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.TimeoutException):
        return f"does not answer within {SECONDS} s; is the way there open (network.flows)?"
    if isinstance(error, httpx2.ReadError | httpx2.RemoteProtocolError):
        # With TLS 1.3 a client has finished its handshake when its certificate is looked at.
        return "closed the connection; is this certificate of the authority that it trusts?"
    return f"cannot be reached: {str(error) or type(error).__name__}"


def told(outcomes: list[Outcome], advice: str) -> int:
    """A line per gateway; exit status 1, and who has it, unless all do."""
    for outcome in outcomes:
        print(f"{outcome.gateway}  {outcome.text}", file=sys.stdout if outcome.good else sys.stderr)
    having = [o.gateway for o in outcomes if o.good]
    if len(having) == len(outcomes):
        return 0
    print(f"{', '.join(having) or 'no gateway'} has it; {advice}", file=sys.stderr)
    return 1


def with_certificate(environment: Environment, directory: Path) -> list[str]:
    return [name for name in environment.principals if (directory / f"{name}.crt").exists()]


def _summary(request: GrantRequest) -> str:
    start, end = (datetime.fromtimestamp(t, UTC) for t in (request.start, request.end))
    return (
        f"{request.id}  {request.principal}  {request.server} {request.tool}  "
        f"{start:%Y-%m-%d %H:%M} to {end:%H:%M} UTC  {request.reason}"
    )


def seconds(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if not match:
        raise ArgumentTypeError("a number and s, m, h or d, such as 30m")
    return int(match[1]) * UNITS[match[2]]


def _id(text: str) -> str:
    if not ID.fullmatch(text):
        raise ArgumentTypeError(
            "an id is 32 hexadecimal digits, as `ringfence grant list` shows it"
        )
    return text
