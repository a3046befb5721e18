"""NET: hosts and MCP servers reach what the manifest declares, and nothing else reaches them."""

from __future__ import annotations

import errno
import json
import secrets
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Any

import pytest

from ringfence.manifest.model import Address, Egress, Environment, Host, Server
from ringfence.report import UnverifiedError, not_applicable
from ringfence.verify import probes
from ringfence.verify.targets import Target

UNUSED_PORT = 47999
"""A port without a listener and without a flow."""

ANSWER_SECONDS = 1
LOOPBACK = ("127.0.0.1", "::1")

# Loads the rules of the next boot into a fresh network namespace, to compare.
COMPARE_WITH_BOOT = r"""
command -v nft > /dev/null && systemctl --quiet is-enabled nftables || exit 1
load=$(systemctl show --property=ExecStart --value nftables | sed 's/.*argv\[\]=//; s/ ;.*//')
list="nft --stateless list table inet ringfence &&
  nft --stateless --terse list table arp ringfence &&
  nft --stateless --terse list table ip6 ringfence"  # terse: without remembered neighbours
in_force=$(eval "$list") || exit 1
[ "$in_force" = "$(unshare --net sh -c "$load && $list")" ] || exit 2
"""

NO_TABLE = "nft delete table inet ringfence"
NO_MEMORY = "nft delete table arp ringfence; nft delete table ip6 ringfence"
RELOAD = "systemctl restart nftables"
REMEDY = "apply role firewall"

Destination = tuple[str, str, int]
"""Address, protocol, port."""


