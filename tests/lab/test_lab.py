"""The lab itself: boot, disconnect, kill and reset a host; at the end nothing remains."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from ringfence import cli
from ringfence.lab import Lab, LabError, UnusableError, directories, network, packages, removal
from ringfence.lab.cgroup import CgroupLimits, hierarchies
from ringfence.lab.plan import namespace_prefix, operator_prefix
from ringfence.lab.removal import down, everything
from ringfence.manifest.model import Environment

MANIFEST = """
ringfence: 1
name: {name}
stage: development
contacts:
  security: {{name: Nobody, email: nobody@example.com}}
  operations: {{name: Nobody, email: nobody@example.com}}
network:
  domain: {name}.internal
  segments:
    management: {{cidr: 10.{octet}.10.0/24, cidr6: "fd0d:{octet}:10::/64", purpose: management}}
    clients: {{cidr: 10.{octet}.20.0/24, cidr6: "fd0d:{octet}:20::/64", purpose: clients}}
    a-segment-with-a-long-name:
      cidr: 10.{octet}.30.0/24
      cidr6: "fd0d:{octet}:30::/64"
      purpose: servers
  services:
    packages: {{proxy: "http://10.{octet}.10.2:3142"}}
  flows: []
access:
  automation: {{account: ringfence}}
  bootstrap: {{user: root, identity_file: .state/bootstrap_ed25519}}
administrators:
  alice:
    name: Alice
    email: alice@example.com
    ssh_key_files: [.state/administrators/alice_ed25519.pub]
    second_factor: totp
hosts:
  only:
    segment: a-segment-with-a-long-name
    address: 10.{octet}.30.11
    address6: "fd0d:{octet}:30::11"
    groups: [mcp_servers, siem]
log_sink: {{kind: collector, host: only}}
pki: {{authority: internal}}
retention: {{public: 1, internal: 1, confidential: 1, restricted: 1}}
servers:
  time:
    host: only
    port: 8441
    transport: stdio
    package: {{ecosystem: pypi, name: mcp-server-time, version: 2026.10.19}}
    command: [mcp-server-time]
    tools:
      get_current_time: {{data_class: public}}
roles: {{}}
principals: {{}}
"""

GREETING = """
import socket, sys
with socket.create_connection((sys.argv[1], 22), timeout=5) as connection:
    print(connection.recv(255).decode())
