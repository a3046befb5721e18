"""One root process on a host that runs the commands of all checks.

A command through ssh and sudo takes 30 to 80 ms, mostly for login, PAM and session, and a suite
runs hundreds. Here sudo runs once per host, and a command takes one round trip.
"""

from __future__ import annotations

import base64
import json
import select
import shlex
import subprocess
from collections.abc import Sequence

from ringfence.report import UnverifiedError

SECONDS = 60
"""Time limit of one command."""
_GRACE = 10
"""Extra seconds that this side waits; after that the connection hangs, not the command."""

# Runs on the host: reads one command per line and answers in one line.
_RUNNER = """
import base64, json, os, signal, subprocess, sys
for line in sys.stdin:
    command, seconds = json.loads(line)
    process = subprocess.Popen(
        ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )
    try:
        output = [base64.b64encode(text).decode() for text in process.communicate(timeout=seconds)]
        status = process.returncode
        answer = [128 - status if status < 0 else status, *output]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        answer = None
    print(json.dumps(answer), flush=True)
"""


class EndedError(UnverifiedError):
    """The process or the connection ended. The message comes from ssh or sudo."""


class RootShell:
    """A process that runs one command at a time; each thread needs its own."""

    def __init__(self, ssh: Sequence[str], *, sudo: bool):
        remote = f"{'sudo -n ' if sudo else ''}/usr/bin/python3 -Iuc {shlex.quote(_RUNNER)}"
        try:
            self._process = subprocess.Popen(
                [*ssh, remote],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        except FileNotFoundError:
            raise EndedError("ssh is missing here: install openssh-client") from None

    def run(self, command: str, seconds: float = SECONDS) -> tuple[int, bytes, bytes]:
        """Return status, output and errors of a command. Raises `TimeoutError` or `EndedError`."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        try:
            stdin.write(json.dumps([command, seconds]).encode() + b"\n")
        except BrokenPipeError:
            raise EndedError(self._last_message()) from None
        answer = self._line(stdout.fileno(), seconds + _GRACE)
        if answer is None:
            raise TimeoutError(f"the command did not end within {seconds:g} s: {command}")
        status, output, errors = answer
        return status, base64.b64decode(output), base64.b64decode(errors)

    def _line(self, descriptor: int, seconds: float) -> tuple[int, str, str] | None:
        stdout = self._process.stdout
        assert stdout
        parts: list[bytes] = []
        while not parts or not parts[-1].endswith(b"\n"):
            if not select.select([descriptor], [], [], seconds)[0]:
                self.close()
                raise EndedError(f"the host did not answer for {seconds:g} s")
            parts.append(stdout.read(1 << 20) or b"")
            if not parts[-1]:
                raise EndedError(self._last_message())
        return json.loads(b"".join(parts))

    def _last_message(self) -> str:
        try:
            _, errors = self._process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self.close()
            return "ssh did not end"
        lines = errors.decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else f"ssh ended with status {self._process.returncode}"

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
