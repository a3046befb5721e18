"""The plugins that run and report compliance checks, in real pytest runs on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from jsonschema import Draft202012Validator

from ringfence.report import document

pytest_plugins = ("pytester",)

LAB = Path(__file__).parent / "manifests" / "direct.yaml"

# The checks run on this machine: each host of the manifest is a testinfra host `local://`.
CONFTEST = """
import pytest
from testinfra.backend.local import LocalBackend
from ringfence.verify.targets import Target, UnreachableError

pytest_plugins = ("ringfence.verify.plugin", "ringfence.report.plugin")

class Here(dict):
    def __missing__(self, host):
        if host.name in UNREACHABLE:
            raise UnreachableError(f"{host.name} cannot be reached")
        self[host] = Target(LocalBackend(), host, "local")
        return self[host]

UNREACHABLE = set()

@pytest.fixture(scope="session")
def targets():
    return Here()
"""

CHECKS = """
import pytest
from ringfence.report import not_applicable

@pytest.mark.control("IAM-05")
@pytest.mark.hosts("all")
def test_root_is_refused(host, environment):
    "Root is no person."
    assert host.manifest.name != "siem-1", f"root enters {host.manifest.fqdn} of {environment.name}"

@pytest.mark.control("TIN-04")
@pytest.mark.hosts("mcp_servers")
def test_server_is_sandboxed(host, server):
    "Servers run other people's code."
    assert server.account == f"mcp-{server.name}", "wrong account"
    assert host.run("true").succeeded, "no shell"

@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
def test_services_are_confined(host):
    "A confined service does less harm."
    not_applicable("no AppArmor in this kernel")

@pytest.mark.control("NET-04")
@pytest.mark.hosts("sensor")
def test_sensor_sees_traffic(host):
    "There is no sensor in this environment."
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\naddopts = --strict-markers -ra -p no:cacheprovider")
    pytester.mkpydir("checks").joinpath("conftest.py").write_text(CONFTEST)
    write(pytester, CHECKS)
    return pytester


def write(project: pytest.Pytester, checks: str) -> None:
    (project.path / "checks" / "test_all.py").write_text(checks)


def verify(project: pytest.Pytester, *options: str) -> pytest.RunResult:
    return project.runpytest_subprocess("checks", "--environment", str(LAB), *options)


def latest(project: pytest.Pytester, name: str = "compliance.json") -> dict[str, Any]:
    report = json.loads((project.path / "reports" / "latest" / name).read_text())
    Draft202012Validator(json.loads(document.SCHEMA.read_text())).validate(report)
    return report


