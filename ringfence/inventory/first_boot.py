"""Cloud-init of a host: it opens automation's SSH access path, and nothing else.

Its files come from the templates of role `ssh`, which then finds them unchanged. Debian's image has
what Ansible needs (python3, sudo). Nothing else is installed, since no mirror can be reached. The
SSM agent comes from the bucket of the region, through the gateway endpoint, whose policy allows it.
https://docs.aws.amazon.com/systems-manager/latest/userguide/agent-install-deb.html
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any

import jinja2
import yaml

from ringfence import ROLES
from ringfence.cloud.machines import architecture
from ringfence.identity.ssh_authority import SshAuthorityFiles
from ringfence.inventory import ssh
from ringfence.manifest.model import Environment, Host

LONGEST = 16 * 1024
"""Bytes of user data before base64: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html"""
TEMPLATES = ROLES / "ssh" / "templates"
ACCESS_FILES = {
    "etc/ssh/ringfence_user_ca.pub": "0644",
    "etc/ssh/ringfence_principals": "0644",
    "etc/ssh/sshd_config.d/05-ringfence-automation.conf": "0644",
    "etc/sudoers.d/05-ringfence-automation": "0440",
}
"""Files of the role's `tasks_from: automation`, and their modes."""
MANAGED = "Managed by Ringfence: changes made here are overwritten."
SHELL = "/bin/bash"

AGENT = "/run/amazon-ssm-agent.deb"
# The image certainly has Python, but no curl. Network and endpoint may be late.
_FETCH = f"""\
for _ in $(seq 40); do
  python3 -c 'import sys, urllib.request as u; u.urlretrieve(*sys.argv[1:])' "$0" {AGENT} && break
  sleep 15
done
dpkg -i {AGENT} && rm {AGENT} && systemctl enable --now amazon-ssm-agent.service
"""


def user_data(environment: Environment, host: Host) -> str:
    """Return cloud-config. It contains the public half of the authority, and no secret."""
    return f"#cloud-config\n{yaml.safe_dump(config(environment, host), sort_keys=False)}"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def config(environment: Environment, host: Host) -> dict[str, Any]:
    account = environment.automation.account
    return {
        "hostname": host.name,
        "fqdn": host.fqdn,
        "package_update": False,
        "package_upgrade": False,
        "ssh_pwauth": False,
        "disable_root": True,
        # Only this account, without the image's own, for which nobody has a key.
        "users": [
            {
                "name": account,
                "gecos": "Ringfence automation",
                "shell": SHELL,
                "lock_passwd": True,
            }
        ],
        "write_files": [
            {"path": f"/{path}", "permissions": mode, "content": content}
            for (path, mode), content in zip(
                ACCESS_FILES.items(), _render(environment, host), strict=True
            )
        ],
        "runcmd": [
            ["sh", "-c", "sshd -t && systemctl reload-or-restart ssh.service"],
            ["sh", "-c", _FETCH, agent_url(environment, host)],
        ],
    }


def agent_url(environment: Environment, host: Host) -> str:
    assert environment.provisioning
    region, of = environment.provisioning.region, architecture(environment, host)
    place = f"https://s3.{region}.amazonaws.com/amazon-ssm-{region}"
    return f"{place}/latest/debian_{of}/amazon-ssm-agent.deb"


def _render(environment: Environment, host: Host) -> Sequence[str]:
    """Render the role's templates with the few features of Ansible that they use."""
    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - files of sshd and sudo
    )
    engine.filters["unique"] = lambda values: list(dict.fromkeys(values))
    engine.filters["regex_replace"] = lambda text, old, new: re.sub(old, new, text)
    authority = SshAuthorityFiles.of(environment).authority_public.read_text().rstrip()
    variables = {
        **ssh.variables(environment, host),
        "ssh_keep_ports": [],
        "ansible_managed": MANAGED,
        "lookup": lambda *_: authority,
    }
    return [engine.get_template(f"{path}.j2").render(variables) for path in ACCESS_FILES]
