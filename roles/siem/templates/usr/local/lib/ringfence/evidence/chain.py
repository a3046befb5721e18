"""What makes the record tamper-evident: pure functions that writer and verifier share.

Every record carries the SHA-256 of the line before it, so a change anywhere breaks what
follows. Every minute the heads of all chains are sealed: with a key that is then replaced by
its own hash. Whoever takes over the collector finds only the present key and cannot make a
seal of the past; the operator holds the first key and can check them all.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

NOTHING = "0" * 64
"""Hash before the first line."""
SEALS = "_seals"
"""Folder of the seals, beside those of the hosts; no host's name begins with an underscore."""


class ChainError(Exception):
    """A line is not one that the collector wrote."""


def line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "backslashreplace"
    )


def digest(content: bytes) -> str:
    """Of a line without its line feed."""
    return hashlib.sha256(content).hexdigest()


def parse(content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except ValueError as error:
        raise ChainError("is not JSON") from error
    if not isinstance(record, dict):
        raise ChainError("is not a record")
    return record


def next_key(key: bytes) -> bytes:
    return hashlib.sha256(b"ringfence seal key" + key).digest()


def key_of(first: bytes, number: int) -> bytes:
    """Key of a seal, from the first key."""
    for _ in range(number):
        first = next_key(first)
    return first


def mac(key: bytes, seal: Mapping[str, Any]) -> str:
    return hmac.new(key, line(seal), hashlib.sha256).hexdigest()
