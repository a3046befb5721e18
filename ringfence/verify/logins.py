"""Login attempts from this machine with the system's ssh, each over its own connection."""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringfence.identity.ssh_authority import SshAuthorityFiles
from ringfence.inventory import connection
from ringfence.manifest.model import Environment, Host

SECONDS, CONNECT_SECONDS = 20, 5
ADMITTED = "ringfence-admitted"


@dataclass(frozen=True)
class LoginIdentity:
    """Credentials of a login: a private key, perhaps with a certificate."""

    key: Path
    certificate: Path | None = None

    @property
    def options(self) -> tuple[str, ...]:
        certificate = ("-o", f"CertificateFile={self.certificate}") if self.certificate else ()
        return ("-i", str(self.key), *certificate)


@dataclass(frozen=True)
class Login:
    """Result of a login attempt, from the client's log."""

    admitted: bool
    log: str

    @property
    def offered(self) -> frozenset[str]:
        """Authentication methods in the first offer of sshd."""
        found = re.search(r"Authentications that can continue: (\S+)", self.log)
        return frozenset(found[1].split(",")) if found else frozenset()

    @property
    def key_was_one_factor(self) -> bool:
        """Return whether sshd accepted the key as the first of two factors."""
        return 'Authenticated using "publickey" with partial success' in self.log

    @property
    def end(self) -> str:
        """Last message of ssh."""
        if self.admitted:
            return "the login succeeded"
        lines = [line for line in self.log.splitlines() if line and "debug1:" not in line]
        return lines[-1].strip() if lines else "ssh ended without a message"

    def proposed(self, kind: str) -> tuple[str, ...]:
        """Return the algorithms of one kind in the server's KEXINIT."""
        _, _, answer = self.log.partition("peer server KEXINIT proposal")
        found = re.search(rf"debug2: {re.escape(kind)}: (\S+)", answer)
        return tuple(found[1].split(",")) if found else ()


def automation(environment: Environment) -> LoginIdentity:
    files = SshAuthorityFiles.of(environment)
    return LoginIdentity(files.key, files.certificate)


def try_login(
    environment: Environment,
    host: Host,
    account: str,
    identity: LoginIdentity | None = None,
    *,
    code: str | None = None,
    from_host: bool = False,
    arguments: Sequence[str] = (),
) -> Login:
    """Try to log in. With `from_host`, connect from the host itself."""
    seconds = connection.connect_seconds(host) if host.instance else CONNECT_SECONDS
    with tempfile.TemporaryDirectory(prefix="ringfence-") as directory:
        command = [
            *("ssh", "-vv", "-T", "-F", "none", "-p", str(host.ssh_port), "-l", account),
            *("-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "IdentitiesOnly=yes"),
            *("-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=yes"),
            *("-o", f"UserKnownHostsFile={SshAuthorityFiles.of(environment).known_hosts}"),
            *("-o", "GlobalKnownHostsFile=/dev/null", "-o", f"ConnectTimeout={seconds}"),
            *("-o", "NumberOfPasswordPrompts=1"),
            *(identity.options if identity else ("-o", "PubkeyAuthentication=no")),
            *(("-o", "BatchMode=yes") if code is None else ()),
            *(_relay(environment, host) if from_host else connection.tunnel(environment, host)),
            *arguments,
            connection.address(host),
            *(() if "-W" in arguments else ("--", f"echo {ADMITTED}")),
        ]
        # The askpass program reads the code from a file, so no argument and no variable has it.
        environ = _answering(Path(directory), code) if code is not None else None
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=SECONDS + seconds,
                check=False,
                env=environ,
            )
        except subprocess.TimeoutExpired:
            return Login(False, f"ssh did not end within {SECONDS + seconds} s")
    return Login(
        admitted=ADMITTED.encode() in done.stdout,
        log=done.stderr.decode(errors="replace"),
    )


def _answering(directory: Path, code: str) -> Mapping[str, str]:
    answer = directory / "code"
    answer.touch(0o600)
    answer.write_text(f"{code}\n")
    program = directory / "askpass"
    program.write_text(f"#!/bin/sh\ncat {shlex.quote(str(answer))}\n")
    program.chmod(0o700)
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "SSH_ASKPASS": str(program),
        "SSH_ASKPASS_REQUIRE": "force",
    }


RELAY = """
import os, select, socket
s = socket.create_connection(({address!r}, {port}), 10)
ends = {{0: lambda d: s.sendall(d), s.fileno(): lambda d: os.write(1, d)}}
while True:
    for end in select.select(list(ends), [], [])[0]:
        data = os.read(end, 65536)
        if not data: raise SystemExit
        ends[end](data)
"""


def _relay(environment: Environment, host: Host) -> tuple[str, ...]:
    """Relay through the automation account to the host itself, so no key leaves this machine."""
    relay = RELAY.format(address=str(host.address), port=host.ssh_port)
    files = SshAuthorityFiles.of(environment)
    outer = [
        *("ssh", "-F", "none", "-T", "-p", str(host.ssh_port)),
        *("-l", environment.automation.account, "-i", str(files.key)),
        *connection.automation_options(environment, host),
        connection.address(host),
        # As root: the firewall blocks other accounts on loopback, and the check concerns sshd.
        shlex.join(["sudo", "-n", "python3", "-c", relay]),
    ]
    return ("-o", f"ProxyCommand={shlex.join(outer).replace('%', '%%')}")
