"""The role firewall alone, on hosts of a lab: what it admits, what it drops, and what keeps
working.

Ansible applies the role as root over the SSH access of a fresh host; nothing else is hardened.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.lab import Lab
from ringfence.lab.plan import GATEWAY, INTRUDER, LabNode, addresses, hardware_address
from ringfence.manifest.model import Environment

ROOT = Path(__file__).parents[2]
Run = subprocess.CompletedProcess[str]
PLAYBOOK = """
- hosts: all
  gather_facts: false
  vars:
    ansible_user: "{{ bootstrap_user }}"
    ansible_ssh_private_key_file: "{{ bootstrap_ssh_private_key_file }}"
    ansible_ssh_common_args: "{{ bootstrap_ssh_common_args }}"
  roles: [firewall]
"""

# Prints, for each target given as JSON, whether a connection is `open`, `refused` or `silent`.
CONNECT = """
import errno, json, os, socket, sys
user, targets = int(sys.argv[1]), json.loads(sys.argv[2])
os.setuid(user)
answers = []
for address, port in targets:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(0.7)
        error = connection.connect_ex((address, port))
    refused = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EACCES)
    answers.append("open" if error == 0 else "refused" if error in refused else "silent")
print(json.dumps(answers))
"""
# Listens on ports of every address, in both families.
LISTEN = """
import selectors, socket, sys
selector = selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    selector.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in selector.select():
        key.fileobj.accept()[0].close()
"""
# Claims an address on the link: forge.py KIND VICTIM CLAIMED HARDWARE COUNT PAUSE
FORGE = """
import sys
from scapy.layers.inet6 import (
    ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptMTU, ICMPv6NDOptSrcLLAddr, IPv6,
    getmacbyip6,
)
from scapy.layers.l2 import ARP, Ether, getmacbyip
from scapy.sendrecv import sendp
kind, victim, claimed, own, count, pause = sys.argv[1:]
if ":" in victim:
    to = getmacbyip6(victim)
    six = IPv6(src=claimed, dst=victim, hlim=255)
    advertisement = six / ICMPv6ND_NA(tgt=claimed, R=1, S=0, O=1)
    option = ICMPv6NDOptDstLLAddr(lladdr=own)
    lies = {
        "advertisement": advertisement / option,
        "behind another option": advertisement / ICMPv6NDOptMTU() / option,
        "solicitation": six / ICMPv6ND_NS(tgt=victim) / ICMPv6NDOptSrcLLAddr(lladdr=own),
    }
else:
    to = getmacbyip(victim)
    lies = {
        "reply": ARP(op=2, psrc=claimed, hwsrc=own, pdst=victim, hwdst=to),
        "request": ARP(op=1, psrc=claimed, hwsrc=own, pdst=victim),
        "gratuitous": ARP(op=1, psrc=claimed, hwsrc=own, pdst=claimed),
    }
