"""Checks side by side: one forked process for those of a module on a host.

A check waits for its host most of the time, so the hosts of an environment take hardly
longer than one. Modules share nothing on a host; within one, checks keep their order. The
processes are forked when everything is imported and collected:
pytest-xdist starts and collects anew in each, which costs more than two hosts' checks.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

_fork = multiprocessing.get_context("fork")


def run(session: pytest.Session, groups: Iterable[Sequence[pytest.Item]], jobs: int) -> None:
    """Run groups of checks, each in order and `jobs` of them at once, and report on all."""
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
    """Checks that keep their order, and the process that makes them."""

    def __init__(self, items: Sequence[pytest.Item]):
        self._items = list(items)
        self.outcomes, sender = _fork.Pipe(duplex=False)
        self._process = _fork.Process(target=_make, args=(self._items, sender), daemon=True)
        self._process.start()
        sender.close()

    def replay(self) -> bool:
        """Report on the next check. False when there is none left."""
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


def _make(items: Sequence[pytest.Item], outcomes: Connection) -> None:
    # Ctrl-C ends this process without a word, and its ssh with it; the parent speaks for all.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    capture: Any = items[0].config.pluginmanager.getplugin("capturemanager")
    if capture:
        # The files that output is captured in are shared with the other processes until now.
        capture.stop_global_capturing()
        capture.start_global_capturing()
    for item, following in zip(items, [*items[1:], None], strict=True):
        reports = runtestprotocol(item, log=False, nextitem=following)
        hook = item.config.hook
        outcomes.send(
            [
                hook.pytest_report_to_serializable(config=item.config, report=report)
                for report in reports
            ]
        )


def _from_serializable(item: pytest.Item, data: dict[str, Any]) -> pytest.TestReport:
    return item.config.hook.pytest_report_from_serializable(config=item.config, data=data)


def _lost(item: pytest.Item, status: int | None) -> pytest.TestReport:
    message = f"the process that made these checks ended early (status {status})"
    return pytest.TestReport(
        item.nodeid, item.location, item.keywords, "failed", message, "call", start=0, stop=0
    )


def _log(item: pytest.Item, reports: Iterable[pytest.TestReport]) -> None:
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in reports:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
