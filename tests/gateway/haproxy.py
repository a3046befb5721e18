"""HAProxy on this machine, configured with the rendered templates of the role `tls`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import jinja2
import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from benchmarks.gateway_site import ROOT, Person, Site, free_port, mcp_headers, wait_for

TEMPLATES = ROOT / "roles/tls/templates/etc/haproxy/ringfence"
HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
required = pytest.mark.skipif(
    HAPROXY is None, reason="HAProxy is not installed; remedy: apt-get install haproxy"
)

BODY_BYTES = 1 << 20
GATEWAY: dict[str, Any] = {
    "ipv6": False,
    "client_certificates": "required",
    "body_bytes": BODY_BYTES,
    "timeout_seconds": 5,
    "concurrency": 64,
}


def configured(directory: Path, name: str = "haproxy", **variables: Any) -> Path:
    """Write the configuration that the role would deploy, as a directory below `directory`."""
    environment = jinja2.Environment(  # noqa: S701
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["ternary"] = lambda value, yes, no: yes if value else no
    role = yaml.safe_load((ROOT / "roles/tls/defaults/main.yml").read_text())
    facts = role | {"ansible_managed": "test", "__tls_groups": ["X25519", "P-256"]} | variables
    made = directory / name
    made.mkdir(exist_ok=True)
    for template in sorted(TEMPLATES.iterdir()):
        for item in facts["tls_frontends"] if "[name]" in template.name else [None]:
            text = environment.get_template(template.name).render(facts, item=item)
            text = text.replace("/etc/ringfence/pki", str(directory))
            text = text.replace("/etc/haproxy/ringfence", str(made))
            file = template.stem.replace("[name]", item["name"] if item else "")
            if text.strip():
                (made / file).write_text(text.replace("bind :", "bind 127.0.0.1:"))
    return made


def check(configuration: Path) -> subprocess.CompletedProcess[str]:
    assert HAPROXY is not None
    return subprocess.run(
        [HAPROXY, "-c", "-f", configuration],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@dataclass
class Front:
    """HAProxy in front of gateway processes, and how callers connect to it."""

    site: Site
    port: int
    configuration: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/tools/mcp"

    @property
    def log(self) -> Path:
        return self.configuration.with_suffix(".log")

    def start(self) -> None:
        """Start master and worker, as the systemd unit does."""
        assert HAPROXY is not None
        self.process = subprocess.Popen(
            [HAPROXY, "-W", "-f", self.configuration],
            stdout=self.log.open("ab"),
            stderr=subprocess.STDOUT,
        )
        wait_for(self.listens)

    def listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def reload(self) -> None:
        assert self.process is not None
        before = self.log.read_text().count("Loading success")
        self.process.send_signal(signal.SIGUSR2)
        wait_for(lambda: self.log.read_text().count("Loading success") > before)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)

    def resident_mib(self) -> float:
        """Return the resident memory of the worker."""
        assert self.process is not None
        tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pages = [
            Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in tasks.read_text().split()
        ]
        return sum(int(each) for each in pages) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def context(self, who: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.site.directory / "ca.crt"))
        if who is not None:
            context.load_cert_chain(self.credentials(self.site.person(who)))
        return context

    def credentials(self, person: Person) -> Path:
        path = self.site.directory / f"{person.name}.pem"
        if not path.exists():
            path.touch(mode=0o600)
            pem = serialization.Encoding.PEM
            key = person.key.private_bytes(
                pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            path.write_bytes(key + b"".join(each.public_bytes(pem) for each in person.chain))
        return path

    @contextlib.contextmanager
    def connected(self, who: str | None = "carol", **limits: Any) -> Iterator[ssl.SSLSocket]:
        context = self.context(who)
        for name, value in limits.items():
            setattr(context, name, value)
        with (
            socket.create_connection(("127.0.0.1", self.port), 10) as plain,
            context.wrap_socket(plain, server_hostname="edge-1.test") as secure,
        ):
            yield secure

    def client(self, who: str | None = "carol", timeout: float = 10) -> httpx2.Client:
        """Return a client that keeps its connection open."""
        return httpx2.Client(verify=self.context(who), trust_env=False, timeout=timeout)

    def post(
        self,
        document: Mapping[str, Any],
        who: str | None = "carol",
        *,
        token_of: str = "carol",  # noqa: S107
        client: httpx2.Client | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send a request as `who`, over the connection of `client` or over a new one."""
        own = mcp_headers(document) | self.authorized(token_of) | self.named()
        sent = {**own, **(headers or {})}
        with contextlib.ExitStack() as stack:
            client = client or stack.enter_context(self.client(who))
            extensions = {"sni_hostname": "edge-1.test"}
            return client.post(self.url, json=document, headers=sent, extensions=extensions)

    def named(self) -> dict[str, str]:
        return {"host": "gateway.test"}

    def authorized(self, who: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.site.token(who)}"}

    def head(self, document: Mapping[str, Any], *lines: str, verb: str = "POST") -> bytes:
        headers = mcp_headers(document) | self.authorized("carol") | self.named()
        named = [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([f"{verb} /tools/mcp HTTP/1.1", *named, *lines, "", ""]).encode()


@contextlib.contextmanager
def in_front_of(
    site: Site, sockets: Sequence[Path] | None = None, **changed: Any
) -> Iterator[Front]:
    """Start HAProxy in front of `site`, whose processes (`sockets`) the test starts."""
    port = free_port()
    named = [str(path) for path in sockets or [site.socket]]
    gateway = GATEWAY | {"port": port, "sockets": named} | changed
    configuration = configured(site.directory, f"haproxy-{port}", tls_gateway=gateway)
    front = Front(site, port, configuration)
    try:
        front.start()
        yield front
    finally:
        front.stop()
