"""The wheel works without the checkout, and a release is complete."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.commands import install_collection

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv" / "wheel"
"""Environment that `make test` builds: the locked packages, without the checkout."""
LAB = ROOT / "inventories" / "lab" / "environment.yaml"


def run(
    *command: str | Path, cwd: Path, status: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs of an environment in which the wheel is installed."""
    if not (ENVIRONMENT / "run").exists():
        pytest.skip("no environment without the checkout; to have one: make .venv/wheel/run")
    built = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", built, cwd=ROOT)
    (wheel,) = built.glob("*.whl")
    python = ENVIRONMENT / "bin" / "python"
    options = ("--quiet", "--offline", "--no-deps", "--reinstall", "--python", python)
    run("uv", "pip", "install", *options, wheel, cwd=built)
    return ENVIRONMENT / "bin"


class TestWheel:
    def test_imports_nothing_of_the_checkout(self, programs: Path, tmp_path: Path) -> None:
        script = "import ringfence as p; print(p.__file__, p.ROOT)"
        for path in run(programs / "python", "-c", script, cwd=tmp_path).stdout.split():
            assert Path(path).is_relative_to(ENVIRONMENT)

    def test_validates(self, programs: Path, tmp_path: Path) -> None:
        manifest = tmp_path / "anywhere" / "environment.yaml"
        shutil.copytree(LAB.parent, manifest.parent, ignore=shutil.ignore_patterns(".state"))
        done = run(programs / "ringfence", "validate", manifest, cwd=tmp_path)
        assert "anywhere/environment.yaml: valid" in done.stdout
        manifest.write_text(manifest.read_text().replace("stage: staging", "stage: stagin"))
        done = run(programs / "ringfence", "validate", manifest, cwd=tmp_path, status=2)
        assert "did you mean" in done.stderr or "staging" in done.stderr

    def test_shows_every_control_without_a_hole(self, programs: Path, tmp_path: Path) -> None:
        done = run(programs / "ringfence", "control", "--all", cwd=tmp_path)
        assert "stacks/components/" in done.stdout
        assert "ringfence/gateway/policy" in done.stdout
        assert not done.stderr

    def test_shows_a_report(self, programs: Path, tmp_path: Path) -> None:
        done = run(programs / "ringfence", "report", "none.json", cwd=tmp_path, status=2)
        assert done.stderr == "none.json: No such file or directory; run the checks first\n"

    def test_carries_the_gateway(self, programs: Path, tmp_path: Path) -> None:
        check = (programs / "python", "-m", "ringfence.gateway", "check", "absent")
        done = run(*check, cwd=tmp_path, status=2)
        assert "absent" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the installed collection."""
    return install_collection(tmp_path_factory.mktemp("collection"))


class TestCollection:
    @pytest.mark.parametrize("part", ["plugins", "roles", "playbooks"])
    def test_carries_every_file_that_runs(self, installed: Path, part: str) -> None:
        listing = run("git", "ls-files", "--", part, cwd=ROOT).stdout.split()
        assert listing
        for name in listing:
            assert (installed / name).read_bytes() == (ROOT / name).read_bytes(), name

    def test_carries_nothing_else(self, installed: Path) -> None:
        assert {each.name for each in installed.iterdir()} == {
            *("FILES.json", "MANIFEST.json", "meta", "plugins", "roles", "playbooks", "docs"),
            *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "SECURITY.md"),
        }


def test_a_release_has_all_that_it_names(tmp_path: Path) -> None:
    bill = ROOT / ".venv" / "release"
    if not (bill / "run").exists():
        pytest.skip("nothing here makes a bill of materials; to have it: make .venv/release/run")
    run("git", "clone", "--quiet", "--no-local", ROOT, tmp_path / "clone", cwd=tmp_path)
    clone = tmp_path / "clone"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:{bill / 'bin'}"
    made = ("-o", ".venv/dev", "-o", ".venv/release/run")
    make = ("make", "--no-print-directory", *made, "release")
    assert "say which" in run(*make, cwd=clone, status=2, PATH=path).stderr
    (clone / "stray").touch()
    done = run(*make, "VERSION=9.8.7", cwd=clone, status=2, PATH=path)
    assert "commit or remove first" in done.stderr
    (clone / "stray").unlink()
    run(*make, "VERSION=9.8.7", cwd=clone, PATH=path)
    assert sorted(each.name for each in (clone / "dist").iterdir()) == [
        "SHA256SUMS",
        "ringfence-9.8.7-py3-none-any.whl",
        "ringfence-9.8.7.cdx.json",
        "ringfence-hardening-9.8.7.tar.gz",
    ]
    run("sha256sum", "--check", "SHA256SUMS", cwd=clone / "dist")
    materials = json.loads((clone / "dist" / "ringfence-9.8.7.cdx.json").read_text())
    assert {"ansible-core", "cedarpy"} <= {each["name"] for each in materials["components"]}
    changelog = (clone / "CHANGELOG.md").read_text()
    assert "## 9.8.7 (" in changelog
    assert "`ringfence control` shows" in changelog
    assert not list((clone / "changes").glob("*.md"))
