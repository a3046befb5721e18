"""`ringfence rehearse`, as a person uses it."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from ringfence import cli
from ringfence.rehearsal.output import tree
from ringfence.rehearsal.record import Rehearsal, RehearsedResource, Status

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "inventories" / "aws-example" / "environment.yaml")
LAB = str(ROOT / "inventories" / "lab" / "environment.yaml")


def test_it_shows_a_tree_exports_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rehearse", EXAMPLE]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "  pulumi:pulumi:Stack payments-prod"
    assert "  ├─ ringfence:aws:Network payments-prod" in [line.replace("└", "├") for line in shown]
    assert any(line.startswith("  vpc_id: vpc-") for line in shown)
    assert any("rehearsed as real objects, 12 only recorded and not verified" in s for s in shown)
    assert any(line.startswith("Cost: ") for line in shown)


def test_it_shows_what_environments_share(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rehearse", EXAMPLE, "--stack", "account"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "+ │  ├─ aws:s3/bucket:Bucket account-trail" in shown
    assert any(line.startswith("  trail_arn: arn:aws:cloudtrail:") for line in shown)
    assert any("10 only recorded and not verified" in line for line in shown)
    assert any(line.startswith("Cost: ") for line in shown)


def test_an_environment_without_provisioning_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rehearse", LAB]) == 2
    assert capsys.readouterr().err == (
        "lab: provisioning.aws is missing; add it to rehearse the environment\n"
    )


def test_the_account_is_served_to_other_tools_until_ctrl_c() -> None:
    command = [sys.executable, "-m", "ringfence", "rehearse", EXAMPLE, "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as serving:
        assert serving.stdout
        try:
            lines = iter(serving.stdout.readline, "")
            exported = [line for line in lines_to("AWS_SESSION_TOKEN", lines) if "export " in line]
            variables = dict(line.removeprefix("export ").split("=", 1) for line in exported)
            keys = {name: shlex.split(value)[0] for name, value in variables.items()}
            session = boto3.Session(
                region_name=keys["AWS_DEFAULT_REGION"],
                aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
                aws_session_token=keys["AWS_SESSION_TOKEN"],
            )
            make: Any = session.client
            ec2 = make("ec2", endpoint_url=keys["AWS_ENDPOINT_URL"])
            names = {tag["Value"] for v in ec2.describe_vpcs()["Vpcs"] for tag in v.get("Tags", [])}
            serving.send_signal(signal.SIGINT)
            ended = serving.wait(90)
        finally:
            serving.kill()
    assert "payments-prod" in names
    assert ended == 0


def lines_to(last: str, lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line
        if last in line:
            return


def test_a_missing_extra_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "moto", None)
    assert cli.main(["rehearse", EXAMPLE]) == 2
    message = capsys.readouterr().err
    assert message == "Python package moto is missing; install it: pip install 'ringfence[aws]'\n"


def test_what_is_only_recorded_is_marked(rehearsal: Rehearsal) -> None:
    def resource(name: str, parent: str, status: Status) -> RehearsedResource:
        return RehearsedResource(name, "type", name, {}, name, {}, parent, status)

    resources = (
        resource("component", "stack", Status.NONE),
        resource("real", "component", Status.MOTO),
        resource("written-down", "component", Status.RECORDED),
    )
    shown = tree.render(Rehearsal("test", rehearsal.account, resources, {}, 1.0))
    assert shown.splitlines() == [
        "  pulumi:pulumi:Stack test",
        "  └─ type component",
        "+    ├─ type real",
        "?    └─ type written-down",
        "",
        "2 resources to create: 1 rehearsed as real objects, 1 only recorded and not verified; "
        "1 components and providers; 1.0 s",
    ]
