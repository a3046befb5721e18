"""What AWS can provision: its regions and its networks. Quotas: `ringfence.cloud.quotas`."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, ip_network
from urllib.parse import urlsplit

from ringfence.cloud.regions import ZONES
from ringfence.validation.cursor import Cursor
from ringfence.validation.finding import Finding, quoted, suggestion
from ringfence.validation.rules.network import Network, address, network

VPC_PREFIX = 16
DEFAULT_ZONES = 2
LINK_LOCAL = IPv4Network("169.254.0.0/16")


def _is_provisioned(manifest: Cursor) -> bool:
    return "aws" in manifest["provisioning"]


def region_has_the_zones(manifest: Cursor) -> Iterator[Finding]:
    region = manifest.at("provisioning", "aws", "region")
    zones = manifest.at("provisioning", "aws", "zones")
    if region.text is None:
        return
    if region.text not in ZONES:
        hint = suggestion(region.text, ZONES)
        yield region.finding(f"{quoted(region.text)} is not a region of AWS{hint}")
        return
    wanted, there = zones.number or DEFAULT_ZONES, len(ZONES[region.text])
    if wanted > there:
        at = zones if zones.number else region
        yield at.finding(
            f"region {region.text} has {there} zones, not {wanted}; "
            "ask for fewer, or choose another region"
        )


def _vpc(manifest: Cursor) -> tuple[IPv4Network, str] | None:
    """The /16 of the first segment, and the segment's name."""
    for name, segment in manifest.at("network", "segments").entries():
        parsed = network(segment["cidr"], 4)
        if isinstance(parsed, IPv4Network) and parsed.prefixlen >= VPC_PREFIX:
            return parsed.supernet(new_prefix=VPC_PREFIX), name
    return None


def segments_lie_in_one_network(manifest: Cursor) -> Iterator[Finding]:
    """A VPC is a /16 at most; its segments are cut from it."""
    found = _vpc(manifest)
    if not _is_provisioned(manifest) or not found:
        return
    vpc, first = found
    for _, segment in manifest.at("network", "segments").entries():
        parsed = network(segment["cidr"], 4)
        large_enough = isinstance(parsed, IPv4Network) and parsed.prefixlen >= VPC_PREFIX
        if isinstance(parsed, IPv4Network) and large_enough and not parsed.subnet_of(vpc):
            yield segment["cidr"].finding(
                f"{parsed} is outside {vpc}, the network of the VPC that segment {quoted(first)} "
                "lies in; choose all segments within one /16"
            )


def segments_have_no_ipv6(manifest: Cursor) -> Iterator[Finding]:
    if not _is_provisioned(manifest):
        return
    for _, segment in manifest.at("network", "segments").entries():
        if segment["cidr6"].text is not None:
            yield segment["cidr6"].finding(
                "AWS assigns IPv6 networks itself, and none is needed inside; remove it"
            )


def addresses_can_be_reached(manifest: Cursor) -> Iterator[Finding]:
    """No route leads out of the VPC."""
    found = _vpc(manifest)
    if not _is_provisioned(manifest) or not found:
        return
    vpc, _ = found
    services, sink = manifest.at("network", "services"), manifest["log_sink"]
    proxy = services.at("packages", "proxy")
    named: list[tuple[Cursor, Network | None]] = [
        *((each, _alone(each)) for kind in ("dns", "ntp") for each in services[kind].elements()),
        *([(proxy, _of_url(proxy.text))] if proxy.text else []),
        *([(sink["address"], _alone(sink["address"]))] if sink["kind"].text == "relp" else []),
        *(
            (egress["cidr"], network(egress["cidr"]))
            for _, server in manifest["servers"].entries()
            for egress in server["egress"].elements()
        ),
    ]
    for cursor, parsed in named:
        if parsed is None or (
            isinstance(parsed, IPv4Network)
            and (parsed.subnet_of(vpc) or parsed.subnet_of(LINK_LOCAL))
        ):
            continue
        yield cursor.finding(
            f"{parsed} is outside {vpc}, and no route leads out of the VPC; "
            "name an address inside, or a domain where it is egress of a server"
        )


def _of_url(url: str) -> Network | None:
    try:
        return ip_network(urlsplit(url).hostname or "")
    except ValueError:  # another rule says so
        return None


def _alone(cursor: Cursor) -> Network | None:
    return network(cursor) if address(cursor) else None
