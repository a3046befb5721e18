"""Suricata of Debian 13, run on captures in the lab's image, without booting a host."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

from ringfence.lab import directories, image, packages
from ringfence.lab.cgroup import Cgroup

ROLE = Path(__file__).parents[1] / "roles/nids"
TEMPLATES = ROLE / "templates/etc/ringfence/nids/staged"
RELEASE = "trixie"
EVENTS = ("alerts.json", "flows.json")
"""Files of Suricata's outputs, in the order of the configuration."""

ENTER = """
options=$1 root=$2 folder=$3; shift 3
mount -t overlay overlay -o "$options" "$root"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount --bind "$folder" "$root/mnt"
exec chroot "$root" "$@"
"""

INSTALL = f"""
export DEBIAN_FRONTEND=noninteractive
printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
apt-get -q -o Acquire::http::Proxy={packages.URL} update
apt-get -q -o Acquire::http::Proxy={packages.URL} install -y --no-install-recommends suricata
"""


@dataclass(frozen=True)
class Suricata:
    tree: Path
    """Directory with the files installed on top of the image."""
    image: Path

    @classmethod
    def installed(cls) -> Suricata:
        """Install Suricata once per image; later runs reuse it."""
        lower = image.ensure(RELEASE, Cgroup("nids-tests"), print)
        top = directories.CACHE / "nids-tests" / lower.name
        engine = cls(top / "tree", lower)
        with directories.locked(top.parent):
            if not engine.tree.is_dir():
                packages.start()
                partial, work = top / "partial", top / "work"
                for directory in (partial, work):
                    directory.mkdir(parents=True, exist_ok=True)
                options = f"lowerdir={lower},upperdir={partial},workdir={work}"
                done = _enter(options, top, top, "sh", "-euc", INSTALL)
                assert done.returncode == 0, done.stdout[-3000:]
                partial.rename(engine.tree)
        return engine

    def run(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Suricata with a folder of this machine mounted on /mnt."""
        options = f"lowerdir={self.tree}:{self.image}"
        return _enter(options, self.tree.parent, folder, "suricata", *arguments)

    def complaints(self, folder: Path) -> list[str]:
        """Return the errors and warnings of Suricata about a configuration and its rules."""
        done = self.run(folder, "-T", *configured())
        said = [line for line in done.stdout.splitlines() if line.startswith(("E:", "W:"))]
        return said or ([f"ended with {done.returncode}"] if done.returncode else [])

    def inspect(self, folder: Path, capture: Path, *options: str) -> list[dict[str, Any]]:
        """Return the events of a capture. The folder contains the configuration and the capture."""
        events = [folder / name for name in EVENTS]
        for file in events:
            file.unlink(missing_ok=True)
        done = self.run(
            folder,
            *configured(),
            *("-r", f"/mnt/{capture.relative_to(folder)}", "--runmode", "single"),
            *options,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        return [json.loads(line) for file in events for line in file.read_text().splitlines()]


def configured() -> list[str]:
    """Return the options of the role's unit, with files in place of sockets."""
    settings = {
        "default-rule-path": "/mnt",
        "classification-file": "/mnt/classification.config",
        "unix-command.enabled": "no",
    }
    for number, name in enumerate(EVENTS):
        settings[f"outputs.{number}.eve-log.filetype"] = "regular"
        settings[f"outputs.{number}.eve-log.filename"] = f"/mnt/{name}"
    given = [f"{key}={value}" for key, value in settings.items()]
    return ["-c", "/mnt/suricata.yaml", "-l", "/mnt", *(a for g in given for a in ("--set", g))]


def _enter(options: str, top: Path, folder: Path, *command: str) -> Any:
    root = top / "root"
    root.mkdir(exist_ok=True)
    return subprocess.run(
        [
            *["unshare", "--mount", "--propagation", "private", "--"],
            *["/bin/sh", "-euc", ENTER, "sh", options, str(root), str(folder), *command],
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=300,
        check=False,
    )


def render(variables: Mapping[str, Any], folder: Path) -> Path:
    """Render the configuration of role `nids` as the role does."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  # signatures are not HTML
    )
    environment.filters["b64encode"] = lambda text: base64.b64encode(text.encode()).decode()
    facts = {"default_ipv4": {"interface": "eth0"}, "all_ipv4_addresses": []}
    values = {**_defaults("defaults"), **_defaults("vars"), "ansible_facts": facts, **variables}
    values["ansible_managed"] = "Rendered for a test"
    for name in environment.list_templates(filter_func=lambda name: "[name]" not in name):
        target = folder / name.removesuffix(".j2")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(environment.get_template(name).render(values))
    return folder


def _defaults(kind: str) -> dict[str, Any]:
    loaded = yaml.safe_load((ROLE / kind / "main.yml").read_text())
    return {k: v for k, v in loaded.items() if not (isinstance(v, str) and "{{" in v)}
