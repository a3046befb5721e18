"""Decisions of a gateway, read from OCSF events of its audit log or of the collector's record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ringfence.events import record

API_ACTIVITY = 6003
"""OCSF class of a decision; other events of the audit log are about the log itself."""
FORWARDED = "forwarded"
"""Reason of the first event of an allowed call; a second one follows with its result."""
READ_ONLY = {"initialize", "ping", "server/discover", "grants/list"}


@dataclass(frozen=True)
class RecordedDecision:
    """The gateway's decision about one call."""

    request: str
    time: float
    """Unix seconds."""
    principal: str
    address: str
    server: str
    operation: str
    target: str | None
    """A tool, a prompt or the pattern of a resource; None for the server itself."""
    outcome: str
    """`allowed`, `denied` or `failed`."""
    reason: str
    policies: tuple[str, ...]
    treatment: str
    """Treatment of the result by inspection: `none`, `flagged`, `redacted` or `blocked`."""
    findings: tuple[tuple[str, int], ...]
    grant: str | None

    @property
    def is_listing(self) -> bool:
        """The caller was allowed to see what is offered, and used none of it."""
        reads = self.operation in READ_ONLY or self.operation.endswith("/list")
        return self.outcome == "allowed" and reads

    @property
    def is_unfinished(self) -> bool:
        """No event has the result of the call."""
        return self.reason == FORWARDED


def decisions(lines: Iterable[str]) -> Iterator[RecordedDecision]:
    """Yield the decisions among the events of an audit log or a collector's record."""
    for document in record.documents(lines, "class_uid"):
        if document["class_uid"] == API_ACTIVITY:
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                yield _decision(document)


def last_of_each_request(decisions: Iterable[RecordedDecision]) -> list[RecordedDecision]:
    """Return one decision for each request, ordered by time: the last that was recorded."""
    last: dict[str, RecordedDecision] = {}
    for each in decisions:
        if not each.is_unfinished or each.request not in last:
            last[each.request] = each
    return sorted(last.values(), key=lambda each: each.time)


def _decision(event: dict[str, Any]) -> RecordedDecision:
    """Raises `KeyError`, `TypeError` or `ValueError` for any event that is not a decision."""
    extra, api = event["unmapped"], event["api"]
    resource = (event.get("resources") or [{}])[0]
    return RecordedDecision(
        request=event["metadata"]["correlation_uid"],
        time=event["time"] / 1000,
        principal=event["actor"]["user"]["name"],
        address=event.get("src_endpoint", {}).get("ip", ""),
        server=api.get("service", {}).get("name", ""),
        operation=api["operation"],
        target=resource.get("name") if resource.get("type") != "server" else None,
        outcome=extra["outcome"],
        reason=event["status_detail"],
        policies=tuple(each["policy"]["uid"] for each in event.get("authorizations", ())),
        treatment=extra["treatment"],
        findings=tuple(sorted(extra.get("findings", {}).items())),
        grant=extra.get("grant"),
    )
