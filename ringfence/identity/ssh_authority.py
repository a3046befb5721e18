"""The SSH user authority of an environment, and the short-lived certificates of automation.

The authority's key never leaves `.state/ssh/`; hosts know its public half. Automation holds a
key that is worth nothing without a certificate, and a certificate opens one account, for
minutes, from the management segments only. `keep_certificate` renews it once half of its
life is gone, so that what starts now can also end; it may be called by many at once.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import platform
import secrets
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    SSHCertificate,
    SSHCertificateBuilder,
    SSHCertificateType,
    load_ssh_public_identity,
)

from ringfence.manifest.model import Environment, Network

CLOCK_SKEW = timedelta(minutes=5)


class SshAuthorityError(Exception):
    """The authority's files cannot be used."""


@dataclass(frozen=True)
class Files:
    """Where things lie below `.state/`."""

    directory: Path
    known_hosts: Path

    @classmethod
    def of(cls, environment: Environment) -> Files:
        return cls(environment.state / "ssh", environment.state / "known_hosts")

    @property
    def authority(self) -> Path:
        return self.directory / "authority_ed25519"

    @property
    def authority_public(self) -> Path:
        return self.directory / "authority_ed25519.pub"

    @property
    def key(self) -> Path:
        """Private key of automation."""
        return self.directory / "automation_ed25519"

    @property
    def certificate(self) -> Path:
        return self.directory / "automation_ed25519-cert.pub"

    @property
    def journal(self) -> Path:
        """One line of JSON per certificate: who had it, for whom, from when to when."""
        return self.directory / "issued.jsonl"


LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.1/32"), ip_network("::1/128"))


def management_networks(environment: Environment) -> tuple[Network, ...]:
    """Where administration may come from.

    Of what is provisioned, it comes through Session Manager, whose agent connects to sshd from the
    host itself. So does any process there: it needs a key and certificate as everybody does, and
    the host's firewall keeps MCP servers from that port.
    """
    segments = tuple(
        network
        for segment in environment.segments_for("management")
        for network in segment.networks
    )
    return (*segments, *LOOPBACK) if environment.provisioning else segments


def public_key(files: Files) -> Ed25519PublicKey:
    """The public half of automation's key."""
    return _load(files.key).public_key()


def ensure_authority(environment: Environment) -> Files:
    """Make the authority and automation's key where they are missing."""
    files = Files.of(environment)
    with _locked(files):
        for path in (files.authority, files.key):
            if not path.exists():
                _write_key(path, Ed25519PrivateKey.generate(), f"ringfence {environment.name}")
        # The public half may have been left behind by a copy of the directory.
        comment = f"ringfence-{environment.name}"
        line = f"{_openssh(_load(files.authority).public_key())} {comment}\n"
        if not files.authority_public.exists() or files.authority_public.read_text() != line:
            _write(files.authority_public, line.encode(), 0o644)
    return files


def ensure_certificate(environment: Environment) -> Files:
    """A certificate with at least half of its life left, with an authority made if need be."""
    ensure_authority(environment)
    return keep_certificate(environment)


def keep_certificate(environment: Environment) -> Files:
    """Renew the certificate when half of its life is gone. Nothing, where there is no authority."""
    files = Files.of(environment)
    if not files.authority.exists() or _is_fresh(environment, files):
        return files
    with _locked(files):
        # Another process may have renewed it while this one waited for the lock.
        if not _is_fresh(environment, files):
            life = timedelta(minutes=environment.automation.certificate_minutes)
            certificate = issue(
                environment,
                public_key(files),
                environment.automation.account,
                life=life,
                networks=management_networks(environment),
            )
            _write(files.certificate, certificate.public_bytes() + b"\n", 0o600)
    return files


def issue(
    environment: Environment,
    public_key: Ed25519PublicKey,
    principal: str,
    *,
    life: timedelta,
    networks: Sequence[Network] = (),
    start: datetime | None = None,
) -> SSHCertificate:
    """Sign one certificate and record it. Without networks it is good from everywhere."""
    files = Files.of(environment)
    # sshd logs the key id at every login: it leads back to the person at the keyboard.
    operator = f"{getpass.getuser()}@{platform.node()}"
    certificate = sign(
        _load(files.authority),
        public_key,
        principal,
        life=life,
        networks=networks,
        start=start,
        key_id=f"ringfence/{environment.name}/{principal} by {operator}",
    )
    entry = {
        "serial": certificate.serial,
        "principal": principal,
        "operator": operator,
        "from": datetime.fromtimestamp(certificate.valid_after, UTC).isoformat(timespec="seconds"),
        "to": datetime.fromtimestamp(certificate.valid_before, UTC).isoformat(timespec="seconds"),
        "networks": [str(network) for network in networks],
    }
    descriptor = os.open(files.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "w") as journal:
        journal.write(json.dumps(entry) + "\n")
    return certificate


