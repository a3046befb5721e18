"""Variables of role `mcp_gateway`: the gateway's configuration, from the manifest.

The configuration is a directory. `configuration` returns its `gateway.json`, and `files` the files
of the operator's machine to copy beside it.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ringfence.identity.pki import CertificateSubject
from ringfence.inventory import policies
from ringfence.manifest.model import Environment, Gateway, Host, Issuer, Server, Tool

ACCOUNT = "ringfence-gateway"
STATE = "/var/lib/ringfence-gateway"
LOGS = "/var/log/ringfence-gateway"
SOCKETS = "/run/ringfence-gateway"
PKI = "/etc/ringfence/pki"

HTTPS = 443
ALGORITHMS = ("ES256", "EdDSA", "RS256", "PS256")
SKEW_SECONDS = 30
LONGEST_CALL = 600
"""Seconds that the gateway waits for a server at most."""
MASKING_KEY = "masking-key"
EMBEDDED_KEYS = "embedded.jwks.json"


def variables(environment: Environment, host: Host) -> dict[str, Any]:
    gateway = environment.gateway
    if gateway is None:  # Validation refuses hosts of group edge then.
        return {}
    return {
        "mcp_gateway_configuration": configuration(environment, gateway, host),
        "mcp_gateway_policies": policies.policies(environment),
        "mcp_gateway_files": {name: str(path) for name, path in files(environment).items()},
        "mcp_gateway_processes": gateway.processes,
        "mcp_gateway_reaches": sorted(
            {
                *(str(a) for s in environment.servers.values() for a in s.host.addresses),
                *(str(issuer.network) for issuer in gateway.tokens.issuers if issuer.network),
                *(str(a) for a in environment.services.dns if any(_urls(gateway))),
            }
        ),
        "mcp_gateway_manifest": str(environment.path),
        "mcp_gateway_embedded_issuer": not gateway.tokens.issuers,
        "mcp_gateway_secrets": str(environment.state / "gateway"),
        "mcp_gateway_wheelhouse": str(environment.state / "wheelhouse"),
    }


def configuration(environment: Environment, gateway: Gateway, host: Host) -> dict[str, Any]:
    """`gateway.json` of one host."""
    return {
        "version": 1,
        "environment": environment.name,
        "stage": environment.stage,
        "resource": environment.gateway_url,
        "hosts": names(environment, gateway, host),
        "origins": list(gateway.origins),
        "responders": list(gateway.responders),
        "tokens": {
            "issuers": [
                _issuer(number, issuer) for number, issuer in enumerate(gateway.tokens.issuers)
            ]
            or [_embedded(environment)],
            "ceiling_seconds": gateway.tokens.lifetime_minutes * 60,
            "skew_seconds": SKEW_SECONDS,
            "sender_constraint": gateway.tokens.sender_constraint,
        },
        "principals": {
            name: {
                "kind": principal.kind,
                "owner": principal.owner,
                "roles": list(principal.roles),
                "uri": CertificateSubject.of_principal(environment, principal).uri,
            }
            for name, principal in environment.principals.items()
        },
        "roles": {
            name: {
                "tools": _lists(role.tools),
                "resources": _lists(role.resources),
                "prompts": _lists(role.prompts),
            }
            for name, role in environment.roles.items()
        },
        "servers": {name: _server(server) for name, server in environment.servers.items()},
        "grants": {
            "ceiling_seconds": gateway.grant_ceiling_minutes * 60,
            "directory": f"{STATE}/grants",
            "authority_file": f"{PKI}/ca.crt",
        },
        "inspection": {
            "classes": dict(gateway.inspection),
            "mask": environment.stage != "production",
            "key_file": f"credential:{credential(MASKING_KEY)}",
            "arguments": "flag",
        },
        "limits": asdict(gateway.limits),
        "audit": {"directory": LOGS, "journal": True},
        "upstream": {
            "certificate_file": f"{PKI}/host.crt",
            "key_file": f"{PKI}/host.key",
            "authority_file": f"{PKI}/ca.crt",
        },
    }


def files(environment: Environment) -> dict[str, Path]:
    """Map names in the directory to files of the controller, where they exist.

    People write `policies/*.cedar` and approve `pins/*.json` beside the manifest.
    """
    beside = environment.path.parent
    gateway = environment.gateway
    found = {
        f"policies/{path.name}": path for path in sorted((beside / "policies").glob("*.cedar"))
    }
    found |= {
        f"pins/{name}.json": path
        for name in environment.servers
        if (path := beside / "pins" / f"{name}.json").is_file()
    }
    for number, issuer in enumerate(gateway.tokens.issuers if gateway else ()):
        entry = _issuer(number, issuer)
        found |= {entry[key]: getattr(issuer, key) for key in ("jwks_file",) if entry[key]}
        if issuer.ca_file:
            found[entry["ca_file"]] = issuer.ca_file
    return found


def names(environment: Environment, gateway: Gateway, host: Host) -> list[str]:
    """Return the names of the gateway that a Host header may have."""
    addresses = [str(a) if a.version == 4 else f"[{a}]" for a in host.addresses]
    unique = dict.fromkeys([environment.group("edge")[0].fqdn, host.fqdn, host.name, *addresses])
    return [gateway.authority(name) for name in unique]


def credential(name: str) -> str:
    """Return the path of a systemd credential, as the service finds it."""
    return f"ringfence-gateway.{name}"


def _urls(gateway: Gateway) -> list[str]:
    return [issuer.jwks_url for issuer in gateway.tokens.issuers if issuer.jwks_url]


def _embedded(environment: Environment) -> dict[str, Any]:
    return {
        "issuer": f"https://issuer.{environment.domain}",
        "jwks_file": EMBEDDED_KEYS,
        "jwks_url": None,
        "ca_file": None,
        "algorithms": ["ES256"],
        "principal_claim": "sub",
    }


def _issuer(number: int, issuer: Issuer) -> dict[str, Any]:
    own = f"issuer-{number}"
    authority = f"{own}.ca.crt" if issuer.ca_file else f"{PKI}/ca.crt"
    return {
        "issuer": issuer.issuer,
        "jwks_file": f"{own}.jwks.json" if issuer.jwks_file else None,
        "jwks_url": issuer.jwks_url,
        "ca_file": authority if issuer.jwks_url else None,
        "algorithms": list(ALGORITHMS),
        "principal_claim": issuer.principal_claim,
    }


def _server(server: Server) -> dict[str, Any]:
    host = server.host
    address = host.addresses[0] if host.addresses else host.fqdn
    return {
        "url": f"https://{f'[{address}]' if ':' in str(address) else address}:{server.port}/mcp",
        "server_name": host.fqdn,
        "protocols": list(server.protocols),
        "timeout_seconds": min(server.limits.timeout_seconds, LONGEST_CALL),
        "concurrency": server.limits.concurrency,
        "calls_per_minute": server.limits.calls_per_minute,
        "tools": {name: _tool(tool) for name, tool in server.tools.items()},
        "resources": {
            pattern: {"data_class": each.data_class} for pattern, each in server.resources.items()
        },
        "prompts": {name: {"data_class": each.data_class} for name, each in server.prompts.items()},
    }


def _tool(tool: Tool) -> dict[str, Any]:
    return {
        "data_class": tool.data_class,
        "sensitive": tool.sensitive,
        "approvers": list(tool.approvers),
    }


def _lists(names_by_server: Any) -> dict[str, list[str]]:
    return {server: list(names) for server, names in names_by_server.items()}
