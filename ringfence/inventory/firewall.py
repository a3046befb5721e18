"""Firewall rules of one host, derived from the flows of the manifest.

Everything that is allowed has an entry, with its reason from the manifest. The role's ruleset
refuses all other connections, so there are no rules that deny.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

from ringfence.cloud.acls import endpoints_segment
from ringfence.cloud.balancers import balancers
from ringfence.inventory import mcp_gateway, mcp_servers
from ringfence.manifest.model import Address, Egress, Environment, Host, Network, Protocol, Server

COMMENT_BYTES = 120
"""Limit of nftables for the comment of a set element, less a margin."""

DNS, NTP, HTTP, HTTPS = 53, 123, 80, 443
METADATA = ip_network("169.254.169.254")
"""The address at which EC2 gives a host the credentials of its role."""
LOOPBACK = ip_network("127.0.0.1")


@dataclass(frozen=True)
class FirewallRule:
    """Connections to one port; `network` is their source, or their destination."""

    network: Network
    protocol: Protocol
    port: int
    why: str

    def as_variable(self) -> dict[str, Any]:
        return asdict(self) | {"network": str(self.network), "why": as_comment(self.why)}


def variables(environment: Environment, host: Host) -> dict[str, Any]:
    return {
        "firewall_inbound": [rule.as_variable() for rule in inbound(environment, host)],
        "firewall_outbound": [rule.as_variable() for rule in outbound(environment, host)],
        "firewall_accounts": [
            account_rules(environment, server, port)
            for server, port in mcp_servers.loopback_ports(environment, host)
        ]
        + gateway_accounts(environment, host),
        "firewall_management": [
            str(network)
            for segment in environment.segments_for("management")
            for network in segment.networks
        ],
        "firewall_internal": [
            str(network)
            for segment in environment.segments.values()
            for network in segment.networks
        ],
    }


def inbound(environment: Environment, host: Host) -> list[FirewallRule]:
    """Return the connections that others may open to a host."""
    return without_overlaps(
        [
            *_from_flows(environment, host),
            *_from_peers(environment, host),
            *_from_balancers(environment, host),
        ]
    )


def outbound(environment: Environment, host: Host) -> list[FirewallRule]:
    """Return the connections that a host may open, also to itself by its own addresses.

    Its MCP servers and its gateway may not use them: each has its own list (`account_rules`).
    """
    return without_overlaps([*_to_flows(environment, host), *_to_services(environment)])


def account_rules(environment: Environment, server: Server, loopback_port: int) -> dict[str, Any]:
    """Return the connections that the account of an MCP server may open, also on loopback."""
    rules = server_rules(environment, server)
    if server.egress and server.transport == "http":
        # A server without egress has its own network namespace and needs no rules.
        rules.append(
            FirewallRule(LOOPBACK, "tcp", loopback_port, "its own port, behind its Unix socket")
        )
    # A packet filter knows no names. The egress firewall behind it does, and validation makes sure
    # that there is one.
    outside = [
        {"protocol": e.protocol, "port": e.port, "why": as_comment(f"{e.domain}: {e.why}")}
        for e in server.egress
        if e.domain
    ]
    return {
        "name": server.account,
        "egress": [rule.as_variable() for rule in without_overlaps(rules)],
        "outside": outside,
    }


def server_rules(environment: Environment, server: Server) -> list[FirewallRule]:
    """Return the connections of an MCP server on the network, without those to domains."""
    rules = [rule for egress in server.egress for rule in _egress(environment, egress)]
    if any(egress.domain for egress in server.egress):
        rules += _dns(environment)
    return rules


def gateway_accounts(environment: Environment, host: Host) -> list[dict[str, Any]]:
    """Return the gateway's account, if the host runs a gateway."""
    if environment.gateway is None or host not in environment.group("edge"):
        return []
    rules = without_overlaps(gateway_rules(environment, host))
    egress = [rule.as_variable() for rule in rules]
    return [{"name": mcp_gateway.ACCOUNT, "egress": egress, "outside": []}]


def gateway_rules(environment: Environment, host: Host) -> list[FirewallRule]:
    """Return the gateway's connections to servers and issuers; none on a host without one."""
    gateway = environment.gateway
    if gateway is None or host not in environment.group("edge"):
        return []
    rules = [
        FirewallRule(network, flow.protocol, flow.port, f"{flow.server}: {flow.why}")
        for flow in environment.forwarding
        if flow.source == host
        for network in flow.destinations
    ]
    for issuer in gateway.tokens.issuers:
        if issuer.jwks_url and issuer.network:
            port = urlsplit(issuer.jwks_url).port or HTTPS
            rules.append(FirewallRule(issuer.network, "tcp", port, f"keys of {issuer.issuer}"))
            rules += _dns(environment)
    return rules


