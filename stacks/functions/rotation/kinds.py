"""How values of a kind are made and put to use: the part of a rotation that its provider decides.

A kind for an upstream with an API of its own (issue a key, revoke a key) is a class here, and a
word in the manifest's schema.
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
        """A new value."""
        ...

    def apply(self, pending: str) -> None:
        """Tell the upstream, where it is not the one that issues."""
        ...

    def test(self, pending: str, current: str | None) -> None:
        """Raises `RefusedError` for a value that must not become the current one."""
        ...


class Generated:
    """Random, for servers whose other end asks Secrets Manager as well: there is nobody to tell."""

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
"""By the tag of a secret."""
