"""Key sets over HTTPS, from a server on loopback that misbehaves in several ways."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc.jwk import ECKey

from ringfence.gateway.jose import keys
from ringfence.gateway.jose.keys import KeysUnavailableError, UrlKeys

DOCUMENT = json.dumps(
    {"keys": [ECKey.generate_key("P-256", {"kid": "k"}).as_dict(private=False)]}
).encode()

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Make self-signed certificates for 127.0.0.1: the server's own, and another one."""
    directory = tmp_path_factory.mktemp("certificates")
    return {name: self_signed(directory / f"{name}.pem") for name in ("server", "other")}


def self_signed(path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, path.stem)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@dataclass
class Issuer:
    """Issuer with an answer that tests can change."""

    answer: Answer
    url: str = ""
    asked: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        return await self.answer(request)


async def good(request: web.Request) -> web.StreamResponse:
    return web.Response(body=DOCUMENT, content_type="application/jwk-set+json")


@asynccontextmanager
async def serving(certificate: Path, answer: Answer = good) -> AsyncIterator[Issuer]:
    issuer = Issuer(answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    app = web.Application()
    app.router.add_get("/{path:.*}", issuer.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    _, port = runner.addresses[0][:2]
    issuer.url = f"https://127.0.0.1:{port}/jwks"
    try:
        yield issuer
    finally:
        await runner.cleanup()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_keys_are_fetched_and_kept_while_the_issuer_is_away(certificates: dict[str, Path]) -> None:
    async def scenario() -> None:
        clock = Clock()
        async with serving(certificates["server"]) as issuer:
            source = UrlKeys(issuer.url, authority_file=certificates["server"], clock=clock)
            with pytest.raises(KeysUnavailableError):
                source.find("k")
            assert await source.refresh()
            assert source.find("k")
            assert source.find("other") is None
        clock.now += keys.MISS_SECONDS
        assert not await source.refresh()
        assert source.problem
        assert issuer.url in source.problem
        clock.now = 1000.0 + keys.MAX_AGE_SECONDS
        assert source.find("k")
        clock.now += 1
        with pytest.raises(KeysUnavailableError):
            source.find("k")

    bounded(scenario())


def test_unknown_ids_do_not_set_the_pace(certificates: dict[str, Path]) -> None:
    async def scenario() -> None:
        clock = Clock()
        async with serving(certificates["server"]) as issuer:
            source = UrlKeys(issuer.url, authority_file=certificates["server"], clock=clock)
            assert await source.refresh()
            clock.now += keys.MISS_SECONDS
            refreshed = await asyncio.gather(*(source.refresh() for _ in range(50)))
            assert all(refreshed), "whoever waited for the one fetch may look again"
            assert len(issuer.asked) == 2
            clock.now += keys.MISS_SECONDS - 1
            assert not any([await source.refresh() for _ in range(50)])
            assert len(issuer.asked) == 2

    bounded(scenario())


async def redirect_to_keys(request: web.Request) -> web.StreamResponse:
    if request.path == "/jwks":
        raise web.HTTPFound("/elsewhere")
    return await good(request)


async def failing(request: web.Request) -> web.StreamResponse:
    return web.Response(status=500, body=DOCUMENT)


async def nonsense(request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>")


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with suppress(ConnectionError):
        for _ in range(10_000):
            await response.write(b" " * 65536)
    return response


async def slow(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(20)
    return await good(request)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (redirect_to_keys, "HTTP 302"),
        (failing, "HTTP 500"),
        (nonsense, "not a JSON object"),
        (endless, "larger than"),
        (slow, "TimeoutError"),
    ],
    ids=["redirect", "error", "nonsense", "endless", "slow"],
)
def test_a_bad_answer_replaces_nothing(
    certificates: dict[str, Path],
    answer: Answer,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keys, "FETCH_SECONDS", 1.0)

    async def scenario() -> None:
        clock = Clock()
        async with serving(certificates["server"]) as issuer:
            source = UrlKeys(issuer.url, authority_file=certificates["server"], clock=clock)
            assert await source.refresh()
            issuer.answer = answer
            clock.now += keys.MISS_SECONDS
            started = time.monotonic()
            assert not await source.refresh()
            assert time.monotonic() - started < 10
            assert source.find("k")
            assert says in str(source.problem)
            assert "/elsewhere" not in issuer.asked
            issuer.answer = good
            clock.now += keys.MISS_SECONDS
            assert await source.refresh()
            assert source.problem is None

    bounded(scenario())


def test_only_the_pinned_authority_is_believed(certificates: dict[str, Path]) -> None:
    async def scenario() -> None:
        async with serving(certificates["server"]) as issuer:
            for authority in (certificates["other"], None):
                source = UrlKeys(issuer.url, authority_file=authority)
                assert not await source.refresh()
                assert "ertificate" in str(source.problem)
            assert issuer.asked == []

    bounded(scenario())


def test_the_environments_proxy_is_not_asked(
    certificates: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")

    async def scenario() -> None:
        async with serving(certificates["server"]) as issuer:
            assert await UrlKeys(issuer.url, authority_file=certificates["server"]).refresh()

    bounded(scenario())


def test_run_keeps_the_set_fresh_and_ends_when_cancelled(certificates: dict[str, Path]) -> None:
    async def scenario() -> None:
        async with serving(certificates["server"]) as issuer:
            source = UrlKeys(
                issuer.url, authority_file=certificates["server"], refresh_seconds=0.05
            )
            running = asyncio.create_task(source.run())
            deadline = time.monotonic() + 20
            while len(issuer.asked) < 3 and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert len(issuer.asked) >= 3
            assert source.find("k")

    bounded(scenario())


def bounded(scenario: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))
