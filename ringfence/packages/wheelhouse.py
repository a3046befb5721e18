"""Packages of MCP servers: locked by hash, fetched here, installed on hosts without a network.

A lock is a file beside the manifest, one per package, version and Python:
`locks/mcp-server-time-2026.10.19-py3.13.txt`. It is a requirements file with the hash of every file
that may be installed. `ringfence wheelhouse lock` writes it; people review and commit it. A
wheelhouse is built from locks: one archive of wheels, named by its content. A host installs from it
with only `pip --no-index --require-hashes`.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path

from ringfence import ROLES
from ringfence.manifest.model import Environment

PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
"""Python of each supported Debian release."""

GLIBC = {"3.11": 36, "3.13": 40}
"""Minor version of a C library that the release with this Python has, and that uv knows."""

MANYLINUX_MINORS = (39, 36, 35, 34, 31, 28, 27, 24, 17, 12, 5)
"""Minor versions that wheels are built for."""

OWN_LOCKS = ROLES / "mcp_servers" / "files" / "locks"
"""Locks of the bridge and pip, which the role itself installs."""


class WheelhouseError(Exception):
    """A lock is missing or cannot be satisfied."""


def locks_of(environment: Environment) -> Path:
    """Return the directory of locks beside the manifest."""
    return environment.path.parent / "locks"


def lock_name(package: str, version: str, python: str) -> str:
    normal = re.sub(r"[-_.]+", "-", package).lower()
    return f"{normal}-{version}-py{python}.txt"


def find_lock(directories: Iterable[Path], package: str, version: str, python: str) -> Path:
    name = lock_name(package, version, python)
    for directory in directories:
        if (path := directory / name).exists():
            return path
    raise WheelhouseError(
        f"no lock for {package} {version} on Python {python} ({name}); write one with: "
        f"ringfence wheelhouse lock --python {python} {package}=={version}"
    )


def write_lock(path: Path, requirements: Sequence[str], python: str) -> None:
    """Resolve requirements for a Python and record every hash. Needs a network."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise WheelhouseError("uv is not installed; run: pip install uv")
    resolved = subprocess.run(
        [
            *(uv, "pip", "compile", "-", "--quiet", "--no-header", "--no-annotate"),
            *(
                "--python-version",
                python,
                "--python-platform",
                f"x86_64-manylinux_2_{GLIBC[python]}",
            ),
            *("--generate-hashes", "--only-binary", ":all:", "--native-tls"),
        ],
        input="\n".join(requirements),
        capture_output=True,
        text=True,
        check=False,
    )
    if resolved.returncode:
        reason = resolved.stderr.strip().splitlines()
        raise WheelhouseError(f"cannot lock {requirements[0]}: {' '.join(reason)}")
    header = f"# Locked for Python {python}: {', '.join(requirements)}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + resolved.stdout)


def digest(locks: Sequence[Path], python: str, machine: str) -> str:
    """Return the name of a wheelhouse, by its content."""
    content = hashlib.sha256(f"{python} {machine}\n".encode())
    for text in sorted(lock.read_bytes() for lock in locks):
        content.update(text)
    return content.hexdigest()


def build(locks: Sequence[Path], python: str, machine: str, cache: Path) -> Path:
    """Build an archive of the locked wheels, for hosts with this Python and machine."""
    archive = cache / f"{digest(locks, python, machine)[:32]}.tar"
    if archive.exists():
        return archive
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        wheels = Path(directory) / "wheels"
        for number, requirements in enumerate(_rounds(lock.read_text() for lock in locks)):
            merged = Path(directory) / f"{number}.txt"
            merged.write_text(requirements)
            _download(merged, python, machine, wheels)
        staged = Path(directory) / archive.name
        with tarfile.open(staged, "w") as tar:
            for wheel in sorted(wheels.iterdir()):
                tar.add(wheel, wheel.name, filter=_anonymous)
        staged.replace(archive)
    return archive


def _rounds(locks: Iterable[str]) -> list[str]:
    """Group the requirements of all locks: pip accepts one version per package at a time."""
    blocks = {block for lock in locks for block in re.findall(r"^\S+==.*\n(?:^ .*\n)*", lock, re.M)}
    rounds: list[dict[str, str]] = []
    for block in sorted(blocks):
        name = block.partition("==")[0]
        for round_ in rounds:
            if name not in round_:
                round_[name] = block
                break
        else:
            rounds.append({name: block})
    return ["".join(each.values()) for each in rounds]


def _download(lock: Path, python: str, machine: str, directory: Path) -> None:
    # With every version of the C library, pip takes a minute.
    minors = (minor for minor in MANYLINUX_MINORS if minor <= GLIBC[python])
    platforms = [*(f"manylinux_2_{minor}_{machine}" for minor in minors), f"linux_{machine}"]
    fetched = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--require-hashes", "--no-deps", "--only-binary", ":all:"),
            *("--python-version", python, "--implementation", "cp"),
            *("--abi", f"cp{python.replace('.', '')}", "--abi", "abi3", "--abi", "none"),
            *(argument for platform in platforms for argument in ("--platform", platform)),
            *("--requirement", str(lock), "--dest", str(directory)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode:
        reason = " ".join(fetched.stderr.split())[:600]
        raise WheelhouseError(
            f"cannot fetch the packages for Python {python} on {machine}: {reason}"
        )


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode = 0o644
    member.mtime = 0
    return member


def arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    lock = actions.add_parser("lock", help="write the locks of packages; needs a network")
    lock.add_argument("--environment", type=Path, default="inventories/lab/environment.yaml")
    lock.add_argument(
        "--python",
        action="append",
        choices=sorted(PYTHONS.values()),
        help="Python of the hosts (default: of every supported Debian release)",
    )
    lock.add_argument(
        "--with",
        dest="constraints",
        action="append",
        default=[],
        metavar="REQUIREMENT",
        help="a further requirement, such as 'mcp<2' for a server that is older than the SDK",
    )
    lock.add_argument(
        "--directory", type=Path, help="where to write (default: beside the manifest)"
    )
    lock.add_argument(
        "packages",
        nargs="*",
        metavar="PACKAGE==VERSION",
        help="default: the manifest's packages that have no lock",
    )


def run(args: Namespace) -> int:
    directory: Path = args.directory or locks_of(Environment.load(args.environment))
    pythons = args.python or sorted(PYTHONS.values())
    try:
        for name, version, python in _packages(args, directory, pythons):
            path = directory / lock_name(name, version, python)
            write_lock(path, [f"{name}=={version}", *args.constraints], python)
            print(path)
    except WheelhouseError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _packages(
    args: Namespace, directory: Path, pythons: Sequence[str]
) -> list[tuple[str, str, str]]:
    if args.packages:
        pairs = [package.partition("==") for package in args.packages]
        if bad := [name for name, _, version in pairs if not name or not version]:
            raise WheelhouseError(f"not an exact version: {', '.join(bad)}; write PACKAGE==VERSION")
        return [(name, version, python) for name, _, version in pairs for python in pythons]
    servers = Environment.load(args.environment).servers.values()
    return [
        (server.package.name, server.package.version, python)
        for server in servers
        for python in pythons
        if not (directory / lock_name(server.package.name, server.package.version, python)).exists()
    ]
