"""Ansible inventory plugin: read hosts and variables from an environment manifest."""

from __future__ import annotations

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

DOCUMENTATION = """
name: environment
short_description: Hosts and role variables of a Ringfence environment
description:
  - Reads C(environment.yaml) and gives every host the variables of the roles that apply to it.
  - Queries AWS for the hosts that it provisions; Ansible reaches them through Session Manager.
options: {}
"""


class InventoryModule(BaseInventoryPlugin):
    NAME = "environment"

    def verify_file(self, path: str) -> bool:
        return super().verify_file(path) and path.endswith(("environment.yaml", "environment.yml"))

    def parse(self, inventory, loader, path, cache=True):
        super().parse(inventory, loader, path, cache)
        try:
            from ringfence import inventory as ringfence_inventory
            from ringfence.identity import ssh_authority
            from ringfence.identity.state import StateError
            from ringfence.inventory import provisioned
            from ringfence.manifest.errors import ManifestError
            from ringfence.manifest.model import Environment
        except ImportError as error:
            raise AnsibleParserError(
                f"the inventory needs the Python package ringfence where Ansible runs: {error}"
            ) from error
        try:
            environment = provisioned.with_instances(Environment.load(path))
        except (ManifestError, provisioned.ProvisionedError) as error:
            raise AnsibleParserError(str(error)) from error
        try:
            # Renews the certificate of automation, once bootstrap.yml has created its authority.
            ssh_authority.keep_certificate(environment)
        except StateError as error:
            raise AnsibleParserError(str(error)) from error
        if missing := provisioned.missing_tools(environment):
            self.display.warning(missing)
        for host in environment.hosts.values():
            inventory.add_host(host.name)
            for name, value in ringfence_inventory.variables(environment, host).items():
                inventory.set_variable(host.name, name, value)
        for group, hosts in ringfence_inventory.groups(environment).items():
            inventory.add_group(group)
            for host in hosts:
                inventory.add_child(group, host)
