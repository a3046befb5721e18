"""Masks: replacements for values that must not be shown.

A mask is a pseudonym: HMAC-SHA256 (RFC 2104) over type and value with the environment's key. The
same value has the same mask, so results can still be joined and counted. Without the key a mask
does not lead to its value, and masks of environments with other keys cannot be compared. A mask
keeps the form of its value, in a range that no real value has: reserved domains (RFC 2606) and
addresses (RFC 1112, RFC 6666), country codes and numbers that were never assigned.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
from dataclasses import dataclass

MIN_KEY_BYTES = 32

_DIGIT = re.compile(r"\d")
_ALPHANUMERIC = re.compile(r"[A-Za-z0-9]")
_DIGITS_ONLY = re.compile(r"\D")


@dataclass(frozen=True)
class Redaction:
    """Replaces a value by the name of its type."""

    def replacement(self, kind: str, value: str, written: str) -> str:
        return f"[redacted: {kind}]"


@dataclass(frozen=True)
class Masking:
    """Replaces a value by its mask. Raises `ValueError` for a key below 32 bytes."""

    key: bytes

    def __post_init__(self) -> None:
        if len(self.key) < MIN_KEY_BYTES:
            raise ValueError(
                f"the masking key has {len(self.key)} bytes; write at least {MIN_KEY_BYTES} random "
                "ones to the file that inspection.key_file names"
            )

    def replacement(self, kind: str, value: str, written: str) -> str:
        """Return the mask of a value as it was written, with its separators."""
        digest = hmac.digest(
            self.key, kind.encode() + b"\0" + value.encode("utf-8", "replace"), hashlib.sha256
        )
        if _DIGITS_ONLY.sub("", written) != _DIGITS_ONLY.sub("", value):
            written = value  # encoded, or in parts
        if kind == "email":
            return f"masked-{_word(digest)}@masked.invalid"
        if kind == "ip_address":
            return _address(digest, value)
        if kind == "iban":
            return _like(written, _ALPHANUMERIC, "XX00" + _word(digest, 40).upper())
        if kind == "date_of_birth":
            return _date(digest, written)
        if kind in ("credit_card", "ssn", "phone", "national_id", "bank_account") and (
            _DIGIT.search(written)
        ):
            return _number(digest, kind, written)
        return f"[masked: {kind} {_word(digest)}]"


def _word(digest: bytes, length: int = 10) -> str:
    """Base32 letters: 10 have 50 bits, so two of a million values agree once in two thousand."""
    text = base64.b32encode(digest + hashlib.sha256(digest).digest()).decode().lower()
    return text[:length]


def _digits(digest: bytes, length: int) -> str:
    return str(int.from_bytes(digest, "big") % 10**length).zfill(length)


def _number(digest: bytes, kind: str, written: str) -> str:
    count = len(_DIGIT.findall(written))
    if kind == "phone":
        # A spare country code (list of ITU-T E.164); more zeros than any prefix has; areas of the
        # North American plan begin with 2. No zero first where there was none: it may be JSON.
        prefix = "999" if "+" in written else "000" if written.lstrip("(")[0] == "0" else "11"
    elif kind == "credit_card":
        prefix = "99"  # no issuer of ours (ISO/IEC 7812-1: national assignment)
    else:
        prefix = "9"  # of an SSN: areas from 900 are not assigned
    letters = _like(written, _DIGIT, prefix + _digits(digest, max(count - len(prefix), 0)))
    # Check letters would disclose something about the number: X replaces all of them.
    return re.sub(r"[A-Za-z]", "X", letters)


def _like(written: str, places: re.Pattern[str], characters: str) -> str:
    supply = iter(characters.ljust(len(written), "0"))
    return places.sub(lambda _: next(supply), written)


def _address(digest: bytes, value: str) -> str:
    if ":" in value:
        return str(ipaddress.IPv6Address((0x100 << 112) | int.from_bytes(digest[:8], "big")))
    return "240." + ".".join(str(byte) for byte in digest[:3])


def _date(digest: bytes, written: str) -> str:
    """Write a day of the nineteenth century in the same notation."""
    year = 1800 + digest[0] % 100
    day, month = 1 + digest[1] % 12, 1 + digest[2] % 12  # either order is a date
    if not _DIGIT.search(written):
        return f"[masked: date_of_birth {_word(digest)}]"
    parts = re.split(r"(\d+)", written)
    small = iter((day, month))
    for index in range(1, len(parts), 2):
        width = len(parts[index])
        if width == 8:
            parts[index] = f"{year}{month:02}{day:02}"
        elif width == 4:
            parts[index] = str(year)
        else:
            parts[index] = str(next(small, year % 100)).zfill(width)
    return "".join(parts)
