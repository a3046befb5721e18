"""Hosts: their names, their addresses, and what listens on them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

from ringfence.validation.cursor import Cursor
from ringfence.validation.finding import Finding, dotted, quoted
from ringfence.validation.rules.network import Network, address, network
from ringfence.validation.rules.reference import exists

TAKEN = {
    "localhost": "the loopback name of every host",
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
"""Of a host name in Linux, and of a common name in a certificate."""
SSH_PORT = 22
SINK_PORT = 2514


def names_are_free(manifest: Cursor) -> Iterator[Finding]:
    for name, host in manifest["hosts"].entries():
        if name in TAKEN:
            message = f"the name is taken by {TAKEN[name]}; rename the host, say to {name}-1"
            yield host.finding(message, on_key=True)


def full_names_fit(manifest: Cursor) -> Iterator[Finding]:
    domain = manifest.at("network", "domain").text
    for name, host in manifest["hosts"].entries() if domain else ():
        length = len(f"{name}.{domain}")
        if length > LONGEST_NAME:
            message = (
                f"the name with its domain has {length} characters, {LONGEST_NAME} are possible; "
                "shorten the host's name or the domain"
            )
            yield host.finding(message, on_key=True)


def segments_exist(manifest: Cursor) -> Iterator[Finding]:
    for _, host in manifest["hosts"].entries():
        yield from exists(host["segment"], manifest.at("network", "segments"), "segment")


def addresses_are_given(manifest: Cursor) -> Iterator[Finding]:
    if "provisioning" in manifest:
        return
    for _, host in manifest["hosts"].entries():
        if host.is_mapping and "address" not in host:
            yield host["address"].finding(
                "the host has no address and nothing provisions it; "
                "add its 'address', or 'provisioning' to the document"
            )


def addresses_lie_in_their_segment(manifest: Cursor) -> Iterator[Finding]:
    segments = manifest.at("network", "segments")
    for _, host in manifest["hosts"].entries():
        segment = segments[host["segment"].text or ""]
        for key, cidr, version in (("address", "cidr", 4), ("address6", "cidr6", 6)):
            given = host[key]
            if given.text is None:
                continue
            parsed = address(given, version)
            if not parsed:
                yield given.finding(
                    f"{quoted(given.text)} is not an IPv{version} address; "
                    f"write it like {'fd00:20:30::11' if version == 6 else '10.20.30.11'}"
                )
            elif within := network(segment[cidr], version):
                where = f"segment {quoted(segment.name)} ({within})"
                if parsed not in within:
                    yield given.finding(f"{parsed} is outside {where}; choose one inside")
                elif reserved := _reserved(within).get(int(parsed)):
                    yield given.finding(f"{parsed} is {reserved} of {where}; choose another")
            elif segment.is_mapping and cidr not in segment:
                yield given.finding(
                    f"segment {quoted(segment.name)} has no IPv{version} network; "
                    f"add its '{cidr}', or remove this address"
                )


def _reserved(within: Network) -> dict[int, str]:
    first = int(within.network_address)
    reserved = {first: "the network address", first + 1: "the router"}
    if isinstance(within, IPv4Network):
        reserved[int(within.broadcast_address)] = "the broadcast address"
    return reserved


def addresses_are_unique(manifest: Cursor) -> Iterator[Finding]:
    owners: dict[object, str] = {}
    for name, host in manifest["hosts"].entries():
        for key, version in (("address", 4), ("address6", 6)):
            if parsed := address(host[key], version):
                owner = owners.setdefault(parsed, name)
                if owner != name:
                    yield host[key].finding(
                        f"{parsed} is the address of host {quoted(owner)} already; choose another"
                    )


def ports_are_unique(manifest: Cursor) -> Iterator[Finding]:
    """Of what listens on one host, or in one segment where servers name no host."""
    users: dict[tuple[str, str, int], str] = {}
    hosts = manifest["hosts"]
    for name, host in hosts.entries():
        port = host["ssh_port"].number
        users["host", name, SSH_PORT if port is None else port] = f"SSH of host {quoted(name)}"
    claims: list[tuple[str, str, Cursor, int, str]] = []
    sink = manifest["log_sink"]
    if sink["kind"].text == "collector" and (host := sink["host"].text):
        port = sink["port"].number
        claims.append(("host", host, sink["port"], SINK_PORT if port is None else port, "log_sink"))
    for _, server in manifest["servers"].entries():
        port = server["port"].number
        if port is None:
            continue
        for kind in ("host", "segment"):
            if place := server[kind].text:
                claims.append((kind, place, server["port"], port, dotted(server.path)))
                break
    for kind, place, cursor, port, what in claims:
        other = users.setdefault((kind, place, port), what)
        if other != what:
            yield cursor.finding(
                f"port {port} on {kind} {quoted(place)} is taken by {other}; choose another"
            )
