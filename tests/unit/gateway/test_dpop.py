"""DPoP: a token is valid only with a fresh proof for exactly this request (RFC 9449)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from joserfc import jws as joserfc_jws
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.util import urlsafe_b64encode

from ringfence.gateway.jose.keys import KeySource, PublicKey, read_key_set
from ringfence.gateway.refusals import Refusal
from ringfence.gateway.tokens import access_tokens, dpop
from ringfence.gateway.tokens.access_tokens import TrustedIssuer, Verifier
from ringfence.gateway.tokens.dpop import ProofRequest

NOW = time.time()
URL = "https://edge-1.lab.internal/time/mcp"
SIGNER = ECKey.generate_key("P-256", {"kid": "k"})
CAROL, MALLORY = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")

Key = ECKey | OKPKey | RSAKey


def signed(header: Mapping[str, Any], claims: Mapping[str, Any], key: Key) -> str:
    parts = (urlsafe_b64encode(json.dumps(part).encode()).decode() for part in (header, claims))
    covered = ".".join(parts)
    signature = joserfc_jws.JWSRegistry.algorithms[header["alg"]].sign(covered.encode(), key)
    return f"{covered}.{urlsafe_b64encode(signature).decode()}"


def access_token(key: Key = CAROL, **changes: Any) -> str:
    claims = {
        "iss": "https://issuer",
        "sub": "carol",
        "aud": URL,
        "iat": int(NOW),
        "exp": int(NOW) + 600,
        "jti": "one",
        "scope": "mcp:time",
        "cnf": {"jkt": key.thumbprint()},
    } | changes
    present = {name: value for name, value in claims.items() if value is not None}
    return signed({"alg": "ES256", "typ": "at+jwt", "kid": "k"}, present, SIGNER)


TOKEN = access_token()


def proof(
    key: Key = CAROL,
    *,
    algorithm: str = "ES256",
    header: Mapping[str, Any] | None = None,
    **changes: Any,
) -> str:
    """Build a valid proof; a change to None removes a member."""
    fields = {"alg": algorithm, "typ": "dpop+jwt", "jwk": key.as_dict(private=False)}
    claims = {
        "jti": "p-1",
        "htm": "POST",
        "htu": URL,
        "iat": int(NOW),
        "ath": dpop.token_hash(TOKEN),
    }
    fields, claims = (
        {name: value for name, value in (usual | dict(given)).items() if value is not None}
        for usual, given in ((fields, header or {}), (claims, changes))
    )
    return signed(fields, claims, key)


class Known(KeySource):
    def __init__(self) -> None:
        document = {"keys": [SIGNER.as_dict(private=False)]}
        self.keys = read_key_set(json.dumps(document).encode())

    def find(self, kid: str) -> PublicKey | None:
        return self.keys.get(kid)


def make(state: Path, constraint: Any = "dpop") -> Verifier:
    issuer = TrustedIssuer("https://issuer", Known(), frozenset({"ES256"}))
    return Verifier([issuer], principals={"carol"}, state=state, sender_constraint=constraint)


@pytest.fixture
def verifier(tmp_path: Path) -> Verifier:
    return make(tmp_path)


def verify(
    verifier: Verifier,
    *proofs: str,
    token: str = TOKEN,
    scheme: str = "DPoP",
    method: str = "POST",
    url: str = URL,
    now: float = NOW,
) -> access_tokens.CallerIdentity:
    return verifier.verify(
        f"{scheme} {token}",
        audience=URL,
        scope="mcp:time",
        certificate_der=None,
        dpop=ProofRequest(method, url, proofs),
        now=now,
        sensitive=False,
    )


def refused(verifier: Verifier, *proofs: str, **changes: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        verify(verifier, *proofs, **changes)
    return caught.value


def permissive(sent: str) -> dict[str, Any]:
    """Verify a proof's signature with the key inside, and nothing else."""
    jwk = jwt.get_unverified_header(sent)["jwk"]
    return jwt.decode(sent, jwt.PyJWK(jwk, "ES256").key, algorithms=["ES256"])


