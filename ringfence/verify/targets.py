"""Hosts for checks: testinfra over one shared SSH connection per host.

The checks connect as Ansible does (`ringfence.inventory.connection`). Before the first hardening
the automation account does not exist, so they use the bootstrap account.
"""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import testinfra.host
from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.backend.local import LocalBackend

from ringfence.identity.ssh_authority import keep_certificate
from ringfence.identity.state import StateError
from ringfence.inventory import connection, provisioned
from ringfence.manifest import model as model
from ringfence.report import UnverifiedError
from ringfence.verify.root_shell import EndedError, RootShell

CONNECT_SECONDS = 5


class UnreachableError(UnverifiedError):
    """No SSH access path of the host works."""


@dataclass(frozen=True)
class AccessPath:
    """Arguments of ssh for one SSH access path of a host, and whether root needs sudo there."""

    name: str
    arguments: tuple[str, ...]
    sudo: bool
    seconds: int
    """Time limit for the connection attempt, in seconds."""


def access_paths(environment: model.Environment, host: model.Host) -> tuple[AccessPath, ...]:
    """Return the SSH access paths of a host, in the order to try."""
    has_authority = keep_certificate(environment).authority.exists()
    ansible = connection.variables(environment, host)
    seconds = connection.connect_seconds(host) if host.instance else CONNECT_SECONDS
    automation = _path(
        "automation",
        ansible["ansible_host"],
        ansible["ansible_port"],
        ansible["ansible_user"],
        ansible["ansible_ssh_private_key_file"],
        ansible["ansible_ssh_common_args"],
        seconds,
    )
    bootstrap = _path(
        "bootstrap",
        ansible["ansible_host"],
        ansible["bootstrap_port"],
        ansible["bootstrap_user"],
        ansible["bootstrap_ssh_private_key_file"],
        ansible["bootstrap_ssh_common_args"],
        seconds,
    )
    return (automation, bootstrap) if has_authority else (bootstrap,)


def _path(
    name: str, address: str, port: int, user: str, key: str, options: str, seconds: int
) -> AccessPath:
    destination = (f"HostName={address}", f"Port={port}", f"User={user}")
    # Quoted because spaces separate the values of this option.
    identity = (f'IdentityFile="{key}"'.replace("%", "%%"),) if key else ()
    settings = tuple(part for value in (*destination, *identity) for part in ("-o", value))
    return AccessPath(
        name, (*settings, *shlex.split(options)), sudo=user != "root", seconds=seconds
    )


class SshBackend(BaseBackend):
    """Runs commands as root over a shared connection, each with a time limit.

    testinfra's own backend waits without limit, quotes its options through a local shell, has no
    control path by default, and starts sudo for each command.
    """

    NAME = "ssh"

    def __init__(self, hostname: str, path: AccessPath, sockets: Path):
        super().__init__(hostname)
        self._path = path
        self._ssh = (
            "ssh",
            "-T",
            *("-o", "BatchMode=yes", "-o", f"ConnectTimeout={path.seconds}"),
            *("-o", "ControlMaster=auto", "-o", "ControlPersist=60"),
            *("-o", f"ControlPath={sockets}/%C"),
            *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
            *("-o", "LogLevel=ERROR"),
            *path.arguments,
            "--",
            hostname,
        )
        self._idle: list[RootShell] = []

    def get_encoding(self) -> str:
        return "utf-8"

    def get_sudo_command(self, command: str, sudo_user: str | None) -> str:
        account = f"-u {shlex.quote(sudo_user)} " if sudo_user else ""
        return f"sudo -n {account}/bin/sh -c {shlex.quote(command)}"

    def run(self, command: str, *args: str, **_: Any) -> CommandResult:
        remote = self.get_command(command, *args)
        # Each thread of a check uses its own shell.
        try:
            shell = self._idle.pop()
        except IndexError:
            shell = RootShell(self._ssh, sudo=self._path.sudo)
        status, output, errors = shell.run(remote)
        self._idle.append(shell)
        return self.result(status, remote.encode(), output, errors)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


class Target(testinfra.host.Host):
    """A testinfra host with its entry in the manifest."""

    def __init__(self, backend: BaseBackend, manifest: model.Host, path: str):
        super().__init__(backend)
        backend.set_host(self)
        self.manifest = manifest
        self.path = path
        self.once = cache(self._once)

    def _once(self, command: str, *args: str) -> CommandResult:
        return self.run(command, *args)

    def __repr__(self) -> str:
        return self.manifest.name


class Targets:
    """Hosts of an environment; each is connected at its first use."""

    def __init__(self, environment: model.Environment, sockets: Path, not_found: str = ""):
        self._environment = environment
        self._sockets = sockets
        self._not_found = not_found
        self._known: dict[str, Target | UnreachableError] = {}

    def __getitem__(self, host: model.Host) -> Target:
        """Return a connected host. Raises `UnreachableError`, at once after a failed attempt."""
        if host.name not in self._known:
            self._known[host.name] = self._connect(host)
        known = self._known[host.name]
        if isinstance(known, UnreachableError):
            raise known
        return known

    def _connect(self, host: model.Host) -> Target | UnreachableError:
        if host.address is None:
            why = self._not_found or "provision it first: pulumi up"
            return UnreachableError(f"{host.name} has no address yet: {why}")
        if missing := provisioned.missing_tools(self._environment):
            return UnreachableError(missing)
        try:
            paths = access_paths(self._environment, host)
        except StateError as error:
            return UnreachableError(str(error))
        failures: list[str] = []
        for path in paths:
            target = Target(SshBackend(host.name, path, self._sockets), host, path.name)
            try:
                target.run("true")
            except (EndedError, TimeoutError) as error:
                failures.append(f"{path.name}: {error}")
                if "timed out" in str(error) or "No route" in str(error):
                    break
            else:
                return target
        return UnreachableError(
            f"{host.name} ({host.address}) cannot be reached: {'; '.join(failures)}. {_hint(host)}"
        )

    def close(self) -> None:
        for known in self._known.values():
            if isinstance(known, Target) and isinstance(known.backend, SshBackend):
                known.backend.close()

    def forget(self) -> None:
        """Clear the cached values of `Target.once` after a change to hosts."""
        for known in self._known.values():
            if isinstance(known, Target):
                known.once.cache_clear()


def _hint(host: model.Host) -> str:
    if host.instance:
        return "Does aws ssm describe-instance-information list it, and may you open sessions?"
    return "Is it up, and is this machine in a management segment?"


def operator_machine() -> testinfra.host.Host:
    """Return this machine as a testinfra host, without sudo."""
    backend = LocalBackend()
    host = testinfra.host.Host(backend)
    backend.set_host(host)
    return host


def close(sockets: Path) -> None:
    """End every shared connection with a socket in a directory."""
    for socket in sockets.iterdir():
        subprocess.run(
            ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "--", "none"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CONNECT_SECONDS,
            check=False,
        )
