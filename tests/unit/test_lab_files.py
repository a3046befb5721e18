"""Files that the lab writes into hosts and beside the manifest."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from ringfence.lab import seed, state
from ringfence.lab.errors import UnusableError
from ringfence.lab.plan import Plan
from ringfence.manifest.model import Environment

EMBEDDED = Path(__file__).parents[2] / "inventories/lab/environment.yaml"


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment.load(shutil.copy(EMBEDDED, tmp_path / "environment.yaml"))


@pytest.fixture
def tree(environment: Environment, tmp_path: Path) -> Path:
    plan = Plan(environment)
    tree = tmp_path / "seed"
    seed.make(plan, plan.hosts["tools-1"], tree, ["ssh-ed25519 AAAA someone"])
    return tree


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_private_files_of_a_host_are_private(tree: Path) -> None:
    assert mode(tree) == 0o755
    assert mode(tree / "root") == mode(tree / "root/.ssh") == 0o700
    assert mode(tree / "root/.ssh/authorized_keys") == 0o600
    assert {mode(key) for key in (tree / "etc/ssh").glob("*_key")} == {0o600}


def test_host_has_its_own_name_and_knows_the_others(tree: Path) -> None:
    assert (tree / "etc/hostname").read_text() == "tools-1\n"
    hosts = (tree / "etc/hosts").read_text().splitlines()
    assert "10.213.40.11 siem-1.lab.internal siem-1" in hosts
    assert "fd0d:213:40::11 siem-1.lab.internal siem-1" in hosts


def test_hosts_differ_in_identity(environment: Environment, tree: Path, tmp_path: Path) -> None:
    plan = Plan(environment)
    seed.make(plan, plan.hosts["siem-1"], tmp_path / "other/seed", [])
    assert not set(seed.host_keys(tree)) & set(seed.host_keys(tmp_path / "other/seed"))
    ids = {path.read_text() for path in tmp_path.rglob("etc/machine-id")}
    assert len(ids) == 2


def test_host_gets_packages_through_the_proxy_of_the_manifest(tree: Path) -> None:
    text = (tree / "etc/apt/apt.conf.d/01proxy").read_text()
    assert text == 'Acquire::http::Proxy "http://10.213.10.2:3142";\n'


def test_keys_that_the_manifest_expects_are_made_once(environment: Environment) -> None:
    state.ensure(environment)
    made = {path: path.read_bytes() for path in environment.state.rglob("*") if path.is_file()}
    assert mode(environment.state) == 0o700
    names = {str(path.relative_to(environment.state)) for path in made}
    assert {"bootstrap_ed25519", "administrators/alice_ed25519.pub"} <= names
    assert mode(environment.state / "administrators/alice_ed25519") == 0o600
    state.ensure(environment)
    assert all(path.read_bytes() == content for path, content in made.items())


def test_state_that_others_can_read_is_closed(environment: Environment) -> None:
    environment.state.mkdir(mode=0o755)
    state.ensure(environment)
    assert mode(environment.state) == 0o700


def test_keys_elsewhere_are_not_made(tmp_path: Path) -> None:
    path = tmp_path / "environment.yaml"
    text = EMBEDDED.read_text()
    path.write_text(text.replace(".state/bootstrap_ed25519", f"{tmp_path}/elsewhere"))
    with pytest.raises(UnusableError, match="elsewhere is missing"):
        state.ensure(Environment.load(path))


def test_known_hosts_keeps_the_lines_of_others(environment: Environment) -> None:
    state.ensure(environment)
    plan = Plan(environment)
    known_hosts = environment.state / "known_hosts"
    known_hosts.write_text("@cert-authority *.lab.internal ssh-ed25519 AAAA\n")
    state.write_known_hosts(plan, {"tools-1": ["ssh-ed25519 OLD"]})
    state.write_known_hosts(plan, {"tools-1": ["ssh-ed25519 NEW"]})
    first, *lines = known_hosts.read_text().splitlines()
    assert first.startswith("@cert-authority")
    (line,) = lines
    names, kind, key, _ = line.split()
    assert (kind, key) == ("ssh-ed25519", "NEW")
    assert {"10.213.30.11", "fd0d:213:30::11", "tools-1.lab.internal"} <= set(names.split(","))


def test_purge_deletes_what_the_lab_made(environment: Environment) -> None:
    state.ensure(environment)
    assert state.purge(environment.state)
    assert not environment.state.exists()


def test_purge_keeps_identities_of_others(environment: Environment) -> None:
    environment.state.mkdir()
    (environment.state / "authority.key").write_text("real")
    assert not state.purge(environment.state)
    assert (environment.state / "authority.key").exists()
