"""pytest plugin: writes the results of the checks as a report.

A complete run writes `compliance.json`, `compliance.html` and `junit.xml` to `reports/latest`.
It deletes the files of the previous run when it starts, so an interrupted run does not leave old
results that look new.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from ringfence.controls import catalogue as controls
from ringfence.report import NotApplicable, document, evidence, page, terminal
from ringfence.report.model import Check, CheckIdentity, Measurement, Report
from ringfence.report.subject import IDENTITY, SUBJECT, Subject

BEFORE, JSON, HTML, JUNIT = "before.json", "compliance.json", "compliance.html", "junit.xml"

SKIPPED = "the check skipped itself; it must say why with not_applicable(): {}"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ringfence")
    group.addoption(
        "--measurement",
        choices=("before", "after"),
        default="after",
        help="before: take the measurement that later runs are compared with. It begins a new "
        f"comparison: it is kept as {BEFORE}, and the results of earlier runs are removed. "
        f"after (default): the compliance run; where {BEFORE} is of the same environment, its "
        "figures stand beside the new ones.",
    )
    group.addoption(
        "--reports",
        type=Path,
        metavar="DIR",
        help="Where reports are written (default: reports/latest; for a run of selected hosts, "
        "controls or checks reports/partial).",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Turn pytest's own failure output off unless an option requests it: the report has it."""
    asked = config.invocation_params.args
    if not any(argument.startswith("--tb") for argument in asked):
        config.option.tbstyle = "no"
    if not any(argument.startswith("-r") for argument in asked):
        config.option.reportchars = ""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if SUBJECT in config.stash:
        recorder = OutcomeRecorder(config, config.stash[SUBJECT])
        config.pluginmanager.register(recorder, "ringfence-recorder")
        if recorder.measurement == "after" and not config.option.xmlpath:
            config.option.xmlpath = str(recorder.directory / JUNIT)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    identity = item.stash.get(IDENTITY, None)
    if identity is None or (report.passed and report.when != "call"):
        return report
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, NotApplicable):
        check = Check(identity, "not_applicable", evidence.redact(str(error)))
        report.longrepr = (item.location[0], item.location[1] or 0, check.message)
    elif report.passed:
        check = Check(identity, "passed")
    else:
        message = evidence.of(error) if error and report.failed else SKIPPED.format(error)
        check = Check(identity, "failed", message)
        report.outcome = "failed"
        if item.config.option.tbstyle == "no":
            # pytest's traceback would show variables, and so secrets, to JUnit and other plugins.
            report.longrepr = message
            report.sections.clear()
    # pytest passes the attributes of a report from the worker process to this one.
    vars(report)["ringfence"] = asdict(replace(check, seconds=call.duration))
    return report


def _check(report: pytest.TestReport) -> Check | None:
    found = vars(report).get("ringfence")
    return Check(**{**found, "identity": CheckIdentity(**found["identity"])}) if found else None


def pytest_report_teststatus(
    report: pytest.CollectReport | pytest.TestReport,
) -> tuple[str, str, Any] | None:
    check = _check(report) if isinstance(report, pytest.TestReport) else None
    if check and check.outcome == "not_applicable":
        return "not applicable", "-", ("NOT APPLICABLE", {"yellow": True})
    if check and check.outcome == "failed":
        return "failed", "F", "FAILED"
    return None


@dataclass(eq=False)  # pytest compares plugins by identity
class OutcomeRecorder:
    """Records the outcomes of one run and writes its reports."""

    config: pytest.Config
    subject: Subject
    checks: list[Check] = field(default_factory=list)
    stray: list[str] = field(default_factory=list)
    """Failures outside any check: a module that cannot be read, a worker that died."""
    report: Report | None = None
    note: str = ""

    def __post_init__(self) -> None:
        self._begun = time.monotonic()
        self._time = datetime.now(UTC)

    @property
    def measurement(self) -> Measurement:
        return self.config.option.measurement

    @property
    def directory(self) -> Path:
        latest = "partial" if self.subject.partial else "latest"
        return self.config.option.reports or self.config.rootpath / "reports" / latest

    def pytest_sessionstart(self) -> None:
        names = (JSON, HTML, JUNIT)
        for name in (*names, BEFORE) if self.measurement == "before" else names:
            (self.directory / name).unlink(missing_ok=True)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.stray.append(report.longreprtext)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        check = _check(report)
        if check:
            self.checks.append(check)
        elif report.failed:
            self.stray.append(f"{report.nodeid}: {report.longreprtext}")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None, None, None]:
        complete = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if complete and not self.stray:
            self.report = self._report()
            if self.report.counts.rate is None and exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
        yield
        if not self.report:
            (self.directory / JUNIT).unlink(missing_ok=True)
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.measurement == "before":
            document.write(self.report, self.directory / BEFORE)
        else:
            document.write(self.report, self.directory / JSON)
            page.write(self.report, self.directory / HTML)

    def _report(self) -> Report:
        catalogue = controls.load()
        order = list(catalogue)
        hosts = self.subject.hosts

        def place(check: Check) -> tuple[int, str, int, str]:
            identity = check.identity
            host = hosts.index(identity.host) if identity.host in hosts else len(hosts)
            return order.index(identity.control), identity.check, host, identity.case

        return Report(
            environment=self.subject.environment,
            stage=self.subject.stage,
            measurement=self.measurement,
            time=self._time,
            seconds=time.monotonic() - self._begun,
            version=version("ringfence"),
            hosts=hosts,
            partial=self.subject.partial,
            catalogue=catalogue,
            checks=tuple(sorted(self.checks, key=place)),
            before=self._before(),
        )

    def _before(self) -> Report | None:
        path = self.directory / BEFORE
        if self.measurement == "before" or not path.exists():
            return None
        try:
            before = document.read(path)
        except document.ReportError as error:
            self.note = f"no comparison: {error}"
            return None
        if before.environment != self.subject.environment:
            self.note = f"no comparison: {path} is of the environment {before.environment}"
            return None
        return before

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        write = terminalreporter.write_line
        terminalreporter.section("compliance", sep="=")
        for trouble in self.stray:
            write(trouble, red=True)
        if not self.report:
            write("no report: the run was not complete", red=True, bold=True)
            return
        writer = self.config.get_terminal_writer()
        write(terminal.render(self.report, writer.fullwidth, writer.hasmarkup))
        write("")
        if self.note:
            write(self.note, yellow=True)
        names = (BEFORE,) if self.measurement == "before" else (HTML, JSON, JUNIT)
        for name in names:
            write(f"{self.directory / name}")
