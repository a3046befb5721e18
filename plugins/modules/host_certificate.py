#!/usr/bin/python
"""Ansible module: manage the host's key and certificate; the key never leaves the host."""

from __future__ import annotations

import grp
import os
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: host_certificate
short_description: Issue a certificate of the environment's authority to a host
description:
  - Keeps C(host.key), C(host.crt) and C(ca.crt) in one directory. The private key is generated on
    the host and never leaves it; a signing request goes to the controller, which signs it with
    C(ringfence.identity.pki).
  - Every new certificate has a new key.
options:
  directory: {description: Directory of the files., type: path, default: /etc/ringfence/pki}
  group: {description: Group that may read the key., type: str, default: ringfence-pki}
  days: {description: Lifetime of a certificate., type: int, default: 30}
  subject:
    description: Subject of the certificate, as C(environment), C(name), C(fqdn) and C(addresses).
    type: dict
    required: true
  authority:
    description: >-
      C(certificate_file) and C(key_file) on the controller. With C(create) (C(name) and C(domain))
      the authority is created if missing.
    type: dict
    required: true
"""

RETURN = """
reason:
  description: Reason for the new certificate.
  type: str
  returned: changed
"""


def openssl(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def ensure_group(module: AnsibleModule, name: str) -> None:
    """Create the group that may read the key; daemons without root privileges join it."""
    try:
        grp.getgrnam(name)
    except KeyError:
        module.run_command(["groupadd", "--system", name], check_rc=True)


def read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def certificate_of_key(certificate: Path, key: Path) -> str | None:
    """The certificate, if it belongs to the key."""
    text = read(certificate)
    if text is None:
        return None
    of_certificate = openssl("x509", "-in", str(certificate), "-noout", "-pubkey")
    of_key = openssl("pkey", "-in", str(key), "-pubout")
    return text if of_certificate and of_certificate == of_key else None


def new_request(key: Path, name: str) -> str | None:
    key.unlink(missing_ok=True)
    # openssl creates the file; the umask keeps it private from the start.
    previous = os.umask(0o077)
    try:
        if (
            openssl(
                "genpkey",
                "-algorithm",
                "EC",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-out",
                str(key),
            )
            is None
        ):
            return None
        return openssl("req", "-new", "-key", str(key), "-subj", f"/CN={name}", "-batch")
    finally:
        os.umask(previous)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "phase": {"choices": ["read", "request", "install"], "required": True},
            "directory": {"type": "path", "required": True},
            "group": {"type": "str", "required": True},
            "name": {"type": "str"},
            "certificate": {"type": "str"},
            "trust": {"type": "str"},
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    key, pending = directory / "host.key", directory / "host.key.new"
    certificate, trust = directory / "host.crt", directory / "ca.crt"
    result: dict[str, Any] = {"changed": False}
    phase = module.params["phase"]

    if phase == "request":
        ensure_group(module, module.params["group"])
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        result["request"] = new_request(pending, module.params["name"])
        if result["request"] is None:
            module.fail_json(msg="cannot create a signing request; install the package openssl")
        module.exit_json(**result)

    if phase == "install":
        staged = {path: Path(f"{path}.staged") for path in (certificate, trust)}
        staged[certificate].write_text(module.params["certificate"])
        staged[trust].write_text(module.params["trust"])
        for path, new in staged.items():
            module.atomic_move(str(new), str(path))
        if pending.exists():
            module.atomic_move(str(pending), str(key))
        result["changed"] = True

    result["certificate"] = certificate_of_key(certificate, key)
    result["trust"] = read(trust)
    for path, mode, group in (
        (key, "0640", module.params["group"]),
        (certificate, "0644", "root"),
        (trust, "0644", "root"),
    ):
        if path.exists():
            wanted = module.load_file_common_arguments(
                {"path": str(path), "mode": mode, "owner": "root", "group": group}
            )
            result["changed"] |= module.set_fs_attributes_if_different(wanted, False)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
