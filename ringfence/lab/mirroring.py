"""Mirrors all traffic to the sensor in VXLAN, as AWS Traffic Mirroring does.

Every frame is copied once, where it enters the router and before anything can drop it. Frames from
the sensor are not copied: its events about copies would cause an endless loop of copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ringfence.lab.errors import LabError
from ringfence.lab.plan import GATEWAY, Link, Plan, addresses, bridge
from ringfence.lab.process import run

DEVICE = "mirror"
PORT = 4789
"""The VXLAN port (RFC 7348, 8), also of AWS Traffic Mirroring."""
MTU = 1600
"""Large enough for a full frame with its VXLAN headers."""


def up(plan: Plan) -> None:
    if plan.sensor is None:
        return
    _batch(["ip"], _device(plan), plan.router)
    _batch(["ip"], [f"link set eth0 mtu {MTU}"], plan.sensor.namespace)
    # The router copies packets before a network card would segment them and add checksums. Without
    # offloading, the sensor gets packets in the form that they have on the wire.
    plain = ("tx", "off", "tso", "off", "gso", "off")
    _done(["ip", "netns", "exec", plan.router, "ethtool", "-K", DEVICE, *plain])
    cables = [link for _, link in plan.operator]
    cables += [node.link for node in plan.nodes if node != plan.sensor]
    _batch(["tc"], (line for link in cables for line in _copy(link)), plan.router)


def watch(plan: Plan, link: Link) -> None:
    """Mirror another link."""
    if plan.sensor:
        _batch(["tc"], _copy(link), plan.router)


def _device(plan: Plan) -> Iterator[str]:
    assert plan.sensor
    link = plan.sensor.link
    # One address per IP version; IPv4 is first.
    (own, *_), (sensor, *_) = addresses(link.segment, GATEWAY), link.addresses
    yield (
        f"link add {DEVICE} mtu 1500 type vxlan id 1 local {own.ip} remote {sensor.ip} "
        f"dstport {PORT} nolearning"
    )
    for interface in (bridge(link.segment), link.port):
        yield f"link set {interface} mtu {MTU}"
    yield f"link set {DEVICE} up"


def _copy(link: Link) -> Iterator[str]:
    yield f"qdisc add dev {link.port} clsact"
    # Match everything, without the module `matchall`, which some kernels lack.
    yield (
        f"filter add dev {link.port} ingress protocol all u32 match u32 0 0 "
        f"action mirred egress mirror dev {DEVICE}"
    )


def _batch(program: list[str], lines: Iterable[str], namespace: str) -> None:
    _done([*program, "-n", namespace, "-batch", "-"], "\n".join(lines))


def _done(command: list[str], script: str | None = None) -> None:
    done = run(command, input=script)
    if done.returncode:
        raise LabError(f"`{command[0]}` refused a step of the mirroring: {done.stderr.strip()}")
