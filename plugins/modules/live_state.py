#!/usr/bin/python
"""Ansible module: correct the state of the running host, and report what it cannot activate."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass, field
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: live_state
short_description: Compare the running host with its hardening, and correct differences
description:
  - Kernel parameters, mount options, file modes and accounts can differ from the files that set
    them at boot. This module compares all of them in one call and corrects differences.
  - Settings that the host cannot change, such as kernel parameters in a container, are no failure;
    they are returned as C(inactive) with the reason.
options:
  sysctl:
    description: Required kernel parameters.
    type: dict
    default: {}
  mounts:
    description: Required options by mount point.
    type: dict
    default: {}
  mounts_unit:
    description: Unit that sets the mount options; it is restarted if one is missing.
    type: str
  hidden_processes:
    description: Whether C(/proc) must hide the processes of other accounts.
    type: bool
    default: false
  permissions:
    description: Required mode, owner and group by C(path), a glob; missing files are skipped.
    type: list
    elements: dict
    default: []
  ageing:
    description: >-
      Password ageing in days, C(min), C(max) and C(warn). An account without a password never
      expires.
    type: dict
    default: {}
  never_ageing:
    description: Accounts whose password never expires.
    type: list
    elements: str
    default: []
  pam:
    description: Modules that a file of C(/etc/pam.d) must contain, by the name of the file.
    type: dict
    default: {}
"""

RETURN = """
inactive:
  description: Settings that this host cannot activate, each with the reason.
  type: list
  elements: str
  returned: always
pam_missing:
  description: Required PAM modules that are missing from their file.
  type: list
  elements: str
  returned: always
"""

NO_LOGIN = ("/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/usr/bin/false")
FIRST_PERSON, LAST_PERSON = 1000, 60000


@dataclass
class Findings:
    """Changes, as lines before and after, and settings that cannot be active."""

    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    inactive: list[str] = field(default_factory=list)

    def change(self, what: str, before: object, after: object) -> None:
        self.before.append(f"{what} = {before}")
        self.after.append(f"{what} = {after}")


def set_sysctl(wanted: dict[str, object], findings: Findings, check: bool) -> None:
    absent: list[str] = []
    fixed: list[str] = []
    for key, value in wanted.items():
        path = Path("/proc/sys", *key.split("."))
        try:
            current = " ".join(path.read_text().split())
        except OSError:
            absent.append(key)
            continue
        if current == str(value):
            continue
        if not os.access(path, os.W_OK):
            fixed.append(key)
            continue
        if not check:
            try:
                path.write_text(str(value))
            except OSError:
                fixed.append(key)
                continue
        findings.change(key, current, value)
    if absent:
        findings.inactive.append(f"this kernel has no {', '.join(absent)}")
    if fixed:
        findings.inactive.append(
            f"this host may not set {', '.join(fixed)}; the machine below it does"
        )


