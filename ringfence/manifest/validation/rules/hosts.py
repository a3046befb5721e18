"""Hosts: names, addresses, and listening ports."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

from ringfence.manifest import defaults
from ringfence.manifest.parts import own_host
from ringfence.manifest.validation.cursor import Cursor
from ringfence.manifest.validation.problem import Violation, dotted
from ringfence.manifest.validation.rules.network import Network, address, network
from ringfence.manifest.validation.rules.reference import exists
from ringfence.manifest.validation.wording import quoted

TAKEN = {
    "localhost": "the loopback interface",
    "router": "the lab's router",
    "client": "the lab's client",
    "operator": "the lab's operator",
    "all": "an Ansible group",
    "ungrouped": "an Ansible group",
    "edge": "a group of hosts",
    "siem": "a group of hosts",
    "sensor": "a group of hosts",
    "data": "a group of hosts",
}
LONGEST_NAME = 64
"""Limit of a host name in Linux, and of a common name in a certificate."""
HEALTH_PORT = 14789
"""The port on which a sensor in AWS answers its load balancer (`ringfence.cloud.balancers`)."""


def names_are_free(manifest: Cursor) -> Iterator[Violation]:
    for name, host in manifest["hosts"].entries():
        if name in TAKEN:
            message = f"this is the name of {TAKEN[name]}; rename the host, for example to {name}-1"
            yield host.violation(message, on_key=True)


def own_host_of(name: str, server: Cursor) -> str | None:
    """Return the name of the host that a server gets if it names none."""
    return own_host(name) if server.is_mapping and "host" not in server else None


def names_of_own_hosts_are_free(manifest: Cursor) -> Iterator[Violation]:
    for name, server in manifest["servers"].entries():
        own = own_host_of(name, server)
        if "provisioning" in manifest and own and own in manifest["hosts"]:
            yield manifest["hosts"][own].violation(
                f"server {quoted(name)} names no host, so it gets one with this name; "
                f"rename this one, or add 'host: {own}' to the server",
                on_key=True,
            )


def full_names_fit(manifest: Cursor) -> Iterator[Violation]:
    domain = manifest.at("network", "domain").text
    named = [
        *manifest["hosts"].entries(),
        *(
            (own, server)
            for name, server in manifest["servers"].entries()
            if "provisioning" in manifest and (own := own_host_of(name, server))
        ),
    ]
    for name, host in named if domain else ():
        length = len(f"{name}.{domain}")
        if length > LONGEST_NAME:
            message = (
                f"the name with its domain has {length} characters, the limit is {LONGEST_NAME}; "
                "shorten the host's name or the domain"
            )
            yield host.violation(message, on_key=True)


def segments_exist(manifest: Cursor) -> Iterator[Violation]:
    for _, host in manifest["hosts"].entries():
        yield from exists(host["segment"], manifest.at("network", "segments"), "segment")


def addresses_are_given(manifest: Cursor) -> Iterator[Violation]:
    if "provisioning" in manifest:
        return
    for _, host in manifest["hosts"].entries():
        if host.is_mapping and "address" not in host:
            yield host["address"].violation(
                "the host has no address and nothing provisions it; "
                "add its 'address', or 'provisioning' to the document"
            )


def addresses_lie_in_their_segment(manifest: Cursor) -> Iterator[Violation]:
    segments = manifest.at("network", "segments")
    for _, host in manifest["hosts"].entries():
        segment = segments[host["segment"].text or ""]
        for key, cidr, version in (("address", "cidr", 4), ("address6", "cidr6", 6)):
            given = host[key]
            if given.text is None:
                continue
            parsed = address(given, version)
            if not parsed:
                yield given.violation(
                    f"{quoted(given.text)} is not an IPv{version} address; "
                    f"write it like {'fd00:20:30::11' if version == 6 else '10.20.30.11'}"
                )
            elif within := network(segment[cidr], version):
                where = f"segment {quoted(segment.name)} ({within})"
                if parsed not in within:
                    yield given.violation(f"{parsed} is outside {where}; choose one inside")
                elif reserved := _reserved(within).get(int(parsed)):
                    yield given.violation(f"{parsed} is {reserved} of {where}; choose another")
            elif segment.is_mapping and cidr not in segment:
                yield given.violation(
                    f"segment {quoted(segment.name)} has no IPv{version} network; "
                    f"add its '{cidr}', or remove this address"
                )


def _reserved(within: Network) -> dict[int, str]:
    first = int(within.network_address)
    reserved = {first: "the network address", first + 1: "the router"}
    if isinstance(within, IPv4Network):
        reserved[int(within.broadcast_address)] = "the broadcast address"
    return reserved


def addresses_are_unique(manifest: Cursor) -> Iterator[Violation]:
    owners: dict[object, str] = {}
    for name, host in manifest["hosts"].entries():
        for key, version in (("address", 4), ("address6", 6)):
            if parsed := address(host[key], version):
                owner = owners.setdefault(parsed, name)
                if owner != name:
                    yield host[key].violation(
                        f"{parsed} is the address of host {quoted(owner)} already; choose another"
                    )


def ports_are_unique(manifest: Cursor) -> Iterator[Violation]:
    """Two programs on one host cannot listen on the same port."""
    users: dict[tuple[str, int], str] = {}
    hosts = manifest["hosts"]
    for name, host in hosts.entries():
        if (port := host["ssh_port"].number) is not None:
            users[name, port] = f"SSH of host {quoted(name)}"
    claims: list[tuple[str, Cursor, int, str]] = []
    sink = manifest["log_sink"]
    port = sink["port"].number
    if sink["kind"].text == "collector" and (host := sink["host"].text) and port is not None:
        claims.append((host, sink["port"], port, "log_sink"))
    gateway_port = manifest.at("gateway", "port")
    own_ssh_port = defaults.fill({}, "hosts", "mcp-NAME")["ssh_port"]
    for name, host in hosts.entries():
        if gateway_port.number is not None and "edge" in host["groups"].texts():
            claims.append((name, gateway_port, gateway_port.number, "the gateway"))
        if "provisioning" in manifest and "sensor" in host["groups"].texts():
            claims.append((name, host, HEALTH_PORT, "the sensor's answer to its load balancer"))
    for name, server in manifest["servers"].entries():
        port, place = server["port"].number, server["host"].text or own_host_of(name, server)
        if port is not None and place:
            if place not in hosts:
                users[place, own_ssh_port] = f"SSH of host {quoted(place)}"
            claims.append((place, server["port"], port, dotted(server.path)))
    for place, cursor, port, what in claims:
        other = users.setdefault((place, port), what)
        if other != what:
            yield cursor.violation(
                f"port {port} on host {quoted(place)} is used by {other}; choose another"
            )