class TestRun:
    def test_each_check_runs_once_per_host_and_server(self, project: pytest.Pytester):
        result = verify(project)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        report = latest(project)
        figures = ("passed", "failed", "not_applicable")
        assert [report[figure] for figure in figures] == [4, 1, 2]
        assert report["rate"] == 0.8
        assert report["controls"]["IAM-05"] == {"tools-1": "passed", "siem-1": "failed"}
        assert report["controls"]["TIN-04"] == {"tools-1": "passed"}
        assert report["controls"]["HST-01"] == {
            "tools-1": "not_applicable",
            "siem-1": "not_applicable",
        }
        assert {c["case"] for c in report["checks"] if c["control"] == "TIN-04"} == {
            "time",
            "git",
            "sqlite",
        }

    def test_a_group_without_hosts_leaves_its_control_unverified(self, project: pytest.Pytester):
        verify(project)
        assert set(latest(project)["controls"]["NET-04"].values()) == {"not_verified"}

    def test_it_tells_what_was_seen_and_what_to_do(self, project: pytest.Pytester):
        result = verify(project)
        result.stdout.fnmatch_lines(
            [
                "*IAM-05  Two factors for administrators*1/2*pass*FAIL*",
                "*siem-1: root is refused: root enters siem-1.lab.internal of lab",
                "*remedy: Apply the role ssh*",
                "*80% compliant: 4 passed, 1 failed, 2 not applicable; 28 controls not yet*",
                "*compliance.html",
            ]
        )
        result.stdout.no_fnmatch_line("*Traceback*")

    def test_junit_has_evidence_and_reasons_and_no_variables(self, project: pytest.Pytester):
        write(project, CHECKS.replace("    assert server", "    key = 's3cr3t'\n    assert server"))
        verify(project)
        text = (project.path / "reports" / "latest" / "junit.xml").read_text()
        root = ElementTree.fromstring(text)  # noqa: S314  output of this run
        assert [e.get("message") for e in root.iter("failure")] == [
            "root enters siem-1.lab.internal of lab"
        ]
        assert {e.get("message") for e in root.iter("skipped")} == {"no AppArmor in this kernel"}
        assert "s3cr3t" not in text

    @pytest.mark.parametrize("jobs", ["1", "2"])
    def test_side_by_side_or_not_is_the_same(self, project: pytest.Pytester, jobs: str):
        verify(project, "--jobs", jobs)
        assert latest(project)["rate"] == 0.8

    def test_xdist_can_be_used_instead(self, project: pytest.Pytester):
        verify(project, "-n", "2")
        assert latest(project)["rate"] == 0.8

    def test_hosts_have_processes_of_their_own(self, project: pytest.Pytester):
        write(
            project,
            CHECKS + "\nimport os, pathlib\n"
            "@pytest.fixture(autouse=True)\n"
            "def process(request):\n"
            "    name = request.node.callspec.params['host'].name\n"
            "    with open('processes', 'a') as file: file.write(f'{name} {os.getpid()}\\n')\n",
        )
        verify(project)
        lines = (project.path / "processes").read_text().split("\n")[:-1]
        assert len(lines) == 7
        assert len(set(lines)) == 2

    def test_an_unreachable_host_fails_all_its_checks(self, project: pytest.Pytester):
        conftest = project.path / "checks" / "conftest.py"
        conftest.write_text(CONFTEST.replace("set()", "{'tools-1'}"))
        result = verify(project)
        report = latest(project)
        seen = {c["message"] for c in report["checks"] if c["host"] == "tools-1"}
        assert seen == {"tools-1 cannot be reached"}
        assert result.ret == pytest.ExitCode.TESTS_FAILED

    def test_a_check_without_host_is_of_the_environment(self, project: pytest.Pytester):
        write(
            project,
            "import pytest\n@pytest.mark.control('IAM-04')\n"
            "def test_reviews_are_signed(environment): assert environment.principals, 'none'\n",
        )
        assert verify(project).ret == 0
        assert latest(project)["controls"]["IAM-04"] == {"(environment)": "passed"}


class TestSuccessIsEarned:
    def test_all_passed_is_success(self, project: pytest.Pytester):
        write(project, CHECKS.replace('!= "siem-1"', '!= "x"'))
        assert verify(project).ret == 0
        assert latest(project)["rate"] == 1

    def test_nothing_applicable_is_not(self, project: pytest.Pytester):
        result = verify(project, "--controls", "HST-01")
        assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
        result.stdout.fnmatch_lines(["nothing was verified"])

    def test_no_check_is_not(self, project: pytest.Pytester):
        write(project, "")
        assert verify(project).ret == pytest.ExitCode.NO_TESTS_COLLECTED

    def test_a_skip_without_reason_is_a_failure(self, project: pytest.Pytester):
        write(project, CHECKS.replace("not_applicable(", "pytest.skip("))
        verify(project)
        assert latest(project)["controls"]["HST-01"]["tools-1"] == "failed"

    def test_an_expected_failure_is_a_failure(self, project: pytest.Pytester):
        write(
            project, CHECKS.replace("@pytest.mark.hosts", "@pytest.mark.xfail\n@pytest.mark.hosts")
        )
        verify(project)
        assert latest(project)["controls"]["IAM-05"]["siem-1"] == "failed"

    def test_a_check_that_breaks_is_a_failure(self, project: pytest.Pytester):
        write(project, CHECKS.replace('not_applicable("no AppArmor in this kernel")', "{}['no']"))
        verify(project)
        report = latest(project)
        assert report["controls"]["HST-01"]["tools-1"] == "failed"
        messages = {c.get("message") for c in report["checks"] if c["control"] == "HST-01"}
        assert len(messages) == 1
        assert "the check itself broke at test_all.py:" in str(messages.pop())

    @pytest.mark.parametrize("jobs", ["1", "2"])
    def test_a_module_that_cannot_be_read_leaves_no_report(
        self, project: pytest.Pytester, jobs: str
    ):
        verify(project)
        (project.path / "checks" / "test_broken.py").write_text("import nonexistent")
        result = verify(project, "--jobs", jobs)
        assert result.ret not in (0, 1)
        assert not list((project.path / "reports" / "latest").iterdir())
        result.stdout.fnmatch_lines(["*nonexistent*", "no report: the run was not complete"])

    def test_a_process_that_dies_leaves_no_report(self, project: pytest.Pytester):
        write(project, CHECKS.replace('not_applicable("no', "import os; os._exit(3) #"))
        result = verify(project)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        assert not (project.path / "reports" / "latest" / "compliance.json").exists()
        result.stdout.fnmatch_lines(["*ended early (status 3)*"])


