"""Names, links and addresses of a lab, derived from its environment alone.

This module does not change the machine. Every name contains the lab's name, so the parts of a lab
can be found without a record.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

from ringfence.lab.errors import UnusableError
from ringfence.manifest.model import Address, Environment, Host, Segment

GATEWAY, OPERATOR, CLIENT, INTRUDER = 1, 2, 10, 66
"""Last part of the addresses that the lab uses for itself in a segment."""

INTERFACE_NAME = 15
"""Longest name of a network interface that Linux accepts."""

Interface = IPv4Interface | IPv6Interface


@dataclass(frozen=True)
class Link:
    """A virtual cable from a node to the bridge of its segment."""

    segment: Segment
    port: str
    """Name of the end at the bridge, in the router's namespace."""
    addresses: tuple[Interface, ...]
    """Addresses of the other end."""

    @property
    def bridge(self) -> str:
        return bridge(self.segment)

    @property
    def gateways(self) -> tuple[Address, ...]:
        return tuple(interface.ip for interface in addresses(self.segment, GATEWAY))


@dataclass(frozen=True)
class LabNode:
    """A network namespace with one link: a host or a client."""

    name: str
    namespace: str
    link: Link
    host: Host | None = None


@dataclass(frozen=True)
class Plan:
    environment: Environment

    @property
    def name(self) -> str:
        return self.environment.name

    @property
    def namespace_prefix(self) -> str:
        return namespace_prefix(self.name)

    @property
    def router(self) -> str:
        return f"{self.namespace_prefix}router"

    @cached_property
    def operator(self) -> tuple[tuple[str, Link], ...]:
        """Interfaces of this machine in the management segments: name and link."""
        segments = self.environment.segments_for("management")
        return tuple(
            (
                f"{operator_prefix(self.name)}{number}",
                Link(segment, f"operator{number}", addresses(segment, OPERATOR)),
            )
            for number, segment in enumerate(segments)
        )

    @cached_property
    def hosts(self) -> dict[str, LabNode]:
        return {
            host.name: LabNode(
                host.name,
                f"{self.namespace_prefix}{host.name}",
                Link(host.segment, short("h-", host.name), _host_addresses(host)),
                host,
            )
            for host in self.environment.hosts.values()
        }

    @cached_property
    def clients(self) -> dict[str, LabNode]:
        return {
            f"client.{segment.name}": LabNode(
                f"client.{segment.name}",
                f"{self.namespace_prefix}client.{segment.name}",
                Link(segment, short("c-", segment.name), addresses(segment, CLIENT)),
            )
            for segment in self.environment.segments_for("clients")
        }

    @cached_property
    def nodes(self) -> tuple[LabNode, ...]:
        return (*self.clients.values(), *self.hosts.values())

    @property
    def sensor(self) -> LabNode | None:
        """Node that receives copies of all traffic; None without a sensor."""
        return next((self.hosts[host.name] for host in self.environment.group("sensor")), None)

    def intruder(self, segment: Segment) -> LabNode:
        """Return a node for an attacker, which is linked to a segment while it is needed."""
        name = f"intruder.{segment.name}"
        link = Link(segment, short("i-", segment.name), addresses(segment, INTRUDER))
        return LabNode(name, f"{self.namespace_prefix}{name}", link)

    @property
    def namespaces(self) -> tuple[str, ...]:
        return (self.router, *(node.namespace for node in self.nodes))

    @property
    def proxy(self) -> tuple[str, int] | None:
        """Address in the manifest on which this machine serves packages, if there is one."""
        endpoint = self.environment.services.package_proxy_endpoint
        mine = {str(address.ip) for _, link in self.operator for address in link.addresses}
        return endpoint if endpoint and _canonical(endpoint[0]) in mine else None

    @property
    def names(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Address and names of every host, in the form of /etc/hosts."""
        return tuple(
            (str(address), (host.fqdn, host.name))
            for host in self.environment.hosts.values()
            for address in host.addresses
        )

    @property
    def digest(self) -> str:
        """Digest that changes when a booted lab no longer matches the manifest."""
        facts = {
            "segments": [
                (s.name, s.purpose, [str(n) for n in s.networks])
                for s in self.environment.segments.values()
            ],
            "hosts": [
                (h.name, h.segment.name, [str(a) for a in h.addresses])
                for h in self.environment.hosts.values()
            ],
            "domain": self.environment.domain,
            "proxy": self.environment.services.package_proxy,
            "dns": [str(address) for address in self.environment.services.dns],
        }
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def check(self) -> None:
        """Raise `UnusableError` if this manifest cannot be booted on one machine."""
        if not self.operator:
            raise UnusableError(
                "the lab needs a segment of purpose management: that is where this machine is "
                "attached; add one under /network/segments"
            )
        taken = {
            interface.ip: what
            for segment in self.environment.segments.values()
            for number, what in (
                *((GATEWAY, "router"), (OPERATOR, "operator"), (CLIENT, "client")),
                (INTRUDER, "intruder"),
            )
            if (what != "operator" or segment.purpose == "management")
            and (what != "client" or segment.purpose == "clients")
            for interface in addresses(segment, number)
        }
        for host in self.environment.hosts.values():
            if not host.address:
                raise UnusableError(
                    f"host {host.name} has no address; the lab boots hosts under the addresses "
                    "of the manifest: add `address`"
                )
            for address in host.addresses:
                if address in taken:
                    raise UnusableError(
                        f"host {host.name} has the address {address}, which the lab gives to its "
                        f"{taken[address]}; choose another"
                    )


def addresses(segment: Segment, number: int) -> tuple[Interface, ...]:
    """Return the IPv4 and IPv6 addresses of a segment that end in a number."""
    return tuple(ip_interface((network[number], network.prefixlen)) for network in segment.networks)


def bridge(segment: Segment) -> str:
    return short("br-", segment.name)


def namespace_prefix(lab: str) -> str:
    """Return the prefix of a lab's namespaces. It is unique, as names of labs have no dots."""
    return f"ringfence.{lab}."


def operator_prefix(lab: str) -> str:
    """Return the prefix of a lab's interfaces in this machine's own namespace."""
    return f"rf{hashlib.sha256(lab.encode()).hexdigest()[:8]}-"


def short(prefix: str, name: str) -> str:
    """Return an interface name: the name itself if it fits, else a digest."""
    if len(prefix + name) <= INTERFACE_NAME:
        return prefix + name
    digest = hashlib.sha256(name.encode()).hexdigest()
    return prefix + digest[: INTERFACE_NAME - len(prefix)]


def hardware_address(lab: str, name: str) -> str:
    """Return a hardware address that is the same at every boot, so neighbour caches stay valid."""
    digest = hashlib.sha256(f"{lab}/{name}".encode()).digest()
    return "02:" + ":".join(f"{byte:02x}" for byte in digest[:5])


def _host_addresses(host: Host) -> tuple[Interface, ...]:
    networks = {network.version: network for network in host.segment.networks}
    return tuple(
        ip_interface((address, networks[address.version].prefixlen))
        for address in host.addresses
        if address.version in networks
    )


def _canonical(address: str) -> str:
    try:
        return str(ip_address(address))
    except ValueError:
        return address