def mount_options() -> dict[str, set[str]]:
    """Options by mount point, of the topmost mount and its file system."""
    options: dict[str, set[str]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, filesystem = line.partition(" - ")
        fields = mount.split()
        options[fields[4]] = set(fields[5].split(",")) | set(filesystem.split()[2].split(","))
    return options


def missing_options(module: AnsibleModule) -> dict[str, list[str]]:
    """Required options that mount points lack."""
    present = mount_options()
    found = {
        path: sorted(set(flags) - present.get(path, set()))
        for path, flags in module.params["mounts"].items()
        if Path(path).is_dir()
    }
    if module.params["hidden_processes"] and not present["/proc"] & {
        "hidepid=invisible",
        "hidepid=2",
    }:
        found["/proc"] = ["hidepid"]
    return {path: flags for path, flags in found.items() if flags}


def set_mounts(module: AnsibleModule, findings: Findings) -> None:
    before = missing_options(module)
    if not before or module.check_mode or not module.params["mounts_unit"]:
        after = {}
    else:
        module.run_command(["systemctl", "restart", module.params["mounts_unit"]])
        after = missing_options(module)
    for path, flags in before.items():
        if path in after:
            findings.inactive.append(f"{path} cannot be mounted {','.join(after[path])} here")
        else:
            findings.change(path, f"without {','.join(flags)}", ",".join(flags))


def set_permissions(wanted: list[dict[str, str]], findings: Findings, check: bool) -> None:
    for item in wanted:
        mode = int(item["mode"], 8)
        owner, group = item.get("owner", "root"), item.get("group", "root")
        for path in Path("/").glob(item["path"].lstrip("/")):
            status = path.stat()
            uid = pwd.getpwnam(owner).pw_uid if owner != "-" else status.st_uid
            gid = grp.getgrnam(group).gr_gid if group != "-" else status.st_gid
            if (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (mode, uid, gid):
                continue
            findings.change(
                str(path),
                f"{status.st_mode & 0o7777:04o} {status.st_uid}:{status.st_gid}",
                f"{mode:04o} {uid}:{gid}",
            )
            if not check:
                # The owner first: changing it clears the set-user-id bit.
                os.chown(path, uid, gid)
                path.chmod(mode)


def set_accounts(module: AnsibleModule, findings: Findings) -> None:
    ageing = module.params["ageing"]
    shadow = {
        fields[0]: fields
        for fields in (line.split(":") for line in Path("/etc/shadow").read_text().splitlines())
    }
    for account in pwd.getpwall():
        entry = shadow.get(account.pw_name)
        if entry is None:
            continue
        password, minimum, maximum, warning = entry[1], entry[3], entry[4], entry[5]
        if not password:
            run(module, findings, account.pw_name, "no password", "locked", ["usermod", "-L"])
        person = FIRST_PERSON <= account.pw_uid <= LAST_PERSON
        if not person and account.pw_uid != 0:
            if not password.startswith(("!", "*")) and password:
                run(module, findings, account.pw_name, "a password", "locked", ["usermod", "-L"])
            if account.pw_shell not in NO_LOGIN:
                command = ["usermod", "-s", NO_LOGIN[0]]
                run(module, findings, account.pw_name, account.pw_shell, NO_LOGIN[0], command)
        if not ageing:
            continue
        usable = password and not password.startswith(("!", "*"))
        if usable and account.pw_name not in module.params["never_ageing"]:
            wanted = [str(ageing[key]) for key in ("min", "max", "warn")]
            if [minimum, maximum, warning] != wanted:
                command = ["chage", "-m", wanted[0], "-M", wanted[1], "-W", wanted[2]]
                run(
                    module,
                    findings,
                    account.pw_name,
                    f"ages {maximum}",
                    f"ages {wanted[1]}",
                    command,
                )
        elif person and maximum not in ("", "-1", "99999"):
            # An expired password refuses logins by key too, and this account has none to renew.
            command = ["chage", "-m", "0", "-M", "-1"]
            run(module, findings, account.pw_name, f"ages {maximum}", "never ages", command)


def run(
    module: AnsibleModule,
    findings: Findings,
    account: str,
    before: str,
    after: str,
    command: list[str],
) -> None:
    findings.change(f"account {account}", before, after)
    if not module.check_mode:
        module.run_command([*command, account], check_rc=True)


def pam_missing(wanted: dict[str, list[str]]) -> list[str]:
    missing: list[str] = []
    for name, modules in wanted.items():
        path = Path("/etc/pam.d", name)
        lines = path.read_text().splitlines() if path.exists() else []
        active = [line for line in lines if not line.startswith("#")]
        missing += [f"{name}: {m}" for m in modules if not any(m in line for line in active)]
    return missing


def report_capabilities(module: AnsibleModule, findings: Findings) -> None:
    apparmor = Path("/sys/module/apparmor/parameters/enabled")
    if not apparmor.exists() or apparmor.read_text().strip() != "Y":
        findings.inactive.append("this kernel has no AppArmor; services run without its profiles")
    if module.get_bin_path("auditctl"):
        status, answer, _ = module.run_command(["auditctl", "-s"])
        if status:
            findings.inactive.append(
                "the kernel denies access to audit; the audit rules are written, not loaded"
            )
        elif (
            "enabled 2" in answer and "changed" in module.run_command(["augenrules", "--check"])[1]
        ):
            findings.inactive.append("the audit rules are immutable; the next boot loads new ones")
    capabilities = next(
        int(line.split()[1], 16)
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapEff:")
    )
    if not capabilities >> 25 & 1:
        findings.inactive.append("this host may not set the clock; the machine below it does")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "sysctl": {"type": "dict", "default": {}},
            "mounts": {"type": "dict", "default": {}},
            "mounts_unit": {"type": "str"},
            "hidden_processes": {"type": "bool", "default": False},
            "permissions": {"type": "list", "elements": "dict", "default": []},
            "ageing": {"type": "dict", "default": {}},
            "never_ageing": {"type": "list", "elements": "str", "default": []},
            "pam": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    findings = Findings()
    set_sysctl(module.params["sysctl"], findings, module.check_mode)
    set_mounts(module, findings)
    set_permissions(module.params["permissions"], findings, module.check_mode)
    set_accounts(module, findings)
    report_capabilities(module, findings)
    module.exit_json(
        changed=bool(findings.after),
        inactive=findings.inactive,
        pam_missing=pam_missing(module.params["pam"]),
        diff={
            "before": "".join(f"{line}\n" for line in findings.before),
            "after": "".join(f"{line}\n" for line in findings.after),
        },
    )


if __name__ == "__main__":
    main()
