"""The audit log: one event per decision, in a hash chain per process.

An event goes to a file of this process, then to the journal, which is shipped. The file comes
first: `AuditError` means that the decision is not recorded, and must not be carried out.

`python -m ringfence.gateway.audit verify FILE…` verifies files against their chains.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from ringfence.gateway import VERSION
from ringfence.gateway.audit.events import AuditEvent, activity_of, fields_of
from ringfence.gateway.audit.file import AuditError, AuditFile
from ringfence.gateway.audit.hash_chain import GENESIS, digest
from ringfence.gateway.audit.journald import Journal
from ringfence.gateway.audit.verification import ChainLink

OCSF_VERSION = "1.8.0"
IDENTIFIER = "ringfence-audit"
"""SYSLOG_IDENTIFIER of the journal's entries."""

_IDENTIFIER = IDENTIFIER.encode()

SEGMENT_BYTES = 64 << 20
RESERVE_BYTES = 8 << 20
"""Room for some 5,000 events, twice as many as the calls that one process may serve at once."""

_PRIORITIES = {"allowed": b"6", "denied": b"5", "failed": b"4"}


class Audit:
    """Writes the events of one process. Not for threads."""

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        key: bytes,
        journal: Journal | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        """`name`: of this process among those of the directory, the same after a restart.

        `key`: for `fingerprint`, at least 32 bytes. Raises `AuditError` where the directory cannot
        be used, another process has the name, or there is no room.
        """
        if len(key) < 32:
            raise AuditError("the key for digests has less than 32 bytes; make a longer one")
        self._key = key
        self._product = {"name": "gateway", "vendor_name": "ringfence", "version": VERSION}
        self._journal = journal
        self._file = AuditFile(
            directory, name, segment_bytes=segment_bytes, reserve_bytes=reserve_bytes
        )
        self.writer = f"{name}-{self._file.generation:06d}-{secrets.token_hex(4)}"
        self._writer_field = self.writer.encode()
        self._last: ChainLink | None = self._file.before
        self._next = 0
        self._refused = 0
        try:
            self._begin_where_needed()
            self._file.admit()
        except AuditError:
            self._file.close()
            raise

    @property
    def path(self) -> Path:
        """The present file."""
        return self._file.path

    @property
    def last(self) -> ChainLink | None:
        """The last line."""
        return self._last

    @property
    def journal_lost(self) -> int:
        """Number of events that the journal did not take; they are in the file."""
        return self._journal.lost if self._journal is not None else 0

    def use_journal(self, journal: Journal | None) -> None:
        """Use another journal, or none, from the next event on."""
        if self._journal is not None:
            self._journal.close()
        self._journal = journal

    def fingerprint(self, value: Any) -> str:
        """Digest a JSON value in canonical form with the key (HMAC-SHA-256, hex).

        Without the key, nobody can guess arguments of few possible values from the log. The same
        arguments have the same digest.
        """
        try:
            canonical = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except TypeError:  # integers beyond 64 bits, lone surrogates
            canonical = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        return hmac.digest(self._key, canonical, "sha256").hex()

    def admit(self) -> None:
        """Raise `AuditError` where the event of a call would find no room; before the call."""
        self._begin_where_needed()
        self._file.admit()

    def write(self, event: AuditEvent) -> None:
        """Record a decision. Raises `AuditError`: then it must not take effect."""
        try:
            self._begin_where_needed()
            self._record_refused()
            self._append(
                activity_of(event), fields_of(event), event.time, _PRIORITIES[event.outcome]
            )
        except AuditError:
            self._refused += 1
            raise

    def sync(self) -> None:
        """Write the file to disk. Blocks for milliseconds: call it from another thread.

        Raises `AuditError`. A power cut loses what was not synced and the kernel has not written;
        the journal's copy is on its way by then.
        """
        self._file.sync()

    def close(self) -> None:
        """End the chain, so that a reader knows that nothing follows."""
        try:
            self._append(
                self._lifecycle(4, "Stop", {"end": True}),
                {b"RINGFENCE_EVENT": b"stop"},
                time.time(),
            )
            self._file.sync()
        except AuditError:
            pass  # the end is missing, which verification reports as open
        finally:
            self._file.close()
            if self._journal is not None:
                self._journal.close()

    def _begin_where_needed(self) -> None:
        why = self._file.needs_new_file()
        if why is None:
            return
        anchor: dict[str, Any] = {"why": why, "anchor": None}
        if self._last is not None:
            last = self._last
            anchor["anchor"] = {"writer": last.writer, "sequence": last.sequence, "hash": last.hash}
        if why == "start":
            anchor["torn"] = self._file.torn_before
        begins = self._lifecycle(3 if why == "start" else 99, "Start", anchor)
        line, link = b"", None

        def first_line() -> bytes:
            nonlocal line, link
            line, link = self._chained(begins, time.time())
            return line

        try:
            self._file.begin(first_line)
        except AuditError:
            if why == "rotation":
                return  # the old file has reserved room
            raise
        self._written(line, link, {b"RINGFENCE_EVENT": why.encode()}, b"6")

    def _record_refused(self) -> None:
        """Record how many events found no room, now that there is some."""
        if self._refused:
            resume = self._lifecycle(99, "Resume", {"refused": self._refused})
            self._append(resume, {b"RINGFENCE_EVENT": b"resume"}, time.time(), b"4")
            self._refused = 0

    def _append(
        self,
        document: dict[str, Any],
        fields: Mapping[bytes, bytes],
        when: float,
        priority: bytes = b"6",
    ) -> None:
        line, link = self._chained(document, when)
        self._file.append(line)
        self._written(line, link, fields, priority)

    def _chained(self, document: dict[str, Any], when: float) -> tuple[bytes, ChainLink]:
        sequence = self._next
        document["time"] = int(when * 1000)
        document["metadata"] = {
            "version": OCSF_VERSION,
            "product": self._product,
            "log_name": IDENTIFIER,
            "uid": f"{self.writer}-{sequence}",
            "sequence": sequence,
            **document["metadata"],
        }
        document["unmapped"]["chain"] = {
            "writer": self.writer,
            "sequence": sequence,
            "previous": self._last.hash if self._last is not None else GENESIS,
        }
        line = _encoded(document)
        return line + b"\n", ChainLink(self.writer, sequence, digest(line))

    def _written(
        self, line: bytes, link: ChainLink | None, fields: Mapping[bytes, bytes], priority: bytes
    ) -> None:
        assert link is not None
        self._last = link
        self._next = link.sequence + 1
        if self._journal is not None:
            self._journal.send(
                {
                    b"MESSAGE": line[:-1],
                    b"PRIORITY": priority,
                    b"SYSLOG_IDENTIFIER": _IDENTIFIER,
                    b"RINGFENCE_WRITER": self._writer_field,
                    b"RINGFENCE_SEQUENCE": b"%d" % link.sequence,
                    **fields,
                }
            )

    def _lifecycle(self, activity: int, name: str, unmapped: dict[str, Any]) -> dict[str, Any]:
        """An event about the log itself: OCSF Application Lifecycle (6002)."""
        return {
            "class_uid": 6002,
            "class_name": "Application Lifecycle",
            "category_uid": 6,
            "category_name": "Application Activity",
            "activity_id": activity,
            "activity_name": name,
            "type_uid": 600200 + activity,
            "severity_id": 3 if "refused" in unmapped or unmapped.get("why") == "replaced" else 1,
            "app": self._product,
            "metadata": {},
            "unmapped": unmapped,
        }


def _encoded(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:  # a lone surrogate has no UTF-8; the event is recorded with a substitute
        text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
        return text.encode("utf-8", "replace")
