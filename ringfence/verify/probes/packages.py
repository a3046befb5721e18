"""Probe: compares the installed files of an MCP server with its wheels."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import stat
import sys
from email.parser import HeaderParser
from pathlib import Path

ROOT = Path("/opt/ringfence/mcp")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def recorded(site: Path) -> tuple[int, list[str]]:
    """Return the number of files with a recorded hash, and those that differ or are missing."""
    count, differing = 0, []
    for record in site.glob("*.dist-info/RECORD"):
        for name, digest, _ in csv.reader(record.read_text().splitlines()):
            if not digest or name.endswith(".pyc"):
                continue
            count += 1
            kind, _, wanted = digest.partition("=")
            file = site / name
            actual = hashlib.new(kind, file.read_bytes()).digest() if file.is_file() else b""
            if base64.urlsafe_b64encode(actual).decode().rstrip("=") != wanted:
                differing.append(name)
    return count, differing


def versions(site: Path) -> list[tuple[str, str]]:
    found = []
    for metadata in site.glob("*.dist-info/METADATA"):
        fields = HeaderParser().parsestr(metadata.read_text(encoding="utf-8"))
        found.append((normal(str(fields["Name"])), str(fields["Version"])))
    return sorted(found)


def listed(bill: Path) -> list[tuple[str, str]]:
    if not bill.exists():
        return []
    components = json.loads(bill.read_text())["components"]
    return sorted((normal(c["name"]), c["version"]) for c in components)


def not_owned_by_root(environment: Path) -> list[str]:
    found = []
    for path in [environment, *environment.rglob("*")]:
        status = path.lstat()
        open_to_others = status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode)
        if status.st_uid or status.st_gid or open_to_others:
            found.append(str(path))
    return found


def main() -> int:
    server = sys.argv[1]
    environments = sorted((ROOT / server).glob("*/lib/python3*/site-packages"))
    if len(environments) != 1:
        print(f"{ROOT / server} has {len(environments)} environments", file=sys.stderr)
        return 1
    site = environments[0]
    environment = site.parents[2]
    files, differing = recorded(site)
    print(
        json.dumps(
            {
                "path": str(environment),
                "python": site.parent.name.removeprefix("python"),
                "files": files,
                "differing": differing,
                "versions": versions(site),
                "listed": listed(environment / "sbom.cdx.json"),
                "writable": not_owned_by_root(environment),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
