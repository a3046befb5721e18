"""Declared and observed connections as one self-contained HTML page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from ringfence.drawing import layout, templates
from ringfence.drawing.picture import Arrow, Block, DiagramNode, Picture
from ringfence.flows.comparison import Comparison, Connection, Totals
from ringfence.manifest.model import Environment

KINDS = {
    "seen": "declared and seen",
    "unused": "declared and never seen",
    "undeclared": "undeclared",
}
"""Kinds of arrows, with their names. The worst kind is drawn last, on top of the others."""

PORTS = 4
"""Number of ports that one arrow names."""

_templates = templates.beside(__file__)


def render(environment: Environment, comparison: Comparison) -> str:
    connections: dict[str, dict[Connection, Totals | None]] = {
        "seen": dict(comparison.seen),
        "unused": dict.fromkeys(comparison.unused),
        "undeclared": dict(comparison.undeclared),
    }
    drawing = layout.of(_picture(environment, comparison), _arrows(environment, connections))
    return _templates.get_template("page.html.j2").render(
        environment=environment,
        comparison=comparison,
        drawing=drawing,
        connections={kind: dict(sorted(found.items())) for kind, found in connections.items()},
        kinds=KINDS,
        removable=len(comparison.unused.keys() & comparison.removable),
        lines=sorted(drawing.lines, key=lambda line: list(KINDS).index(line.kind)),
        when=_when,
    )


def _picture(environment: Environment, comparison: Comparison) -> Picture:
    blocks = tuple(
        Block(
            f"segment {segment.name}",
            segment.purpose,
            segment.name,
            str(segment.cidr),
            (("", str(segment.cidr6)),) if segment.cidr6 else (),
            tuple(
                DiagramNode(f"host {host.name}", "host", host.name, (str(host.address or ""),))
                for host in environment.hosts.values()
                if host.segment == segment
            ),
        )
        for segment in environment.segments.values()
    )
    return Picture(environment.name, environment.name, tuple(_notes(comparison)), blocks, (), ())


def _notes(comparison: Comparison) -> Iterator[str]:
    totals = [*comparison.seen.values(), *comparison.undeclared.values()]
    if totals:
        first, last = min(each.first for each in totals), max(each.last for each in totals)
        yield f"seen from {_when(first)} to {_when(last)}"


def _arrows(
    environment: Environment, connections: dict[str, dict[Connection, Totals | None]]
) -> Sequence[Arrow]:
    """Draw one arrow for all ports between two ends."""
    return [
        Arrow((source,), target, _ports(ports), kind=kind)
        for kind, found in connections.items()
        for (source, target), ports in _between(environment, found).items()
    ]


def _between(
    environment: Environment, connections: Iterable[Connection]
) -> dict[tuple[str, str], list[Connection]]:
    pairs: dict[tuple[str, str], list[Connection]] = defaultdict(list)
    for connection in sorted(connections):
        pairs[_end(environment, connection.source), _end(environment, connection.target)].append(
            connection
        )
    return pairs


def _end(environment: Environment, name: str) -> str:
    """Return the box of an end; an address in a segment has the box of the segment."""
    inside = name.rpartition(" in ")[2]
    return f"segment {inside}" if inside != name and inside in environment.segments else name


def _ports(connections: Iterable[Connection]) -> str:
    by_protocol: dict[str, list[str]] = defaultdict(list)
    for connection in connections:
        by_protocol[connection.protocol].append(str(connection.port or ""))
    most = max(PORTS // len(by_protocol), 2)
    parts = (
        f"{protocol}/{_few(list(dict.fromkeys(ports)), most)}" if any(ports) else protocol
        for protocol, ports in by_protocol.items()
    )
    return " ".join(parts)


def _few(ports: Sequence[str], most: int) -> str:
    """Shorten a list of ports: a scan has hundreds. The tables list all of them."""
    return ",".join(ports) if len(ports) <= most else f"{','.join(ports[: most - 1])},…"


def _when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
