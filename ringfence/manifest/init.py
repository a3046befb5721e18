"""The verb `init`: writes a commented starter manifest that is valid as it is."""

from __future__ import annotations

import getpass
import os
import re
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from string import Template

from ringfence import ROOT, SCHEMAS
from ringfence.manifest import schema, validation
from ringfence.manifest.errors import ManifestError
from ringfence.manifest.schema import Schema
from ringfence.manifest.validation.rules.accounts import reason_against
from ringfence.manifest.validation.rules.keys import fault

STARTER = Path(__file__).with_name("starter.yaml.template")
MANIFEST = "environment.yaml"
PLACEHOLDER = "alice"
"""The administrator, if the name of the user who runs this cannot be one."""
RESERVED = ("ringfence", "debian", "agent")
"""Other names in the starter manifest."""
PUBLIC_KEYS = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")


class InitError(Exception):
    """No manifest was written: why, and what to do."""


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the environment")
    parser.add_argument(
        "--directory",
        type=Path,
        metavar="DIR",
        help="where to write environment.yaml (default: inventories/NAME)",
    )


def run(args: Namespace) -> int:
    directory: Path = args.directory or Path("inventories") / args.name
    try:
        path = write(args.name, directory, administrator(), public_key(Path.home() / ".ssh"))
    except (InitError, ManifestError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{path}: written; replace what it marks CHANGE, then: ringfence validate {path}")
    if not schema_line(directory):
        print(
            "For completion in an editor, let its first line be: "
            f"# yaml-language-server: $schema={SCHEMAS / 'environment.schema.json'}"
        )
    return 0


def write(name: str, directory: Path, account: str, key: str | None) -> Path:
    """Write a starter manifest, and never over another file. Raises `InitError`."""
    described = schema.resolve(schema.root()["properties"]["name"])
    if not _matches(described, name):
        example = described["examples"][0]
        hint = "use lower-case letters, digits and hyphens"
        raise InitError(f"{name!r} cannot be the name of an environment; {hint}, as in {example!r}")
    path = directory / MANIFEST
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(render(name, account, key, schema_line(directory)))
        if not _is_in_the_checkout(directory):
            _ignore_state(directory)
    except FileExistsError as error:
        raise InitError(
            f"{error.filename} exists and is left as it is; choose another --directory"
        ) from error
    except OSError as error:
        raise InitError(f"{error.filename} cannot be written: {error.strerror}") from error
    validation.load(path)
    return path


def render(name: str, account: str, key: str | None, schema_line: str) -> str:
    """Return the text of a starter manifest. `key` is a line of a .pub file."""
    access = f'ssh_keys: ["{key}"]' if key else f"ssh_key_files: [keys/{account}.pub]"
    return Template(STARTER.read_text(encoding="utf-8")).substitute(
        name=name, account=account, key=f"    {access}", schema_line=schema_line
    )


def schema_line(directory: Path) -> str:
    """Return the line that names the schema for editors; empty outside the checkout.

    Elsewhere a path to the schema would be right on this machine only.
    """
    if not _is_in_the_checkout(directory):
        return ""
    relative = os.path.relpath(SCHEMAS / "environment.schema.json", directory.resolve())
    return f"# yaml-language-server: $schema={relative}\n#\n"


def administrator() -> str:
    """Return the account of the user who runs this, if an administrator may have its name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        return PLACEHOLDER
    names = ("account", "name")
    fits = all(_matches(schema.root()["$defs"][each], name) for each in names)
    return name if fits and name not in RESERVED and not reason_against(name) else PLACEHOLDER


def public_key(directory: Path) -> str | None:
    """Return the first usable public key of this user."""
    for name in PUBLIC_KEYS:
        try:
            line = (directory / name).read_text().strip()
        except (OSError, ValueError):
            continue
        if not fault(line, "totp") and line.isprintable() and not set(line) & {'"', "\\"}:
            return line
    return None


def _matches(described: Schema, text: str) -> bool:
    return re.fullmatch(described["pattern"].removesuffix("$"), text) is not None


def _is_in_the_checkout(directory: Path) -> bool:
    return directory.resolve().is_relative_to(ROOT)


def _ignore_state(directory: Path) -> None:
    """Keep authority keys out of the user's repository."""
    path = directory / ".gitignore"
    if not path.exists():
        path.write_text(".state/\n")
