#!/usr/bin/python
"""Ansible module: manage the passwordless login accounts of a host in one call."""

from __future__ import annotations

import grp
import pwd
import subprocess
from collections.abc import Iterable
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: accounts
short_description: Create login accounts without a password, and lock former ones
description:
  - Creates every listed account without a password or an expiry date, and gives I(groups) exactly
    the listed members. Other groups stay unchanged.
  - Retires every member of I(roster) that is not listed; this locks and expires the account,
    removes it from all I(groups) and ends its sessions. Its files stay.
options:
  accounts:
    description: Accounts, each with C(name) and optionally C(full_name). Other keys are ignored.
    type: list
    elements: dict
    required: true
  groups:
    description: Members by the name of the system group.
    type: dict
    default: {}
  roster:
    description: The group of I(groups) that lists all accounts managed here.
    type: str
"""

RETURN = """
actions:
  description: Actions taken, or predicted in check mode.
  type: list
  elements: str
  returned: always
"""

SHELL = "/bin/bash"
NO_PASSWORD = "*"  # noqa: S105 - marks an account without a password
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
            self.run(f"create group {group}", "groupadd", "--system", group)

    def ensure_account(self, name: str, comment: str) -> None:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            self.run(
                f"create account {name}",
                *("useradd", "--create-home", "--user-group", "--shell", SHELL),
                *("--comment", comment, "--password", NO_PASSWORD),
                *("--key", "HOME_MODE=0700", "--key", "PASS_MAX_DAYS=-1"),
                *("--inactive", "-1", "--expiredate", "", name),
            )
            return
        if entry.pw_uid == 0:
            self.module.fail_json(msg=f"{name} has the user id of root; choose another account")
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
            self.run(f"correct account {name}", "usermod", *changes, name)
        # Ageing applies without a password too: PAM refuses the login when it expires.
        if maximum not in NEVER:
            self.run(f"disable password ageing of {name}", "chage", "--maxdays", "-1", name)

    def ensure_memberships(self, wanted: dict[str, set[str]]) -> None:
        for group, members in sorted(wanted.items()):
            present = self.members(group)
            for name in sorted(members - present):
                self.run(f"add {name} to {group}", "gpasswd", "--add", name, group)
            for name in sorted(present - members):
                self.run(f"remove {name} from {group}", "gpasswd", "--delete", name, group)

    def retire(self, name: str) -> None:
        self.run(f"lock account {name}", "usermod", "--lock", "--expiredate", "1", name)
        if not self.module.check_mode:
            # After the lock, so that no new session can start. Status 1: no process matched.
            subprocess.run(["pkill", "-KILL", "-u", name], check=False)

    @staticmethod
    def members(group: str) -> set[str]:
        try:
            return set(grp.getgrnam(group).gr_mem)
        except KeyError:
            return set()


def comment_of(account: dict[str, str]) -> str:
    """Replace the characters of a name that passwd cannot hold."""
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
