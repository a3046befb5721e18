#!/usr/bin/python
"""Ansible module: install Python environments from an archive of wheels, without network access."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tarfile
import tempfile
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: wheelhouse
short_description: Install locked Python packages on a host without network access
description:
  - Every package gets its own virtual environment, named after the digest of its lock, so that a
    new version never changes the files of a running server.
  - The controller finds the locks, fetches the wheels once and sends them as one archive. The host
    installs with C(pip --no-index --require-hashes); the archive includes pip.
  - Each environment contains a bill of materials in CycloneDX JSON.
options:
  root: {description: Directory of the environments., type: path, required: true}
  locks:
    description: Directories with lock files on the controller.
    type: list
    elements: path
    required: true
  cache: {description: Directory for archives on the controller., type: path, required: true}
  packages:
    description: Packages (C(name) and C(version)) by the name of their environment.
    type: dict
    required: true
"""

RETURN = """
paths: {description: Path of each environment by name., type: dict, returned: always}
installed: {description: Names of environments that were installed., type: list, returned: always}
removed: {description: Names of environments no longer declared., type: list, returned: always}
"""

BILL = "sbom.cdx.json"
"""Written last: an environment without it is incomplete."""


def present(root: Path) -> dict[str, list[str]]:
    return {
        directory.name: [bill.parent.name for bill in directory.glob(f"*/{BILL}")]
        for directory in (sorted(root.iterdir()) if root.is_dir() else [])
        if directory.is_dir()
    }


def unpack(archive: Path, directory: Path) -> None:
    """Extract regular files only, and only into this directory."""
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is not None:
                (directory / Path(member.name).name).write_bytes(content.read())


def bill_of_materials(environment: Path, package: str, version: str, wheels: Path) -> str:
    """List the installed packages and the hashes of their wheels, in CycloneDX 1.6."""
    hashes = {
        tuple(wheel.name.split("-")[:2]): hashlib.sha256(wheel.read_bytes()).hexdigest()
        for wheel in wheels.glob("*.whl")
    }
    components = []
    for metadata in sorted(environment.glob("lib/python3*/site-packages/*.dist-info/METADATA")):
        fields = HeaderParser().parsestr(metadata.read_text(encoding="utf-8"))
        name, release = str(fields["Name"]), str(fields["Version"])
        licence = fields.get("License-Expression")
        sha256 = hashes.get((re.sub(r"[-_.]+", "_", name).lower(), release))
        components.append(
            {
                "type": "library",
                "name": name,
                "version": release,
                "purl": f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{release}",
                **({"licenses": [{"expression": licence}]} if licence else {}),
                **({"hashes": [{"alg": "SHA-256", "content": sha256}]} if sha256 else {}),
            }
        )
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": package, "version": version}},
        "components": components,
    }
    return json.dumps(document, indent=1) + "\n"


def install(module: AnsibleModule, wanted: dict[str, Any], wheels: Path) -> None:
    environment = Path(wanted["path"])
    if environment.exists():
        shutil.rmtree(environment)
    environment.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    lock = wheels / "lock.txt"
    lock.write_text(wanted["lock"])
    pip = next(wheels.glob("pip-*.whl"), None)
    if pip is None:
        module.fail_json(msg="the wheelhouse has no pip; add it to the lock of the bridge")
    module.run_command(
        [sys.executable, "-m", "venv", "--without-pip", str(environment)], check_rc=True
    )
    module.run_command(
        [
            *(str(environment / "bin/python"), "-I", f"{pip}/pip", "install"),
            *("--no-index", "--find-links", str(wheels), "--require-hashes", "--no-deps"),
            *("--only-binary", ":all:", "--no-cache-dir", "--disable-pip-version-check"),
            *("--root-user-action", "ignore", "--quiet", "--requirement", str(lock)),
        ],
        check_rc=True,
    )
    bill = bill_of_materials(environment, wanted["package"], wanted["version"], wheels)
    (environment / "lock.txt").write_text(wanted["lock"])
    (environment / BILL).write_text(bill)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "phase": {"choices": ["read", "install"], "required": True},
            "root": {"type": "path", "required": True},
            "archive": {"type": "path"},
            "environments": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    root = Path(module.params["root"])
    if module.params["phase"] == "install":
        os.umask(0o022)
        with tempfile.TemporaryDirectory(dir=module.tmpdir) as directory:
            unpack(Path(module.params["archive"]), Path(directory))
            for wanted in module.params["environments"]:
                install(module, wanted, Path(directory))
    module.exit_json(
        changed=module.params["phase"] == "install",
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        machine=platform.machine(),
        present=present(root),
    )


if __name__ == "__main__":
    main()
