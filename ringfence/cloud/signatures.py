"""Numbers of Suricata signatures that are computed from a manifest."""

from __future__ import annotations

from hashlib import sha256

FIRST_OF_SENSOR = 1_000_000_000
FIRST_OF_EGRESS = 1_000_000
"""Below are numbers of others' rules. https://docs.suricata.io/en/suricata-7.0.8/rules/meta.html"""
ROOM = 10**9


def sid(first: int, *said: object) -> int:
    """By content, not by place in a list: nothing else changes when something is added."""
    digest = sha256(" ".join(map(str, said)).encode()).digest()
    return first + int.from_bytes(digest[:4]) % ROOM
