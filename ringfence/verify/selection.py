"""Environment, hosts and checks that the command line selects."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.controls import catalogue as controls
from ringfence.inventory import provisioned
from ringfence.manifest.errors import ManifestError
from ringfence.manifest.model import Environment, Host

_ENVIRONMENT = pytest.StashKey[Environment]()
_NOT_FOUND = pytest.StashKey[str]()

_SELECTING = (
    *("rehearsed", "only_hosts", "only_controls", "keyword", "markexpr", "deselect"),
    *("ignore", "ignore_glob", "lf", "stepwise", "maxfail"),
)
"""Options that can exclude checks."""


def add_options(group: pytest.OptionGroup) -> None:
    group.addoption("--environment", type=Path, metavar="FILE", help="The manifest to verify.")
    group.addoption(
        "--host",
        action="append",
        dest="only_hosts",
        default=[],
        metavar="NAME",
        help="Verify this host only; may be repeated.",
    )
    group.addoption(
        "--controls",
        type=lambda text: text.split(","),
        dest="only_controls",
        default=[],
        metavar="ID,ID",
        help="Verify these controls only.",
    )


def environment(config: pytest.Config) -> Environment:
    """Return the environment to verify."""
    if _ENVIRONMENT not in config.stash:
        path: Path | None = config.option.environment
        if path is None:
            raise pytest.UsageError(
                "no environment given; add --environment inventories/NAME/environment.yaml"
            )
        try:
            loaded = Environment.load(path)
        except ManifestError as error:
            raise pytest.UsageError(str(error)) from None
        except OSError as error:
            raise pytest.UsageError(f"{error.filename or path}: {error.strerror}") from None
        found, why = loaded, ""
        # A rehearsal has no hosts to connect to.
        if not (config.option.rehearsed or config.option.collectonly):
            found, why = _with_instances(loaded)
        config.stash[_ENVIRONMENT], config.stash[_NOT_FOUND] = found, why
    return config.stash[_ENVIRONMENT]


def not_found(config: pytest.Config) -> str:
    """Return the reason why provisioned hosts have no address; empty if all have one."""
    environment(config)
    return config.stash[_NOT_FOUND]


def _with_instances(loaded: Environment) -> tuple[Environment, str]:
    """Add the addresses of existing instances; return also the reason why others are missing."""
    try:
        found = provisioned.instances(loaded)
    except provisioned.ProvisionedError as error:
        return loaded, str(error)
    try:
        provisioned.require_running(loaded, found)
    except provisioned.ProvisionedError as error:
        return provisioned.with_addresses(loaded, found), str(error)
    return provisioned.with_addresses(loaded, found), ""


def hosts(config: pytest.Config) -> tuple[Host, ...]:
    names = config.option.only_hosts
    found = environment(config).hosts
    if unknown := set(names) - found.keys():
        raise pytest.UsageError(
            f"--host {', '.join(sorted(unknown))}: the manifest has {', '.join(found)}"
        )
    return tuple(host for host in found.values() if not names or host.name in names)


def control_ids(config: pytest.Config) -> frozenset[str]:
    """Return the selected controls; all if none is named."""
    known = controls.load().keys()
    wanted = frozenset(config.option.only_controls)
    if unknown := wanted - known:
        raise pytest.UsageError(f"--controls: no control {', '.join(sorted(unknown))}")
    return wanted or frozenset(known)


def is_partial(config: pytest.Config) -> bool:
    """Return whether options can exclude checks, so figures do not cover the whole environment."""
    selected = any(getattr(config.option, name, None) for name in _SELECTING)
    return selected or any(not Path(argument).is_dir() for argument in config.args)
