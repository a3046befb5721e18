"""Entry of the function: carries out what an event asks for, says what was done, and fails if it
could not do all of it, so that Lambda tries again and then keeps the event."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from . import steps
from .decision import RELEASE, Event, IgnoredError, Request, requests
from .machine import Aws, Machine, Record, Settings, find, keep, record_of, recorded

Outcome = Mapping[str, str]
"""What was done, by step."""


class IncompleteError(Exception):
    """Some step failed; the message says which, and why."""


class Report:
    """What became of each step, logged as soon as it is known."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.changed: dict[str, str] = {}
        self.failed: dict[str, str] = {}

    def took(self, step: str, change: str | None) -> None:
        if change:
            self.changed[step] = change
        self._log(step, "done" if change else "already", change or "")

    def failed_at(self, step: str, error: object) -> None:
        self.failed[step] = str(error)
        self._log(step, "failed", str(error))

    def ignored(self, why: str) -> None:
        self._log("decision", "ignored", why)

    def refuse_failures(self) -> None:
        if self.failed:
            listed = "; ".join(f"{step}: {text}" for step, text in self.failed.items())
            done = "contained" if self._request.kind == "contain" else "released"
            raise IncompleteError(f"{self._request.instance} is not {done} completely: {listed}")

    def _log(self, step: str, outcome: str, detail: str) -> None:
        of = self._request
        _log(
            event=of.event,
            kind=of.kind,
            instance=of.instance,
            step=step,
            outcome=outcome,
            detail=detail,
        )


def handle(event: Event, _: object) -> list[Outcome]:
    return respond(event, Settings.read(), _client)


def respond(event: Event, settings: Settings, aws: Aws) -> list[Outcome]:
    """Raises `IncompleteError` in the end, where a step failed."""
    try:
        asked = requests(event, settings.severity)
    except IgnoredError as ignored:
        _log(event=event.get("id"), step="decision", outcome="ignored", detail=str(ignored))
        return []
    reports = [_carried_out(request, settings, aws) for request in asked]
    for report in reports:
        report.refuse_failures()
    return [report.changed for report in reports]


def _carried_out(request: Request, settings: Settings, aws: Aws) -> Report:
    report = Report(request)
    try:
        machine = find(aws, settings, request.instance)
        if request.kind == "contain":
            _contain(request, settings, aws, machine, report)
        else:
            _release(request, settings, aws, machine, report)
    except IgnoredError as ignored:
        report.ignored(str(ignored))
    return report


def _contain(
    request: Request, settings: Settings, aws: Aws, machine: Machine, report: Report
) -> None:
    """A step that fails does not keep the others from being taken."""
    record = record_of(aws, machine, request)
    try:
        record, written = _recorded(request, settings, aws, machine, record)
        report.took("record", f"kept in {settings.records}{machine.id}" if written else None)
    except (BotoCoreError, ClientError, IncompleteError) as error:
        # All that is left of its state, if the network can be cut and this cannot be written.
        report.failed_at("record", f"{error}; it was {record}")
    for name, step in steps.CONTAINMENT:
        try:
            report.took(name, step(aws, settings, machine, record))
        except (BotoCoreError, ClientError) as error:
            report.failed_at(name, error)
    if report.changed or report.failed or machine.marked != record.event:
        try:
            _notify(aws, settings, request, report)
            steps.mark(aws, machine, request, record, complete=not report.failed)
        except (BotoCoreError, ClientError) as error:
            report.failed_at("notification", error)


def _recorded(
    request: Request, settings: Settings, aws: Aws, machine: Machine, present: Record
) -> tuple[Record, bool]:
    """Of the state before the first change: quarantine is never what a release restores."""
    kept = recorded(aws, settings, machine.id)
    if machine.in_quarantine(settings):
        if kept is None:
            raise IncompleteError("it is in quarantine, and how it was before is not recorded")
        return kept, False
    if kept and kept.event == request.event:
        return kept, False
    keep(aws, settings, machine.id, present)
    return present, True


def _release(
    request: Request, settings: Settings, aws: Aws, machine: Machine, report: Report
) -> None:
    """The first step that fails ends it: what is not sure to be well stays shut."""
    record = recorded(aws, settings, machine.id)
    if record is None:
        if not machine.in_quarantine(settings):
            raise IgnoredError(f"{machine.id} is not contained")
        report.failed_at("record", "how it was before is not recorded")
        return
    name = ""
    try:
        for name, step in steps.RESTORATION:
            report.took(name, step(aws, settings, machine, record))
        name = "notification"
        _notify(aws, settings, request, report)
        name = "record"
        steps.finish(aws, settings, machine)
    except (BotoCoreError, ClientError) as error:
        report.failed_at(name, error)


def _notify(aws: Aws, settings: Settings, request: Request, report: Report) -> None:
    done = "contained" if request.kind == "contain" else "released"
    lines = [
        f"Instance {request.instance} of {settings.environment} was {done}"
        + (", but not completely." if report.failed else "."),
        f"Why: {request.reason}, says {request.by}. Event: {request.event}.",
        "",
        *(f"done: {name}: {text}" for name, text in report.changed.items()),
        *(f"FAILED: {name}: {text}" for name, text in report.failed.items()),
    ]
    if request.kind == "contain":
        detail = {"instance": request.instance, "reason": "WHY", "requested_by": "YOU"}
        entry = {"Source": "ringfence", "DetailType": RELEASE, "Detail": json.dumps(detail)}
        lines += [
            "",
            "A connection that was open may go on until it ends; stopping the instance ends it, "
            "and loses what is in its memory.",
            "To undo all of this, once it is known to be clean:",
            f"aws events put-events --entries '{json.dumps([entry])}'",
        ]
    aws("sns").publish(
        TopicArn=settings.topic,
        Subject=f"{settings.environment}: {request.instance} {done}"[:100],
        Message="\n".join(lines),
    )


def _log(**fields: str | None) -> None:
    """One line of JSON: CloudWatch finds fields in it by name."""
    print(json.dumps(fields), flush=True)


@cache
def _client(service: str) -> Any:
    make: Any = boto3.client  # boto3 makes its clients from data
    patience = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard"})
    return make(service, config=patience)
