"""Limits of AWS: regions, networks, machines. `ringfence.cloud.quotas` checks quotas."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, ip_network
from urllib.parse import urlsplit

from ringfence.manifest.instance_types import ARCHITECTURES, family
from ringfence.manifest.parts import own_host
from ringfence.manifest.regions import WITHOUT_MACIE, ZONES
from ringfence.manifest.validation.cursor import Cursor
from ringfence.manifest.validation.problem import Violation
from ringfence.manifest.validation.rules.network import Network, address, malformed_network, network
from ringfence.manifest.validation.rules.reference import exists
from ringfence.manifest.validation.wording import quoted, suggestion

VPC_PREFIX = 16
LONGEST_NAMES = 41
LINK_LOCAL = IPv4Network("169.254.0.0/16")


def _is_provisioned(manifest: Cursor) -> bool:
    return "aws" in manifest["provisioning"]


def region_has_the_zones(manifest: Cursor) -> Iterator[Violation]:
    region = manifest.at("provisioning", "aws", "region")
    zones = manifest.at("provisioning", "aws", "zones")
    if region.text is None:
        return
    if region.text not in ZONES:
        hint = suggestion(region.text, ZONES)
        yield region.violation(f"{quoted(region.text)} is not a region of AWS{hint}")
        return
    wanted, there = zones.number or 0, len(ZONES[region.text])
    if wanted > there:
        yield zones.violation(
            f"region {region.text} has {there} zones, not {wanted}; "
            "declare fewer, or choose another region"
        )


def names_fit(manifest: Cursor) -> Iterator[Violation]:
    """IAM allows 64 characters for the environment, the host and what is added to both."""
    environment = manifest["name"].text
    if not _is_provisioned(manifest) or not environment:
        return
    named = [
        *manifest["hosts"].entries(),
        *((own_host(name), s) for name, s in manifest["servers"].entries() if "host" not in s),
    ]
    for name, cursor in named:
        length = len(environment) + len(name)
        if length > LONGEST_NAMES:
            yield cursor.violation(
                f"{environment} and {name} have {length} characters together, and names in AWS "
                f"have room for {LONGEST_NAMES}; shorten one of them",
                on_key=True,
            )


def macie_is_in_the_region(manifest: Cursor) -> Iterator[Violation]:
    place = manifest.at("provisioning", "aws")
    if place["macie"].value is True and place["region"].text in WITHOUT_MACIE:
        yield place["macie"].violation(
            f"AWS has no Macie in {place['region'].text}; set it to false, or choose another region"
        )


def _vpc(manifest: Cursor) -> tuple[IPv4Network, str] | None:
    """Return the /16 network of the first segment, and the segment's name."""
    for name, segment in manifest.at("network", "segments").entries():
        parsed = network(segment["cidr"], 4)
        if isinstance(parsed, IPv4Network) and parsed.prefixlen >= VPC_PREFIX:
            return parsed.supernet(new_prefix=VPC_PREFIX), name
    return None


def segments_lie_in_one_network(manifest: Cursor) -> Iterator[Violation]:
    """A VPC is a /16 at most, and contains all segments."""
    found = _vpc(manifest)
    if not _is_provisioned(manifest) or not found:
        return
    vpc, first = found
    for _, segment in manifest.at("network", "segments").entries():
        parsed = network(segment["cidr"], 4)
        large_enough = isinstance(parsed, IPv4Network) and parsed.prefixlen >= VPC_PREFIX
        if isinstance(parsed, IPv4Network) and large_enough and not parsed.subnet_of(vpc):
            yield segment["cidr"].violation(
                f"{parsed} is outside {vpc}, the network of the VPC that segment {quoted(first)} "
                "is in; choose all segments within one /16"
            )


def segments_have_no_ipv6(manifest: Cursor) -> Iterator[Violation]:
    if not _is_provisioned(manifest):
        return
    for _, segment in manifest.at("network", "segments").entries():
        if segment["cidr6"].text is not None:
            yield segment["cidr6"].violation(
                "AWS assigns IPv6 networks itself, and none is needed inside; remove it"
            )


