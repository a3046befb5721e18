from __future__ import annotations

import json
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from ringfence.identity import ssh_authority
from ringfence.identity.ssh_authority import SshAuthorityFiles
from ringfence.identity.state import StateError
from ringfence.manifest.model import Automation, Environment, Segment

LAB = Path(__file__).parents[2] / "inventories" / "lab" / "environment.yaml"


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return replace(
        Environment.load(LAB),
        path=tmp_path / "environment.yaml",
        automation=Automation("robot", 60),
        segments={
            "admin": Segment(
                "admin", "management", IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/64")
            ),
            "tools": Segment("tools", "servers", IPv4Network("198.51.100.0/24")),
        },
    )


def certificate(files: SshAuthorityFiles) -> SSHCertificate:
    identity = load_ssh_public_identity(files.certificate.read_bytes())
    assert isinstance(identity, SSHCertificate)
    identity.verify_cert_signature()
    return identity


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_certificate_opens_one_account_from_management_for_minutes(environment):
    cert = certificate(ssh_authority.ensure_certificate(environment))
    assert cert.valid_principals == [b"robot"]
    assert cert.critical_options == {b"source-address": b"192.0.2.0/24,2001:db8::/64"}
    assert cert.extensions == {}
    assert cert.valid_before - datetime.now(UTC).timestamp() <= 3600


def test_openssh_reads_what_is_written(environment):
    files = ssh_authority.ensure_certificate(environment)
    for path in (files.certificate, files.authority_public, files.key.with_suffix(".pub")):
        subprocess.run(["ssh-keygen", "-lf", path], check=True, capture_output=True)
    derived = subprocess.run(
        ["ssh-keygen", "-yf", files.authority], check=True, capture_output=True, text=True
    ).stdout
    assert derived.split()[1] == files.authority_public.read_text().split()[1]


def test_private_files_are_private(environment):
    files = ssh_authority.ensure_certificate(environment)
    assert mode(files.directory) == 0o700
    assert {mode(p) for p in (files.authority, files.key, files.journal)} == {0o600}


def test_a_fresh_certificate_is_kept(environment):
    first = ssh_authority.ensure_certificate(environment).certificate.read_bytes()
    assert ssh_authority.ensure_certificate(environment).certificate.read_bytes() == first


@pytest.mark.parametrize(
    "change",
    [
        {"automation": Automation("other", 60)},
        {"automation": Automation("robot", 480)},
        {"segments": {"admin": Segment("admin", "management", IPv4Network("203.0.113.0/24"))}},
    ],
    ids=["account", "lifetime", "networks"],
)
def test_another_manifest_gets_another_certificate(environment, change):
    first = certificate(ssh_authority.ensure_certificate(environment))
    second = certificate(ssh_authority.keep_certificate(replace(environment, **change)))
    assert second.serial != first.serial


def test_half_spent_certificate_is_renewed(environment):
    files = ssh_authority.ensure_authority(environment)
    spent = ssh_authority.issue(
        environment,
        ssh_authority.public_key(files),
        "robot",
        life=timedelta(minutes=60),
        networks=ssh_authority.management_networks(environment),
        start=datetime.now(UTC) - timedelta(minutes=31),
    )
    files.certificate.write_bytes(spent.public_bytes())
    ssh_authority.keep_certificate(environment)
    assert certificate(files).serial != spent.serial


def test_a_replaced_authority_replaces_the_certificate(environment):
    files = ssh_authority.ensure_certificate(environment)
    first = certificate(files).serial
    files.authority.unlink()
    ssh_authority.ensure_certificate(environment)
    assert certificate(files).serial != first


@pytest.mark.parametrize("content", [b"", b"nonsense", b"ssh-ed25519 AAAA x\n", b"\xff\xfe"])
def test_a_damaged_certificate_is_replaced(environment, content):
    files = ssh_authority.ensure_certificate(environment)
    files.certificate.write_bytes(content)
    ssh_authority.keep_certificate(environment)
    assert certificate(files).valid_principals == [b"robot"]


def test_no_authority_is_made_in_passing(environment):
    ssh_authority.keep_certificate(environment)
    assert not environment.state.exists()


def test_many_at_once_agree(environment):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ssh_authority.ensure_certificate(environment), range(16)))
    files = SshAuthorityFiles.of(environment)
    assert len(files.journal.read_text().splitlines()) == 1
    assert certificate(files).valid_principals == [b"robot"]


def test_every_certificate_is_recorded(environment):
    files = ssh_authority.ensure_certificate(environment)
    (line,) = files.journal.read_text().splitlines()
    entry = json.loads(line)
    assert (entry["serial"], entry["principal"]) == (certificate(files).serial, "robot")


def test_a_readable_authority_is_refused(environment):
    files = ssh_authority.ensure_certificate(environment)
    files.authority.chmod(0o644)
    with pytest.raises(StateError, match="can be read by others"):
        ssh_authority.keep_certificate(environment)


def test_a_damaged_authority_is_named(environment):
    files = ssh_authority.ensure_certificate(environment)
    files.authority.write_text("nonsense")
    with pytest.raises(StateError, match=r"authority_ed25519 is not an OpenSSH private key"):
        ssh_authority.ensure_certificate(environment)
