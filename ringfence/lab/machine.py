"""One host: Debian, booted by systemd-nspawn on its own file tree.

The supervisor of a host runs in a private mount namespace. The overlay and all other mounts exist
only there and end with the last process of the host.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from ringfence.lab import directories
from ringfence.lab.cgroup import Cgroup, CgroupLimits, hierarchies
from ringfence.lab.errors import LabError
from ringfence.lab.network import NAMESPACES
from ringfence.lab.plan import LabNode
from ringfence.lab.process import joining, spawn

BOOT = """
unified=$1 group=$2 options=$3 root=$4; shift 4
mount -t overlay overlay -o "$options" "$root"
# systemd in the host needs the v2 hierarchy. A v1 mount there is hidden in this namespace only.
if [ "$unified" = no ]; then
  umount --recursive --lazy /sys/fs/cgroup
  mount -t cgroup2 none /sys/fs/cgroup
fi
# nspawn writes lock and propagation files here.
mkdir -p /run/systemd
mount -t tmpfs -o mode=755 tmpfs /run/systemd
# Status 133: the host reboots itself.
status=133
while [ "$status" = 133 ]; do
  status=0
  /bin/sh -euc 'echo 0 > "$1"; shift; exec systemd-nspawn "$@"' sh \
    "/sys/fs/cgroup/$group/cgroup.procs" --directory="$root" "$@" || status=$?
