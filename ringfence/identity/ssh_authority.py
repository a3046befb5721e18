"""The SSH user authority of an environment, and the short-lived certificates of automation.

The authority's key never leaves `.state/ssh/`; hosts know its public half. The key of automation is
of no use without a certificate, and a certificate is valid for one account, for minutes, from the
management segments only. `keep_certificate` renews it at half of its lifetime, so that a run that
starts now can finish. Many processes may call it at once.
"""

from __future__ import annotations

import getpass
import json
import platform
import secrets
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
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

from ringfence.identity import state
from ringfence.identity.state import StateError
from ringfence.manifest.model import Environment, Network

CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class SshAuthorityFiles:
    """Paths of the SSH authority's files in the state directory."""

    directory: Path
    known_hosts: Path

    @classmethod
    def of(cls, environment: Environment) -> SshAuthorityFiles:
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
        """One line of JSON per certificate: operator, principal, and time of validity."""
        return self.directory / "issued.jsonl"


LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.1/32"), ip_network("::1/128"))


def management_networks(environment: Environment) -> tuple[Network, ...]:
    """Return the networks that administration may come from.

    Provisioned hosts are administered through Session Manager, whose agent connects to sshd from
    the host itself. Any process there can connect too, but it needs a key and a certificate, and
    the host's firewall keeps MCP servers from that port.
    """
    segments = tuple(
        network
        for segment in environment.segments_for("management")
        for network in segment.networks
    )
    return (*segments, *LOOPBACK) if environment.provisioning else segments


def public_key(files: SshAuthorityFiles) -> Ed25519PublicKey:
    """Return the public half of automation's key."""
    return _load(files.key).public_key()


def ensure_authority(environment: Environment) -> SshAuthorityFiles:
    """Make the authority and automation's key if they are missing."""
    files = SshAuthorityFiles.of(environment)
    with state.locked(files.directory):
        for path in (files.authority, files.key):
            if not path.exists():
                _write_key(path, Ed25519PrivateKey.generate(), f"ringfence {environment.name}")
        # A copy of the directory may lack the public half.
        comment = f"ringfence-{environment.name}"
        line = f"{_openssh(_load(files.authority).public_key())} {comment}\n"
        if not files.authority_public.exists() or files.authority_public.read_text() != line:
            state.write(files.authority_public, line.encode(), state.PUBLIC)
    return files


def ensure_certificate(environment: Environment) -> SshAuthorityFiles:
    """Return a certificate with at least half of its lifetime left; make what is missing."""
    ensure_authority(environment)
    return keep_certificate(environment)


def keep_certificate(environment: Environment) -> SshAuthorityFiles:
    """Renew the certificate at half of its lifetime. Do nothing if there is no authority."""
    files = SshAuthorityFiles.of(environment)
    if not files.authority.exists() or _is_fresh(environment, files):
        return files
    with state.locked(files.directory):
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
            state.write(files.certificate, certificate.public_bytes() + b"\n")
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
    """Sign one certificate and record it. Without networks it is valid from everywhere."""
    files = SshAuthorityFiles.of(environment)
    # sshd logs the key id at every login, which identifies the operator.
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
    state.append(files.journal, json.dumps(entry))
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
    """Sign one certificate, valid from a little before `start`: clocks differ."""
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
    # No extensions: automation needs neither a terminal nor forwarding.
    return builder.sign(authority)


def remaining(files: SshAuthorityFiles) -> timedelta | None:
    """Return how long the certificate is still valid; None if none can be read."""
    certificate = _certificate(files)
    if certificate is None:
        return None
    return datetime.fromtimestamp(certificate.valid_before, UTC) - datetime.now(UTC)


def _certificate(files: SshAuthorityFiles) -> SSHCertificate | None:
    try:
        identity = load_ssh_public_identity(files.certificate.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return identity if isinstance(identity, SSHCertificate) else None


def _is_fresh(environment: Environment, files: SshAuthorityFiles) -> bool:
    certificate = _certificate(files)
    left = remaining(files)
    if certificate is None or left is None:
        return False
    networks = ",".join(map(str, management_networks(environment))).encode()
    return (
        left >= timedelta(minutes=environment.automation.certificate_minutes) / 2
        and certificate.valid_principals == [environment.automation.account.encode()]
        and certificate.critical_options.get(b"source-address", b"") == networks
        # The certificate is of no use after the authority or the key was replaced.
        and _openssh(certificate.signature_key()) == _openssh(_load(files.authority).public_key())
        and _openssh(certificate.public_key()) == _openssh(_load(files.key).public_key())
    )


def _load(path: Path) -> Ed25519PrivateKey:
    content = state.read_private(path)
    try:
        key = serialization.load_ssh_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise StateError(
            f"{path} is not an OpenSSH private key without passphrase; restore it from a backup, "
            "or delete it to make another, and bootstrap the hosts again"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StateError(f"{path} is not an Ed25519 key")
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
    public = f"{_openssh(key.public_key())} {comment}\n"
    state.write(path.with_name(f"{path.name}.pub"), public.encode(), state.PUBLIC)
    state.write(path, private)


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("environment", type=Path, help="the manifest")


def run(args: Namespace) -> int:
    """Make sure that automation has a certificate, and print how long it is valid."""
    environment = Environment.load(args.environment)
    try:
        files = ensure_certificate(environment)
        left = remaining(files)
    except StateError as error:
        print(f"ringfence: {error}", file=sys.stderr)
        return 2
    assert left is not None
    print(f"{files.certificate}: valid for {left.total_seconds() / 60:.0f} minutes")
    return 0


if __name__ == "__main__":
    parser = ArgumentParser(description=run.__doc__)
    arguments(parser)
    sys.exit(run(parser.parse_args()))
