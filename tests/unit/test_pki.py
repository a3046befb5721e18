import ipaddress
import shutil
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from ringfence.cli import main
from ringfence.identity import pki
from ringfence.identity.pki import Authority, CertificateSubject, PkiError
from ringfence.identity.state import StateError
from ringfence.manifest.model import Environment

LAB = Path(__file__).parents[2] / "inventories" / "lab" / "environment.yaml"


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    manifest = tmp_path / "environment.yaml"
    shutil.copy(LAB, manifest)
    return Environment.load(manifest)


@pytest.fixture
def authority(environment: Environment) -> Authority:
    return pki.authority_of(environment)


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, name: str = "anyone") -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def issue(authority: Authority, subject: CertificateSubject, days: int = 30) -> x509.Certificate:
    pem = authority.sign_request(subject, request(ec.generate_private_key(ec.SECP256R1())), days)
    return x509.load_pem_x509_certificate(pem.encode())


def host_subject(environment: Environment) -> CertificateSubject:
    return CertificateSubject.of_host(environment, environment.hosts["tools-1"])


def test_the_authority_is_made_once_and_kept_private(environment: Environment):
    first = pki.authority_of(environment)
    again = pki.authority_of(environment)
    assert first.certificate == again.certificate
    certificate_file, key_file = pki.authority_files(environment)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(certificate_file.parent.stat().st_mode) == 0o700


def test_a_host_certificate_carries_the_names_and_addresses_of_the_manifest(
    environment: Environment, authority: Authority
):
    leaf = issue(authority, host_subject(environment))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    host = environment.hosts["tools-1"]
    assert names.get_values_for_type(x509.DNSName) == [host.fqdn]
    assert names.get_values_for_type(x509.IPAddress) == list(host.addresses)
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "urn:ringfence:lab:host:tools-1"
    ]


def test_the_name_in_a_request_is_ignored(environment: Environment, authority: Authority):
    key = ec.generate_private_key(ec.SECP256R1())
    pem = authority.sign_request(host_subject(environment), request(key, "siem-1.lab.internal"), 30)
    leaf = x509.load_pem_x509_certificate(pem.encode())
    assert "tools-1.lab.internal" in leaf.subject.rfc4514_string()
    assert "siem-1" not in leaf.subject.rfc4514_string()


def test_a_host_certificate_is_not_a_callers(environment: Environment, authority: Authority):
    host = issue(authority, host_subject(environment))
    caller = issue(
        authority, CertificateSubject.of_principal(environment, environment.principals["carol"])
    )
    assert host.subject.rfc4514_string() == "CN=tools-1.lab.internal,OU=hosts,O=lab"
    assert caller.subject.rfc4514_string() == "CN=carol,OU=principals,O=lab"
    usages = caller.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("", "no valid signing request"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "valid"),
        (request(rsa.generate_private_key(65537, 2048)), "elliptic curve"),
        (request(ec.generate_private_key(ec.SECP224R1())), "256 bits"),
    ],
    ids=["empty", "garbage", "rsa", "weak curve"],
)
def test_a_bad_request_is_refused(
    environment: Environment, authority: Authority, bad: str, says: str
):
    with pytest.raises(PkiError, match=says):
        authority.sign_request(host_subject(environment), bad, 30)


