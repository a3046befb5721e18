"""MCP servers over mutual TLS: callers get through, others do not, and servers stay isolated.

Only the roles tls and mcp_servers; the host is not hardened otherwise.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ringfence.identity import pki
from ringfence.lab import Lab
from ringfence.manifest.model import Environment

ROOT = Path(__file__).parents[2]
OCTET = 209

PLAYBOOK = """
- hosts: all
  gather_facts: false
  force_handlers: true
  roles: [tls]
- hosts: mcp_servers
  gather_facts: false
  force_handlers: true
  vars:
    declared: "{{ hostvars[inventory_hostname].mcp_servers_declared }}"
    without: []
    more: []
    change: {}
  tasks:
    - ansible.builtin.include_role: {name: mcp_servers}
      vars:
        mcp_servers_declared: >-
          {{ declared | rejectattr('name', 'in', without) | map('combine', change) + more }}
"""

# One request from the client segment: certificate, request and answer.
ASK = """
import json, socket, ssl, sys
asked = json.loads(sys.argv[1])
tls = ssl.create_default_context(cafile=asked["authority"])
tls.minimum_version = tls.maximum_version = getattr(ssl.TLSVersion, asked["version"])
if asked["certificate"]:
    tls.load_cert_chain(asked["certificate"], asked["key"])
try:
    with socket.create_connection((asked["address"], asked["port"]), 5) as plain:
        with tls.wrap_socket(plain, server_hostname=asked["address"]) as connection:
            connection.sendall(asked["request"].encode())
            print(connection.recv(4096).decode().partition(chr(13))[0])
except ssl.SSLError as error:
    print("TLS:", error.reason)
except OSError as error:
    print(type(error).__name__)
