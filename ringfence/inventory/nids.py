"""Variables of role `nids`: the networks, servers and declared connections that a sensor knows.

The hosts' own firewalls allow the declared connections. The sensor checks the network against the
same list, from outside the hosts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from ringfence.cloud import egress as internet_egress
from ringfence.cloud import signatures
from ringfence.cloud.balancers import HEALTH, sensors
from ringfence.inventory import firewall
from ringfence.manifest.model import Environment, Host, Network, Protocol

PROTOCOLS = ("tcp", "udp", "icmpv4", "icmpv6")
OUTSIDE = "$EXTERNAL_NET"
"""The sensor's name for every address outside all segments."""
OPERATORS_FOLDER = "nids"
"""Folder beside the manifest with the operator's own rules (*.rules) and deny lists (*.txt)."""
LISTS = ("ja4", "sni")


@dataclass(frozen=True)
class DeclaredConnection:
    """A declared connection and its reason."""

    source: str
    target: str
    protocol: Protocol
    port: int
    why: str


def variables(environment: Environment, host: Host) -> dict[str, Any]:
    gateways = environment.group("edge") if environment.gateway else ()
    servers = environment.servers.values()
    return {
        "nids_networks": _strings(n for s in environment.segments.values() for n in s.networks),
        "nids_hosts": _addresses(environment.hosts.values()),
        "nids_segments": [
            {
                "name": segment.name,
                "networks": _strings(segment.networks),
                "sids": {
                    protocol: signatures.sid(
                        signatures.FIRST_OF_SENSOR, "segment", segment.name, protocol
                    )
                    for protocol in PROTOCOLS
                },
            }
            for segment in environment.segments.values()
        ],
        "nids_declared": declared(environment),
        "nids_names": names(environment),
        "nids_mcp_servers": _addresses({server.host for server in servers}),
        "nids_mcp_ports": sorted({server.port for server in servers}),
        "nids_gateways": _addresses(gateways),
        "nids_gateway_port": environment.gateway.port if environment.gateway else 0,
        "nids_gateway_connections_per_minute": (
            environment.gateway.limits.principal_calls_per_minute if environment.gateway else 0
        ),
        "nids_resolvers": _strings(environment.services.dns),
        "nids_sensors": _addresses(environment.group("sensor")),
        "nids_management": _strings(
            n for s in environment.segments_for("management") for n in s.networks
        ),
        "nids_health_port": HEALTH if sensors(environment) else 0,
        **operator_files(environment),
    }


def operator_files(environment: Environment) -> dict[str, Any]:
    folder = environment.path.parent / OPERATORS_FOLDER
    lists = {name: folder / f"{name}.txt" for name in LISTS}
    return {
        "nids_operator_files": {p.name: str(p) for p in sorted(folder.glob("*.rules"))},
        **{f"nids_denied_{n}_file": str(p) if p.is_file() else "" for n, p in lists.items()},
    }


def declared(environment: Environment) -> list[dict[str, Any]]:
    """Return the declared connections, with alike ones as one entry."""
    by_target: dict[tuple[str, Protocol, int], tuple[set[str], dict[str, None]]] = {}
    for each in _connections(environment):
        key = (each.target, each.protocol, each.port)
        sources, reasons = by_target.setdefault(key, (set(), {}))
        sources.add(each.source)
        reasons[each.why] = None
    by_sources: dict[tuple[tuple[str, ...], Protocol, int, str], set[str]] = {}
    for (target, protocol, port), (sources, reasons) in by_target.items():
        kind = (tuple(sorted(sources)), protocol, port, _quotable(", ".join(reasons)))
        by_sources.setdefault(kind, set()).add(target)
    return [
        {
            "sources": [*sources],
            "destinations": sorted(targets),
            "protocol": protocol,
            "port": port,
            "why": why,
            "sid": signatures.sid(
                signatures.FIRST_OF_SENSOR, *sources, *sorted(targets), protocol, port
            ),
        }
        for (sources, protocol, port, why), targets in by_sources.items()
    ]


def names(environment: Environment) -> list[dict[str, Any]]:
    """Return the domains that a segment may connect to, as the egress firewall has them."""
    return [
        {
            "header": name.header,
            "match": name.match,
            "why": f"{name.domain}, port {name.port}",
            "sid": signatures.sid(
                signatures.FIRST_OF_SENSOR,
                "name",
                name.network,
                name.domain,
                name.port,
            ),
        }
        for name in internet_egress.destinations(environment)
    ]


def _connections(environment: Environment) -> Iterator[DeclaredConnection]:
    for host in environment.hosts.values():
        own = host.networks
        for rule in firewall.inbound(environment, host):
            yield from _between([rule.network], own, rule)
        leaving = list(firewall.outbound(environment, host))
        for server in environment.servers_on(host):
            leaving += firewall.server_rules(environment, server)
        leaving += firewall.gateway_rules(environment, host)
        for rule in leaving:
            yield from _between(own, [rule.network], rule)
        for server in environment.servers_on(host):
            for egress in server.egress:
                if egress.domain:
                    for network in own:
                        why = f"{egress.domain}: {egress.why}"
                        yield DeclaredConnection(
                            _text(network), OUTSIDE, egress.protocol, egress.port, why
                        )


def _between(
    sources: Iterable[Network], targets: Iterable[Network], rule: firewall.FirewallRule
) -> Iterator[DeclaredConnection]:
    """Yield connections between networks; those within one host are on no network."""
    pairs = [(s, t) for s in sources for t in targets if s.version == t.version and s != t]
    for source, target in pairs:
        yield DeclaredConnection(_text(source), _text(target), rule.protocol, rule.port, rule.why)


def _text(network: Network) -> str:
    """Return a network, or the address if it has only one."""
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address if single else network)


def _quotable(text: str) -> str:
    r"""Return a reason as Suricata accepts it in a message, in which ", ; and \ are special."""
    return firewall.as_comment(text).translate(str.maketrans({";": ",", "\\": "/", ":": " -"}))


def _strings(networks: Iterable[object]) -> list[str]:
    return [str(network) for network in networks]


def _addresses(hosts: Iterable[Host]) -> list[str]:
    found = {ip_network(address) for host in hosts for address in host.addresses}
    return [_text(network) for network in sorted(found, key=lambda n: (n.version, n))]
