"""The lab's network: a router namespace with one bridge per segment, and links to all nodes.

All bridges are in the router's namespace, so this machine's firewall and other networks do not
change. This machine has one link per management segment. The lab sets the addresses of hosts from
outside before they boot; the addresses remain when a host stops.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

from ringfence.lab import mirroring
from ringfence.lab.errors import LabError, UnusableError
from ringfence.lab.plan import (
    GATEWAY,
    LabNode,
    Link,
    Plan,
    addresses,
    bridge,
    hardware_address,
    namespace_prefix,
    operator_prefix,
)
from ringfence.lab.process import run

NAMESPACES = Path("/run/netns")
NAMESPACE_FILES = Path("/etc/netns")
"""Directory of files that `ip netns exec` mounts over those of /etc."""

FORWARD = """
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
# Packets within a segment pass no firewall rule, whatever this machine uses bridges for.
for call in /proc/sys/net/bridge/bridge-nf-call-*; do
  [ ! -e "$call" ] || echo 0 > "$call"
done
"""


def up(plan: Plan) -> None:
    """Build the network; first remove the remains of an interrupted attempt."""
    down(plan.name)
    _refuse_overlap(plan)
    for namespace in plan.namespaces:
        _ip("netns", "add", namespace)
    _ip("netns", "exec", plan.router, "/bin/sh", "-euc", FORWARD)
    _batch(plan.router, _router(plan))
    for number, (interface, link) in enumerate(plan.operator):
        _batch(None, _operator(plan, interface, link))
        _batch(plan.router, _attach(link))
        if number == 0:
            _batch(None, _operator_routes(plan, link))
    for node in plan.nodes:
        _place(plan, node)
    mirroring.up(plan)


def is_up(plan: Plan) -> bool:
    interfaces = {link["ifname"] for link in _ip_json("link", "show")}
    return all((NAMESPACES / name).exists() for name in plan.namespaces) and all(
        interface in interfaces for interface, _ in plan.operator
    )


def down(lab: str) -> None:
    """Remove everything whose name belongs to the lab."""
    for namespace in namespaces(lab):
        _ip("netns", "delete", namespace)
    for link in _ip_json("link", "show"):
        # The kernel would remove the link with the router's namespace, but later.
        if link["ifname"].startswith(operator_prefix(lab)):
            _ip("link", "delete", link["ifname"], missing_ok=True)
    for directory in NAMESPACE_FILES.glob(f"{namespace_prefix(lab)}*"):
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()
    if NAMESPACE_FILES.is_dir() and not any(NAMESPACE_FILES.iterdir()):
        NAMESPACE_FILES.rmdir()


def namespaces(lab: str) -> list[str]:
    return sorted(path.name for path in NAMESPACES.glob(f"{namespace_prefix(lab)}*"))


def intrude(plan: Plan, node: LabNode) -> None:
    """Connect an attacker's node to its segment; its traffic is mirrored as well."""
    withdraw(plan, node)
    _ip("netns", "add", node.namespace)
    _place(plan, node)
    mirroring.watch(plan, node.link)


def withdraw(plan: Plan, node: LabNode) -> None:
    if (NAMESPACES / node.namespace).exists():
        # The kernel would remove the link with the namespace, but later.
        _ip("-n", plan.router, "link", "delete", node.link.port, missing_ok=True)
        _ip("netns", "delete", node.namespace)


def disconnect(plan: Plan, node: LabNode) -> None:
    """Disconnect a node from its network."""
    _ip("-n", plan.router, "link", "set", node.link.port, "down")


def reconnect(plan: Plan, node: LabNode) -> None:
    _ip("-n", plan.router, "link", "set", node.link.port, "up")


def is_disconnected(plan: Plan, node: LabNode) -> bool:
    (link,) = _ip_json("-n", plan.router, "link", "show", "dev", node.link.port)
    return "UP" not in link["flags"]


def _place(plan: Plan, node: LabNode) -> None:
    _batch(plan.router, [*_cable(plan, node), *_attach(node.link)])
    _batch(node.namespace, _node(node))
    _write_names(plan, node)


