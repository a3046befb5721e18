"""Addresses of an environment in AWS: one VPC, a subnet per segment and zone."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network

from ringfence.manifest.model import Environment, Segment
from ringfence.manifest.regions import ZONES

VPC_PREFIX = 16
"""The largest VPC. A smaller one would have to be replaced when a segment is added."""


def vpc_network(environment: Environment) -> IPv4Network:
    """The /16 around the segments, which validation has seen to lie in one."""
    first = next(iter(environment.segments.values()))
    return first.cidr.supernet(new_prefix=VPC_PREFIX)


def resolver(environment: Environment) -> str:
    """Amazon's resolver in the VPC: its base address plus two."""
    return str(vpc_network(environment).network_address + 2)


def zones(region: str, count: int) -> tuple[str, ...]:
    return tuple(f"{region}{letter}" for letter in ZONES[region][:count])


def subnets(segment: Segment, zones: tuple[str, ...]) -> Mapping[str, IPv4Network]:
    """Equal parts of the segment by zone; a power of two, so that a part or more stays free."""
    parts = segment.cidr.subnets(prefixlen_diff=(len(zones) - 1).bit_length())
    return dict(zip(zones, parts, strict=False))
