"""From one file to hardened, verified hosts: the commands of the README, on both releases."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ringfence.environment import Environment
from ringfence.lab import Lab

ROOT = Path(__file__).parents[2]
HARDEN = "playbooks/harden.yml"


@dataclass(frozen=True)
class Journey:
    lab: Lab
    reports: Path

    @property
    def manifest(self) -> Path:
        return self.lab.environment.path

    def run(self, *command: str | Path, timeout: int = 900) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def ansible(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("ansible-playbook", "-i", self.manifest, HARDEN, *arguments)

    def compliance(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        options = ("--environment", self.manifest, "--reports", self.reports)
        return self.run("pytest", "tests/compliance", *options, *arguments)

    def report(self, name: str = "compliance") -> Mapping[str, Any]:
        return json.loads((self.reports / f"{name}.json").read_text())


@pytest.fixture(scope="class")
def journey(
    request: pytest.FixtureRequest,
    make_manifest: Callable[[str, int], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Journey]:
    assert request.cls is not None
    release, octet = request.cls.release, request.cls.octet
    lab = Lab(Environment.load(make_manifest(f"e2e-{release}", octet)), release)
    lab.down()
    try:
        lab.up()
        yield Journey(lab, tmp_path_factory.mktemp(release))
    finally:
        lab.down(purge=True)


class FromOneFile:
    """The tests build on each other, in the order in which they stand here."""

    release: str
    octet: int

    def test_a_fresh_host_is_not_compliant(self, journey: Journey):
        run = journey.compliance("--measurement", "before")
        assert run.returncode == 1, run.stdout[-4000:] + run.stderr
        before = journey.report("before")
        assert before["failed"] > before["passed"]

    def test_check_mode_works_on_a_fresh_host_and_changes_nothing(self, journey: Journey):
        run = journey.ansible("--check", "--diff")
        assert run.returncode == 0, run.stdout[-6000:] + run.stderr
        absent = journey.lab.exec("tools-1", ["test", "!", "-e", "/etc/ringfence"])
        assert absent.returncode == 0, "check mode wrote to the host"

    def test_hardening_succeeds(self, journey: Journey):
        run = journey.ansible()
        assert run.returncode == 0, run.stdout[-6000:] + run.stderr

    def test_a_second_run_changes_nothing(self, journey: Journey):
        run = journey.ansible()
        assert run.returncode == 0, run.stdout[-6000:] + run.stderr
        assert set(re.findall(r"changed=(\d+)", run.stdout)) == {"0"}, run.stdout[-6000:]

    def test_every_applicable_check_passes(self, journey: Journey):
        run = journey.compliance()
        assert run.returncode == 0, run.stdout[-8000:] + run.stderr
        report = journey.report()
        assert report["failed"] == 0
        assert report["rate"] == 1.0
        assert report["passed"] > report["before"]["passed"]

    def test_a_caller_uses_a_tool_over_the_hardened_path(self, journey: Journey):
        call = ["ringfence", "call", "--environment", str(journey.manifest), "--as", "carol"]
        arguments = ["time", "get_current_time", '{"timezone": "UTC"}']
        answer = journey.lab.exec("client", [*call, *arguments], timeout=60)
        assert answer.returncode == 0, answer.stderr
        assert '"timezone": "UTC"' in answer.stdout

    def test_the_collection_does_what_the_checkout_does(self, journey: Journey, tmp_path: Path):
        for command in (
            ("collection", "build", ROOT, "--output-path", tmp_path),
            (
                "collection",
                "install",
                tmp_path / "ringfence-hardening-0.1.0.tar.gz",
                "-p",
                tmp_path,
            ),
        ):
            built = journey.run("ansible-galaxy", *command)
            assert built.returncode == 0, built.stderr
        run = subprocess.run(
            ["ansible-playbook", "-i", journey.manifest, "ringfence.hardening.harden"],
            cwd=tmp_path,
            env=os.environ
            | {
                "ANSIBLE_COLLECTIONS_PATH": str(tmp_path),
                "ANSIBLE_INVENTORY_ENABLED": "ringfence.hardening.environment",
                "ANSIBLE_PIPELINING": "1",
            },
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert run.returncode == 0, run.stdout[-6000:] + run.stderr
        assert set(re.findall(r"changed=(\d+)", run.stdout)) == {"0"}, run.stdout[-6000:]

    def test_every_check_can_fail(self, journey: Journey):
        run = journey.run(
            *("python", "-m", "pytest", "-p", "tests.lab.sabotage", "tests/compliance"),
            *("--environment", journey.manifest, "--sabotage"),
            timeout=1800,
        )
        assert run.returncode == 0, run.stdout[-8000:] + run.stderr


class TestTrixie(FromOneFile):
    release, octet = "trixie", 221


class TestBookworm(FromOneFile):
    release, octet = "bookworm", 222
