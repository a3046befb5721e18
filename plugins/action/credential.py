"""Ansible action: read secrets from files on the controller and send them to a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            argument_spec={
                "directory": {"type": "path", "required": True},
                "prefix": {"type": "str", "required": True},
                "source": {"type": "path", "required": True},
                "credentials": {"type": "dict", "required": True},
            }
        )
        values = {
            name: self._secret(Path(args["source"]) / secret)
            for name, secret in args["credentials"].items()
        }
        answer = self._execute_module(
            module_name=self._task.action,
            module_args={
                "directory": args["directory"],
                "prefix": args["prefix"],
                "values": values,
            },
            task_vars=task_vars,
        )
        answer.pop("invocation", None)
        return result | answer

    @staticmethod
    def _secret(path: Path) -> str:
        try:
            mode = path.stat().st_mode
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise AnsibleActionFail(
                f"secret {path.name} does not exist: write its value to {path}, mode 0600"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise AnsibleActionFail(f"cannot read the secret in {path} as text") from error
        if mode & 0o077:
            raise AnsibleActionFail(f"other accounts can read {path}: chmod 600 {path}")
        return text
