"""Key sets of token issuers (RFC 7517): from a file, or from an HTTPS address.

Both answer from memory at once. A set that cannot be read replaces nothing: the last valid one
stays, and `problem` describes the error until it is repaired.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey, import_key

from ringfence.gateway.jose import jws

MAX_BYTES = 65536
MAX_KEYS = 64
RSA_BITS = range(2048, 8193)
"""Smaller ones can be factored soon; larger ones cost too much to verify."""
RSA_EXPONENTS = range(65537, 2**32)

REFRESH_SECONDS = 300.0
MISS_SECONDS = 30.0
"""Least time between refreshes because of unknown key ids, however many a caller sends."""
MAX_AGE_SECONDS = 86400.0
FETCH_SECONDS = 5.0

_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

_log = logging.getLogger(__name__)


class KeySetError(Exception):
    """A key set that cannot be used; the text says which, why and what to do."""


class KeysUnavailableError(Exception):
    """The last valid set is too old to rely on."""


@dataclass(frozen=True)
class PublicKey:
    kid: str
    algorithms: frozenset[str]
    """The algorithms that its type allows, and its `alg` where it has one."""
    thumbprint: str
    """RFC 7638, SHA-256."""
    key: Key


KeySet = Mapping[str, PublicKey]
"""Public keys by key id."""


class KeySource(ABC):
    """A key set that answers from memory. One that has to fetch it overrides the rest."""

    @abstractmethod
    def find(self, kid: str) -> PublicKey | None:
        """Raises `KeysUnavailableError` where there is no set to look into."""

    async def refresh(self) -> bool:
        """Fetch the set again after a miss; True if that brought one."""
        return False

    async def run(self) -> None:
        """Keep the set fresh until cancelled."""
        return


def public_key(jwk: Mapping[str, Any], kid: str) -> PublicKey:
    """A public key to verify with. Raises `KeySetError` for any other, and for a weak one."""
    if not _PRIVATE.isdisjoint(jwk):
        raise KeySetError(f"key {kid!r} is private: publish the public part only")
    try:
        key = import_key(dict(jwk))
        fits = _algorithms(key)
        thumbprint = key.thumbprint()
    except (
        JoseError,
        UnsupportedAlgorithm,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
    ) as error:
        raise KeySetError(f"key {kid!r} cannot be read: {error}") from error
    if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ("verify",)):
        raise KeySetError(f"key {kid!r} is not for signatures")
    if "alg" in jwk:
        fits &= {"EdDSA", "Ed25519"} if jwk["alg"] in ("EdDSA", "Ed25519") else {jwk["alg"]}
    if not fits:
        raise KeySetError(
            f"key {kid!r} is of no use here: P-256, Ed25519 or RSA of {RSA_BITS[0]} to "
            f"{RSA_BITS[-1]} bits, for one of {', '.join(sorted(jws.ALGORITHMS))}"
        )
    return PublicKey(kid, fits, thumbprint, key)


def read_key_set(document: bytes) -> KeySet:
    """The keys of a JWK set that can verify; others are ignored (RFC 7517 section 5).

    Raises `KeySetError` if there is none, if an id names two, and if a key is private: then
    anybody who reads the set can sign.
    """
    if len(document) > MAX_BYTES:
        raise KeySetError(f"the key set is larger than {MAX_BYTES} bytes")
    try:
        listed = jws.read_object(document).get("keys")
    except jws.JwsError as error:
        raise KeySetError(f"the key set is not a JSON object: {error}") from error
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise KeySetError(f'the key set must have a list "keys" of at most {MAX_KEYS}')
    keys: dict[str, PublicKey] = {}
    for jwk in listed:
        if not isinstance(jwk, dict):
            raise KeySetError("a key of the set is not a JSON object")
        kid = jwk.get("kid")
        if not isinstance(kid, str) or not kid:
            continue
        if not _PRIVATE.isdisjoint(jwk):
            raise KeySetError(f"key {kid!r} is private: publish the public part only, and renew it")
        try:
            key = public_key(jwk, kid)
        except KeySetError:
            continue
        if kid in keys:
            raise KeySetError(f"two keys of the set have the id {kid!r}")
        keys[kid] = key
    if not keys:
        raise KeySetError("no key of the set has an id and can verify a token")
    return keys


class FileKeys(KeySource):
    """A key set in a file, read again when the file changes."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises `KeySetError`: there is no earlier set to keep."""
        self._path = path
        self.problem: str | None = None
        """The error of the present file."""
        try:
            self._stamp: tuple[int, int, int] | None = _stamp_of(path)
            self._keys = self._read()
        except OSError as error:
            raise KeySetError(f"{path} cannot be read: {error.strerror}") from error

    def find(self, kid: str) -> PublicKey | None:
        try:
            stamp = _stamp_of(self._path)
            if stamp != self._stamp:
                self._stamp = stamp
                self._keys = self._read()
                self.problem = None
        except OSError as error:
            self._stamp = None
            self._keep(f"{self._path} cannot be read: {error.strerror}")
        except KeySetError as error:
            self._keep(str(error))
        return self._keys.get(kid)

    def _read(self) -> KeySet:
        with self._path.open("rb") as file:
            document = file.read(MAX_BYTES + 1)
        try:
            return read_key_set(document)
        except KeySetError as error:
            raise KeySetError(f"{self._path}: {error}") from error

    def _keep(self, problem: str) -> None:
        if problem != self.problem:
            _log.error("%s; the keys read before stay in use", problem)
        self.problem = problem


