"""Variables of role `baseline`: contacts and services of the environment."""

from __future__ import annotations

from typing import Any

from ringfence.manifest.model import Environment, Host


def variables(environment: Environment, host: Host) -> dict[str, Any]:
    operations = environment.contacts["operations"]
    return {
        "baseline_automation_account": environment.automation.account,
        "baseline_banner_contact": f"{operations.name}, {operations.email}",
        "baseline_banner_owner": f"the environment {environment.name} ({environment.domain})",
        "baseline_ntp_servers": [str(server) for server in environment.services.ntp],
        "baseline_package_proxy": environment.services.package_proxy or "",
        # A cloud network announces its IPv6 router; elsewhere hosts are configured with it.
        "baseline_accept_router_advertisements": environment.provisioning is not None,
    }
