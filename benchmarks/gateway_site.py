"""A gateway for measurements and tests, started as its systemd unit starts it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jws, jwt
from joserfc.jwk import ECKey

from ringfence.gateway.pins import definitions as pins
from ringfence.gateway.tokens import access_tokens
from ringfence.identity.pki import Authority, CertificateSubject

ROOT = Path(__file__).parents[1]
RESOURCE = "https://gateway.test"
ISSUER = "https://issuer.test"
MODERN = "2026-07-28"
PRINCIPALS = {
    "carol": {"kind": "person", "owner": None, "roles": ["user"]},
    "dana": {"kind": "person", "owner": None, "roles": []},
    "mallory": {"kind": "person", "owner": None, "roles": []},
}
TOOLS = {
    "echo": {"data_class": "internal", "sensitive": False},
    "add": {"data_class": "public", "sensitive": False},
    "person": {"data_class": "confidential", "sensitive": False},
    "count": {"data_class": "confidential", "sensitive": False},
    "sleep": {"data_class": "internal", "sensitive": False},
    "delete_everything": {"data_class": "internal", "sensitive": True, "approvers": ["dana"]},
}
POLICIES = """\
@id("user/tools")
permit (
    principal in Ringfence::Role::"user",
    action in Ringfence::Action::"use",
    resource in Ringfence::Server::"tools"
);
@id("user/connect")
permit (
    principal in Ringfence::Role::"user",
    action in Ringfence::Action::"connect",
    resource == Ringfence::Server::"tools"
);
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(ready: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not come up"
        time.sleep(0.05)


def mcp(method: str, params: Mapping[str, Any] | None = None, *, id: Any = 1) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {
        "_meta": {**meta, **(params or {}).get("_meta", {})},
        **{key: value for key, value in (params or {}).items() if key != "_meta"},
    }
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def mcp_headers(document: Mapping[str, Any]) -> dict[str, str]:
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": MODERN,
        "mcp-method": document["method"],
    }
    params = document["params"]
    if (name := params.get("name") or params.get("uri")) is not None:
        headers["mcp-name"] = name
    return headers


@dataclass
class Person:
    """A principal with a client certificate."""

    name: str
    certificate: bytes
    """Certificate in DER."""
    chain: tuple[x509.Certificate, ...]
    key: ec.EllipticCurvePrivateKey

    def signed(self, typ: str, claims: Mapping[str, Any]) -> bytes:
        """Sign a document about a grant or about access."""
        der = serialization.Encoding.DER
        header = {
            "alg": "ES256",
            "typ": f"ringfence-{typ if '-' in typ else f'grant-{typ}'}+jwt",
            "x5c": [base64.b64encode(each.public_bytes(der)).decode() for each in self.chain],
        }
        issued = {
            "iss": f"urn:ringfence:test:principal:{self.name}",
            "aud": "urn:ringfence:test",
            "iat": int(time.time()),
        }
        pem = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        payload = json.dumps({**issued, **claims})
        return jws.serialize_compact(header, payload, ECKey.import_key(pem), ["ES256"]).encode()

    def header(self) -> dict[str, str]:
        return {"x-ringfence-client-certificate": base64.b64encode(self.certificate).decode()}


