"""Addresses of mailboxes and of hosts, and passwords in URLs."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from ringfence.gateway.inspection.findings import SHORTEST, Candidates, InspectionFinding

_LOCAL = re.compile(r"[A-Za-z0-9_%+](?:[A-Za-z0-9._%+'-]{0,62}[A-Za-z0-9_%+'-])?$")
_DOMAIN = re.compile(r"(?:[A-Za-z0-9-]{1,63}\.){1,8}(?:[A-Za-z]{2,24}|xn--[a-z0-9-]{2,59})")
_NO_MAILBOX = re.compile(r"@[\dx.]+x\.(?:png|jpe?g|gif|webp|svg|avif)$", re.IGNORECASE)
_PASSWORD = re.compile(r"://[^\s/@:]{0,64}:([^\s/@]{1,256})@")
_URL_ENDS = re.compile(r"[\s/\"'<>]")
_PLACEHOLDER = re.compile(r"[<{$*]|x{3,}$|password$", re.IGNORECASE)


def find_mailboxes(text: str, candidates: Candidates) -> Iterator[InspectionFinding]:
    for start, end in candidates:
        if text.startswith("://", start):
            match = _PASSWORD.match(text, start)
            if match is not None and not _PLACEHOLDER.match(match[1]):
                yield InspectionFinding(*match.span(1), "url_password", match[1])
            # The engine saw this candidate where there may be a mailbox too.
            at = text.find("@", start, end)
        else:
            at = start + 1
        local = _LOCAL.search(text[max(0, at - 64) : at])
        domain = _DOMAIN.match(text, at + 1)
        if local is None or domain is None:
            continue
        begin = at - len(local[0])
        address = text[begin : domain.end()]
        if _NO_MAILBOX.search(address):
            continue
        # git@host:path is where a repository is, not somebody's mailbox.
        if local[0] in ("git", "hg") and text[domain.end() : domain.end() + 1] in (":", "/"):
            continue
        # In front of the host of a URL are its user and password, found as such.
        scheme = text.rfind("://", max(0, begin - 80), begin)
        if scheme >= 0 and not _URL_ENDS.search(text, scheme + 3, begin):
            continue
        yield InspectionFinding(begin, domain.end(), "email", address.lower())


_DISCARD = ipaddress.IPv6Network("100::/64")
_DOTTED = re.compile(r"[\d.]*\d")
_VERSION = re.compile(r"(?:\bv|\bversion[ :=]{0,3}|==|@|-|/)$", re.IGNORECASE)
_HOST = re.compile(r"://(?:[^\s/]*@)?$")
_COLONS = re.compile(r"[0-9A-Fa-f:]+(?:\.\d{1,3}){0,3}")


def find_networks(text: str, candidates: Candidates) -> Iterator[InspectionFinding]:
    reached = 0
    for start, end in candidates:
        if start < reached:
            continue
        if ":" in text[start:end]:
            begin = start
            while begin and text[begin - 1] in "0123456789abcdefABCDEF:":
                begin -= 1
            match = _COLONS.match(text, begin)
            value = match[0].rstrip(":") if match else ""
            reached = begin + len(value)
            if text[begin - 1 : begin].isalnum() or len(value) < SHORTEST or len(value) > 45:
                continue
            if value.count(":") < 7 and ("::" not in value or value.count(":") < 3):
                continue
        else:
            begin = start
            while begin and text[begin - 1] in "0123456789.":
                begin -= 1
            match = _DOTTED.match(text, begin)
            value = match[0].lstrip(".") if match else ""
            begin += len(match[0]) - len(value) if match else 0
            reached = begin + len(value)
            before = text[max(0, begin - 12) : begin]
            if before[-1:].isalnum():
                continue
            if _VERSION.search(before) and not _HOST.search(text, max(0, begin - 80), begin):
                continue
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            continue
        if _is_of_a_host(address):
            yield InspectionFinding(begin, begin + len(value), "ip_address", str(address))


def _is_of_a_host(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether it is not loopback, multicast, a net mask or a mask (240/4, 100::/64)."""
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return False
    if address.version == 4:
        return not address.is_reserved and address.packed[0] != 0
    return address not in _DISCARD
