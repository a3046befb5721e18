"""Segments, and the services that all hosts use."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import urlsplit

from ringfence.manifest.validation.cursor import Cursor
from ringfence.manifest.validation.problem import Violation
from ringfence.manifest.validation.wording import quoted

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

VERSIONS = {"cidr": 4, "cidr6": 6, "address": 4, "address6": 6}
"""IP version by key."""
SMALLEST = {4: 29, 6: 126}
"""Longest prefixes with room for the router and a few hosts."""


def address(cursor: Cursor, version: int | None = None) -> Address | None:
    try:
        parsed = ip_address(cursor.text or "")
    except ValueError:
        return None
    return parsed if version in (None, parsed.version) else None


def network(cursor: Cursor, version: int | None = None) -> Network | None:
    """Return the network, even if bits of a host are set."""
    try:
        parsed = ip_network(cursor.text or "", strict=False)
    except ValueError:
        return None
    return parsed if version in (None, parsed.version) else None


def segments_are_networks(manifest: Cursor) -> Iterator[Violation]:
    for _, segment in manifest.at("network", "segments").entries():
        for key in ("cidr", "cidr6"):
            cidr = segment[key]
            if cidr.text is None:
                continue
            yield from malformed_network(cidr, VERSIONS[key])
            if not (parsed := network(cidr, VERSIONS[key])):
                continue
            longest = SMALLEST[parsed.version]
            if parsed.prefixlen > longest:
                yield cidr.violation(
                    f"{parsed} is too small for a router and hosts; choose /{longest} or larger"
                )
            elif unusable(parsed):
                yield cidr.violation(
                    f"{parsed} cannot be a segment (loopback, link-local, multicast or reserved); "
                    "choose a private network such as 10.20.30.0/24 or fd00:20:30::/64"
                )


def malformed_network(cidr: Cursor, version: int | None = None) -> Iterator[Violation]:
    parsed = network(cidr, version)
    if not parsed:
        kind = f"IPv{version}" if version else "IP"
        yield cidr.violation(
            f"{quoted(cidr.text)} is not an {kind} network; "
            f"write it like {'fd00:20:30::/64' if version == 6 else '10.20.30.0/24'}"
        )
    elif ip_address((cidr.text or "").split("/")[0]) != parsed.network_address:
        yield cidr.violation(f"{quoted(cidr.text)} has bits of a host set; write {parsed}")


def unusable(parsed: Network) -> bool:
    first = parsed.network_address
    return parsed.prefixlen == 0 or any(
        (first.is_loopback, first.is_link_local, first.is_multicast, first.is_unspecified)
    )


def segments_do_not_overlap(manifest: Cursor) -> Iterator[Violation]:
    for key, version in (("cidr", 4), ("cidr6", 6)):
        placed = [
            (parsed, segment[key])
            for _, segment in manifest.at("network", "segments").entries()
            if (parsed := network(segment[key], version))
        ]
        # Sorted by first address, a network overlaps an earlier one exactly if it begins before
        # the furthest end so far.
        placed.sort(key=lambda each: (int(each[0].network_address), each[0].prefixlen))
        furthest: tuple[Network, Cursor] | None = None
        for parsed, cidr in placed:
            if furthest and int(parsed.network_address) <= int(furthest[0].broadcast_address):
                other = furthest[1].path[-2]
                yield cidr.violation(
                    f"{parsed} overlaps {furthest[0]} of segment {quoted(other)}; "
                    "choose networks that are apart"
                )
            if not furthest or int(parsed.broadcast_address) > int(furthest[0].broadcast_address):
                furthest = (parsed, cidr)


def there_is_a_management_segment(manifest: Cursor) -> Iterator[Violation]:
    segments = manifest.at("network", "segments")
    purposes = [segment["purpose"].value for _, segment in segments.entries()]
    if purposes and "management" not in purposes:
        yield segments.violation(
            "no segment has purpose management, so nobody could administer hosts; "
            "add the segment that operators and automation come from"
        )


def segments_fit_the_cloud(manifest: Cursor) -> Iterator[Violation]:
    """AWS subnets are /16 to /28, and every segment has one in each zone."""
    if "aws" not in manifest["provisioning"]:
        return
    zones = manifest.at("provisioning", "aws", "zones").number
    if zones is None or not 1 <= zones <= 64:
        return
    longest = 28 - (zones - 1).bit_length()
    for _, segment in manifest.at("network", "segments").entries():
        parsed = network(segment["cidr"], 4)
        if parsed and not 16 <= parsed.prefixlen <= longest:
            yield segment["cidr"].violation(
                f"{parsed} cannot be divided into AWS subnets in {zones} zones; "
                f"choose a network from /16 to /{longest}"
            )


def services_are_addresses(manifest: Cursor) -> Iterator[Violation]:
    for service in ("dns", "ntp"):
        for element in manifest.at("network", "services", service).elements():
            parsed = address(element)
            if element.text is not None and (
                not parsed or parsed.is_unspecified or parsed.is_multicast
            ):
                yield element.violation(
                    f"{quoted(element.text)} is not the address of a host; "
                    "write one like 10.20.30.11 or fd00:20:30::11"
                )


def proxy_is_an_address(manifest: Cursor) -> Iterator[Violation]:
    proxy = manifest.at("network", "services", "packages", "proxy")
    if proxy.text is None:
        return
    advice = 'write it like "http://10.20.10.2:3142"'
    try:
        url = urlsplit(proxy.text)
        credentials, host, port = url.username is not None, url.hostname or "", url.port
    except ValueError:
        yield proxy.violation(f"{quoted(proxy.text)} is not a URL; {advice}")
        return
    if credentials:
        yield proxy.violation("credentials must not stand in this file; use a proxy without them")
    elif port == 0:
        yield proxy.violation(f"there is no port 0; {advice}")
    else:
        try:
            ip_address(host)
        except ValueError:
            yield proxy.violation(
                f"{quoted(host)} is not an IP address, and hosts may have no resolver; {advice}"
            )
