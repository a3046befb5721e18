"""A sensor as the role deploys it: new rules take effect without a stop, and faulty rules never
do."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ringfence.lab import Lab
from ringfence.manifest.model import Environment
from ringfence.verify import probes
from tests.lab.commands import ROOT, run

MANIFEST = ROOT / "inventories/sensor/environment.yaml"
SEND = probes.source("mirrored_packets")
FLOOD = f"""{SEND.partition("def main")[0]}
device, own = interface(sys.argv[1])
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
    wire.bind((device, 0))
    for number in range(4000):
        source = f"198.18.{{number // 250}}.{{number % 250 + 1}}"
        opening = packet(source, sys.argv[1], TCP, segment((4000, 22), (1, 0), SYN))
        wire.send(copy(own, sys.argv[1], opening))
"""
HOSTS = "sensor-1,siem-1"
ROLES = "tls,siem,log_shipping,nids,firewall"
ASK = "suricatasc -c {} /run/suricata/command.sock"
HEALTH = 14789
OPEN = f"python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {HEALTH}), 2)' 2>&-"
ANSWERED, REFUSED = "0", "1"
IN_FORCE = (
    "cd /var/lib/ringfence-nids/current && cat $(find . -type f | sort) "
    "/etc/systemd/system/suricata.service.d/10-ringfence.conf | sha256sum"
)
OWN = 'alert udp 192.0.2.77 any -> 192.0.2.78 9 (msg:"Own rule"; sid:100; rev:1;)\n'


@dataclass(frozen=True)
class Site:
    lab: Lab

    def play(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        manifest = self.lab.environment.path
        limits = ("--limit", HOSTS) if "--limit" not in arguments else ()
        return run("ansible-playbook", "-i", manifest, "playbooks/harden.yml", *limits, *arguments)

    def apply(self) -> subprocess.CompletedProcess[str]:
        return self.play("--tags", "nids", "--limit", "sensor-1")

    def on(self, host: str, command: str) -> str:
        ended = self.lab.exec(host, ["sh", "-c", command], timeout=90)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def send(self, source_port: int, count: int = 1) -> None:
        address = str(self.lab.environment.hosts["sensor-1"].address)
        words = ["python3", "-c", SEND, str(count), address, str(source_port)]
        self.lab.exec("sensor-1", words, timeout=90, check=True)

    def collected(self, words: str, seconds: int = 10) -> list[str]:
        """Return the sensor's records that contain every word, as soon as there are any."""
        looking = " | ".join(f"grep -F -e '{word}'" for word in words.split("|"))
        return self.on(
            "siem-1",
            f"for try in $(seq {seconds * 5}); do "
            f"cat /var/log/ringfence/sensor-1/*.jsonl | {looking} && exit; sleep 0.2; done; true",
        ).splitlines()

    @property
    def state(self) -> tuple[str, str, int]:
        """Return the process, the configuration in effect, and its rules."""
        process = self.on("sensor-1", "systemctl show -P MainPID suricata").strip()
        version = self.on("sensor-1", IN_FORCE).strip()
        stats = json.loads(self.on("sensor-1", ASK.format("ruleset-stats")))
        return process, version, stats["message"][0]["rules_loaded"]

    @property
    def folder(self) -> Path:
        return self.lab.environment.path.parent / "nids"


@pytest.fixture(scope="module")
def site(make_manifest: Callable[..., Path], octets: range) -> Iterator[Site]:
    manifest = make_manifest(f"nids-{octets[2]}", octets[2], MANIFEST)
    lab = Lab(Environment.load(manifest), "trixie")
    lab.down()
    try:
        lab.up()
        site = Site(lab)
        foreseen = site.play("--tags", "nids", "--check", "--diff")
        assert foreseen.returncode == 0, foreseen.stdout[-6000:]
        assert lab.exec("sensor-1", ["test", "!", "-e", "/etc/ringfence"]).returncode == 0
        hardened = site.play("--tags", ROLES)
        assert hardened.returncode == 0, hardened.stdout[-6000:]
        site.folder.mkdir()
        yield site
    finally:
        lab.down(purge=True)