def without_overlaps(rules: Iterable[FirewallRule]) -> list[FirewallRule]:
    """Return the same permissions without overlaps, which nftables refuses in a set."""
    reasons: dict[tuple[Network, Protocol, int], dict[str, None]] = {}
    for rule in rules:
        reasons.setdefault((rule.network, rule.protocol, rule.port), {})[rule.why] = None
    for network, protocol, port in list(reasons):
        for wider in _wider(network):
            if (wider, protocol, port) in reasons:
                reasons[wider, protocol, port] |= reasons.pop((network, protocol, port))
                break
    return [FirewallRule(*key, why="; ".join(whys)) for key, whys in reasons.items()]


def as_comment(text: str) -> str:
    """Return a reason as nftables accepts it: one short line, without quotes."""
    line = "".join(c if c.isprintable() else " " for c in text).replace('"', "'")
    return " ".join(line.split()).encode()[:COMMENT_BYTES].decode(errors="ignore").strip()


def _wider(network: Network) -> Iterator[Network]:
    for prefix in range(network.prefixlen):
        yield network.supernet(new_prefix=prefix)


def _from_flows(environment: Environment, host: Host) -> Iterator[FirewallRule]:
    for flow in environment.all_flows:
        if flow.target == host:
            for network in flow.sources:
                yield FirewallRule(network, flow.protocol, flow.port, flow.why)


def _from_peers(environment: Environment, host: Host) -> Iterator[FirewallRule]:
    """Yield connections of other hosts and their servers that name this host."""
    own = {ip_network(address) for address in host.addresses}
    for peer in environment.hosts.values():
        if peer == host:
            continue
        opened = list(_to_services(environment))
        for server in environment.servers_on(peer):
            to_hosts = [egress for egress in server.egress if egress.host]
            opened += [rule for egress in to_hosts for rule in _egress(environment, egress)]
        for rule in opened:
            if rule.network in own:
                for address in _same_family(peer, rule.network):
                    yield FirewallRule(ip_network(address), rule.protocol, rule.port, rule.why)


def _from_balancers(environment: Environment, host: Host) -> Iterator[FirewallRule]:
    """Yield connections of a load balancer: calls of other accounts, and health checks.

    Mirrored packets keep the address that they came from, and are read before any packet filter.
    """
    for balancer in balancers(environment):
        for target, protocol, port in balancer.targets:
            if target == host and protocol == "tcp":
                why = f"load balancer {balancer.name}"
                yield FirewallRule(balancer.segment.cidr, protocol, port, why)


def _to_flows(environment: Environment, host: Host) -> Iterator[FirewallRule]:
    for flow in environment.all_flows:
        # Only the gateway's account opens forwarded calls.
        if flow in environment.forwarding:
            continue
        if flow.source in (host, host.segment) and flow.target != host:
            for network in flow.destinations:
                yield FirewallRule(network, flow.protocol, flow.port, flow.why)
    sink = environment.log_sink
    if sink.host == host:  # The collector ships its own events too.
        for address in host.addresses:
            yield FirewallRule(ip_network(address), "tcp", sink.port, "log shipping")


def _to_services(environment: Environment) -> Iterator[FirewallRule]:
    services, sink = environment.services, environment.log_sink
    yield from _dns(environment)
    for server in services.ntp:
        yield FirewallRule(ip_network(server), "udp", NTP, "time")
    if endpoint := services.package_proxy_endpoint:
        address, port = endpoint
        yield FirewallRule(ip_network(address), "tcp", port, "packages")
    if sink.host is None and sink.address:
        yield FirewallRule(ip_network(sink.address), "tcp", sink.port, "log shipping")
    if environment.provisioning:
        # Without these rules the agent of Session Manager has no connection, and nobody can log in.
        endpoints = endpoints_segment(environment).cidr
        yield FirewallRule(endpoints, "tcp", HTTPS, "AWS services through their endpoints")
        yield FirewallRule(METADATA, "tcp", HTTP, "credentials of the host's role")


def _dns(environment: Environment) -> list[FirewallRule]:
    protocols: tuple[Protocol, ...] = ("udp", "tcp")
    return [
        FirewallRule(ip_network(server), protocol, DNS, "name resolution")
        for server in environment.services.dns
        for protocol in protocols
    ]


def _egress(environment: Environment, egress: Egress) -> list[FirewallRule]:
    networks: list[Network] = [egress.cidr] if egress.cidr else []
    if egress.host:
        networks += [ip_network(address) for address in egress.host.addresses]
    if egress.private_link:
        networks.append(endpoints_segment(environment).cidr)
    return [FirewallRule(network, egress.protocol, egress.port, egress.why) for network in networks]


def _same_family(host: Host, network: Network) -> Iterator[Address]:
    return (address for address in host.addresses if address.version == network.version)
