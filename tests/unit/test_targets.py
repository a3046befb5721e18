"""Connections of the checks: the same SSH access paths as Ansible's, limited in time, shared."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ringfence.identity.ssh_authority import ensure_certificate
from ringfence.inventory import connection
from ringfence.manifest.model import Environment
from ringfence.verify import root_shell
from ringfence.verify.root_shell import EndedError
from ringfence.verify.targets import AccessPath, SshBackend, Targets, UnreachableError, access_paths

HERE = 'for last; do :; done; eval "exec ${last#sudo -n }"'
"""An ssh command that runs its command on this machine, without sudo."""

LAB = Path(__file__).parents[2] / "inventories" / "lab" / "environment.yaml"


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Return the lab's manifest with its own state directory."""
    shutil.copy(LAB, tmp_path / "environment.yaml")
    return Environment.load(tmp_path / "environment.yaml")


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace ssh by a shell script that the test writes; it records its number of calls."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    fill(program, HERE)
    return program


def fill(ssh: Path, script: str) -> None:
    calls = ssh.parent.parent / "calls"
    ssh.write_text(f"#!/bin/sh\necho x >> {calls}\n{script}\n")


def calls(ssh: Path) -> int:
    file = ssh.parent.parent / "calls"
    return len(file.read_text().splitlines()) if file.exists() else 0


class TestAccessPaths:
    def test_a_fresh_environment_has_only_the_bootstrap_path(self, environment: Environment):
        (path,) = access_paths(environment, environment.hosts["tools-1"])
        assert path.name == "bootstrap"
        assert "User=root" in path.arguments
        assert not path.sudo

    def test_automation_comes_first_with_ansibles_own_options(self, environment: Environment):
        ensure_certificate(environment)
        host = environment.hosts["tools-1"]
        automation, bootstrap = access_paths(environment, host)
        assert (automation.name, bootstrap.name) == ("automation", "bootstrap")
        assert f"User={environment.automation.account}" in automation.arguments
        assert f"HostName={host.address}" in automation.arguments
        options = connection.automation_options(environment, host)
        assert automation.arguments[-len(options) :] == options
        assert automation.sudo


class TestBackend:
    PATH = AccessPath("automation", ("-o", "User=ringfence"), sudo=True, seconds=5)

    @pytest.fixture
    def backend(self, ssh: Path, tmp_path: Path) -> Iterator[SshBackend]:
        assert ssh.exists()
        backend = SshBackend("tools-1", self.PATH, tmp_path)
        yield backend
        backend.close()

    def test_sudo_is_asked_once_and_never_waits_for_a_password(
        self, ssh: Path, backend: SshBackend
    ):
        fill(ssh, f'echo "$@" > {ssh}.arguments; {HERE}')
        assert [backend.run("echo %s", text).stdout for text in ("a b", "'")] == ["a b\n", "'\n"]
        assert calls(ssh) == 1
        arguments = Path(f"{ssh}.arguments").read_text()
        assert "-- tools-1 sudo -n /usr/bin/python3" in arguments

    def test_status_output_and_errors_are_the_commands_own(self, backend: SshBackend):
        result = backend.run("cat; printf '\\303\\244'; echo no >&2; exit 255")
        assert (result.rc, result.stdout, result.stderr) == (255, "ä", "no\n")
        assert backend.run("kill -9 $$").rc == 128 + 9
        assert len(backend.run("head -c 3000000 /dev/zero").stdout_bytes) == 3_000_000

    def test_a_command_that_does_not_end_is_given_up_and_the_next_one_runs(
        self, backend: SshBackend, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(root_shell.RootShell.run, "__defaults__", (0.3,))
        with pytest.raises(TimeoutError, match=r"the command did not end within 0\.3 s: sleep 30"):
            backend.run("sleep 30 & sleep 30")
        assert backend.run("echo next").stdout == "next\n"

    def test_commands_may_run_side_by_side(self, backend: SshBackend, tmp_path: Path):
        # Each waits for the others: in sequence they would never end.
        place = tmp_path / "meet"
        place.mkdir()
        wait = f"while [ $(ls {place} | wc -l) -lt 3 ]; do sleep 0.05; done"
        commands = [f"touch {place}/{n}; {wait}" for n in range(3)]
        with ThreadPoolExecutor(3) as threads:
            assert [result.rc for result in threads.map(backend.run, commands)] == [0, 0, 0]

    def test_a_lost_connection_is_no_verdict(self, ssh: Path, backend: SshBackend):
        fill(ssh, "echo 'ssh: connect to host 10.0.0.1 port 22: Connection refused' >&2; exit 255")
        with pytest.raises(EndedError, match="Connection refused"):
            backend.run("true")

    def test_a_connection_that_ended_is_opened_again(self, ssh: Path, backend: SshBackend):
        with pytest.raises(EndedError):
            backend.run("kill -9 $PPID")
        assert backend.run("echo again").stdout == "again\n"
        assert calls(ssh) == 2


class TestTargets:
    def test_an_unreachable_host_is_tried_once(
        self, ssh: Path, environment: Environment, tmp_path: Path
    ):
        fill(ssh, "echo 'ssh: connect to host: Connection timed out' >&2; exit 255")
        hosts = Targets(environment, tmp_path)
        for _ in range(3):
            with pytest.raises(UnreachableError, match=r"tools-1 .* cannot be reached: bootstrap"):
                hosts[environment.hosts["tools-1"]]
        assert calls(ssh) == 1

    def test_the_bootstrap_path_is_used_where_automation_may_not_log_in(
        self, ssh: Path, environment: Environment, tmp_path: Path
    ):
        ensure_certificate(environment)
        fill(
            ssh,
            f'case "$*" in *User=root*) {HERE};; esac\n'
            "echo 'ringfence@10.213.30.11: Permission denied (publickey).' >&2; exit 255",
        )
        hosts = Targets(environment, tmp_path)
        target = hosts[environment.hosts["tools-1"]]
        assert target.path == "bootstrap"
        assert target.manifest.name == "tools-1"
        hosts.close()

    def test_what_is_remembered_can_be_forgotten(
        self, ssh: Path, environment: Environment, tmp_path: Path
    ):
        hosts = Targets(environment, tmp_path)
        target = hosts[environment.hosts["tools-1"]]
        counted = f"echo x >> {tmp_path}/asked; cat {tmp_path}/asked"
        assert target.once(counted).stdout == target.once(counted).stdout == "x\n"
        hosts.forget()
        assert target.once(counted).stdout == "x\nx\n"
        hosts.close()
        assert ssh.exists()