def addresses_can_be_reached(manifest: Cursor) -> Iterator[Violation]:
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
            (issuer["network"], network(issuer["network"]))
            for issuer in manifest.at("gateway", "tokens", "issuers").elements()
        ),
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
        yield cursor.violation(
            f"{parsed} is outside {vpc}, and no route leads out of the VPC; "
            "name an address inside, or a domain where it is egress of a server"
        )


def machines_are_known(manifest: Cursor) -> Iterator[Violation]:
    """Traffic mirroring and TPMs need instances built on Nitro."""
    for _, machine in manifest.at("provisioning", "aws", "machines").entries():
        type_ = machine["type"]
        if type_.text is not None and family(type_.text) not in ARCHITECTURES:
            yield type_.violation(
                f"{quoted(family(type_.text))} is not a known family of instances built "
                "on Nitro; choose another, like t4g.small or m7g.large"
            )


def egress_network_fits(manifest: Cursor) -> Iterator[Violation]:
    """Every zone has a subnet for the firewall and one for the NAT gateway."""
    cidr = manifest.at("provisioning", "aws", "egress", "cidr")
    if cidr.text is None:
        return
    yield from malformed_network(cidr)
    parsed, found = network(cidr, 4), _vpc(manifest)
    if not isinstance(parsed, IPv4Network) or not found:
        return
    vpc, first = found
    if parsed.prefixlen < VPC_PREFIX or not parsed.subnet_of(vpc):
        yield cidr.violation(
            f"{parsed} is outside {vpc}, the network of the VPC that segment {quoted(first)} "
            "is in; choose one inside, beside the segments"
        )
        return
    for name, segment in manifest.at("network", "segments").entries():
        other = network(segment["cidr"], 4)
        if isinstance(other, IPv4Network) and parsed.overlaps(other):
            yield cidr.violation(
                f"{parsed} overlaps {other} of segment {quoted(name)}; "
                "choose networks that are apart"
            )
    zones = manifest.at("provisioning", "aws", "zones").number or 0
    longest = 28 - (2 * zones - 1).bit_length()
    if 1 <= zones <= 64 and parsed.prefixlen > longest:
        yield cidr.violation(
            f"{parsed} cannot be divided into two AWS subnets in each of {zones} zones; "
            f"choose a network of at most /{longest}"
        )


def domains_have_an_egress_firewall(manifest: Cursor) -> Iterator[Violation]:
    if not _is_provisioned(manifest) or "egress" in manifest.at("provisioning", "aws"):
        return
    for _, server in manifest["servers"].entries():
        for target in server["egress"].elements():
            if target["domain"].text is not None:
                yield target["domain"].violation(
                    "nothing leads out of the VPC; add provisioning.aws.egress, a firewall that "
                    "knows names, or reach the service over provisioning.aws.private_links"
                )


def domains_are_reached_over_tcp(manifest: Cursor) -> Iterator[Violation]:
    """The egress firewall reads the name from the TLS or HTTP request of the client."""
    for _, server in manifest["servers"].entries():
        for target in server["egress"].elements():
            if target["domain"].text is not None and target["protocol"].text == "udp":
                yield target["protocol"].violation(
                    "the egress firewall knows names in TLS and HTTP only; "
                    "remove it, or name the 'cidr'"
                )


def private_links_exist(manifest: Cursor) -> Iterator[Violation]:
    links = manifest.at("provisioning", "aws", "private_links")
    links = links if links.is_mapping else Cursor({}, links.path)
    for _, server in manifest["servers"].entries():
        for target in server["egress"].elements():
            yield from exists(target["private_link"], links, "private link")


def published_gateway_exists(manifest: Cursor) -> Iterator[Violation]:
    publish = manifest.at("provisioning", "aws", "publish")
    groups = [host["groups"].texts() for _, host in manifest["hosts"].entries()]
    if publish.is_mapping and not any("edge" in each for each in groups):
        yield publish.violation(
            "there is no host in group edge that could be offered; add one, or remove this"
        )


def _of_url(url: str) -> Network | None:
    try:
        return ip_network(urlsplit(url).hostname or "")
    except ValueError:  # Another rule reports it.
        return None


def _alone(cursor: Cursor) -> Network | None:
    return network(cursor) if address(cursor) else None
