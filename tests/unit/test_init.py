"""`ringfence init` writes a manifest that works unchanged, and never overwrites a file."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ringfence import ROOT
from ringfence.cli import main
from ringfence.inventory import variables
from ringfence.manifest import init, validation
from ringfence.manifest.model import Environment

EXAMPLE = ROOT / "inventories/one-host"


def public(key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> str:
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return f"{line.decode()} carol@desk"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run as carol, with an empty home directory."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(getpass, "getuser", lambda: "carol")
    monkeypatch.chdir(tmp_path)
    return home


def test_the_manifest_is_valid_without_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "payments-dev"]) == 0
    out, err = capsys.readouterr()
    path = Path("inventories/payments-dev/environment.yaml")
    assert out.startswith(f"{path}: written; replace what it marks CHANGE")
    assert err == ""
    assert main(["validate", str(path)]) == 0
    out, err = capsys.readouterr()
    assert (out.startswith(f"{path}: valid: payments-dev (development)"), err) == (True, "")
    environment = Environment.load(path)
    assert list(environment.administrators) == ["carol"]
    for host in environment.hosts.values():
        assert variables(environment, host)


@pytest.mark.parametrize("name", ["a", "z" * 32, "x-1"])
def test_every_name_of_an_environment_works(tmp_path: Path, name: str) -> None:
    assert main(["init", name, "--directory", str(tmp_path / "there")]) == 0
    assert Environment.load(tmp_path / "there" / "environment.yaml").name == name


def test_all_comments_say_what_to_change(tmp_path: Path) -> None:
    text = init.render("x", "carol", None, "")
    changed = [line.split(":")[0].strip() for line in text.splitlines() if "CHANGE" in line]
    for key in ("contacts", "segments", "services", "bootstrap", "administrators", "time"):
        assert key in changed
    assert "address: 10.20.30.11" in text.partition("# CHANGE: the address")[2]


def test_a_file_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "environment.yaml"
    path.write_text("mine")
    assert main(["init", "x", "--directory", str(tmp_path)]) == 2
    assert "environment.yaml exists and is left as it is" in capsys.readouterr().err
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["", "Lab", "1st", "two words", "../up", "z" * 33, "x\n"])
def test_what_is_no_name_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["init", name]) == 2
    assert "cannot be the name of an environment" in capsys.readouterr().err
    assert not (tmp_path / "inventories").exists()


def test_a_directory_that_cannot_be_made_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["init", "x", "--directory", "file/below"]) == 2
    assert "file/below cannot be written: Not a directory" in capsys.readouterr().err


def test_outside_the_checkout_no_path_to_the_schema_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "x", "--directory", str(tmp_path)]) == 0
    assert "$schema" not in (tmp_path / "environment.yaml").read_text()
    line = capsys.readouterr().out.splitlines()[-1]
    assert Path(line.partition("$schema=")[2]).is_file()
    assert (tmp_path / ".gitignore").read_text() == ".state/\n"


def test_inside_the_checkout_the_path_to_the_schema_resolves() -> None:
    for directory in (EXAMPLE, ROOT / "inventories/a/b"):
        line = init.schema_line(directory).splitlines()[0]
        assert (directory / line.partition("$schema=")[2]).resolve().is_file()


def test_a_usable_public_key_of_the_user_is_entered(home: Path) -> None:
    weak = public(rsa.generate_private_key(65537, 2048))
    strong = public(ed25519.Ed25519PrivateKey.generate())
    (home / ".ssh" / "id_rsa.pub").write_text(weak)
    assert init.public_key(home / ".ssh") is None
    (home / ".ssh" / "id_ed25519.pub").write_text(f"{strong}\n")
    assert main(["init", "x"]) == 0
    written = yaml.safe_load(Path("inventories/x/environment.yaml").read_text())
    assert written["administrators"]["carol"]["ssh_keys"] == [strong]


@pytest.mark.parametrize("user", ["root", "Carol", "mcp-time", "agent", "debian", "ringfence", "a"])
def test_the_manifest_is_valid_whoever_runs_it(monkeypatch: pytest.MonkeyPatch, user: str) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: user)
    assert main(["init", "x"]) == 0
    document = validation.load("inventories/x/environment.yaml")
    assert list(document["administrators"]) == [user if user == "a" else "alice"]


def test_the_example_is_what_init_writes() -> None:
    text = init.render("one-host", "alice", None, init.schema_line(EXAMPLE))
    assert (EXAMPLE / "environment.yaml").read_text() == text
