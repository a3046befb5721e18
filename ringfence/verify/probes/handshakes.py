"""Probe: TLS handshakes from and at a host, with the standard library and openssl.

`server` connects to a TLS frontend as several kinds of caller. `clients` connects this host's own
clients to a server whose newest version is TLS 1.2.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PKI = Path("/etc/ringfence/pki")
SECONDS = 5
REQUEST = b"POST /mcp HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def context(
    *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, certificate: bool = True
) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(PKI / "ca.crt"))
    made.minimum_version = made.maximum_version = version
    if certificate:
        made.load_cert_chain(PKI / "host.crt", PKI / "host.key")
    return made


def answer(address: str, port: int, tls: ssl.SSLContext) -> str:
    """Return the status line of the answer, or the reason why there is no answer."""
    try:
        with (
            socket.create_connection((address, port), SECONDS) as plain,
            tls.wrap_socket(plain, server_hostname=address) as connection,
        ):
            connection.sendall(REQUEST % address.encode())
            # TLS 1.3 reports a refused certificate only here.
            return connection.recv(64).decode(errors="replace").partition("\r")[0] or "closed"
    except ssl.SSLError as error:
        return f"TLS: {error.reason}"
    except OSError as error:
        return f"{type(error).__name__}: {error.strerror or error}"


def group(address: str, port: int) -> str:
    """Return the key exchange that this host's OpenSSL negotiates with the frontend."""
    done = subprocess.run(
        [
            *("openssl", "s_client", "-connect", f"{address}:{port}", "-CAfile", PKI / "ca.crt"),
            *("-cert", PKI / "host.crt", "-key", PKI / "host.key"),
        ],
        input="Q\n",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    found = re.search(r"Negotiated TLS1.3 group: (\S+)|Server Temp Key: (\S+),", done.stdout)
    return (found[1] or found[2]) if found else "none"


def has_post_quantum() -> bool:
    """Return whether this host's OpenSSL has X25519MLKEM768 (since 3.5)."""
    version = re.match(r"OpenSSL (\d+)\.(\d+)", ssl.OPENSSL_VERSION)
    return bool(version) and (int(version[1]), int(version[2])) >= (3, 5)


def server(address: str, port: int) -> dict[str, object]:
    return {
        "current": answer(address, port, context()),
        "older": answer(address, port, context(version=ssl.TLSVersion.TLSv1_2)),
        "anonymous": answer(address, port, context(certificate=False)),
        "group": group(address, port),
        "post_quantum": has_post_quantum(),
    }


def clients() -> dict[str, bool]:
    """Return for each client whether it completes a TLS 1.2 handshake."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/socket"
        old = subprocess.Popen(
            [
                *("openssl", "s_server", "-unix", path, "-quiet", "-tls1_2"),
                *("-cert", PKI / "host.crt", "-key", PKI / "host.key"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + SECONDS
            while not Path(path).exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            # With -tls1_2 the client must succeed: else a refusal could have another cause.
            return {
                "able": by_openssl(path, "-tls1_2"),
                "openssl": by_openssl(path),
                "python": by_python(path),
            }
        finally:
            old.kill()
            old.wait()


def by_openssl(path: str, *options: str) -> bool:
    done = subprocess.run(
        ["openssl", "s_client", "-unix", path, "-brief", *options],
        input="Q\n",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return "CONNECTION ESTABLISHED" in done.stderr


def by_python(path: str) -> bool:
    tls = ssl.create_default_context(cafile=str(PKI / "ca.crt"))
    tls.check_hostname = False
    try:
        with socket.socket(socket.AF_UNIX) as plain:
            plain.settimeout(SECONDS)
            plain.connect(path)
            with tls.wrap_socket(plain):
                return True
    except OSError:
        return False


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    found = server(arguments[0], int(arguments[1])) if what == "server" else clients()
    print(json.dumps(found))
