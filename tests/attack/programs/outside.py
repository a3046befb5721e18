"""Hosts outside the lab that receive data: outside.py ADDRESS…

Runs one name server, one TLS server and one plain web server on each address. Answers everything,
until it is stopped.
"""

import socket
import ssl
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def names(address: str) -> None:
    with bound(address, socket.SOCK_DGRAM, 53) as server:
        while True:
            question, client = server.recvfrom(4096)
            server.sendto(question[:2] + b"\x81\x80" + question[4:], client)


def web(address: str, port: int, context: ssl.SSLContext | None) -> None:
    with bound(address, socket.SOCK_STREAM, port) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=answer, args=(connection, context), daemon=True).start()


def answer(connection: socket.socket, context: ssl.SSLContext | None) -> None:
    connection.settimeout(60)
    try:
        with context.wrap_socket(connection, server_side=True) if context else connection as client:
            client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            while client.recv(65536):
                pass
    except OSError:
        pass


def bound(address: str, kind: socket.SocketKind, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, kind)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    if kind == socket.SOCK_STREAM:
        server.listen(64)
    return server


def certified() -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "outside.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=3))
        .sign(key, hashes.SHA256())
    )
    with TemporaryDirectory() as directory:
        path = Path(directory, "server.pem")
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
    return context


context = certified()
for address in sys.argv[1:]:
    for target, arguments in (
        (names, (address,)),
        (web, (address, 80, None)),
        (web, (address, 443, context)),
    ):
        threading.Thread(target=target, args=arguments).start()
