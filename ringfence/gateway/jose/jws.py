"""Compact JSON Web Signatures, read strictly (RFC 7515, 7519 and 8725).

joserfc verifies the signature. The parts around it are read here, because verifiers differ there:
a duplicate claim, a padded segment or a header that brings its own key is refused before any key
is looked up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode

ALGORITHMS = frozenset({"ES256", "EdDSA", "Ed25519", "RS256", "PS256"})
"""Every algorithm that can be configured. EdDSA is the older name of Ed25519 (RFC 9864)."""

MAX_BYTES = 8192

# joserfc warns at every use of the older name; the signature is the same one.
_MODELS = {
    name: JWSRegistry.algorithms["Ed25519" if name == "EdDSA" else name] for name in ALGORITHMS
}

_KEYS_FROM_OUTSIDE = frozenset({"jwk", "jku", "x5u", "x5c"})
_EXTENSIONS = frozenset({"crit", "b64", "zip", "enc"})


class JwsError(ValueError):
    """A signature that is not accepted. Its text is one word in snake case, for the audit log."""


@dataclass(frozen=True)
class Signed:
    """The parts of a signature, not verified yet."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    covered: bytes
    """The bytes that the signature covers."""
    signature: bytes

    @classmethod
    def parse(cls, text: str, *, embedded_key: bool = False) -> Signed:
        """Raises `JwsError`. With `embedded_key` the header may hold a `jwk` (RFC 9449)."""
        if len(text) > MAX_BYTES:
            raise JwsError("too_large")
        segments = text.split(".")
        if len(segments) != 3:
            raise JwsError("malformed")
        try:
            head, body, signature = (urlsafe_b64decode(part.encode("ascii")) for part in segments)
        except ValueError as error:
            raise JwsError("malformed") from error
        header, claims = read_object(head), read_object(body)
        foreign = _KEYS_FROM_OUTSIDE - {"jwk"} if embedded_key else _KEYS_FROM_OUTSIDE
        if not foreign.isdisjoint(header):
            raise JwsError("embedded_key")
        if not _EXTENSIONS.isdisjoint(header):
            raise JwsError("critical_header")
        covered = text[: len(segments[0]) + 1 + len(segments[1])].encode("ascii")
        return cls(header, claims, covered, signature)

    @property
    def algorithm(self) -> str:
        """Raises `JwsError` for everything outside `ALGORITHMS`: `none`, HMAC, curves unused."""
        name = self.header.get("alg")
        if not isinstance(name, str) or name not in ALGORITHMS:
            raise JwsError("algorithm")
        return name

    def has_type(self, *names: str) -> bool:
        """Whether `typ` is one of these, compared as RFC 7515 section 4.1.9 says."""
        name = self.header.get("typ")
        return isinstance(name, str) and name.lower().removeprefix("application/") in names

    def verify(self, key: Key) -> None:
        """Verify the signature by a key that fits the algorithm. Raises `JwsError`."""
        try:
            good = _MODELS[self.algorithm].verify(self.covered, self.signature, key)
        except (JoseError, ValueError) as error:
            raise JwsError("signature") from error
        if not good:
            raise JwsError("signature")


def read_object(data: bytes) -> dict[str, Any]:
    """A JSON object: every name once, no NaN or infinity, no half of a surrogate pair.

    Raises `JwsError`.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant
        )
        # What cannot be encoded again would break the audit log later.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError as error:
        raise JwsError("malformed") from error
    except ValueError as error:
        raise error if isinstance(error, JwsError) else JwsError("malformed") from error
    if not isinstance(value, dict):
        raise JwsError("malformed")
    return value


def numeric_date(value: object) -> float | None:
    """Unix seconds of a NumericDate (RFC 7519 section 2); None for what is none."""
    # Compared before it is converted: a number of a thousand digits has no float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        return None
    return float(value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise JwsError("duplicate_name")
    return read


def _no_constant(name: str) -> None:
    raise JwsError("malformed")