frame = Ether(src=own, dst=to) / lies[kind]
sendp(frame, iface="eth0", count=int(count), inter=float(pause), verbose=0)
"""
LIES = [
    (4, "reply"),
    (4, "request"),
    (4, "gratuitous"),
    (6, "advertisement"),
    (6, "behind another option"),
    (6, "solicitation"),
]
# Claims more addresses than there are hosts: flood.py VICTIM COUNT
FLOOD = """
import sys
from ipaddress import ip_address
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6, getmacbyip6
from scapy.layers.l2 import ARP, Ether, getmacbyip
from scapy.sendrecv import sendp
victim, count = sys.argv[1], int(sys.argv[2])
find = getmacbyip6 if ":" in victim else getmacbyip
to, own = find(victim), "02:00:00:00:00:99"
claims = [str(ip_address(victim) + 4096 + number) for number in range(count)]
sendp([
    Ether(src=own, dst=to) / (
        IPv6(src=claim, dst=victim, hlim=255)
        / ICMPv6ND_NS(tgt=victim) / ICMPv6NDOptSrcLLAddr(lladdr=own)
        if ":" in victim else ARP(op=1, psrc=claim, hwsrc=own, pdst=victim)
    )
    for claim in claims
], iface="eth0", verbose=0)
"""
FEW = 4, 0.4
"""Claims, and seconds between them: for one second the kernel keeps what it has just learned."""

ENDLESS = 100_000, 0.002

FAMILIES = {4: "arp", 6: "ip6"}
"""Table of nftables with the known neighbours, by IP version."""

MEMORY, ROOM = 8, 64
"""Seconds and number of neighbours, for tests of the remembered neighbours."""

ASKED = "systemctl show --property=InvocationID ringfence-neighbours"
"""Prints an id that changes when the host probes all neighbours at once."""

SHORT = {"firewall_neighbour_memory": MEMORY, "firewall_neighbours": ROOM}


@dataclass(frozen=True)
class Firewalled:
    lab: Lab
    playbook: Path

    @property
    def environment(self) -> Environment:
        return self.lab.environment

    def apply(
        self, *arguments: str, manifest: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        inventory = str(manifest or self.environment.path)
        return subprocess.run(
            ["ansible-playbook", "-i", inventory, str(self.playbook), *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def shell(self, host: str, script: str) -> str:
        done = self.lab.exec(host, ["/bin/sh", "-ec", script], timeout=60)
        assert done.returncode == 0, f"{script}: {done.stderr}"
        return done.stdout

    def connect(self, node: str, *targets: tuple[str, int], user: int = 0) -> list[str]:
        command = ["python3", "-c", CONNECT, str(user), json.dumps(targets)]
        done = self.lab.exec(node, command, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def addresses(self, host: str) -> list[str]:
        return [str(address) for address in self.environment.hosts[host].addresses]

    def rules(self, host: str) -> str:
        return self.shell(
            host,
            "nft --stateless list table inet ringfence; "
            "nft --stateless --terse list table arp ringfence; "
            "nft --stateless --terse list table ip6 ringfence",
        )


def changed(run: Run) -> dict[str, int]:
    """Return the number of changes by host; show the output of a failed run."""
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr
    recap = run.stdout.split("PLAY RECAP")[1]
    lines = [line.split() for line in recap.splitlines() if "changed=" in line]
    return {words[0]: int(words[3].removeprefix("changed=")) for words in lines}


@pytest.fixture(scope="module")
def fresh(
    make_manifest: Callable[..., Path],
    octets: range,
    release: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Firewalled]:
    """Boot hosts with servers' accounts and listeners on declared and undeclared ports."""
    playbook = tmp_path_factory.mktemp("firewall") / "firewall.yml"
    playbook.write_text(PLAYBOOK)
    lab = Lab(Environment.load(make_manifest(f"firewall-{octets[3]}", octets[3])), release)
    lab.down()
    try:
        lab.up()
        hosts = Firewalled(lab, playbook)
        for name in hosts.environment.servers:
            hosts.shell("tools-1", f"useradd --system --no-create-home mcp-{name}")
        listener = f"systemd-run --quiet --unit=listener python3 -c '{LISTEN}'"
        hosts.shell("tools-1", f"{listener} 8441 8442 8443 9000")
        hosts.shell("siem-1", f"{listener} 2514 9000")
        yield hosts
    finally:
        lab.down(purge=True)


@pytest.fixture(scope="module")
def hosts(fresh: Firewalled, tmp_path_factory: pytest.TempPathFactory) -> Firewalled:
    """Apply the role to the hosts while an existing login session continues."""
    ticks = tmp_path_factory.mktemp("session") / "ticks"
    command = fresh.lab.ssh("tools-1", ["while :; do echo tick; sleep 0.2; done"])
    with ticks.open("w") as output, subprocess.Popen(command, stdout=output) as session:
        try:
            assert eventually(lambda: ticks.stat().st_size > 0)
            changed(fresh.apply())
            before = ticks.stat().st_size
            assert eventually(lambda: ticks.stat().st_size > before + 20), "the session broke off"
        finally:
            session.kill()
    return fresh


