"""pytest plugin: runs checks against the hosts of one environment.

    pytest tests/compliance --environment inventories/lab/environment.yaml

A check is a function with the marker `control`. The marker `hosts` names a group: the check runs
once on each of its hosts.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra.host

from ringfence.controls import catalogue as controls
from ringfence.manifest.model import Administrator, Environment, Host, Server
from ringfence.report import not_applicable
from ringfence.report.model import ENVIRONMENT as NO_HOST
from ringfence.report.model import CheckIdentity
from ringfence.report.subject import IDENTITY, SUBJECT, Subject
from ringfence.verify import parallel, selection
from ringfence.verify import targets as connections
from ringfence.verify.account.cloud import Cloud, account_of
from ringfence.verify.targets import Target, Targets, UnreachableError

JOBS_PER_CORE = 4
"""More than one, because checks mostly wait for hosts."""

SOCKETS = pytest.StashKey[Path]()

MARKERS = (
    "control(id): the control of schemas/controls.yaml that this check verifies",
    "hosts(group): run once on every host of this group of the manifest; `all` is every host",
    "sabotage(command, restore): shell commands that break the property on a hardened host, "
    "as root, and restore it; they find HOST, SERVER, ACCOUNT, PORT and ADMINISTRATOR set "
    "where the check has such a parameter",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ringfence", "compliance of an MCP environment")
    selection.add_options(group)
    group.addoption(
        "--jobs",
        type=int,
        metavar="N",
        help=f"Modules of checks that run at once (default: {JOBS_PER_CORE} per processor).",
    )
    group.addoption(
        "--rehearsed",
        action="store_true",
        help="Verify the AWS account that the environment's stack would make, in an emulation "
        "and without its hosts; with --measurement before, a new account as AWS gives it. Without "
        "it, the account that AWS_PROFILE and the like name.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Record the subject before the plugins that report on it are configured."""
    option = config.option
    if _is_worker(config) or option.environment is None or option.collectonly or option.help:
        return
    environment = selection.environment(config)
    config.stash[SUBJECT] = Subject(
        # A check that passes in a rehearsal does not verify a real account.
        environment=f"{environment.name} (rehearsed)" if option.rehearsed else environment.name,
        stage=environment.stage,
        hosts=() if option.rehearsed else tuple(h.name for h in selection.hosts(config)),
        partial=selection.is_partial(config),
    )


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    config.stash[SOCKETS] = Path(tempfile.mkdtemp(prefix="ringfence-"))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Reject a wrong selection before anything runs."""
    if (
        session.config.option.rehearsed
        and selection.environment(session.config).provisioning is None
    ):
        raise pytest.UsageError(
            "--rehearsed: the manifest provisions nothing; add provisioning.aws"
        )
    selection.hosts(session.config)
    selection.control_ids(session.config)


def pytest_unconfigure(config: pytest.Config) -> None:
    connections.close(config.stash[SOCKETS])
    shutil.rmtree(config.stash[SOCKETS])


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run groups in parallel, unless that saves no time or another plugin distributes them (-n)."""
    config = session.config
    jobs: int = config.option.jobs or JOBS_PER_CORE * (os.cpu_count() or 1)
    groups = _in_order(session.items)
    if (
        min(jobs, len(groups)) < 2
        or session.testsfailed
        or config.option.rehearsed  # an emulated account answers without waiting
        or config.option.usepdb
        or config.option.collectonly
        or config.pluginmanager.hasplugin("dsession")
        or _is_worker(config)
    ):
        return None
    terminal: Any = config.pluginmanager.getplugin("terminalreporter")
    if terminal:
        terminal.showfspath = False  # modules interleave, so their dots share a line
    parallel.run(session, groups, jobs)
    return True


