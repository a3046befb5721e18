"""Documents that a principal signs, and the roster that gateways verify them against."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from joserfc import jws
from joserfc.jwk import import_key

from ringfence.gateway.jose.signed_documents import (
    KEY_TYPES,
    Member,
    Roster,
    algorithm_of,
    anchors,
)
from ringfence.identity.pki import Identity, named_principal, principal_identity
from ringfence.manifest.model import Environment
from ringfence.operator.errors import InputError


@dataclass(frozen=True)
class Signer:
    """A principal with its key."""

    name: str
    environment: Environment
    identity: Identity

    @classmethod
    def named(cls, name: str, environment: Environment) -> Signer:
        principal = named_principal(environment, name)
        return cls(name, environment, principal_identity(environment, principal))

    @property
    def roster(self) -> Roster:
        return roster_of(self.environment, self.identity.authority.read_bytes())

    def sign(self, typ: str, claims: Mapping[str, Any]) -> bytes:
        """Return a signed document with the present time."""
        pem = self.identity.key.read_bytes()
        algorithm = algorithm_of(serialization.load_pem_private_key(pem, None).public_key())
        if algorithm is None:
            raise InputError(f"{self.identity.key} is not a kind of key that signs documents")
        chain = x509.load_pem_x509_certificates(self.identity.certificate.read_bytes())
        der = (certificate.public_bytes(serialization.Encoding.DER) for certificate in chain)
        header = {
            "alg": algorithm,
            "typ": typ,
            "x5c": [base64.b64encode(each).decode() for each in der],
        }
        roster = self.roster
        issuer = {"iss": roster.uri(self.name), "aud": roster.audience}
        payload = json.dumps({**issuer, "iat": int(time.time()), **claims})
        registry = jws.JWSRegistry(algorithms=[algorithm])
        key = import_key(pem, KEY_TYPES[algorithm])
        return jws.serialize_compact(header, payload, key, registry=registry).encode()


def roster_of(environment: Environment, authority: bytes) -> Roster:
    """Return the roster that the gateways have, from the manifest; `authority` is PEM."""
    return Roster(
        environment.name,
        anchors(authority),
        {name: Member(p.kind, p.owner) for name, p in environment.principals.items()},
        {
            (server.name, tool.name): frozenset(tool.approvers)
            for server in environment.servers.values()
            for tool in server.tools.values()
            if tool.sensitive
        },
        frozenset(environment.gateway.responders if environment.gateway else ()),
    )


def signers_on_this_machine(environment: Environment) -> list[str]:
    """Return the principals that have a certificate in the state directory."""
    directory: Path = environment.state / "pki" / "principals"
    names = [name for name in environment.principals if (directory / f"{name}.crt").exists()]
    if not names:
        raise InputError(f"{directory} has no certificate of a principal; name one with --as")
    return names
