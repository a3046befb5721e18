"""Prints the gateway's decisions, a line each, from its audit log or the collector's record.

It proves nothing about the input: `python -m ringfence.gateway.audit verify` does.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from ringfence.events import record
from ringfence.events.ocsf import RecordedDecision, decisions, last_of_each_request


def table(decisions: Iterable[RecordedDecision]) -> Iterator[str]:
    rows = [_cells(each) for each in decisions]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def _cells(decision: RecordedDecision) -> tuple[str, ...]:
    """Return time, caller, server, operation, outcome and reason, without control characters."""
    cells = (
        f"{datetime.fromtimestamp(decision.time, UTC):%Y-%m-%d %H:%M:%S}",
        decision.principal,
        decision.server,
        " ".join(filter(None, (decision.operation, decision.target))),
        "no end" if decision.is_unfinished else decision.outcome,
        _reason(decision),
    )
    return tuple("".join(c if c.isprintable() else "�" for c in cell) for cell in cells)


def _reason(decision: RecordedDecision) -> str:
    findings = ", ".join(f"{number} {kind}" for kind, number in decision.findings)
    says_more = decision.reason != decision.outcome and not decision.is_unfinished
    parts = (
        decision.reason if says_more else "",
        f"by {', '.join(decision.policies)}" if decision.policies else "",
        f"{decision.treatment}: {findings}" if decision.treatment != "none" else "",
        f"grant {decision.grant[:8]}" if decision.grant else "",
    )
    return "; ".join(filter(None, parts))


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        default=[Path("/dev/stdin")],
        metavar="FILE",
        help="audit log of a gateway, or record of a collector (default: standard input)",
    )
    parser.add_argument("--principal", help="only calls of this principal")
    parser.add_argument("--server", help="only calls of this server")
    parser.add_argument("--refused", action="store_true", help="only calls that were not allowed")
    parser.add_argument("--all", action="store_true", help="also lists of what is offered")


def run(args: Namespace) -> int:
    try:
        found = last_of_each_request(decisions(record.lines(args.files)))
    except OSError as error:
        print(f"{error.filename}: cannot be read: {error.strerror}", file=sys.stderr)
        return 2
    selected = (
        each
        for each in found
        if args.principal in (None, each.principal)
        and args.server in (None, each.server)
        and not (args.refused and each.outcome == "allowed")
        and (args.all or not each.is_listing)
    )
    for line in table(selected):
        print(line)
    if not found:
        print(
            "the input has no decision of a gateway; its log is /var/log/ringfence-gateway/*.jsonl "
            "on its host, and /var/log/ringfence/HOST/*.jsonl at the collector",
            file=sys.stderr,
        )
    return 0 if found else 1
