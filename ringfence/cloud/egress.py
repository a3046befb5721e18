"""Egress to the internet: to declared names only, through a firewall (NET-02).

Security groups decide which hosts have egress, and on which ports; the firewall decides on names.
It identifies a host by the network of its segment, because hosts have no fixed addresses: two
servers of one segment share their names at the firewall. Put them in separate segments where that
is too much. The firewall reads the name that a client requests (TLS SNI, HTTP Host) and does not
decrypt TLS: a client that names a declared host and connects to another address passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from ringfence.cloud import addressing, signatures
from ringfence.manifest.model import DataClass, Environment, Segment

GROUP_NAME = "egress"
"""Tag of gateways, addresses and route tables for egress; the policy pack refuses others."""
LOG_CLASS: DataClass = "internal"
"""Class of flow logs: the log names both ends and contains no data."""
LOG_TYPES = ("ALERT", "FLOW")
HTTP = 80
"""The firewall expects TLS on every other port."""
CAPACITY = 1000
"""Limit of rules in the group. AWS replaces the group to change it."""
STRICT_ORDER = "STRICT_ORDER"
FORWARD = "aws:forward_to_sfe"
"""The stateless engine passes everything on to the stateful one."""
DEFAULTS = ("aws:drop_established", "aws:alert_established")
"""The handshake passes, because the name comes after it; undeclared data does not.

https://docs.aws.amazon.com/network-firewall/latest/developerguide/suricata-rule-evaluation-order.html
"""


@dataclass(frozen=True, order=True)
class Destination:
    """A name outside that hosts of a segment may connect to."""

    network: IPv4Network
    domain: str
    port: int

    @property
    def header(self) -> str:
        """Protocol and ends of the signature, for the firewall and for a sensor."""
        return f"{self._protocol} {self.network} any -> $EXTERNAL_NET {self.port}"

    @property
    def match(self) -> str:
        """Condition on the requested name. https://docs.suricata.io/en/suricata-7.0.8/rules/"""
        # http.host is in lower case, and accepts no nocase.
        buffer, case = ("tls.sni", " nocase;") if self._protocol == "tls" else ("http.host", "")
        return (
            f'{buffer}; content:"{self.domain}"; startswith; endswith;{case} '
            "flow:to_server, established;"
        )

    @property
    def rule(self) -> str:
        number = signatures.sid(signatures.FIRST_OF_EGRESS, self.network, self.domain, self.port)
        return f"pass {self.header} ({self.match} sid:{number}; rev:1;)"

    @property
    def _protocol(self) -> str:
        return "http" if self.port == HTTP else "tls"


@dataclass(frozen=True)
class Places:
    """Networks of one zone."""

    firewall: IPv4Network
    nat: IPv4Network


def destinations(environment: Environment) -> tuple[Destination, ...]:
    return tuple(
        sorted(
            {
                Destination(server.segment.cidr, egress.domain, egress.port)
                for server in environment.servers.values()
                for egress in server.egress
                if egress.domain and network(environment)
            }
        )
    )


def network(environment: Environment) -> IPv4Network | None:
    """Return the network of firewall and NAT gateways. Without it, there is no egress."""
    return environment.provisioning.egress if environment.provisioning else None


def segments(environment: Environment) -> tuple[Segment, ...]:
    """Return the segments with egress."""
    networks = {each.network for each in destinations(environment)}
    return tuple(s for s in environment.segments.values() if s.cidr in networks)


def places(environment: Environment, zones: tuple[str, ...]) -> Mapping[str, Places]:
    """Divide the network into equal parts: for the firewall in each zone, then for NAT."""
    if (whole := network(environment)) is None:
        return {}
    parts = list(whole.subnets(prefixlen_diff=(2 * len(zones) - 1).bit_length()))
    pairs = zip(zones, parts, parts[len(zones) :], strict=False)
    return {zone: Places(firewall, nat) for zone, firewall, nat in pairs}


def outside(environment: Environment) -> tuple[IPv4Network, ...]:
    """All networks but the VPC: a rule for every address would admit other hosts too."""
    everywhere = IPv4Network("0.0.0.0/0")
    return tuple(sorted(everywhere.address_exclude(addressing.vpc_network(environment))))


def ports(environment: Environment, segment: Segment) -> tuple[int, ...]:
    return tuple(
        sorted({each.port for each in destinations(environment) if each.network == segment.cidr})
    )


def rules(environment: Environment) -> str:
    """Pass rules of the firewall. Its policy drops everything else."""
    return "\n".join(each.rule for each in destinations(environment))
