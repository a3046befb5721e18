"""Store the record: a chain of lines per host in daily files, and the seals of all chains."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hash_chain
import records

BLOCK = 64 * 1024
LARGEST_LINE = 1024 * 1024
MISSING_REMEMBERED = 100_000

# Fields that only the collector may set; those of senders are dropped.
RESERVED = frozenset(
    {
        *("record", "prev", "received", "source", "claimed_host", "unparsed"),
        *("duplicate", "renumbered", "newest", "missing", "repaired"),
    }
)


def days(directory: Path) -> list[Path]:
    """List the files of a chain, oldest first."""
    return sorted((*directory.glob("*.jsonl"), *directory.glob("*.jsonl.gz")), key=day_of)


def day_of(path: Path) -> str:
    return path.name.split(".", 1)[0]


def lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for content in file:
            yield content.removesuffix(b"\n")


def tail(path: Path, count: int) -> list[bytes]:
    """Read the last lines of a file without reading all of it."""
    if path.suffix == ".gz":
        return list(lines(path))[-count:]
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        blocks: list[bytes] = []
        found = 0
        while position and found <= count:
            step = min(BLOCK, position)
            position = file.seek(position - step)
            blocks.append(file.read(step))
            found += blocks[-1].count(b"\n")
    data = b"".join(reversed(blocks))
    return data.removesuffix(b"\n").split(b"\n")[-count:] if data else []


class Chain:
    """Append-only lines, each with the hash of the previous one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.day = ""
        self.head = hash_chain.GENESIS
        self.last: Mapping[str, Any] = {}
        self.torn = 0
        self._descriptor = -1
        self._unsynced = False
        directory.mkdir(exist_ok=True)
        for path in reversed(days(directory)):
            if path.suffix == ".jsonl":
                self.torn += _remove_torn_line(path)
            if found := tail(path, 1):
                self.head, self.last = hash_chain.digest(found[0]), _read(found[0])
                self.day = day_of(path)
                break

    def append(self, day: str, record: Mapping[str, Any]) -> None:
        day = max(day, self.day)  # a clock set back must not reorder the chain
        if day != self.day or self._descriptor < 0:
            self._open(day)
        content = records.line(record)
        data = content + b"\n"
        size = os.fstat(self._descriptor).st_size
        # Writes the line completely or not at all; the chain can continue after either.
        if os.write(self._descriptor, data) != len(data):
            os.ftruncate(self._descriptor, size)
            raise OSError(f"no space for a line in {self.directory}")
        self.head, self.last = hash_chain.digest(content), record
        self._unsynced = True

    def first_number(self) -> int:
        """Read the number of the first record in the last file."""
        for path in days(self.directory)[-1:]:
            for content in lines(path):
                return _read(content).get("record", 0)
        return 0

    def sync(self) -> None:
        if self._unsynced:
            os.fsync(self._descriptor)
            self._unsynced = False

    def _open(self, day: str) -> None:
        self.sync()
        path = self.directory / f"{day}.jsonl"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self.day = descriptor, day
        _sync_directory(self.directory)