"""

NO_FINDINGS = {
    "cert_revocation": "certificates say by an extension (RFC 9608) that they are short-lived",
    "engine_problem": "the scanner's own OpenSSL has no GOST",
    "NPN": "there is none in TLS 1.3",
    "sessionresumption_ID": "asked without a certificate, which is refused",
    "sessionresumption_ticket": "asked without a certificate, which is refused",
}
"""Findings of testssl that do not concern the frontend, each with the reason."""

SERVERS = {
    "time": ("get_current_time", {"timezone": "UTC"}, '"timezone": "UTC"'),
    "git": ("git_status", {"repo_path": "/var/lib/mcp/git/repository"}, "On branch main"),
    "sqlite": ("list_tables", {}, "[]"),
}


@pytest.fixture(scope="module")
def lab(make_manifest: Callable[..., Path], release: str) -> Iterator[Lab]:
    lab = Lab(Environment.load(make_manifest("test-mcp", OCTET)), release)
    lab.down()
    try:
        lab.up()
        apply_roles(lab)
        yield lab
    finally:
        lab.down(purge=True)


def apply_roles(lab: Lab, **variables: Any) -> str:
    manifest = lab.environment.path
    playbook = manifest.with_name("mcp.yml")
    playbook.write_text(PLAYBOOK)
    connection = {
        "ansible_user": lab.environment.bootstrap.user,
        "ansible_ssh_private_key_file": str(lab.environment.bootstrap.identity_file),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={lab.environment.state}/known_hosts",
    }
    run = subprocess.run(
        ["ansible-playbook", "-i", manifest, playbook, "-e", json.dumps(connection | variables)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr
    return run.stdout


def call(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ringfence", "call"]
    manifest = ["--environment", str(lab.environment.path)]
    return lab.exec("client", [*command, *manifest, *arguments], timeout=60)


def on_host(lab: Lab, script: str) -> str:
    done = lab.exec("tools-1", ["sh", "-c", script], timeout=60)
    assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def ask(
    lab: Lab,
    *,
    principal: str | None = "carol",
    version: str = "TLSv1_3",
    request: str = "POST /mcp",
    headers: Mapping[str, str] | None = None,
) -> str:
    """Return the status line of the answer, or the reason why there is none."""
    environment = lab.environment
    identity = pki.principal_identity(environment, environment.principals[principal or "carol"])
    server = environment.servers["time"]
    assert server.host
    address = str(server.host.address)
    lines = {"Host": address, "Content-Length": "0", "Connection": "close"} | dict(headers or {})
    fields = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    asked = {
        "authority": str(identity.authority),
        "certificate": str(identity.certificate) if principal else None,
        "key": str(identity.key),
        "version": version,
        "address": address,
        "port": server.port,
        "request": f"{request} HTTP/1.1\r\n{fields}\r\n",
    }
    done = lab.exec("client", [sys.executable, "-c", ASK, json.dumps(asked)], timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", SERVERS)
def test_a_caller_lists_and_calls_tools_with_the_sdk(lab: Lab, name: str):
    tool, arguments, expected = SERVERS[name]
    listed = call(lab, "--as", "carol", "--list", name)
    assert listed.returncode == 0, listed.stderr
    tools = {line.split()[0] for line in listed.stdout.splitlines()}
    assert tools == lab.environment.servers[name].tools.keys()
    answer = call(lab, "--as", "carol", name, tool, json.dumps(arguments))
    assert answer.returncode == 0, answer.stderr
    assert expected in answer.stdout


def test_a_principal_without_a_role_is_refused(lab: Lab):
    answer = call(lab, "--as", "clock-agent", "--list", "time")
    assert answer.returncode == 1
    assert "HTTP 403" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_principal_of_another_server_is_refused(lab: Lab):
    assert "HTTP 403" in call(lab, "--as", "dana", "--list", "sqlite").stderr


def test_what_is_no_caller_or_no_call_is_refused(lab: Lab):
    refusals = {
        "a caller": ask(lab),
        "no certificate": ask(lab, principal=None),
        "TLS 1.2": ask(lab, version="TLSv1_2"),
        "a page of another site": ask(lab, headers={"Origin": "https://evil.example"}),
        "another name": ask(lab, headers={"Host": "evil.example"}),
        "another path": ask(lab, request="POST /admin"),
        "another method": ask(lab, request="GET /mcp"),
        "a large body": ask(lab, headers={"Content-Length": "1048577"}),
        "no length": ask(lab, headers={"Content-Length": "", "Transfer-Encoding": "chunked"}),
    }
    expected = {
        "a caller": "HTTP/1.1 400",  # the frontend passes it on; the server requires a body
        "no certificate": "TLS: TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLS 1.2": "TLS: TLSV1_ALERT_PROTOCOL_VERSION",
        "a page of another site": "HTTP/1.1 403",
        "another name": "HTTP/1.1 421",
        "another path": "HTTP/1.1 404",
        "another method": "HTTP/1.1 405",
        "a large body": "HTTP/1.1 413",
        "no length": "HTTP/1.1 40",  # before the body arrives, or because the length is missing
    }
    for case, prefix in expected.items():
        assert refusals[case].startswith(prefix), (case, refusals)


def test_only_the_frontend_may_connect_to_a_server(lab: Lab):
    found = on_host(lab, "stat -c %U:%a /run/mcp/*.sock | sort -u")
    assert found == "haproxy:600"
    listening = on_host(lab, "ss -ltnH | awk '{print $4}' | grep -v ':22$' | sort -u")
    ports = {re.sub(r".*:", "", address) for address in listening.split()}
    assert ports == {str(server.port) for server in lab.environment.servers.values()}


def test_a_second_run_changes_nothing(lab: Lab):
    assert set(re.findall(r"changed=(\d+)", apply_roles(lab))) == {"0"}


def test_a_new_certificate_is_served_without_a_restart(lab: Lab):
    serial = "openssl x509 -noout -serial"
    server = lab.environment.servers["time"]
    served = (
        f"openssl s_client -connect 127.0.0.1:{server.port} < /dev/null 2> /dev/null | {serial}"
    )
    master = "systemctl show -p MainPID --value haproxy"
    before, process = on_host(lab, served), on_host(lab, master)
    on_host(lab, "rm /etc/ringfence/pki/host.crt")
    apply_roles(lab)
    on_host(lab, "sleep 1")
    after = on_host(lab, served)
    assert after != before
    assert after == on_host(lab, f"{serial} -in /etc/ringfence/pki/host.crt")
    assert on_host(lab, master) == process


def test_a_server_whose_process_dies_comes_back(lab: Lab):
    on_host(lab, "pkill -KILL -u mcp-time -f bin/mcp-server-time")
    answers = [call(lab, "--as", "carol", "time", "get_current_time", '{"timezone": "UTC"}')]
    while answers[-1].returncode and len(answers) < 10:
        on_host(lab, "sleep 1")
        answers.append(
            call(lab, "--as", "carol", "time", "get_current_time", '{"timezone": "UTC"}')
        )
    assert answers[-1].returncode == 0, answers[-1].stderr


def test_testssl_finds_nothing(lab: Lab, release: str):
    """With a caller's certificate; version 3.2, which can present one, came with Debian 13."""
    if release != "trixie":
        pytest.skip("testssl.sh of this release cannot present a certificate")
    identity = pki.principal_identity(lab.environment, lab.environment.principals["carol"])
    files = (identity.certificate, identity.key, identity.authority)
    pem = "".join(path.read_text() for path in files)
    server = lab.environment.servers["time"]
    assert server.host
    prepare = (
        "umask 077; cat > /root/carol.pem; apt-get -qq update; "
        "apt-get -qq install --no-install-recommends testssl.sh dnsutils bsdextrautils"
    )
    assert lab.exec("siem-1", ["sh", "-c", prepare], input=pem, timeout=300).returncode == 0
    scan = [
        # A certificate of 30 days is renewed after 15: warn below the third that checks require.
        *("env", "DAYS2WARN1=10", "DAYS2WARN2=5"),
        *("testssl", "--quiet", "--warnings", "off", "--nodns", "none", "--color", "0"),
        *("--mtls", "/root/carol.pem", "--add-ca", "/etc/ringfence/pki/ca.crt"),
        *("--jsonfile", "/root/testssl.json", "--overwrite"),
        f"https://{server.host.address}:{server.port}/mcp",
    ]
    done = lab.exec("siem-1", scan, timeout=900)
    findings = json.loads(lab.exec("siem-1", ["cat", "/root/testssl.json"]).stdout)
    assert len(findings) > 100, done.stdout[-2000:]
    bad = {
        finding["id"]: finding["finding"]
        for finding in findings
        if finding["severity"] not in ("OK", "INFO", "DEBUG")
    }
    assert bad.keys() <= NO_FINDINGS.keys(), bad


