"""The typed view has the values of the manifest."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ringfence.manifest.errors import ManifestError
from ringfence.manifest.model import Environment, Secret

SMALL = (Path(__file__).parent / "manifests" / "small.yaml").read_text()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "environment.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def environment(path: Path) -> Environment:
    return Environment.load(path)


def test_names_become_what_they_name(environment: Environment) -> None:
    git, host = environment.servers["git"], environment.hosts["tools-1"]
    assert git.host is host
    assert git.segment is host.segment is environment.segments["servers"]
    assert environment.log_sink.host is environment.hosts["siem-1"]
    assert environment.servers_on(host) == (git,)
    assert environment.group("siem") == (environment.hosts["siem-1"],)
    assert environment.group("all") == tuple(environment.hosts.values())


def test_addresses_are_addresses(environment: Environment) -> None:
    host = environment.hosts["tools-1"]
    assert host.addresses == (ip_address("10.9.30.11"), ip_address("fd00:9:30::11"))
    assert host.fqdn == "tools-1.small.internal"
    assert environment.segments["clients"].networks == (
        ip_network("10.9.20.0/24"),
        ip_network("fd00:9:20::/64"),
    )
    assert environment.services.package_proxy_endpoint == ("10.9.10.2", 3142)


def test_flows_are_declared_and_derived(environment: Environment) -> None:
    flows = {(f.source.name, f.target.name, f.port, f.server) for f in environment.all_flows}
    assert flows == {
        ("clients", "tools-1", 8442, "git"),
        ("management", "tools-1", 22, None),
        ("management", "siem-1", 22, None),
        ("tools-1", "siem-1", 2514, None),
    }


def test_grants_follow_from_roles(environment: Environment) -> None:
    principals = environment.principals
    assert environment.tools_of(principals["carol"]) == {("git", "git_log"), ("git", "git_commit")}
    assert environment.tools_of(principals["dana"]) == frozenset()
    callers = environment.callers(environment.servers["git"])
    assert {p.name for p in callers} == {"carol", "agent"}


def test_defaults_are_those_of_the_schema(environment: Environment) -> None:
    git = environment.servers["git"]
    assert (git.limits.memory_mib, git.limits.tasks, git.protocols) == (512, 64, ("2026-07-28",))
    assert environment.automation.certificate_minutes == 60
    assert (environment.pki.certificate_days, environment.log_sink.port) == (30, 2514)
    assert environment.hosts["siem-1"].ssh_port == 22


def test_every_secret_says_how_it_is_rotated(path: Path) -> None:
    assert Environment.load(path).secrets == {"api-key": Secret("api-key", "external", 90, ())}
    declared = "secrets:\n  api-key: {rotation: generated, rotation_days: 7, readers: [siem-1]}\n"
    path.write_text(SMALL.replace("roles:\n", f"{declared}roles:\n"))
    environment = Environment.load(path)
    readers = (environment.hosts["siem-1"],)
    assert environment.secrets["api-key"] == Secret("api-key", "generated", 7, readers)


def test_files_lie_beside_the_manifest(environment: Environment, path: Path) -> None:
    assert environment.state == path.parent / ".state"
    assert environment.bootstrap.identity_file == path.parent / "bootstrap"
    alice = environment.administrators["alice"]
    assert alice.ssh_key_files == (path.parent / "alice.pub",)
    with pytest.raises(FileNotFoundError):
        alice.public_keys()


def test_environment_cannot_be_changed(environment: Environment) -> None:
    with pytest.raises(FrozenInstanceError):
        environment.hosts["tools-1"].ssh_port = 2222  # pyright: ignore[reportAttributeAccessIssue]


def test_invalid_manifest_is_no_environment(path: Path) -> None:
    path.write_text(SMALL.replace("segment: servers", "segment: server"))
    with pytest.raises(ManifestError, match="there is no segment 'server'"):
        Environment.load(path)
