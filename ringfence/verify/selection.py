"""Which environment, hosts and checks the command line asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence import controls
from ringfence.environment import Environment, Host
from ringfence.validation import ManifestError

_ENVIRONMENT = pytest.StashKey[Environment]()

_SELECTING = (
    *("rehearsed", "only_hosts", "only_controls", "keyword", "markexpr", "deselect"),
    *("ignore", "ignore_glob", "lf", "stepwise", "maxfail"),
)
"""Options that may leave something out."""


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
    """The environment under verification."""
    if _ENVIRONMENT not in config.stash:
        path: Path | None = config.option.environment
        if path is None:
            raise pytest.UsageError(
                "which environment? Add --environment inventories/NAME/environment.yaml"
            )
        try:
            config.stash[_ENVIRONMENT] = Environment.load(path)
        except ManifestError as error:
            raise pytest.UsageError(str(error)) from None
        except OSError as error:
            raise pytest.UsageError(f"{error.filename or path}: {error.strerror}") from None
    return config.stash[_ENVIRONMENT]


def hosts(config: pytest.Config) -> tuple[Host, ...]:
    names = config.option.only_hosts
    found = environment(config).hosts
    if unknown := set(names) - found.keys():
        raise pytest.UsageError(
            f"--host {', '.join(sorted(unknown))}: the manifest has {', '.join(found)}"
        )
    return tuple(host for host in found.values() if not names or host.name in names)


def control_ids(config: pytest.Config) -> frozenset[str]:
    """The controls that are asked for; all of them where none is named."""
    known = controls.load().keys()
    wanted = frozenset(config.option.only_controls)
    if unknown := wanted - known:
        raise pytest.UsageError(f"--controls: no control {', '.join(sorted(unknown))}")
    return wanted or frozenset(known)


def is_partial(config: pytest.Config) -> bool:
    """Whether something may be left out: then the figures are not those of the environment."""
    selected = any(getattr(config.option, name, None) for name in _SELECTING)
    return selected or any(not Path(argument).is_dir() for argument in config.args)
