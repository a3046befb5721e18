"""Certificates for every host; a TLS frontend per MCP server for those that have some."""

from __future__ import annotations

from typing import Any

from ringfence.environment import Environment, Host, Server
from ringfence.pki import Subject, authority_files


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
    }


def frontend(environment: Environment, host: Host, server: Server) -> dict[str, Any]:
    callers = environment.callers(server)
    return {
        "name": server.name,
        "port": server.port,
        "ipv6": host.address6 is not None,
        "sessions": set(server.protocols) != {"2026-07-28"},
        "socket": f"/run/mcp/{server.name}.sock",
        "callers": [
            {
                "principal": principal.name,
                "subject": Subject.of_principal(
                    environment, principal
                ).distinguished_name.rfc4514_string(),
            }
            for principal in callers
        ],
        "hosts": sorted({host.name, host.fqdn, *map(str, host.addresses)}),
        "calls_per_minute": server.limits.calls_per_minute,
        "concurrency": server.limits.concurrency,
        "timeout_seconds": server.limits.timeout_seconds,
    }
