"""The gateway as the role deploys it on a host: real servers behind it, callers in front of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ringfence.lab import Lab
from ringfence.manifest.model import Environment
from tests.lab.commands import ROOT, run

MANIFEST = ROOT / "inventories/lab/environment.yaml"
AUDIT = "/var/log/ringfence-gateway"
CODE = "/usr/local/lib/ringfence-gateway"


@dataclass(frozen=True)
class Site:
    lab: Lab

    @property
    def manifest(self) -> Path:
        return self.lab.environment.path

    def play(
        self, playbook: str, *arguments: str, checkout: Path = ROOT
    ) -> subprocess.CompletedProcess[str]:
        command = ("ansible-playbook", "-i", self.manifest, f"playbooks/{playbook}.yml")
        environment = None if checkout == ROOT else {"PYTHONPATH": str(checkout)}
        return run(*command, *arguments, directory=checkout, environment=environment)

    def processes(self) -> list[str]:
        """Return the process ids of the gateway's processes."""
        units = "ringfence-gateway@1 ringfence-gateway@2"
        return self.on("edge-1", f"systemctl show --property MainPID --value {units}").split()

    def kill(self, *numbers: int) -> None:
        """Kill processes, and wait until systemd has started them again."""
        units = [f"ringfence-gateway@{number}" for number in numbers]
        before = self.processes()
        self.on("edge-1", f"systemctl kill -s KILL {' '.join(units)}")
        back = f"until systemctl --quiet is-active {' '.join(units)}; do sleep 0.5; done"
        self.on("edge-1", f"sleep 1; timeout 50 sh -c '{back}'")
        assert all(self.processes()[number - 1] != before[number - 1] for number in numbers)

    def code_in_processes(self) -> list[str]:
        """Return the code that each process would import now, if it has not imported it yet."""
        path = f"{CODE}/ringfence/gateway/__init__.py"
        return [
            self.on("edge-1", f"cat /proc/{process}/root{path}") for process in self.processes()
        ]

    def ringfence(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command from the clients' network."""
        command = ["ringfence", *arguments, "--environment", str(self.manifest)]
        return self.lab.exec("client", command, timeout=60)

    def call(self, principal: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.ringfence("call", "--as", principal, *arguments)

    def on(self, host: str, command: str) -> str:
        ended = self.lab.exec(host, ["sh", "-c", command], timeout=60)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


@pytest.fixture(scope="module")
def site(make_manifest: Callable[..., Path], release: str, octets: range) -> Iterator[Site]:
    manifest = make_manifest(f"gateway-{octets[3]}", octets[3], MANIFEST)
    lab = Lab(Environment.load(manifest), release)
    lab.down()
    try:
        lab.up()
        site = Site(lab)
        hardened = site.play("harden")
        assert hardened.returncode == 0, hardened.stdout[-6000:]
        yield site
    finally:
        lab.down(purge=True)


def checkout_with(directory: Path, path: str, more: str) -> Path:
    """Copy this checkout with additional text in one file of its package."""
    for entry in ROOT.iterdir():
        if entry.name != "ringfence" and not entry.name.startswith("."):
            (directory / entry.name).symlink_to(entry)
    shutil.copytree(ROOT / "ringfence", directory / "ringfence")
    with (directory / path).open("a") as file:
        file.write(more)
    return directory


class TestGateway:
    """Tests that build on each other, in the order of the file."""

    def test_tools_wait_for_approval(self, site: Site):
        listed = site.call("carol", "time", "--list")
        assert (listed.returncode, listed.stdout) == (0, ""), listed.stderr
        refused = site.call("carol", "time", "get_current_time", '{"timezone": "UTC"}')
        assert "waits for approval" in refused.stderr

    def test_what_was_approved_is_in_force(self, site: Site):
        fetched = site.play("pins")
        assert fetched.returncode == 0, fetched.stdout[-4000:]
        pins = ("ringfence", "pins")
        shown = run(*pins, "diff", "--environment", site.manifest)
        assert shown.returncode == 1
        assert "time/convert_time: never approved" in shown.stdout
        approved = run(*pins, "approve", "--yes", "--environment", site.manifest)
        assert approved.returncode == 0, approved.stdout
        applied = site.play("harden", "--tags", "mcp_gateway")
        assert applied.returncode == 0, applied.stdout[-6000:]

    def test_a_second_run_changes_nothing(self, site: Site):
        again = site.play("harden")
        assert again.returncode == 0, again.stdout[-6000:]
        assert set(re.findall(r"changed=(\d+)", again.stdout)) == {"0"}, again.stdout[-6000:]

    def test_a_caller_lists_and_calls_what_their_role_names(self, site: Site):
        listed = site.call("dana", "git", "--list")
        names = {line.split()[0] for line in listed.stdout.splitlines()}
        assert "git_log" in names, listed.stderr
        assert "git_commit" not in names
        called = site.call("dana", "time", "get_current_time", '{"timezone": "UTC"}')
        assert '"timezone": "UTC"' in called.stdout, called.stderr
        for denied in (("clock-agent", "time"), ("dana", "sqlite")):
            assert "no role" in site.call(*denied, "--list").stderr

    def test_personal_data_is_masked(self, site: Site):
        query = json.dumps({"query": "select 'jane.doe@example.org' as email"})
        answer = site.call("carol", "sqlite", "read_query", query)
        assert "masked" in answer.stdout, answer.stderr
        assert "jane.doe" not in answer.stdout

    def test_so_is_it_in_a_large_result(self, site: Site):
        """A separate process, inside the sandbox, searches a large result."""
        rows = """select * from (
            with recursive n(x) as (select 1 union all select x + 1 from n where x < 5000)
            select x, 'jane.doe@example.org' as email from n
        )"""
        answer = site.call("carol", "sqlite", "read_query", json.dumps({"query": rows}))
        assert answer.stdout.count("@masked.invalid") == 5000, answer.stderr
        assert "jane.doe" not in answer.stdout

    def test_nobody_goes_around_it(self, site: Site):
        address = site.lab.environment.servers["time"].host.address
        port = site.lab.environment.servers["time"].port
        attempt = ["timeout", "5", "bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"]
        assert site.lab.exec("client", attempt, timeout=20).returncode != 0
        # Another account on the gateway's host is not admitted either.
        curl = f"curl -sk -o /dev/null -w '%{{http_code}}' https://{address}:{port}/mcp"
        seen = site.lab.exec("edge-1", ["su", "-s", "/bin/sh", "nobody", "-c", curl], timeout=30)
        assert seen.stdout.strip() == "000"

    def test_a_sensitive_tool_takes_two_people(self, site: Site):
        create = ("sqlite", "create_table", '{"query": "create table ticket (a integer)"}')
        assert "another person must approve its use" in site.call("carol", *create).stderr
        reason = ("--for", "30m", "--reason", "a table for ticket 4711")
        asked = site.ringfence("grant", "request", *create[:2], "--as", "carol", *reason)
        assert asked.returncode == 0, asked.stderr
        found = re.search(r"\b[0-9a-f]{32}\b", asked.stdout)
        assert found, asked.stdout
        own = site.ringfence("grant", "approve", found[0], "--as", "carol")
        assert own.returncode == 1
        assert "of their own" in own.stderr
        assert site.ringfence("grant", "approve", found[0], "--as", "dana").returncode == 0
        assert "created" in site.call("carol", *create).stdout
        assert site.ringfence("grant", "revoke", found[0], "--as", "dana").returncode == 0
        assert "another person must approve its use" in site.call("carol", *create).stderr

    def test_who_is_revoked_is_cut_off_until_somebody_restores_it(self, site: Site):
        called = ("carol", "time", "get_current_time", '{"timezone": "UTC"}')
        assert site.call(*called).returncode == 0
        whom = ("--principal", "carol", "--as", "dana", "--reason", "tried by the tests")
        revoked = site.ringfence("token", "revoke", *whom)
        assert revoked.returncode == 0, revoked.stderr
        refused = site.call(*called)
        assert refused.returncode == 1
        assert "HTTP 401" in refused.stderr
        assert "principal carol" in site.ringfence("token", "revocations", "--as", "dana").stdout
        assert site.ringfence("token", "restore", *whom).returncode == 0
        assert site.call(*called).returncode == 0

    def test_a_policy_that_is_wrong_is_not_served(self, site: Site):
        policies = site.manifest.parent / "policies"
        policies.mkdir()
        wrong = policies / "wrong.cedar"
        wrong.write_text('@id("x") permit (principal, action, resource) when { nothing };')
        before = site.processes()
        refused = site.play("harden", "--tags", "mcp_gateway")
        assert refused.returncode != 0
        assert "wrong.cedar" in refused.stdout
        called = site.call("carol", "time", "get_current_time", '{"timezone": "UTC"}')
        assert called.returncode == 0, called.stderr
        wrong.unlink()
        repaired = site.play("harden", "--tags", "mcp_gateway")
        assert repaired.returncode == 0, repaired.stdout[-6000:]
        assert site.processes() == before, "a configuration is taken without a new start"

    def test_code_is_served_as_a_whole_and_with_the_configuration_that_it_was_checked_with(
        self, site: Site, tmp_path: Path
    ):
        """Until the switch every process runs the old code, even one that starts meanwhile."""
        newer = "# newer\n"
        checkout = checkout_with(tmp_path, "ringfence/gateway/__init__.py", newer)
        apply = ("harden", "--tags", "mcp_gateway")
        code = site.on("edge-1", f"ls {CODE}; readlink {CODE}/current")

        checked = site.play(*apply, "--check", checkout=checkout)
        assert checked.returncode == 0, checked.stdout[-6000:]
        assert site.on("edge-1", f"ls {CODE}; readlink {CODE}/current") == code

        wrong = site.manifest.parent / "policies/wrong.cedar"
        wrong.write_text("nonsense")
        assert site.play(*apply, checkout=checkout).returncode != 0
        site.kill(1)
        assert [newer in text for text in site.code_in_processes()] == [False, False]
        wrong.unlink()

        applied = site.play(*apply, checkout=checkout)
        assert applied.returncode == 0, applied.stdout[-6000:]
        assert [newer in text for text in site.code_in_processes()] == [True, True]
        kept = site.on("edge-1", f"ls {CODE}").split()
        assert len(kept) == 2, kept
        restored = site.play(*apply)
        assert restored.returncode == 0, restored.stdout[-6000:]
        assert site.on("edge-1", f"ls {CODE}; readlink {CODE}/current") == code
        called = site.call("carol", "time", "get_current_time", '{"timezone": "UTC"}')
        assert called.returncode == 0, called.stderr

    def test_a_process_that_is_killed_comes_back(self, site: Site):
        site.kill(1, 2)
        called = site.call("carol", "time", "get_current_time", '{"timezone": "UTC"}')
        assert called.returncode == 0, called.stderr

    def test_everything_is_in_an_unbroken_log_and_at_the_collector(self, site: Site):
        verify = (
            f"cd /tmp; PYTHONPATH=/usr/local/lib/ringfence-gateway/current {python()} -s -P "
            f"-m ringfence.gateway.audit verify {AUDIT}/*.jsonl"
        )
        assert "intact" in site.on("edge-1", verify)
        collected = "timeout 30 sh -c 'until grep -rq {0} /var/log/ringfence; do sleep 1; done'"
        for step in ("grant_approved", "no_grant", "forwarded"):
            site.on("siem-1", collected.format(step))
        record = site.manifest.with_name("record.jsonl")
        record.write_text(site.on("siem-1", "cat /var/log/ringfence/edge-1/*.jsonl"))
        told = run("ringfence", "decisions", record).stdout
        for line in (
            r"clock-agent +time +server/discover +denied +no_policy",
            r"carol +sqlite +tools/call read_query +allowed +by analyst/sqlite; redacted: \d email",
            r"carol +sqlite +tools/call create_table +denied +no_grant",
            r"dana +sqlite +grants/approve create_table +allowed +grant_approved; grant \w{8}",
            r"carol +sqlite +tools/call create_table +allowed +by .+; grant \w{8}",
        ):
            assert re.search(line, told), f"{line}\n{told}"

    def test_its_sandbox_leaves_little(self, site: Site):
        said = site.on(
            "edge-1", "systemd-analyze security --no-pager ringfence-gateway@1 | tail -1"
        )
        exposure = re.search(r"([\d.]+) OK", said)
        assert exposure, said
        assert float(exposure[1]) <= 1.5


def python() -> str:
    return "$(ls -d /opt/ringfence/gateway/gateway/*/bin/python)"
