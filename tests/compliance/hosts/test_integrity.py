"""Tools and the servers behind them (TIN)."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from ringfence import ROLES
from ringfence.manifest.model import Server
from ringfence.packages.wheelhouse import WheelhouseError, find_lock, locks_of
from ringfence.report import not_applicable
from ringfence.verify import probes
from ringfence.verify.targets import Target

REMEDY = "apply role mcp_servers"
LARGEST_EXPOSURE = 1.5
"""Score of `systemd-analyze security`, which goes from 0 (confined) to 10."""

PACKAGES = "/opt/ringfence/mcp/$SERVER/*/lib/python3*/site-packages"
BILL = "$(ls -d /opt/ringfence/mcp/$SERVER/*/sbom.cdx.json)"
DROP_IN = "/run/systemd/system/mcp-$SERVER.service.d/90-sabotage.conf"


def unit_sabotage(*lines: str) -> pytest.MarkDecorator:
    """Return a sabotage that weakens the unit of the server."""
    text = "\\n".join(("[Service]", *lines))
    return pytest.mark.sabotage(
        f"mkdir -p $(dirname {DROP_IN}) && printf '{text}\\n' > {DROP_IN} && "
        "systemctl daemon-reload && systemctl restart mcp-$SERVER",
        restore=f"rm -r $(dirname {DROP_IN}) && systemctl daemon-reload && "
        "systemctl restart mcp-$SERVER",
    )


# --- what is installed ----------------------------------------------------------------------------


def installed(host: Target, server: Server) -> dict[str, Any]:
    """Return the installed environment of a server, compared with its wheels."""
    found = host.once("python3 -c %s %s", probes.source("packages"), server.name)
    assert found.succeeded, (
        f"{server.name} is not installed: {found.stderr.strip()[-200:]}; {REMEDY}"
    )
    return json.loads(found.stdout)


@pytest.mark.control("TIN-02")
@pytest.mark.hosts("mcp_servers")
@pytest.mark.sabotage(
    f"file=$(ls {PACKAGES}/*/__init__.py | head -n 1) && echo '# changed' >> $file",
    restore=f"file=$(ls {PACKAGES}/*/__init__.py | head -n 1) && sed -i '$d' $file",
)
def test_installed_files_are_those_of_the_wheels(host: Target, server: Server) -> None:
    """A file changed after installation runs with all permissions of the server."""
    found = installed(host, server)
    assert found["files"] > 0, f"{server.name} has no installed files; {REMEDY}"
    differing = found["differing"]
    assert not differing, (
        f"{len(differing)} of {found['files']} files of {server.name} differ from their wheels: "
        f"{', '.join(differing[:5])}; remove {found['path']}, then {REMEDY}"
    )


@pytest.mark.control("TIN-02")
@pytest.mark.hosts("mcp_servers")
@pytest.mark.sabotage(
    f"cd {PACKAGES} && mkdir sabotage-1.dist-info && "
    "printf 'Name: sabotage\\nVersion: 1\\n' > sabotage-1.dist-info/METADATA",
    restore=f"cd {PACKAGES} && rm -r sabotage-1.dist-info",
)
def test_versions_are_those_of_the_lock(host: Target, server: Server, environment: Any) -> None:
    """The lock was reviewed; anything else was not."""
    found = installed(host, server)
    try:
        lock = find_lock(
            [locks_of(environment), ROLES / "mcp_servers/files/locks"],
            server.package.name,
            server.package.version,
            found["python"],
        )
    except WheelhouseError as error:
        pytest.fail(str(error), pytrace=False)
    wanted = {
        (re.sub(r"[-_.]+", "-", name).lower(), version)
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock.read_text(), re.M)
    }
    present = {(name, version) for name, version in found["versions"]}
    assert present == wanted, (
        f"installed packages of {server.name} differ from its lock: "
        f"{', '.join('=='.join(pair) for pair in sorted(present ^ wanted))}; {REMEDY}"
    )


@pytest.mark.control("TIN-02")
@pytest.mark.hosts("mcp_servers")
@pytest.mark.sabotage(
    f"mv {BILL} /root/.sabotage",
    restore=("mv /root/.sabotage $(ls -d /opt/ringfence/mcp/$SERVER/*)/sbom.cdx.json"),
)
def test_bill_of_materials_names_what_is_installed(host: Target, server: Server) -> None:
    """When a library has a vulnerability, the bill of materials names affected servers."""
    found = installed(host, server)
    listed = {(name, version) for name, version in found["listed"]}
    present = {(name, version) for name, version in found["versions"]}
    assert listed == present, (
        f"the bill of materials of {server.name} is wrong about "
        f"{', '.join('=='.join(pair) for pair in sorted(present ^ listed)[:5])}; "
        f"remove {found['path']}, then {REMEDY}"
    )


@pytest.mark.control("TIN-02")
@pytest.mark.hosts("mcp_servers")
@pytest.mark.sabotage(
    f"chown mcp-$SERVER $(ls -d {PACKAGES}/*/ | head -n 1)",
    restore=f"chown root $(ls -d {PACKAGES}/*/ | head -n 1)",
)
def test_packages_are_writable_by_root_only(host: Target, server: Server) -> None:
    """An intruder who can change a server's code survives every restart."""
    found = installed(host, server)
    assert not found["writable"], (
        f"others than root can write {', '.join(found['writable'][:5])}; {REMEDY}"
    )


