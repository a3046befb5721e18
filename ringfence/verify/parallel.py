"""Runs groups of checks in parallel: one forked process per module and host.

Checks mostly wait for hosts, so several hosts take little longer than one. Modules share nothing on
a host; within a module, checks keep their order. Processes are forked after import and collection.
pytest-xdist would repeat both in each process, which takes longer than the checks of two hosts.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import pytest

_fork = multiprocessing.get_context("fork")


def run(session: pytest.Session, groups: Iterable[Sequence[pytest.Item]], jobs: int) -> None:
    """Run up to `jobs` groups at once, each group in order, and report every check."""
    waiting = list(groups)[::-1]
    running: dict[Any, _Group] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                group = _Group(waiting.pop())
                running[group.outcomes] = group
            for connection in wait(list(running)):
                group = running[connection]
                if not group.replay():
                    del running[group.outcomes]
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
                if session.shouldstop:
                    raise session.Interrupted(session.shouldstop)
    finally:
        for group in running.values():
            group.stop()


class _Group:
    """Checks that run in order, with the process that runs them."""

    def __init__(self, items: Sequence[pytest.Item]):
        self._items = list(items)
        self.outcomes, sender = _fork.Pipe(duplex=False)
        self._process = _fork.Process(target=_run, args=(self._items, sender), daemon=True)
        self._process.start()
        sender.close()

    def replay(self) -> bool:
        """Report on the next check; return False after the last."""
        try:
            reports = self.outcomes.recv()
        except EOFError:
            self._process.join()
            for item in self._items:
                _log(item, [_lost(item, self._process.exitcode)])
            return False
        item = self._items.pop(0)
        _log(item, [_from_serializable(item, report) for report in reports])
        return True

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()


class _Reports:
    """A plugin of the forked process that sends the reports of each check to the parent."""

    def __init__(self, config: pytest.Config, outcomes: Connection) -> None:
        self._config, self._outcomes = config, outcomes
        self._reports: list[Any] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        to_data = self._config.hook.pytest_report_to_serializable
        self._reports.append(to_data(config=self._config, report=report))

    def pytest_runtest_logfinish(self) -> None:
        self._outcomes.send(self._reports)
        self._reports = []


def _run(items: Sequence[pytest.Item], outcomes: Connection) -> None:
    # Ctrl-C ends this process and its ssh without a message; the parent reports the interrupt.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    config = items[0].config
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    if capture:
        # The forked process still shares the files for captured output with the parent.
        capture.stop_global_capturing()
        capture.start_global_capturing()
    config.pluginmanager.unregister(name="terminalreporter")
    config.pluginmanager.register(_Reports(config, outcomes))
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)


def _from_serializable(item: pytest.Item, data: dict[str, Any]) -> pytest.TestReport:
    return item.config.hook.pytest_report_from_serializable(config=item.config, data=data)


def _lost(item: pytest.Item, status: int | None) -> pytest.TestReport:
    message = f"the process of these checks ended early (status {status})"
    return pytest.TestReport(
        item.nodeid, item.location, item.keywords, "failed", message, "call", start=0, stop=0
    )


def _log(item: pytest.Item, reports: Iterable[pytest.TestReport]) -> None:
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in reports:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
