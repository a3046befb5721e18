"""Entry point: contains or releases instances as an event requests, and reports the steps.

It fails if a step failed, so that Lambda tries again and then keeps the event.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from . import steps
from .decision import RELEASE, ContainmentRequest, Event, IgnoredError, requests
from .machine import (
    Aws,
    ContainmentSettings,
    InstanceState,
    OriginalState,
    find,
    read_record,
    record_of,
    write_record,
)

Outcome = Mapping[str, str]
"""Changes by step."""


class IncompleteResponseError(Exception):
    """A step failed; the message says which, and why."""


class StepReport:
    """Outcome of each step, logged at once."""

    def __init__(self, request: ContainmentRequest) -> None:
        self._request = request
        self.changed: dict[str, str] = {}
        self.failed: dict[str, str] = {}

    def add(self, step: str, change: str | None) -> None:
        if change:
            self.changed[step] = change
        self._log(step, "done" if change else "already", change or "")

    def add_failure(self, step: str, error: object) -> None:
        self.failed[step] = str(error)
        self._log(step, "failed", str(error))

    def add_ignored(self, why: str) -> None:
        self._log("decision", "ignored", why)

    def refuse_failures(self) -> None:
        if self.failed:
            listed = "; ".join(f"{step}: {text}" for step, text in self.failed.items())
            done = "contained" if self._request.kind == "contain" else "released"
            raise IncompleteResponseError(
                f"{self._request.instance} is not completely {done}: {listed}"
            )

    def _log(self, step: str, outcome: str, detail: str) -> None:
        request = self._request
        _log(
            event=request.event,
            kind=request.kind,
            instance=request.instance,
            step=step,
            outcome=outcome,
            detail=detail,
        )


def handle(event: Event, _: object) -> list[Outcome]:
    return respond(event, ContainmentSettings.read(), _client)


def respond(event: Event, settings: ContainmentSettings, aws: Aws) -> list[Outcome]:
    """Carry out the event's requests. Raise `IncompleteResponseError` last, if a step failed."""
    try:
        wanted = requests(event, settings.severity)
    except IgnoredError as ignored:
        _log(event=event.get("id"), step="decision", outcome="ignored", detail=str(ignored))
        return []
    reports = [_carry_out(request, settings, aws) for request in wanted]
    for report in reports:
        report.refuse_failures()
    return [report.changed for report in reports]


def _carry_out(request: ContainmentRequest, settings: ContainmentSettings, aws: Aws) -> StepReport:
    report = StepReport(request)
    try:
        machine = find(aws, settings, request.instance)
        if request.kind == "contain":
            _contain(request, settings, aws, machine, report)
        else:
            _release(request, settings, aws, machine, report)
    except IgnoredError as ignored:
        report.add_ignored(str(ignored))
    return report


def _contain(
    request: ContainmentRequest,
    settings: ContainmentSettings,
    aws: Aws,
    machine: InstanceState,
    report: StepReport,
) -> None:
    """Take every step, even after one has failed."""
    record = record_of(aws, machine, request)
    try:
        record, written = _record(request, settings, aws, machine, record)
        report.add("record", f"kept in {settings.records}{machine.id}" if written else None)
    except (BotoCoreError, ClientError, IncompleteResponseError) as error:
        # The log then holds the only copy of the original state.
        report.add_failure("record", f"{error}; original state: {record}")
    for name, step in steps.CONTAINMENT:
        try:
            report.add(name, step(aws, settings, machine, record))
        except (BotoCoreError, ClientError) as error:
            report.add_failure(name, error)
    if report.changed or report.failed or machine.marked != record.event:
        try:
            _notify(aws, settings, request, report)
            steps.mark(aws, machine, request, record, complete=not report.failed)
        except (BotoCoreError, ClientError) as error:
            report.add_failure("notification", error)


def _record(
    request: ContainmentRequest,
    settings: ContainmentSettings,
    aws: Aws,
    machine: InstanceState,
    present: OriginalState,
) -> tuple[OriginalState, bool]:
    """Return the record of the state before the first change, and whether it is new.

    A release must never restore quarantine.
    """
    kept = read_record(aws, settings, machine.id)
    if machine.in_quarantine(settings):
        if kept is None:
            raise IncompleteResponseError(
                "it is in quarantine, and its original state is not recorded"
            )
        return kept, False
    if kept and kept.event == request.event:
        return kept, False
    write_record(aws, settings, machine.id, present)
    return present, True


def _release(
    request: ContainmentRequest,
    settings: ContainmentSettings,
    aws: Aws,
    machine: InstanceState,
    report: StepReport,
) -> None:
    """Stop at the first step that fails: a doubtful instance stays contained."""
    record = read_record(aws, settings, machine.id)
    if record is None:
        if not machine.in_quarantine(settings):
            raise IgnoredError(f"{machine.id} is not contained")
        report.add_failure("record", "its original state is not recorded")
        return
    name = ""
    try:
        for name, step in steps.RELEASE:
            report.add(name, step(aws, settings, machine, record))
        name = "notification"
        _notify(aws, settings, request, report)
        name = "record"
        steps.finish(aws, settings, machine)
    except (BotoCoreError, ClientError) as error:
        report.add_failure(name, error)


def _notify(
    aws: Aws, settings: ContainmentSettings, request: ContainmentRequest, report: StepReport
) -> None:
    done = "contained" if request.kind == "contain" else "released"
    lines = [
        f"Instance {request.instance} of {settings.environment} was {done}"
        + (", but not completely." if report.failed else "."),
        f"Reason: {request.reason}, reported by {request.by}. Event: {request.event}.",
        "",
        *(f"done: {name}: {text}" for name, text in report.changed.items()),
        *(f"FAILED: {name}: {text}" for name, text in report.failed.items()),
    ]
    if request.kind == "contain":
        detail = {"instance": request.instance, "reason": "WHY", "requested_by": "YOU"}
        entry = {"Source": "ringfence", "DetailType": RELEASE, "Detail": json.dumps(detail)}
        lines += [
            "",
            "A connection that was open may continue until it ends; stopping the instance ends it, "
            "and loses its memory.",
            "To release the instance, once it is known to be clean:",
            f"aws events put-events --entries '{json.dumps([entry])}'",
        ]
    aws("sns").publish(
        TopicArn=settings.topic,
        Subject=f"{settings.environment}: {request.instance} {done}"[:100],
        Message="\n".join(lines),
    )


def _log(**fields: str | None) -> None:
    """Print one line of JSON, which CloudWatch searches by field."""
    print(json.dumps(fields), flush=True)


@cache
def _client(service: str) -> Any:
    make: Any = boto3.client  # boto3 makes its clients from data
    patience = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard"})
    return make(service, config=patience)