@pytest.mark.control("TIN-02")
@pytest.mark.hosts("mcp_servers")
@unit_sabotage("ExecStart=", 'ExecStart=/usr/bin/python3 -c "import time; time.sleep(99)"')
def test_server_runs_from_its_environment(host: Target, server: Server) -> None:
    """Verification of a package is worthless if another program runs."""
    found = installed(host, server)
    commands = host.once(
        "for pid in $(cat /sys/fs/cgroup/system.slice/%s/cgroup.procs); "
        "do tr '\\0' ' ' < /proc/$pid/cmdline; echo; done",
        f"mcp-{server.name}.service",
    ).stdout.splitlines()
    expected = f"{found['path']}/bin/"
    assert any(expected in command for command in commands), (
        f"no process of {server.name} runs from {found['path']}: "
        f"{'; '.join(commands) or 'it is not running'}; {REMEDY}"
    )


# --- what a server can do -------------------------------------------------------------------------

# Runs the probe under the server's own unit, with every drop-in.
IN_SANDBOX = """
unit=ringfence-probe-$1.service
answer=/run/$unit.json
systemctl cat mcp-$1.service > /run/systemd/system/$unit || exit
trap 'rm -f /run/systemd/system/$unit $answer; systemctl daemon-reload' EXIT
cat >> /run/systemd/system/$unit << END
[Service]
Type=oneshot
Restart=no
ExecStartPre=
ExecStart=
ExecStart=/usr/bin/python3 -I - $3 $4 /opt/ringfence/mcp/$1
OOMPolicy=continue
StandardInputData=$2
StandardOutput=truncate:$answer
END
systemctl daemon-reload
systemctl start $unit || { journalctl -u $unit -n 5 -o cat >&2; exit 1; }
cat $answer
"""


def tried(host: Target, server: Server) -> dict[str, Any]:
    """Try what a program can do in the sandbox of a server."""
    code = base64.b64encode(probes.source("sandbox").encode()).decode()
    found = host.once(
        "sh -c %s probe %s %s %s %s",
        IN_SANDBOX,
        server.name,
        code,
        str(server.limits.memory_mib),
        str(server.limits.tasks),
    )
    assert found.succeeded, (
        f"the probe could not run in the sandbox of {server.name}: "
        f"{found.stderr.strip()[-300:]}; {REMEDY}"
    )
    return json.loads(found.stdout)


@pytest.mark.control("TIN-04")
@pytest.mark.hosts("mcp_servers")
@unit_sabotage("TemporaryFileSystem=/var/lib:mode=777")
def test_server_writes_to_its_state_alone(host: Target, server: Server) -> None:
    """A server that can write elsewhere can plant something there."""
    found = tried(host, server)
    assert found["state"], f"{server.name} cannot write its own state; {REMEDY}"
    assert not found["written"], (
        f"{server.name} can write to {', '.join(found['written'])}; {REMEDY}"
    )


@pytest.mark.control("TIN-04")
@pytest.mark.hosts("mcp_servers")
@unit_sabotage("BindReadOnlyPaths=/etc /var/log")
def test_server_sees_no_files_of_others(host: Target, server: Server) -> None:
    """Intruders look first for keys, logs and data of other servers."""
    found = tried(host, server)
    assert not found["visible"], f"{server.name} can read {', '.join(found['visible'])}; {REMEDY}"