class HostRecord:
    """The events of one host; marks duplicates."""

    def __init__(self, directory: Path) -> None:
        self._chain = Chain(directory)
        last = self._chain.last
        self.number: int = last.get("record", 0)
        self._stream: str | None = last.get("stream")
        # A record that is not the newest of its stream names the newest.
        newest: Mapping[str, Any] = last.get("newest") or last
        self._highest: int = newest.get("sequence") or 0
        self._latest: str = newest.get("time") or ""
        self._missing: set[int] = set()
        self._day, self._first = self._chain.day, self._chain.first_number()
        self.torn = self._chain.torn

    @property
    def head(self) -> Mapping[str, Any]:
        """The part of a seal: the end of the chain, and the first record of the day's file."""
        return {
            "day": self._chain.day,
            "first": self._first,
            "record": self.number,
            "hash": self._chain.head,
        }

    def write(
        self, event: Mapping[str, Any], received: str, source: str, **remarks: object
    ) -> None:
        record: dict[str, Any] = {
            "record": self.number + 1,
            "prev": self._chain.head,
            "received": received,
            "source": source,
            **{key: value for key, value in event.items() if key not in RESERVED},
            **remarks,
        }
        stream, sequence = record.get("stream"), record.get("sequence")
        before = self._stream, self._highest, self._latest, sequence in self._missing
        if isinstance(stream, str) and type(sequence) is int and 0 < sequence < 2**63:
            moment = record.get("time")
            record |= self._classify(stream, sequence, moment if isinstance(moment, str) else "")
        else:  # after a restart, the next record needs the state of the stream
            record |= {"stream": self._stream, "sequence": None, "newest": self._newest}
        try:
            self._chain.append(received[:10], record)
        except OSError:  # the retry must not look like a duplicate
            self._stream, self._highest, self._latest, late = before
            if late and isinstance(sequence, int):
                self._missing.add(sequence)
            raise
        self.number += 1
        if self._chain.day != self._day:
            self._day, self._first = self._chain.day, self.number

    def sync(self) -> None:
        self._chain.sync()

    @property
    def _newest(self) -> Mapping[str, Any]:
        return {"sequence": self._highest, "time": self._latest}

    def _classify(self, stream: str, sequence: int, moment: str) -> dict[str, Any]:
        """Classify an event by its sequence number, and update the state of the stream."""
        if stream != self._stream:
            self._stream, self._highest, self._latest = stream, 0, ""
            self._missing.clear()
        remarks: dict[str, Any] = {}
        if sequence in self._missing:
            self._missing.remove(sequence)
        elif sequence <= self._highest and moment <= self._latest:
            remarks["duplicate"] = True
        elif sequence <= self._highest:
            # Newer than every event before, so no duplicate: the host crashed, and its journal lost
            # the entry with this number.
            remarks["renumbered"] = True
            self._highest = sequence
        else:
            if gap := range(self._highest + 1, sequence):
                remarks["missing"] = len(gap)
                self._missing.update(gap[-MISSING_REMEMBERED:])
                if len(self._missing) > MISSING_REMEMBERED:
                    self._missing = set(sorted(self._missing)[-MISSING_REMEMBERED:])
            self._highest = sequence
        self._latest = max(self._latest, moment)
        if (sequence, moment) != (self._highest, self._latest):
            remarks["newest"] = self._newest
        return remarks


class Seals:
    """Seals the heads of all chains with a key that is destroyed afterwards."""

    def __init__(self, directory: Path, key_file: Path) -> None:
        self._chain = Chain(directory)
        self._key_file = key_file
        state = json.loads(key_file.read_text())
        self._number: int = state["next"]
        self._key = bytes.fromhex(state["key"])
        if self._chain.last.get("seal") == self._number:
            self._advance()  # it stopped between writing the seal and replacing the key

    def write(self, moment: str, heads: Mapping[str, Mapping[str, Any]]) -> None:
        seal = {
            "seal": self._number,
            "prev": self._chain.head,
            "time": moment,
            "heads": dict(heads),
        }
        self._chain.append(moment[:10], seal | {"mac": records.mac(self._key, seal)})
        self._chain.sync()
        self._advance()

    def _advance(self) -> None:
        self._number += 1
        self._key = records.next_key(self._key)
        staged = self._key_file.with_suffix(".new")
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"next": self._number, "key": self._key.hex()}, file)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(self._key_file)
        _sync_directory(self._key_file.parent)


def _read(content: bytes) -> Mapping[str, Any]:
    try:
        return records.parse(content)
    except records.RecordError:
        return {}


def _remove_torn_line(path: Path) -> int:
    """Remove an incomplete last line after a power failure, which would break the chain.

    It was not acknowledged, so its sender still has the event.
    """
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - LARGEST_LINE)
        file.seek(start)
        data = file.read()
        if not data or data.endswith(b"\n"):
            return 0
        file.truncate(start + data.rfind(b"\n") + 1)
        os.fsync(file.fileno())
        return len(data) - data.rfind(b"\n") - 1


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
