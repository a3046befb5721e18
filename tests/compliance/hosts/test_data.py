"""Protection of data in transit (DAT)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509

from ringfence.identity.pki import CertificateSubject, authority_files, open_authority
from ringfence.identity.state import StateError
from ringfence.manifest.model import Environment, Server
from ringfence.report import not_applicable
from ringfence.verify import probes
from ringfence.verify.targets import Target

PKI = "/etc/ringfence/pki"
FRONTEND = "/etc/haproxy/ringfence/$SERVER.cfg"
GATEWAY = "/etc/haproxy/ringfence/gateway.cfg"
RELOAD = "systemctl reload haproxy && sleep 0.5"


def frontend_sabotage(expression: str, file: str = FRONTEND) -> pytest.MarkDecorator:
    """Return a sabotage that changes a frontend of HAProxy."""
    return pytest.mark.sabotage(
        f"cp -p {file} /root/.sabotage && sed -i -e '{expression}' {file} && {RELOAD}",
        restore=f"mv /root/.sabotage {file} && {RELOAD}",
    )


def frontend(host: Target, server: Server) -> dict[str, Any]:
    """Return answers of a server's TLS frontend to several kinds of callers, requested once."""
    return answers_at(host, server.port)


def gateway(host: Target, environment: Environment) -> dict[str, Any]:
    """Return the answers of the gateway's TLS frontend."""
    if environment.gateway is None:
        not_applicable("the manifest declares no gateway")
    return answers_at(host, environment.gateway.port)


def answers_at(host: Target, port: int) -> dict[str, Any]:
    address = str(host.manifest.addresses[0])
    tried = host.once("python3 -c %s server %s %s", probes.source("handshakes"), address, str(port))
    assert tried.succeeded, f"handshakes could not be tried: {tried.stderr.strip()[-400:]}"
    return json.loads(tried.stdout)


@pytest.mark.control("DAT-03")
@pytest.mark.hosts("mcp_servers")
@pytest.mark.sabotage("systemctl stop haproxy", restore="systemctl start haproxy && sleep 0.5")
def test_server_answers_over_mutual_tls_1_3(host: Target, server: Server) -> None:
    """If valid callers are refused, people will open another path."""
    answer = frontend(host, server)["current"]
    assert answer.startswith("HTTP/"), (
        f"{server.name} answers {answer!r} over TLS 1.3 with a certificate of the authority; "
        "apply role tls"
    )


@pytest.mark.control("DAT-03")
@pytest.mark.hosts("mcp_servers")
@frontend_sabotage("s/verify required/& ssl-min-ver TLSv1.2/")
def test_older_tls_is_refused(host: Target, server: Server) -> None:
    """TLS 1.2 allows key exchanges after which recorded traffic can be read once a key leaks."""
    seen = frontend(host, server)
    assert seen["current"].startswith("HTTP/"), (
        f"{server.name} does not offer TLS 1.3; apply role tls"
    )
    assert seen["older"].startswith("TLS: "), (
        f"{server.name} answers {seen['older']!r} over TLS 1.2; apply role tls"
    )


@pytest.mark.control("DAT-03")
@pytest.mark.hosts("mcp_servers")
@frontend_sabotage("s/verify required/verify optional/")
def test_caller_without_certificate_is_refused(host: Target, server: Server) -> None:
    """A caller must be authenticated before the first byte of a request is read."""
    seen = frontend(host, server)
    assert seen["current"].startswith("HTTP/"), (
        f"{server.name} does not offer TLS 1.3; apply role tls"
    )
    assert seen["anonymous"].startswith("TLS: "), (
        f"{server.name} answers {seen['anonymous']!r} to a caller without a certificate; "
        "apply role tls"
    )


@pytest.mark.control("DAT-03")
@pytest.mark.hosts("mcp_servers")
@frontend_sabotage("/deny_status 403 unless/d")
def test_host_is_no_caller(host: Target, server: Server) -> None:
    """A compromised host has a certificate of the authority, but is no principal."""
    answer = frontend(host, server)["current"]
    assert answer.startswith("HTTP/1.1 403"), (
        f"{server.name} answers {answer!r} to the certificate of a host; apply role tls"
    )


@pytest.mark.control("DAT-03")
@pytest.mark.hosts("mcp_servers")
@frontend_sabotage("s/verify required/& curves P-256/")
def test_key_exchange_is_post_quantum(host: Target, server: Server) -> None:
    """A future quantum computer can decrypt traffic that is recorded today."""
    seen = frontend(host, server)
    assert seen["current"].startswith("HTTP/"), (
        f"{server.name} does not offer TLS 1.3; apply role tls"
    )
    if not seen["post_quantum"]:
        not_applicable("OpenSSL of this release has no post-quantum key exchange; 3.5 has")
    assert "MLKEM" in seen["group"], (
        f"{server.name} negotiates key exchange {seen['group']}; apply role tls"
    )


