"""Tokens and principals that are cut off before their tokens expire.

`revoked.json` is replaced as a whole (written beside it, then renamed):
`{"tokens": ["<jti>", …], "principals": ["<name>", …]}`. Without a file nobody is cut off; whoever
was stays so when the file goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.gateway import jws

MAX_BYTES = 4 * 1024 * 1024


class RevocationsUnreadableError(Exception):
    """It is not known who is cut off."""


@dataclass(frozen=True)
class _Revoked:
    tokens: frozenset[str] = frozenset()
    principals: frozenset[str] = frozenset()


class Revocations:
    """The present content of the file, read again when it changes.

    A file that cannot be read answers nothing: somebody meant to cut somebody off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._revoked = _Revoked()
        self._problem: str | None = None

    def revoked(self, principal: str, token_id: str | None) -> bool:
        """Raises `RevocationsUnreadableError`."""
        self._refresh()
        if self._problem is not None:
            raise RevocationsUnreadableError(self._problem)
        return principal in self._revoked.principals or token_id in self._revoked.tokens

    def _refresh(self) -> None:
        seen = None
        try:
            status = self._path.stat()
            seen = status.st_mtime_ns, status.st_size, status.st_ino
            if seen == self._seen:
                return
            self._revoked = _read(self._path)
            self._seen, self._problem = seen, None
        except FileNotFoundError:
            self._seen, self._problem = None, None
        except OSError as error:
            self._seen, self._problem = None, f"{self._path} cannot be read: {error.strerror}"
        except (jws.JwsError, ValueError) as error:
            self._seen, self._problem = seen, f"{self._path}: {error}"


def _read(path: Path) -> _Revoked:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    document = jws.read_object(content)
    if not document.keys() <= {"tokens", "principals"}:
        raise ValueError('only "tokens" and "principals" are known')
    return _Revoked(_names(document, "tokens"), _names(document, "principals"))


def _names(document: dict[str, Any], key: str) -> frozenset[str]:
    names = document.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'"{key}" must be a list of strings')
    return frozenset(names)
