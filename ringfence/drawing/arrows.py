"""Merges paths into arrows, so that one line stands for several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ringfence.cloud import flows
from ringfence.cloud.flows import Path
from ringfence.drawing.picture import Arrow
from ringfence.manifest.model import Environment


def merged(environment: Environment, paths: Iterable[Path]) -> tuple[Arrow, ...]:
    """Merge paths; each is in exactly one arrow."""
    return tuple(sorted(_merged(environment, paths), key=lambda a: (a.target, a.ports, a.sources)))


def _merged(environment: Environment, paths: Iterable[Path]) -> Iterable[Arrow]:
    by_sources: dict[tuple[tuple[str, ...], str], dict[str, list[Path]]] = defaultdict(dict)
    for (target, ports), found in _by_target(paths).items():
        for sources, own in _by_sources(environment, found).items():
            by_sources[sources, ports][target] = own
    for (sources, ports), targets in by_sources.items():
        yield from _by_segment(environment, sources, ports, targets)


def _by_target(paths: Iterable[Path]) -> dict[tuple[str, str], list[Path]]:
    found: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in sorted(paths):
        found[path.target, path.ports].append(path)
    return found


def _by_sources(environment: Environment, paths: list[Path]) -> dict[tuple[str, ...], list[Path]]:
    """Group paths by source. A segment stands for its hosts; its other hosts are merged."""
    segments = {path.source for path in paths if path.source.startswith("segment ")}
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[_home(environment, path.source) or path.source].append(path)
    return {
        (home,) if home in segments else tuple(path.source for path in own): own
        for home, own in groups.items()
    }


def _by_segment(
    environment: Environment,
    sources: tuple[str, ...],
    ports: str,
    targets: dict[str, list[Path]],
) -> Iterable[Arrow]:
    """Lead an arrow to a segment if all its hosts are targets, among others."""
    left = dict(targets)
    for segment in environment.segments.values():
        hosts = {f"host {h.name}" for h in environment.hosts.values() if h.segment == segment}
        hosts -= set(sources)
        if hosts and hosts <= set(targets) and len(targets) > 1:
            paths = tuple(path for host in sorted(hosts) for path in left.pop(host))
            yield Arrow(sources, flows.segment_end(segment), ports, paths, every=True)
    for target, paths in left.items():
        yield Arrow(sources, target, ports, tuple(paths))


def _home(environment: Environment, end: str) -> str | None:
    kind, _, name = end.partition(" ")
    if kind == "host" and name in environment.hosts:
        return flows.segment_end(environment.hosts[name].segment)
    return None
