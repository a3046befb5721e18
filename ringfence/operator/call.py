"""Lists or calls the tools of an MCP server as a principal, with the official MCP SDK."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from ringfence.identity.pki import Identity, named_principal, principal_identity
from ringfence.identity.state import StateError
from ringfence.manifest.model import Environment, Principal, Server
from ringfence.operator import transport
from ringfence.operator.errors import InputError, OperationError

SECONDS = 30
TOKEN_SECONDS = 300


def url_of(environment: Environment, server: Server) -> str:
    """Return the URL of a server: at the gateway, if there is one. Raises `InputError`."""
    if environment.gateway:
        return f"{transport.gateways(environment)[0].url}/{server.name}/mcp"
    return f"https://{transport.address(server.host)}:{server.port}/mcp"


def token_for(
    environment: Environment, principal: Principal, server: Server, identity: Identity
) -> str:
    """Issue an access token of the embedded issuer, bound to the identity's certificate."""
    # Only the extra `gateway` installs what it needs.
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


@asynccontextmanager
async def connect(
    environment: Environment, server: Server, principal: Principal
) -> AsyncIterator[Client]:
    """Open an MCP client of a server. Raises `OperationError` for every failure."""
    url = url_of(environment, server)
    identity = principal_identity(environment, principal)
    headers = {}
    if environment.gateway:
        token = token_for(environment, principal, server, identity)
        headers["Authorization"] = f"Bearer {token}"
    refusals: list[str] = []

    async def note(response: httpx2.Response) -> None:
        # The SDK keeps no status, so its error would not say that the gateway refused.
        if response.is_error:
            await response.aread()
            if reason := transport.refusal(response):
                refusals.append(reason)

    try:
        async with (
            httpx2.AsyncClient(
                verify=transport.tls_context(identity),
                trust_env=False,
                headers=headers,
                timeout=SECONDS,
                event_hooks={"response": [note]},
            ) as http,
            Client(streamable_http_client(url, http_client=http), cache=None) as client,
        ):
            yield client
    except Exception as error:
        if refusals:
            raise OperationError(f"{server.name} ({url}) refuses: {refusals[0]}") from error
        raise OperationError(_explanation(error, server, url)) from error


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--environment", type=Path, default="inventories/lab/environment.yaml")
    parser.add_argument(
        "--as", dest="principal", required=True, metavar="PRINCIPAL", help="the caller"
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
    # The SDK also logs what it raises.
    logging.disable(logging.CRITICAL)
    try:
        return asyncio.run(_run(args))
    except (InputError, StateError) as error:
        print(error, file=sys.stderr)
        return 2
    except OperationError as error:
        print(error, file=sys.stderr)
        return 1


async def _run(args: Namespace) -> int:
    environment = Environment.load(args.environment)
    server = environment.servers.get(args.server)
    if server is None:
        known = ", ".join(environment.servers)
        raise InputError(f"{environment.path} names no server {args.server!r}; it has: {known}")
    if not args.list and not args.tool:
        raise InputError("name a tool, or list them with --list")
    arguments = _object(args.arguments)
    principal = named_principal(environment, args.principal)
    async with connect(environment, server, principal) as client:
        if args.list:
            for tool in (await client.list_tools()).tools:
                summary = (tool.description or "").strip().partition("\n")[0]
                print(f"{tool.name:24}{summary}")
            return 0
        result = await client.call_tool(args.tool, arguments)
    for content in result.content:
        print(getattr(content, "text", None) or content.model_dump_json(exclude_none=True))
    return int(bool(result.is_error))


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"the tool's arguments are not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(
            'the tool\'s arguments must be a JSON object, such as \'{"timezone": "UTC"}\''
        )
    return value


def _explanation(error: BaseException, server: Server, url: str) -> str:
    place = f"{server.name} ({url})"
    for cause in transport.causes(error):
        if isinstance(cause, OperationError):
            return str(cause)
        if isinstance(cause, ssl.SSLError):
            return f"{place}: TLS failed: {cause.reason or cause}"
        if isinstance(cause, httpx2.TimeoutException):
            return f"{place} does not answer; does a flow lead there (network.flows)?"
        if isinstance(cause, MCPError):
            return f"{place} answers with an error: {cause}"
    for cause in transport.causes(error):
        if isinstance(cause, httpx2.TransportError):
            return f"{place} cannot be reached: {cause or type(cause).__name__}"
    return f"{place}: {type(error).__name__}: {error}"
