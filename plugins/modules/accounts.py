#!/usr/bin/python
"""Ansible module: the login accounts of a host that keys open, in one call."""

from __future__ import annotations

import grp
import pwd
import subprocess
from collections.abc import Iterable
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: accounts
short_description: Make login accounts without password, and retire those that are not listed
description:
  - Every listed account exists, has no password and never expires; I(groups) have exactly the
    members that they name. Other groups are left alone.
  - Every member of I(roster) that is not listed is retired, which locks and expires the account,
    takes it out of all I(groups) and ends its sessions. Its files stay.
options:
  accounts:
    description: Accounts, each with C(name) and perhaps C(full_name). Other keys are ignored.
    type: list
    elements: dict
    required: true
  groups:
    description: Members by name of the system group.
    type: dict
    default: {}
  roster:
    description: The one of I(groups) whose members are the listed accounts and no others.
    type: str
"""

RETURN = """
actions:
  description: What was done, or would be, in words.
  type: list
  elements: str
  returned: always
"""

SHELL = "/bin/bash"
NO_PASSWORD = "*"  # noqa: S105 - the mark of an account that no password opens
NEVER = ("", "-1", "99999")


class Accounts:
    def __init__(self, module: AnsibleModule):
        self.module = module
        self.actions: list[str] = []
        self.shadow = {
            fields[0]: fields
            for fields in (line.split(":") for line in Path("/etc/shadow").read_text().splitlines())
        }

    def run(self, action: str, *command: str) -> None:
        self.actions.append(action)
        if self.module.check_mode:
            return
        status, output, errors = self.module.run_command(list(command))
        if status:
            reason = (errors or output).strip()
            self.module.fail_json(msg=f"{action}: {command[0]} ended with {status}: {reason}")

    def ensure_groups(self, groups: Iterable[str]) -> None:
        present = {group.gr_name for group in grp.getgrall()}
        for group in sorted(set(groups) - present):
            self.run(f"group {group} made", "groupadd", "--system", group)

    def ensure_account(self, name: str, comment: str) -> None:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            self.run(
                f"account {name} made",
                *("useradd", "--create-home", "--user-group", "--shell", SHELL),
                *("--comment", comment, "--password", NO_PASSWORD),
                *("--key", "HOME_MODE=0700", "--key", "PASS_MAX_DAYS=-1"),
                *("--inactive", "-1", "--expiredate", "", name),
            )
            return
        if entry.pw_uid == 0:
            self.module.fail_json(msg=f"{name} is root under another name; choose another account")
        changes: list[str] = []
        if entry.pw_shell != SHELL:
            changes += ["--shell", SHELL]
        if entry.pw_gecos != comment:
            changes += ["--comment", comment]
        _, password, _, _, maximum, _, inactive, expire, *_ = self.shadow[name]
        if password != NO_PASSWORD:
            changes += ["--password", NO_PASSWORD]
        if expire not in NEVER:
            changes += ["--expiredate", ""]
        if inactive not in NEVER:
            changes += ["--inactive", "-1"]
        if changes:
            self.run(f"account {name} mended", "usermod", *changes, name)
        # A password that does not exist must not expire either: PAM would refuse the login.
        if maximum not in NEVER:
            self.run(f"password ageing of {name} ended", "chage", "--maxdays", "-1", name)

    def ensure_memberships(self, wanted: dict[str, set[str]]) -> None:
        for group, members in sorted(wanted.items()):
            present = self.members(group)
            for name in sorted(members - present):
                self.run(f"{name} put into {group}", "gpasswd", "--add", name, group)
            for name in sorted(present - members):
                self.run(f"{name} taken out of {group}", "gpasswd", "--delete", name, group)

    def retire(self, name: str) -> None:
        self.run(f"account {name} locked", "usermod", "--lock", "--expiredate", "1", name)
        if not self.module.check_mode:
            # After the lock, so that no new session starts meanwhile. Status 1: there was none.
            subprocess.run(["pkill", "-KILL", "-u", name], check=False)

    @staticmethod
    def members(group: str) -> set[str]:
        try:
            return set(grp.getgrnam(group).gr_mem)
        except KeyError:
            return set()


def comment_of(account: dict[str, str]) -> str:
    """What passwd can hold of a person's name."""
    return account.get("full_name", account["name"]).translate(str.maketrans(":,\n", "   "))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "accounts": {"type": "list", "elements": "dict", "required": True},
            "groups": {"type": "dict", "default": {}},
            "roster": {"type": "str"},
        },
        supports_check_mode=True,
    )
    listed = {account["name"]: account for account in module.params["accounts"]}
    groups, roster = module.params["groups"], module.params["roster"]
    if roster and roster not in groups:
        module.fail_json(msg=f"roster {roster} is not one of groups")
    accounts = Accounts(module)
    retired = accounts.members(roster) - listed.keys() if roster else set()
    accounts.ensure_groups(groups)
    for name, account in sorted(listed.items()):
        accounts.ensure_account(name, comment_of(account))
    for name in sorted(retired):
        accounts.retire(name)
    accounts.ensure_memberships({group: set(members) for group, members in groups.items()})
    module.exit_json(changed=bool(accounts.actions), actions=accounts.actions)


if __name__ == "__main__":
    main()