def _router(plan: Plan) -> Iterable[str]:
    yield "link set lo up"
    for segment in plan.environment.segments.values():
        name = bridge(segment)
        # Multicast snooping would drop neighbour discovery until the bridge knows the listeners.
        yield (
            f"link add {name} address {hardware_address(plan.name, name)} "
            "type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        )
        for interface in addresses(segment, GATEWAY):
            yield _address(name, interface)
        yield f"link set {name} up"


def _operator(plan: Plan, interface: str, link: Link) -> Iterable[str]:
    yield (
        f"link add {interface} address {hardware_address(plan.name, interface)} "
        f"type veth peer name {link.port} netns {plan.router}"
    )
    yield f"link set {interface} alias ringfence-lab-{plan.name}"
    for address in link.addresses:
        yield _address(interface, address)
    yield f"link set {interface} up"


def _operator_routes(plan: Plan, link: Link) -> Iterable[str]:
    """Yield routes from this machine to the segments where it has no link."""
    attached = {other.segment.name for _, other in plan.operator}
    gateways = {gateway.version: gateway for gateway in link.gateways}
    for segment in plan.environment.segments.values():
        for network in segment.networks:
            if segment.name not in attached and network.version in gateways:
                yield f"route add {network} via {gateways[network.version]}"


def _cable(plan: Plan, node: LabNode) -> Iterable[str]:
    yield (
        f"link add {node.link.port} type veth peer name eth0 "
        f"address {hardware_address(plan.name, node.name)} netns {node.namespace}"
    )


def _attach(link: Link) -> Iterable[str]:
    yield f"link set {link.port} master {link.bridge}"
    yield f"link set {link.port} up"


def _node(node: LabNode) -> Iterable[str]:
    yield "link set lo up"
    yield "link set eth0 up"
    for address in node.link.addresses:
        yield _address("eth0", address)
    versions = {address.version for address in node.link.addresses}
    for gateway in node.link.gateways:
        if gateway.version in versions:
            yield f"route add default via {gateway}"


def _address(interface: str, address: object) -> str:
    # Duplicate address detection takes a second; the manifest already ensures unique addresses.
    nodad = " nodad" if ":" in str(address) else ""
    return f"addr add {address} dev {interface}{nodad}"


def _write_names(plan: Plan, node: LabNode) -> None:
    """Write /etc/hosts for a client; a host has its own file."""
    if node.host:
        return
    directory = NAMESPACE_FILES / node.namespace
    directory.mkdir(parents=True, exist_ok=True)
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    lines += [f"{address} {' '.join(names)}" for address, names in plan.names]
    (directory / "hosts").write_text("\n".join(lines) + "\n")


def _refuse_overlap(plan: Plan) -> None:
    """Raise `UnusableError` if this machine has routes to the lab's addresses."""
    routes = [
        (ip_network(route["dst"], strict=False), route.get("dev", "?"))
        for version in ("-4", "-6")
        for route in _ip_json(version, "route", "show")
        if route["dst"] != "default"
    ]
    for segment in plan.environment.segments.values():
        for network in segment.networks:
            for other, device in routes:
                if network.version == other.version and network.overlaps(other):
                    raise UnusableError(
                        f"segment {segment.name} ({network}) overlaps {other}, which this machine "
                        f"reaches through {device}; choose other addresses, or take down the lab "
                        "that has them (ringfence lab down --all)"
                    )


def _ip(*args: str, missing_ok: bool = False) -> str:
    done = run(["ip", *args])
    if done.returncode and not missing_ok:
        raise LabError(f"`ip {' '.join(args)}` failed: {done.stderr.strip()}")
    return done.stdout


def _ip_json(*args: str) -> list[dict]:
    return json.loads(_ip("-json", *args) or "[]")


def _batch(namespace: str | None, lines: Iterable[str]) -> None:
    """Run many `ip` commands in one process; stop at the first that fails."""
    within = ["-n", namespace] if namespace else []
    script = "\n".join(lines)
    done = run(["ip", *within, "-batch", "-"], input=script)
    if done.returncode:
        raise LabError(f"`ip` refused a step of the lab's network: {done.stderr.strip()}")
