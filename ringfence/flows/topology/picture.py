"""Picture of a manifest's network."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from ringfence.cloud.balancers import VXLAN
from ringfence.cloud.flows import segment_end
from ringfence.drawing.picture import ROUTER, Arrow, Block, DiagramNode, Picture, wrapped
from ringfence.flows.topology.paths import DeclaredPaths
from ringfence.manifest.model import Address, Environment, Host, Network, Segment

MIRRORED = "mirrored"
"""Kind of the arrows of mirrored packets."""
LINE = 27
"""Longest line in a box, in characters."""


def of(environment: Environment, paths: DeclaredPaths) -> Picture:
    addresses = {end: why for end, why in _named(paths) if " in " in end}
    segments = environment.segments.values()
    return Picture(
        environment.name,
        environment.name,
        (_counted(len(environment.hosts), "host"), _counted(len(segments), "segment")),
        (*(_block(environment, each, addresses) for each in segments), _router(environment, paths)),
        _outside(environment, paths),
        (),
    )


def mirrored(environment: Environment) -> tuple[Arrow, ...]:
    return tuple(
        Arrow((ROUTER,), f"host {sensor.name}", f"udp/{VXLAN}", kind=MIRRORED)
        for sensor in environment.group("sensor")
    )


def _block(environment: Environment, segment: Segment, addresses: dict[str, str]) -> Block:
    own = [host for host in environment.hosts.values() if host.segment == segment]
    others = [end for end in addresses if end.endswith(f" in {segment.name}")]
    return Block(
        segment_end(segment),
        segment.purpose,
        segment.name,
        str(segment.cidr),
        tuple(("", line) for line in (_address(segment.cidr6) if segment.cidr6 else ())),
        (
            *(
                DiagramNode(f"host {h.name}", "host", h.name, tuple(_host(environment, h)))
                for h in own
            ),
            *(
                DiagramNode(end, "address", addresses[end], tuple(_address(end.partition(" ")[0])))
                for end in sorted(others)
            ),
        ),
    )


def _host(environment: Environment, host: Host) -> Iterator[str]:
    for address in host.addresses:
        yield from _address(address)
    if environment.gateway and host in environment.group("edge"):
        yield "MCP gateway"
    if host in environment.group("sensor"):
        yield "sensor"
    if host == environment.log_sink.host:
        yield "log collector"
    yield from wrapped([f"MCP {server.name}" for server in environment.servers_on(host)])


def _router(environment: Environment, paths: DeclaredPaths) -> Block:
    homes = {f"host {h.name}": h.segment.name for h in environment.hosts.values()}
    between = sum(
        homes.get(path.source, path.source.rpartition(" ")[2])
        != homes.get(path.target, path.target.rpartition(" ")[2])
        for path in paths
    )
    lists = (
        f"{_counted(between, 'flow')} between segments,",
        "as arrows show them,",
        "and no other",
    )
    copied = ("copies every packet, but", "what sensors send, in VXLAN")
    return Block(
        ROUTER,
        ROUTER,
        "router",
        "in every segment",
        tuple(("", line) for line in copied if environment.group("sensor")),
        (DiagramNode("access lists", ROUTER, "access lists", lists),),
    )


def _outside(environment: Environment, paths: DeclaredPaths) -> tuple[DiagramNode, ...]:
    known = {f"host {name}" for name in environment.hosts}
    known |= {segment_end(segment) for segment in environment.segments.values()}
    found = {end: why for end, why in _named(paths) if end not in known and " in " not in end}
    if not found:
        return (DiagramNode("outside", "outside", "outside", ("no flow leads there",)),)
    return tuple(
        DiagramNode(end, "outside", "outside", (*_address(end), *_why(why)))
        for end, why in sorted(found.items())
    )


def _named(paths: DeclaredPaths) -> Iterator[tuple[str, str]]:
    for path, why in paths.items():
        yield path.source, why
        yield path.target, why


def _why(text: str) -> list[str]:
    return textwrap.wrap(text, LINE, max_lines=2, placeholder="…")


def _address(address: Address | Network | str) -> list[str]:
    """Split an address into lines; an IPv6 address may need two."""
    return re.findall(rf".{{1,{LINE}}}(?::|$)|.{{1,{LINE}}}", str(address))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
