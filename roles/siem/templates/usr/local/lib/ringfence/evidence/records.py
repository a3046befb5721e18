"""Lines of the record and keys of its seals: pure functions of the writer and the verifier.

Every record carries the SHA-256 of the line before it (`hash_chain`), so any change breaks the
rest of the chain. Every minute the collector seals the heads of all chains and replaces the key
with its hash. An intruder on the collector finds only the present key and cannot forge earlier
seals; the operator keeps the first key, which verifies all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

SEALS = "_seals"
"""Directory of the seals, beside those of hosts; host names never begin with an underscore."""


class RecordError(Exception):
    """The collector did not write this line."""


def line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "backslashreplace"
    )


def parse(content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except ValueError as error:
        raise RecordError("is not JSON") from error
    if not isinstance(record, dict):
        raise RecordError("is not a record")
    return record


def next_key(key: bytes) -> bytes:
    return hashlib.sha256(b"ringfence seal key" + key).digest()


def key_of(first: bytes, number: int) -> bytes:
    """Derive the key of a seal from the first key."""
    for _ in range(number):
        first = next_key(first)
    return first


def mac(key: bytes, seal: Mapping[str, Any]) -> str:
    return hmac.new(key, line(seal), hashlib.sha256).hexdigest()
