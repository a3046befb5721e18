"""Files that processes share: complete or absent, locked by one, read again after a change."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

import pytest

from ringfence.gateway.state import shared_files
from ringfence.gateway.state.shared_files import SETTLED_SECONDS, Directory

NAMES = re.compile(r"[a-z]+\.txt")


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_as_a_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"before")
    kept = path.open("rb")
    shared_files.replace(path, b"after", durable=durable)
    assert path.read_bytes() == b"after"
    assert kept.read() == b"before", "it was written in place"
    assert stat.S_IMODE(path.stat().st_mode) == shared_files.MODE
    assert names(tmp_path) == ["a.txt"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"kept")
    (tmp_path / "a.txt").symlink_to(tmp_path / "target")
    shared_files.replace(tmp_path / "a.txt", b"new")
    assert (tmp_path / "target").read_bytes() == b"kept"


@pytest.mark.parametrize("call", ["fchmod", "fsync", "rename"])
def test_a_failed_write_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "a.txt"
    path.write_bytes(b"before")
    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space"):
        shared_files.replace(path, b"after")
    monkeypatch.undo()
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["a.txt"]


def test_only_the_first_creates_a_file(tmp_path: Path) -> None:
    assert shared_files.create(tmp_path / "a.txt", b"first")
    assert not shared_files.create(tmp_path / "a.txt", b"second")
    assert (tmp_path / "a.txt").read_bytes() == b"first"
    assert names(tmp_path) == ["a.txt"]


def test_only_the_first_claims_a_name(tmp_path: Path) -> None:
    assert shared_files.claim(f"{tmp_path}/a")
    assert not shared_files.claim(f"{tmp_path}/a")


def test_a_lock_has_one_holder_until_it_is_closed(tmp_path: Path) -> None:
    held = shared_files.lock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        shared_files.lock(tmp_path / "lock", wait=False)
    held.close()
    shared_files.lock(tmp_path / "lock", wait=False).close()


@pytest.mark.parametrize("what", ["link", "pipe", "directory", "large"])
def test_only_a_plain_small_file_is_read(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.txt"
    if what == "link":
        (tmp_path / "target").write_bytes(b"x")
        path.symlink_to(tmp_path / "target")
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    else:
        path.write_bytes(b"x" * 11)
    with pytest.raises((OSError, ValueError)):
        shared_files.read(path, 10)


def test_a_file_within_the_limit_is_read_and_a_link_where_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"x" * 10)
    (tmp_path / "a.txt").symlink_to(tmp_path / "target")
    assert shared_files.read(tmp_path / "target", 10) == b"x" * 10
    assert shared_files.read(tmp_path / "a.txt", 10, follow=True) == b"x" * 10


class TestDirectory:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def directory(self, tmp_path: Path, clock: Clock) -> Directory:
        return Directory(str(tmp_path), NAMES, clock)

    def settle(self, directory: Directory, clock: Clock) -> None:
        directory.changes()
        clock.seconds += 2 * SETTLED_SECONDS
        directory.changes()
        assert directory.changes() is None

    def test_reports_new_replaced_and_missing_files(
        self, directory: Directory, clock: Clock, tmp_path: Path
    ) -> None:
        (tmp_path / "a.txt").touch()
        (tmp_path / "b.txt").touch()
        (tmp_path / "OTHER").touch()
        first = directory.changes()
        assert first is not None
        assert first.changed == {"a.txt", "b.txt"}
        assert first.unknown.keys() == {"OTHER"}
        self.settle(directory, clock)
        shared_files.replace(tmp_path / "a.txt", b"another")
        (tmp_path / "b.txt").unlink()
        second = directory.changes()
        assert second is not None
        assert (second.changed, second.gone) == ({"a.txt"}, {"b.txt"})

    def test_looks_again_within_one_tick_of_the_clock(
        self, directory: Directory, tmp_path: Path
    ) -> None:
        (tmp_path / "a.txt").touch()
        directory.changes()
        status = tmp_path.stat()
        (tmp_path / "b.txt").touch()
        os.utime(tmp_path, ns=(status.st_atime_ns, status.st_mtime_ns))
        later = directory.changes()
        assert later is not None
        assert later.changed == {"b.txt"}

    def test_takes_one_stat_while_nothing_changes(
        self, directory: Directory, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.settle(directory, clock)
        monkeypatch.setattr(os, "scandir", None)
        assert directory.changes() is None

    def test_reports_a_watched_file_that_is_completed_in_place(
        self, directory: Directory, clock: Clock, tmp_path: Path
    ) -> None:
        path = tmp_path / "a.txt"
        path.write_bytes(b"ha")
        directory.changes()
        directory.watch("a.txt")
        self.settle(directory, clock)
        path.write_bytes(b"half no more")
        (tmp_path / "b.txt").touch()
        changes = directory.changes()
        assert changes is not None
        assert changes.changed == {"a.txt", "b.txt"}

    def test_that_is_gone_and_comes_back_is_new(
        self, directory: Directory, clock: Clock, tmp_path: Path
    ) -> None:
        (tmp_path / "a.txt").touch()
        self.settle(directory, clock)
        away = tmp_path.rename(tmp_path.with_name("away"))
        with pytest.raises(FileNotFoundError):
            directory.changes()
        away.rename(tmp_path)
        changes = directory.changes()
        assert changes is not None
        assert changes.changed == {"a.txt"}


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "revoked.json"
    kept = {"revoked.json", ".revoked.json.lock", ".other.json.0123456789abcdef"}
    for name in (*kept, ".revoked.json.0123456789abcdef"):
        (tmp_path / name).touch()
    shared_files.sweep(path)
    assert set(names(tmp_path)) == kept
