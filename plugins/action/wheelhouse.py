"""Ansible action: send locked wheels to a host, which installs them without network access."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    TRANSFERS_FILES = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            argument_spec={
                "root": {"type": "path", "required": True},
                "locks": {"type": "list", "elements": "path", "required": True},
                "cache": {"type": "path", "required": True},
                "packages": {"type": "dict", "required": True},
            }
        )
        try:
            from ringfence.packages import wheelhouse
        except ImportError as error:
            raise AnsibleActionFail(
                f"installing locks needs the Python package ringfence where Ansible runs: {error}"
            ) from error

        def on_host(phase: str, **more: Any) -> dict[str, Any]:
            answer = self._execute_module(
                module_name=self._task.action,
                module_args={"phase": phase, "root": args["root"], **more},
                task_vars=task_vars,
            )
            answer.pop("invocation", None)
            return answer

        found = on_host("read")
        if found.get("failed"):
            return result | found
        python, machine = found["python"], found["machine"]
        directories = [Path(directory) for directory in args["locks"]]
        packages: dict[str, dict[str, str]] = args["packages"]
        try:
            locks = {
                name: wheelhouse.find_lock(directories, package["name"], package["version"], python)
                for name, package in packages.items()
            }
            digests = {
                name: wheelhouse.digest([lock], python, machine)[:16]
                for name, lock in locks.items()
            }
            paths = {name: f"{args['root']}/{name}/{digests[name]}" for name in packages}
            missing = [
                name for name in packages if digests[name] not in found["present"].get(name, [])
            ]
            result |= {
                "changed": bool(missing),
                "paths": paths,
                "installed": missing,
                "removed": sorted(set(found["present"]) - set(packages)),
                "diff": [
                    {"prepared": "{name} {version} from its lock\n".format(**packages[name])}
                    for name in missing
                ],
            }
            if not missing or self._task.check_mode:
                return result
            archive = wheelhouse.build(sorted(locks.values()), python, machine, Path(args["cache"]))
        except wheelhouse.WheelhouseError as error:
            raise AnsibleActionFail(str(error)) from error

        directory = self._make_tmp_path()
        remote = self._connection._shell.join_path(directory, archive.name)
        self._transfer_file(str(archive), remote)
        self._fixup_perms2((directory, remote))
        done = on_host(
            "install",
            archive=remote,
            environments=[
                {
                    "path": paths[name],
                    "package": packages[name]["name"],
                    "version": packages[name]["version"],
                    "lock": locks[name].read_text(),
                }
                for name in missing
            ],
        )
        self._remove_tmp_path(directory)
        return result | done if done.get("failed") else result
