"""A lab: the hosts of one environment, booted on this machine."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ringfence.lab import (
    acls,
    directories,
    image,
    kernel,
    network,
    packages,
    record,
    removal,
    requirements,
    seed,
    ssh,
    state,
)
from ringfence.lab.boot import Boot
from ringfence.lab.cgroup import Cgroup, CgroupLimits
from ringfence.lab.errors import LabError, UnusableError
from ringfence.lab.machine import LabMachine
from ringfence.lab.plan import LabNode, Plan
from ringfence.lab.process import joining, run
from ringfence.lab.record import LabRecord
from ringfence.manifest.model import Environment


@dataclass(frozen=True)
class HostStatus:
    name: str
    address: str
    address6: str | None
    state: str
    """running, starting, degraded, disconnected or stopped"""
    release: str | None
    uptime_seconds: float | None


class Lab:
    def __init__(
        self,
        environment: Environment,
        release: str | None = None,
        *,
        say: Callable[[str], None] = lambda _: None,
        limits: CgroupLimits | None = None,
    ) -> None:
        self.environment = environment
        self.plan = Plan(environment)
        self.name = environment.name
        self.directory = directories.LABS / self.name
        self.limits = limits or CgroupLimits()
        self._release = release
        self._say = say

    def up(self) -> None:
        """Boot hosts that are not running; return when every host answers SSH."""
        if reason := requirements.unavailable():
            raise UnusableError(reason)
        self.plan.check()
        started = time.monotonic()
        with self._locked():
            self._refuse_change()
            state.ensure(self.environment)
            origin = self.record or self._write_record()
            if not self._network_is_up():
                self._build_network()
            if self.plan.proxy:
                packages.start()
                packages.listen(self.name, self.plan.proxy, self.directory / "packages.log")
            self._ensure_image(origin)
            kernel.raise_limits()
            stopped = [
                machine
                for machine in self.machines.values()
                if not machine.running or not machine.ready.exists()
            ]
            self._boot.run(stopped)
            if stopped and self.plan.proxy:
                self._try_proxy(self.plan.proxy)
            state.write_known_hosts(
                self.plan, {m.name: seed.host_keys(m.seed) for m in self.machines.values()}
            )
        booted = f"{len(stopped)} booted" if stopped else "nothing to do"
        self._say(f"lab {self.name} is up: {booted}, {time.monotonic() - started:.1f} s")

    def down(self, *, purge: bool = False) -> None:
        removal.down(self.name, say=self._say)
        if purge and state.purge(self.environment.state):
            self._say(f"deleted {self.environment.state}")

    def discard(self) -> None:
        """Take the lab down if it is up. Refuse if it belongs to another manifest."""
        self._refuse_other_manifest()
        if self.record:
            self.down()

    def start(self, host: str) -> None:
        """Boot a stopped host with its previous files."""
        machine = self._machine(host)
        with self._locked():
            if not machine.running:
                self._boot.run([machine])

    def kill(self, host: str) -> None:
        """Turn a host off without a shutdown."""
        machine = self._machine(host)
        with self._locked():
            machine.kill()

    def reset(self, host: str) -> None:
        """Restore a host to its first boot; keep its name, addresses and keys."""
        machine = self._machine(host)
        with self._locked():
            machine.renew()
            network.reconnect(self.plan, machine.node)
            self._boot.run([machine])

    def disconnect(self, host: str) -> None:
        """Disconnect a host from its network."""
        network.disconnect(self.plan, self._machine(host).node)

    def reconnect(self, host: str) -> None:
        network.reconnect(self.plan, self._machine(host).node)

    def enforce(self) -> None:
        """Load access lists that pass only declared flows into the router."""
        self.namespace("router")
        acls.enforce(self.plan)

    def lift(self) -> None:
        """Remove the router's access lists, to return to the state after `up`."""
        self.namespace("router")
        acls.lift(self.plan)

    def intrude(self, segment: str) -> LabNode:
        """Connect an attacker's node, `intruder.SEGMENT`, to a segment."""
        node = self._intruder(segment)
        self.namespace("router")
        with self._locked():
            network.intrude(self.plan, node)
        return node

    def withdraw(self, segment: str) -> None:
        network.withdraw(self.plan, self._intruder(segment))

    def exec(
        self,
        node: str,
        argv: Sequence[str],
        *,
        input: str | None = None,
        timeout: float | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root in a host, or in the namespace of another node."""
        try:
            return subprocess.run(
                self.command(node, argv),
                input=input,
                stdin=subprocess.DEVNULL if input is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=check,
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"{argv[0]} on {node} took over {timeout:.0f} s") from None

    def command(self, node: str, argv: Sequence[str]) -> list[str]:
        """Return the command for this machine that runs a command in a node."""
        if node in self.machines:
            return self.machines[node].command(argv)
        namespace = self.namespace(node)
        # Processes that remain in this group end with the lab.
        group = Cgroup(f"lab-{self.name}/exec")
        group.create()
        return joining(group, ["ip", "netns", "exec", namespace, *argv])

    def namespace(self, node: str) -> str:
        """Return the network namespace of a host, `router`, `client`, `client.SEGMENT` or
        `intruder.SEGMENT`."""
        clients = self.plan.clients
        if node == "router":
            name = self.plan.router
        elif node in self.plan.hosts:
            name = self.plan.hosts[node].namespace
        elif node in clients:
            name = clients[node].namespace
        elif node.startswith("intruder."):
            name = self._intruder(node.removeprefix("intruder.")).namespace
            if not (network.NAMESPACES / name).exists():
                raise UnusableError(f"there is no {node}; remedy: ringfence lab intrude SEGMENT")
        elif node == "client" and len(clients) == 1:
            (name,) = (client.namespace for client in clients.values())
        else:
            known = ", ".join([*self.plan.hosts, "router", *clients])
            raise UnusableError(f"lab {self.name} has no {node}; it has {known}")
        if not (network.NAMESPACES / name).exists():
            raise LabError(f"lab {self.name} is down; remedy: ringfence lab up")
        return name

    def ssh(self, host: str, argv: Sequence[str] = ()) -> list[str]:
        """Return the ssh command that logs in to a host over the network."""
        return ssh.command(self.environment, self._machine(host), argv)

    def status(self) -> list[HostStatus]:
        origin = self.record
        return [
            HostStatus(
                name=host.name,
                address=str(host.address),
                address6=str(host.address6) if host.address6 else None,
                state=self._state(self.machines[host.name]),
                release=origin.release if origin else None,
                uptime_seconds=self.machines[host.name].uptime,
            )
            for host in self.environment.hosts.values()
        ]

    @property
    def _boot(self) -> Boot:
        return Boot(self.plan, self._say)

    @cached_property
    def machines(self) -> dict[str, LabMachine]:
        # A lab keeps the image that it was booted from, even if the recipe has changed.
        origin = self.record
        tree = image.directory() / origin.image if origin else image.path(self.release)
        return {
            name: LabMachine(self.name, node, tree, self.limits)
            for name, node in self.plan.hosts.items()
        }

    @cached_property
    def release(self) -> str:
        origin = self.record
        return self._release or (origin.release if origin else image.DEFAULT_RELEASE)

    @property
    def record(self) -> LabRecord | None:
        return record.read(self.directory)

    def _machine(self, host: str) -> LabMachine:
        if host not in self.machines:
            known = ", ".join(self.machines)
            raise UnusableError(f"lab {self.name} has no host {host}; it has {known}")
        if not self.record:
            raise LabError(f"lab {self.name} is down; remedy: ringfence lab up")
        return self.machines[host]

    def _intruder(self, segment: str) -> LabNode:
        if segment not in self.environment.segments:
            known = ", ".join(self.environment.segments)
            raise UnusableError(f"lab {self.name} has no segment {segment}; it has {known}")
        return self.plan.intruder(self.environment.segments[segment])

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return record.locked(self.name, self._say)

    def _refuse_other_manifest(self) -> None:
        origin = self.record
        if origin and origin.environment != str(self.environment.path):
            raise UnusableError(
                f"a lab named {self.name} is up from {origin.environment}; "
                "give this manifest another name and other addresses"
            )

    def _refuse_change(self) -> None:
        self._refuse_other_manifest()
        origin = self.record
        if not origin:
            return
        if origin.release != self.release:
            raise UnusableError(
                f"lab {self.name} is up with Debian {origin.release}; "
                "remedy: ringfence lab down, then up"
            )
        if origin.digest != self.plan.digest:
            raise UnusableError(
                f"hosts or networks in {self.environment.path} have changed since lab "
                f"{self.name} was booted; remedy: ringfence lab down, then up"
            )

    def _ensure_image(self, origin: LabRecord) -> None:
        if (image.directory() / origin.image).is_dir():
            return
        if origin.image != image.path(self.release).name:
            raise LabError(
                f"the image of lab {self.name} is gone; remedy: ringfence lab down, then up"
            )
        image.ensure(self.release, Cgroup(f"lab-{self.name}/image"), self._say)

    def _write_record(self) -> LabRecord:
        written = LabRecord(
            environment=str(self.environment.path),
            state=str(self.environment.state),
            release=self.release,
            digest=self.plan.digest,
            image=image.path(self.release).name,
        )
        written.write(self.directory)
        return written

    def _network_is_up(self) -> bool:
        # `up` writes the file after the last step, so an incomplete network is built again.
        return (self.directory / "network").exists() and network.is_up(self.plan)

    def _build_network(self) -> None:
        for machine in self.machines.values():
            machine.kill()
        network.up(self.plan)
        (self.directory / "network").touch()
        segments = len(self.environment.segments)
        self._say(f"network: {segments} segments, {len(self.plan.clients)} clients")

    def _try_proxy(self, address: tuple[str, int]) -> None:
        connect = ["timeout", "3", "bash", "-c", ': < "/dev/tcp/$0/$1"', *map(str, address)]
        if run(["ip", "netns", "exec", self.plan.router, *connect]).returncode:
            self._say(
                f"hosts do not reach the package proxy on {address[0]} port {address[1]}; "
                "remedy: accept that in this machine's firewall"
            )

    def _state(self, machine: LabMachine) -> str:
        if not machine.running:
            return "stopped"
        if not machine.leader:
            return "starting"
        if network.is_disconnected(self.plan, machine.node):
            return "disconnected"
        return machine.run(["systemctl", "is-system-running"], timeout=10).stdout.strip()


def all_running(statuses: Iterable[HostStatus]) -> bool:
    return all(status.state in ("running", "degraded") for status in statuses)