@pytest.mark.control("DAT-03")
@pytest.mark.hosts("edge")
@frontend_sabotage("s/verify [a-z]*/& ssl-min-ver TLSv1.2/", GATEWAY)
def test_gateway_refuses_older_tls(host: Target, environment: Environment) -> None:
    """Every call and every token passes this frontend."""
    seen = gateway(host, environment)
    assert seen["current"].startswith("HTTP/"), "the gateway does not offer TLS 1.3; apply role tls"
    assert seen["older"].startswith("TLS: "), (
        f"the gateway answers {seen['older']!r} over TLS 1.2; apply role tls"
    )


@pytest.mark.control("DAT-03")
@pytest.mark.hosts("edge")
@frontend_sabotage("s/verify required/verify optional/", GATEWAY)
def test_gateway_requires_the_certificate_of_its_callers(
    host: Target, environment: Environment
) -> None:
    """A caller must be authenticated before the first byte of a request is read."""
    seen = gateway(host, environment)
    if environment.gateway and environment.gateway.client_certificates == "optional":
        not_applicable("the manifest admits callers without a certificate")
    assert seen["current"].startswith("HTTP/"), "the gateway does not offer TLS 1.3; apply role tls"
    assert seen["anonymous"].startswith("TLS: "), (
        f"the gateway answers {seen['anonymous']!r} to a caller without a certificate; "
        "apply role tls"
    )


@pytest.mark.control("DAT-03")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    f"cp -p {PKI}/host.crt /root/.sabotage && openssl req -x509 -key {PKI}/host.key -days 1 "
    f"-subj /CN=sabotage -out {PKI}/host.crt",
    restore=f"mv /root/.sabotage {PKI}/host.crt",
)
def test_certificate_is_of_the_authority_and_has_life_left(
    host: Target, environment: Environment
) -> None:
    """An expired certificate stops logs and calls at once."""
    found = host.once(f"cat {PKI}/host.crt")
    assert found.succeeded, f"{host} has no certificate; apply role tls"
    try:
        authority = open_authority(*authority_files(environment))
    except StateError as error:
        pytest.fail(f"the authority cannot be read: {error}", pytrace=False)
    leaf = x509.load_pem_x509_certificate(found.stdout.encode())
    left = (leaf.not_valid_after_utc - datetime.now(UTC)) / (
        leaf.not_valid_after_utc - leaf.not_valid_before_utc
    )
    reason = authority.reason_to_issue(
        CertificateSubject.of_host(environment, host.manifest), found.stdout
    )
    assert reason is None or reason.startswith("its certificate ends"), (
        f"the certificate of {host} is invalid: {reason}; apply role tls"
    )
    assert left > 1 / 3, (
        f"the certificate of {host} ends on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, "
        f"with {left:.0%} of its lifetime left; apply role tls"
    )


@pytest.mark.control("DAT-03")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(f"chmod 0644 {PKI}/host.key", restore=f"chmod 0640 {PKI}/host.key")
def test_private_key_is_for_few(host: Target) -> None:
    """Anybody who can read the key can impersonate the host."""
    found = host.once("stat -c %%U:%%G:%%a %s", f"{PKI}/host.key")
    assert found.succeeded, f"{host} has no certificate; apply role tls"
    assert found.stdout.strip() == "root:ringfence-pki:640", (
        f"{PKI}/host.key has owner, group and mode {found.stdout.strip()}; apply role tls"
    )


@pytest.mark.control("DAT-03")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "cp -p /etc/ringfence/openssl.cnf /root/.sabotage && "
    "sed -i s/TLSv1.3/TLSv1.2/ /etc/ringfence/openssl.cnf",
    restore="mv /root/.sabotage /etc/ringfence/openssl.cnf",
)
def test_clients_of_the_host_refuse_older_tls(host: Target) -> None:
    """An outdated server elsewhere must not make this host use older TLS."""
    tried = host.once("python3 -c %s clients", probes.source("handshakes"))
    assert tried.succeeded, (
        f"clients could not be tried (does {PKI} exist?): {tried.stderr.strip()[-300:]}; "
        "apply role tls"
    )
    connected = json.loads(tried.stdout)
    assert connected.pop("able"), "the test server for TLS 1.2 did not work; is openssl installed?"
    older = [client for client, success in connected.items() if success]
    assert not older, f"{' and '.join(older)} connect over TLS 1.2; apply role tls"
