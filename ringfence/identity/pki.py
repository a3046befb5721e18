"""The X.509 authority of an environment, and the certificates it issues.

A certificate is for a host (server and client) or for a principal (client only). Its subject and a
URI in it say which, so that the gateway never takes a host's certificate for a caller's. A host
makes its own key and keeps it: it sends a signing request, of which only the public key is used.

The internal authority may only issue names below the environment's domain. Certificates are renewed
at half of their lifetime; checks fail below a third.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ringfence.identity import state
from ringfence.identity.state import StateError
from ringfence.manifest.model import Address, Environment, Host, Principal

AUTHORITY_DAYS = 5 * 365
CLOCK_SKEW = timedelta(minutes=5)

NO_REVOCATION = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.56"), b"\x05\x00")
"""RFC 9608: no list of revocations exists for these short-lived certificates.

The manifest decides at every connection who may call, not the certificate.
"""

AuthorityKey = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)


class PkiError(StateError):
    """The authority cannot be used, or refuses to sign."""


@dataclass(frozen=True)
class CertificateSubject:
    """The host or principal that a certificate is issued to."""

    kind: Literal["host", "principal"]
    environment: str
    name: str
    common_name: str
    dns_names: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()

    @classmethod
    def of_host(cls, environment: Environment, host: Host) -> CertificateSubject:
        return cls("host", environment.name, host.name, host.fqdn, (host.fqdn,), host.addresses)

    @classmethod
    def of_principal(cls, environment: Environment, principal: Principal) -> CertificateSubject:
        return cls("principal", environment.name, principal.name, principal.name)

    @property
    def uri(self) -> str:
        return f"urn:ringfence:{self.environment}:{self.kind}:{self.name}"

    @property
    def distinguished_name(self) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.environment),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"{self.kind}s"),
                x509.NameAttribute(NameOID.COMMON_NAME, self.common_name),
            ]
        )

    @property
    def alternative_names(self) -> x509.SubjectAlternativeName:
        return x509.SubjectAlternativeName(
            [
                x509.UniformResourceIdentifier(self.uri),
                *map(x509.DNSName, self.dns_names),
                *map(x509.IPAddress, self.addresses),
            ]
        )

    @property
    def usages(self) -> x509.ExtendedKeyUsage:
        client = [ExtendedKeyUsageOID.CLIENT_AUTH]
        server = [ExtendedKeyUsageOID.SERVER_AUTH] if self.kind == "host" else []
        return x509.ExtendedKeyUsage(server + client)


class Authority:
    """A certificate authority with its key, ready to sign."""

    def __init__(self, chain: tuple[x509.Certificate, ...], key: AuthorityKey) -> None:
        self.certificate = chain[0]
        self.chain = chain
        """The authority's own certificate first, the root last."""
        self._key = key

    @classmethod
    def load(cls, certificate_file: Path, key_file: Path) -> Authority:
        """Load an authority. Raises `StateError` if it could not sign or would not be trusted."""
        private = state.read_private(key_file)
        try:
            chain = tuple(x509.load_pem_x509_certificates(certificate_file.read_bytes()))
            key = serialization.load_pem_private_key(private, password=None)
        except OSError as error:
            raise PkiError(f"{error.filename} cannot be read: {error.strerror}") from error
        except TypeError as error:
            raise PkiError(
                f"{key_file} has a passphrase; decrypt it into a file of mode 0600"
            ) from error
        except ValueError as error:
            raise PkiError(f"{certificate_file} or {key_file} is not valid PEM: {error}") from error
        if not isinstance(key, AuthorityKey):
            raise PkiError(f"{key_file} is not an EC, RSA, Ed25519 or Ed448 key")
        if key.public_key() != chain[0].public_key():
            raise PkiError(
                f"{key_file} is not the key of the first certificate in {certificate_file}"
            )
        for certificate, issuer in zip(chain, (*chain[1:], chain[-1]), strict=True):
            try:
                certificate.verify_directly_issued_by(issuer)
            except (ValueError, TypeError, InvalidSignature) as error:
                raise PkiError(
                    f"{certificate_file} must contain the authority, then its issuers "
                    "up to the root"
                ) from error
        try:
            constraints = chain[0].extensions.get_extension_for_class(x509.BasicConstraints)
        except x509.ExtensionNotFound:
            constraints = None
        if not constraints or not constraints.value.ca:
            raise PkiError(f"{certificate_file} is not a certificate authority")
        return cls(chain, key)

    @classmethod
    def create(cls, certificate_file: Path, key_file: Path, name: str, domain: str) -> Authority:
        """Make an authority that may only issue names below `domain`."""
        key = ec.generate_private_key(ec.SECP384R1())
        now = datetime.now(UTC)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, name),
                # The date distinguishes an authority from its predecessor.
                x509.NameAttribute(NameOID.COMMON_NAME, f"{name} authority {now:%Y-%m-%d %H:%M}"),
            ]
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
            .add_extension(
                x509.NameConstraints(
                    permitted_subtrees=[x509.DNSName(domain)], excluded_subtrees=None
                ),
                critical=True,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA384())
        )
        # The key first: a certificate without one would look like a complete authority.
        state.write(key_file, _private_pem(key))
        state.write(certificate_file, _pem(certificate).encode(), state.PUBLIC)
        return cls((certificate,), key)

    @property
    def bundle(self) -> str:
        """The chain as PEM, for verifiers to trust."""
        return "".join(map(_pem, self.chain))

    def sign_request(self, subject: CertificateSubject, request: str, days: int) -> str:
        """Return certificate and intermediates as PEM, for the public key of a PEM request.

        Only the key is taken from the request: the requester does not choose its name.
        """
        try:
            csr = x509.load_pem_x509_csr(request.encode())
        except ValueError as error:
            raise PkiError(f"{subject.name} sent no valid signing request: {error}") from error
        if not csr.is_signature_valid:
            raise PkiError(
                f"{subject.name} did not prove that it has the private key of its request"
            )
        public_key = csr.public_key()
        if not isinstance(public_key, ec.EllipticCurvePublicKey) or public_key.curve.key_size < 256:
            raise PkiError(f"{subject.name} must use an elliptic curve key of 256 bits or more")
        leaf = self._issue(subject, public_key, days)
        return "".join(map(_pem, (leaf, *self.chain[:-1])))

    def _issue(
        self, subject: CertificateSubject, public_key: ec.EllipticCurvePublicKey, days: int
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        end = now + timedelta(days=days)
        for certificate in self.chain:
            if end > certificate.not_valid_after_utc:
                raise PkiError(
                    f"the authority {certificate.subject.rfc4514_string()} ends on "
                    f"{certificate.not_valid_after_utc:%Y-%m-%d}, before a certificate of {days} "
                    "days would; replace it (if internal, move its files away and run this again)"
                )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject.distinguished_name)
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage("digital_signature"), critical=True)
            .add_extension(subject.usages, critical=False)
            .add_extension(subject.alternative_names, critical=False)
            .add_extension(NO_REVOCATION, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if isinstance(self._key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
            return builder.sign(self._key, None)
        return builder.sign(self._key, hashes.SHA384())

    def reason_to_issue(self, subject: CertificateSubject, certificate: str | None) -> str | None:
        """Return why a subject needs a new certificate; None if its present one is good."""
        if not certificate:
            return "it has no certificate"
        try:
            leaf = x509.load_pem_x509_certificate(certificate.encode())
            leaf.verify_directly_issued_by(self.certificate)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return "its certificate is from another authority"
        if (leaf.subject, names, usages) != (
            subject.distinguished_name,
            subject.alternative_names,
            subject.usages,
        ):
            return "its names changed"
        lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
        if leaf.not_valid_after_utc - datetime.now(UTC) < lifetime / 2:
            return f"its certificate ends on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        return None


@dataclass(frozen=True)
class Identity:
    """A principal's client certificate and key, and the authority to verify servers with."""

    certificate: Path
    key: Path
    authority: Path


def authority_files(environment: Environment) -> tuple[Path, Path]:
    """Return the certificate and key file of an environment's authority."""
    pki = environment.pki
    if pki.authority == "provided" and pki.certificate_file and pki.key_file:
        return pki.certificate_file, pki.key_file
    return environment.state / "pki" / "ca.crt", environment.state / "pki" / "ca.key"


def open_authority(
    certificate_file: Path, key_file: Path, *, create: tuple[str, str] | None = None
) -> Authority:
    """Load the authority, or make one named `create` (name and domain) if there is none."""
    if create and not certificate_file.exists():
        with state.locked(certificate_file.parent):
            if not certificate_file.exists():
                return Authority.create(certificate_file, key_file, *create)
    return Authority.load(certificate_file, key_file)


def authority_of(environment: Environment) -> Authority:
    internal = environment.pki.authority == "internal"
    create = (environment.name, environment.domain) if internal else None
    return open_authority(*authority_files(environment), create=create)


def principal_identity(environment: Environment, principal: Principal) -> Identity:
    """Return the client certificate of a principal, issued or renewed if necessary."""
    authority = authority_of(environment)
    subject = CertificateSubject.of_principal(environment, principal)
    directory = environment.state / "pki" / "principals"
    identity = Identity(
        directory / f"{principal.name}.crt",
        directory / f"{principal.name}.key",
        environment.state / "pki" / "trust.crt",
    )
    with state.locked(directory):
        present = identity.certificate.read_text() if identity.certificate.exists() else None
        if authority.reason_to_issue(subject, present) or not identity.key.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            request = (
                x509.CertificateSigningRequestBuilder()
                .subject_name(subject.distinguished_name)
                .sign(key, hashes.SHA256())
                .public_bytes(serialization.Encoding.PEM)
                .decode()
            )
            issued = authority.sign_request(subject, request, environment.pki.certificate_days)
            # An interruption must not leave the old certificate beside the new key.
            identity.certificate.unlink(missing_ok=True)
            state.write(identity.key, _private_pem(key))
            state.write(identity.certificate, issued.encode())
        if not identity.authority.exists() or identity.authority.read_text() != authority.bundle:
            state.write(identity.authority, authority.bundle.encode(), state.PUBLIC)
    return identity


def named_principal(environment: Environment, name: str) -> Principal:
    """Return the principal with a name. Raises `PkiError` with the known names."""
    if principal := environment.principals.get(name):
        return principal
    known = ", ".join(environment.principals)
    raise PkiError(f"{environment.path} names no principal {name!r}; it has: {known}")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--environment", type=Path, default="inventories/lab/environment.yaml")
    parser.add_argument("principal", metavar="PRINCIPAL", help="a principal of the environment")


def run(args: Namespace) -> int:
    environment = Environment.load(args.environment)
    try:
        identity = principal_identity(environment, named_principal(environment, args.principal))
    except StateError as error:
        print(error, file=sys.stderr)
        return 2
    leaf = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
    print(f"certificate  {identity.certificate}")
    print(f"key          {identity.key}")
    print(f"authority    {identity.authority}")
    print(f"ends         {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    return 0


def _key_usage(*names: str) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in names for name in every})


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
