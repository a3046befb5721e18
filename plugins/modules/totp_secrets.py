#!/usr/bin/python
"""Ansible module: manage the TOTP secrets of pam_google_authenticator in one call."""

from __future__ import annotations

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: totp_secrets
short_description: Keep one TOTP secret per account for pam_google_authenticator
description:
  - A file holds the secret, the options, and the state that PAM writes at every login (used codes,
    recent attempts). The module rewrites a file only if secret or options differ, because that
    discards the list of used codes.
options:
  directory: {description: Directory that only root can read., type: path, required: true}
  secrets:
    description: Secret (base32) by account. Files of other accounts are removed.
    type: dict
    required: true
  options:
    description: Options, as C(google-authenticator) writes them into the file.
    type: list
    elements: str
    default: []
"""

RETURN = """
accounts:
  description: Accounts whose file was written or removed.
  type: list
  elements: str
  returned: always
"""

ATTEMPTS = "RATE_LIMIT"
USED_CODES = "DISALLOW_REUSE"


def is_current(path: Path, secret: str, options: list[str]) -> bool:
    """Compare secret and options, and ignore the state that PAM appends."""
    try:
        present, *lines = path.read_text().splitlines()
        status = path.stat()
    except (FileNotFoundError, ValueError):
        return False
    if present != secret or status.st_mode & 0o777 != 0o400 or status.st_uid != 0:
        return False
    kept = [line.removeprefix('" ').split() for line in lines if line.startswith('" ')]
    return all(
        any(words[: len(option)] == option for words in kept)
        for option in (option.split() for option in options)
    )


def write(path: Path, secret: str, options: list[str]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "w") as out:
        out.write("\n".join([secret, *(f'" {option}' for option in options)]) + "\n")
    partial.replace(path)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "secrets": {"type": "dict", "required": True, "no_log": True},
            "options": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    secrets, options = module.params["secrets"], module.params["options"]
    present = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    stale = present - secrets.keys()
    changed = {
        account
        for account, secret in secrets.items()
        if not is_current(directory / account, secret, options)
    }
    if not module.check_mode:
        if changed:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
        for account in changed:
            write(directory / account, secrets[account], options)
        for account in stale:
            (directory / account).unlink()
    module.exit_json(changed=bool(changed | stale), accounts=sorted(changed | stale))


if __name__ == "__main__":
    main()
