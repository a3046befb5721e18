#!/usr/bin/python
"""Ansible module: restore files after a timeout unless their change is confirmed."""

from __future__ import annotations

import fcntl
import json
import shlex
import shutil
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: deadman_switch
short_description: Restore files after a timeout unless their change is confirmed
description:
  - C(armed) saves paths and starts a timer on the host that outlives the connection. When the timer
    expires, or the host boots before that, the switch restores the paths; the timer also runs the
    commands that activate them.
  - C(disarmed) stops the timer; C(fired) restores at once.
  - Arming an armed switch keeps the saved state, which is the last confirmed one, and restarts the
    timer.
options:
  name: {description: Name of the switch., type: str, required: true}
  state:
    description: State of the switch.
    choices: [armed, disarmed, fired]
    type: str
    required: true
  paths:
    description: >-
      Absolute paths of files and directories to save. A restore removes those that do not exist
      when the switch is armed.
    type: list
    elements: str
    default: []
  commands:
    description: Shell commands that reload services after a restore.
    type: list
    elements: str
    default: []
  seconds: {description: Seconds until the restore., type: int, default: 120}
  applied:
    description: With C(disarmed), file to write C(digest) to. See the module C(tree).
    type: path
  digest: {description: Digest of the confirmed files., type: str}
"""

RETURN = """
fired:
  description: Whether the previous state was already restored, so that there was nothing to disarm.
  type: bool
  returned: state is disarmed
"""

ATTEMPTS = 25
ROOM = Path("/var/lib/ringfence/deadman-switch")
UNITS = Path("/etc/systemd/system")

RESTORE = """\
#!/bin/sh
# Written by Ringfence. Restores the state saved before an unconfirmed change.
# With the argument `boot`, services that read the files have not started yet.
umask 077
cd {room} || exit 1
exec 9>{name}.lock
flock 9
[ -e {name}/saved.tar ] || exit 0
logger -p auth.warning -t ringfence-deadman-switch "{name}: restoring the previous state" || :
rm -rf {name}.rejected
mkdir {name}.rejected
tar -C / --ignore-failed-read -cf {name}.rejected/rejected.tar {relative} 2>/dev/null ||
  rm -f {name}.rejected/rejected.tar
