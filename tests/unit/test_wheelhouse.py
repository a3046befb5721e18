import hashlib
import tarfile
from pathlib import Path
from unittest.mock import patch

import pytest

from ringfence.cli import main
from ringfence.manifest.model import Environment
from ringfence.packages import wheelhouse
from ringfence.packages.wheelhouse import WheelhouseError

LAB = Path(__file__).parents[2] / "inventories" / "lab" / "environment.yaml"


def lock(directory: Path, name: str, *pins: str) -> Path:
    path = directory / name
    path.write_text("# a comment\n" + "".join(f"{pin} \\\n    --hash=sha256:00\n" for pin in pins))
    return path


@pytest.mark.parametrize("python", wheelhouse.PYTHONS.values())
def test_every_package_of_the_lab_has_a_lock_for_every_release(python: str):
    for server in Environment.load(LAB).servers.values():
        package = server.package
        path = wheelhouse.find_lock([wheelhouse.OWN_LOCKS], package.name, package.version, python)
        assert f"{package.name}=={package.version}" in path.read_text()


@pytest.mark.parametrize(
    "path", sorted(wheelhouse.OWN_LOCKS.glob("*.txt")), ids=lambda path: path.stem
)
def test_every_requirement_of_a_lock_is_exact_and_has_a_hash(path: Path):
    requirements = [
        line for line in path.read_text().splitlines() if not line.startswith((" ", "#"))
    ]
    assert requirements
    assert all("==" in line and line.endswith("\\") for line in requirements)


def test_a_missing_lock_says_what_to_run(tmp_path: Path):
    with pytest.raises(WheelhouseError, match=r"ringfence wheelhouse lock --python 3.13 x==1.0"):
        wheelhouse.find_lock([tmp_path], "x", "1.0", "3.13")


def test_names_of_packages_are_normal_in_the_names_of_locks():
    assert wheelhouse.lock_name("Mcp_Server.X", "1.0", "3.13") == "mcp-server-x-1.0-py3.13.txt"


def test_a_digest_stands_for_the_locks_the_python_and_the_machine(tmp_path: Path):
    one, two = lock(tmp_path, "1", "a==1"), lock(tmp_path, "2", "b==1")
    digest = wheelhouse.digest([one, two], "3.13", "x86_64")
    assert wheelhouse.digest([two, one], "3.13", "x86_64") == digest
    assert wheelhouse.digest([one], "3.13", "x86_64") != digest
    assert wheelhouse.digest([one, two], "3.11", "x86_64") != digest
    assert wheelhouse.digest([one, two], "3.13", "aarch64") != digest
    one.write_text(one.read_text().replace("00", "01"))
    assert wheelhouse.digest([one, two], "3.13", "x86_64") != digest


def test_an_archive_is_made_once_and_holds_every_version_that_a_lock_names(tmp_path: Path):
    locks = [lock(tmp_path, "1", "a==1", "b==1"), lock(tmp_path, "2", "a==2", "b==1")]
    asked: list[str] = []

    def download(requirements: Path, python: str, machine: str, wheels: Path) -> None:
        asked.append(requirements.read_text())
        wheels.mkdir(exist_ok=True)
        for line in requirements.read_text().splitlines():
            if "==" in line:
                (wheels / f"{line.split()[0].replace('==', '-')}.whl").write_text("wheel")

    with patch.object(wheelhouse, "_download", download):
        archive = wheelhouse.build(locks, "3.13", "x86_64", tmp_path / "cache")
        again = wheelhouse.build(locks, "3.13", "x86_64", tmp_path / "cache")
    assert archive == again
    # pip accepts one version of a package at a time, and nothing is requested twice.
    assert len(asked) == 2
    assert sum(text.count("b==1") for text in asked) == 1
    with tarfile.open(archive) as tar:
        assert tar.getnames() == ["a-1.whl", "a-2.whl", "b-1.whl"]
        assert {(member.uid, member.mtime, member.mode) for member in tar} == {(0, 0, 0o644)}


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path):
    """pip itself refuses it, on the operator's machine and on the host."""
    wheel = tmp_path / "a-1-py3-none-any.whl"
    wheel.write_bytes(b"not what was locked")
    wanted = hashlib.sha256(b"what was locked").hexdigest()
    path = tmp_path / "lock.txt"
    path.write_text(f"a==1 \\\n    --hash=sha256:{wanted}\n")
    with (
        patch.dict("os.environ", {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}),
        pytest.raises(WheelhouseError, match="DO NOT MATCH THE HASHES"),
    ):
        wheelhouse.build([path], "3.13", "x86_64", tmp_path / "cache")


def test_a_range_is_no_version(capsys):
    assert main(["wheelhouse", "lock", "--directory", "/nonexistent", "mcp-server-x"]) == 2
    assert "write PACKAGE==VERSION" in capsys.readouterr().err