"""

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
TINY, SECOND = f"tiny-{WORKER}", f"second-{WORKER}"

SMALL = CgroupLimits(memory_mib=512, tasks=300)


def write_manifest(directory: Path, name: str, octet: int) -> Path:
    path = directory / "environment.yaml"
    path.write_text(MANIFEST.format(name=name, octet=octet))
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, release: str, octets: range) -> Iterator[Lab]:
    path = write_manifest(tmp_path_factory.mktemp("tiny"), TINY, octets[1])
    lab = Lab(Environment.load(path), release, limits=SMALL)
    lab.down()
    lab.up()
    yield lab
    lab.down(purge=True)


@pytest.fixture
def running(tiny: Lab) -> Lab:
    """Return the tiny lab with its host up and connected, whatever the previous test did."""
    tiny.reconnect("only")
    tiny.up()
    return tiny


@pytest.fixture
def second_manifest(tmp_path: Path, octets: range) -> Iterator[Path]:
    """Return the manifest of another lab, for tests that take it down themselves."""
    path = write_manifest(tmp_path, SECOND, octets[2])
    down(SECOND)
    yield path
    down(SECOND)


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def address_of(lab: Lab, version: int) -> str:
    host = lab.environment.hosts["only"]
    return str(host.address if version == 4 else host.address6)


def greeting_from(lab: Lab, node: str, target: str) -> str:
    return lab.exec(node, [sys.executable, "-c", GREETING, target]).stdout


def boot_id(lab: Lab) -> str:
    return lab.exec("only", ["cat", "/proc/sys/kernel/random/boot_id"]).stdout


def traces(name: str) -> dict[str, list[str]]:
    """Return everything on this machine that belongs to a lab, by kind, without empty kinds."""
    prefix = namespace_prefix(name)
    links = json.loads(subprocess.check_output(["ip", "-json", "link", "show"]))
    found = {
        "namespaces": [*network.NAMESPACES.glob(f"{prefix}*")],
        "namespace files": [*network.NAMESPACE_FILES.glob(f"{prefix}*")],
        "links": [x["ifname"] for x in links if x["ifname"].startswith(operator_prefix(name))],
        "directories": [directories.LABS / name] if (directories.LABS / name).exists() else [],
        "control groups": [
            root / "ringfence" / f"lab-{name}"
            for root in (hierarchies().v2, *hierarchies().v1.values())
            if (root / "ringfence" / f"lab-{name}").exists()
        ],
        "mounts": [],
        "processes": [],
    }
    for process in Path("/proc").glob("[0-9]*"):
        try:
            mounts = (process / "mountinfo").read_text()
            command = (process / "cmdline").read_text().replace("\0", " ")
            groups = (process / "cgroup").read_text()
        except OSError:
            continue
        # Any mount namespace may hold a copy, also those of other labs' hosts.
        if prefix in mounts or f"{directories.LABS / name}/" in mounts:
            found["mounts"].append(process.name)
        # An empty command line: a dead process that its parent has not reaped yet.
        if command and (f"/lab-{name}/" in groups or f"{directories.LABS / name}/" in command):
            found["processes"].append(f"{process.name} {command}")
    return {kind: [str(item) for item in items] for kind, items in found.items() if items}


# Use


def test_second_up_boots_nothing(running: Lab) -> None:
    before = boot_id(running)
    running.up()
    assert boot_id(running) == before


def test_ssh_logs_in_to_a_host_whose_key_is_known(running: Lab) -> None:
    done = subprocess.run(
        running.ssh("only", ["hostname", "--fqdn"]), capture_output=True, text=True, check=False
    )
    assert done.stdout == f"only.{TINY}.internal\n", done.stderr


def test_ssh_refuses_a_host_with_another_key(running: Lab) -> None:
    known_hosts = running.environment.state / "known_hosts"
    genuine = known_hosts.read_text()
    lines = [line.split() for line in genuine.splitlines()]
    stranger = running.environment.bootstrap.identity_file
    assert stranger
    key = stranger.with_name(f"{stranger.name}.pub").read_text().split()[1]
    known_hosts.write_text("".join(f"{line[0]} ssh-ed25519 {key}\n" for line in lines))
    try:
        done = subprocess.run(running.ssh("only", ["true"]), capture_output=True, check=False)
    finally:
        known_hosts.write_text(genuine)
    assert done.returncode == 255


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("node", ["client", "router"])
def test_segments_reach_each_other(running: Lab, node: str, version: int) -> None:
    assert greeting_from(running, node, address_of(running, version)).startswith("SSH-2.0")


@pytest.mark.parametrize("version", [4, 6])
def test_this_machine_reaches_hosts_through_the_router(running: Lab, version: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GREETING, address_of(running, version)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("SSH-2.0"), done.stderr


def test_client_knows_hosts_by_name(running: Lab) -> None:
    assert greeting_from(running, "client", f"only.{TINY}.internal").startswith("SSH-2.0")


def test_hosts_get_packages_and_reach_nothing_else(running: Lab) -> None:
    running.reset("only")
    update = running.exec("only", ["apt-get", "update", "--error-on=any"], timeout=120)
    assert update.returncode == 0, update.stderr
    curl = ["curl", "--silent", "--fail", "--max-time", "5"]
    elsewhere = "http://ftp.debian.org/debian/dists/trixie/InRelease"
    assert running.exec("only", [*curl, elsewhere]).returncode not in (0, 22)
    proxy = ["--proxy", running.environment.services.package_proxy or ""]
    refused = 22
    assert running.exec("only", [*curl, *proxy, elsewhere]).returncode == refused


def test_exec_passes_input_output_and_status_on(running: Lab) -> None:
    done = running.exec("only", ["sh", "-c", "cat; echo no >&2; exit 7"], input="yes")
    assert (done.stdout, done.stderr, done.returncode) == ("yes", "no\n", 7)


def test_exec_is_root_of_the_host_and_not_of_this_machine(running: Lab) -> None:
    bound = "grep CapBnd /proc/1/status /proc/self/status"
    first, own = running.exec("only", ["sh", "-c", bound]).stdout.split("\n")[:2]
    assert first.split(":")[-1] == own.split(":")[-1]


def test_unknown_node_is_named_with_those_that_exist(running: Lab) -> None:
    with pytest.raises(UnusableError, match="has no nowhere; it has only, router, client"):
        running.exec("nowhere", ["true"])


def test_host_cannot_take_more_memory_than_its_limit(running: Lab) -> None:
    hog = "b = bytearray(900 << 20); print(len(b))"
    assert running.exec("only", ["python3", "-c", hog], timeout=60).returncode != 0
    assert running.exec("only", ["true"]).returncode == 0


def test_host_cannot_start_more_processes_than_its_limit(running: Lab) -> None:
    forks = (
        "import os, signal, time\n"
        "pids = []\n"
        "try:\n"
        "    for _ in range(600):\n"
        "        pid = os.fork()\n"
        "        if not pid:\n"
        "            time.sleep(60)\n"
        "            os._exit(0)\n"
        "        pids.append(pid)\n"
        "except OSError:\n"
        "    print('refused')\n"
        "finally:\n"
        "    for pid in pids:\n"
        "        os.kill(pid, signal.SIGKILL)\n"
    )
    assert running.exec("only", ["python3", "-c", forks], timeout=60).stdout == "refused\n"


def test_units_of_a_host_can_be_kept_from_the_network(running: Lab) -> None:
    """A service's address filter is a BPF program: containers usually cannot load one."""
    curl = ["curl", "--silent", "--max-time", "2", "telnet://127.0.0.1:22"]
    unit = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect"]
    allowed = running.exec("only", [*unit, *curl])
    denied = running.exec("only", [*unit, "--property=IPAddressDeny=any", *curl])
    assert "SSH-2.0" in allowed.stdout
    assert "SSH-2.0" not in denied.stdout


