from __future__ import annotations

import stat
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pyotp.totp import TOTP

from ringfence.identity import second_factor
from ringfence.identity.state import StateError
from ringfence.manifest.model import Environment

LAB = Path(__file__).parents[2] / "inventories" / "lab" / "environment.yaml"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    environment = replace(Environment.load(LAB), path=tmp_path / "environment.yaml")
    monkeypatch.setattr(Environment, "load", lambda _: environment)
    return environment


def enrol(account: str, *, uri: bool = False) -> int:
    return second_factor.run(Namespace(environment=LAB, account=account, uri=uri))


def test_secret_is_made_once_and_kept_private(environment):
    secrets = {second_factor.ensure_secret(environment, "alice") for _ in range(3)}
    path = second_factor.secret_file(environment, "alice")
    assert secrets == {path.read_text().strip()}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["alice"]


def test_an_existing_secret_is_used_unless_others_can_read_it(environment):
    path = second_factor.secret_file(environment, "alice")
    path.parent.mkdir(parents=True)
    path.write_text("JBSWY3DPEHPK3PXP\n")
    path.chmod(0o640)
    with pytest.raises(StateError, match="chmod 600"):
        second_factor.ensure_secret(environment, "alice")
    path.chmod(0o400)
    assert second_factor.ensure_secret(environment, "alice") == "JBSWY3DPEHPK3PXP"


def test_secret_is_long_enough_and_works(environment):
    secret = second_factor.ensure_secret(environment, "alice")
    assert len(secret) == 32
    assert len(TOTP(secret).now()) == 6


def test_uri_names_person_and_environment(environment):
    url = urlsplit(second_factor.uri(environment, "alice"))
    assert (url.scheme, url.netloc) == ("otpauth", "totp")
    assert parse_qs(url.query)["issuer"] == [f"Ringfence {environment.name}"]
    assert "alice" in url.path


def test_secret_goes_to_a_terminal_only(environment, capsys: pytest.CaptureFixture[str]):
    assert enrol("alice") == 2
    assert "terminal only" in capsys.readouterr().err
    assert not second_factor.secret_file(environment, "alice").exists()
    assert enrol("alice", uri=True) == 0
    assert capsys.readouterr().out.startswith("otpauth://totp/")


def test_an_unknown_account_is_refused(environment, capsys: pytest.CaptureFixture[str]):
    assert enrol("mallory") == 2
    assert "names no administrator 'mallory'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("factor", "sudo", "needed"),
    [("totp", False, True), ("totp", True, True), ("fido2", True, True), ("fido2", False, False)],
)
def test_who_types_codes(environment, factor, sudo, needed):
    person = replace(environment.administrators["alice"], second_factor=factor, sudo=sudo)
    assert second_factor.uses_codes(person) is needed
