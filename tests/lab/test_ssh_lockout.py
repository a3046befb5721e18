"""Nobody is locked out: whatever fails while SSH access changes, automation logs in afterwards.

Without a rollback, every change here would lock automation out for good: it replaces the
environment's authority by an unknown one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ringfence.identity import second_factor, ssh_authority
from ringfence.lab import Lab
from ringfence.manifest.model import Environment
from ringfence.verify import logins
from ringfence.verify.logins import Login, LoginIdentity, try_login

ROOT = Path(__file__).parents[2]
HOST = "tools-1"
SECONDS = 12
"""Time limit of a change whose new login never comes, because the run is killed."""
PROOF = 120
"""Time limit of a change whose new login comes, also on a busy machine."""
PATIENCE = SECONDS + 30


@dataclass(frozen=True)
class Doors:
    lab: Lab
    strange_authority: Path

    @property
    def environment(self) -> Environment:
        return self.lab.environment

    def command(self, seconds: int, *arguments: str) -> list[str]:
        manifest = str(self.environment.path)
        return [
            *("ansible-playbook", "-i", manifest, "playbooks/harden.yml"),
            *("--tags", "ssh", "--limit", HOST, *arguments),
            *("-e", f"ssh_dead_man_seconds={seconds}"),
        ]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(PROOF, *arguments),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def run_until(self, task: str, *arguments: str) -> None:
        """Kill the run, as a power failure would, at the moment when a task begins."""
        with subprocess.Popen(
            self.command(SECONDS, *arguments),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # Unbuffered, so that the start of a task shows at once.
            env=os.environ | {"PYTHONUNBUFFERED": "1", "ANSIBLE_NOCOLOR": "1"},
        ) as process:
            assert process.stdout
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("TASK [") and task in line:
                    os.killpg(process.pid, signal.SIGKILL)
                    return
        pytest.fail(f"the run never came to {task!r}:\n{''.join(lines[-40:])}")

    @property
    def lock_out(self) -> tuple[str, ...]:
        return ("-e", f"ssh_authority_file={self.strange_authority}")

    def login(self) -> Login:
        ssh_authority.ensure_certificate(self.environment)
        return try_login(
            self.environment,
            self.environment.hosts[HOST],
            self.environment.automation.account,
            logins.automation(self.environment),
        )

    def on_host(self, script: str) -> subprocess.CompletedProcess[str]:
        return self.lab.exec(HOST, ["/bin/sh", "-ec", script], timeout=60)

    def is_armed(self) -> bool:
        saved = "/var/lib/ringfence/deadman-switch/ssh/saved.tar"
        return self.on_host(f"test -e {saved} && echo armed || :").stdout.strip() == "armed"

    def state(self) -> str:
        """Return the files of the SSH access path, one line per file."""
        return self.on_host(
            "find /etc/ssh /etc/sudoers.d /etc/pam.d -type f -exec sha256sum {} + | sort -k 2"
        ).stdout


def eventually(true: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(1)
    return True


@pytest.fixture(scope="module")
def doors(
    make_manifest: Callable[..., Path],
    release: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Doors]:
    lab = Lab(Environment.load(make_manifest("doors", 223)), release)
    strange = tmp_path_factory.mktemp("strange") / "authority"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", strange], check=True)
    lab.down()
    try:
        lab.up()
        doors = Doors(lab, strange.with_suffix(".pub"))
        run = doors.run()
        assert run.returncode == 0, run.stdout[-4000:] + run.stderr
        assert doors.login().admitted
        yield doors
    finally:
        lab.down(purge=True)


@pytest.fixture(autouse=True)
def _good_before_and_after(doors: Doors) -> Iterator[None]:
    before = doors.state()
    yield
    assert eventually(lambda: not doors.is_armed()), "the dead-man's switch is still armed"
    assert doors.login().admitted
    if doors.state() != before:
        assert doors.run().returncode == 0


def test_second_run_changes_nothing(doors: Doors):
    run = doors.run()
    assert run.returncode == 0
    assert "changed=0" in run.stdout, run.stdout


def test_wrong_authority_is_undone_by_the_run_itself(doors: Doors):
    before = doors.state()
    run = doors.run(*doors.lock_out)
    assert run.returncode != 0
    assert "previous state is restored" in run.stdout, run.stdout
    assert doors.state() == before


def test_invalid_template_lands_nowhere(doors: Doors):
    before = doors.state()
    run = doors.run("-e", "ssh_login_grace_seconds=-7")
    assert run.returncode != 0
    assert "is not valid" in run.stdout, run.stdout
    assert doors.state() == before


def test_files_that_are_invalid_together_are_undone(doors: Doors):
    doors.on_host("echo 'Nonsense yes' > /etc/ssh/sshd_config.d/90-nonsense.conf")
    try:
        before = doors.state()
        run = doors.run("-e", "ssh_max_auth_tries=2")
        assert run.returncode != 0
        assert "Nonsense" in run.stdout, run.stdout
        assert doors.state() == before
    finally:
        doors.on_host("rm /etc/ssh/sshd_config.d/90-nonsense.conf")


@pytest.mark.parametrize(
    "task",
    [
        "Find out what would change",
        "Arm the dead-man's switch",
        "Allow administrators and automation",
        "Reload sshd",
        "Verify that automation",
        "Disarm the dead-man's switch over",
    ],
)
def test_killed_run_is_undone_by_the_host(doors: Doors, task: str):
    before = doors.state()
    doors.run_until(task, *doors.lock_out)
    assert eventually(lambda: not doors.is_armed() and doors.login().admitted)
    assert doors.state() == before


def test_power_failure_before_the_proof_is_undone_at_boot(doors: Doors):
    before = doors.state()
    doors.run_until("Verify that automation", *doors.lock_out)
    assert doors.is_armed()
    doors.lab.kill(HOST)
    doors.lab.start(HOST)
    assert doors.login().admitted
    assert doors.state() == before
    assert not doors.is_armed()


def test_run_after_a_killed_one_proves_the_change(doors: Doors):
    change = ("-e", "ssh_max_auth_tries=4")
    doors.run_until("Verify that automation", *change)
    run = doors.run(*change)
    assert run.returncode == 0, run.stdout[-4000:]
    time.sleep(SECONDS + 3)
    effective = doors.on_host("sshd -T | grep maxauthtries").stdout
    assert effective.strip() == "maxauthtries 4", "the timer undid a change that was proven"


def test_failures_counted_against_automation_do_not_matter(doors: Doors):
    account = doors.environment.automation.account
    doors.on_host(f"""
        cp -p /etc/pam.d/su /etc/pam.d/common-account /root/
        sed -i '1i auth [default=die] pam_faillock.so authfail deny=3' /etc/pam.d/su
        echo 'account required pam_faillock.so deny=3' >> /etc/pam.d/common-account
        for attempt in 1 2 3 4 5 6; do
          setpriv --reuid=nobody --regid=nogroup --groups=sudo su {account} -c true < /dev/null || :
        done
        faillock --user {account} | grep -c V
    """)
    try:
        assert doors.login().admitted
        run = doors.run()
        assert run.returncode == 0, run.stdout[-4000:]
    finally:
        doors.on_host(f"""
            mv /root/su /root/common-account /etc/pam.d/
            faillock --user {account} --reset
        """)


@pytest.fixture
def full_agent(tmp_path: Path) -> Iterator[Path]:
    """Run an agent with a dozen keys, none of which any host accepts."""
    socket = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as agent:
        assert eventually(socket.exists, 5)
        for number in range(12):
            key = tmp_path / f"key-{number}"
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
            add_to(socket, key)
        yield socket
        agent.terminate()


def add_to(agent: Path, key: Path) -> None:
    environ = os.environ | {"SSH_AUTH_SOCK": str(agent)}
    subprocess.run(["ssh-add", "-q", key], env=environ, check=True)


def test_automation_does_not_use_up_its_attempts(
    doors: Doors, full_agent: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSH_AUTH_SOCK", str(full_agent))
    monkeypatch.setenv("ANSIBLE_SSH_ARGS", "-o ControlMaster=no -o ControlPath=none")
    run = doors.run()
    assert run.returncode == 0, run.stdout[-4000:]


def test_people_may_have_many_keys(doors: Doors, full_agent: Path):
    host = doors.environment.hosts[HOST]
    alice = doors.environment.administrators["alice"]
    add_to(full_agent, alice.ssh_key_files[0].with_suffix(""))
    known = ssh_authority.SshAuthorityFiles.of(doors.environment).known_hosts
    done = subprocess.run(
        [
            *("ssh", "-v", "-F", "none", "-l", "alice", "-o", f"IdentityAgent={full_agent}"),
            *("-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes"),
            *(str(host.address), "true"),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert 'Authenticated using "publickey" with partial success' in done.stderr, done.stderr


def test_who_leaves_the_manifest_is_thrown_out(doors: Doors):
    host = doors.environment.hosts[HOST]
    bob = doors.environment.administrators["bob"]
    identity = LoginIdentity(bob.ssh_key_files[0].with_suffix(""))
    doors.on_host("setsid runuser -u bob -- sleep 600 > /dev/null 2>&1 &")
    assert second_factor.secret_file(doors.environment, "bob").is_file()
    alice = doors.environment.administrators["alice"]
    only_alice = (
        '{"ssh_administrators": [{"name": "alice", "full_name": "Alice Example", '
        f'"second_factor": "totp", "sudo": true, "key_files": ["{alice.ssh_key_files[0]}"]}}]}}'
    )
    run = doors.run("-e", only_alice)
    assert run.returncode == 0, run.stdout[-4000:]
    login = try_login(doors.environment, host, "bob", identity)
    assert not login.admitted
    assert not login.key_was_one_factor, "the key of somebody who has left is still taken"
    left = doors.on_host("pgrep -u bob || :; ls /var/lib/ringfence/totp; passwd -S bob")
    assert "\nbob\n" not in left.stdout
    assert left.stdout.splitlines()[-1].split()[1] == "L"
    assert not left.stdout[0].isdigit(), "a process of somebody who has left still runs"

    assert doors.run().returncode == 0
    assert try_login(doors.environment, host, "bob", identity).key_was_one_factor


def test_security_keys_must_verify_their_user(doors: Doors):
    key = "sk-ssh-ed25519@openssh.com " + "AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAI" + "A" * 60
    alice = doors.environment.administrators["alice"]
    people = (
        '{"ssh_administrators": [{"name": "alice", "second_factor": "totp", '
        f'"key_files": ["{alice.ssh_key_files[0]}"]}}, '
        f'{{"name": "bob", "second_factor": "fido2", "keys": ["{key}"]}}]}}'
    )
    run = doors.run("-e", people)
    assert run.returncode == 0, run.stdout[-4000:]
    effective = doors.on_host("sshd -T -C user=bob,host=x,addr=192.0.2.1").stdout
    assert "pubkeyauthoptions verify-required" in effective
    assert "authenticationmethods publickey\n" in effective
    assert "verify-required sk-ssh" in doors.on_host("cat /etc/ssh/authorized_keys.d/bob").stdout
