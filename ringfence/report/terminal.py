"""A report as text for a terminal: one line per control, then what needs attention."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from ringfence.controls.catalogue import Control
from ringfence.controls.mappings import Coverage
from ringfence.report.model import Counts, Finding, Report, Status, findings, percent

_WORDS: dict[Status, str] = {
    "passed": "pass",
    "failed": "FAIL",
    "not_applicable": "n/a",
    "not_verified": "-",
}
_COLOURS = {"passed": "32", "failed": "31;1", "not_applicable": "33", "not_verified": "2"}
_BOLD, _DIM = "1", "2"
_FIGURE = 9
"""Width of a column of figures."""


def render(report: Report, width: int = 80, colour: bool = False) -> str:
    return "\n".join(_Painter(report, width, colour).lines())


def frameworks(report: Report) -> str:
    """Return a line per framework: its coverage by the controls that passed."""
    titles = [f"{each.framework.title} {each.framework.version}" for each in report.coverage]
    width = max(map(len, titles))
    lines = [f"{'':{width}}  covered  partly  not met  no control"]
    for title, each in zip(titles, report.coverage, strict=True):
        covered, partly, not_met, uncovered = (
            len(each.statements[standing])
            for standing in ("covered", "partly", "not_met", "uncovered")
        )
        line = f"{title:{width}}  {covered:7}  {partly:6}  {not_met:7}  {uncovered:10}"
        lines.append(f"{line}  {level(each)}".rstrip())
    return "\n".join(lines)


def level(coverage: Coverage) -> str:
    """Return the assurance level that is reached, and how far the next one is."""
    if not coverage.framework.levels:
        return ""
    words = f"level {coverage.level} reached" if coverage.level else "no level reached"
    if following := coverage.next_level:
        words += f"; {following} lacks {len(coverage.lacking(following))}"
    return words


def summary(counts: Counts) -> str:
    """Return all figures in one line: a rate alone hides what it excludes."""
    return (
        f"{percent(counts.rate)} compliant: {counts.passed} passed, {counts.failed} failed, "
        f"{counts.not_applicable} not applicable; {counts.not_verified} controls not yet verified"
    )


def _told(finding: Finding) -> str:
    many = len(finding.titles) > 3
    what = f"{len(finding.titles)} checks" if many else ", ".join(finding.titles)
    return f"{', '.join(finding.hosts)}: {what}: {finding.message}"


class _Painter:
    def __init__(self, report: Report, width: int, colour: bool):
        self._report = report
        self._width = min(width, 120)
        self._colour = colour
        self._hosts = {host: max(len(host), 4) + 2 for host in report.columns}
        figures = _FIGURE * (2 if report.before else 1)
        longest = max(len(control.title) for control in report.catalogue.values())
        room = self._width - 10 - figures - sum(self._hosts.values())
        if room < 24:  # too many hosts for a line: the HTML report has the matrix
            self._hosts = {}
            room = self._width - 10 - figures - 16
        self._title = min(longest, max(room, 24))

    def lines(self) -> Iterator[str]:
        yield from self._table()
        if self._report.measurement == "after":
            yield from self._failures()
        yield from self._inapplicable()
        yield ""
        if self._report.before:
            yield self._paint(f"before: {summary(self._report.before.counts)}", _DIM)
        counts = self._report.counts
        rate = "failed" if counts.failed or counts.rate is None else "passed"
        partial = " (only what was selected)" if self._report.partial else ""
        yield self._paint(f"{summary(counts)}{partial}", _COLOURS[rate])
        if counts.rate is None:
            yield self._paint("nothing was verified", _COLOURS["failed"])

    def _table(self) -> Iterator[str]:
        report = self._report
        head = " " * (10 + self._title)
        if report.before:
            head += f"{'before':>{_FIGURE}}{'after':>{_FIGURE}}"
        else:
            head += f"{'passed':>{_FIGURE}}"
        head += "".join(f"{host:>{width}}" for host, width in self._hosts.items()) or "  hosts"
        yield self._paint(head, _DIM)
        for domain, controls in report.domains.items():
            yield self._paint(domain.title, _BOLD)
            verified = [control for control in controls if report.checks_of(control.id)]
            yield from map(self._row, verified)
            missing = ", ".join(control.id for control in controls if control not in verified)
            partly = ", ".join(
                f"{control.id} ({', '.join(sorted(control.planned))})"
                for control in verified
                if control.planned
            )
            for what, names in ("not yet verified", missing), ("not yet verified in part", partly):
                for line in self._wrap(f"{what}: {names}", 2) if names else ():
                    yield self._paint(line, _DIM)

    def _row(self, control: Control) -> str:
        title = textwrap.shorten(control.title, self._title, placeholder="…")
        start = f"  {control.id}  {title:<{self._title}}"
        if self._report.before:
            start += self._figure(self._report.before, control)
        start += self._figure(self._report, control)
        statuses = self._report.matrix[control.id]
        if not self._hosts:
            failed = sum(status == "failed" for status in statuses.values())
            status = self._report.status(control.id)
            words = f"{failed} of {len(statuses)} fail" if failed else _WORDS[status]
            return f"{start}  {self._paint(words, _COLOURS[status])}"
        for host, width in self._hosts.items():
            status = statuses.get(host)
            word = f"{_WORDS[status] if status else '':>{width}}"
            start += self._paint(word, _COLOURS[status]) if status else word
        return start

    def _figure(self, report: Report, control: Control) -> str:
        counts = report.count([control])
        decided = counts.passed + counts.failed
        return f"{f'{counts.passed}/{decided}' if decided else '-':>{_FIGURE}}"

    def _failures(self) -> Iterator[str]:
        for control, checks in self._report.failures.items():
            yield ""
            yield self._paint(f"{control.id}  {control.title}", _COLOURS["failed"])
            for finding in findings(checks):
                yield from self._wrap(_told(finding), 2)
            yield from self._wrap(f"remedy: {control.remedy}", 2)

    def _inapplicable(self) -> Iterator[str]:
        found = self._report.inapplicable
        if not found:
            return
        yield ""
        yield self._paint("Not applicable", _COLOURS["not_applicable"])
        for control, checks in found.items():
            for finding in findings(checks):
                yield from self._wrap(f"{control.id}  {_told(finding)}", 2)

    def _wrap(self, text: str, indent: int) -> Iterable[str]:
        first, *rest = text.splitlines() or [""]
        yield from textwrap.wrap(
            first, self._width, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2)
        )
        for line in rest:
            yield f"{' ' * (indent + 4)}{line}"

    def _paint(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text
