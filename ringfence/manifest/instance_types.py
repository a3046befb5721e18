"""Families of EC2 instances built on Nitro, and what processor they have.

https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-nitro-instances.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Architecture = Literal["arm64", "amd64"]
"""As Debian names it."""

_ARM64 = """
    t4g m6g m6gd m7g m7gd m8g m8gd c6g c6gd c6gn c7g c7gd c7gn c8g c8gd
    r6g r6gd r7g r7gd r8g r8gd i4g i8g im4gn is4gen
"""
_AMD64 = """
    t3 t3a m5 m5a m5ad m5d m5n m5zn m6a m6i m6id m6idn m6in m7a m7i m7i-flex
    c5 c5a c5ad c5d c5n c6a c6i c6id c6in c7a c7i c7i-flex
    r5 r5a r5ad r5b r5d r5n r6a r6i r6id r6idn r6in r7a r7i r7iz i3en i4i
"""
ARCHITECTURES: Mapping[str, Architecture] = {
    **dict.fromkeys(_ARM64.split(), "arm64"),
    **dict.fromkeys(_AMD64.split(), "amd64"),
}


def family(instance_type: str) -> str:
    return instance_type.partition(".")[0]


def architecture(instance_type: str) -> Architecture:
    """Return the architecture of a type that validation has accepted."""
    return ARCHITECTURES[family(instance_type)]
