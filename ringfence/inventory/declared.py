"""Connections that the manifest declares or implies, as networks and ports.

From the rules of the hosts' firewalls, so that whoever compares with it, or enforces it elsewhere,
agrees with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from ringfence.inventory import firewall
from ringfence.inventory.firewall import FirewallRule
from ringfence.manifest.model import Environment, Host, Network, Protocol


@dataclass(frozen=True)
class DeclaredFlow:
    source: Network
    target: Network
    protocol: Protocol
    port: int
    why: str


def outbound(environment: Environment) -> Iterator[DeclaredFlow]:
    """Yield what hosts, their MCP servers and their gateway may open.

    Of one host no two overlap: neither do any two of all.
    """
    for host in environment.hosts.values():
        accounts = [
            *(
                firewall.account_rules(environment, server, 0)
                for server in environment.servers_on(host)
            ),
            *firewall.gateway_accounts(environment, host),
        ]
        rules = firewall.outbound(environment, host)
        rules += [_rule(each) for account in accounts for each in account["egress"]]
        for rule in firewall.without_overlaps(rules):
            for address in _same_family(host, rule):
                yield DeclaredFlow(address, rule.network, rule.protocol, rule.port, rule.why)


def inbound(environment: Environment) -> Iterator[DeclaredFlow]:
    """Yield what hosts let others open. Here no two overlap either."""
    for host in environment.hosts.values():
        for rule in firewall.inbound(environment, host):
            for address in _same_family(host, rule):
                yield DeclaredFlow(rule.network, address, rule.protocol, rule.port, rule.why)


def pings(environment: Environment) -> Iterator[tuple[Network, Network]]:
    """From where to where: every host answers to management."""
    sources = [n for segment in environment.segments_for("management") for n in segment.networks]
    for host in environment.hosts.values():
        for target in host.networks:
            yield from ((source, target) for source in sources if source.version == target.version)


def _rule(variable: Mapping[str, Any]) -> FirewallRule:
    network = ip_network(variable["network"])
    return FirewallRule(network, variable["protocol"], variable["port"], variable["why"])


def _same_family(host: Host, rule: FirewallRule) -> Iterator[Network]:
    for address in host.addresses:
        if address.version == rule.network.version:
            yield ip_network(address)
