"""`ringfence flows`: compare observed connections with the manifest."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from ringfence.events import record
from ringfence.events.connections import flow_records
from ringfence.flows.comparison import Comparison, Connection, Totals, compare
from ringfence.inventory import provisioned
from ringfence.manifest.model import Environment

SOURCES = 3
"""Addresses per line."""


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
    parser.add_argument("--page", type=Path, metavar="FILE", help="also write an HTML page")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: Namespace) -> int:
    """Return 0 if every observed connection is declared, 1 if not, 2 if there is none."""
    environment = Environment.load(args.environment)
    try:
        environment = _with_addresses(environment)
        comparison = compare(environment, flow_records(record.lines(args.files)))
    except provisioned.ProvisionedError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename}: cannot be read: {error.strerror}", file=sys.stderr)
        return 2
    if not comparison.seen and not comparison.undeclared:
        print(
            "no connection in the input; a sensor's are in /var/log/ringfence/SENSOR/*.jsonl "
            "at the collector, a VPC in its flow log",
            file=sys.stderr,
        )
        return 2
    if args.page:
        from ringfence.flows import page  # jinja2 takes a moment to import

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
    """Add the addresses of running instances; a contained instance has none."""
    environment = provisioned.with_addresses(environment, provisioned.instances(environment))
    for host in environment.hosts.values():
        if not host.addresses:
            print(
                f"{host.name} is not running; its connections appear as those of its segment",
                file=sys.stderr,
            )
    return environment


def _text(comparison: Comparison) -> Iterator[str]:
    yield from _part(
        "declared and seen",
        (
            (connection, _times(seen), comparison.declared[connection])
            for connection, seen in comparison.seen.items()
        ),
    )
    unused = {c: (c, "", why) for c, why in comparison.unused.items()}
    removable = unused.keys() & comparison.removable
    yield from _part(
        "in the manifest and never seen, candidates for removal",
        (unused[connection] for connection in removable),
    )
    yield from _part("implied and never seen", (unused[c] for c in unused.keys() - removable))
    yield from _part(
        "undeclared",
        (
            (connection, _times(seen), _origin(seen))
            for connection, seen in comparison.undeclared.items()
        ),
    )


def _part(title: str, rows: Iterable[tuple[Connection, str, str]]) -> Iterator[str]:
    cells = sorted((e.source, "->", e.target, e.ports, times, why) for e, times, why in rows)
    yield f"{title}: {len(cells)}"
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield ("  " + "  ".join(map(str.ljust, row, widths))).rstrip()


def _times(seen: Totals) -> str:
    refused = seen.connections - seen.answered
    return f"{seen.connections}" + (f", {refused} without answer" if refused else "")


def _origin(seen: Totals) -> str:
    shown = ", ".join(map(str, sorted(seen.sources, key=int)[:SOURCES]))
    more = f" and {len(seen.sources) - SOURCES} more" if len(seen.sources) > SOURCES else ""
    return f"first {_when(seen.first)}, from {shown}{more}"


def _document(comparison: Comparison) -> dict[str, list[dict[str, object]]]:
    def plain(connection: Connection, **more: object) -> dict[str, object]:
        return {
            "source": connection.source,
            "target": connection.target,
            "protocol": connection.protocol,
            "port": connection.port or None,
        } | more

    def totals(seen: Totals) -> dict[str, object]:
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
            plain(connection, why=comparison.declared[connection], **totals(seen))
            for connection, seen in sorted(comparison.seen.items())
        ],
        "unused": [
            plain(connection, why=why, removable=connection in comparison.removable)
            for connection, why in sorted(comparison.unused.items())
        ],
        "undeclared": [
            plain(connection, **totals(seen))
            for connection, seen in sorted(comparison.undeclared.items())
        ],
    }


def _when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
