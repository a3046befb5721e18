"""Variables of role `log_shipping`: every host ships its journal to the log sink."""

from __future__ import annotations

from typing import Any

from ringfence.manifest.model import DataClass, Environment, Host


def variables(environment: Environment, host: Host) -> dict[str, Any]:
    sink = environment.log_sink
    return {
        "log_shipping_host": host.name,
        "log_shipping_address": str(sink.address or sink.server_name),
        "log_shipping_port": sink.port,
        "log_shipping_server_name": sink.server_name,
        "log_shipping_ca_source": str(sink.ca_file or ""),
        "log_shipping_retention_days": retention_days(environment, host),
    }


def retention_days(environment: Environment, host: Host) -> int:
    """Return for how many days to keep a host's events, by the highest class of its tools.

    Logs name users, addresses and commands, so they are at least internal.
    """
    classes: set[DataClass] = {"internal"}
    for server in environment.servers_on(host):
        classes |= {tool.data_class for tool in server.tools.values()}
    return max(environment.retention[name] for name in classes)