def test_a_good_proof_is_taken_once(verifier: Verifier, tmp_path: Path) -> None:
    """The gateway's other processes refuse it too; here, a second verifier of the same
    directory."""
    good = proof()
    assert verify(verifier, good).principal == "carol"
    assert refused(verifier, good).reason == "proof_replayed"
    assert refused(make(tmp_path), good).reason == "proof_replayed"
    assert permissive(good)
    assert verify(verifier, proof(jti="p-2")).principal == "carol"


def test_a_refused_proof_is_not_used_up(verifier: Verifier) -> None:
    good = proof()
    assert refused(verifier, good, method="GET")
    assert verify(verifier, good)


ATTACKS: dict[str, tuple[str, str]] = {
    "another method": (proof(htm="GET"), "proof_method"),
    "the method in small letters": (proof(htm="post"), "proof_method"),
    "no method": (proof(htm=None), "proof_method"),
    "another path": (proof(htu="https://edge-1.lab.internal/git/mcp"), "proof_address"),
    "another host": (proof(htu="https://mallory.example/time/mcp"), "proof_address"),
    "another port": (proof(htu="https://edge-1.lab.internal:8443/time/mcp"), "proof_address"),
    "port 0": (proof(htu="https://edge-1.lab.internal:0/time/mcp"), "proof_address"),
    "without TLS": (proof(htu="http://edge-1.lab.internal/time/mcp"), "proof_address"),
    "a user in the address": (proof(htu="https://x@edge-1.lab.internal/time/mcp"), "proof_address"),
    "a line break in the address": (proof(htu=URL.replace("time", "ti\nme")), "proof_address"),
    "no address": (proof(htu=None), "proof_address"),
    "an address of another type": (proof(htu=[URL]), "proof_address"),
    "another token": (proof(ath=dpop.token_hash("x")), "proof_other_token"),
    "no token": (proof(ath=None), "proof_other_token"),
    "another key": (proof(MALLORY), "proof_other_key"),
    "old": (proof(iat=int(NOW) - 92), "proof_time"),
    "from the future": (proof(iat=int(NOW) + 32), "proof_time"),
    "no time": (proof(iat=None), "proof_time"),
    "no id": (proof(jti=None), "proof_id"),
    "an empty id": (proof(jti=""), "proof_id"),
    "another type": (proof(header={"typ": "JWT"}), "proof_type"),
    "no type": (proof(header={"typ": None}), "proof_type"),
    "a critical extension": (proof(header={"crit": ["b64"], "b64": True}), "proof_critical_header"),
    "keys from elsewhere": (proof(header={"jku": "https://mallory.example"}), "proof_embedded_key"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_that_a_permissive_verifier_lets_through(verifier: Verifier, name: str) -> None:
    sent, reason = ATTACKS[name]
    # PyJWT itself checks the clock and critical extensions.
    if name not in ("from the future", "a critical extension"):
        assert permissive(sent)
    refusal = refused(verifier, sent)
    assert (refusal.status, refusal.code, refusal.reason) == (401, -32001, reason)
    ((header, value),) = refusal.headers
    assert header == "WWW-Authenticate"
    assert value.startswith('DPoP realm="mcp", error="invalid_dpop_proof"')
    assert 'algs="ES256 ' in value


def test_a_proof_that_holds_its_private_key_is_refused(verifier: Verifier) -> None:
    sent = proof(header={"jwk": CAROL.as_dict(private=True)})
    assert permissive(sent)
    assert refused(verifier, sent).reason == "proof_key"


@pytest.mark.parametrize("jwk", [None, {}, [], "x", {"kty": "oct", "k": "AA"}, {"kty": "EC"}])
def test_a_proof_without_a_usable_key_is_refused(verifier: Verifier, jwk: Any) -> None:
    assert refused(verifier, proof(header={"jwk": jwk})).reason == "proof_key"


def test_the_key_beside_the_signature_must_have_made_it(verifier: Verifier) -> None:
    sent = proof(MALLORY, header={"jwk": CAROL.as_dict(private=False)})
    assert refused(verifier, sent).reason == "proof_signature"


def test_there_is_exactly_one_proof(verifier: Verifier) -> None:
    assert refused(verifier).reason == "proof_one_proof_needed"
    both = refused(verifier, proof(jti="a"), proof(jti="b"))
    assert both.reason == "proof_one_proof_needed"
    assert refused(verifier, f"{proof(jti='a')}, {proof(jti='b')}").reason == "proof_malformed"


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (CAROL, "ES256"),
        (OKPKey.generate_key("Ed25519"), "Ed25519"),
        (RSAKey.generate_key(2048), "PS256"),
    ],
)
def test_proofs_of_every_kind_of_key(verifier: Verifier, key: Key, algorithm: str) -> None:
    token = access_token(key)
    sent = proof(key, algorithm=algorithm, ath=dpop.token_hash(token))
    assert verify(verifier, sent, token=token).principal == "carol"


