"""Files of a configuration's directory, read with their modes checked and their digest kept."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CREDENTIAL = "credential:"

Where = tuple[str | int, ...]
"""A place in gateway.json."""


class _DuplicateKeyError(ValueError):
    pass


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise _DuplicateKeyError(f"the key {name!r} appears twice in one object")
    return dict(pairs)


class ConfigurationFiles:
    """The files of one directory, and the problems with them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.problems: list[str] = []
        self.hash = hashlib.sha256()
        """Over every file read."""

    def problem(self, file: str, path: Sequence[str | int], message: str) -> None:
        place = "".join(f"[{p!r}]" if isinstance(p, int) or "." in p else f".{p}" for p in path)
        self.problems.append(
            f"{self.directory / file}: {place.lstrip('.') or '(whole)'}: {message}"
        )

    def path(self, name: str) -> Path | None:
        """The path of a file. None for a credential outside of the service."""
        if not name.startswith(CREDENTIAL):
            return self.directory / name
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        return Path(credentials) / name.removeprefix(CREDENTIAL) if credentials else None

    def read(self, path: Path, where: Where = (), *, secret: bool = False) -> bytes:
        """Content of a file; empty after a problem."""
        try:
            mode = path.stat().st_mode
            content = path.read_bytes()
        except OSError as error:
            self.problem(
                "gateway.json" if where else path.name,
                where,
                f"{path} cannot be read: {error.strerror}; put it there, readable by the service",
            )
            return b""
        if mode & stat.S_IWOTH:
            self.problem("gateway.json", where, f"{path} is writable by anybody; chmod o-w")
        if secret and mode & stat.S_IRWXO:
            self.problem("gateway.json", where, f"{path} is secret but open to all; chmod o-rwx")
        self.hash.update(hashlib.sha256(path.name.encode() + b"\0" + content).digest())
        return content

    def read_json(self, name: str) -> Any:
        before = len(self.problems)
        content = self.read(self.directory / name)
        if not content:
            if len(self.problems) == before:
                self.problem(name, (), "the file is empty; render it again")
            return None
        try:
            return json.loads(content, object_pairs_hook=_object_without_duplicates)
        except (ValueError, RecursionError) as error:
            self.problem(name, (), f"not JSON: {error}; render it again")
            return None

    def check_writable(self, path: Path, where: Where) -> None:
        if not path.is_dir():
            self.problem(
                "gateway.json", where, f"{path} is no directory; create it for the service"
            )
        elif path.stat().st_mode & stat.S_IWOTH:
            self.problem("gateway.json", where, f"{path} is writable by anybody; chmod o-w")