@dataclass
class Site:
    """A gateway: its directory and its process."""

    directory: Path
    authority: Authority
    key: ECKey
    document: dict[str, Any]
    socket: Path
    admin: Path
    process: subprocess.Popen[bytes] | None = None
    people: dict[str, Person] = field(default_factory=dict)

    def write(self) -> None:
        (self.directory / "gateway.json").write_text(json.dumps(self.document))

    def start(self) -> None:
        self.write()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ringfence.gateway", "serve", self.directory),
                *("--socket", self.socket, "--admin-socket", self.admin),
            ],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{self.directory}:{ROOT}"},
            stderr=(self.directory / "stderr").open("ab"),
        )
        wait_for(self.ready)

    def with_a_clock(self) -> None:
        """Give the process a clock that can be set; call this before `start`."""
        (self.directory / "offset").write_text("0")
        (self.directory / "sitecustomize.py").write_text(
            "import pathlib, time\n"
            f"offset, real = pathlib.Path({str(self.directory / 'offset')!r}), time.time\n"
            "time.time = lambda: real() + float(offset.read_text())\n"
        )

    def set_clock(self, seconds: float) -> None:
        """Set the clock ahead of the real time, or behind it if negative."""
        staged = self.directory / "offset.new"
        staged.write_text(str(seconds))
        staged.replace(self.directory / "offset")

    def ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "stderr").read_text()
        with contextlib.suppress(httpx2.TransportError):
            return self.ask_admin("/readyz").status_code == 200
        return False

    def process_reloads(self) -> None:
        """Reload the configuration and the definitions of tools; wait until this is done."""
        assert self.process is not None
        before = self.reloads()
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: self.reloads() > before)

    def reloads(self) -> float:
        lines = self.ask_admin("/metrics").text.splitlines()
        counted = [line for line in lines if line.startswith("ringfence_gateway_reloads_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in counted)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def ask_admin(self, path: str) -> httpx2.Response:
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(self.admin))) as client:
            return client.get(f"http://admin{path}")

    def client(self, **options: Any) -> httpx2.Client:
        transport = httpx2.HTTPTransport(uds=str(self.socket))
        return httpx2.Client(transport=transport, base_url="http://gateway.test", **options)

    def person(self, name: str) -> Person:
        if name not in self.people:
            key = ec.generate_private_key(ec.SECP256R1())
            subject = CertificateSubject("principal", "test", name, name)
            request = (
                x509.CertificateSigningRequestBuilder()
                .subject_name(subject.distinguished_name)
                .sign(key, hashes.SHA256())
                .public_bytes(serialization.Encoding.PEM)
                .decode()
            )
            pem = self.authority.sign_request(subject, request, 1)
            chain = tuple(x509.load_pem_x509_certificates(pem.encode()))
            der = chain[0].public_bytes(serialization.Encoding.DER)
            self.people[name] = Person(name, der, chain, key)
        return self.people[name]

    def token(self, name: str, server: str = "tools", **claims: Any) -> str:
        now = int(time.time())
        thumbprint = access_tokens.certificate_thumbprint(self.person(name).certificate)
        content = {
            "iss": ISSUER,
            "sub": name,
            "aud": f"{RESOURCE}/{server}/mcp",
            "scope": f"mcp:{server}",
            "iat": now,
            "exp": now + 600,
            "jti": secrets.token_hex(8),
            "cnf": {"x5t#S256": thumbprint},
        } | claims
        header = {"alg": "ES256", "typ": "at+jwt", "kid": "test"}
        return jwt.encode(header, content, self.key, algorithms=["ES256"])

    def headers(self, name: str, **claims: Any) -> dict[str, str]:
        return {
            "authorization": f"Bearer {self.token(name, **claims)}",
            **self.person(name).header(),
        }

    def post(
        self,
        document: Mapping[str, Any],
        *,
        as_: str = "carol",
        server: str = "tools",
        headers: Mapping[str, str] | None = None,
        timeout: float = 10,
    ) -> httpx2.Response:
        sent = {**mcp_headers(document), **self.headers(as_), **(headers or {})}
        with self.client(timeout=timeout) as client:
            return client.post(f"/{server}/mcp", json=document, headers=sent)

    def call(self, tool: str, arguments: Mapping[str, Any] | None = None, **options: Any):
        document = mcp("tools/call", {"name": tool, "arguments": arguments or {}})
        return self.post(document, **options)

    def events(self) -> list[dict[str, Any]]:
        """Return the events of the audit log."""
        lines = [
            line
            for path in sorted(Path(self.document["audit"]["directory"]).glob("*.jsonl"))
            for line in path.read_text().splitlines()
        ]
        return [json.loads(line) for line in lines]


