"""Numbers of the Suricata signatures that Ringfence computes from a manifest."""

from __future__ import annotations

from hashlib import sha256

FIRST_OF_SENSOR = 1_000_000_000
FIRST_OF_EGRESS = 1_000_000
"""Lower numbers belong to rules of others. https://docs.suricata.io/en/suricata-7.0.8/rules/meta.html"""
ROOM = 10**9


def sid(first: int, *content: object) -> int:
    """Compute a number from content, so that a new signature changes no other number."""
    digest = sha256(" ".join(map(str, content)).encode()).digest()
    return first + int.from_bytes(digest[:4]) % ROOM