def test_lab_boots_with_its_hosts_in_their_segments(lab: Lab) -> None:
    assert {status.name: status.state for status in lab.status()} == {
        "tools-1": "running",
        "siem-1": "running",
    }
    for name, other in (("tools-1", "siem-1"), ("siem-1", "tools-1")):
        for version in ("-4", "-6"):
            ping = lab.exec(name, ["ping", version, "-c1", "-W3", other])
            assert ping.returncode == 0, ping.stdout


# Failures of hosts


def test_killed_host_starts_again_with_its_files(running: Lab) -> None:
    running.exec("only", ["sh", "-c", "echo here > /root/file"])
    before = boot_id(running)
    running.kill("only")
    assert [status.state for status in running.status()] == ["stopped"]
    running.start("only")
    assert boot_id(running) != before
    assert running.exec("only", ["cat", "/root/file"]).stdout == "here\n"


def test_up_boots_a_dead_host(running: Lab) -> None:
    running.kill("only")
    running.up()
    assert [status.state for status in running.status()] == ["running"]


def test_host_reboots_itself(running: Lab) -> None:
    before = boot_id(running)
    running.exec("only", ["systemctl", "reboot"])
    # During a reboot the lab has no process to query.
    assert eventually(lambda: running.machines["only"].leader is not None and is_new(before), 30)

    def ssh_works() -> bool:
        done = subprocess.run(running.ssh("only", ["true"]), capture_output=True, check=False)
        return done.returncode == 0

    assert eventually(ssh_works, 30)


def is_new(before: str) -> bool:
    path = directories.LABS / TINY
    assert path.is_dir()
    lab = Lab(Environment.load(json.loads((path / "lab.json").read_text())["environment"]))
    try:
        return boot_id(lab) not in ("", before)
    except LabError:
        return False


def test_reset_makes_a_host_fresh_and_keeps_its_keys(running: Lab) -> None:
    running.exec("only", ["sh", "-c", "echo > /root/file; rm -r /etc/ssh /usr/bin/python3"])
    running.reset("only")
    test = ["sh", "-c", "test ! -e /root/file && test -x /usr/bin/python3"]
    assert subprocess.run(running.ssh("only", test[-1:]), check=False).returncode == 0


def test_a_disconnected_host_is_unreachable_until_it_is_reconnected(running: Lab) -> None:
    running.disconnect("only")
    assert [status.state for status in running.status()] == ["disconnected"]
    assert not greeting_from(running, "client", address_of(running, 4))
    assert not greeting_from(running, "client", address_of(running, 6))
    running.reconnect("only")
    for version in (4, 6):
        target = address_of(running, version)
        assert eventually(lambda target=target: bool(greeting_from(running, "client", target)))


# Refusals


def test_changed_addresses_are_refused(running: Lab) -> None:
    path = running.environment.path
    before = path.read_text()
    path.write_text(before.replace(".30.11", ".30.12"))
    try:
        with pytest.raises(UnusableError, match=r"have changed since.*down, then up"):
            Lab(Environment.load(path)).up()
    finally:
        path.write_text(before)


def test_lab_with_the_same_addresses_is_refused(
    running: Lab, tmp_path: Path, octets: range
) -> None:
    twin = f"twin-{WORKER}"
    path = write_manifest(tmp_path, twin, octets[1])
    with pytest.raises(UnusableError, match="overlaps"):
        Lab(Environment.load(path)).up()
    down(twin)
    assert not traces(twin)
    assert running.exec("only", ["true"]).returncode == 0


def test_lab_with_the_same_name_is_refused(running: Lab, tmp_path: Path, octets: range) -> None:
    path = write_manifest(tmp_path, TINY, octets[3])
    with pytest.raises(UnusableError, match=str(running.environment.path)):
        Lab(Environment.load(path)).up()


# The end


