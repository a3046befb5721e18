"""Declared connections as named paths, drawn with few arrows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from ringfence.cloud.flows import Path
from ringfence.drawing.arrows import merged
from ringfence.drawing.picture import Arrow, NothingToDrawError
from ringfence.flows.comparison import compare
from ringfence.manifest.model import Environment

PORTS = 18
"""Longest text of the ports of one arrow, in characters."""

DeclaredPaths = Mapping[Path, str]
"""Every declared path with its reason."""


def declared(environment: Environment) -> DeclaredPaths:
    """Return the paths that hosts' firewalls allow, the same that `ringfence flows` uses.

    Raises `NothingToDrawError`.
    """
    nowhere = [host.name for host in environment.hosts.values() if not host.addresses]
    if nowhere:
        raise NothingToDrawError(
            f"{', '.join(nowhere)} of {environment.name}: no address in the manifest; what a stack "
            "provisions is drawn by `ringfence rehearse --diagram`"
        )
    return {
        Path(edge.source, edge.target, edge.protocol, edge.port, edge.port): why
        for edge, why in sorted(compare(environment, ()).declared.items())
    }


def arrows(environment: Environment, paths: DeclaredPaths) -> tuple[Arrow, ...]:
    """Return arrows that show every path."""
    kinds: dict[tuple[str, tuple[str, ...], bool], list[Arrow]] = defaultdict(list)
    for arrow in merged(environment, paths):
        kinds[arrow.target, arrow.sources, arrow.every].append(arrow)
    return tuple(
        Arrow(sources, target, ports, paths, every)
        for (target, sources, every), found in kinds.items()
        for ports, paths in _by_ports(path for arrow in found for path in arrow.paths)
    )


def _by_ports(paths: Iterable[Path]) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Group ports so that those of each arrow fit on it."""
    text, own = "", []
    for ports, found in _ranges(paths):
        longer = f"{text} {ports}".strip()
        if text and len(longer) > PORTS:
            yield text, tuple(own)
            text, own = ports, found
        else:
            text, own = longer, [*own, *found]
    yield text, tuple(own)


def _ranges(paths: Iterable[Path]) -> Iterator[tuple[str, list[Path]]]:
    """Join consecutive ports."""
    by_port: dict[tuple[str, int], list[Path]] = defaultdict(list)
    for path in paths:
        by_port[path.protocol, path.first].append(path)
    # In a range, the port minus its position in the order is constant.
    numbered = enumerate(sorted(by_port))
    for (protocol, _), row in groupby(numbered, lambda each: (each[1][0], each[1][1] - each[0])):
        ports = [port for _, (_, port) in row]
        found = [path for port in ports for path in by_port[protocol, port]]
        whole = Path("", "", protocol, ports[0], ports[-1])
        yield whole.ports, found