def test_a_request_without_proof_of_possession_is_refused(
    environment: Environment, authority: Authority
):
    pem = request(ec.generate_private_key(ec.SECP256R1()))
    der = bytearray(x509.load_pem_x509_csr(pem.encode()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(PkiError, match="did not prove"):
        authority.sign_request(host_subject(environment), forged, 30)


def test_a_good_certificate_is_kept_and_one_past_half_its_life_is_renewed(
    environment: Environment, authority: Authority
):
    subject = host_subject(environment)
    leaf = issue(authority, subject).public_bytes(serialization.Encoding.PEM).decode()
    assert authority.reason_to_issue(subject, leaf) is None
    assert authority.reason_to_issue(subject, None) == "it has no certificate"
    with patch("ringfence.identity.pki.datetime") as clock:
        clock.now.return_value = datetime.now(UTC) + timedelta(days=16)
        assert "ends on" in str(authority.reason_to_issue(subject, leaf))


def test_a_changed_address_needs_a_new_certificate(environment: Environment, authority: Authority):
    subject = host_subject(environment)
    leaf = issue(authority, subject).public_bytes(serialization.Encoding.PEM).decode()
    moved = CertificateSubject(
        "host",
        subject.environment,
        subject.name,
        subject.common_name,
        subject.dns_names,
        (ipaddress.ip_address("10.9.9.9"),),
    )
    assert authority.reason_to_issue(moved, leaf) == "its names changed"


def test_a_certificate_of_another_authority_is_replaced(
    environment: Environment, authority: Authority, tmp_path: Path
):
    other = Authority.create(tmp_path / "o" / "ca.crt", tmp_path / "o" / "ca.key", "lab", "x.test")
    subject = host_subject(environment)
    foreign = issue(other, subject).public_bytes(serialization.Encoding.PEM).decode()
    assert "from another authority" in str(authority.reason_to_issue(subject, foreign))


def test_the_authority_may_not_issue_names_outside_its_domain(
    environment: Environment, authority: Authority, tmp_path: Path
):
    """Verified by OpenSSL, because hosts rely on it and not on our issuing code."""
    inside = host_subject(environment)
    outside = CertificateSubject("host", "lab", "evil", "www.example.com", ("www.example.com",))
    trust = tmp_path / "trust.pem"
    trust.write_text(authority.bundle)
    verdicts = {}
    for subject in (inside, outside):
        leaf = tmp_path / f"{subject.name}.pem"
        leaf.write_bytes(issue(authority, subject).public_bytes(serialization.Encoding.PEM))
        verdicts[subject.name] = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-CAfile", trust, leaf],
            capture_output=True,
            text=True,
            check=False,
        )
    assert verdicts["tools-1"].returncode == 0, verdicts["tools-1"].stderr
    assert verdicts["evil"].returncode != 0
    assert "permitted subtree violation" in verdicts["evil"].stderr


def test_a_principals_identity_is_issued_once_and_private(environment: Environment):
    carol = environment.principals["carol"]
    first = pki.principal_identity(environment, carol)
    issued = first.certificate.read_bytes()
    assert pki.principal_identity(environment, carol).certificate.read_bytes() == issued
    assert stat.S_IMODE(first.key.stat().st_mode) == 0o600
    key = serialization.load_pem_private_key(first.key.read_bytes(), None)
    assert key.public_key() == x509.load_pem_x509_certificate(issued).public_key()


def test_a_lost_key_is_replaced_together_with_its_certificate(environment: Environment):
    carol = environment.principals["carol"]
    identity = pki.principal_identity(environment, carol)
    before = identity.certificate.read_bytes()
    identity.key.unlink()
    pki.principal_identity(environment, carol)
    after = identity.certificate.read_bytes()
    key = serialization.load_pem_private_key(identity.key.read_bytes(), None)
    assert after != before
    assert key.public_key() == x509.load_pem_x509_certificate(after).public_key()


def test_a_certificate_does_not_outlive_its_authority(
    environment: Environment, authority: Authority
):
    with pytest.raises(PkiError, match="ends on"):
        issue(authority, host_subject(environment), days=pki.AUTHORITY_DAYS + 1)


class TestProvidedAuthority:
    """Ringfence refuses a wrong file with the remedy, before the authority signs anything."""

    @pytest.fixture
    def files(self, authority: Authority, environment: Environment) -> tuple[Path, Path]:
        return pki.authority_files(environment)

    def test_a_key_that_others_can_read(self, files: tuple[Path, Path]):
        files[1].chmod(0o644)
        with pytest.raises(StateError, match="chmod 600"):
            Authority.load(*files)

    def test_the_key_of_another(self, files: tuple[Path, Path], tmp_path: Path):
        other = tmp_path / "other"
        Authority.create(other / "ca.crt", other / "ca.key", "lab", "lab.internal")
        with pytest.raises(PkiError, match="is not the key of"):
            Authority.load(files[0], other / "ca.key")

    def test_a_missing_file(self, tmp_path: Path):
        with pytest.raises(StateError, match="cannot be read"):
            Authority.load(tmp_path / "none.crt", tmp_path / "none.key")

    def test_a_certificate_that_is_no_authority(self, environment: Environment):
        identity = pki.principal_identity(environment, environment.principals["carol"])
        with pytest.raises(PkiError, match="up to the root"):
            Authority.load(identity.certificate, identity.key)

    def test_garbage(self, files: tuple[Path, Path]):
        files[0].write_text("garbage")
        with pytest.raises(PkiError, match="not valid PEM"):
            Authority.load(*files)


def test_the_command_names_the_principals_it_knows(environment: Environment, capsys):
    status = main(["certificate", "--environment", str(environment.path), "mallory"])
    error = capsys.readouterr().err
    assert status == 2
    assert "mallory" in error
    assert "carol" in error


def test_the_command_says_where_the_files_are(environment: Environment, capsys):
    assert main(["certificate", "--environment", str(environment.path), "carol"]) == 0
    assert "carol.crt" in capsys.readouterr().out
