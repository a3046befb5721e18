"""The lab of the attacks, hosts outside it, and unprotected stand-ins for servers."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ringfence.lab import Lab, mirroring
from ringfence.lab.plan import GATEWAY, INTRUDER, Link, addresses, hardware_address
from tests.attack.attacks import Attack

PROGRAMS = Path(__file__).parent / "programs"
OUTSIDE = ("192.0.2.80", "192.0.2.53", "169.254.169.254", "2001:db8::80", "2001:db8::53")
"""Addresses for documentation (RFC 5737, RFC 3849), and that of instance metadata."""
SECONDS = 90
"""Longest time for one attack."""
PATIENCE = 15.0
"""Seconds to wait for an alert."""

SANDBOXED = """
set -e
unit=/run/systemd/system/mcp-intruder.service
{ sed -E '/^(User|Group|Type|Exec(StartPre|Start)|Requires|Restart|Load|StandardInput)/d; /^ /d' \
    /etc/systemd/system/mcp-sqlite.service
  printf '[Service]\\nUser=root\\nType=oneshot\\nStandardInputData=%s\\n' "$1"
  printf 'ExecStart=/usr/bin/python3 -I - %s\\n' "$2"
} > $unit
systemctl daemon-reload
systemctl start mcp-intruder.service || :
journalctl --unit=mcp-intruder.service --output=cat --no-pager | grep '^{' | tail -n 1
rm $unit
systemctl daemon-reload
"""
"""The sandbox of a server, with root in it and another program."""

FORGET = """
ip neigh flush dev eth0
ip -6 route flush proto ra
ip -6 address flush dev eth0 scope global dynamic
"""


@dataclass(frozen=True)
class Outcome:
    began: float
    """Unix seconds."""
    succeeded: bool
    evidence: str


@dataclass(frozen=True)
class Alert:
    host: str
    """Host that sent the event."""
    message: str
    time: float
    """Unix seconds: the packet's time if the sensor reports it, otherwise the event's."""
    received: float
    """Unix seconds, at the collector."""


@dataclass(frozen=True)
class Ground:
    lab: Lab

    @property
    def outside(self) -> str:
        return f"{self.lab.plan.namespace_prefix}outside"

    def build(self) -> None:
        """Build outside hosts beyond the router, and an intruder in every segment."""
        router, port = self.lab.plan.router, "o-outside"
        self._ip("netns", "add", self.outside)
        self._ip("-n", router, "link", "add", port, "type", "veth", "peer", "name", "eth0",
                 "netns", self.outside)  # fmt: skip
        for address in ("192.0.2.1/24", "2001:db8::1/64"):
            self._ip("-n", router, "address", "add", address, "dev", port)
        self._ip("-n", router, "link", "set", port, "up")
        for link in ("lo", "eth0"):
            self._ip("-n", self.outside, "link", "set", link, "up")
        for address in OUTSIDE:
            width = {4: 24, 6: 64}[6 if ":" in address else 4]
            width = 32 if address.startswith("169.") else width
            nodad = ["nodad"] if ":" in address else []
            self._ip("-n", self.outside, "address", "add", f"{address}/{width}", "dev", "eth0",
                     *nodad)  # fmt: skip
        for gateway in ("192.0.2.1", "2001:db8::1"):
            self._ip("-n", self.outside, "route", "add", "default", "via", gateway)
        self._ip("-n", router, "route", "add", "169.254.169.254/32", "via", "192.0.2.80")
        segments = self.lab.environment.segments
        mirroring.watch(self.lab.plan, Link(next(iter(segments.values())), port, ()))
        for segment in segments:
            self.lab.intrude(segment)

    @contextmanager
    def serving(self, namespace: str, program: str, *arguments: str) -> Iterator[None]:
        command = ["ip", "netns", "exec", namespace, sys.executable, self._path(program)]
        running = subprocess.Popen([*command, *arguments])
        try:
            yield
        finally:
            running.kill()
            running.wait()

    @contextmanager
    def world(self) -> Iterator[None]:
        with self.serving(self.outside, "outside", *OUTSIDE):
            time.sleep(1)
            yield

    @contextmanager
    def unprotected(self) -> Iterator[None]:
        """Run an unprotected gateway and server on their hosts' addresses."""
        hosts, nodes = self.lab.environment.hosts, self.lab.plan.hosts
        edge, tools = (str(hosts[name].address) for name in ("edge-1", "tools-1"))
        with (
            self.serving(nodes["edge-1"].namespace, "outside", edge),
            self.serving(nodes["tools-1"].namespace, "stand_in", tools, "8441"),
        ):
            time.sleep(1)
            yield

    def carry_out(self, attack: Attack, *, hardened: bool) -> Outcome:
        if attack.program == "neighbour":
            self._meet_the_router()
        arguments = [self._word(attack, str(each)) for each in attack.arguments]
        done = json.loads(self._run(attack, arguments, hardened=hardened))
        succeeded = done["succeeded"]
        if attack.happened:
            host, command = attack.happened
            script = ["sh", "-c", self._word(attack, command)]
            succeeded = self.lab.exec(host, script, timeout=20).returncode == 0
        if attack.program == "neighbour":
            self.lab.exec("tools-1", ["sh", "-c", FORGET], timeout=20)
        return Outcome(done["began"], succeeded, done["saw"])

    def alerts(self, since: float) -> list[Alert]:
        """Return alerts of the sensor and of hosts' firewalls, from the collector's record."""
        script = (
            'grep -h -e \'"NIDS_EVENT":"alert"\' -e \'"message":"ringfence drop \' '
            "/var/log/ringfence/*/*.jsonl || :"
        )
        lines = self.lab.exec("siem-1", ["sh", "-c", script], timeout=60, check=True).stdout
        found = (_alert(json.loads(line)) for line in lines.splitlines())
        return [alert for alert in found if alert.time >= since]

    def first_alert(self, attack: Attack, since: float) -> Alert | None:
        """Return the first alert that belongs to the attack."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = [a for a in self.alerts(since) if attack.raises(a.host, a.message)]
            if found or not attack.alerts or time.monotonic() > deadline:
                return min(found, key=lambda alert: alert.time, default=None)
            time.sleep(0.3)

    def _run(self, attack: Attack, arguments: Sequence[str], *, hardened: bool) -> str:
        path = self._path(attack.program)
        if attack.node.startswith("intruder."):
            done = self.lab.exec(attack.node, [sys.executable, path, *arguments], timeout=SECONDS)
        elif attack.node == "sandbox" and hardened:
            program = base64.b64encode(Path(path).read_bytes()).decode()
            script = ["sh", "-c", SANDBOXED, "sh", program, " ".join(arguments)]
            done = self.lab.exec("tools-1", script, timeout=SECONDS)
        else:
            account = {"sandbox": "root"}.get(attack.node, "mcp-git" if hardened else "nobody")
            become = ["setpriv", f"--reuid={account}", "--regid=nogroup", "--clear-groups"]
            command = [*become, "python3", "-c", Path(path).read_text(), *arguments]
            done = self.lab.exec("tools-1", command, timeout=SECONDS)
        assert done.stdout.strip(), f"{attack}: {done.stderr}"
        return done.stdout.strip().splitlines()[-1]

    def _word(self, attack: Attack, text: str) -> str:
        environment = self.lab.environment
        known: dict[str, Callable[[], str]] = {
            "outside": lambda: OUTSIDE[0],
            "resolver": lambda: OUTSIDE[1],
            "outside/6": lambda: OUTSIDE[3],
            "free": lambda: str(environment.segments["edge"].cidr[99]),
            "own": lambda: str(self._own(attack, INTRUDER, 4)),
            "own-mac": lambda: hardware_address(self.lab.name, attack.node),
            "router": lambda: str(self._own(attack, GATEWAY, 4)),
            "router/6": lambda: str(self._own(attack, GATEWAY, 6)),
        }
        for host in environment.hosts.values():
            known[host.name] = lambda host=host: str(host.address)
            known[f"{host.name}/6"] = lambda host=host: str(host.address6)
        return re.sub(r"\{([^}]+)\}", lambda found: known[found[1]](), text)

    def _own(self, attack: Attack, number: int, version: int) -> object:
        segment = self.lab.environment.segments[attack.node.removeprefix("intruder.")]
        return next(i.ip for i in addresses(segment, number) if i.version == version)

    def _meet_the_router(self) -> None:
        """Make the host resolve a neighbour whose address the attack then claims."""
        siem = self.lab.environment.hosts["siem-1"]
        for address in siem.addresses:
            self.lab.exec(
                "tools-1",
                ["timeout", "2", "bash", "-c", f": < /dev/tcp/{address}/{2514}"],
                timeout=20,
            )

    def _path(self, program: str) -> str:
        return str(PROGRAMS / f"{program}.py")

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _alert(record: dict) -> Alert:
    fields = record.get("fields", {})
    time = fields.get("NIDS_TIMESTAMP") or record["time"]
    return Alert(
        record["host"],
        fields.get("NIDS_SIGNATURE") or record["message"],
        datetime.fromisoformat(time).timestamp(),
        datetime.fromisoformat(record["received"]).timestamp(),
    )
