"""A lab: the hosts of one environment, booted on this machine."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from threading import Event

from ringfence.lab import (
    cgroup,
    image,
    kernel,
    network,
    packages,
    places,
    requirements,
    seed,
    state,
)
from ringfence.lab.cgroup import Cgroup, Limits
from ringfence.lab.errors import LabError, UnusableError
from ringfence.lab.machine import Machine
from ringfence.lab.plan import Node, Plan
from ringfence.lab.process import joining, run
from ringfence.manifest.model import Environment

RECORD = "lab.json"
SSH_PATIENCE = 60.0
LOCK_PATIENCE = 300.0

BOOTSTRAP_ACCOUNT = """
useradd --create-home --shell /bin/bash "$1"
printf '%s ALL=(ALL) NOPASSWD:ALL\\n' "$1" > /etc/sudoers.d/90-bootstrap
chmod 440 /etc/sudoers.d/90-bootstrap
home=$(getent passwd "$1" | cut -d: -f6)
install -d -m 700 -o "$1" -g "$1" "$home/.ssh"
install -m 600 -o "$1" -g "$1" /root/.ssh/authorized_keys "$home/.ssh/authorized_keys"
rm /root/.ssh/authorized_keys
"""


@dataclass(frozen=True)
class Record:
    """What a lab was booted from."""

    environment: str
    state: str
    release: str
    digest: str
    image: str


@dataclass(frozen=True)
class HostStatus:
    name: str
    address: str
    address6: str | None
    state: str
    """running, starting, degraded, cut off or stopped"""
    release: str | None
    uptime_seconds: float | None


class Lab:
    def __init__(
        self,
        environment: Environment,
        release: str | None = None,
        *,
        say: Callable[[str], None] = lambda _: None,
        limits: Limits | None = None,
    ) -> None:
        self.environment = environment
        self.plan = Plan(environment)
        self.name = environment.name
        self.directory = places.LABS / self.name
        self.limits = limits or Limits()
        self._release = release
        self._say = say

    # Life

    def up(self) -> None:
        """Boot what does not run. Returns once every host answers SSH."""
        if reason := requirements.unavailable():
            raise UnusableError(reason)
        self.plan.check()
        started = time.monotonic()
        with self._locked():
            self._refuse_change()
            state.ensure(self.environment)
            record = self.record or self._write_record()
            if not self._network_is_up():
                self._build_network()
            if self.plan.proxy:
                packages.start()
                packages.listen(self.name, self.plan.proxy, self.directory / "packages.log")
            self._ensure_image(record)
            kernel.raise_limits()
            stopped = [
                machine
                for machine in self.machines.values()
                if not machine.running or not machine.ready.exists()
            ]
            self._boot(stopped)
            if stopped and self.plan.proxy:
                self._try_proxy(self.plan.proxy)
            state.write_known_hosts(
                self.plan, {m.name: seed.host_keys(m.seed) for m in self.machines.values()}
            )
        booted = f"{len(stopped)} booted" if stopped else "nothing to do"
        self._say(f"lab {self.name} is up: {booted}, {time.monotonic() - started:.1f} s")

    def down(self, *, purge: bool = False) -> None:
        down(self.name, say=self._say)
        if purge and state.purge(self.environment.state):
            self._say(f"deleted {self.environment.state}")

    def discard(self) -> None:
        """Take the lab down, if this manifest's is up; that of another manifest stays."""
        self._refuse_other_manifest()
        if self.record:
            self.down()

    def start(self, host: str) -> None:
        """Boot a stopped host on the files that it had."""
        machine = self._machine(host)
        with self._locked():
            if not machine.running:
                self._boot([machine])

    def kill(self, host: str) -> None:
        """Cut a host's power."""
        machine = self._machine(host)
        with self._locked():
            machine.kill()

    def reset(self, host: str) -> None:
        """Make a host as fresh as after its first boot; its name, addresses and keys stay."""
        machine = self._machine(host)
        with self._locked():
            machine.renew()
            network.heal(self.plan, machine.node)
            self._boot([machine])

    def cut(self, host: str) -> None:
        """Pull a host's network cable."""
        network.cut(self.plan, self._machine(host).node)

    def heal(self, host: str) -> None:
        network.heal(self.plan, self._machine(host).node)

    def enforce(self) -> None:
        """Have the router let pass what the manifest lets hosts do, and nothing else."""
        from ringfence.lab import acls  # the inventory comes with it

        self.namespace("router")
        acls.enforce(self.plan)

    def lift(self) -> None:
        """Have the router let everything pass, as it does at first."""
        from ringfence.lab import acls

        self.namespace("router")
        acls.lift(self.plan)

    def intrude(self, segment: str) -> Node:
        """Cable an attacker's node, `intruder.SEGMENT`, into a segment."""
        node = self._intruder(segment)
        self.namespace("router")
        with self._locked():
            network.intrude(self.plan, node)
        return node

    def withdraw(self, segment: str) -> None:
        network.withdraw(self.plan, self._intruder(segment))

    # Use

    def exec(
        self,
        node: str,
        argv: Sequence[str],
        *,
        input: str | None = None,
        timeout: float | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root in a host, or one of this machine's in `router` or `client`."""
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
        """The command of this machine that runs a command in a node."""
        if node in self.machines:
            return self.machines[node].command(argv)
        namespace = self.namespace(node)
        # What is left running there goes with the lab.
        group = Cgroup(f"lab-{self.name}/exec")
        group.create()
        return joining(group, ["ip", "netns", "exec", namespace, *argv])

    def namespace(self, node: str) -> str:
        """Network namespace of a host, of `router`, of `client`, or of `client.SEGMENT` or
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
        """The ssh command that logs in to a host over the network: as automation where the host
        has that account, else by the door of a fresh host."""
        # Only this needs them, and all of the inventory comes with them.
        from ringfence.identity import ssh_authority
        from ringfence.inventory import connection

        machine = self._machine(host)
        assert machine.node.host
        account, port = self.environment.automation.account, machine.node.host.ssh_port
        if machine.run(["id", account]).returncode == 0:
            files = ssh_authority.keep_certificate(self.environment)
            identity, options = (
                files.key,
                connection.automation_options(self.environment, machine.node.host),
            )
        else:
            bootstrap = self.environment.bootstrap
            account, port, identity = bootstrap.user, bootstrap.port, bootstrap.identity_file
            # The lab has recorded the host's key: nothing is left to first contact.
            options = ("-o", "StrictHostKeyChecking=yes")
            options += connection.bootstrap_options(self.environment, machine.node.host)
        target = [f"{account}@{machine.node.host.address}"]
        return ["ssh", "-q", "-p", str(port), "-i", str(identity), *options, *target, *argv]

    def status(self) -> list[HostStatus]:
        record = self.record
        return [
            HostStatus(
                name=host.name,
                address=str(host.address),
                address6=str(host.address6) if host.address6 else None,
                state=self._state(self.machines[host.name]),
                release=record.release if record else None,
                uptime_seconds=self.machines[host.name].uptime,
            )
            for host in self.environment.hosts.values()
        ]

    # Parts

    @cached_property
    def machines(self) -> dict[str, Machine]:
        # A lab stays on the image that it was booted from, also when the recipe has changed since.
        record = self.record
        tree = image.directory() / record.image if record else image.path(self.release)
        return {
            name: Machine(self.name, node, tree, self.limits)
            for name, node in self.plan.hosts.items()
        }

    @cached_property
    def release(self) -> str:
        record = self.record
        return self._release or (record.release if record else image.DEFAULT_RELEASE)

    @property
    def record(self) -> Record | None:
        return _read_record(self.directory)

    def _machine(self, host: str) -> Machine:
        if host not in self.machines:
            known = ", ".join(self.machines)
            raise UnusableError(f"lab {self.name} has no host {host}; it has {known}")
        if not self.record:
            raise LabError(f"lab {self.name} is down; remedy: ringfence lab up")
        return self.machines[host]

    def _intruder(self, segment: str) -> Node:
        if segment not in self.environment.segments:
            known = ", ".join(self.environment.segments)
            raise UnusableError(f"lab {self.name} has no segment {segment}; it has {known}")
        return self.plan.intruder(self.environment.segments[segment])

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return _patiently_locked(self.name, self._say)

    def _refuse_other_manifest(self) -> None:
        record = self.record
        if record and record.environment != str(self.environment.path):
            raise UnusableError(
                f"a lab named {self.name} is up from {record.environment}; "
                "give this manifest another name and other addresses"
            )

    def _refuse_change(self) -> None:
        self._refuse_other_manifest()
        record = self.record
        if not record:
            return
        if record.release != self.release:
            raise UnusableError(
                f"lab {self.name} is up with Debian {record.release}; "
                "remedy: ringfence lab down, then up"
            )
        if record.digest != self.plan.digest:
            raise UnusableError(
                f"hosts or networks in {self.environment.path} have changed since lab "
                f"{self.name} was booted; remedy: ringfence lab down, then up"
            )

    def _ensure_image(self, record: Record) -> None:
        if (image.directory() / record.image).is_dir():
            return
        if record.image != image.path(self.release).name:
            raise LabError(
                f"the image of lab {self.name} is gone; remedy: ringfence lab down, then up"
            )
        image.ensure(self.release, Cgroup(f"lab-{self.name}/image"), self._say)

    def _write_record(self) -> Record:
        record = Record(
            environment=str(self.environment.path),
            state=str(self.environment.state),
            release=self.release,
            digest=self.plan.digest,
            image=image.path(self.release).name,
        )
        partial = self.directory / f".{RECORD}"
        partial.write_text(json.dumps(asdict(record), indent=2) + "\n")
        partial.replace(self.directory / RECORD)
        return record

    def _network_is_up(self) -> bool:
        # Written when the last step is done: what an interrupted attempt left is rebuilt.
        return (self.directory / "network").exists() and network.is_up(self.plan)

    def _build_network(self) -> None:
        for machine in self.machines.values():
            machine.kill()
        network.up(self.plan)
        (self.directory / "network").touch()
        segments = len(self.environment.segments)
        self._say(f"network: {segments} segments, {len(self.plan.clients)} clients")

    def _boot(self, machines: Sequence[Machine]) -> None:
        if not machines:
            return
        abandon = Event()
        errors: list[LabError] = []
        with ThreadPoolExecutor(max_workers=len(machines)) as pool:
            try:
                # Every host is waited for, so that one failure does not hide another.
                for boot in [pool.submit(self._boot_one, m, abandon) for m in machines]:
                    try:
                        boot.result()
                    except LabError as error:
                        errors.append(error)
            except BaseException:
                abandon.set()
                raise
        if errors:
            raise LabError("; ".join(map(str, errors)))

    def _boot_one(self, machine: Machine, abandon: Event) -> None:
        started = time.monotonic()
        if not machine.upper.exists():
            if not machine.seed.exists():
                keys = state.authorized_keys(self.environment)
                seed.make(self.plan, machine.node, machine.seed, keys)
            machine.renew()
        missing = [] if machine.running else machine.boot()
        failed = machine.wait(abandon)
        self._make_bootstrap_account(machine)
        self._wait_for_ssh(machine.node, abandon)
        machine.ready.touch()
        notes = [f"failed units: {', '.join(failed)}"] if failed else []
        notes += [f"no limit on {', '.join(missing)} here"] if missing else []
        text = f" ({'; '.join(notes)})" if notes else ""
        self._say(f"{machine.name}: up in {time.monotonic() - started:.1f} s{text}")

    def _try_proxy(self, address: tuple[str, int]) -> None:
        connect = ["timeout", "3", "bash", "-c", ': < "/dev/tcp/$0/$1"', *map(str, address)]
        if run(["ip", "netns", "exec", self.plan.router, *connect]).returncode:
            self._say(
                f"hosts do not reach the package proxy on {address[0]} port {address[1]}: "
                "let this machine's firewall accept it"
            )

    def _make_bootstrap_account(self, machine: Machine) -> None:
        """Where the manifest expects one beside root, as images of clouds have it."""
        user = self.environment.bootstrap.user
        if user == "root" or machine.run(["id", user]).returncode == 0:
            return
        done = machine.run(["/bin/sh", "-euc", BOOTSTRAP_ACCOUNT, "sh", user])
        if done.returncode:
            raise LabError(f"account {user} could not be made: {done.stderr.strip()}")

    def _wait_for_ssh(self, node: Node, abandon: Event) -> None:
        assert node.host
        ports = {self.environment.bootstrap.port, node.host.ssh_port}
        deadline = time.monotonic() + SSH_PATIENCE
        while time.monotonic() < deadline and not abandon.is_set():
            if any(_speaks_ssh(str(node.host.address), port) for port in ports):
                return
            time.sleep(0.1)
        raise LabError(
            f"sshd on {node.name} does not answer within {SSH_PATIENCE:.0f} s; "
            f"see: ringfence lab exec {node.name} -- journalctl -u ssh"
        )

    def _state(self, machine: Machine) -> str:
        if not machine.running:
            return "stopped"
        if not machine.leader:
            return "starting"
        if network.is_cut(self.plan, machine.node):
            return "cut off"
        return machine.run(["systemctl", "is-system-running"], timeout=10).stdout.strip()


def down(name: str, *, say: Callable[[str], None] = lambda _: None) -> None:
    """Remove a lab by its name alone, whatever is left of it."""
    started = time.monotonic()
    directory = places.LABS / name
    with _patiently_locked(name, say):
        for group in cgroup.names(f"lab-{name}"):
            if group == f"lab-{name}":
                Cgroup(group).remove()
        network.down(name)
        shutil.rmtree(directory)
    with contextlib.suppress(OSError):
        places.LABS.rmdir()
        if places.LABS.parent.name == "ringfence":
            places.LABS.parent.rmdir()
    image.discard_partial()
    packages.stop_if_unused()
    kernel.restore_limits()
    say(f"lab {name} is down, {time.monotonic() - started:.1f} s")


def everything() -> list[str]:
    """Names of all labs of which anything is on this machine."""
    try:
        groups = {name.removeprefix("lab-") for name in cgroup.names("lab-")}
    except UnusableError:
        groups = set()
    spaces = {
        path.name.split(".")[1]
        for root in (network.NAMESPACES, network.NAMESPACE_FILES)
        for path in root.glob("ringfence.*.*")
    }
    return sorted({*places.labs(), *groups, *spaces})


def recorded_state(name: str) -> Path | None:
    record = _read_record(places.LABS / name)
    return Path(record.state) if record else None


def _read_record(directory: Path) -> Record | None:
    try:
        return Record(**json.loads((directory / RECORD).read_text()))
    except (OSError, ValueError, TypeError):
        return None


@contextlib.contextmanager
def _patiently_locked(name: str, say: Callable[[str], None]) -> Iterator[None]:
    deadline = time.monotonic() + LOCK_PATIENCE
    directory = places.LABS / name
    told = False
    while True:
        lock = places.locked(directory, wait=False)
        try:
            lock.__enter__()
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise LabError(
                    f"another ringfence command holds lab {name} (fuser {directory} names it)"
                ) from None
            if not told:
                say(f"waiting for another command on lab {name}")
                told = True
            time.sleep(0.2)
        else:
            break
    with contextlib.ExitStack() as stack:
        stack.push(lock.__exit__)
        yield


def _speaks_ssh(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            return connection.recv(255).startswith(b"SSH-")
    except OSError:
        return False


def all_running(statuses: Iterable[HostStatus]) -> bool:
    return all(status.state in ("running", "degraded") for status in statuses)
