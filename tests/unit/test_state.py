"""Files of the state directory are complete, private, and written by one process at a time."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from ringfence.identity import state
from ringfence.identity.state import StateError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def _open_umask():
    """Set the most permissive umask: privacy must not depend on it."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_private_files_and_every_new_directory_are_their_owners(tmp_path: Path) -> None:
    path = tmp_path / "state" / "pki" / "ca.key"
    state.write(path, b"key")
    assert (mode(path), mode(path.parent), mode(path.parent.parent)) == (0o600, 0o700, 0o700)
    state.append(path.with_name("journal"), "line")
    assert mode(path.with_name("journal")) == 0o600
    state.write(path, b"certificate", state.PUBLIC)
    assert (path.read_bytes(), mode(path)) == (b"certificate", 0o644)


def test_a_staged_file_is_private_before_it_has_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed: list[tuple[int, int]] = []
    fdopen = os.fdopen

    def observe(descriptor: int, flags: str):
        found = os.fstat(descriptor)
        observed.append((stat.S_IMODE(found.st_mode), found.st_size))
        return fdopen(descriptor, flags)

    monkeypatch.setattr(os, "fdopen", observe)
    state.write(tmp_path / "key", b"secret")
    assert observed == [(0o600, 0)]


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    state.write(path, b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        state.write(path, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["key"]
    assert path.read_bytes() == b"old"


def test_an_existing_file_is_not_created_again(tmp_path: Path) -> None:
    path = tmp_path / "alice"
    assert state.create(path, b"first")
    assert not state.create(path, b"second")
    assert (path.read_bytes(), mode(path)) == (b"first", 0o600)


def test_what_others_can_read_is_not_private(tmp_path: Path) -> None:
    path = tmp_path / "key"
    state.write(path, b"key")
    assert state.read_private(path) == b"key"
    path.chmod(0o640)
    with pytest.raises(StateError, match=f"run: chmod 600 {path}"):
        state.read_private(path)
    with pytest.raises(StateError, match="cannot be read: No such file"):
        state.read_private(tmp_path / "none")


def count_up(path: Path) -> None:
    for _ in range(50):
        with state.locked(path.parent):
            state.write(path, str(int(path.read_bytes()) + 1).encode())


def test_one_process_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "count"
    state.write(path, b"0")
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(count_up, [path] * 4))
    assert path.read_bytes() == b"200"
    assert mode(tmp_path / ".lock") == 0o600


def test_a_state_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StateError, match="file/state cannot be written: Not a directory"),
        state.locked(tmp_path / "file" / "state"),
    ):
        pass
