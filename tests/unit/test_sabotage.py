"""The plugin that shows that checks can fail can itself fail. Here "hosts" are files."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ("pytester",)

ROOT = Path(__file__).parents[2]
LAB = ROOT / "inventories" / "lab" / "environment.yaml"

CONFTEST = """
import subprocess
import pytest
from testinfra.backend.local import LocalBackend
from ringfence.verify.targets import Target
from tests.lab import sabotage

pytest_plugins = ("ringfence.verify.plugin", "ringfence.report.plugin")

class Hosts(dict):
    def __missing__(self, host):
        self[host] = Target(LocalBackend(), host, "local")
        return self[host]
    def forget(self):
        for target in self.values(): target.once.cache_clear()

@pytest.fixture(scope="session")
def targets():
    return Hosts()

class Here:
    def exec(self, host, argv, timeout):
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout)

if LAB_IS_UP:
    sabotage.running_lab = lambda environment: Here()
"""

CHECK = """
import pathlib
import pytest
from ringfence.report import not_applicable

@pytest.mark.control("IAM-05")
@pytest.mark.hosts("mcp_servers")
@pytest.mark.sabotage("echo $HOST > broken", restore="rm broken")
def test_door_is_closed(host):
    "Why."
    assert host.once("test -e broken").failed, "the door is open"
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini("[pytest]\naddopts = --strict-markers -p no:cacheprovider")
    pytester.mkpydir("checks").joinpath("conftest.py").write_text(f"LAB_IS_UP = True\n{CONFTEST}")
    return pytester


def prove(project: pytest.Pytester, check: str = CHECK) -> pytest.RunResult:
    (project.path / "checks" / "test_door.py").write_text(check)
    options = ("-p", "tests.lab.sabotage", "--sabotage", "--environment", str(LAB))
    return project.runpytest_subprocess("checks", *options)


def test_a_check_that_fails_and_recovers_is_proven(project: pytest.Pytester):
    prove(project).assert_outcomes(passed=1)
    assert not (project.path / "broken").exists()


def test_the_parameters_of_a_check_are_known_to_its_sabotage(project: pytest.Pytester):
    check = CHECK.replace("(host)", "(host, server, administrator)").replace(
        "echo $HOST > broken",
        "echo $HOST $SERVER $ACCOUNT $PORT $ADMINISTRATOR >> all; touch broken",
    )
    prove(project, check).assert_outcomes(passed=6)
    lines = (project.path / "all").read_text().splitlines()
    assert "tools-1 git mcp-git 8442 bob" in lines


def test_one_host_is_enough(project: pytest.Pytester):
    """One host where the check passes is enough: a host where it does not apply shows nothing."""
    check = CHECK.replace("mcp_servers", "all").replace(
        "    assert host",
        '    if repr(host) == "edge-1":\n        not_applicable("no door")\n    assert host',
    )
    assert check.count("edge-1") == 1
    result = prove(project, check.replace("echo $HOST > broken", "echo $HOST >> all; touch broken"))
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*1 not applicable*"])
    assert (project.path / "all").read_text() == "tools-1\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            '"echo $HOST > broken"',
            '"touch elsewhere"',
            "passes",
        ),
        ('restore="rm broken"', 'restore="true"', "it still fails after: true"),
        ("@pytest.mark.sabotage", "@pytest.mark.xdist_group", "nothing shows that this check can"),
        ("echo $HOST > broken", "echo on purpose >&2; exit 4", "status 4 of: echo on purpose"),
        ('.failed, "the door is open"', '.failed or {}["gone"]', "it gives no verdict after"),
    ],
)
def test_what_is_not_proven_fails(project: pytest.Pytester, old: str, new: str, said: str):
    check = CHECK.replace(old, new)
    assert check != CHECK
    result = prove(project, check.replace('restore="rm broken"', 'restore="rm -f broken"'))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*{said}*"])


def test_a_broken_property_is_restored_in_any_case(project: pytest.Pytester):
    prove(project, CHECK.replace('.failed, "the door is open"', '.failed or {}["gone"]'))
    assert not (project.path / "broken").exists()


def test_a_check_that_does_not_hold_is_not_sabotaged(project: pytest.Pytester):
    (project.path / "broken").write_text("by somebody else")
    prove(project).assert_outcomes(failed=1)
    assert (project.path / "broken").read_text() == "by somebody else"


def test_no_compliance_is_reported(project: pytest.Pytester):
    prove(project)
    assert not list((project.path / "reports").rglob("compliance.json"))


def test_only_a_running_lab_is_ever_broken(project: pytest.Pytester):
    conftest = project.path / "checks" / "conftest.py"
    conftest.write_text(conftest.read_text().replace("LAB_IS_UP = True", "LAB_IS_UP = False"))
    manifest = project.path / "environment.yaml"
    manifest.write_text(LAB.read_text().replace("name: lab", "name: no-lab"))
    (project.path / "checks" / "test_door.py").write_text(CHECK)
    options = ("-p", "tests.lab.sabotage", "--sabotage", "--environment", str(manifest))
    result = project.runpytest_subprocess("checks", *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*is not a running lab; remedy: ringfence lab up *"])
    assert not (project.path / "broken").exists()
