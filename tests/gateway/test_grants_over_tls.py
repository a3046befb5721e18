"""`ringfence grant` over mutual TLS 1.3, as HAProxy configures it, with servers on loopback."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ringfence.cli import main
from ringfence.gateway.consent.store import Grants
from ringfence.gateway.refusals import Refusal
from ringfence.identity import pki
from ringfence.manifest.model import Environment, Host
from ringfence.operator import grants, signer, transport

LAB = Path(__file__).parents[2] / "inventories" / "lab" / "environment.yaml"
ASK = ["request", "sqlite", "write_query", "--as", "carol", "--for", "5m"]


class Handler(BaseHTTPRequestHandler):
    """Handler of `/grants`; the TLS layer identifies the caller."""

    store: ClassVar[Grants]
    visitors: ClassVar[list[tuple[str, str]]]

    def do_GET(self) -> None:
        listed = self.store.listing(time.time(), self._visitor())
        self._answer(200, {"grants": [entry.as_json() for entry in listed]})

    def do_POST(self) -> None:
        self._visitor()
        document = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            event = self.store.accept(document, time.time())
        except Refusal as refusal:
            self._answer(refusal.status, {"error": {"message": refusal.message}})
        else:
            self._answer(201, event.as_json())

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _visitor(self) -> str:
        connection = self.connection
        assert isinstance(connection, ssl.SSLSocket)
        certificate = connection.getpeercert(binary_form=True)
        assert certificate
        visitor = self.store.roster.principal_of(certificate)
        self.visitors.append((visitor, connection.version() or ""))
        return visitor

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Return the lab's environment with one gateway, on loopback."""
    lab = Environment.load(shutil.copy(LAB, tmp_path / "environment.yaml"))
    address = IPv4Address("127.0.0.1")
    segment = lab.segments["clients"]
    edge = Host("edge-1", segment, frozenset({"edge"}), lab.domain, 22, address)
    others = {name: host for name, host in lab.hosts.items() if "edge" not in host.groups}
    environment = replace(lab, hosts={**others, "edge-1": edge})
    monkeypatch.setattr(grants.Environment, "load", lambda _: environment)
    return environment


@pytest.fixture
def visitors(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[tuple[str, str]]]:
    """Run a gateway, and yield the clients that connected, each with its TLS version."""
    authority = pki.authority_of(environment)
    facts = signer.roster_of(environment, authority.bundle.encode())

    class Edge(Handler):
        store = Grants(tmp_path / "grants", facts, 3600)
        visitors: ClassVar[list[tuple[str, str]]] = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Edge)
    server.socket = server_context(environment, tmp_path).wrap_socket(
        server.socket, server_side=True
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setattr(transport, "_port", lambda _: server.server_port)
    yield Edge.visitors
    server.shutdown()
    server.server_close()
    thread.join(5)


def server_context(environment: Environment, directory: Path) -> ssl.SSLContext:
    """Build a host's TLS context, as the role `tls` configures it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = pki.CertificateSubject.of_host(environment, environment.hosts["edge-1"])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject.distinguished_name)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    authority = pki.authority_of(environment)
    (directory / "host.crt").write_text(authority.sign_request(subject, request, 1))
    (directory / "host.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.bundle)
    context.load_cert_chain(directory / "host.crt", directory / "host.key")
    return context


def run(environment: Environment, *arguments: str) -> int:
    return main(["grant", *arguments, "--environment", str(environment.path)])


def test_a_grant_comes_about_between_two_people(
    environment: Environment,
    visitors: list[tuple[str, str]],
    capsys: pytest.CaptureFixture[str],
):
    assert run(environment, *ASK, "--reason", "a reason of some length") == 0
    id = capsys.readouterr().out.partition("ringfence grant approve ")[2].split()[0]
    assert run(environment, "approve", id, "--as", "dana") == 0
    assert run(environment, "list", "--as", "carol") == 0
    assert f"approved  {id}" in capsys.readouterr().out
    assert {version for _, version in visitors} == {"TLSv1.3"}
    assert [name for name, _ in visitors] == ["carol", "dana", "dana", "dana", "carol"]


def test_a_gateway_of_another_authority_is_not_told_anything(
    environment: Environment,
    visitors: list[tuple[str, str]],
    capsys: pytest.CaptureFixture[str],
):
    """The environment's state is replaced after the server took its certificate from it."""
    shutil.rmtree(environment.state)
    assert run(environment, *ASK, "--reason", "a reason of some length") == 1
    assert "edge-1  cannot be reached: TLS failed" in capsys.readouterr().err
    assert visitors == []


def test_a_gateway_that_does_not_know_the_authority_refuses(
    environment: Environment,
    visitors: list[tuple[str, str]],
):
    """The client trusts the server, but its certificate is from another authority."""
    trusted = pki.authority_of(environment).bundle
    shutil.rmtree(environment.state)
    identity = pki.principal_identity(environment, environment.principals["carol"])
    identity.authority.write_text(trusted)
    (answer,) = asyncio.run(transport.query(environment, identity, "grants"))
    assert not answer.ok
    # The TLS alert or the end of the connection, whichever arrives first.
    assert "TLS failed" in answer.text or "authority that it trusts" in answer.text
    assert visitors == []
