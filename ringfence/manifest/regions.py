"""AWS regions and their availability zones."""

from __future__ import annotations

from collections.abc import Mapping

ZONES: Mapping[str, str] = {
    "af-south-1": "abc",
    "ap-east-1": "abc",
    "ap-east-2": "abc",
    "ap-northeast-1": "acd",
    "ap-northeast-2": "abcd",
    "ap-northeast-3": "abc",
    "ap-south-1": "abc",
    "ap-south-2": "abc",
    "ap-southeast-1": "abc",
    "ap-southeast-2": "abc",
    "ap-southeast-3": "abc",
    "ap-southeast-4": "abc",
    "ap-southeast-5": "abc",
    "ap-southeast-6": "abc",
    "ap-southeast-7": "abc",
    "ca-central-1": "abd",
    "ca-west-1": "abc",
    "eu-central-1": "abc",
    "eu-central-2": "abc",
    "eu-north-1": "abc",
    "eu-south-1": "abc",
    "eu-south-2": "abc",
    "eu-west-1": "abc",
    "eu-west-2": "abc",
    "eu-west-3": "abc",
    "il-central-1": "abc",
    "me-central-1": "abc",
    "me-south-1": "abc",
    "mx-central-1": "abc",
    "sa-east-1": "abc",
    "us-east-1": "abcdef",
    "us-east-2": "abc",
    "us-west-1": "ab",
    "us-west-2": "abcd",
}
"""Letters of the zones by region, in the partition aws; as DescribeAvailabilityZones gave them
to moto 5.2.5 (2026-11). Not every account sees every zone of us-east-1 and ap-northeast-1."""

_WITHOUT_MACIE = """
    ap-east-2 ap-south-2 ap-southeast-3 ap-southeast-4 ap-southeast-5 ap-southeast-6 ap-southeast-7
    ca-west-1 eu-central-2 eu-south-2 me-central-1 mx-central-1
"""
WITHOUT_MACIE = frozenset(_WITHOUT_MACIE.split())
"""Regions by botocore's endpoints (2026-11). The stacks' other services are in every region."""
