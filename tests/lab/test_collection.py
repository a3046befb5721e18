"""Roles of the installed collection, on a host without a manifest.

The lab boots the host from a manifest. Ansible gets none: it has plain variables and its own
authority, and neither the checkout nor the package `ringfence`.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from ringfence.lab import Lab
from ringfence.lab.plan import OPERATOR
from ringfence.manifest.model import Environment
from ringfence.verify.logins import Login, LoginIdentity, try_login
from tests.lab.commands import install_collection, run

HOST = "tools-1"
ACCOUNT = "automation"
OWNER, PASSWORD = "erin", "correct horse battery staple"
UNDECLARED = 9000

BOOTSTRAP = """
- hosts: all
  gather_facts: false
  vars:
    ansible_user: root
    ansible_ssh_private_key_file: "{{ first_key }}"
  tasks:
    - ansible.builtin.include_role: {name: ringfence.hardening.ssh, tasks_from: automation}
"""
HARDEN = """
- hosts: all
  become: true
  roles: [ringfence.hardening.ssh, ringfence.hardening.firewall]
"""
# Any import of the package fails, even where it is installed.
NO_PACKAGE = "raise ImportError('the roles ran with the package ringfence')\n"


@dataclass(frozen=True)
class Site:
    lab: Lab
    directory: Path

    def play(self, playbook: str) -> subprocess.CompletedProcess[str]:
        path = self.directory / "playbook.yml"
        path.write_text(playbook)
        return run(
            *("ansible-playbook", "-i", self.directory / "hosts.yml", path),
            directory=self.directory,
            environment={
                "HOME": str(self.directory),
                "PYTHONPATH": str(self.directory / "python"),
                "ANSIBLE_COLLECTIONS_PATH": str(self.directory / "collections"),
                "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false",
            },
            timeout=300,
        )

    @property
    def address(self) -> str:
        return str(self.lab.environment.hosts[HOST].address)

    def login(self, account: str, identity: LoginIdentity | None, code: str | None = None) -> Login:
        environment = self.lab.environment
        return try_login(environment, environment.hosts[HOST], account, identity, code=code)

    def automation(self) -> Login:
        key = self.directory / "keys/run"
        return self.login(ACCOUNT, LoginIdentity(key, key.with_name("run-cert.pub")))

    def on_host(self, script: str, *, input: str | None = None) -> str:
        ended = self.lab.exec(HOST, ["bash", "-ec", script], input=input, timeout=30)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def connects(self) -> bool:
        """Return whether the undeclared port answers; only silence counts as no."""
        try:
            socket.create_connection((self.address, UNDECLARED), timeout=2).close()
        except TimeoutError:
            return False
        return True


@pytest.fixture(scope="module")
def site(
    make_manifest: Callable[..., Path],
    release: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """Boot one fresh host with a password login and a listener on an undeclared port."""
    directory = tmp_path_factory.mktemp("site")
    (directory / "collections").mkdir()
    install_collection(directory / "collections")
    lab = Lab(Environment.load(one_host(make_manifest("plain", 219))), release)
    lab.down()
    try:
        lab.up()
        site = Site(lab, directory)
        write_inputs(site)
        site.on_host(f"useradd --create-home {OWNER}; chpasswd", input=f"{OWNER}:{PASSWORD}\n")
        site.on_host(f"systemd-run -q python3 -m http.server {UNDECLARED}")
        yield site
    finally:
        lab.down(purge=True)


def one_host(path: Path) -> Path:
    manifest = yaml.safe_load(path.read_text())
    del manifest["hosts"]["siem-1"]
    manifest["hosts"][HOST]["groups"].append("siem")
    manifest["log_sink"]["host"] = HOST
    path.write_text(yaml.safe_dump(manifest))
    return path


def write_inputs(site: Site) -> None:
    """Write the inventory and keys that the roles' pages require."""
    environment = site.lab.environment
    keys = site.directory / "keys"
    keys.mkdir()
    for name in ("ca", "run", "alice"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name]
        subprocess.run(make, check=True)
    sign = ["ssh-keygen", "-q", "-s", "ca", "-n", ACCOUNT, "-V", "+1h", "-I", "run", "run.pub"]
    subprocess.run(sign, cwd=keys, check=True)
    (site.directory / "python/ringfence").mkdir(parents=True)
    (site.directory / "python/ringfence/__init__.py").write_text(NO_PACKAGE)
    management = environment.segments["management"].cidr
    alice = {"name": "alice", "second_factor": "totp", "key_files": [str(keys / "alice.pub")]}
    administration = {"protocol": "tcp", "port": 22, "why": "administration"}
    packages = {"protocol": "tcp", "port": 3142, "why": "package proxy"}
    known_hosts = environment.state / "known_hosts"
    variables = {
        "ansible_host": site.address,
        "ansible_user": ACCOUNT,
        "ansible_ssh_private_key_file": str(keys / "run"),
        "ansible_ssh_common_args": (
            f"-o IdentitiesOnly=yes -o IdentityAgent=none -o UserKnownHostsFile={known_hosts}"
        ),
        "first_key": str(environment.bootstrap.identity_file),
        "ssh_automation_account": ACCOUNT,
        "ssh_authority_file": str(keys / "ca.pub"),
        "ssh_management_networks": [str(management)],
        "ssh_totp_directory": str(site.directory / "totp"),
        "ssh_administrators": [alice],
        "firewall_inbound": [{"network": str(management), **administration}],
        "firewall_outbound": [{"network": f"{management[OPERATOR]}/32", **packages}],
    }
    hosts = {"all": {"hosts": {"plain": variables}}}
    (site.directory / "hosts.yml").write_text(yaml.safe_dump(hosts))


class TestPlainHost:
    """Tests that build on each other, in the order of the file."""

    def test_a_fresh_host_takes_passwords_and_answers_on_every_port(self, site: Site):
        assert site.login(OWNER, None, PASSWORD).admitted
        assert site.connects()

    def test_the_roles_run_from_plain_variables(self, site: Site):
        for playbook in (BOOTSTRAP, HARDEN):
            ended = site.play(playbook)
            assert ended.returncode == 0, ended.stdout[-6000:]

    def test_a_second_run_changes_nothing(self, site: Site):
        ended = site.play(HARDEN)
        assert ended.returncode == 0, ended.stdout[-6000:]
        assert set(re.findall(r"changed=(\d+)", ended.stdout)) == {"0"}, ended.stdout[-6000:]

    def test_password_logins_are_refused(self, site: Site):
        login = site.login(OWNER, None, PASSWORD)
        assert not login.admitted
        assert login.offered == {"publickey"}, login.log

    def test_an_undeclared_port_is_dropped(self, site: Site):
        site.on_host(f": < /dev/tcp/127.0.0.1/{UNDECLARED}")
        assert not site.connects()

    def test_automation_still_logs_in(self, site: Site):
        login = site.automation()
        assert login.admitted, login.end