class UrlKeys(KeySource):
    """A key set at an HTTPS address, fetched in the background by `run`.

    `find` never waits. After a miss, `refresh` may be awaited before the token is refused; it
    fetches at most once in `MISS_SECONDS`, whatever the number of misses.
    """

    def __init__(
        self,
        url: str,
        *,
        authority_file: Path | None = None,
        refresh_seconds: float = REFRESH_SECONDS,
        max_age_seconds: float = MAX_AGE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Trusts `authority_file` alone where it is given. Raises `KeySetError`."""
        if not url.lower().startswith("https://"):
            raise KeySetError(f"{url} is not an https:// address: keys must come over TLS")
        try:
            self._tls = ssl.create_default_context(cafile=authority_file)
        except (OSError, ssl.SSLError) as error:
            raise KeySetError(f"{authority_file} is no bundle of certificates: {error}") from error
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._url = url
        self._refresh_seconds = refresh_seconds
        self._max_age_seconds = max_age_seconds
        self._clock = clock
        self._keys: KeySet = {}
        self._fetched: float | None = None
        self._tried: float | None = None
        self._fetching = asyncio.Lock()
        self.problem: str | None = "the keys have not been fetched yet"

    def find(self, kid: str) -> PublicKey | None:
        if self._fetched is None or self._clock() - self._fetched > self._max_age_seconds:
            raise KeysUnavailableError(self.problem)
        return self._keys.get(kid)

    async def refresh(self) -> bool:
        """Fetch now, unless that was tried within `MISS_SECONDS`. True: a set was fetched."""
        requested = self._clock()
        async with self._fetching:
            if self._fetched is not None and self._fetched >= requested:
                return True  # by the last holder of the lock
            if self._tried is not None and self._clock() - self._tried < MISS_SECONDS:
                return False
            return await self._fetch()

    async def run(self) -> None:
        """Keep the set fresh until cancelled."""
        while True:
            async with self._fetching:
                good = await self._fetch()
            await asyncio.sleep(self._refresh_seconds if good else MISS_SECONDS)

    async def _fetch(self) -> bool:
        self._tried = self._clock()
        try:
            keys = read_key_set(await self._download())
        except (aiohttp.ClientError, OSError, TimeoutError, KeySetError) as error:
            problem = f"{self._url}: {str(error) or type(error).__name__}"
            if problem != self.problem:
                _log.error("%s; the keys fetched before stay in use until too old", problem)
            self.problem = problem
            return False
        self._keys = keys
        self._fetched = self._clock()
        self.problem = None
        return True

    async def _download(self) -> bytes:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=FETCH_SECONDS),
                headers={"Accept": "application/jwk-set+json, application/json"},
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            ) as session,
            session.get(self._url, ssl=self._tls, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise KeySetError(f"the answer is HTTP {response.status}")
            document = bytearray()
            async for chunk in response.content.iter_any():
                document += chunk
                if len(document) > MAX_BYTES:
                    break
            return bytes(document)


def _algorithms(key: Key) -> frozenset[str]:
    if isinstance(key, ECKey) and key.curve_name == "P-256":
        return frozenset({"ES256"})
    if isinstance(key, OKPKey) and key.curve_name == "Ed25519":
        return frozenset({"EdDSA", "Ed25519"})
    if isinstance(key, RSAKey) and isinstance(key.public_key, RSAPublicKey):
        exponent = key.public_key.public_numbers().e
        if key.public_key.key_size in RSA_BITS and exponent in RSA_EXPONENTS:
            return frozenset({"RS256", "PS256"})
    return frozenset()


def _stamp_of(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