class TestSensor:
    """Tests that build on each other, in the order of the file."""

    def test_a_second_run_changes_nothing(self, site: Site):
        again = site.apply()
        assert again.returncode == 0, again.stdout[-6000:]
        assert set(re.findall(r"changed=(\d+)", again.stdout)) == {"0"}, again.stdout[-6000:]

    def test_an_alert_arrives_at_the_collector_as_fields(self, site: Site):
        site.send(23001)
        (record,) = map(json.loads, site.collected("A test of the sensor|:23001"))
        assert record["fields"]["NIDS_SIGNATURE_ID"] == "1200004"
        assert record["fields"]["NIDS_SRC_PORT"] == "23001"

    def test_own_rules_and_lists_come_into_force_without_a_stop(self, site: Site):
        before = site.state
        (site.folder / "own.rules").write_text(OWN)
        (site.folder / "sni.txt").write_text("# seen on 2026-11-24\nbad.example.net\n")
        applied = site.apply()
        assert applied.returncode == 0, applied.stdout[-6000:]
        after = site.state
        assert after[0] == before[0]
        assert after[1] != before[1]
        assert after[2] == before[2] + 3
        site.send(23002)
        assert site.collected("Own rule|:23002")

    def test_rules_that_suricata_refuses_change_nothing(self, site: Site):
        before = site.state
        (site.folder / "own.rules").write_text(OWN.replace("msg", "mesg"))
        refused = site.apply()
        assert refused.returncode != 0
        assert "continues with the old ones" in refused.stdout
        assert "mesg" in refused.stdout
        assert site.state == before
        site.on("sensor-1", "systemctl restart suricata; sleep 5")
        assert site.state[1:] == before[1:]

    def test_a_version_that_suricata_cannot_run_with_is_restored(self, site: Site):
        before = site.state
        (site.folder / "own.rules").write_text(OWN)
        failed = site.play("--tags", "nids", "--limit", "sensor-1", "-e", "nids_interface=nope0")
        assert failed.returncode != 0
        assert "does not run with the new rules" in failed.stdout
        assert site.state[1:] == before[1:]
        repaired = site.apply()
        assert repaired.returncode == 0, repaired.stdout[-6000:]
        assert site.state[1:] == before[1:]

    def test_a_unit_that_does_not_start_is_restored(self, site: Site):
        before = site.state
        staged = "/etc/ringfence/nids/staged/suricata.conf"
        site.on("sensor-1", f"printf '[Service]\\nExecStartPre=/bin/false\\n' >> {staged}")
        said = site.on("sensor-1", "ringfence-nids-apply 2>&1 && exit 1; exit 0")
        assert "does not run with the new rules" in said
        assert site.state[1:] == before[1:]
        repaired = site.apply()
        assert repaired.returncode == 0, repaired.stdout[-6000:]
        assert site.state == (site.state[0], *before[1:])

    @pytest.mark.parametrize(
        ("change", "restarts"),
        [
            (": > /var/lib/ringfence-nids/current/rules/evasion.rules", False),
            ("echo >> /etc/systemd/system/suricata.service.d/10-ringfence.conf", True),
            ("ln -sfn earlier /var/lib/ringfence-nids/running", True),
            ("systemctl stop ringfence-nids-events@alerts.service", False),
            ("nft insert rule inet ringfence_nids copies udp dport 4789 drop", False),
        ],
    )
    def test_drift_is_corrected(self, site: Site, change: str, restarts: bool):
        before = site.state
        site.on("sensor-1", change)
        applied = site.apply()
        assert applied.returncode == 0, applied.stdout[-6000:]
        after = site.state
        assert after[1:] == before[1:]
        assert (after[0] != before[0]) == restarts
        site.on("sensor-1", "ringfence-nids-apply --check")

    def test_an_invalid_denylist_entry_is_refused(self, site: Site):
        (site.folder / "ja4.txt").write_text("t13d1516h2_8daaf6152771\n")
        refused = site.apply()
        assert refused.returncode != 0
        assert "Not a JA4 fingerprint or a domain name: t13d1516h2_8daaf6152771" in " ".join(
            refused.stdout.split()
        )
        (site.folder / "ja4.txt").unlink()

    def test_a_setting_below_its_minimum_is_refused(self, site: Site):
        refused = site.play("--tags", "nids", "--limit", "sensor-1", "-e", "nids_stats_seconds=0")
        assert refused.returncode != 0
        assert "Too small: nids_stats_seconds is 0, 1 is the least." in " ".join(
            refused.stdout.split()
        )

    def test_a_suricata_that_hangs_and_what_it_lost_are_events(self, site: Site):
        site.on("sensor-1", "systemctl kill -s STOP suricata")
        site.send(23003, 200_000)
        assert site.collected('"NIDS_EVENT":"stopped"', seconds=80)
        site.on("sensor-1", "systemctl kill -s CONT suricata")
        assert site.collected('"NIDS_EVENT":"drops"', seconds=40)

    def test_a_flood_of_one_signature_is_limited_and_reported(self, site: Site):
        """The sources are invented, so that no threshold of Suricata limits the flood."""
        before = len(site.collected("Undeclared source - tcp"))
        address = site.lab.environment.hosts["sensor-1"].address
        site.on("sensor-1", f"python3 -c {shlex.quote(FLOOD)} {address}")
        assert site.collected('"NIDS_EVENT":"flood"|Undeclared source - tcp', seconds=80)
        assert len(site.collected("Undeclared source - tcp")) - before <= 2 * 600 + 2

    def test_a_load_balancer_is_answered_while_suricata_runs(self, site: Site):
        def becomes(expected: str) -> None:
            """Wait up to half a minute: an answer requires a report."""
            site.on(
                "sensor-1",
                f"for try in $(seq 150); do {OPEN}; [ $? = {expected} ] && exit; sleep 0.2; done; "
                "systemctl status ringfence-nids-health suricata; exit 1",
            )

        becomes(REFUSED)
        asked = ("--tags", "nids", "--limit", "sensor-1", "-e", f'{{"nids_health_port": {HEALTH}}}')
        applied = site.play(*asked)
        assert applied.returncode == 0, applied.stdout[-6000:]
        becomes(ANSWERED)
        again = site.play(*asked)
        assert set(re.findall(r"changed=(\d+)", again.stdout)) == {"0"}, again.stdout[-6000:]
        site.on("sensor-1", "systemctl stop suricata")
        becomes(REFUSED)
        site.on("sensor-1", "systemctl start suricata")
        becomes(ANSWERED)
        site.on("sensor-1", "systemctl kill -s KILL suricata")
        becomes(REFUSED)
        becomes(ANSWERED)
        removed = site.apply()
        assert removed.returncode == 0, removed.stdout[-6000:]
        becomes(REFUSED)

    def test_its_sandbox_leaves_little(self, site: Site):
        said = site.on("sensor-1", "systemd-analyze security --no-pager suricata | tail -1")
        exposure = re.search(r"([\d.]+) OK", said)
        assert exposure, said
        assert float(exposure[1]) <= 1.5

    def test_every_check_can_fail(self, site: Site):
        ended = run(
            *(
                "python",
                "-m",
                "pytest",
                "-p",
                "tests.lab.sabotage",
                "tests/compliance/hosts/test_nids.py",
            ),
            *("--environment", site.lab.environment.path, "--sabotage"),
        )
        assert ended.returncode == 0, ended.stdout[-6000:]
        assert "9 passed" in ended.stdout
