"""The signed documents about grants as files: read and verified, stored, put away.

A request is the file `<id>.request`, an approval `<id>.approval.<approver>`, a revocation
`<id>.revocation`. A name is taken once, except from a file that does not count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ringfence.gateway.consent.documents import (
    GrantApproval,
    GrantRequest,
    check_approval,
    check_request,
    read,
    verify,
)
from ringfence.gateway.jose.signed_documents import DOCUMENT_BYTES, Roster
from ringfence.gateway.refusals import Refusal
from ringfence.gateway.state import shared_files

EXPIRED = "expired"
"""Directory of the documents that are over."""
SWEPT_AFTER_SECONDS = 3600

NAME = re.compile(
    r"(?P<id>[0-9a-f]{32})"
    r"\.(?P<kind>request|revocation|approval\.(?P<approver>[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?))"
)
_REPORTED_AT_ONCE = 16

UNUSABLE = (OSError, ValueError, Refusal)
"""Raised for a file that cannot be read, or is not the document that its name says."""


class Claim(NamedTuple):
    """Claims of a request before it is verified."""

    subject: tuple[str, str, str]
    """Principal, server and tool."""
    end: int


@dataclass
class GrantFiles:
    """The documents of one directory. Every method but `store` and `put_away` only reads."""

    directory: Path
    roster: Roster
    ceiling: float
    """Seconds that a grant may last."""

    def claim(self, id: str) -> Claim:
        """Read the claims of a request. Raises `UNUSABLE`."""
        claims = read(self._read(f"{id}.request")).claims
        if claims.get("jti") != id:
            raise _misnamed()
        principal = claims["iss"].removeprefix(self.roster.uri(""))
        return Claim((principal, claims["server"], claims["tool"]), claims["exp"])

    def request(self, id: str) -> tuple[GrantRequest, bytes]:
        """A verified request, and the document itself. Raises `UNUSABLE`."""
        document = self._read(f"{id}.request")
        request = verify(document, self.roster)
        if not isinstance(request, GrantRequest) or request.id != id:
            raise _misnamed()
        return request, document

    def valid_request(self, id: str, now: float) -> tuple[GrantRequest, bytes]:
        """A verified request that may still be granted. Raises `UNUSABLE`."""
        request, document = self.request(id)
        check_request(request, self.roster, self.ceiling, now)
        return request, document

    def approval(self, request: GrantRequest, approver: str, now: float) -> GrantApproval:
        """A verified approval that counts. Raises `UNUSABLE`."""
        approval = verify(self._read(f"{request.id}.approval.{approver}"), self.roster)
        if not isinstance(approval, GrantApproval) or approval.signer != approver:
            raise _misnamed()
        check_approval(approval, request, self.roster, now)
        return approval

    def store(self, name: str, document: bytes, counts: Callable[[], bool]) -> bool:
        """Store a document, unless `counts` says that the file of its name counts: then False.

        Raises `OSError`, and `Refusal` for a name that is none of a document.
        """
        if not NAME.fullmatch(name):
            raise Refusal("unknown_principal", "the signer's name is not usable here")
        path = self.directory / name
        if shared_files.create(path, document):
            return True
        if counts():
            return False
        shared_files.replace(path, document)
        return True

    def put_away(
        self, ended: Iterable[tuple[str, list[str]]], known: set[str], now: float, keep: float
    ) -> None:
        """Move the documents of ended grants (id, approvers), and delete those kept for `keep`.

        Documents of a request without approval are deleted: they never granted anything. `known`:
        ids of all requests that can be read; other files of theirs are orphans. Raises `OSError`.
        """
        expired = self.directory / EXPIRED
        with suppress(FileExistsError):
            expired.mkdir(mode=0o750)
        for id, approvers in ended:
            # The approval first and the revocation last: half of it is never a grant.
            names = [f"{id}.approval.{approver}" for approver in approvers]
            for name in (*names, f"{id}.request", f"{id}.revocation"):
                with suppress(FileNotFoundError):
                    if names:
                        (self.directory / name).rename(expired / name)
                    else:
                        (self.directory / name).unlink()
        for path in (*self._orphans(known), *expired.iterdir()):
            kept = SWEPT_AFTER_SECONDS if path.name.startswith(".") else keep + self.ceiling
            with suppress(FileNotFoundError):
                if path.lstat().st_mtime + kept < now:
                    path.unlink()

    def _orphans(self, known: set[str]) -> Iterator[Path]:
        """Documents without a readable request, and what a killed process left behind."""
        for path in self.directory.iterdir():
            staged = path.name.startswith(".") and NAME.match(path.name[1:])
            match = NAME.fullmatch(path.name)
            if staged or (match and match["id"] not in known):
                yield path

    def _read(self, name: str) -> bytes:
        return shared_files.read(f"{self.directory}/{name}", DOCUMENT_BYTES)


@dataclass
class FileFaults:
    """Reports what is wrong with files, once for each file."""

    directory: Path
    report: Callable[[str], None]
    _reported: set[tuple[str, int]] = field(default_factory=set, init=False)
    """Name and inode."""

    def add(self, name: str, inode: int, fault: str) -> None:
        if (name, inode) not in self._reported:
            self._reported.add((name, inode))
            # A name may hold anything, line feeds and escapes included.
            self.report(f"{self.directory}: {name!a} {fault}" if name else fault)

    def add_all(self, faults: Iterable[tuple[str, int, str]]) -> None:
        new = [fault for fault in faults if fault[:2] not in self._reported]
        for fault in new[:_REPORTED_AT_ONCE]:
            self.add(*fault)
        if rest := new[_REPORTED_AT_ONCE:]:
            self._reported.update((name, inode) for name, inode, _ in rest)
            self.report(f"{self.directory}: {len(rest)} more files are ignored")

    def keep(self, files: Iterable[tuple[str, int]]) -> None:
        """Forget all files but these."""
        self._reported &= {*files}


def reason_of(error: Exception) -> str:
    if isinstance(error, Refusal):
        return f"{error.message} ({error.reason})"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _misnamed() -> ValueError:
    return ValueError("says something else than its name")
