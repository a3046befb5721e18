"""Ringfence's commands, run from the checkout as a user runs them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

ROOT = Path(__file__).parents[2]


def run(
    *command: str | Path,
    directory: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    timeout: int = 1150,
) -> subprocess.CompletedProcess[str]:
    """Run a command and return both outputs as one, whatever the exit status; end it after
    `timeout` seconds."""
    # To a file: a process that outlives the command would keep a pipe open.
    with TemporaryFile("w+") as output:
        ended = subprocess.run(
            [str(part) for part in command],
            cwd=directory,
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
        output.seek(0)
        return subprocess.CompletedProcess(ended.args, ended.returncode, output.read(), "")


def install_collection(directory: Path) -> Path:
    """Build the collection, install it below `directory`, and return its own directory."""
    built = run("ansible-galaxy", "collection", "build", ROOT, "--output-path", directory)
    assert built.returncode == 0, built.stdout
    (archive,) = directory.glob("ringfence-hardening-*.tar.gz")
    install = ("collection", "install", "--offline", archive, "-p", directory)
    installed = run("ansible-galaxy", *install, directory=directory)
    assert installed.returncode == 0, installed.stdout
    return directory / "ansible_collections/ringfence/hardening"
