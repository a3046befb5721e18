"""Control groups: one limits, counts and kills all processes of a lab together.

Membership is in the v2 hierarchy: only v2 can kill a group at once and without a race. Limits are
set in v1 for the controllers that this machine still has there, else in v2.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ringfence.lab.errors import LabError, UnusableError

PARENT = "ringfence"
CONTROLLERS = ("cpu", "memory", "pids")


@dataclass(frozen=True)
class CgroupLimits:
    memory_mib: int = 2048
    tasks: int = 2048
    cpu_weight: int = 100


@dataclass(frozen=True)
class Hierarchies:
    v2: Path
    v1: dict[str, Path]
    """Mount point of each controller in v1."""

    @property
    def unified(self) -> bool:
        """Return whether /sys/fs/cgroup is the v2 hierarchy, as systemd expects."""
        return self.v2 == Path("/sys/fs/cgroup")


@cache
def hierarchies() -> Hierarchies:
    """Return the hierarchies of this machine."""
    mounts = Path("/proc/self/mounts")
    found = read_hierarchies(mounts.read_text()) if mounts.exists() else None
    if not found:
        raise UnusableError(
            "no cgroup2 file system is mounted; remedy: "
            "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"
        )
    return found


def read_hierarchies(mounts: str) -> Hierarchies | None:
    """Read hierarchies from a table of mounts; None if it has no v2."""
    v2: Path | None = None
    v1: dict[str, Path] = {}
    for line in mounts.splitlines():
        _, mount_point, kind, options, *_ = line.split()
        if kind == "cgroup2":
            v2 = v2 or Path(mount_point)
        elif kind == "cgroup":
            for controller in set(CONTROLLERS) & set(options.split(",")):
                v1[controller] = Path(mount_point)
    return Hierarchies(v2, v1) if v2 else None


@dataclass(frozen=True)
class Cgroup:
    """One group, named by its path below the parent group of all labs."""

    path: str

    @property
    def v2(self) -> Path:
        return hierarchies().v2 / PARENT / self.path

    def _v1(self, controller: str) -> Path:
        return hierarchies().v1[controller] / PARENT / self.path

    @property
    def name(self) -> str:
        """Path from the root of the hierarchy."""
        return f"{PARENT}/{self.path}"

    @property
    def membership_files(self) -> list[Path]:
        """Files to which a process writes 0 to join."""
        files = [self.v2 / "cgroup.procs"]
        for root in hierarchies().v1.values():
            # Groups below a group with limits exist only in v2.
            directory = root / self.name
            while not directory.is_dir():
                directory = directory.parent
            if directory != root:
                files.append(directory / "cgroup.procs")
        return files

    def create(self, limits: CgroupLimits | None = None) -> list[str]:
        """Create the group; return the limits that this machine cannot enforce."""
        self.v2.mkdir(parents=True, exist_ok=True)
        if not limits:
            return []
        missing = []
        for controller in CONTROLLERS:
            try:
                self._limit(controller, limits)
            except OSError:
                missing.append(controller)
        return missing

    def _limit(self, controller: str, limits: CgroupLimits) -> None:
        if controller in hierarchies().v1:
            directory = self._v1(controller)
            directory.mkdir(parents=True, exist_ok=True)
            name, value = {
                "cpu": ("cpu.shares", limits.cpu_weight * 1024 // 100),
                "memory": ("memory.limit_in_bytes", limits.memory_mib * 2**20),
                "pids": ("pids.max", limits.tasks),
            }[controller]
        else:
            directory = self.v2
            above = [hierarchies().v2]
            for name in directory.relative_to(hierarchies().v2).parts[:-1]:
                above.append(above[-1] / name)
            for parent in above:
                (parent / "cgroup.subtree_control").write_text(f"+{controller}")
            name, value = {
                "cpu": ("cpu.weight", limits.cpu_weight),
                "memory": ("memory.max", limits.memory_mib * 2**20),
                "pids": ("pids.max", limits.tasks),
            }[controller]
        (directory / name).write_text(str(value))

    def delegate(self) -> None:
        """Enable the controllers of this group for the groups below it."""
        available = (self.v2 / "cgroup.controllers").read_text().split()
        for controller in available:
            with contextlib.suppress(OSError):
                (self.v2 / "cgroup.subtree_control").write_text(f"+{controller}")

    @property
    def populated(self) -> bool:
        try:
            return "populated 1" in (self.v2 / "cgroup.events").read_text()
        except OSError:
            return False

    def _kill(self, patience: float = 60) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.v2 / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + patience
        while self.populated:
            if time.monotonic() > deadline:
                raise LabError(f"processes in {self.v2} do not die; see its cgroup.procs files")
            time.sleep(0.02)

    def remove(self) -> None:
        """Kill every process in the group and below it; remove the group and those below it.

        Do not use a killed group again: the kernel also kills processes that are later cloned from
        it into another group (`kill_seq` in clone3).
        """
        self._kill()
        directories = [self.v2, *(self._v1(controller) for controller in hierarchies().v1)]
        for directory in directories:
            _remove_tree(directory)
            # The common parent is removed with the last lab.
            with contextlib.suppress(OSError):
                directory.parent.rmdir()


def names(prefix: str) -> list[str]:
    """Return the top-level groups whose names begin with a prefix, in any hierarchy."""
    roots = [hierarchies().v2, *hierarchies().v1.values()]
    return sorted(
        {
            path.name
            for root in roots
            for path in (root / PARENT).glob(f"{prefix}*")
            if path.is_dir()
        }
    )


def _remove_tree(directory: Path, attempts: int = 100) -> None:
    if not directory.is_dir():
        return
    for path in sorted((p for p in directory.rglob("*") if p.is_dir()), reverse=True):
        _rmdir(path, attempts)
    _rmdir(directory, attempts)


def _rmdir(directory: Path, attempts: int) -> None:
    """Remove a group; retry, because it stays busy for a moment after its last process ends."""
    for _ in range(attempts):
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise LabError(f"{directory} cannot be removed; see its cgroup.procs")
