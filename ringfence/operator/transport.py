"""HTTPS to the gateways of an environment, as a principal: mutual TLS 1.3.

Addresses come from the manifest, and the identity from the environment's authority. Neither the
system's proxies nor its trust store are used.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from ringfence.identity.pki import Identity
from ringfence.manifest.model import HTTPS, Environment, Host
from ringfence.operator.errors import InputError

CONTROLS = ("DAT-03",)

SECONDS = 10
"""Time limit for the answer of a gateway."""
MEDIA_TYPE = "application/jose"
"""RFC 7515, 9.2.1."""
LONGEST_REFUSAL = 500

REFUSALS = {
    400: "the request is not one that MCP allows",
    401: "the access token is missing, has expired, was revoked, or is for another gateway; "
    "compare the clocks, and apply the playbook if the issuer's keys have changed",
    403: "no role of this principal names one of the server's tools",
    404: "there is no such server, session or method",
    405: "this address does not accept that HTTP method",
    406: "the client does not accept the media types of MCP",
    408: "the request did not arrive in time",
    409: "a resource with this name already exists",
    413: "the request is too large",
    415: "the request is not JSON",
    421: "the gateway does not serve this host name",
    429: "this principal calls more often than the server's limits allow",
    500: "the gateway failed; its log says why",
    502: "the MCP server gave an answer that MCP does not allow",
    503: "the MCP server does not answer",
    504: "the MCP server took too long",
}
"""Explanations of a status that comes without a message, from the gateway or its TLS frontend."""


@dataclass(frozen=True)
class GatewayEndpoint:
    """The gateway on one host."""

    name: str
    url: str

    @classmethod
    def on(cls, host: Host, environment: Environment) -> GatewayEndpoint:
        return cls(host.name, f"https://{address(host)}:{_port(environment)}")


@dataclass(frozen=True)
class GatewayAnswer:
    """The answer of one gateway, or why there is none."""

    gateway: str
    ok: bool
    text: str
    entries: tuple[Mapping[str, Any], ...] = ()


def address(host: Host) -> str:
    """Return the first address of a host, as a URL has it. Raises `InputError`."""
    if not host.addresses:
        raise InputError(f"host {host.name} has no address yet; provision it first")
    first = host.addresses[0]
    return f"{first}" if first.version == 4 else f"[{first}]"


def _port(environment: Environment) -> int:
    return environment.gateway.port if environment.gateway else HTTPS


def gateways(environment: Environment) -> tuple[GatewayEndpoint, ...]:
    found = tuple(GatewayEndpoint.on(host, environment) for host in environment.group("edge"))
    if not found:
        raise InputError(f"{environment.path} names no host in group edge, so it has no gateway")
    return found


def tls_context(identity: Identity) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(identity.authority))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(identity.certificate, identity.key)
    return context


def http_client(identity: Identity) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(verify=tls_context(identity), trust_env=False, timeout=SECONDS)


async def query(environment: Environment, identity: Identity, path: str) -> list[GatewayAnswer]:
    """Get the entries at a path from every gateway."""
    async with http_client(identity) as http:
        return await asyncio.gather(*(_get(http, g, path) for g in gateways(environment)))


async def send(
    environment: Environment,
    identity: Identity,
    path: str,
    *documents: bytes,
    only_last: bool = False,
) -> list[GatewayAnswer]:
    """Send signed documents, in order, to every gateway.

    With `only_last`, a gateway may refuse any but the last: it has them already.
    """
    async with http_client(identity) as http:
        return await asyncio.gather(
            *(_post(http, g, path, documents, only_last) for g in gateways(environment))
        )


def report(answers: list[GatewayAnswer], advice: str) -> int:
    """Print a line per gateway. Return 1, and print who stored it and `advice`, unless all did."""
    for answer in answers:
        print(f"{answer.gateway}  {answer.text}", file=sys.stdout if answer.ok else sys.stderr)
    having = [answer.gateway for answer in answers if answer.ok]
    if len(having) == len(answers):
        return 0
    print(f"{', '.join(having) or 'no gateway'} has it; {advice}", file=sys.stderr)
    return 1


def refusal(response: httpx2.Response) -> str | None:
    """Return why a response is not a result, in the gateway's words unless ours say more."""
    status = response.status_code
    # The gateway reports only to its log which check a token failed.
    reason = (None if status == 401 else _message(response)) or REFUSALS.get(status)
    return f"{reason} (HTTP {status})" if reason else None


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, the errors in its group, and their causes."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from causes(inner)
    for cause in (error.__cause__, error.__context__):
        if cause is not None:
            yield from causes(cause)


async def _get(http: httpx2.AsyncClient, gateway: GatewayEndpoint, path: str) -> GatewayAnswer:
    url = f"{gateway.url}/{path}"
    try:
        response = await http.get(url)
        if response.status_code != 200:
            return _refused(gateway, response)
        entries = response.json()[path]
        return GatewayAnswer(
            gateway.name, True, "answers", tuple(each for each in entries if isinstance(each, dict))
        )
    except (httpx2.HTTPError, OSError) as error:
        return GatewayAnswer(gateway.name, False, _unreachable(error))
    except (ValueError, KeyError, TypeError):
        return GatewayAnswer(gateway.name, False, f"{url} does not answer with {path}")


async def _post(
    http: httpx2.AsyncClient,
    gateway: GatewayEndpoint,
    path: str,
    documents: tuple[bytes, ...],
    only_last: bool,
) -> GatewayAnswer:
    url = f"{gateway.url}/{path}"
    response = None
    for number, document in enumerate(documents, 1):
        try:
            response = await http.post(url, content=document, headers={"Content-Type": MEDIA_TYPE})
        except (httpx2.HTTPError, OSError) as error:
            return GatewayAnswer(gateway.name, False, _unreachable(error))
        counts = number == len(documents) or not only_last
        if response.status_code not in (200, 201) and counts:
            return _refused(gateway, response)
    try:
        new = response.json()["new"] if response is not None else None
    except (ValueError, KeyError, TypeError):
        new = None
    if not isinstance(new, bool):
        return GatewayAnswer(gateway.name, False, f"{url} does not answer with an event")
    return GatewayAnswer(gateway.name, True, "has stored it" if new else "has it already")


def _refused(gateway: GatewayEndpoint, response: httpx2.Response) -> GatewayAnswer:
    reason = refusal(response) or f"HTTP {response.status_code}"
    return GatewayAnswer(gateway.name, False, f"refuses: {reason}")


def _message(response: httpx2.Response) -> str | None:
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return None
    usable = isinstance(message, str) and message.isprintable() and len(message) <= LONGEST_REFUSAL
    return message if usable else None


def _unreachable(error: Exception) -> str:
    for cause in causes(error):
        if isinstance(cause, ssl.SSLError):
            return f"cannot be reached: TLS failed: {getattr(cause, 'reason', None) or cause}"
    if isinstance(error, httpx2.TimeoutException):
        return f"does not answer within {SECONDS} s; does a flow lead there (network.flows)?"
    if isinstance(error, httpx2.ReadError | httpx2.RemoteProtocolError):
        # In TLS 1.3 the server verifies the client's certificate after the client's handshake.
        return "closed the connection; is this certificate from the authority that it trusts?"
    return f"cannot be reached: {str(error) or type(error).__name__}"