def _in_order(items: Iterable[pytest.Item]) -> list[list[pytest.Item]]:
    """Group checks by module and host; the checks of a group run in order."""
    groups: dict[tuple[str, Path], list[pytest.Item]] = {}
    for item in items:
        groups.setdefault((item.stash[IDENTITY].host, item.path), []).append(item)
    return sorted(groups.values(), key=len, reverse=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    _control(metafunc.definition)
    if "host" not in metafunc.fixturenames:
        return
    environment = selection.environment(metafunc.config)
    marker = metafunc.definition.get_closest_marker("hosts")
    if marker is None or len(marker.args) != 1:
        raise pytest.Collector.CollectError(
            f"{metafunc.definition.nodeid}: name the group of hosts: @pytest.mark.hosts(GROUP)"
        )
    names = ["host"]
    selected = selection.hosts(metafunc.config)
    rows: list[list[Any]] = [
        [host] for host in environment.group(marker.args[0]) if host in selected
    ]
    if "server" in metafunc.fixturenames:
        names.append("server")
        rows = [[*row, server] for row in rows for server in environment.servers_on(row[0])]
    if "administrator" in metafunc.fixturenames:
        names.append("administrator")
        rows = [[*row, person] for row in rows for person in environment.administrators.values()]
    metafunc.parametrize(
        names,
        [pytest.param(*row, id="-".join(map(_label, row))) for row in rows],
        indirect=True,
    )


def _label(value: object) -> str:
    match value:
        case Host() | Server():
            return value.name
        case Administrator():
            return value.account
        case _:
            return str(value)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = selection.control_ids(config)
    kept: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    for item in items:
        control = _control(item)
        if not _has_host(item) or not _has_account(item):
            continue
        (kept if control in wanted else deselected).append(item)
        identity = _identity(item, control)
        item.stash[IDENTITY] = identity
        item.user_properties += [("control", identity.control), ("host", identity.host)]
    items[:] = kept
    if deselected:
        config.hook.pytest_deselected(items=deselected)


def _control(item: pytest.Item) -> str:
    named = [marker.args for marker in item.iter_markers("control")]
    if len(named) != 1 or len(named[0]) != 1:
        raise pytest.Collector.CollectError(
            f"{item.nodeid}: name its one control: @pytest.mark.control(ID)"
        )
    (control,) = named[0]
    if control not in controls.load():
        raise pytest.Collector.CollectError(
            f"{item.nodeid}: schemas/controls.yaml has no control {control}"
        )
    return control


def _has_host(item: pytest.Item) -> bool:
    """Return whether the item has a host. pytest makes a placeholder item for an empty group."""
    parameters = getattr(item, "callspec", None)
    return (
        parameters is None
        or "host" not in parameters.params
        or isinstance(parameters.params["host"], Host)
    )


def _has_account(item: pytest.Item) -> bool:
    """Return whether a cloud check has an account. A rehearsal has only cloud checks."""
    names: tuple[str, ...] = getattr(item, "fixturenames", ())
    if "cloud" in names:
        return selection.environment(item.config).provisioning is not None
    return not item.config.option.rehearsed


def _identity(item: pytest.Item, control: str) -> CheckIdentity:
    function = getattr(item, "function", None)
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    host = parameters.get("host")
    return CheckIdentity(
        control=control,
        host=host.name if host else NO_HOST,
        check=getattr(item, "originalname", None) or item.name,
        case="-".join(_label(value) for key, value in parameters.items() if key != "host"),
        why=" ".join((function.__doc__ or "").split()) if function else "",
    )


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


@pytest.fixture(scope="session")
def environment(pytestconfig: pytest.Config) -> Environment:
    """The manifest, the source of expected values."""
    return selection.environment(pytestconfig)


@pytest.fixture(scope="session")
def targets(pytestconfig: pytest.Config, environment: Environment) -> Iterator[Targets]:
    """Every host of the environment: `targets[environment.hosts["siem-1"]]`."""
    hosts = Targets(environment, pytestconfig.stash[SOCKETS], selection.not_found(pytestconfig))
    yield hosts
    hosts.close()


@pytest.fixture
def host(request: pytest.FixtureRequest, targets: Targets) -> Target:
    """The host to verify, as root: a testinfra host with its manifest entry."""
    try:
        return targets[request.param]
    except UnreachableError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def cloud(pytestconfig: pytest.Config, environment: Environment) -> Iterator[Cloud]:
    """The AWS account of the environment, or a rehearsed one.

    For the measurement `before`, a rehearsal uses a new account with AWS's defaults.
    """
    option = pytestconfig.option
    provisioned = option.measurement != "before"
    with account_of(environment, rehearsed=option.rehearsed, provisioned=provisioned) as account:
        yield account


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Server:
    """An MCP server of the host; the check runs once per server."""
    return request.param


@pytest.fixture
def administrator(request: pytest.FixtureRequest) -> Administrator:
    """A person who may log in to hosts; the check runs once per person."""
    return request.param


@pytest.fixture
def other_host(host: Target, targets: Targets, environment: Environment) -> Target:
    """A host in another segment than `host`, to try connections from."""
    for candidate in environment.group("all"):
        if candidate.segment != host.manifest.segment:
            try:
                return targets[candidate]
            except UnreachableError:
                continue
    return not_applicable("no other segment has a reachable host to connect from")


@pytest.fixture(scope="session")
def operator() -> testinfra.host.Host:
    """This machine, in the management segment, without sudo."""
    return connections.operator_machine()
