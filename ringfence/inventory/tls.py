"""Variables of role `tls`: certificates of hosts, and TLS frontends of servers and gateway."""

from __future__ import annotations

from typing import Any

from ringfence.identity.pki import CertificateSubject, authority_files
from ringfence.inventory import mcp_gateway
from ringfence.manifest.model import Environment, Host, Server


def variables(environment: Environment, host: Host) -> dict[str, Any]:
    certificate_file, key_file = authority_files(environment)
    authority: dict[str, Any] = {
        "certificate_file": str(certificate_file),
        "key_file": str(key_file),
    }
    if environment.pki.authority == "internal":
        authority["create"] = {"name": environment.name, "domain": environment.domain}
    return {
        "tls_authority": authority,
        "tls_certificate_days": environment.pki.certificate_days,
        "tls_subject": {
            "environment": environment.name,
            "name": host.name,
            "fqdn": host.fqdn,
            "addresses": [str(address) for address in host.addresses],
        },
        "tls_frontends": [
            frontend(environment, host, server) for server in environment.servers_on(host)
        ],
        "tls_gateway": gateway(environment, host),
    }


def frontend(environment: Environment, host: Host, server: Server) -> dict[str, Any]:
    return {
        "name": server.name,
        "port": server.port,
        "ipv6": host.address6 is not None,
        "sessions": set(server.protocols) != {"2026-07-28"},
        "socket": f"/run/mcp/{server.name}.sock",
        "callers": [
            {"principal": subject.name, "subject": subject.distinguished_name.rfc4514_string()}
            for subject in callers(environment, server)
        ],
        # Only the gateway may name the principal that it calls for.
        "forwarded": environment.gateway is not None,
        "hosts": sorted({host.name, host.fqdn, *map(str, host.addresses)}),
        "calls_per_minute": server.limits.calls_per_minute,
        "concurrency": server.limits.concurrency,
        "timeout_seconds": server.limits.timeout_seconds,
    }


def callers(environment: Environment, server: Server) -> list[CertificateSubject]:
    """Return the subjects that a server's frontend admits: only the gateway's, if there is one."""
    if environment.gateway:
        return [CertificateSubject.of_host(environment, host) for host in environment.group("edge")]
    return [
        CertificateSubject.of_principal(environment, principal)
        for principal in environment.callers(server)
    ]


def gateway(environment: Environment, host: Host) -> dict[str, Any]:
    """Return the frontend of the gateway; empty on hosts without one."""
    declared = environment.gateway
    if declared is None or host not in environment.group("edge"):
        return {}
    servers = environment.servers.values()
    return {
        "port": declared.port,
        "ipv6": host.address6 is not None,
        "client_certificates": declared.client_certificates,
        "sockets": [
            f"{mcp_gateway.SOCKETS}/{number + 1}.sock" for number in range(declared.processes)
        ],
        "body_bytes": declared.limits.body_bytes,
        "concurrency": sum(server.limits.concurrency for server in servers),
        "timeout_seconds": max(server.limits.timeout_seconds for server in servers),
    }