def eventually(true: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def test_a_rehearsal_on_a_fresh_host_shows_the_rules_and_changes_nothing(fresh):
    run = fresh.apply("--check", "--diff")
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr
    assert 'comment "agents ask for the time"' in run.stdout
    assert fresh.shell("tools-1", "nft list tables; ls -d /etc/nftables.d || :") == ""


def test_declared_flows_pass_and_others_get_no_answer(hosts):
    for address in hosts.addresses("tools-1"):
        targets = [(address, port) for port in (8441, 8442, 8443, 9000, 22)]
        assert hosts.connect("client", *targets) == ["open"] * 3 + ["silent"] * 2
    for address in hosts.addresses("siem-1"):
        targets = [(address, port) for port in (2514, 9000, 22)]
        assert hosts.connect("client", *targets) == ["silent"] * 3
        assert hosts.connect("tools-1", *targets) == ["open", "refused", "refused"]


def test_accounts_of_servers_reach_nothing(hosts):
    targets = [(address, 9000) for address in ("127.0.0.1", "::1", *hosts.addresses("tools-1"))]
    targets += [(address, 2514) for address in hosts.addresses("siem-1")]
    proxy = hosts.environment.services.package_proxy_endpoint
    for server in hosts.environment.servers.values():
        uid = int(hosts.shell("tools-1", f"id -u {server.account}"))
        answers = hosts.connect("tools-1", *targets, proxy, user=uid)
        assert set(answers) == {"refused"}, server.account
    assert set(hosts.connect("tools-1", *targets, proxy)) == {"open"}


def test_declared_egress_passes_for_its_server_alone(hosts, tmp_path):
    egress = [{"host": "siem-1", "port": 9000, "why": "reads the archive"}]

    def with_egress(document: dict[str, Any]) -> None:
        document["servers"]["git"]["egress"] = egress

    manifest = changed_manifest(hosts, tmp_path, with_egress)
    targets = [(address, 9000) for address in hosts.addresses("siem-1")]
    try:
        changed(hosts.apply(manifest=manifest))
        for name, answer in (("git", "open"), ("time", "refused"), ("sqlite", "refused")):
            uid = int(hosts.shell("tools-1", f"id -u mcp-{name}"))
            assert hosts.connect("tools-1", *targets, user=uid) == [answer] * len(targets)
        assert hosts.connect("tools-1", *targets) == ["refused"] * len(targets)
    finally:
        changed(hosts.apply())


def test_people_reach_nothing_on_loopback(hosts):
    targets = [("127.0.0.1", 9000), ("::1", 9000)]
    assert hosts.connect("tools-1", *targets, user=1000) == ["refused", "refused"]


def test_refusals_are_logged_with_direction_and_account(hosts):
    uid = int(hosts.shell("tools-1", "id -u mcp-time"))
    hosts.connect("tools-1", ("127.0.0.1", 47001), user=uid)
    hosts.connect("tools-1", ("::1", 47002), user=1000)
    hosts.connect("tools-1", (hosts.addresses("siem-1")[1], 47003))
    hosts.connect("client", (hosts.addresses("tools-1")[0], 47004))
    expected = (
        ("ringfence drop account:", "DPT=47001", f"UID={uid}"),
        ("ringfence drop local:", "DPT=47002", "UID=1000"),
        ("ringfence drop out:", "DPT=47003", "UID=0"),
        ("ringfence drop in:", "DPT=47004", "SRC=10."),
    )

    def logged() -> bool:
        journal = hosts.shell("tools-1", "journalctl --quiet -u ulogd2 -n 100").splitlines()
        return all(
            any(all(word in line for word in words) for line in journal) for words in expected
        )

    assert eventually(logged, seconds=5)


def test_a_second_run_changes_nothing(hosts):
    assert changed(hosts.apply()) == {"tools-1": 0, "siem-1": 0}


@pytest.mark.parametrize(
    "tampering",
    [
        "nft flush ruleset",
        "nft add element inet ringfence inbound4 '{ 0.0.0.0/0 . tcp . 9000 }'; "
        "systemctl disable --quiet nftables",
        "systemctl stop ulogd2",
        # nftables cannot change this in place.
        "nft delete table arp ringfence; nft 'table arp ringfence { chain foreign { }; "
        "set known { typeof arp saddr ip; flags dynamic,timeout; timeout 9s; }; }'",
    ],
)
def test_what_somebody_changed_by_hand_is_put_right(hosts, tampering):
    good = hosts.rules("tools-1")
    hosts.shell("tools-1", tampering)
    done = changed(hosts.apply())
    assert done["tools-1"] > 0
    assert done["siem-1"] == 0
    assert hosts.rules("tools-1") == good
    hosts.shell("tools-1", "systemctl is-enabled nftables ulogd2; systemctl is-active ulogd2")


def test_a_flow_that_leaves_the_manifest_is_closed(hosts, tmp_path):
    def without_git(document: dict[str, Any]) -> None:
        flows = document["network"]["flows"]
        document["network"]["flows"] = [f for f in flows if f["to"] != {"server": "git"}]

    targets = [(address, 8442) for address in hosts.addresses("tools-1")]
    try:
        changed(hosts.apply(manifest=changed_manifest(hosts, tmp_path, without_git)))
        assert hosts.connect("client", *targets) == ["silent", "silent"]
    finally:
        changed(hosts.apply())
    assert hosts.connect("client", *targets) == ["open", "open"]


def test_tables_of_others_stay_and_cannot_open_what_is_refused(hosts):
    hosts.shell(
        "tools-1",
        "nft add table inet theirs; nft 'add chain inet theirs input "
        "{ type filter hook input priority -10; policy accept; }'; "
        "nft add rule inet theirs input tcp dport 9000 accept; systemctl restart nftables; "
        "nft list chain inet theirs input",
    )
    try:
        assert hosts.connect("client", (hosts.addresses("tools-1")[0], 9000)) == ["silent"]
    finally:
        hosts.shell("tools-1", "nft delete table inet theirs")


def test_rules_that_lock_automation_out_are_undone(hosts):
    """The neighbours remain, and the host probes them again."""
    good = hosts.rules("tools-1")
    neighbour = '"lo" . 192.0.2.1 . 02:00:00:00:00:09'
    hosts.shell("tools-1", f"nft add element arp ringfence known '{{ {neighbour} timeout 1h }}'")
    elsewhere = {"network": "192.0.2.0/24", "protocol": "tcp", "port": 22, "why": "a mistake"}
    run = hosts.apply("--limit", "tools-1", "-e", json.dumps({"firewall_inbound": [elsewhere]}))
    assert run.returncode != 0
    assert "The previous state is restored" in run.stdout or "restores the previous" in run.stdout
    assert eventually(lambda: hosts.rules("tools-1") == good, seconds=150)
    assert neighbour in hosts.shell("tools-1", "nft list set arp ringfence known")
    rejected = "/var/lib/ringfence/deadman-switch/firewall.rejected/rejected.tar"
    since = int(hosts.shell("tools-1", f"stat -c %Y {rejected}"))
    began = "systemctl show --value --property=ActiveEnterTimestamp ringfence-neighbours"
    asked = f'date +%s -d "$({began})"'
    assert eventually(lambda: int(hosts.shell("tools-1", asked)) >= since)
    assert changed(hosts.apply()) == {"tools-1": 0, "siem-1": 0}


def test_rules_that_forget_administration_are_refused_at_once(hosts):
    run = hosts.apply("--limit", "tools-1", "-e", json.dumps({"firewall_inbound": []}))
    assert run.returncode != 0
    assert "allows no connection to port 22/tcp" in " ".join(run.stdout.split())


def test_a_ruleset_that_nft_refuses_changes_nothing(hosts):
    good = hosts.rules("tools-1")
    rule = {"network": "10.0.0.0/8", "protocol": "tcp", "port": 22, "why": "administration"}
    overlapping = [rule, rule | {"network": "10.1.0.0/16"}]
    run = hosts.apply("--limit", "tools-1", "-e", json.dumps({"firewall_inbound": overlapping}))
    assert run.returncode != 0
    assert "nothing was changed" in run.stdout
    assert hosts.rules("tools-1") == good


def test_the_rules_are_there_after_a_power_failure(hosts):
    good = hosts.rules("siem-1")
    hosts.lab.kill("siem-1")
    hosts.lab.start("siem-1")
    assert hosts.rules("siem-1") == good


@dataclass(frozen=True)
class Link:
    """Neighbour tables of tools-1, with an intruder on its link."""

    hosts: Firewalled
    intruder: LabNode

    def address(self, number: int, version: int) -> str:
        segment = self.hosts.environment.segments["servers"]
        return next(str(i.ip) for i in addresses(segment, number) if i.version == version)

    def victim(self, version: int) -> str:
        return self.hosts.addresses("tools-1")[0 if version == 4 else 1]

    @property
    def own(self) -> str:
        """Return the intruder's hardware address."""
        return hardware_address(self.hosts.lab.name, self.intruder.name)

    def say(self, program: str, *arguments: object) -> None:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        done = self.hosts.lab.exec(self.intruder.name, command, timeout=60)
        assert done.returncode == 0, done.stderr

    def claim(self, lie: str, victim: str, address: str, hardware: str) -> None:
        self.say(FORGE, lie, victim, address, hardware, *FEW)

    @contextmanager
    def claimed_without_pause(self, lie: str, victim: str, address: str) -> Iterator[None]:
        arguments = map(str, (lie, victim, address, self.own, *ENDLESS))
        command = ["ip", "netns", "exec", self.intruder.namespace, sys.executable, "-c", FORGE]
        with subprocess.Popen([*command, *arguments]) as attacker:
            try:
                yield
                assert attacker.poll() is None, "the attacker has left"
            finally:
                attacker.kill()

    @contextmanager
    def replaced(self, hardware: str) -> Iterator[None]:
        """Give the intruder's interface another hardware address."""
        change = ["ip", "netns", "exec", self.intruder.namespace, "ip", "link", "set", "eth0"]
        try:
            subprocess.run([*change, "address", hardware], check=True)
            yield
        finally:
            subprocess.run([*change, "address", self.own], check=True)
            self.forget()

    def forget(self) -> None:
        """Forget all neighbours, as on a host that had no rules yet."""
        tables = "; ".join(f"nft delete table {family} ringfence" for family in FAMILIES.values())
        self.hosts.shell(
            "tools-1", f"{tables}; ip neigh flush dev eth0; systemctl restart nftables"
        )

    def believed(self, address: str) -> str:
        """Return the hardware address that the host uses for an address."""
        script = f"""
            ip neigh replace {address} dev eth0 use 2>/dev/null || :
            for try in 1 2 3 4 5 6 7 8 9 10; do
                ip neigh show {address} dev eth0 | grep -o 'lladdr [^ ]*' && exit
                sleep 0.1
            done"""
        done = self.hosts.lab.exec("tools-1", ["/bin/sh", "-c", script], timeout=60)
        return done.stdout.removeprefix("lladdr ").strip()

    def known(self, version: int) -> int:
        """Return the number of remembered neighbours."""
        command = f"nft --json list set {FAMILIES[version]} ringfence known"
        shown = self.hosts.shell("tools-1", command)
        return len(json.loads(shown)["nftables"][1]["set"].get("elem", []))

    def counted(self, version: int, counter: str) -> int:
        command = f"nft --json list counter {FAMILIES[version]} ringfence {counter}"
        shown = self.hosts.shell("tools-1", command)
        return json.loads(shown)["nftables"][1]["counter"]["packets"]


@pytest.fixture(scope="module")
def link(hosts: Firewalled) -> Iterator[Link]:
    intruder = hosts.lab.intrude("servers")
    try:
        changed(hosts.apply("--limit", "tools-1", "-e", json.dumps(SHORT)))
        assert changed(hosts.apply("--limit", "tools-1", "-e", json.dumps(SHORT))) == {"tools-1": 0}
        yield Link(hosts, intruder)
    finally:
        hosts.lab.withdraw("servers")
        hosts.shell("tools-1", "ip neigh flush dev eth0")
        changed(hosts.apply())


@pytest.mark.parametrize(("version", "lie"), LIES)
def test_nobody_takes_the_place_of_a_neighbour(link, version, lie):
    """A neighbour that was idle, or known before there were rules, cannot be replaced either."""
    victim, router = link.victim(version), link.address(GATEWAY, version)
    table = f"{FAMILIES[version]} ringfence"
    link.hosts.shell("tools-1", f"nft delete table {table}; ip neigh flush dev eth0")
    true = link.believed(router)
    assert true not in ("", link.own)
    link.hosts.shell("tools-1", "systemctl restart nftables")
    assert eventually(lambda: link.known(version) > 0)
    time.sleep(MEMORY + 1)
    before = link.counted(version, "neighbour")
    link.claim(lie, victim, router, link.own)
    assert link.believed(router) == true
    assert link.counted(version, "neighbour") > before
    assert link.hosts.connect("client", (victim, 8441)) == ["open"], "answers take another way"
    since = f"journalctl --quiet -u ulogd2 --since=-{MEMORY}s"
    assert eventually(lambda: "ringfence drop neighbour:" in link.hosts.shell("tools-1", since))

    try:
        link.hosts.shell("tools-1", f"nft delete table {table}")
        link.claim(lie, victim, router, link.own)
        assert link.believed(router) == link.own, "nobody believes it anyway"
    finally:
        link.hosts.shell("tools-1", "ip neigh flush dev eth0; systemctl restart nftables")


@pytest.mark.parametrize(("version", "lie"), [(4, "request"), (6, "solicitation")])
def test_what_is_refused_is_kept_with_the_address(link, version, lie):
    router = link.address(GATEWAY, version)
    link.believed(router)
    link.claim(lie, link.victim(version), router, link.own)
    hardware = int(link.own.replace(":", ""), 16)
    words = {
        4: f"{router} . {link.own}",
        6: f"0x{int(ip_address(router)):032x} . 0x{hardware:x}",  # the set holds numbers
    }
    shown = link.hosts.shell("tools-1", f"nft list set {FAMILIES[version]} ringfence refused")
    assert words[version] in shown


@pytest.mark.parametrize(("version", "lie"), [(4, "gratuitous"), (6, "advertisement")])
def test_a_host_that_was_replaced_is_reached_after_a_while(link, version, lie):
    address, victim = link.address(INTRUDER, version), link.victim(version)
    new = f"02:00:00:00:{version:02x}:01"
    assert link.believed(address) == link.own
    began = time.monotonic()
    with link.replaced(new):
        link.claim(lie, victim, address, new)
        assert eventually(lambda: link.believed(address) == new, seconds=4 * MEMORY)
        assert time.monotonic() - began > MEMORY / 2


@pytest.mark.parametrize(("version", "lie"), [(4, "gratuitous"), (6, "advertisement")])
def test_one_address_can_be_forgotten_by_hand(link, version, lie):
    address, victim = link.address(INTRUDER, version), link.victim(version)
    new = f"02:00:00:00:{version:02x}:02"
    assert link.believed(address) == link.own
    number = address if version == 4 else f"0x{int(ip_address(address)):032x}"
    with link.replaced(new):
        link.hosts.shell(
            "tools-1",
            f"nft delete element {FAMILIES[version]} ringfence owned '{{ \"eth0\" . {number} }}'",
        )
        link.claim(lie, victim, address, new)
        assert link.believed(address) == new


@pytest.mark.parametrize(("version", "lie"), [(4, "reply"), (6, "advertisement")])
def test_loading_rules_forgets_nobody(link, version, lie):
    victim, router = link.victim(version), link.address(GATEWAY, version)
    true = link.believed(router)
    assert true not in ("", link.own)
    with link.claimed_without_pause(lie, victim, router):
        for load in 5 * ["restart", "reload"]:
            before = link.counted(version, "neighbour")
            link.hosts.shell("tools-1", f"systemctl reset-failed; systemctl {load} nftables")
            assert link.believed(router) == true, load
            assert eventually(lambda before=before: link.counted(version, "neighbour") > before)
        rule = SHORT | {"firewall_log_rate": f"{version}/second"}
        changed(link.hosts.apply("--limit", "tools-1", "-e", json.dumps(rule)))
        assert link.believed(router) == true
        time.sleep(2)
        assert link.believed(router) == true
    link.hosts.shell("tools-1", "systemctl is-active ringfence-neighbours")


@pytest.mark.parametrize("load", ["restart", "reload"])
def test_neighbours_are_asked_as_soon_as_rules_are_loaded(link, load):
    asked = link.hosts.shell("tools-1", ASKED)
    link.hosts.shell("tools-1", f"systemctl reset-failed; systemctl {load} nftables")
    assert eventually(lambda: link.hosts.shell("tools-1", ASKED) != asked)


@pytest.mark.parametrize(("version", "lie"), [(4, "reply"), (6, "advertisement")])
def test_a_flood_of_neighbours_makes_nobody_forgotten(link, version, lie):
    router = link.address(GATEWAY, version)
    link.forget()
    true = link.believed(router)
    assert eventually(lambda: link.known(version) > 0)
    link.say(FLOOD, link.victim(version), 10 * ROOM)
    assert link.known(version) <= ROOM
    assert link.counted(version, "unremembered") > 0
    link.claim(lie, link.victim(version), router, link.own)
    assert link.believed(router) == true
    assert link.believed(link.address(INTRUDER, version)) == link.own, "nobody new is heard"


def test_addresses_that_move_on_purpose_are_left_alone(link):
    networks = [link.address(GATEWAY, 4), link.address(GATEWAY, 6) + "/57"]
    moving = json.dumps({"firewall_moving_addresses": networks})
    try:
        changed(link.hosts.apply("--limit", "tools-1", "-e", moving))
        for version, lie in LIES:
            if lie == "behind another option":
                continue
            router = link.address(GATEWAY, version)
            link.hosts.shell("tools-1", "ip neigh flush dev eth0")
            assert link.believed(router) != link.own
            link.claim(lie, link.victim(version), router, link.own)
            assert link.believed(router) == link.own, lie
    finally:
        link.hosts.shell("tools-1", "ip neigh flush dev eth0")


def changed_manifest(
    hosts: Firewalled, directory: Path, change: Callable[[dict[str, Any]], None]
) -> Path:
    """Copy the manifest with a change, beside the same state."""
    original = hosts.environment.path
    document = yaml.safe_load(original.read_text())
    change(document)
    (directory / ".state").symlink_to(original.parent / ".state")
    manifest = directory / "environment.yaml"
    manifest.write_text(yaml.safe_dump(document))
    return manifest
