"""Just-in-time grants, from the operator's side: request, approve, revoke, list.

Only a document signed with a principal's key has effect; a gateway merely stores it. So a request
from a gateway is verified before it is displayed or approved, and nothing beyond its signed text is
trusted. Approving and revoking send the request too, since a gateway may have missed it.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

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
from ringfence.gateway.jose.signed_documents import Roster
from ringfence.gateway.refusals import Refusal
from ringfence.identity.state import StateError
from ringfence.manifest.model import Environment
from ringfence.operator.durations import seconds
from ringfence.operator.errors import InputError, OperationError
from ringfence.operator.signer import Signer, signers_on_this_machine
from ringfence.operator.transport import GatewayAnswer, query, report, send

PATH = "grants"


def arguments(parser: ArgumentParser) -> None:
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")

    request = steps.add_parser("request", help="request the use of a sensitive tool for a time")
    request.add_argument("server", metavar="SERVER")
    request.add_argument("tool", metavar="TOOL")
    request.add_argument(
        "--for", dest="seconds", required=True, type=seconds, metavar="TIME", help="30m, 1h, 90s"
    )
    request.add_argument("--reason", required=True, help="one line for the approver")

    approve = steps.add_parser("approve", help="approve the request of another person")
    revoke = steps.add_parser("revoke", help="end a grant, or refuse a request")
    for step in (approve, revoke):
        step.add_argument("id", metavar="ID", type=_id, help="of the request")

    listing = steps.add_parser("list", help="show requests and grants")
    for step in (request, approve, revoke, listing):
        step.add_argument(
            "--as",
            dest="principal",
            required=step is not listing,
            metavar="PRINCIPAL",
            help="the acting principal"
            if step is not listing
            else "the viewer (default: every principal with a certificate here)",
        )
        step.add_argument("--environment", type=Path, default="inventories/lab/environment.yaml")


def run(args: Namespace) -> int:
    try:
        environment = Environment.load(args.environment)
        return asyncio.run(_STEPS[args.step](args, environment))
    except (InputError, StateError) as error:
        print(error, file=sys.stderr)
        return 2
    except OperationError as error:
        print(error, file=sys.stderr)
        return 1


async def _request(args: Namespace, environment: Environment) -> int:
    signer = Signer.named(args.principal, environment)
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
    roster = signer.roster
    try:
        request = verify(document, roster)
        assert isinstance(request, GrantRequest)
        check_request(request, roster, float("inf"), time.time())
    except Refusal as refusal:
        raise OperationError(refusal.message) from refusal
    answers = await send(environment, signer.identity, PATH, document)
    if not any(answer.ok for answer in answers):
        return report(answers, "run this again when one answers")
    status = report(answers, "an approval sends it to the others as well")
    approvers = sorted(roster.eligible(request.principal, request.server, request.tool))
    print(f"{_summary(request)}\nto be approved by {' or '.join(approvers)}:")
    print(
        f"ringfence grant approve {request.id} --as {approvers[0]} --environment {args.environment}"
    )
    return status


async def _approve(args: Namespace, environment: Environment) -> int:
    signer = Signer.named(args.principal, environment)
    request, original = await _find(environment, signer, args.id)
    roster = signer.roster
    approval = signer.sign(APPROVAL, _reference(request))
    try:
        signed = verify(approval, roster)
        assert isinstance(signed, GrantApproval)
        check_approval(signed, request, roster, time.time())
        check_request(request, roster, float("inf"), time.time())
    except Refusal as refusal:
        eligible = sorted(roster.eligible(request.principal, request.server, request.tool))
        hint = f"; approvers: {', '.join(eligible)}" if refusal.reason in _WRONG_APPROVER else ""
        raise OperationError(f"{args.id}: {refusal.message}{hint}") from refusal
    answers = await send(environment, signer.identity, PATH, original, approval)
    status = report(answers, "run this again when the others answer")
    if any(answer.ok for answer in answers):
        print(f"approved: {_summary(request)}")
    return status


async def _revoke(args: Namespace, environment: Environment) -> int:
    signer = Signer.named(args.principal, environment)
    request, original = await _find(environment, signer, args.id)
    revocation = signer.sign(REVOCATION, _reference(request))
    try:
        signed = verify(revocation, signer.roster)
        assert isinstance(signed, GrantRevocation)
        # Only gateways know whether the signer approved it and is no longer an approver.
        check_revocation(signed, request, {signer.name}, signer.roster, time.time())
    except Refusal as refusal:
        raise OperationError(f"{args.id}: {refusal.message}") from refusal
    # A gateway that refuses the request has no grant of it to revoke.
    answers = await send(environment, signer.identity, PATH, original, revocation, only_last=True)
    status = report(answers, "it may still be in force on the others: run this again, or stop them")
    if any(answer.ok for answer in answers):
        print(f"revoked: {_summary(request)}")
    return status


async def _list(args: Namespace, environment: Environment) -> int:
    names = [args.principal] if args.principal else signers_on_this_machine(environment)
    rows: dict[str, tuple[GrantRequest, dict[str, str]]] = {}
    status = 0
    for name in names:
        signer = Signer.named(name, environment)
        for answer in await query(environment, signer.identity, PATH):
            if not answer.ok:
                status = 1
                print(f"{answer.gateway}  {answer.text}", file=sys.stderr)
            for request, _, state in _requests(answer, signer.roster):
                rows.setdefault(request.id, (request, {}))[1][answer.gateway] = state
        if status:
            break
    if not rows and not status:
        print("there are no requests and no grants")
    for request, states in sorted(rows.values(), key=lambda row: row[0].issued):
        state = (
            next(iter(states.values()))
            if len(set(states.values())) == 1
            else ", ".join(f"{state} on {gateway}" for gateway, state in states.items())
        )
        print(f"{state:9} {_summary(request)}")
    return status


_STEPS = {"request": _request, "approve": _approve, "revoke": _revoke, "list": _list}
_WRONG_APPROVER = {"self_approval", "own_agent", "approver_not_a_person", "not_an_approver"}


def _check_tool(environment: Environment, principal: str, server: str, tool: str) -> None:
    """Refuse a request that no approval could make useful."""
    if server not in environment.servers:
        known = ", ".join(environment.servers)
        raise InputError(f"{environment.path} names no server {server!r}; it has: {known}")
    tools = environment.servers[server].tools
    if tool not in tools:
        raise InputError(f"server {server} has no tool {tool!r}; it has: {', '.join(tools)}")
    if not tools[tool].sensitive:
        raise OperationError(f"{server} {tool} is not sensitive; no grant is needed to call it")
    if (server, tool) not in environment.tools_of(environment.principals[principal]):
        raise OperationError(
            f"no role of {principal} names {server} {tool}; a grant would have no effect"
        )


async def _find(environment: Environment, signer: Signer, id: str) -> tuple[GrantRequest, bytes]:
    """Return a request and its signed document from any gateway that has it."""
    answers = await query(environment, signer.identity, PATH)
    if not any(answer.ok for answer in answers):
        failures = "; ".join(f"{answer.gateway} {answer.text}" for answer in answers)
        raise OperationError(f"no gateway answers about {id}: {failures}")
    found = {
        request.digest: (request, document)
        for answer in answers
        for request, document, _ in _requests(answer, signer.roster)
        if request.id == id
    }
    if not found:
        names = ", ".join(answer.gateway for answer in answers if answer.ok)
        raise OperationError(
            f"{names} shows {signer.name} no request {id}: it does not exist, it was removed after "
            f"its end, or {signer.name} is neither its requester nor an approver of the tool"
        )
    if len(found) > 1:
        raise OperationError(f"the gateways have different requests with id {id}; request again")
    return found.popitem()[1]


def _requests(answer: GatewayAnswer, roster: Roster) -> Iterator[tuple[GrantRequest, bytes, str]]:
    """Yield the requests in an answer that verify, their documents, and alleged states."""
    for entry in answer.entries:
        document = str(entry.get("document", "")).encode()
        try:
            request = _verify(document, roster)
        except OperationError as error:
            print(f"{answer.gateway}  shows an invalid request: {error}", file=sys.stderr)
            continue
        state = str(entry.get("state"))
        yield request, document, state if state.isalpha() else "unknown"


def _verify(document: bytes, roster: Roster) -> GrantRequest:
    try:
        request = verify(document, roster)
    except Refusal as refusal:
        raise OperationError(refusal.message) from refusal
    if not isinstance(request, GrantRequest):
        raise OperationError("it is not a request")
    # Anybody with a certificate may have signed it, and it is printed on a terminal.
    if not f"{request.server}{request.tool}{request.reason}".isprintable():
        raise OperationError("it contains control characters")
    return request


def _reference(request: GrantRequest) -> dict[str, str]:
    """Return the claims of an approval or revocation that identify its request."""
    return {"request_id": request.id, "request_digest": request.digest}


def _summary(request: GrantRequest) -> str:
    start, end = (datetime.fromtimestamp(t, UTC) for t in (request.start, request.end))
    return (
        f"{request.id}  {request.principal}  {request.server} {request.tool}  "
        f"{start:%Y-%m-%d %H:%M} to {end:%H:%M} UTC  {request.reason}"
    )


def _id(text: str) -> str:
    if not ID.fullmatch(text):
        raise ArgumentTypeError(
            "an id is 32 hexadecimal digits, as `ringfence grant list` shows it"
        )
    return text
