"""Key sets: which keys verify, and what a faulty set leaves unchanged."""

from __future__ import annotations

import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from ringfence.gateway.jose import keys
from ringfence.gateway.jose.keys import FileKeys, KeySetError, read_key_set

pytestmark = pytest.mark.filterwarnings("ignore:Key size should be")

EC = ECKey.generate_key("P-256")
ED = OKPKey.generate_key("Ed25519")
RSA = RSAKey.generate_key(2048)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    WEAK = RSAKey.generate_key(1024)


def public(key: ECKey | OKPKey | RSAKey, **changes: Any) -> dict[str, Any]:
    return {"kid": "k"} | dict(key.as_dict(private=False)) | changes


def document(*listed: Any) -> bytes:
    return json.dumps({"keys": list(listed)}).encode()


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [
        (public(EC), {"ES256"}),
        (public(EC, alg="ES256", use="sig", key_ops=["verify"]), {"ES256"}),
        (public(ED), {"EdDSA", "Ed25519"}),
        (public(ED, alg="EdDSA"), {"EdDSA", "Ed25519"}),
        (public(ED, alg="Ed25519"), {"EdDSA", "Ed25519"}),
        (public(RSA), {"RS256", "PS256"}),
        (public(RSA, alg="PS256"), {"PS256"}),
    ],
)
def test_a_key_verifies_what_its_type_and_alg_leave(
    jwk: dict[str, Any], algorithms: set[str]
) -> None:
    assert read_key_set(document(jwk))["k"].algorithms == algorithms


USELESS: dict[str, Any] = {
    "symmetric": OctKey.generate_key(256).as_dict(private=True) | {"kid": "k"},
    "weak RSA": public(WEAK),
    "RSA with exponent 3": public(RSA, e="Aw"),
    "another curve": public(ECKey.generate_key("P-384")),
    "Bitcoin's curve": public(ECKey.generate_key("secp256k1")),
    "for key exchange": public(OKPKey.generate_key("X25519")),
    "for encryption": public(EC, use="enc"),
    "not for verification": public(EC, key_ops=["sign"]),
    "alg of another type": public(EC, alg="RS256"),
    "alg none": public(EC, alg="none"),
    "alg HS256": public(RSA, alg="HS256"),
    "a point off the curve": public(EC, x=public(EC)["y"]),
    "a coordinate as number": public(EC, x=1),
    "a coordinate with padding": public(EC, x=public(EC)["x"] + "="),
    "an unknown type": {"kty": "AKP", "kid": "k", "alg": "ML-DSA-65", "pub": "AA"},
    "no type": {"kid": "k"},
    "no id": public(EC, kid=None),
    "an id as number": public(EC, kid=7),
}


@pytest.mark.parametrize("name", USELESS)
def test_a_key_of_no_use_is_passed_over(name: str) -> None:
    """RFC 7517 section 5: other keys may be for other uses. A set with only such keys is
    invalid."""
    good = public(EC, kid="good")
    if name == "symmetric":  # otherwise every reader of the set could sign
        with pytest.raises(KeySetError, match="is private"):
            read_key_set(document(USELESS[name], good))
        return
    assert set(read_key_set(document(USELESS[name], good))) == {"good"}
    with pytest.raises(KeySetError, match="no key of the set"):
        read_key_set(document(USELESS[name]))


def test_pyjwt_takes_some_of_them() -> None:
    """Not every library refuses the cases above."""
    taken = []
    for name, jwk in USELESS.items():
        try:
            taken.append((name, jwt.PyJWK(jwk)))
        except (jwt.PyJWTError, NotImplementedError, ValueError, TypeError):
            continue
    assert {"symmetric", "weak RSA", "for encryption"} <= {name for name, _ in taken}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'{"keys": [], "keys": []}', "not a JSON object: duplicate_name"),
        (b"{}", 'a list "keys"'),
        (b'{"keys": {}}', 'a list "keys"'),
        (b'{"keys": [1]}', "not a JSON object"),
        (document(*[public(EC)] * 65), "at most 64"),
        (document(public(EC), public(ED)), "two keys of the set have the id 'k'"),
        (document({"kid": "k"} | dict(EC.as_dict(private=True))), "'k' is private"),
        (document(public(EC)) + b" " * 65536, "larger than"),
        (b"\xff", "not a JSON object"),
    ],
)
def test_what_is_no_key_set_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(KeySetError, match=says):
        read_key_set(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(
    st.sampled_from([EC, ED, RSA]),
    st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "use", "key_ops", "kid", "x5c"]),
    JSON,
)
def test_nothing_in_a_key_leads_to_another_error(
    key: ECKey | OKPKey | RSAKey, member: str, value: Any
) -> None:
    try:
        found = read_key_set(document(public(key, **{member: value})))
    except KeySetError:
        return
    assert all(each.algorithms for each in found.values())


class TestFileKeys:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "jwks.json"
        replace(path, document(public(EC, kid="old")))
        return path

    def test_a_new_file_is_seen_at_once(self, path: Path) -> None:
        source = FileKeys(path)
        assert source.find("old")
        replace(path, document(public(ED, kid="new")))
        assert source.find("old") is None
        assert source.find("new")

    @pytest.mark.parametrize("content", [b"", b"{", document(public(WEAK, kid="new")), None])
    def test_a_bad_one_keeps_the_old_set_and_says_so_once(
        self, path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = FileKeys(path)
        assert source.problem is None
        if content is None:
            path.unlink()
        else:
            replace(path, content)
        with caplog.at_level(logging.ERROR):
            assert [bool(source.find("old")) for _ in range(3)] == [True] * 3
        assert len(caplog.records) == 1
        assert str(path) in caplog.text
        assert "stay in use" in caplog.text
        assert source.problem is not None
        assert str(path) in source.problem
        replace(path, document(public(ED, kid="new")))
        assert source.find("new")
        assert source.problem is None

    def test_what_can_be_read_again_is_read_again(self, path: Path) -> None:
        """A file that disappeared and returned unchanged is no longer a problem."""
        source = FileKeys(path)
        path.rename(path.with_suffix(".away"))
        assert source.find("old")
        assert source.problem
        path.with_suffix(".away").rename(path)
        assert source.find("old")
        assert source.problem is None

    def test_at_the_start_there_is_nothing_to_stay_with(self, path: Path) -> None:
        replace(path, b"{")
        with pytest.raises(KeySetError, match="not a JSON object"):
            FileKeys(path)
        path.unlink()
        with pytest.raises(KeySetError, match="cannot be read"):
            FileKeys(path)


def replace(path: Path, content: bytes) -> None:
    staged = path.with_name(f".{path.name}")
    staged.write_bytes(content)
    os.replace(staged, path)  # noqa: PTH105


@pytest.mark.parametrize("url", ["http://issuer.lab.internal/jwks", "file:///etc/jwks", "jwks", ""])
def test_keys_come_over_tls_only(url: str) -> None:
    with pytest.raises(KeySetError, match="is not an https"):
        keys.UrlKeys(url)
