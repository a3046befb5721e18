"""`ringfence flows`: which declared flows were seen, which never, and what nobody declared."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from ringfence.events import record
from ringfence.events.connections import connections
from ringfence.flows.comparison import Comparison, Edge, Seen, compare
from ringfence.inventory import provisioned
from ringfence.manifest.model import Environment

SOURCES = 3
"""Addresses that one line shows."""


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        default=[Path("/dev/stdin")],
        metavar="FILE",
        help="record of a collector, events of Suricata, or a VPC's flow log; otherwise standard "
        "input",
    )
    parser.add_argument("--environment", type=Path, default="inventories/lab/environment.yaml")
    parser.add_argument("--page", type=Path, metavar="FILE", help="also write it as an HTML page")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: Namespace) -> int:
    """Exit status 0: all that was seen is declared; 1: not all; 2: nothing to compare with."""
    environment = Environment.load(args.environment)
    try:
        environment = _with_addresses(environment)
        comparison = compare(environment, connections(record.lines(args.files)))
    except provisioned.ProvisionedError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename}: cannot be read: {error.strerror}", file=sys.stderr)
        return 2
    if not comparison.seen and not comparison.undeclared:
        print(
            "no connection is in this; a sensor's are in /var/log/ringfence/SENSOR/*.jsonl at the "
            "collector, a VPC's in its flow log",
            file=sys.stderr,
        )
        return 2
    if args.page:
        from ringfence.flows import page  # templates take a moment to import

        try:
            args.page.write_text(page.render(environment, comparison))
        except OSError as error:
            print(f"{args.page}: cannot be written: {error.strerror}", file=sys.stderr)
            return 2
    if args.json:
        print(json.dumps(_document(comparison), indent=2))
    else:
        for line in _text(comparison):
            print(line)
    return 1 if comparison.undeclared else 0


def _with_addresses(environment: Environment) -> Environment:
    """Add the addresses of running instances; a contained one has none."""
    environment = provisioned.located(environment, provisioned.instances(environment))
    for host in environment.hosts.values():
        if not host.addresses:
            print(
                f"{host.name} does not run: what was its address has the name of its segment",
                file=sys.stderr,
            )
    return environment


def _text(comparison: Comparison) -> Iterator[str]:
    yield from _part(
        "declared and seen",
        ((edge, _times(seen), comparison.declared[edge]) for edge, seen in comparison.seen.items()),
    )
    unused = {edge: (edge, "", why) for edge, why in comparison.unused.items()}
    removable = unused.keys() & comparison.removable
    yield from _part(
        "in the manifest and never seen, candidates for removal",
        (unused[edge] for edge in removable),
    )
    yield from _part("implied and never seen", (unused[edge] for edge in unused.keys() - removable))
    yield from _part(
        "undeclared",
        ((edge, _times(seen), _whence(seen)) for edge, seen in comparison.undeclared.items()),
    )


def _part(title: str, rows: Iterable[tuple[Edge, str, str]]) -> Iterator[str]:
    cells = sorted((e.source, "->", e.target, e.ports, times, why) for e, times, why in rows)
    yield f"{title}: {len(cells)}"
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield ("  " + "  ".join(map(str.ljust, row, widths))).rstrip()


def _times(seen: Seen) -> str:
    refused = seen.connections - seen.answered
    return f"{seen.connections}" + (f", {refused} without answer" if refused else "")


def _whence(seen: Seen) -> str:
    shown = ", ".join(map(str, sorted(seen.sources, key=int)[:SOURCES]))
    more = f" and {len(seen.sources) - SOURCES} more" if len(seen.sources) > SOURCES else ""
    return f"first {_when(seen.first)}, from {shown}{more}"


def _document(comparison: Comparison) -> dict[str, list[dict[str, object]]]:
    def plain(edge: Edge, **more: object) -> dict[str, object]:
        return {
            "source": edge.source,
            "target": edge.target,
            "protocol": edge.protocol,
            "port": edge.port or None,
        } | more

    def told(seen: Seen) -> dict[str, object]:
        return {
            "connections": seen.connections,
            "answered": seen.answered,
            "bytes": seen.bytes,
            "first": _when(seen.first),
            "last": _when(seen.last),
            "sources": sorted(map(str, seen.sources)),
        }

    return {
        "seen": [
            plain(edge, why=comparison.declared[edge], **told(seen))
            for edge, seen in sorted(comparison.seen.items())
        ],
        "unused": [
            plain(edge, why=why, removable=edge in comparison.removable)
            for edge, why in sorted(comparison.unused.items())
        ],
        "undeclared": [
            plain(edge, **told(seen)) for edge, seen in sorted(comparison.undeclared.items())
        ],
    }


def _when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
