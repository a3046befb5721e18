"""Ansible action: render a role's templates on the controller and deploy them in one call."""

from __future__ import annotations

from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

PLACEHOLDER = "[name]"
DIGEST = "[digest]"
MANAGED = "Managed by Ringfence: changes made here are overwritten."
DEFAULTS = {"owner": "root", "group": "root", "mode": "0644"}


class ActionModule(ActionBase):
    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            argument_spec={
                "src": {"type": "list", "elements": "str", "default": ["."]},
                "owner": {"type": "str", "default": DEFAULTS["owner"]},
                "group": {"type": "str", "default": DEFAULTS["group"]},
                "mode": {"type": "str", "default": DEFAULTS["mode"]},
                "attributes": {"type": "dict", "default": {}},
                "python_package": {"type": "dict"},
                "each": {"type": "list", "elements": "dict", "default": []},
                "purge": {"type": "list", "elements": "str", "default": []},
                "applied": {"type": "path"},
                "validate": {"type": "dict", "default": {}},
            }
        )
        root = self._templates()
        sources = [source for src in args["src"] for source in self._sources(root, src)]
        files = [
            file
            for source in sources
            for file in self._render(root, source, args, dict(task_vars or {}))
        ]
        if args["python_package"]:
            into, package = self._package(args)
            files += package
            result["python_package"] = into
        unknown = (set(args["attributes"]) | set(args["validate"])) - {f["path"] for f in files}
        if unknown and not args["each"]:
            names = ", ".join(sorted(unknown))
            raise AnsibleActionFail(f"attributes or validate name files not deployed: {names}")
        result |= self._execute_module(
            module_name=self._task.action,
            module_args={"files": files, "purge": args["purge"], "applied": args["applied"]},
            task_vars=task_vars,
        )
        result.pop("invocation", None)
        return result

    def _templates(self) -> Path:
        role = self._task._role
        if role is None:
            raise AnsibleActionFail("tree deploys the templates of a role; use it in a role")
        return Path(role._role_path) / "templates"

    def _package(self, args: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
        """The import path of a Python package on the host, and the files to write there."""
        name = args["python_package"]["name"]
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise AnsibleActionFail(
                f"the Python package {name} is not installed where Ansible runs"
            )
        top = Path(spec.submodule_search_locations[0])
        contents = {
            PurePosixPath(*name.split("."), path.relative_to(top).as_posix()): path.read_text()
            for path in sorted(top.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }
        digest = sha256(repr(sorted(contents.items())).encode()).hexdigest()
        into = args["python_package"]["into"].replace(DIGEST, digest)
        return into, [self._file(f"{into}/{path}", text, args) for path, text in contents.items()]

    @staticmethod
    def _sources(root: Path, src: str) -> list[Path]:
        top = root / src
        if not top.exists():
            raise AnsibleActionFail(f"{top} does not exist; src is a path below templates/")
        return [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.is_file())

    def _render(
        self, root: Path, source: Path, args: dict[str, Any], variables: dict[str, Any]
    ) -> list[dict[str, Any]]:
        relative = PurePosixPath("/") / source.relative_to(root).as_posix()
        # The loader tags text with its origin, so that a template error names file and line.
        text = self._loader.get_text_file_contents(str(source))
        if relative.suffix != ".j2":
            return [self._file(str(relative), text, args)]
        template = str(relative.with_suffix(""))
        if PLACEHOLDER not in template:
            content = self._template(root, text, variables)
            return [self._file(template, content, args)] if content.strip() else []
        rendered = (
            (item["name"], self._template(root, text, variables | {"item": item}))
            for item in args["each"]
        )
        return [
            self._file(template.replace(PLACEHOLDER, name), content, args)
            for name, content in rendered
            if content.strip()
        ]

    def _template(self, root: Path, text: str, variables: dict[str, Any]) -> str:
        templar = self._templar.copy_with_new_env(
            searchpath=[str(root)],
            available_variables=variables | {"ansible_managed": MANAGED},
        )
        rendered = templar.template(
            trust_as_template(text), escape_backslashes=False, overrides={"trim_blocks": True}
        )
        return "" if rendered is None else str(rendered)

    @staticmethod
    def _file(path: str, content: str, args: dict[str, Any]) -> dict[str, Any]:
        attributes = {key: args[key] for key in DEFAULTS} | args["attributes"].get(path, {})
        # A diff does not show a file that others cannot read.
        secret = int(attributes["mode"], 8) & 0o007 == 0
        return {
            "path": path,
            "content": content,
            "secret": secret,
            "validate": args["validate"].get(path),
            **attributes,
        }