def sign(
    authority: Ed25519PrivateKey,
    public_key: Ed25519PublicKey,
    principal: str,
    *,
    life: timedelta,
    networks: Sequence[Network] = (),
    start: datetime | None = None,
    key_id: str = "ringfence",
) -> SSHCertificate:
    """Sign one certificate, good from a little before `start` for clocks that differ."""
    start = start or datetime.now(UTC)
    builder = (
        SSHCertificateBuilder()
        .public_key(public_key)
        .serial(secrets.randbits(63))
        .type(SSHCertificateType.USER)
        .key_id(key_id.encode())
        .valid_principals([principal.encode()])
        .valid_after(int((start - CLOCK_SKEW).timestamp()))
        .valid_before(int((start + life).timestamp()))
    )
    if networks:
        builder = builder.add_critical_option(
            b"source-address", ",".join(map(str, networks)).encode()
        )
    # No extensions: neither a terminal nor any forwarding is needed.
    return builder.sign(authority)


def remaining(files: Files) -> timedelta | None:
    """Time for which the certificate is still good; None without a readable one."""
    certificate = _certificate(files)
    if certificate is None:
        return None
    return datetime.fromtimestamp(certificate.valid_before, UTC) - datetime.now(UTC)


def _certificate(files: Files) -> SSHCertificate | None:
    try:
        identity = load_ssh_public_identity(files.certificate.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return identity if isinstance(identity, SSHCertificate) else None


def _is_fresh(environment: Environment, files: Files) -> bool:
    certificate = _certificate(files)
    left = remaining(files)
    if certificate is None or left is None:
        return False
    networks = ",".join(map(str, management_networks(environment))).encode()
    return (
        left >= timedelta(minutes=environment.automation.certificate_minutes) / 2
        and certificate.valid_principals == [environment.automation.account.encode()]
        and certificate.critical_options.get(b"source-address", b"") == networks
        # A replaced authority or key makes the old certificate worthless.
        and _openssh(certificate.signature_key()) == _openssh(_load(files.authority).public_key())
        and _openssh(certificate.public_key()) == _openssh(_load(files.key).public_key())
    )


@contextmanager
def _locked(files: Files) -> Iterator[None]:
    try:
        files.directory.parent.mkdir(mode=0o700, exist_ok=True)
        files.directory.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(files.directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SshAuthorityError(
            f"{files.directory} cannot be written ({error.strerror}); "
            "the SSH authority is kept there, by the owner of the manifest"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _load(path: Path) -> Ed25519PrivateKey:
    try:
        mode = path.stat().st_mode & 0o077
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise SshAuthorityError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise SshAuthorityError(
            f"{path} is not an OpenSSH private key without passphrase; restore it from a backup, "
            "or delete it to make another (hosts must then be bootstrapped again)"
        ) from error
    if mode:
        raise SshAuthorityError(f"{path} may be read by others; chmod 600 it, and replace the key")
    if not isinstance(key, Ed25519PrivateKey):
        raise SshAuthorityError(f"{path} is not an Ed25519 key")
    return key


def _openssh(key: object) -> str:
    assert isinstance(key, Ed25519PublicKey)
    return key.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    ).decode()


def _write_key(path: Path, key: Ed25519PrivateKey, comment: str) -> None:
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    _write(path.with_name(f"{path.name}.pub"), f"{_openssh(key.public_key())} {comment}\n".encode())
    _write(path, private, 0o600)


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Whole or not at all: a reader never sees half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(path)


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("environment", type=Path, help="the manifest")


def run(args: Namespace) -> int:
    """Make sure that automation has a certificate, and say how long it is good."""
    environment = Environment.load(args.environment)
    try:
        files = ensure_certificate(environment)
        left = remaining(files)
    except SshAuthorityError as error:
        print(f"ringfence: {error}", file=sys.stderr)
        return 2
    assert left is not None
    print(f"{files.certificate}: good for {left.total_seconds() / 60:.0f} minutes")
    return 0


if __name__ == "__main__":
    parser = ArgumentParser(description=run.__doc__)
    arguments(parser)
    sys.exit(run(parser.parse_args()))
