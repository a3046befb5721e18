"""From one file to hardened, verified hosts: the commands of the README, on both releases."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ringfence.lab import Lab
from ringfence.manifest.model import Environment
from tests.lab.commands import ROOT, install_collection, run

EMBEDDED = ROOT / "inventories/lab"
HARDEN = "playbooks/harden.yml"
HOSTS = ("edge-1", "tools-1", "siem-1")

INSTALL_LYNIS = "apt-get -qq update && apt-get -qqy --no-install-recommends install lynis"
AUDIT_WITH_LYNIS = "lynis audit system --quick --quiet --no-colors; cat /var/log/lynis-report.dat"


@dataclass(frozen=True)
class Journey:
    lab: Lab
    reports: Path

    @property
    def manifest(self) -> Path:
        return self.lab.environment.path

    def ansible(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run("ansible-playbook", "-i", self.manifest, HARDEN, *arguments)

    def compliance(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        options = ("--environment", self.manifest, "--reports", self.reports)
        return run("pytest", "tests/compliance", *options, *arguments)

    def report(self, name: str = "compliance") -> Mapping[str, Any]:
        return json.loads((self.reports / f"{name}.json").read_text())


@pytest.fixture(scope="class")
def journey(
    request: pytest.FixtureRequest,
    make_manifest: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Journey]:
    assert request.cls is not None
    release, octet = request.cls.release, request.cls.octet
    manifest = make_manifest(f"e2e-{release}", octet, EMBEDDED / "environment.yaml")
    shutil.copytree(EMBEDDED / "pins", manifest.parent / "pins")
    lab = Lab(Environment.load(manifest), release)
    lab.down()
    try:
        lab.up()
        yield Journey(lab, tmp_path_factory.mktemp(release))
    finally:
        lab.down(purge=True)


class FromOneFile:
    """Tests that build on each other, in the order of the file."""

    release: str
    octet: int

    def test_a_fresh_host_is_not_compliant(self, journey: Journey):
        ended = journey.compliance("--measurement", "before")
        assert ended.returncode == 1, ended.stdout[-4000:]
        before = journey.report("before")
        assert before["failed"] > before["passed"]

    def test_check_mode_works_on_a_fresh_host_and_changes_nothing(self, journey: Journey):
        ended = journey.ansible("--check", "--diff")
        assert ended.returncode == 0, ended.stdout[-6000:]
        absent = journey.lab.exec("tools-1", ["test", "!", "-e", "/etc/ringfence"])
        assert absent.returncode == 0, "check mode wrote to the host"

    def test_hardening_succeeds(self, journey: Journey):
        ended = journey.ansible()
        assert ended.returncode == 0, ended.stdout[-6000:]

    def test_a_second_run_changes_nothing(self, journey: Journey):
        ended = journey.ansible()
        assert ended.returncode == 0, ended.stdout[-6000:]
        assert set(re.findall(r"changed=(\d+)", ended.stdout)) == {"0"}, ended.stdout[-6000:]

    def test_every_applicable_check_passes(self, journey: Journey):
        ended = journey.compliance()
        assert ended.returncode == 0, ended.stdout[-8000:]
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


class TestTrixie(FromOneFile):
    release, octet = "trixie", 221

    def test_the_collection_does_what_the_checkout_does(self, journey: Journey, tmp_path: Path):
        install_collection(tmp_path)
        ended = run(
            *("ansible-playbook", "-i", journey.manifest, "ringfence.hardening.harden"),
            directory=tmp_path,
            environment={
                "ANSIBLE_COLLECTIONS_PATH": str(tmp_path),
                "ANSIBLE_INVENTORY_ENABLED": "ringfence.hardening.environment",
                "ANSIBLE_PIPELINING": "1",
            },
        )
        assert ended.returncode == 0, ended.stdout[-6000:]
        assert set(re.findall(r"changed=(\d+)", ended.stdout)) == {"0"}, ended.stdout[-6000:]

    def test_every_check_can_fail(self, journey: Journey):
        ended = run(
            *("python", "-m", "pytest", "-p", "tests.lab.sabotage", "tests/compliance"),
            *("--environment", journey.manifest, "--sabotage"),
            timeout=1150,
        )
        assert ended.returncode == 0, ended.stdout[-8000:]

    @pytest.mark.parametrize("host", HOSTS)
    def test_lynis_scores_a_hardened_host_with_90(self, journey: Journey, host: str):
        """With the stock profile; 59 to 60 before hardening."""
        installed = journey.lab.exec(host, ["sh", "-c", INSTALL_LYNIS], timeout=120)
        assert installed.returncode == 0, installed.stdout + installed.stderr
        audit = journey.lab.exec(host, ["sh", "-c", AUDIT_WITH_LYNIS], timeout=180)
        report = audit.stdout.splitlines()
        values = dict(line.split("=", 1) for line in report if line.startswith("hardening_index="))
        points = [line for line in report if line.startswith(("warning[]", "suggestion[]"))]
        index = int(values["hardening_index"])
        assert index >= 90, "\n".join([f"{index} of 100", *points])

    @pytest.mark.parametrize("host", HOSTS)
    @pytest.mark.parametrize(
        "options",
        [
            ("--level", "warn", "--skip-rate-test"),
            ("-P", "Hardened Debian 13 (version 1)"),
        ],
        ids=["stock", "policy"],
    )
    def test_ssh_audit_has_no_warning(self, journey: Journey, host: str, options: tuple[str, ...]):
        address = str(journey.lab.environment.hosts[host].address)
        audit = run("ssh-audit", "--no-colors", *options, address)
        assert audit.returncode == 0, audit.stdout
        assert "[warn]" not in audit.stdout


class TestBookworm(FromOneFile):
    """On the fresh host, checks fail; on Debian 13, each check is shown to fail under sabotage."""

    release, octet = "bookworm", 222