def test_a_secret_reaches_its_server_and_nothing_else(lab: Lab):
    value = "correct-horse-battery-staple"
    secrets = lab.environment.state / "secrets"
    secrets.mkdir(mode=0o700, exist_ok=True)
    (secrets / "demo").touch(0o600)
    (secrets / "demo").write_text(value)
    output = apply_roles(lab, change={"secrets": ["demo"]}, without=["git", "sqlite"])
    assert value not in output
    pid = on_host(lab, "systemctl show -p MainPID --value mcp-time")
    credentials = f"/proc/{pid}/root/run/credentials/mcp-time.service"
    seen = on_host(lab, f"cat {credentials}/mcp-time.demo")
    assert seen == value
    leaked = on_host(
        lab,
        f"grep -rlF {value} /etc /run/systemd /var/lib/mcp 2> /dev/null; "
        f"tr '\\0' '\\n' < /proc/{pid}/environ | grep {value}; "
        f"journalctl -o cat | grep -F {value}; true",
    )
    assert not leaked
    (secrets / "demo").chmod(0o644)
    with pytest.raises(AssertionError, match="chmod 600"):
        apply_roles(lab, change={"secrets": ["demo"]}, without=["git", "sqlite"])
    (secrets / "demo").unlink()


def test_a_server_that_speaks_http_is_reached_through_its_own_loopback(lab: Lab):
    server = {
        "name": "web",
        "description": "An HTTP server, of which only the way there matters",
        "package": {"name": "mcp", "version": "2.3.0"},
        "transport": "http",
        "command": [
            *("uvicorn", "--host", "127.0.0.1", "--port", "{port}"),
            *("--factory", "starlette.applications:Starlette"),
        ],
        "loopback_port": 20009,
        "egress": [],
        "secrets": [],
        "limits": {
            **{"memory_mib": 256, "tasks": 32, "cpu_percent": 100},
            **{"concurrency": 4, "timeout_seconds": 10},
        },
    }
    apply_roles(lab, more=[server], without=["git", "sqlite"])
    answer = on_host(
        lab,
        "setpriv --reuid haproxy --regid haproxy --clear-groups python3 -c '"
        'import socket; s = socket.socket(socket.AF_UNIX); s.connect("/run/mcp/web.sock"); '
        's.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n"); print(s.recv(12).decode())\'',
    )
    assert answer == "HTTP/1.1 404"
    assert not on_host(lab, "ss -ltnH 'sport = 20009'")


def test_a_server_that_is_no_longer_declared_is_removed(lab: Lab):
    apply_roles(lab)
    on_host(lab, "test -e /var/lib/mcp/sqlite")
    apply_roles(lab, without=["sqlite"])
    for trace in (
        "getent passwd mcp-sqlite",
        "ls /etc/systemd/system/mcp-sqlite.service",
        "ls /etc/systemd/system/sockets.target.wants/mcp-sqlite.socket",
        "systemctl is-active mcp-sqlite.service",
        "ls /opt/ringfence/mcp/sqlite",
        "ls /run/mcp/sqlite.sock",
        "ls /var/lib/mcp/sqlite",
    ):
        assert lab.exec("tools-1", ["sh", "-c", trace]).returncode, trace
    assert on_host(lab, "stat -c %U:%a /var/lib/mcp/.removed") == "root:700"
    assert call(lab, "--as", "carol", "--list", "time").returncode == 0


def test_a_host_without_servers_keeps_nothing_of_them(lab: Lab):
    """A host that leaves the group must not continue to serve unnoticed."""
    apply_roles(lab, without=["time", "git", "sqlite"])
    for trace in (
        "getent passwd | grep ^mcp-",
        "ls /etc/systemd/system | grep ^mcp-",
        "systemctl list-units --plain --no-legend 'mcp-*' | grep .",
        "ls /opt/ringfence/mcp/* /run/mcp/*.sock",
        "ls /usr/local/lib/ringfence | grep ^mcp_",
    ):
        assert lab.exec("tools-1", ["sh", "-c", trace]).returncode, trace
