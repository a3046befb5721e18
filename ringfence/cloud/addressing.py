"""Addresses of an environment in AWS: one VPC, and a subnet per segment and zone."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network

from ringfence.manifest.model import Environment, Segment
from ringfence.manifest.regions import ZONES

VPC_PREFIX = 16
"""The largest VPC. AWS would have to replace a smaller one for a new segment."""


def vpc_network(environment: Environment) -> IPv4Network:
    """The /16 that contains the segments; validation refuses segments of several."""
    first = next(iter(environment.segments.values()))
    return first.cidr.supernet(new_prefix=VPC_PREFIX)


def resolver(environment: Environment) -> str:
    """Amazon's resolver in the VPC: its base address plus two."""
    return str(vpc_network(environment).network_address + 2)


def zones(region: str, count: int) -> tuple[str, ...]:
    return tuple(f"{region}{letter}" for letter in ZONES[region][:count])


def subnets(segment: Segment, zones: tuple[str, ...]) -> Mapping[str, IPv4Network]:
    """Equal parts of the segment by zone. The number of parts is a power of two; some stay free."""
    parts = segment.cidr.subnets(prefixlen_diff=(len(zones) - 1).bit_length())
    return dict(zip(zones, parts, strict=False))