class TestMeasurements:
    def test_before_is_compared_with(self, project: pytest.Pytester):
        result = verify(project, "--measurement", "before")
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        assert latest(project, "before.json")["rate"] == 0.8
        write(project, CHECKS.replace('!= "siem-1"', '!= "x"'))
        verify(project)
        report = latest(project)
        assert (report["before"]["rate"], report["rate"]) == (0.8, 1)
        assert report["before"]["controls"]["IAM-05"]["siem-1"] == "failed"

    def test_a_new_one_removes_old_results(self, project: pytest.Pytester):
        verify(project)
        verify(project, "--measurement", "before")
        assert [p.name for p in (project.path / "reports" / "latest").iterdir()] == ["before.json"]

    def test_of_another_environment_it_is_left_aside(self, project: pytest.Pytester):
        verify(project, "--measurement", "before")
        path = project.path / "reports" / "latest" / "before.json"
        path.write_text(path.read_text().replace('"environment": "lab"', '"environment": "other"'))
        result = verify(project)
        assert "before" not in latest(project)
        result.stdout.fnmatch_lines(["no comparison: *is of the environment other"])

    @pytest.mark.parametrize(
        "options", [["--host", "tools-1"], ["--controls", "IAM-05,HST-01"], ["-k", "root"], ["-x"]]
    )
    def test_a_selection_is_kept_apart(self, project: pytest.Pytester, options: list[str]):
        verify(project, *options)
        assert not (project.path / "reports" / "latest").exists()
        partial = project.path / "reports" / "partial" / "compliance.json"
        assert json.loads(partial.read_text())["partial"] is True


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--host", "tools-9"], "*--host tools-9: the manifest has tools-1, siem-1"),
            (["--controls", "IAM-99"], "*--controls: no control IAM-99"),
        ],
    )
    def test_a_wrong_selection(self, project: pytest.Pytester, options: list[str], said: str):
        result = verify(project, *options)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([said])

    def test_no_environment(self, project: pytest.Pytester):
        result = project.runpytest_subprocess("checks")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["ERROR: no environment given; add --environment *"])

    def test_an_environment_that_is_not_there(self, project: pytest.Pytester):
        result = project.runpytest_subprocess("checks", "--environment", "none.yaml")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "Traceback" not in str(result.stderr)

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            (
                'control("IAM-05")',
                'control("IAM-99")',
                "*schemas/controls.yaml has no control IAM-99*",
            ),
            ('@pytest.mark.control("IAM-05")', "", "*name its one control*"),
            ('@pytest.mark.hosts("mcp_servers")', "", "*name the group of hosts*"),
        ],
    )
    def test_a_check_that_is_not_marked(
        self, project: pytest.Pytester, old: str, new: str, said: str
    ):
        write(project, CHECKS.replace(old, new))
        result = verify(project)
        assert result.ret not in (0, 1)
        result.stdout.fnmatch_lines([said])


def test_help_explains_the_options(project: pytest.Pytester):
    result = project.runpytest_subprocess("checks", "--help")
    result.stdout.fnmatch_lines(["*--environment=FILE*", "*--measurement=*", "*--reports=DIR*"])
