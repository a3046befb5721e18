"""Requests to a running gateway, as its TLS frontend forwards them.

Requests go to the gateway process over its Unix socket on the host; other checks cover handshakes
with the frontend. A request carries the public certificate of a caller and a token that is bound to
it and valid for one minute. No private key of a person leaves this machine.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ringfence.identity import issuer
from ringfence.identity.pki import CertificateSubject, principal_identity
from ringfence.inventory import mcp_gateway
from ringfence.manifest.model import Environment, Gateway, Principal, Server, Tool
from ringfence.report import UnverifiedError
from ringfence.verify import probes
from ringfence.verify.targets import Target

VERSION = "2026-07-28"
TOKEN_SECONDS = 60


@dataclass(frozen=True)
class ProbeAnswer:
    status: int
    """HTTP status; 0 if there is no answer."""
    text: str
    request_id: str

    @property
    def document(self) -> dict[str, Any]:
        """JSON-RPC message of the answer; the last one of an event stream."""
        lines = [line[5:] for line in self.text.splitlines() if line.startswith("data:")]
        try:
            found = json.loads(lines[-1] if lines else self.text)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def code(self) -> int | None:
        """Return the code of a JSON-RPC error."""
        return self.document.get("error", {}).get("code")


@dataclass(frozen=True)
class ProbeRequest:
    principal: Principal
    server: Server
    body: bytes
    headers: Mapping[str, str]
    token: str | None = None
    """A token to send in place of a valid one."""
    query: str = ""


def message(method: str, **params: Any) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta, **params}}


def request(
    principal: Principal,
    server: Server,
    document: Mapping[str, Any],
    *,
    token: str | None = None,
    **headers: str,
) -> ProbeRequest:
    """Return a well-formed request. `headers` (with _ for -) replace those of the document."""
    own = {
        "mcp-protocol-version": VERSION,
        "mcp-method": document["method"],
        **({"mcp-name": document["params"]["name"]} if "name" in document["params"] else {}),
    }
    own |= {name.replace("_", "-"): value for name, value in headers.items()}
    return ProbeRequest(principal, server, json.dumps(document).encode(), own, token)


class ProbeClient:
    """Sends requests to the gateway processes on one host."""

    def __init__(self, environment: Environment, host: Target) -> None:
        if environment.gateway is None:
            raise UnverifiedError("the manifest declares no gateway")
        self.environment, self.host = environment, host
        self.gateway: Gateway = environment.gateway

    def send(self, *requests: ProbeRequest) -> list[ProbeAnswer]:
        """Return an answer per request; the processes take turns."""
        identifiers = [str(uuid4()) for _ in requests]
        payload = [
            {
                "socket": f"{mcp_gateway.SOCKETS}/{number % self.gateway.processes + 1}.sock",
                "bytes": base64.b64encode(self._raw(each, identifier)).decode(),
            }
            for number, (each, identifier) in enumerate(zip(requests, identifiers, strict=True))
        ]
        done = self.host.run(
            "python3 -c %s %s", probes.source("unix_requests"), json.dumps(payload)
        )
        if done.rc:
            raise UnverifiedError(
                f"requests could not be sent on {self.host}: {done.stderr[-300:]}"
            )
        return [
            ProbeAnswer(answer["status"], answer["text"], identifier)
            for answer, identifier in zip(json.loads(done.stdout), identifiers, strict=True)
        ]

    def token(
        self,
        principal: Principal,
        server: Server,
        *,
        seconds: int = TOKEN_SECONDS,
        audience: Server | None = None,
        bound: bool = True,
    ) -> str:
        """Sign a token with the embedded issuer's key, even one that the issuer would not issue."""
        if self.gateway.tokens.issuers:
            raise UnverifiedError("tokens come from an identity provider, which issues none here")
        now = int(time.time())
        claims = {
            "iss": issuer.issuer_url(self.environment),
            "sub": principal.name,
            "client_id": principal.name,
            "aud": issuer.resource_url(self.environment, audience or server),
            "scope": f"mcp:{server.name}",
            "iat": now,
            "exp": now + seconds,
            "jti": secrets.token_urlsafe(16),
        }
        if bound:
            claims["cnf"] = {"x5t#S256": _thumbprint(self._certificate(principal))}
        return issuer.signed(self.environment, claims, now)

    def _certificate(self, principal: Principal) -> bytes:
        identity = principal_identity(self.environment, principal)
        leaf = x509.load_pem_x509_certificates(identity.certificate.read_bytes())[0]
        return leaf.public_bytes(Encoding.DER)

    def _raw(self, request: ProbeRequest, identifier: str) -> bytes:
        own = mcp_gateway.names(self.environment, self.gateway, self.host.manifest)[0]
        subject = CertificateSubject.of_principal(self.environment, request.principal)
        token = request.token or self.token(request.principal, request.server)
        headers = {
            "host": own,
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "content-length": str(len(request.body)),
            "connection": "close",
            "authorization": f"Bearer {token}",
            "x-ringfence-client-certificate": base64.b64encode(
                self._certificate(request.principal)
            ).decode(),
            "x-ringfence-client-subject": subject.distinguished_name.rfc4514_string(),
            "x-ringfence-client-address": "127.0.0.1",
            "x-ringfence-request-id": identifier,
            **request.headers,
        }
        lines = [f"POST /{request.server.name}/mcp{request.query} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + request.body


def listings(environment: Environment) -> Iterator[tuple[Principal, Server, frozenset[str]]]:
    """Yield each principal and server with the tools that the principal may list."""
    for principal in environment.principals.values():
        for server in modern(environment):
            granted = environment.tools_of(principal)
            names = frozenset(tool for name, tool in granted if name == server.name)
            if names:
                yield principal, server, names


def withheld(environment: Environment) -> Iterator[tuple[Principal, Server, Tool]]:
    """Yield for each principal and server one tool that no role of the principal names."""
    for principal in environment.principals.values():
        for server in modern(environment):
            for tool in server.tools.values():
                pair = (server.name, tool.name)
                if pair not in environment.tools_of(principal) and not tool.sensitive:
                    yield principal, server, tool
                    break


def sensitive(environment: Environment) -> Iterator[tuple[Principal, Server, Tool]]:
    """Yield principals with the sensitive tools that they may call under a grant."""
    for principal, server, names in listings(environment):
        for name in sorted(names):
            if server.tools[name].sensitive:
                yield principal, server, server.tools[name]


def modern(environment: Environment) -> Sequence[Server]:
    return [each for each in environment.servers.values() if VERSION in each.protocols]


def _thumbprint(certificate: bytes) -> str:
    """Return `x5t#S256` (RFC 8705)."""
    from cryptography.hazmat.primitives.hashes import SHA256

    digest = x509.load_der_x509_certificate(certificate).fingerprint(SHA256())
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