def pinned(server: str, definitions: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "version": 1,
        "server": server,
        "tools": {
            each["name"]: {
                "sha256": pins.digest(each),
                "approved": {"by": "tester", "at": "2026-11-24T12:00:00Z"},
                "accepted": False,
                "definition": pins.definition_of(each),
            }
            for each in definitions
        },
    }


def definitions(port: int) -> list[dict[str, Any]]:
    document = mcp("tools/list")
    answer = httpx2.post(
        f"http://127.0.0.1:{port}/mcp", json=document, headers=mcp_headers(document)
    )
    return answer.json()["result"]["tools"]


def make_site(directory: Path, upstreams: Mapping[str, int]) -> Site:
    """Make the directory of a gateway; all `upstreams` have the tools of the test server."""
    authority = Authority.create(directory / "ca.crt", directory / "ca.key", "test", "test")
    (directory / "ca.crt").write_text(authority.bundle)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = CertificateSubject("host", "test", "edge-1", "edge-1.test", ("edge-1.test",))
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject.distinguished_name)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    (directory / "host.crt").write_text(authority.sign_request(subject, request, 1))
    for name, content in {
        "host.key": key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        "masking.key": secrets.token_bytes(32),
    }.items():
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o600)
    signing = ECKey.generate_key("P-256", {"kid": "test", "alg": "ES256", "use": "sig"})
    (directory / "jwks.json").write_text(json.dumps({"keys": [signing.as_dict(private=False)]}))
    (directory / "policies").mkdir()
    (directory / "policies/roles.cedar").write_text(POLICIES)
    schema = ROOT / "ringfence/gateway/policy/schema.cedarschema"
    (directory / "schema.cedarschema").write_text(schema.read_text())
    (directory / "pins").mkdir()
    for name in ("state/grants", "audit", "run"):
        (directory / name).mkdir(parents=True, mode=0o750)
    servers: dict[str, Any] = {}
    for name, port in upstreams.items():
        servers[name] = {
            "url": f"http://127.0.0.1:{port}/mcp",
            "protocols": [MODERN],
            "timeout_seconds": 5,
            "concurrency": 16,
            "calls_per_minute": 100000,
            "tools": deepcopy(TOOLS),
            "resources": {"notes://public/*": {"data_class": "internal"}},
            "prompts": {"review": {"data_class": "internal"}},
        }
    document = {
        "version": 1,
        "environment": "test",
        "stage": "staging",
        "resource": RESOURCE,
        "hosts": ["gateway.test"],
        "origins": ["https://allowed.test"],
        "responders": ["dana"],
        "tokens": {
            "issuers": [
                {
                    "issuer": ISSUER,
                    "jwks_file": "jwks.json",
                    "jwks_url": None,
                    "ca_file": None,
                    "algorithms": ["ES256"],
                    "principal_claim": "sub",
                }
            ],
            "ceiling_seconds": 900,
            "skew_seconds": 5,
            "sender_constraint": "certificate",
        },
        "principals": {
            name: {**facts, "uri": f"urn:ringfence:test:principal:{name}"}
            for name, facts in PRINCIPALS.items()
        },
        "roles": {"user": {"tools": {name: sorted(TOOLS) for name in upstreams}}},
        "servers": servers,
        "grants": {
            "ceiling_seconds": 3600,
            "directory": str(directory / "state/grants"),
            "authority_file": "ca.crt",
        },
        "inspection": {
            "classes": {
                "public": "flag",
                "internal": "redact",
                "confidential": "redact",
                "restricted": "block",
            },
            "mask": True,
            "key_file": "masking.key",
            "arguments": "flag",
        },
        "limits": {
            "body_bytes": 1 << 20,
            "result_bytes": 8 << 20,
            "depth": 64,
            "principal_calls_per_minute": 100000,
        },
        "audit": {"directory": str(directory / "audit"), "journal": False},
        "upstream": {
            "certificate_file": "host.crt",
            "key_file": "host.key",
            "authority_file": "ca.crt",
        },
    }
    run = directory / "run"
    site = Site(directory, authority, signing, document, run / "1.sock", run / "admin.sock")
    site.write()
    return site