done
exit "$status"
"""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = (f"PATH={PATH}", "HOME=/root", "USER=root", "LOGNAME=root", "LANG=C.UTF-8")

BOOT_PATIENCE = 120.0


class LabMachine:
    def __init__(self, lab: str, node: LabNode, image: Path, limits: CgroupLimits) -> None:
        self.node = node
        self.name = node.name
        self.image = image
        self.limits = limits
        self.cgroup = Cgroup(f"lab-{lab}/host-{node.name}")
        self.directory = directories.LABS / lab / "hosts" / node.name

    @property
    def seed(self) -> Path:
        return self.directory / "seed"

    @property
    def upper(self) -> Path:
        """Files that the host has written, above the image."""
        return self.directory / "upper"

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    @property
    def ready(self) -> Path:
        """File that exists once the host has come up after its last boot."""
        return self.directory / "ready"

    @property
    def running(self) -> bool:
        return self.cgroup.populated

    @property
    def leader(self) -> int | None:
        """Process id, on this machine, of the host's process 1."""
        for group in self.cgroup.v2.glob("**/payload/init.scope/cgroup.procs"):
            with contextlib.suppress(OSError):
                for pid in group.read_text().split():
                    if _is_init(int(pid)):
                        return int(pid)
        return None

    def renew(self) -> None:
        """Discard the files that the host has written, so its next boot is a first boot."""
        self.kill()
        # Renamed once complete, so a killed attempt leaves no partial tree.
        partial = self.directory / "upper.partial"
        for directory in (self.upper, self.directory / "work", partial):
            shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(self.seed, partial, symlinks=True)
        partial.rename(self.upper)

    def boot(self) -> list[str]:
        """Start the host without waiting; return the limits that this machine cannot enforce."""
        self.ready.unlink(missing_ok=True)
        self.cgroup.remove()
        missing = self.cgroup.create(self.limits)
        # cgroup v2 allows processes only in leaf groups.
        keeper, system = self._group("keeper"), self._group("system")
        keeper.create()
        system.create()
        self.cgroup.delegate()
        root, work = self.directory / "root", self.directory / "work"
        for directory in (root, work):
            directory.mkdir(exist_ok=True)
        options = f"lowerdir={self.image},upperdir={self.upper},workdir={work}"
        unified = "yes" if hierarchies().unified else "no"
        spawn(
            [
                *["unshare", "--mount", "--propagation", "slave", "--"],
                *["/bin/sh", "-euc", BOOT, "sh", unified, system.name, options, str(root)],
                *["--quiet", "--settings=no", "--boot", "--register=no", "--keep-unit"],
                *[f"--machine={self.name}", "--link-journal=no", "--console=pipe"],
                *["--resolv-conf=off", "--timezone=off"],
                *[f"--network-namespace-path={NAMESPACES / self.node.namespace}"],
                "--capability=CAP_NET_ADMIN,CAP_BPF",
                # BPF makes IPAddressDeny= and DevicePolicy= of units work, as on a real host.
                "--system-call-filter=bpf",
                # The page cache survives a killed host, so syncing would only cost time.
                "--suppress-sync=yes",
            ],
            keeper,
            self.console,
            # The host has its own network, so it may change network settings.
            {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"},
        )
        return missing

    def wait(self, abandon: Event) -> list[str]:
        """Wait until the host is up or `abandon` is set; return its failed units."""
        deadline = time.monotonic() + BOOT_PATIENCE
        while time.monotonic() < deadline and not abandon.is_set():
            if not self.running:
                raise LabError(f"{self.name} stopped while it booted: {self._last_words()}")
            state = self._system_state()
            if state == "running":
                return []
            if state == "degraded":
                return self._failed_units()
            time.sleep(0.1)
        raise LabError(
            f"{self.name} is not up after {BOOT_PATIENCE:.0f} s: {self._pending()} "
            f"(see {self.console})"
        )

    def _system_state(self) -> str:
        """Return the state of systemd: at once if the boot has ended, else after a second."""
        if not self.leader:
            return "initializing"
        wait = ["timeout", "1", "systemctl", "is-system-running", "--wait"]
        try:
            return self.run(wait, timeout=30).stdout.strip()
        except LabError:
            # Process 1 has ended, or this machine is busy.
            return "initializing"

    def _pending(self) -> str:
        if not self.leader:
            return "its process 1 has not started"
        jobs = self.run(["systemctl", "list-jobs", "--no-legend", "--plain"], timeout=30)
        units = [line.split()[1] for line in jobs.stdout.splitlines() if len(line.split()) > 1]
        return f"waiting for {', '.join(units)}" if units else "systemd does not answer"

    def _last_words(self) -> str:
        lines = (
            self.console.read_text(errors="replace").split("\n") if self.console.exists() else []
        )
        last = [line.strip() for line in lines if line.strip()][-1:] or ["its console is empty"]
        return f"{last[0]} (see {self.console})"

    def kill(self) -> None:
        """Turn the host off without a shutdown."""
        self.cgroup.remove()

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command for this machine that runs a command as root in the host."""
        leader = self.leader
        if not leader:
            raise LabError(f"{self.name} is not running; remedy: ringfence lab up")
        group = self._group("exec")
        group.create()
        enter = ["nsenter", "--target", str(leader), "--mount", "--uts", "--ipc", "--net"]
        enter += ["--pid", "--cgroup", "--root", "--wd", "--"]
        # nsenter keeps this machine's capabilities, but root in the host has fewer.
        bound = ["setpriv", f"--bounding-set={_capabilities(leader)}", "--"]
        terminal = [f"TERM={os.environ['TERM']}"] if "TERM" in os.environ else []
        return joining(group, [*enter, "env", "-i", *ENVIRONMENT, *terminal, *bound, *argv])

    def run(
        self, argv: Sequence[str], *, input: str | None = None, timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                self.command(argv),
                input=input,
                stdin=subprocess.DEVNULL if input is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"{argv[0]} on {self.name} took over {timeout:.0f} s") from None

    @property
    def uptime(self) -> float | None:
        """Seconds since the host's process 1 started."""
        leader = self.leader
        if not leader:
            return None
        try:
            fields = Path(f"/proc/{leader}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        ticks = int(fields[19]) / 100
        return float(Path("/proc/uptime").read_text().split()[0]) - ticks

    def _group(self, name: str) -> Cgroup:
        return Cgroup(f"{self.cgroup.path}/{name}")

    def _failed_units(self) -> list[str]:
        listing = self.run(["systemctl", "list-units", "--failed", "--plain", "--no-legend"])
        return [line.split()[0] for line in listing.stdout.splitlines() if line.strip()]


def _capabilities(pid: int) -> str:
    """Return the capability bounding set of a process in the syntax of setpriv."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            mask = int(line.split()[1], 16)
            numbers = [n for n in range(mask.bit_length()) if mask >> n & 1]
            return ",".join(["-all", *(f"+cap_{n}" for n in numbers)])
    raise LabError(f"process {pid} has no capability sets")


def _is_init(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return any(
        line.startswith("NSpid:") and line.split()[-1] == "1" for line in status.splitlines()
    )
