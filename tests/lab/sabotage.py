"""pytest plugin: show that the compliance checks can fail.

python -m pytest -p tests.lab.sabotage tests/compliance --environment FILE --sabotage

On a hardened lab, the plugin runs every check three times: the check passes; its `sabotage` breaks
the property, and the check must fail; `restore` repairs the property, and the check must pass
again. One host is enough: the plugin skips the check on other hosts that have the property. It
breaks only hosts that `ringfence lab` booted.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest
from _pytest.runner import runtestprotocol

from ringfence.lab import Lab, LabError
from ringfence.manifest.model import Administrator, Environment, Host, Server
from ringfence.report.evidence import limit, redact
from ringfence.verify import selection
from ringfence.verify.targets import Targets

SECONDS = 120
"""Seconds for one command that breaks or restores."""

PATIENCE = 5
"""Repetitions of a check with an unexpected outcome, one second apart."""

FORGET_RESTARTS = "systemctl reset-failed 2>/dev/null || :"
"""systemd refuses units that start too often; sabotage and restore start them often."""

PROVEN = pytest.StashKey[dict[tuple[str, ...], str]]()
"""Stash of the session: checks that failed under sabotage, and on which host."""

ERROR = pytest.StashKey[BaseException | None]()
"""Stash of an item: the exception of its check in the last run."""


class UnprovenError(Exception):
    """The sabotage of a check did not show that it can fail."""


@dataclass(frozen=True)
class Sabotage:
    """A command that breaks a property, and the command that restores it."""

    command: str
    restore: str

    @classmethod
    def of(cls, item: pytest.Item) -> Sabotage:
        marker = item.get_closest_marker("sabotage")
        if marker is None or len(marker.args) != 1 or set(marker.kwargs) != {"restore"}:
            raise UnprovenError(
                "nothing shows that this check can fail: add "
                "@pytest.mark.sabotage(COMMAND, restore=COMMAND)"
            )
        return cls(marker.args[0], marker.kwargs["restore"])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("ringfence").addoption(
        "--sabotage",
        action="store_true",
        help="Break every property on the hosts of a lab and see that its check fails.",
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, Any, Any]:
    if config.option.sabotage and not config.option.collectonly:
        running_lab(selection.environment(config))
        # One at a time: a check may look at several hosts, and no other host may be broken then.
        config.option.jobs = 1
        config.option.reports = config.rootpath / "reports" / "sabotage"
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.option.sabotage and config.pluginmanager.hasplugin("ringfence-recorder"):
        # The outcome concerns the checks, not the compliance of the environment.
        config.pluginmanager.unregister(name="ringfence-recorder")
        config.option.tbstyle = "short"


def running_lab(environment: Environment) -> Lab:
    """Return the running lab that was booted from exactly this manifest; nothing else may be
    broken."""
    lab = Lab(environment)
    record = lab.record
    if record is None or record.environment != str(environment.path):
        raise pytest.UsageError(
            f"--sabotage breaks hosts, and {environment.path} is not a running lab; "
            f"remedy: ringfence lab up {environment.path}"
        )
    return lab


@pytest.fixture(autouse=True)
def _ask_again(targets: Targets) -> None:
    """Forget cached answers of a host: sabotage and restore change it."""
    targets.forget()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.when == "call":
        item.stash[ERROR] = call.excinfo.value if call.excinfo else None
    return (yield)


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if not item.config.option.sabotage:
        return None
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    proven = item.session.stash.setdefault(PROVEN, {}).get(_check(item))
    for report in [_spared(item, proven)] if proven else _proof(item):
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    item.session._setupstate.teardown_exact(nextitem)
    return True


def _spared(item: pytest.Item, host: str) -> pytest.TestReport:
    why = (str(item.path), item.location[1] or 0, f"seen to fail on {host}")
    return pytest.TestReport(item.nodeid, item.location, {}, "skipped", why, "setup")


def _proof(item: pytest.Item) -> Sequence[pytest.TestReport]:
    hardened = Attempt.until(item, lambda attempt: not attempt.is_red)
    reports = hardened.reports
    shell = _Shell.of(item)
    try:
        if hardened.holds and shell:  # else there is nothing to show, or nothing to break
            sabotage = Sabotage.of(item)
            with shell.broken(sabotage):
                broken = Attempt.until(item, lambda attempt: not attempt.holds)
            repaired = Attempt.until(item, lambda attempt: not attempt.is_red)
            _judge(sabotage, broken, repaired)
            item.session.stash[PROVEN][_check(item)] = shell.host
    except UnprovenError as error:
        reports[1].outcome = "failed"
        reports[1].longrepr = str(error)
    return reports


def _check(item: pytest.Item) -> tuple[str, ...]:
    """Return an id of the check that is the same on every host."""
    parameters: Mapping[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    others = sorted(f"{name}={value!r}" for name, value in parameters.items() if name != "host")
    return (item.nodeid.partition("[")[0], *others)


@dataclass(frozen=True)
class Attempt:
    """One run of a check, with its own fixtures."""

    reports: Sequence[pytest.TestReport]
    error: BaseException | None
    """Exception that the check raised; None if it passed or did not run."""

    @classmethod
    def at(cls, item: pytest.Item) -> Attempt:
        item.stash[ERROR] = None
        # With its module as the next item, only the fixtures of the check itself are torn down.
        module = cast(pytest.Item, item.parent)
        reports = runtestprotocol(item, log=False, nextitem=module)
        return cls(reports, item.stash[ERROR])

    @classmethod
    def until(cls, item: pytest.Item, seen: Callable[[Attempt], bool]) -> Attempt:
        """Repeat the check while the outcome differs: a service that reloads needs a moment."""
        attempt = cls.at(item)
        for _ in range(PATIENCE):
            if seen(attempt):
                break
            time.sleep(1)
            attempt = cls.at(item)
        return attempt

    @property
    def is_red(self) -> bool:
        return any(report.failed for report in self.reports)

    @property
    def holds(self) -> bool:
        return all(report.passed for report in self.reports)

    @property
    def evidence(self) -> str:
        return "; ".join(report.longreprtext for report in self.reports if not report.passed)


def _judge(sabotage: Sabotage, broken: Attempt, repaired: Attempt) -> None:
    if broken.holds:
        raise UnprovenError(f"it still passes after: {sabotage.command}")
    if not isinstance(broken.error, AssertionError | pytest.fail.Exception):
        raise UnprovenError(
            f"it gives no verdict after: {sabotage.command}\n{limit(broken.evidence)}"
        )
    if not repaired.holds:
        raise UnprovenError(f"it still fails after: {sabotage.restore}\n{limit(repaired.evidence)}")


@dataclass(frozen=True)
class _Shell:
    """Root shell on a lab host, independent of SSH: broken SSH access does not prevent a repair."""

    lab: Lab
    host: str
    variables: Mapping[str, str]

    @classmethod
    def of(cls, item: pytest.Item) -> _Shell | None:
        """Open a shell on the host of a check; return None for a check of the whole environment."""
        parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
        host = parameters.get("host")
        if not isinstance(host, Host):
            return None
        lab = running_lab(selection.environment(item.config))
        return cls(lab, host.name, _variables(parameters.values()))

    @contextmanager
    def broken(self, sabotage: Sabotage) -> Iterator[None]:
        try:
            self._run(sabotage.command)
            yield
        finally:
            self._run(sabotage.restore)

    def _run(self, command: str) -> None:
        exports = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in self.variables.items())
        script = ["/bin/sh", "-ec", f"{exports}{FORGET_RESTARTS}\n{command}"]
        try:
            done = self.lab.exec(self.host, script, timeout=SECONDS)
        except LabError as error:
            raise UnprovenError(f"{error}: {command}") from None
        if done.returncode != 0:
            said = limit(redact(f"{done.stdout}{done.stderr}".strip()))
            raise UnprovenError(f"status {done.returncode} of: {command}\n{said}")


def _variables(parameters: Iterable[object]) -> Mapping[str, str]:
    """Return variables that the commands of a sabotage may use."""
    found: dict[str, str] = {}
    for value in parameters:
        match value:
            case Host():
                found["HOST"] = value.name
            case Server():
                found |= {"SERVER": value.name, "ACCOUNT": value.account, "PORT": str(value.port)}
            case Administrator():
                found["ADMINISTRATOR"] = value.account
    return found