@pytest.mark.parametrize(
    "changes",
    [
        {"htu": "https://EDGE-1.lab.internal:443/time/mcp"},
        {"htu": URL + "?session=1#x"},
        {"iat": int(NOW) - 88},
        {"iat": int(NOW) + 29},
        {"header": {"typ": "application/dpop+jwt"}},
    ],
)
def test_what_a_proof_may_be(verifier: Verifier, changes: dict[str, Any]) -> None:
    assert verify(verifier, proof(**changes)).principal == "carol"


class TestTokens:
    @pytest.mark.parametrize("constraint", ["none", "certificate", "dpop"])
    def test_a_bound_token_is_no_bearer_token_whatever_is_configured(
        self, tmp_path: Path, constraint: str
    ) -> None:
        """RFC 9449 section 7.2. Where a certificate is required, the token is not bound to one."""
        refusal = refused(make(tmp_path, constraint), proof(), scheme="Bearer")
        unbound = constraint == "certificate"
        assert refusal.reason == ("token_not_bound" if unbound else "token_without_proof")

    def test_an_unbound_token_does_not_become_bound_by_a_proof(self, tmp_path: Path) -> None:
        token = access_token(cnf=None)
        sent = proof(ath=dpop.token_hash(token))
        for constraint in ("none", "dpop"):
            verifier = make(tmp_path / constraint, constraint)
            assert refused(verifier, sent, token=token).reason == "token_not_bound"
        assert verify(make(tmp_path / "none", "none"), token=token, scheme="Bearer")

    def test_a_stolen_token_with_the_thiefs_proof(self, verifier: Verifier) -> None:
        assert verify(verifier, proof())
        assert refused(verifier, proof(MALLORY, jti="m")).reason == "proof_other_key"

    def test_both_bindings_are_held(self, tmp_path: Path) -> None:
        bound = {
            "jkt": CAROL.thumbprint(),
            "x5t#S256": access_tokens.certificate_thumbprint(b"der"),
        }
        token = access_token(cnf=bound)
        sent = proof(ath=dpop.token_hash(token))
        verifier = make(tmp_path, "certificate")
        assert refused(verifier, sent, token=token).reason == "token_no_certificate"
        identity = verifier.verify(
            f"DPoP {token}",
            audience=URL,
            scope="mcp:time",
            certificate_der=b"der",
            dpop=ProofRequest("POST", URL, (sent,)),
            now=NOW,
            sensitive=True,
        )
        assert identity.principal == "carol"

    def test_a_challenge_names_the_scheme_that_is_configured(self, verifier: Verifier) -> None:
        with pytest.raises(Refusal) as caught:
            verifier.verify(
                None,
                audience=URL,
                scope="mcp:time",
                certificate_der=None,
                now=NOW,
                sensitive=False,
            )
        ((_, value),) = caught.value.headers
        assert value.startswith("DPoP realm=")
        assert "error" not in value
