"""What the gateway decided, a line each, from its audit log or from the collector's record of it.

Reads only what it is given and proves nothing: `python -m ringfence.gateway.audit verify` does.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ringfence.events import record

API_ACTIVITY = 6003
"""OCSF class of a decision; other lines of the log are about the log."""
FORWARDED = "forwarded"
"""A call was let through; what came of it is another line, unless something broke first."""
LOOKS = {"initialize", "ping", "server/discover", "grants/list"}


@dataclass(frozen=True)
class Decision:
    request: str
    time: float
    """Unix seconds."""
    principal: str
    address: str
    server: str
    operation: str
    subject: str | None
    """A tool, a prompt, the pattern of a resource; None: the server itself."""
    outcome: str
    """`allowed`, `denied` or `failed`."""
    reason: str
    policies: tuple[str, ...]
    treatment: str
    """What inspection did: `none`, `flagged`, `redacted` or `blocked`."""
    findings: tuple[tuple[str, int], ...]
    grant: str | None

    @property
    def looks_only(self) -> bool:
        """Was allowed to see what there is, and nothing was done."""
        looks = self.operation in LOOKS or self.operation.endswith("/list")
        return self.outcome == "allowed" and looks

    @classmethod
    def of(cls, event: dict[str, Any]) -> Decision:
        """From an OCSF event. Raises `KeyError`, `TypeError` or `ValueError` for any other."""
        extra, api = event["unmapped"], event["api"]
        resource = (event.get("resources") or [{}])[0]
        return cls(
            request=event["metadata"]["correlation_uid"],
            time=event["time"] / 1000,
            principal=event["actor"]["user"]["name"],
            address=event.get("src_endpoint", {}).get("ip", ""),
            server=api.get("service", {}).get("name", ""),
            operation=api["operation"],
            subject=resource.get("name") if resource.get("type") != "server" else None,
            outcome=extra["outcome"],
            reason=event["status_detail"],
            policies=tuple(each["policy"]["uid"] for each in event.get("authorizations", ())),
            treatment=extra["treatment"],
            findings=tuple(sorted(extra.get("findings", {}).items())),
            grant=extra.get("grant"),
        )

    def cells(self) -> tuple[str, ...]:
        """When, who, what of which server, how it ended, and why: without control characters."""
        cells = (
            f"{datetime.fromtimestamp(self.time, UTC):%Y-%m-%d %H:%M:%S}",
            self.principal,
            self.server,
            " ".join(filter(None, (self.operation, self.subject))),
            "no end" if self.reason == FORWARDED else self.outcome,
            self._why(),
        )
        return tuple("".join(c if c.isprintable() else "�" for c in cell) for cell in cells)

    def _why(self) -> str:
        found = ", ".join(f"{number} {kind}" for kind, number in self.findings)
        parts = (
            self.reason if self.reason not in (self.outcome, FORWARDED) else "",
            f"by {', '.join(self.policies)}" if self.policies else "",
            f"{self.treatment}: {found}" if self.treatment != "none" else "",
            f"grant {self.grant[:8]}" if self.grant else "",
        )
        return "; ".join(filter(None, parts))


def decisions(lines: Iterable[str]) -> Iterator[Decision]:
    """Of an audit log, or of a collector's record in which other events lie between."""
    for document in record.documents(lines, "class_uid"):
        if document["class_uid"] == API_ACTIVITY:
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                yield Decision.of(document)


def ended(found: Iterable[Decision]) -> list[Decision]:
    """One decision for each request, in the order of time: the last that was recorded of it."""
    last: dict[str, Decision] = {}
    for each in found:
        if each.reason != FORWARDED or each.request not in last:
            last[each.request] = each
    return sorted(last.values(), key=lambda each: each.time)


def table(shown: Iterable[Decision]) -> Iterator[str]:
    rows = [each.cells() for each in shown]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        default=[Path("/dev/stdin")],
        metavar="FILE",
        help="audit log of a gateway, or record of a collector; otherwise standard input",
    )
    parser.add_argument("--principal", help="of this one only")
    parser.add_argument("--server", help="about this one only")
    parser.add_argument("--refused", action="store_true", help="what was not allowed only")
    parser.add_argument("--all", action="store_true", help="also who looked at what there is")


def run(args: Namespace) -> int:
    try:
        found = ended(decisions(record.lines(args.files)))
    except OSError as error:
        print(f"{error.filename}: cannot be read: {error.strerror}", file=sys.stderr)
        return 2
    shown = (
        each
        for each in found
        if args.principal in (None, each.principal)
        and args.server in (None, each.server)
        and not (args.refused and each.outcome == "allowed")
        and (args.all or not each.looks_only)
    )
    for line in table(shown):
        print(line)
    if not found:
        print(
            "no decision of a gateway is in this; its log is /var/log/ringfence-gateway/*.jsonl on "
            "its host, and /var/log/ringfence/HOST/*.jsonl at the collector",
            file=sys.stderr,
        )
    return 0 if found else 1
