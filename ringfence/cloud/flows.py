"""Paths that a manifest declares, between interfaces and services in AWS.

Computed from the manifest alone, not from the rules that come from it, so that a check can compare
both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network

from ringfence.cloud import egress as internet_egress
from ringfence.cloud.balancers import VXLAN, gateway, sensors
from ringfence.cloud.groups import HTTPS, S3, Interface, infrastructure, interfaces
from ringfence.cloud.services import GATEWAY_ENDPOINTS, interface_endpoints
from ringfence.manifest.model import Environment, Flow, Host, Protocol, Segment

CALLERS = "accepted callers"
"""Callers of other accounts, over PrivateLink."""
FIREWALL = "egress firewall"
"""Its rules decide which names outside it admits: tests/compliance/cloud/test_egress.py."""


@dataclass(frozen=True, order=True)
class Path:
    """Connections that the network admits. An end is an interface, a service, the internet, or a
    segment, which stands for all addresses of its subnets that the manifest does not name."""

    source: str
    target: str
    protocol: str
    first: int
    last: int

    @property
    def ports(self) -> str:
        ports = f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
        return f"{self.protocol}/{ports}" if self.last else self.protocol

    def __str__(self) -> str:
        return f"{self.source} -> {self.target} {self.ports}"


def declared(environment: Environment) -> frozenset[Path]:
    return frozenset(_declared(environment))


def common(environment: Environment) -> frozenset[Path]:
    """Return the paths of every host: to services, to the log sink, to infrastructure."""
    return frozenset(
        path for interface in interfaces(environment) for path in _common(environment, interface)
    )


def segment_end(segment: Segment) -> str:
    return f"segment {segment.name}"


def service_end(service: str) -> str:
    return f"service {service}"


def mirror_end(interface: str) -> str:
    """Copies of an interface's packets, which AWS sends on its behalf."""
    return f"mirror of {interface}"


def balancer_end(name: str) -> str:
    return f"balancer {name}"


def link_end(link: str) -> str:
    return f"link {link}"


def _declared(environment: Environment) -> Iterator[Path]:
    for flow in environment.particular_flows:
        target = f"host {flow.target.name}"
        for source in _sources(environment, flow):
            if source != target:
                yield Path(source, target, flow.protocol, flow.port, flow.port)
    yield from _published(environment)
    yield from _mirrored(environment)
    for interface in interfaces(environment):
        yield from _common(environment, interface)
    for server in environment.servers.values():
        own = f"host {server.host.name}"
        for egress in server.egress:
            if egress.host and egress.host != server.host:
                target = f"host {egress.host.name}"
                yield Path(own, target, egress.protocol, egress.port, egress.port)
            elif egress.private_link:
                target = link_end(egress.private_link)
                yield Path(own, target, egress.protocol, egress.port, egress.port)
            elif egress.domain and internet_egress.network(environment):
                yield Path(own, FIREWALL, egress.protocol, egress.port, egress.port)
                # Their public addresses are outside too, and a separate route leads there.
                for service in GATEWAY_ENDPOINTS:
                    target = service_end(service)
                    yield Path(own, target, egress.protocol, egress.port, egress.port)
            elif isinstance(egress.cidr, IPv4Network):
                place = (own, server.segment)
                yield from _into(environment, place, egress.cidr, egress.protocol, egress.port)


def _published(environment: Environment) -> Iterator[Path]:
    """Paths from accepted accounts through the load balancer to the gateway."""
    if not (balancer := gateway(environment)):
        return
    own = balancer_end(balancer.name)
    for listener in balancer.listeners:
        port = listener.port
        yield Path(CALLERS, own, "tcp", port, port)
        for host in listener.hosts:
            yield Path(own, f"host {host.name}", "tcp", port, port)


def _mirrored(environment: Environment) -> Iterator[Path]:
    """Paths of mirrored packets. Security groups admit them from every interface; the function
    mirrors all but the sensors."""
    if not (balancer := sensors(environment)):
        return
    own = balancer_end(balancer.name)
    for interface in interfaces(environment):
        yield Path(mirror_end(interface.name), own, "udp", VXLAN, VXLAN)
    for host, protocol, port in balancer.targets:
        yield Path(own, f"host {host.name}", protocol, port, port)


def _common(environment: Environment, interface: Interface) -> Iterator[Path]:
    for service in (*interface_endpoints(environment), S3):
        yield Path(interface.name, service_end(service), "tcp", HTTPS, HTTPS)
    sink = environment.log_sink
    if sink.host and interface.name != f"host {sink.host.name}":
        yield Path(interface.name, f"host {sink.host.name}", "tcp", sink.port, sink.port)
    for address, protocol, port, _ in infrastructure(environment):
        place = (interface.name, interface.segment)
        yield from _into(environment, place, IPv4Network(address), protocol, port)


def _into(
    environment: Environment,
    place: tuple[str, Segment],
    network: IPv4Network,
    protocol: Protocol,
    port: int,
) -> Iterator[Path]:
    """Paths to a network: to its segments, and to interfaces that admit the source's segment."""
    own, segment = place
    for there in environment.segments.values():
        if there.cidr.overlaps(network):
            yield Path(own, segment_end(there), protocol, port, port)
    for flow in environment.particular_flows:
        admitted = (flow.source, flow.protocol, flow.port) == (segment, protocol, port)
        target = f"host {flow.target.name}"
        if admitted and flow.target.segment.cidr.overlaps(network) and target != own:
            yield Path(own, target, protocol, port, port)


def _sources(environment: Environment, flow: Flow) -> Iterator[str]:
    if isinstance(flow.source, Host):
        yield f"host {flow.source.name}"
        return
    yield segment_end(flow.source)
    for host in environment.hosts.values():
        if host.segment == flow.source:
            yield f"host {host.name}"
