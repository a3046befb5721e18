"""Labs for measurements: copies of the embedded environment, each in its own network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ringfence.lab.lab import Lab
from ringfence.manifest.model import Environment

ROOT = Path(__file__).parent.parent
ALONE = "RINGFENCE_BENCHMARK_ALONE"
EMBEDDED = ROOT / "inventories/lab/environment.yaml"


@contextmanager
def environment(
    name: str, octet: int, idle_hosts: int = 0, manifest: Path = EMBEDDED
) -> Iterator[Environment]:
    """Make a lab's environment in 10.<octet>.0.0/16, with extra hosts that serve nothing."""
    with tempfile.TemporaryDirectory(prefix=f"ringfence-{name}-") as directory:
        text = manifest.read_text().replace("10.213.", f"10.{octet}.")
        doc = yaml.safe_load(text.replace("fd0d:213:", f"fd0d:{octet}:"))
        doc["name"] = name
        for number in range(1, idle_hosts + 1):
            doc["hosts"][f"idle-{number}"] = {
                "segment": "servers",
                "address": f"10.{octet}.30.{100 + number}",
                "address6": f"fd0d:{octet}:30::{100 + number}",
                "groups": [],
            }
        path = Path(directory, "environment.yaml")
        path.write_text(yaml.safe_dump(doc, sort_keys=False))
        yield Environment.load(path)


@contextmanager
def lab(environment: Environment, release: str = "trixie") -> Iterator[Lab]:
    """Boot a lab; remove it at the end."""
    lab = Lab(environment, release, say=say)
    try:
        lab.up()
        yield lab
    finally:
        lab.down(purge=True)


def alone() -> None:
    """Restart this program in a network namespace that always ends with the process."""
    if ALONE not in os.environ:
        command = ["unshare", "--net", sys.executable, *sys.argv]
        os.execvpe(command[0], command, os.environ | {ALONE: "1"})  # noqa: S606


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def timed(
    *command: str | Path, settings: Mapping[str, str] | None = None, status: int = 0
) -> float:
    """Return a command's duration in seconds. Raises `SystemExit` for another exit status."""
    started = time.monotonic()
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=os.environ | dict(settings or {}),
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    seconds = time.monotonic() - started
    if done.returncode != status:
        raise SystemExit(
            f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        )
    say(f"{seconds:7.1f} s  {Path(command[0]).name} {' '.join(map(str, command[1:]))[:90]}")
    return seconds


def report(name: str, figures: Mapping[str, Any]) -> None:
    """Print the last line of a benchmark: one JSON object."""
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}
    print(json.dumps({"benchmark": name, **rounded}))


def executable(name: str) -> Path:
    return Path(shutil.which(name) or Path(sys.executable).parent / name)
