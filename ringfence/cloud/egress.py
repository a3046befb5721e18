"""The one way out: to declared names, through a firewall that reads them (NET-02).

Security groups hold which host may leave at all, and on which ports; the firewall holds the
names. It knows a host by the network of its segment, as hosts have no fixed addresses: two
servers of one segment share the names of both at the firewall. Give them segments of their own
where that is too much. It reads what a client asks for (TLS SNI, HTTP Host) and does not look
into TLS: a client that names a declared host and connects to another address is let through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from ringfence.cloud import addressing, signatures
from ringfence.manifest.model import DataClass, Environment, Segment

GROUP_NAME = "egress"
"""Tag of gateways, addresses and tables that may lead out; the policy pack lets no others."""
LOG_CLASS: DataClass = "internal"
"""As flow logs: who asked for whom, and nothing of what was said."""
LOG_TYPES = ("ALERT", "FLOW")
HTTP = 80
"""Every other port is taken to speak TLS."""
CAPACITY = 1000
"""Rules that a group may ever have: it cannot be changed, and AWS replaces the group instead."""
STRICT_ORDER = "STRICT_ORDER"
FORWARD = "aws:forward_to_sfe"
"""Of the stateless engine, which decides nothing here."""
DEFAULTS = ("aws:drop_established", "aws:alert_established")
"""The handshake passes, or no client would come to say whom it wants; its data does not.

https://docs.aws.amazon.com/network-firewall/latest/developerguide/suricata-rule-evaluation-order.html
"""


@dataclass(frozen=True, order=True)
class Way:
    """From a segment, or what the firewall can know of it, to a name."""

    network: IPv4Network
    domain: str
    port: int

    @property
    def header(self) -> str:
        """Protocol and ends of its signature, for the firewall and for a sensor."""
        return f"{self._protocol} {self.network} any -> $EXTERNAL_NET {self.port}"

    @property
    def match(self) -> str:
        """What the client asks for. https://docs.suricata.io/en/suricata-7.0.8/rules/"""
        # http.host is in lower case already, and takes no nocase.
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
    """Of one zone."""

    firewall: IPv4Network
    nat: IPv4Network


def ways(environment: Environment) -> tuple[Way, ...]:
    return tuple(
        sorted(
            {
                Way(server.segment.cidr, egress.domain, egress.port)
                for server in environment.servers.values()
                for egress in server.egress
                if egress.domain and network(environment)
            }
        )
    )


def network(environment: Environment) -> IPv4Network | None:
    """Nothing leads out of an environment that declares no network for it."""
    return environment.provisioning.egress if environment.provisioning else None


def segments(environment: Environment) -> tuple[Segment, ...]:
    """Those that a way leads out of."""
    leaving = {way.network for way in ways(environment)}
    return tuple(s for s in environment.segments.values() if s.cidr in leaving)


def places(environment: Environment, zones: tuple[str, ...]) -> Mapping[str, Places]:
    """Equal parts of the network: for the firewall in every zone, then for NAT."""
    if (whole := network(environment)) is None:
        return {}
    parts = list(whole.subnets(prefixlen_diff=(2 * len(zones) - 1).bit_length()))
    pairs = zip(zones, parts, parts[len(zones) :], strict=False)
    return {zone: Places(firewall, nat) for zone, firewall, nat in pairs}


def outside(environment: Environment) -> tuple[IPv4Network, ...]:
    """Everything but the VPC: a rule for every address would lead to the neighbours, too."""
    everywhere = IPv4Network("0.0.0.0/0")
    return tuple(sorted(everywhere.address_exclude(addressing.vpc_network(environment))))


def ports(environment: Environment, segment: Segment) -> tuple[int, ...]:
    return tuple(sorted({w.port for w in ways(environment) if w.network == segment.cidr}))


def rules(environment: Environment) -> str:
    """Of the firewall: what is let through. Its policy drops the rest."""
    return "\n".join(_rules(environment))


def _rules(environment: Environment) -> Iterator[str]:
    for way in ways(environment):
        yield way.rule
