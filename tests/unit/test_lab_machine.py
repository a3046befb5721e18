"""Requirements of the lab, and its messages when they are not met."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ringfence import cli
from ringfence.lab import directories, kernel, packages, requirements
from ringfence.lab.cgroup import read_hierarchies

EMBEDDED = Path(__file__).parents[2] / "inventories/lab/environment.yaml"

UNIFIED = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"
HYBRID = """\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
"""


def test_unified_hierarchy_needs_nothing_else() -> None:
    found = read_hierarchies(UNIFIED)
    assert found
    assert found.unified
    assert not found.v1


def test_controllers_that_v1_keeps_are_found() -> None:
    found = read_hierarchies(HYBRID)
    assert found
    assert not found.unified
    assert found.v2 == Path("/sys/fs/cgroup/unified")
    assert found.v1 == {
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "memory": Path("/sys/fs/cgroup/memory"),
    }


def test_machine_without_v2_is_told_apart() -> None:
    assert read_hierarchies("cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n") is None


def test_mirror_is_that_of_the_machine() -> None:
    uris = [
        "https://mirror.example.net/pub/debian/",
        "http://security.example.net/debian-security",
        "https://packages.example.com/other",
        "file:/srv/debian",
    ]
    assert packages.choose_mirrors(uris) == {
        "debian": "https://mirror.example.net/pub/debian",
        "debian-security": "http://security.example.net/debian-security",
    }


def test_mirror_is_debians_own_on_another_distribution() -> None:
    mirrors = packages.choose_mirrors(["http://archive.ubuntu.com/ubuntu/"])
    assert set(mirrors.values()) == {
        "http://deb.debian.org/debian",
        "http://deb.debian.org/debian-security",
    }


def test_without_root_the_lab_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    reason = requirements.unavailable()
    assert reason
    assert "root" in reason
    assert "remedy: run this again as root" in reason
    assert "\n" not in reason


def test_elsewhere_than_on_linux_the_lab_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "Linux" in (requirements.unavailable() or "")


def test_missing_programs_are_named_by_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(requirements.shutil, "which", lambda _: None)
    reason = requirements.unavailable() or ""
    assert "systemd-container" in reason
    assert "mmdebstrap" in reason
    assert "remedy: ringfence lab prepare" in reason


def test_command_fails_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main(["lab", "up", str(EMBEDDED)]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("ringfence lab: ")


def test_lock_is_held_by_one(tmp_path: Path) -> None:
    directory = tmp_path / "lab"
    with (
        directories.locked(directory),
        pytest.raises(BlockingIOError),
        directories.locked(directory, wait=False),
    ):
        pytest.fail("two hold the same lock")
    with directories.locked(directory, wait=False):
        assert directory.is_dir()


def test_lock_on_a_directory_that_was_removed_is_worth_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "lab"
    with directories.locked(directory):
        directory.rmdir()
        with directories.locked(directory, wait=False):
            assert directory.is_dir()


@pytest.fixture
def instances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulate a machine whose kernel has its default limit, with one lab."""
    monkeypatch.setattr(kernel, "INSTANCES", tmp_path / "max_user_instances")
    monkeypatch.setattr(directories, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(directories, "LABS", tmp_path / "labs")
    kernel.INSTANCES.write_text("128\n")
    (directories.LABS / "one").mkdir(parents=True)
    return kernel.INSTANCES


def test_limit_of_the_kernel_is_restored_with_the_last_lab(instances: Path) -> None:
    kernel.raise_limits()
    kernel.raise_limits()
    assert int(instances.read_text()) == kernel.ENOUGH
    kernel.restore_limits()
    assert int(instances.read_text()) == kernel.ENOUGH
    (directories.LABS / "one").rmdir()
    kernel.restore_limits()
    assert int(instances.read_text()) == 128


def test_limit_that_is_high_enough_is_left_alone(instances: Path) -> None:
    instances.write_text("8192\n")
    kernel.raise_limits()
    (directories.LABS / "one").rmdir()
    kernel.restore_limits()
    assert instances.read_text() == "8192\n"
