"""The inventory of an AWS environment: a rehearsed account, served on loopback, and Ansible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from example import EXAMPLE
from generated import BASE, manifest

from ringfence import inventory
from ringfence.cloud.balancers import HEALTH, VXLAN, balancers
from ringfence.cloud.containment import STATE_TAGS
from ringfence.cloud.flows import balancer_end, declared
from ringfence.cloud.tags import HOST
from ringfence.identity.ssh_authority import SshAuthorityFiles, management_networks
from ringfence.inventory import connection, firewall, first_boot, provisioned
from ringfence.manifest.model import Environment
from ringfence.manifest.validation.rules.hosts import HEALTH_PORT
from ringfence.rehearsal.account import emulated
from ringfence.rehearsal.engine.stacks import rehearsed_stack
from ringfence.rehearsal.record import Rehearsal, RehearsalError
from ringfence.rehearsal.serve import served

ROOT = Path(__file__).parents[2]
REGION = "eu-central-1"


@pytest.fixture
def shell(rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Return the variables of a shell that is logged in to that account."""
    with served(rehearsal.account) as variables:
        _set(monkeypatch, variables)
        yield


def _set(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name, value in {**variables, "AWS_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)


def listed() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-inventory"), "-i", str(EXAMPLE), "--list"],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _plain(value: dict[str, Any]) -> Any:
    return value.get("__ansible_unsafe", value)


def _running(rehearsal: Rehearsal) -> dict[str, dict[str, Any]]:
    running = [{"Name": "instance-state-name", "Values": ["running"]}]
    pages = rehearsal.account.client("ec2").describe_instances(Filters=running)["Reservations"]
    found = [instance for page in pages for instance in page["Instances"]]
    return {next(t["Value"] for t in i["Tags"] if t["Key"] == HOST): i for i in found}


@pytest.mark.usefixtures("shell")
def test_ansible_reaches_every_host_through_session_manager(
    rehearsal: Rehearsal, environment: Environment
) -> None:
    result = listed()
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout, object_hook=_plain)
    hosts, running = found["_meta"]["hostvars"], _running(rehearsal)
    assert hosts.keys() == environment.hosts.keys() == running.keys()
    for name, variables in hosts.items():
        assert variables["ansible_host"] == running[name]["InstanceId"]
        for door in ("ansible_ssh_common_args", "bootstrap_ssh_common_args"):
            assert (
                "'ProxyCommand=aws ssm start-session --region eu-central-1 --target %h "
                "--document-name AWS-StartSSHSession --parameters portNumber=%p'"
            ) in variables[door]
            assert "StrictHostKeyChecking=accept-new" in variables[door]
        assert "127.0.0.1/32" in variables["ssh_management_networks"]
    sink = running["siem-1"]["PrivateIpAddress"]
    assert hosts["edge-1"]["log_shipping_address"] == sink
    to_database = [
        rule["network"]
        for rule in hosts["mcp-ledger"]["firewall_accounts"][0]["egress"]
        if rule["port"] == 5432
    ]
    assert to_database == [f"{running['ledger-db-1']['PrivateIpAddress']}/32"]
    for group, members in inventory.groups(environment).items():
        assert set(found[group]["hosts"]) == set(members)
    assert set(found["mcp_servers"]["hosts"]) == {"mcp-ledger", "tools-1"}


@pytest.mark.usefixtures("shell")
def test_what_this_machine_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    message = " ".join(listed().stderr.split())
    assert (
        "no session-manager-plugin; install the AWS CLI and its Session Manager plugin" in message
    )


@pytest.mark.usefixtures("shell")
def test_what_is_contained_is_no_host_any_more(
    rehearsal: Rehearsal, environment: Environment
) -> None:
    """Its Auto Scaling group has started another instance with the same name."""
    ec2, own = rehearsal.account.client("ec2"), _running(rehearsal)["edge-1"]
    tags = [t for t in own["Tags"] if t["Key"].startswith("ringfence:")]
    (copy,) = ec2.run_instances(
        ImageId=own["ImageId"],
        MinCount=1,
        MaxCount=1,
        SubnetId=own["SubnetId"],
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )["Instances"]
    try:
        with pytest.raises(provisioned.ProvisionedError, match=r"edge-1 runs twice: i-.* and i-"):
            provisioned.instances(environment)
        state = [{"Key": STATE_TAGS[0], "Value": "contained"}]
        ec2.create_tags(Resources=[copy["InstanceId"]], Tags=state)
        assert provisioned.instances(environment)["edge-1"].id == own["InstanceId"]
    finally:
        ec2.terminate_instances(InstanceIds=[copy["InstanceId"]])


def test_where_nothing_runs_every_missing_host_is_named(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with emulated(REGION) as account, served(account) as variables:
        _set(monkeypatch, variables)
        result = listed()
    assert result.returncode != 0
    message = " ".join(result.stderr.split())
    names = ", ".join(environment.hosts)
    assert f"no instance in {REGION} runs as {names} of payments-prod; run pulumi up" in message


def test_without_credentials_one_error_says_so(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(provisioned.ProvisionedError, match=r"AWS does not list the hosts.*aws sso"):
        provisioned.instances(environment)


def test_without_boto3_the_extra_is_named(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(provisioned.ProvisionedError, match=r"pip install 'ringfence\[aws\]'"):
        provisioned.instances(environment)


def test_an_environment_of_ones_own_hosts_is_left_alone() -> None:
    lab = Environment.load(ROOT / "inventories" / "lab" / "environment.yaml")
    assert provisioned.with_instances(lab) is lab
    assert provisioned.missing_tools(lab) == ""
    host = lab.hosts["tools-1"]
    assert connection.tunnel(lab, host) == ()
    assert connection.address(host) == str(host.address)
    assert ip_network("127.0.0.1") not in management_networks(lab)


class TestLocated:
    @pytest.fixture
    def located(self, environment: Environment) -> Environment:
        found = {
            name: provisioned.Instance(f"i-{number}", IPv4Address("10.40.0.0") + number)
            for number, name in enumerate(environment.hosts, 10)
        }
        return provisioned.with_addresses(environment, found)

    def test_a_host_is_the_same_wherever_it_is_mentioned(self, located: Environment) -> None:
        mentioned = [
            *(server.host for server in located.servers.values()),
            *(e.host for server in located.servers.values() for e in server.egress if e.host),
            *(flow.target for flow in located.all_flows),
            *(reader for secret in located.secrets.values() for reader in secret.readers),
            located.log_sink.host,
        ]
        for host in mentioned:
            assert host
            assert host == located.hosts[host.name]
            assert host.address
        assert located.log_sink.address == located.hosts["siem-1"].address
        assert {h.name for h in located.group("mcp_servers")} == {"mcp-ledger", "tools-1"}
        for host in located.hosts.values():
            assert all(server.host == host for server in located.servers_on(host))

    def test_it_computes_addresses_that_the_manifest_does_not_have(
        self, located: Environment
    ) -> None:
        database = located.hosts["ledger-db-1"]
        rules = firewall.inbound(located, database)
        own = ip_network(str(located.hosts["mcp-ledger"].address))
        assert any((rule.network, rule.port) == (own, 5432) for rule in rules)
        # Hardening does not disconnect Session Manager's agent.
        outbound = {(str(r.network), r.port) for r in firewall.outbound(located, database)}
        assert {("10.40.0.0/22", 443), ("169.254.169.254/32", 80)} <= outbound

    def test_hosts_admit_their_load_balancer_and_others_do_not(self, located: Environment) -> None:
        """The balancer connects from its own segment, to ports for callers and health checks."""
        places = {
            (host.name, str(rule.network), rule.protocol, rule.port)
            for host in located.hosts.values()
            for rule in firewall.inbound(located, host)
            if "load balancer" in rule.why
        }
        assert places == {
            ("edge-1", "10.40.8.0/22", "tcp", 443),
            ("sensor-1", "10.40.36.0/22", "tcp", HEALTH),
        }

    def test_hosts_admit_what_security_groups_let_balancers_open(
        self, located: Environment
    ) -> None:
        """Without mirrored packets, which are read before any packet filter."""
        for balancer in balancers(located):
            own = balancer_end(balancer.name)
            ways = [path for path in declared(located) if path.source == own]
            assert ways
            for path in ways:
                host = located.hosts[path.target.removeprefix("host ")]
                admitted = {
                    (rule.protocol, rule.port)
                    for rule in firewall.inbound(located, host)
                    if balancer.segment.cidr == rule.network
                }
                copies = (path.protocol, path.first) == ("udp", VXLAN)
                assert ((path.protocol, path.first) in admitted) != copies, path

    def test_the_sensor_answers_where_it_is_asked(self, located: Environment) -> None:
        variables = inventory.variables(located, located.hosts["sensor-1"])
        assert variables["nids_health_port"] == HEALTH == HEALTH_PORT

    def test_what_was_not_found_stays_without_an_address(self, environment: Environment) -> None:
        one = {"edge-1": provisioned.Instance("i-1", IPv4Address("10.40.8.4"))}
        found = provisioned.with_addresses(environment, one)
        assert found.hosts["edge-1"].address
        assert found.hosts["siem-1"].address is None
        with pytest.raises(provisioned.ProvisionedError, match=r"runs as tools-1, .*siem-1"):
            provisioned.require_running(environment, one)


class TestFirstBoot:
    def test_it_is_cloud_config_without_a_secret_and_short(
        self, environment: Environment, rehearsal: Rehearsal
    ) -> None:
        assert rehearsal.resources  # the rehearsal has created the authority
        private = SshAuthorityFiles.of(environment).authority.read_text().splitlines()
        for host in environment.hosts.values():
            text = first_boot.user_data(environment, host)
            assert text.startswith("#cloud-config\n")
            assert len(text.encode()) < first_boot.LONGEST
            assert "PRIVATE KEY" not in text
            assert not any(line in text for line in private[1:-1])
            assert not any(secret in text for secret in environment.secrets)
            config = yaml.safe_load(text)
            assert config == first_boot.config(environment, host)
            assert not config["package_update"]
            assert not config["package_upgrade"]
            assert [user["name"] for user in config["users"]] == ["ringfence"]

    def test_without_a_place_for_the_authority_one_error_says_so(self) -> None:
        """A checkout may be read-only."""
        with manifest(BASE) as environment:
            environment.state.write_text("in the way")
            with (
                pytest.raises(
                    RehearsalError, match=r"\.state/ssh cannot be written: .*keys are kept there"
                ),
                rehearsed_stack(environment, preview=False),
            ):
                pass

    @pytest.mark.parametrize("kind", ["t4g.small", "t3.small"])
    def test_the_agent_is_of_the_architecture_and_region(
        self, environment: Environment, kind: str
    ) -> None:
        assert environment.provisioning
        (machine,) = {replace(m, type=kind) for m in [environment.provisioning.machines["edge"]]}
        place = replace(environment.provisioning, machines={"edge": machine})
        changed = replace(environment, provisioning=place)
        of = {"t4g.small": "arm64", "t3.small": "amd64"}[kind]
        assert first_boot.agent_url(changed, changed.hosts["edge-1"]) == (
            "https://s3.eu-central-1.amazonaws.com/amazon-ssm-eu-central-1/"
            f"latest/debian_{of}/amazon-ssm-agent.deb"
        )

    def test_the_door_is_what_the_role_would_open(
        self, environment: Environment, rehearsal: Rehearsal
    ) -> None:
        """First boot writes exactly the files of the role's SSH access path, so Ansible then
        changes nothing."""
        assert rehearsal.resources
        variables = yaml.safe_load((ROOT / "roles" / "ssh" / "vars" / "main.yml").read_text())
        assert [f"{path}.j2" for path in first_boot.ACCESS_FILES] == variables[
            "__ssh_automation_files"
        ]
        host = environment.hosts["edge-1"]
        files = {
            each["path"]: each["content"]
            for each in first_boot.config(environment, host)["write_files"]
        }
        authority = SshAuthorityFiles.of(environment).authority_public.read_text()
        assert files["/etc/ssh/ringfence_user_ca.pub"] == authority
        assert files["/etc/ssh/ringfence_principals"].endswith(
            'from="10.40.0.0/22,127.0.0.1/32,::1/128",restrict ringfence\n'
        )
        door = files["/etc/ssh/sshd_config.d/05-ringfence-automation.conf"]
        assert "Address *,!10.40.0.0/22,!127.0.0.1/32,!::1/128\n" in door
        assert "\nPort " not in door
