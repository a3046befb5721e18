"""Kinds of secrets: creation, use and test of a value.

A new kind, for a service whose API issues and revokes keys, is a class here and a word in the
manifest's schema.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Protocol

BYTES = 32


class RefusedError(Exception):
    """The new value does not work; the current one stays."""


class Kind(Protocol):
    def create(self) -> str:
        """Return a new value."""
        ...

    def apply(self, pending: str) -> None:
        """Send the value to the service, if the service did not issue it."""
        ...

    def test(self, pending: str, current: str | None) -> None:
        """Raise `RefusedError` for a value that must not become the current one."""
        ...


class Generated:
    """Random value, for servers whose other end reads Secrets Manager too."""

    def create(self) -> str:
        return secrets.token_urlsafe(BYTES)

    def apply(self, pending: str) -> None:
        pass

    def test(self, pending: str, current: str | None) -> None:
        if len(pending) < BYTES:
            raise RefusedError("the new value is too short")
        if pending == current:
            raise RefusedError("the new value is the old one")


KINDS: Mapping[str, Kind] = {"generated": Generated()}
"""Kinds by the tag of a secret."""