# Removes nothing before the saved state has unpacked without an error.
mkdir -p {name}/trial
tar -C {name}/trial --xattrs --acls -xpf {name}/saved.tar || {{ rm -rf {name}/trial; exit 1; }}
rm -rf {name}/trial
rm -rf -- {absolute}
tar -C / --xattrs --acls -xpf {name}/saved.tar || exit 1
sync
status=0
if [ "${{1:-}}" != boot ]; then
{commands}
fi
mv {name}/* {name}.rejected/
rmdir {name}
systemctl disable --no-reload {unit}.service 2>/dev/null
rm -f {units}/{unit}.service
logger -p auth.warning -t ringfence-deadman-switch "{name}: restored (status $status)" || :
exit $status
"""

BOOT_UNIT = """\
# Written by Ringfence. A host that boots before a change is confirmed comes up without it.
[Unit]
Description=Restore files whose change was never confirmed ({name})
DefaultDependencies=no
After=local-fs.target
Before=sysinit.target network-pre.target nftables.service ssh.service shutdown.target
Conflicts=shutdown.target
ConditionPathExists={room}/{name}/saved.tar

[Service]
Type=oneshot
ExecStart=/bin/sh {room}/{name}/restore boot

[Install]
WantedBy=sysinit.target
"""


class Switch:
    def __init__(self, module: AnsibleModule, name: str):
        self.module = module
        self.name = name
        self.unit = f"ringfence-deadman-switch-{name}"
        self.timer = f"{self.unit}-timeout"
        self.directory = ROOM / name

    @property
    def is_armed(self) -> bool:
        return (self.directory / "saved.tar").exists()

    @property
    def has_fired(self) -> bool:
        return (ROOM / f"{self.name}.rejected" / "saved.tar").exists()

    def arm(self, paths: list[str], commands: list[str], seconds: int) -> None:
        with self.locked():
            if not self.is_armed:
                self.save(paths, commands)
            # Enabled before the change, to cover a power failure.
            (UNITS / f"{self.unit}.service").write_text(BOOT_UNIT.format(name=self.name, room=ROOM))
            self.run("systemctl", "enable", "--quiet", f"{self.unit}.service")
            self.stop_timer()
            self.start_timer(seconds)

    def save(self, paths: list[str], commands: list[str]) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(ROOM / f"{self.name}.rejected", ignore_errors=True)
        self.directory.mkdir(mode=0o700)
        relative = [path.lstrip("/") for path in paths]
        present = [path for path in relative if Path("/", path).exists()]
        partial = self.directory / "saved.partial"
        # An empty file list lets tar write an empty archive if there is nothing to save.
        options = ("--xattrs", "--acls", "--files-from=/dev/null")
        self.run("tar", "-C", "/", *options, "-cpf", str(partial), "--", *present)
        script = RESTORE.format(
            room=ROOM,
            name=self.name,
            unit=self.unit,
            units=UNITS,
            relative=shlex.join(relative),
            absolute=shlex.join(paths),
            commands="\n".join(f"{command} || status=$?" for command in commands) or ":",
        )
        (self.directory / "restore").write_text(script)
        # Last: without this file there is nothing to restore.
        partial.rename(self.directory / "saved.tar")
        self.run("sync", "-f", str(self.directory))

    def disarm(self) -> bool:
        """Stop the switch; False if it had already restored the previous state."""
        with self.locked():
            self.stop_timer()
            armed = self.is_armed
            if armed:
                (self.directory / "saved.tar").unlink()
            shutil.rmtree(self.directory, ignore_errors=True)
            self.run("systemctl", "disable", "--quiet", f"{self.unit}.service")
            (UNITS / f"{self.unit}.service").unlink(missing_ok=True)
        return armed

    def fire(self) -> None:
        self.module.run_command(["systemctl", "stop", f"{self.timer}.timer"])
        self.run("/bin/sh", str(self.directory / "restore"))

    def start_timer(self, seconds: int) -> None:
        command = [
            "systemd-run",
            "--quiet",
            "--collect",
            f"--unit={self.timer}",
            f"--on-active={seconds}",
            "--timer-property=AccuracySec=1s",
            "/bin/sh",
            str(self.directory / "restore"),
        ]
        # systemd accepts no new timer of this name until it has released the stopped one.
        for _ in range(ATTEMPTS):
            if self.module.run_command(command)[0] == 0:
                return
            time.sleep(0.2)
        self.run(*command)

    def stop_timer(self) -> None:
        # systemctl fails if the timer does not exist, which is fine here.
        self.module.run_command(["systemctl", "stop", f"{self.timer}.timer"])

    def locked(self):
        ROOM.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (ROOM / f"{self.name}.lock").open("w")
        # A restore holds the lock only briefly.
        for _ in range(100):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                time.sleep(0.2)
        self.module.fail_json(msg=f"the dead-man's switch {self.name} is busy restoring")
        raise AssertionError

    def run(self, *command: str) -> None:
        status, output, errors = self.module.run_command(list(command))
        if status:
            self.module.fail_json(
                msg=f"{command[0]} ended with {status}: {(errors or output).strip()}"
            )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"choices": ["armed", "disarmed", "fired"], "required": True},
            "paths": {"type": "list", "elements": "str", "default": []},
            "commands": {"type": "list", "elements": "str", "default": []},
            "seconds": {"type": "int", "default": 120},
            "applied": {"type": "path"},
            "digest": {"type": "str"},
        },
        required_if=[("state", "armed", ["paths", "commands"])],
        required_together=[("applied", "digest")],
        supports_check_mode=True,
    )
    name, state = module.params["name"], module.params["state"]
    if not name.replace("-", "").replace("_", "").isalnum():
        module.fail_json(msg=f"{json.dumps(name)} is not a valid name for a dead-man's switch")
    if bad := [p for p in module.params["paths"] if not p.startswith("/") or Path(p) == Path("/")]:
        module.fail_json(msg=f"paths must be absolute and below the root: {', '.join(bad)}")
    switch = Switch(module, name)
    armed = switch.is_armed
    if module.check_mode:
        module.exit_json(changed=state == "armed" or armed, fired=False)
    if state == "armed":
        switch.arm(module.params["paths"], module.params["commands"], module.params["seconds"])
        module.exit_json(changed=True)
    if state == "fired":
        if armed:
            switch.fire()
        module.exit_json(changed=armed)
    if armed:
        armed = switch.disarm()
    if (applied := module.params["applied"]) and not (switch.has_fired and not armed):
        Path(applied).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(applied).write_text(f"{module.params['digest']}\n")
    module.exit_json(changed=armed, fired=not armed and switch.has_fired)


if __name__ == "__main__":
    main()
