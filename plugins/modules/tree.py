#!/usr/bin/python
"""Ansible module: write a set of files on the host in one call."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: tree
short_description: Deploy a tree of rendered templates in one call
description:
  - Renders every file below C(templates/) of the role to the same path on the host. Names that end
    in C(.j2) are templates, others are copied.
  - All files are staged and validated before the first one is replaced.
  - One call for many files, because a module call costs more than the files themselves.
options:
  src:
    description: Files or directories below C(templates/) to deploy.
    type: list
    elements: str
    default: ["."]
  owner: {description: Owner of the files., type: str, default: root}
  group: {description: Group of the files., type: str, default: root}
  mode: {description: Mode of the files., type: str, default: "0644"}
  attributes:
    description: Owner, group or mode of single files, by path on the host.
    type: dict
    default: {}
  each:
    description: >-
      Items for files with C([name]) in their path. Such a file is rendered once per item, with the
      item's C(name) in its place and the item itself as C(item). An item whose rendering is empty
      gets no file.
    type: list
    elements: dict
    default: []
  python_package:
    description: >-
      A Python package of the controller (C(name)), to be copied below the directory C(into) of the
      host. C([digest]) in that path becomes the digest of the package.
    type: dict
  purge:
    description: Globs on the host. Matching files that this task does not deploy are removed.
    type: list
    elements: str
    default: []
  applied:
    description: >-
      File on the host to which a handler writes C(digest) after it has activated the files. As long
      as its content differs, the task is changed, so that the next run notifies again a handler
      that failed or never ran.
    type: path
  validate:
    description: >-
      Commands by path on the host, where C(%s) is the staged file. If one fails, no file changes.
    type: dict
    default: {}
"""

RETURN = """
changed_paths:
  description: Files that were written, changed in mode or owner, or removed.
  type: list
  elements: str
  returned: always
python_package:
  description: Directory to add to the import path.
  type: str
  returned: if python_package is given
digest:
  description: Digest of the paths, contents, owners and modes of all files.
  type: str
  returned: always
"""


def current(path: str) -> str | None:
    try:
        return Path(path).read_bytes().decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


def directories_to_create(paths: list[str]) -> list[Path]:
    """Missing parent directories, outermost first."""
    parents = {parent for path in paths for parent in Path(path).parents if not parent.is_dir()}
    return sorted(parents, key=lambda parent: len(parent.parts))


def digest_of(files: list[dict[str, str]]) -> str:
    kept = ("path", "content", "owner", "group", "mode")
    lines = [json.dumps([file[key] for key in kept]) for file in files]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            # Contents may be secret; without no_log they would be logged.
            "files": {"type": "list", "elements": "dict", "required": True},
            "purge": {"type": "list", "elements": "str", "default": []},
            "applied": {"type": "path"},
        },
        supports_check_mode=True,
        no_log=True,
    )
    files = module.params["files"]
    wanted = {file["path"] for file in files}
    found = {
        str(path)
        for pattern in module.params["purge"]
        for path in Path("/").glob(pattern.lstrip("/"))
    }
    stale = sorted(found - wanted)
    written = [file for file in files if current(file["path"]) != file["content"]]
    diff = [
        {
            "before_header": file["path"],
            "after_header": file["path"],
            "before": "" if file["secret"] else current(file["path"]) or "",
            "after": "(secret)\n" if file["secret"] else file["content"],
        }
        for file in written
    ] + [{"before_header": p, "before": "(removed)\n", "after": ""} for p in stale]

    with tempfile.TemporaryDirectory(dir=module.tmpdir) as staging:
        staged = {
            file["path"]: Path(staging, f"{number}-{Path(file['path']).name}")
            for number, file in enumerate(written)
        }
        for file in written:
            staged[file["path"]].touch(mode=0o600)
            staged[file["path"]].write_text(file["content"], encoding="utf-8")
        for file in written:
            if file["validate"]:
                command = file["validate"].replace("%s", str(staged[file["path"]]))
                status, output, errors = module.run_command(command)
                if status:
                    reason = (errors or output).strip() or f"{command} ended with {status}"
                    module.fail_json(
                        msg=f"{file['path']} is not valid, nothing was changed: {reason}"
                    )
        if not module.check_mode:
            for directory in directories_to_create([file["path"] for file in written]):
                directory.mkdir()
                directory.chmod(0o755)  # regardless of the umask
            for file in written:
                module.atomic_move(str(staged[file["path"]]), file["path"])
            for path in stale:
                Path(path).unlink()

    changed = [file["path"] for file in written] + stale
    for file in files:
        if module.check_mode and not Path(file["path"]).exists():
            continue
        attributes = module.load_file_common_arguments(
            {
                "path": file["path"],
                "mode": file["mode"],
                "owner": file["owner"],
                "group": file["group"],
            }
        )
        if module.set_fs_attributes_if_different(attributes, False) and file["path"] not in changed:
            changed.append(file["path"])
    digest = digest_of(files)
    applied = module.params["applied"]
    pending = bool(applied) and (current(applied) or "").strip() != digest
    module.exit_json(
        changed=bool(changed) or pending, changed_paths=changed, digest=digest, diff=diff
    )


if __name__ == "__main__":
    main()
