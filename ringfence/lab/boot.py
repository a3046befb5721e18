"""Parallel boot of hosts, until each answers SSH."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

from ringfence.lab import seed, state
from ringfence.lab.errors import LabError
from ringfence.lab.machine import LabMachine
from ringfence.lab.plan import LabNode, Plan

SSH_PATIENCE = 60.0

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
class Boot:
    """One boot of some hosts of a plan; it reports every failure, not only the first."""

    plan: Plan
    say: Callable[[str], None]

    def run(self, machines: Sequence[LabMachine]) -> None:
        """Boot the hosts; return when each answers SSH. Raises `LabError` with every failure."""
        if not machines:
            return
        abandon = Event()
        errors: list[LabError] = []
        with ThreadPoolExecutor(max_workers=len(machines)) as pool:
            try:
                for boot in [pool.submit(self._boot, m, abandon) for m in machines]:
                    try:
                        boot.result()
                    except LabError as error:
                        errors.append(error)
            except BaseException:
                abandon.set()
                raise
        if errors:
            raise LabError("; ".join(map(str, errors)))

    def _boot(self, machine: LabMachine, abandon: Event) -> None:
        started = time.monotonic()
        if not machine.upper.exists():
            if not machine.seed.exists():
                keys = state.authorized_keys(self.plan.environment)
                seed.make(self.plan, machine.node, machine.seed, keys)
            machine.renew()
        missing = [] if machine.running else machine.boot()
        failed = machine.wait(abandon)
        self._make_bootstrap_account(machine)
        self._wait_for_ssh(machine.node, abandon)
        machine.ready.touch()
        notes = [f"failed units: {', '.join(failed)}"] if failed else []
        notes += [f"this machine enforces no limit on {', '.join(missing)}"] if missing else []
        text = f" ({'; '.join(notes)})" if notes else ""
        self.say(f"{machine.name}: up in {time.monotonic() - started:.1f} s{text}")

    def _make_bootstrap_account(self, machine: LabMachine) -> None:
        """Create the bootstrap account unless it is root. Cloud images have it from the start."""
        user = self.plan.environment.bootstrap.user
        if user == "root" or machine.run(["id", user]).returncode == 0:
            return
        done = machine.run(["/bin/sh", "-euc", BOOTSTRAP_ACCOUNT, "sh", user])
        if done.returncode:
            raise LabError(f"account {user} could not be created: {done.stderr.strip()}")

    def _wait_for_ssh(self, node: LabNode, abandon: Event) -> None:
        assert node.host
        ports = {self.plan.environment.bootstrap.port, node.host.ssh_port}
        deadline = time.monotonic() + SSH_PATIENCE
        while time.monotonic() < deadline and not abandon.is_set():
            if any(_speaks_ssh(str(node.host.address), port) for port in ports):
                return
            time.sleep(0.1)
        raise LabError(
            f"sshd on {node.name} does not answer within {SSH_PATIENCE:.0f} s; "
            f"see: ringfence lab exec {node.name} -- journalctl -u ssh"
        )


def _speaks_ssh(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            return connection.recv(255).startswith(b"SSH-")
    except OSError:
        return False
