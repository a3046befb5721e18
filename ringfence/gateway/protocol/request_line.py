"""Path, Host and Origin of a request, checked before anything else of it is read."""

from __future__ import annotations

from collections.abc import Collection

from ringfence.gateway.protocol.requests import Headers
from ringfence.gateway.refusals import Refusal


def check_target(path: str, query: bytes | str) -> None:
    """Refuse a query and an ambiguous path with 400. Tokens belong into headers: queries end up in
    logs (OAuth 2.1, section 5)."""
    if query:
        raise Refusal("query")
    segments = path.split("/")
    plain = path.isascii() and path.replace("/", "").translate(_PUNCTUATION).isalnum()
    if segments[0] or not all(segments[1:]) or not plain or {".", ".."} & set(segments):
        raise Refusal("path")


_PUNCTUATION = str.maketrans("", "", "-._~")


def check_host(headers: Headers, hosts: Collection[str]) -> None:
    """Refuse DNS rebinding. `hosts`: names or addresses in lower case, any port is theirs; with
    a port, that one. Raises `Refusal`: 400 unless there is one Host (RFC 9112, section 3.2), 421
    for another's (RFC 9110, section 7.4)."""
    values = [value.strip(b" \t") for name, value in headers if name.lower() == b"host"]
    if len(values) != 1:
        raise Refusal("host_header")
    host = values[0].decode("latin-1").lower()
    name, colon, port = host.rpartition(":")
    if host not in hosts and not (
        colon and port.isascii() and port.isdecimal() and len(port) < 6 and name in hosts
    ):
        raise Refusal("host")


def check_origin(headers: Headers, origins: Collection[str]) -> None:
    """Refuse requests of other web pages. `origins`: as browsers write them, scheme://host[:port].

    Raises `Refusal` 403 for an Origin that is not among them, `null` included.
    """
    for name, value in headers:
        if name.lower() == b"origin" and value.strip(b" \t").decode("latin-1") not in origins:
            raise Refusal("origin")