@pytest.mark.control("TIN-04")
@pytest.mark.hosts("mcp_servers")
@unit_sabotage("PrivatePIDs=no", "ProtectProc=default", "PrivateUsers=no")
def test_server_sees_no_processes_of_others(host: Target, server: Server) -> None:
    """Command lines and memory maps of other processes help to attack them."""
    found = tried(host, server)
    assert not found["processes"], (
        f"{server.name} sees {', '.join(found['processes'][:5])}; {REMEDY}"
    )


@pytest.mark.control("TIN-04")
@pytest.mark.hosts("mcp_servers")
@unit_sabotage("PrivateNetwork=no", "RestrictAddressFamilies=AF_INET AF_INET6")
def test_server_without_egress_has_no_network(host: Target, server: Server) -> None:
    """A server without network cannot send away what it reads."""
    if server.egress:
        not_applicable("the manifest lets this server connect; NET-02 checks its destinations")
    found = tried(host, server)
    reach = found["interfaces"] + (found["sockets"] if server.transport == "stdio" else [])
    assert not reach, f"{server.name} has network access: {', '.join(reach)}; {REMEDY}"


@pytest.mark.control("TIN-04")
@pytest.mark.hosts("mcp_servers")
@unit_sabotage("MemoryDenyWriteExecute=no", "SystemCallFilter=", "RestrictNamespaces=no")
def test_server_cannot_start_an_escape(host: Target, server: Server) -> None:
    """The usual escapes from a sandbox begin with these calls."""
    found = tried(host, server)
    assert not found["escapes"], f"{server.name} can use {', '.join(found['escapes'])}; {REMEDY}"


@pytest.mark.control("TIN-04")
@pytest.mark.hosts("mcp_servers")
@unit_sabotage("MemoryMax=infinity", "LimitDATA=infinity")
def test_server_is_held_to_its_limits(host: Target, server: Server) -> None:
    """A server out of control must not starve its neighbours."""
    found = tried(host, server)
    assert not found["memory"], (
        f"{server.name} can allocate more than {server.limits.memory_mib} MiB; {REMEDY}"
    )
    assert found["children"] <= server.limits.tasks, (
        f"{server.name} can start more than {server.limits.tasks} tasks; {REMEDY}"
    )


@pytest.mark.control("TIN-04")
@pytest.mark.hosts("mcp_servers")
@unit_sabotage("CPUQuota=")
def test_server_is_held_to_its_share_of_processors(host: Target, server: Server) -> None:
    """A server in an endless loop must leave time to the others."""
    group = f"/sys/fs/cgroup/system.slice/mcp-{server.name}.service"
    assert host.once("test -d %s", group).succeeded, f"{server.name} is not running; {REMEDY}"
    if "cpu" not in host.once("cat /sys/fs/cgroup/cgroup.controllers").stdout.split():
        not_applicable("the kernel gives this host no control over processor time")
    quota, period = host.once("cat %s", f"{group}/cpu.max").stdout.split()
    assert quota != "max", f"{server.name} has no limit on processor time; {REMEDY}"
    assert int(quota) * 100 == server.limits.cpu_percent * int(period), (
        f"{server.name} can use {int(quota) / int(period):.0%} of a processor, not "
        f"{server.limits.cpu_percent}%; {REMEDY}"
    )


@pytest.mark.control("TIN-04")
@pytest.mark.hosts("mcp_servers")
@unit_sabotage(
    "PrivateUsers=no",
    "ProtectKernelModules=no",
    "CapabilityBoundingSet=CAP_SYS_ADMIN",
    "SystemCallFilter=@mount",
    "RestrictNamespaces=no",
    "PrivateDevices=no",
)
def test_exposure_is_small(host: Target, server: Server) -> None:
    """systemd's score covers options that no other check tries."""
    found = host.once("systemd-analyze security --no-pager %s", f"mcp-{server.name}.service")
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", found.stdout)
    assert score, f"mcp-{server.name}.service does not exist; {REMEDY}"
    assert float(score[1]) <= LARGEST_EXPOSURE, (
        f"systemd rates the exposure of {server.name} at {score[1]}, above "
        f"{LARGEST_EXPOSURE}; {REMEDY}"
    )
