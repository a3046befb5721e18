"""The picture as one HTML page that needs nothing beside itself: no script, no font, no network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from ringfence.cloud.groups import infrastructure
from ringfence.environment import Egress, Environment, Flow, Host
from ringfence.rehearsal import bill, tree
from ringfence.rehearsal.diagram import arrows, layout, picture
from ringfence.rehearsal.record import Rehearsal

if TYPE_CHECKING:
    from ringfence.rehearsal.diagram.layout import Point

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
BEND = 4
"""Radius of the corners of arrows."""


@dataclass(frozen=True)
class Reason:
    source: str
    target: str
    ports: str
    why: str


def render(rehearsal: Rehearsal, environment: Environment) -> str:
    shown = picture.of(rehearsal, environment)
    drawing = layout.of(shown, arrows.drawn(environment))
    return _templates.get_template("page.html.j2").render(
        environment=environment,
        picture=shown,
        drawing=drawing,
        kinds=tuple(dict.fromkeys(line.kind for line in drawing.lines)),
        reasons=tuple(dict.fromkeys(_reasons(environment))),
        of_everyone=tuple(_of_everyone(environment)),
        services=picture.services(rehearsal),
        summary=tree.summary(rehearsal).rpartition(";")[0],
        cost=bill.total(bill.of(rehearsal)),
        curve=_curve,
    )


def _curve(points: tuple[Point, ...]) -> str:
    """A line with round corners."""
    first, *middle, last = points
    parts = [f"M{first[0]:g} {first[1]:g}"]
    for before, corner, after in zip(points, middle, points[2:], strict=False):
        enter, leave = _towards(corner, before), _towards(corner, after)
        parts.append(f"L{enter[0]:g} {enter[1]:g}")
        parts.append(f"Q{corner[0]:g} {corner[1]:g} {leave[0]:g} {leave[1]:g}")
    parts.append(f"L{last[0]:g} {last[1]:g}")
    return "".join(parts)


def _towards(corner: Point, other: Point) -> Point:
    away = (other[0] - corner[0], other[1] - corner[1])
    share = min(BEND / (abs(away[0]) + abs(away[1])), 0.5)
    return corner[0] + away[0] * share, corner[1] + away[1] * share


def _reasons(environment: Environment) -> Iterator[Reason]:
    for flow in (*environment.flows, *environment.forwarding):
        yield Reason(flow.source.name, _target(flow), f"{flow.protocol}/{flow.port}", flow.why)
    for flow in environment.administration:
        yield Reason(flow.source.name, "every host", f"{flow.protocol}/{flow.port}", flow.why)
    for server in environment.servers.values():
        for egress in server.egress:
            ports = f"{egress.protocol}/{egress.port}"
            yield Reason(f"MCP {server.name}", _outward(egress), ports, egress.why)


def _target(flow: Flow) -> str:
    return f"MCP {flow.server} on {flow.target.name}" if flow.server else flow.target.name


def _outward(egress: Egress) -> str:
    if isinstance(egress.host, Host):
        return egress.host.name
    if egress.private_link:
        return f"private link {egress.private_link}"
    return str(egress.domain or egress.cidr)


def _of_everyone(environment: Environment) -> Iterator[Reason]:
    """What is not drawn, since it starts at every host."""
    summed = arrows.summed(environment)
    every = "every host"
    names = _names(path.target for path in summed if path.target.startswith("service "))
    yield Reason(every, names, "tcp/443", "AWS services through their endpoints")
    sink = environment.log_sink
    if sink.host:
        yield Reason(every, sink.host.name, f"tcp/{sink.port}", "log shipping")
    for address, protocol, port, why in infrastructure(environment):
        yield Reason(every, address, f"{protocol}/{port}", why)
    mirrors = {(path.target, path.first) for path in summed if path.source.startswith("mirror ")}
    for target, port in sorted(mirrors):
        yield Reason("copies of packets", target, f"udp/{port}", "traffic mirroring")


def _names(ends: Iterable[str]) -> str:
    return ", ".join(sorted({end.removeprefix("service ") for end in ends}))
