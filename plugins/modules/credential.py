#!/usr/bin/python
"""Ansible module: encrypt systemd credentials for this host."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: credential
short_description: Deliver secrets as systemd credentials that only this host can decrypt
description:
  - Reads secrets from files on the controller and encrypts them on the host with C(systemd-creds),
    with its TPM if it has one, or with a key of root.
  - A unit loads one with C(LoadCredentialEncrypted=).
options:
  directory: {description: Directory of the credentials., type: path, required: true}
  prefix:
    description: Prefix of their names. Other credentials with this prefix are removed.
    type: str
    required: true
  source: {description: Directory with one file per secret., type: path, required: true}
  credentials:
    description: Name of a secret by the name of its credential, without prefix.
    type: dict
    required: true
"""

RETURN = """
changed_credentials:
  description: Names of credentials that were written or removed.
  type: list
  elements: str
  returned: always
"""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "prefix": {"type": "str", "required": True},
            "values": {"type": "dict", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    prefix = module.params["prefix"]
    values = {f"{prefix}{name}": value for name, value in module.params["values"].items()}
    # Encryption binds the name: a server cannot decrypt the credential of another one.
    written = [
        name
        for name, value in values.items()
        if module.run_command(
            ["systemd-creds", "decrypt", f"--name={name}", str(directory / name), "-"]
        )[:2]
        != (0, value)
    ]
    stale = [path for path in directory.glob(f"{prefix}*") if path.name not in values]
    if not module.check_mode:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        for name in written:
            module.run_command(
                ["systemd-creds", "encrypt", f"--name={name}", "-", str(directory / name)],
                data=values[name],
                binary_data=True,
                check_rc=True,
            )
        for path in stale:
            path.unlink()
    changed = written + [path.name for path in stale]
    module.exit_json(changed=bool(changed), changed_credentials=sorted(changed))


if __name__ == "__main__":
    main()