def start_up(manifest: Path, release: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ringfence", "lab", "up", str(manifest), "--release", release]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_down_leaves_nothing(second_manifest: Path, release: str) -> None:
    lab = Lab(Environment.load(second_manifest), release)
    lab.up()
    # Processes that tests leave running in a client must not outlive the lab either.
    subprocess.run(
        ["setsid", "--fork", *lab.command("client", ["sleep", "600"])],
        stdin=subprocess.DEVNULL,
        check=True,
    )
    present = traces(SECOND)
    assert {"namespaces", "links", "directories", "control groups", "processes"} <= present.keys()
    lab.down(purge=True)
    assert not traces(SECOND)
    assert [path.name for path in second_manifest.parent.iterdir()] == ["environment.yaml"]


@pytest.mark.parametrize("seconds", [0.3, 0.5, 0.7, 0.9, 1.2, 1.6, 2.5])
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT], ids=lambda kind: kind.name)
def test_interrupted_up_is_cleaned_by_down(
    second_manifest: Path, release: str, seconds: float, kind: signal.Signals
) -> None:
    process = start_up(second_manifest, release)
    time.sleep(seconds)
    process.send_signal(kind)
    process.wait(timeout=30)
    down(SECOND)
    assert not traces(SECOND)


def test_killed_up_is_finished_by_the_next(second_manifest: Path, release: str) -> None:
    process = start_up(second_manifest, release)
    assert eventually(lambda: "control groups" in traces(SECOND))
    process.kill()
    process.wait()
    lab = Lab(Environment.load(second_manifest), release)
    lab.up()
    assert [status.state for status in lab.status()] == ["running"]


@pytest.mark.parametrize("missing", ["router", "directory", "host", "everything"])
def test_down_works_when_half_is_gone(second_manifest: Path, release: str, missing: str) -> None:
    lab = Lab(Environment.load(second_manifest), release)
    lab.up()
    if missing in ("router", "everything"):
        subprocess.run(["ip", "netns", "delete", lab.plan.router], check=True)
    if missing in ("host", "everything"):
        lab.machines["only"].kill()
    if missing in ("directory", "everything"):
        shutil.rmtree(lab.directory)
    down(SECOND)
    assert not traces(SECOND)


def test_up_repairs_a_broken_network(second_manifest: Path, release: str) -> None:
    lab = Lab(Environment.load(second_manifest), release)
    lab.up()
    subprocess.run(["ip", "netns", "delete", lab.plan.router], check=True)
    lab.up()
    assert greeting_from(lab, "client", address_of(lab, 4)).startswith("SSH-2.0")


def test_state_that_the_lab_did_not_make_is_kept(second_manifest: Path, release: str) -> None:
    """A rehearsal of a real environment must not delete the environment's keys."""
    state = second_manifest.parent / ".state"
    state.mkdir(mode=0o700)
    key = state / "bootstrap_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    lab = Lab(Environment.load(second_manifest), release)
    lab.up()
    lab.down(purge=True)
    assert key.exists()


def test_package_proxy_goes_with_the_last_lab(second_manifest: Path, release: str) -> None:
    lab = Lab(Environment.load(second_manifest), release)
    lab.up()
    assert packages.PROXY.populated
    lab.down()
    assert packages.PROXY.populated == bool(directories.labs())


def test_fresh_up_starts_from_nothing(second_manifest: Path, release: str) -> None:
    lab = Lab(Environment.load(second_manifest), release)
    lab.up()
    lab.exec("only", ["touch", "/root/file"])
    assert cli.main(["lab", "up", str(second_manifest), "--release", release, "--fresh"]) == 0
    again = Lab(Environment.load(second_manifest))
    assert again.exec("only", ["test", "-e", "/root/file"]).returncode == 1
    assert subprocess.run(again.ssh("only", ["true"]), check=False).returncode == 0


def test_down_all_takes_every_lab_that_it_finds(
    second_manifest: Path, release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(Environment.load(second_manifest), release)
    lab.up()
    assert SECOND in everything()
    shutil.rmtree(lab.directory)
    assert SECOND in everything()
    # Others may use this machine's labs.
    monkeypatch.setattr(removal, "everything", lambda: [SECOND])
    assert cli.main(["lab", "down", "--all", "--purge", str(second_manifest)]) == 0
    assert not traces(SECOND)
    assert not lab.environment.state.exists()


def test_command_line_tells_the_state(running: Lab) -> None:
    manifest = str(running.environment.path)
    command = [sys.executable, "-m", "ringfence", "lab", "status", manifest, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (host,) = yaml.safe_load(done.stdout)
    assert (done.returncode, host["name"], host["state"]) == (0, "only", "running")
    running.kill("only")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_without_root_the_remedy_is_one_line(running: Lab) -> None:
    command = [sys.executable, "-m", "ringfence", "lab", "status", str(running.environment.path)]
    # May read this checkout, wherever it is, and nothing else.
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *reading, *command],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
