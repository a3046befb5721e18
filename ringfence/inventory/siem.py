"""Variables of role `siem`: the collector accepts events of the environment's hosts only."""

from __future__ import annotations

from typing import Any

from ringfence.inventory.log_shipping import retention_days
from ringfence.manifest.model import Environment, Host


def variables(environment: Environment, host: Host) -> dict[str, Any]:
    return {
        "siem_listen": [str(address) for address in host.addresses],
        "siem_port": environment.log_sink.port,
        "siem_sources": [
            {
                "name": source.name,
                "certificate_name": source.fqdn,
                "addresses": [str(address) for address in source.addresses],
                "days": retention_days(environment, source),
            }
            for source in environment.hosts.values()
        ],
        "siem_seal_key_file": str(environment.state / "seals" / f"{host.name}.key"),
    }
