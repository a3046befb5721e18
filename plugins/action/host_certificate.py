"""Ansible action: issue a host certificate on the controller if the host needs a new one."""

from __future__ import annotations

from ipaddress import ip_address
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
                "directory": {"type": "path", "default": "/etc/ringfence/pki"},
                "group": {"type": "str", "default": "ringfence-pki"},
                "days": {"type": "int", "default": 30},
                "subject": {
                    "type": "dict",
                    "required": True,
                    "options": {
                        "environment": {"type": "str", "required": True},
                        "name": {"type": "str", "required": True},
                        "fqdn": {"type": "str", "required": True},
                        "addresses": {"type": "list", "elements": "str", "default": []},
                    },
                },
                "authority": {
                    "type": "dict",
                    "required": True,
                    "options": {
                        "certificate_file": {"type": "path", "required": True},
                        "key_file": {"type": "path", "required": True},
                        "create": {
                            "type": "dict",
                            "options": {
                                "name": {"type": "str", "required": True},
                                "domain": {"type": "str", "required": True},
                            },
                        },
                    },
                },
            }
        )
        try:
            from ringfence.identity import pki
        except ImportError as error:
            raise AnsibleActionFail(
                f"signing needs the Python package ringfence where Ansible runs: {error}"
            ) from error

        def on_host(phase: str, **more: str) -> dict[str, Any]:
            place = {"directory": args["directory"], "group": args["group"]}
            answer = self._execute_module(
                module_name=self._task.action,
                module_args={"phase": phase, **place, **more},
                task_vars=task_vars,
            )
            answer.pop("invocation", None)
            return answer

        identity = args["subject"]
        subject = pki.CertificateSubject(
            "host",
            identity["environment"],
            identity["name"],
            identity["fqdn"],
            (identity["fqdn"],),
            tuple(ip_address(address) for address in identity["addresses"]),
        )
        found = on_host("read")
        if found.get("failed"):
            return result | found
        try:
            authority = self._authority(args["authority"])
            reason = (
                authority.reason_to_issue(subject, found["certificate"])
                if authority
                else "the authority does not exist yet"
            )
            if reason is None and authority and found["trust"] != authority.bundle:
                reason = "the authority's own certificate changed"
            if reason is None:
                return result | {"changed": found["changed"]}
            result |= {"changed": True, "reason": reason}
            result["diff"] = [{"prepared": f"{subject.common_name}: new certificate, {reason}\n"}]
            if self._task.check_mode or authority is None:
                return result
            requested = on_host("request", name=subject.common_name)
            if requested.get("failed"):
                return result | requested
            certificate = authority.sign_request(subject, requested["request"], args["days"])
        except pki.PkiError as error:
            raise AnsibleActionFail(str(error)) from error
        installed = on_host("install", certificate=certificate, trust=authority.bundle)
        return result | installed if installed.get("failed") else result

    def _authority(self, args: dict[str, Any]) -> Any:
        """Open or create the authority; None if it is missing in check mode."""
        from ringfence.identity import pki

        certificate_file, key_file = Path(args["certificate_file"]), Path(args["key_file"])
        create = args.get("create")
        if create and self._task.check_mode and not certificate_file.exists():
            return None
        return pki.open_authority(
            certificate_file,
            key_file,
            create=(create["name"], create["domain"]) if create else None,
        )
