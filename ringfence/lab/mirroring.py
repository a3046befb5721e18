"""Copies of all traffic for the sensor, as AWS Traffic Mirroring delivers them: in VXLAN.

Every frame is copied once, where it comes out of a cable and before anything can drop it. What
the sensor sends itself is not: copies of what it says about copies would never end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ringfence.lab.errors import LabError
from ringfence.lab.plan import GATEWAY, Link, Plan, addresses, bridge
from ringfence.lab.process import run

DEVICE = "mirror"
PORT = 4789
"""RFC 7348, 8; AWS sends mirrored traffic there as well."""
MTU = 1600
"""On the way to the sensor: a full frame with what VXLAN puts around it."""


def up(plan: Plan) -> None:
    if plan.sensor is None:
        return
    _batch(["ip"], _device(plan), plan.router)
    _batch(["ip"], [f"link set eth0 mtu {MTU}"], plan.sensor.namespace)
    # Copies are made of what is on its way, before a network card would have cut it into frames
    # and filled in checksums. A sensor must see what a cable carries.
    plain = ("tx", "off", "tso", "off", "gso", "off")
    _done(["ip", "netns", "exec", plan.router, "ethtool", "-K", DEVICE, *plain])
    cables = [link for _, link in plan.operator]
    cables += [node.link for node in plan.nodes if node != plan.sensor]
    _batch(["tc"], (line for link in cables for line in _copy(link)), plan.router)


def watch(plan: Plan, link: Link) -> None:
    """One more cable."""
    if plan.sensor:
        _batch(["tc"], _copy(link), plan.router)


def _device(plan: Plan) -> Iterator[str]:
    assert plan.sensor
    link = plan.sensor.link
    # As many as the segment has families, the first of them IPv4.
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
    # Everything: zero bits of the first word are zero. Kernels without `matchall` know this.
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