@pytest.mark.control("NET-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(NO_TABLE, restore=RELOAD)
def test_other_segments_reach_no_undeclared_port(environment, host, other_host):
    """An intruder with root on one host must find the others closed, whatever its own rules say."""
    targets = [
        (str(address), port)
        for address in host.manifest.addresses
        for port in interesting_ports(environment)
        if not is_declared(environment, other_host.manifest, host.manifest, address, port)
    ]
    answers = on_host(other_host, {"do": "scan", "targets": targets})
    reached = [
        f"{written(address, port)} ({answer})"
        for (address, port), answer in zip(targets, answers, strict=True)
        if answer != "silent"
    ]
    assert not reached, (
        f"{other_host} in segment {other_host.manifest.segment.name} gets an answer from "
        f"{', '.join(reached)}; {REMEDY}"
    )


@pytest.mark.control("NET-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(NO_TABLE, restore=RELOAD)
def test_this_machine_reaches_no_undeclared_port(environment, host):
    """The management segment administers hosts; it need not call their services."""
    targets = [
        (address, port)
        for address in host.manifest.addresses
        if (source := source_towards(address))
        for port in interesting_ports(environment)
        if not admits(environment, source, host.manifest, port)
    ]
    if not targets:
        not_applicable("this machine has no route to the host, or may reach every port of it")
    reached = [written(str(address), port) for address, port in answering(targets)]
    assert not reached, f"this machine gets an answer from {', '.join(reached)}; {REMEDY}"


@pytest.mark.control("NET-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(NO_TABLE, restore=RELOAD)
def test_host_opens_no_undeclared_connection(environment, host):
    """A compromised host calls home or attacks its neighbours: nothing undeclared may leave it."""
    targets = [
        (str(address), "tcp", port)
        for other in environment.hosts.values()
        if other != host.manifest
        for address in other.addresses
        for port in interesting_ports(environment)
        if not is_declared(environment, host.manifest, other, address, port)
    ]
    if not targets:
        not_applicable("the environment has no other host to connect to")
    left = leaks(host, "root", targets)
    assert not left, f"undeclared packets leave the host, to {', '.join(left)}; {REMEDY}"


@pytest.mark.control("NET-02")
@pytest.mark.hosts("mcp_servers")
@pytest.mark.sabotage("nft flush map inet ringfence accounts", restore=RELOAD)
def test_server_reaches_only_its_egress(environment, host, server):
    """A manipulated tool must not reach its neighbours, the host or the network."""
    if not host.user(server.account).exists:
        pytest.fail(f"account {server.account} does not exist; apply role mcp_servers", False)
    targets = list(outside_egress(environment, host.manifest, server))
    left = leaks(host, server.account, targets)
    assert not left, f"{server.account} can send to undeclared {', '.join(left)}; {REMEDY}"


@pytest.mark.control("NET-02")
@pytest.mark.hosts("mcp_servers")
@pytest.mark.sabotage(NO_TABLE, restore=RELOAD)
def test_loopback_is_not_open_to_every_account(host):
    """A service on loopback, behind the TLS frontend, trusts every connection."""
    targets = [(address, "tcp", UNUSED_PORT) for address in LOOPBACK]
    left = leaks(host, "nobody", targets)
    assert not left, f"account nobody can connect to {', '.join(left)}; {REMEDY}"


@pytest.mark.control("NET-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage("systemctl stop ulogd2", restore="systemctl start ulogd2")
def test_refused_connections_are_logged(host):
    """Scans and undeclared connections are noticed only if refusals are logged."""
    port = 48000 + secrets.randbelow(1000)  # random, so no earlier line matches
    leaks(host, "nobody", [(LOOPBACK[0], "tcp", port)])
    command = f"journalctl --quiet --since=-1min --grep='DPT={port} ' --lines=1"
    logged = until(lambda: host.run(command).stdout.strip(), seconds=3)
    assert logged, f"the firewall logs no refused connection; {REMEDY}"


@pytest.mark.control("NET-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(NO_MEMORY, restore=RELOAD)
def test_neighbours_keep_their_addresses(host):
    """An attacker who takes the router's address reads and alters unencrypted traffic."""
    accepted = on_host(host, {"do": "spoof"})
    assert not accepted, (
        f"the host accepts a claim of a neighbour's address over {' and '.join(accepted)}; {REMEDY}"
    )


@pytest.mark.control("NET-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "systemctl stop ringfence-neighbours", restore="systemctl start ringfence-neighbours"
)
def test_neighbours_are_probed_before_they_are_forgotten(host):
    """The kernel forgets idle neighbours without a probe; their addresses could then be claimed."""
    assert host.service("ringfence-neighbours").is_running, (
        f"the service ringfence-neighbours, which probes neighbours, is not running; {REMEDY}"
    )


@pytest.mark.control("NET-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "nft add element inet ringfence inbound4 '{ 192.0.2.0/24 . tcp . 22 }'", restore=RELOAD
)
def test_rules_in_force_are_those_of_the_next_boot(host):
    """A rule added by hand is in no file; a rule only in a file has no effect."""
    compared = host.run(COMPARE_WITH_BOOT)
    assert compared.rc != 1, f"no firewall rules would be loaded at the next boot; {REMEDY}"
    assert compared.rc == 0, (
        f"the firewall rules in force differ from those of the next boot; {REMEDY}"
    )


def on_host(host: Target, request: dict[str, Any]) -> list[Any]:
    """Run the probe `packets` on a host; return its results."""
    done = host.run("python3 -c %s %s", probes.source("packets"), json.dumps(request))
    if done.rc:
        raise UnverifiedError(f"{host} could not send packets: {done.stderr.strip()}")
    return json.loads(done.stdout)


def leaks(host: Target, account: str, targets: Sequence[Destination]) -> list[str]:
    left = on_host(host, {"do": "leak", "account": account, "targets": targets})
    return [
        f"{written(address, port)}/{protocol}"
        for (address, protocol, port), leaves in zip(targets, left, strict=True)
        if leaves
    ]


def interesting_ports(environment: Environment) -> list[int]:
    """Return ports of services, and one without a service."""
    ports = {host.ssh_port for host in environment.hosts.values()}
    ports |= {server.port for server in environment.servers.values()}
    return [*sorted(ports | {environment.log_sink.port}), UNUSED_PORT]


def is_declared(
    environment: Environment, source: Host, target: Host, address: Address, port: int
) -> bool:
    """Return whether the manifest lets a host connect to another, by a flow, service or egress."""
    services = environment.services
    offered = {(str(server), 53) for server in services.dns}
    offered |= {services.package_proxy_endpoint}
    egress = {(e.host, e.port) for server in environment.servers_on(source) for e in server.egress}
    return (
        any(admits(environment, own, target, port) for own in source.addresses)
        or (str(address), port) in offered
        or (target, port) in egress
    )


def admits(environment: Environment, source: Address, target: Host, port: int) -> bool:
    """Return whether a flow leads from an address to a port of a host."""
    return any(
        flow.target == target and flow.port == port and source in network
        for flow in environment.all_flows
        for network in flow.sources
    )


def outside_egress(environment: Environment, host: Host, server: Server) -> Iterator[Destination]:
    """Yield destinations outside a server's egress, also such that answer."""
    candidates: list[tuple[str, int]] = [(address, UNUSED_PORT) for address in LOOPBACK]
    for other in environment.hosts.values():
        for address in map(str, other.addresses):
            candidates += [(address, port) for port in interesting_ports(environment)]
    services = environment.services
    candidates += [(str(address), 53) for address in services.dns]
    candidates += [services.package_proxy_endpoint] if services.package_proxy_endpoint else []
    for address, port in candidates:
        for protocol in ("tcp", "udp"):
            if not any(permits(e, address, protocol, port) for e in server.egress):
                yield address, protocol, port


def permits(egress: Egress, address: str, protocol: str, port: int) -> bool:
    if egress.domain and port == 53:
        return True  # the server resolves a domain first
    target = ip_address(address)
    reached = egress.cidr is not None and target in egress.cidr
    reached = reached or (egress.host is not None and target in egress.host.addresses)
    return reached and (egress.protocol, egress.port) == (protocol, port)


def source_towards(address: Address) -> Address | None:
    """Return this machine's source address towards another, without sending a packet."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
        except OSError:
            return None
        return ip_address(probe.getsockname()[0])


def answering(targets: Iterable[tuple[Address, int]]) -> list[tuple[Address, int]]:
    """Return targets that answer; a refusal counts, since the packet reached the host."""
    answered: list[tuple[Address, int]] = []
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for address, port in targets:
            family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
            connection = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            connection.setblocking(False)
            connection.connect_ex((str(address), port))
            selector.register(connection, selectors.EVENT_WRITE, (connection, address, port))
        end = time.monotonic() + ANSWER_SECONDS
        while selector.get_map() and (rest := end - time.monotonic()) > 0:
            for key, _ in selector.select(rest):
                connection, address, port = key.data
                error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error in (0, errno.ECONNREFUSED):
                    answered.append((address, port))
                selector.unregister(connection)
    return answered


def written(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def until(found: Callable[[], str], seconds: float) -> str:
    """Wait until something is found; logs take a moment."""
    end = time.monotonic() + seconds
    while not (result := found()) and time.monotonic() < end:
        time.sleep(0.2)
    return result
