"""Calls tools as a principal: the official MCP SDK over mutual TLS 1.3.

The address comes from the manifest, the identity from the environment's authority; nothing is
taken from the caller's surroundings, neither proxies nor the system's trust store.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from ringfence.identity.pki import Identity, PkiError, named_principal, principal_identity
from ringfence.manifest.model import Environment, Principal, Server

SECONDS = 30
TOKEN_SECONDS = 300
LONGEST_REFUSAL = 500

REFUSALS = {
    400: "the request is not one that MCP allows",
    401: "the access token is missing, has expired, was revoked, or is of another gateway; "
    "compare the clocks, and apply the playbook where the issuer's keys have changed",
    403: "no role of this principal names one of its tools",
    404: "there is no such server, session or method",
    405: "this address does not take that HTTP method",
    406: "the client does not take the kinds of answer that MCP has",
    408: "the request did not arrive in time",
    409: "there is another one of that name already",
    413: "the request is too large",
    415: "the request is not JSON",
    421: "the gateway does not go by that name",
    429: "this principal calls more often than the server's limits allow",
    500: "the gateway failed; its log says why",
    502: "the server behind it answers something that MCP does not allow",
    503: "the server behind it does not answer",
    504: "the server behind it took too long",
}
"""What a status means where nothing else says so: of the TLS frontend and of the gateway."""


class CallError(Exception):
    """A call that did not come to a result, in one line."""


def url_of(environment: Environment, server: Server) -> str:
    """Of a server itself or, where there is one, at the gateway."""
    gateway = environment.gateway
    host = environment.group("edge")[0] if gateway else server.host
    if not host.addresses:
        raise CallError(f"host {host.name} has no address yet; provision it first")
    address = host.addresses[0]
    literal = address if address.version == 4 else f"[{address}]"
    if gateway:
        return f"https://{literal}:{gateway.port}/{server.name}/mcp"
    return f"https://{literal}:{server.port}/mcp"


def token_for(
    environment: Environment, principal: Principal, server: Server, identity: Identity
) -> str:
    """An access token of the embedded issuer, bound to the identity's certificate."""
    from ringfence.identity import issuer

    certificate = x509.load_pem_x509_certificates(identity.certificate.read_bytes())[0]
    return issuer.token(
        environment,
        principal,
        issuer.resource_url(environment, server),
        f"mcp:{server.name}",
        certificate=certificate.public_bytes(serialization.Encoding.DER),
        seconds=TOKEN_SECONDS,
        now=time.time(),
    )


def tls_context(identity: Identity) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(identity.authority))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(identity.certificate, identity.key)
    return context


@asynccontextmanager
async def connect(
    environment: Environment, server: Server, principal: Principal
) -> AsyncIterator[Client]:
    """An MCP client of a server. Raises `CallError` for whatever keeps it from a result."""
    url = url_of(environment, server)
    identity = principal_identity(environment, principal)
    headers = {}
    if environment.gateway:
        token = token_for(environment, principal, server, identity)
        headers["Authorization"] = f"Bearer {token}"
    refused: list[str] = []

    async def note(response: httpx2.Response) -> None:
        # The SDK keeps no status; without it a refusal at the door looks like any other error.
        if response.is_error:
            await response.aread()
            if said := refusal(response):
                refused.append(said)

    try:
        async with (
            httpx2.AsyncClient(
                verify=tls_context(identity),
                trust_env=False,
                headers=headers,
                timeout=SECONDS,
                event_hooks={"response": [note]},
            ) as http,
            Client(streamable_http_client(url, http_client=http), cache=None) as client,
        ):
            yield client
    except Exception as error:
        if refused:
            raise CallError(f"{server.name} ({url}) refuses: {refused[0]}") from error
        raise CallError(_explained(error, server, url)) from error


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--environment", type=Path, default="inventories/lab/environment.yaml")
    parser.add_argument(
        "--as", dest="principal", required=True, metavar="PRINCIPAL", help="who calls"
    )
    parser.add_argument("--list", action="store_true", help="list the server's tools")
    parser.add_argument("server", metavar="SERVER")
    parser.add_argument("tool", metavar="TOOL", nargs="?")
    parser.add_argument(
        "arguments",
        metavar="JSON",
        nargs="?",
        default="{}",
        help="the tool's arguments as a JSON object",
    )


def run(args: Namespace) -> int:
    # The SDK logs what is raised as well; one message is enough.
    logging.disable(logging.CRITICAL)
    try:
        return asyncio.run(_run(args))
    except (CallError, PkiError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, PkiError) else 1


async def _run(args: Namespace) -> int:
    environment = Environment.load(args.environment)
    server = environment.servers.get(args.server)
    if server is None:
        known = ", ".join(environment.servers)
        raise PkiError(f"{environment.path} names no server {args.server!r}; it has: {known}")
    if not args.list and not args.tool:
        raise PkiError("name a tool, or use --list to see them")
    given = _object(args.arguments)
    principal = named_principal(environment, args.principal)
    async with connect(environment, server, principal) as client:
        if args.list:
            for tool in (await client.list_tools()).tools:
                summary = (tool.description or "").strip().partition("\n")[0]
                print(f"{tool.name:24}{summary}")
            return 0
        result = await client.call_tool(args.tool, given)
    for content in result.content:
        print(getattr(content, "text", None) or content.model_dump_json(exclude_none=True))
    return int(bool(result.is_error))


def refusal(response: httpx2.Response) -> str | None:
    """Why an answer is none: in a gateway's own words where it says more than we know."""
    status = response.status_code
    # Which check a token failed a gateway tells its log alone.
    said = (None if status == 401 else _said(response)) or REFUSALS.get(status)
    return f"{said} (HTTP {status})" if said else None


def _said(response: httpx2.Response) -> str | None:
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return None
    known = isinstance(message, str) and message.isprintable() and len(message) <= LONGEST_REFUSAL
    return message if known else None


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise PkiError(f"the tool's arguments are not JSON: {error}") from error
    if not isinstance(value, dict):
        raise PkiError(
            'the tool\'s arguments must be a JSON object, such as \'{"timezone": "UTC"}\''
        )
    return value


def _explained(error: BaseException, server: Server, url: str) -> str:
    place = f"{server.name} ({url})"
    for cause in _causes(error):
        if isinstance(cause, CallError):
            return str(cause)
        if isinstance(cause, ssl.SSLError):
            return f"{place}: TLS failed: {cause.reason or cause}"
        if isinstance(cause, httpx2.TimeoutException):
            return f"{place} does not answer; is the way there open (network.flows)?"
        if isinstance(cause, MCPError):
            return f"{place} answers with an error: {cause}"
    for cause in _causes(error):
        if isinstance(cause, httpx2.TransportError):
            return f"{place} cannot be reached: {cause or type(cause).__name__}"
    return f"{place}: {type(error).__name__}: {error}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, the errors in it, and what caused each."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    for cause in (error.__cause__, error.__context__):
        if cause is not None:
            yield from _causes(cause)
