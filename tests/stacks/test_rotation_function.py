"""The functions that rotate and review secrets, on an emulated Secrets Manager."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto.secretsmanager.models import FakeSecret, secretsmanager_backends

from ringfence.cloud import tags
from ringfence.rehearsal.account import EmulatedAccount, emulated
from stacks.functions.rotation import age, handler, kinds

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
OLD = "the-value-from-before"
NOW = datetime.now(UTC)


def test_tags_are_those_of_the_stack() -> None:
    """The functions run without the package `ringfence`, so they repeat the tags."""
    assert handler.TAG == tags.ROTATION
    assert (age.ENVIRONMENT_TAG, age.DAYS_TAG) == (tags.ENVIRONMENT, tags.ROTATION_DAYS)


@dataclass
class Vault:
    account: EmulatedAccount
    client: Any

    def secret(
        self, value: str | None = None, days: int = 90, tagged: Mapping[str, str] | None = None
    ) -> str:
        given = {
            tags.ENVIRONMENT: "payments",
            tags.ROTATION: "generated",
            tags.ROTATION_DAYS: str(days),
            **(tagged or {}),
        }
        value_given = {"SecretString": value} if value else {}
        return self.client.create_secret(
            Name=f"payments-secret-{uuid4()}",
            Tags=[{"Key": key, "Value": each} for key, each in given.items()],
            **value_given,
        )["ARN"]

    def begin(self, arn: str) -> str:
        """Do what Secrets Manager does before it calls the function: add a version without a
        value."""
        token, found = str(uuid4()), self.inside(arn)
        found.rotation_requested = found.rotation_enabled = True
        found.versions[token] = {
            "createdate": NOW.timestamp(),
            "version_id": token,
            "version_stages": ["AWSPENDING"],
        }
        return token

    def inside(self, arn: str) -> FakeSecret:
        found = secretsmanager_backends[self.account.id][self.account.region].secrets[arn]
        assert isinstance(found, FakeSecret)
        return found

    def step(self, arn: str, token: str, step: str) -> None:
        handler.step(self.client, {"SecretId": arn, "ClientRequestToken": token, "Step": step})

    def rotate(self, arn: str) -> str:
        token = self.begin(arn)
        for step in STEPS:
            self.step(arn, token, step)
        return token

    def value(self, arn: str, stage: str = "AWSCURRENT") -> str:
        return self.client.get_secret_value(SecretId=arn, VersionStage=stage)["SecretString"]

    def stages(self, arn: str) -> Mapping[str, list[str]]:
        return self.client.describe_secret(SecretId=arn)["VersionIdsToStages"]


@pytest.fixture
def vault() -> Iterator[Vault]:
    with emulated("eu-central-1") as account:
        yield Vault(account, account.client("secretsmanager"))


def test_four_steps_replace_the_value(vault: Vault) -> None:
    arn = vault.secret(OLD)
    token = vault.rotate(arn)
    new = vault.value(arn)
    assert "AWSCURRENT" in vault.stages(arn)[token]
    assert len(new) >= 32
    assert new != OLD
    assert vault.value(arn, "AWSPREVIOUS") == OLD


def test_a_secret_without_a_value_gets_its_first_one(vault: Vault) -> None:
    arn = vault.secret()
    token = vault.begin(arn)
    vault.step(arn, token, "createSecret")
    vault.step(arn, token, "setSecret")
    vault.step(arn, token, "testSecret")
    # AWS needs no previous version to move AWSCURRENT, but moto 5.2.5 does: so read the request.
    asked: dict[str, Any] = {}
    seen = vault.client.meta.events.register
    seen("before-parameter-build.secretsmanager.UpdateSecretVersionStage", _keep(asked))
    with suppress(IndexError, ClientError):
        vault.step(arn, token, "finishSecret")
    assert asked == {"SecretId": arn, "VersionStage": "AWSCURRENT", "MoveToVersionId": token}
    assert len(vault.value(arn, "AWSPENDING")) >= 32


def _keep(asked: dict[str, Any]) -> Any:
    return lambda params, **_: asked.update(params)


def test_until_the_last_step_the_old_value_is_the_current_one(vault: Vault) -> None:
    arn = vault.secret(OLD)
    token = vault.begin(arn)
    for step in STEPS[:-1]:
        vault.step(arn, token, step)
        assert vault.value(arn) == OLD
    vault.step(arn, token, "finishSecret")
    assert vault.value(arn) != OLD


def test_every_step_may_come_twice(vault: Vault) -> None:
    arn = vault.secret(OLD)
    token = vault.begin(arn)
    seen: set[str] = set()
    for step in STEPS:
        for _ in range(2):
            vault.step(arn, token, step)
            seen.add(vault.client.get_secret_value(SecretId=arn, VersionId=token)["SecretString"])
    assert len(seen) == 1
    assert "AWSCURRENT" in vault.stages(arn)[token]
    for step in STEPS:  # of a finished rotation
        vault.step(arn, token, step)
    assert vault.value(arn) == seen.pop()


@pytest.mark.parametrize("value", ["tiny", OLD])
def test_a_value_that_fails_its_test_does_not_become_current(
    vault: Vault, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arn = vault.secret(OLD)
    token = vault.begin(arn)
    monkeypatch.setattr(kinds.secrets, "token_urlsafe", lambda _: value)
    monkeypatch.setattr(kinds, "BYTES", 10)
    vault.step(arn, token, "createSecret")
    with pytest.raises(kinds.RefusedError) as refused:
        vault.step(arn, token, "testSecret")
    assert value not in str(refused.value)
    assert vault.value(arn) == OLD
    assert "AWSCURRENT" not in vault.stages(arn)[token]


def test_a_failed_rotation_is_followed_by_another(vault: Vault) -> None:
    """The next one has its own token; the unfinished value of the first is never used."""
    arn = vault.secret(OLD)
    failed = vault.begin(arn)
    vault.step(arn, failed, "createSecret")
    vault.inside(arn).versions[failed]["version_stages"] = []
    second = vault.rotate(arn)
    assert "AWSCURRENT" in vault.stages(arn)[second]


def test_a_value_that_was_not_made_cannot_be_finished(vault: Vault) -> None:
    arn = vault.secret(OLD)
    token = vault.begin(arn)
    for step in ("setSecret", "testSecret"):
        with pytest.raises(handler.RotationError, match="has no value"):
            vault.step(arn, token, step)
    assert vault.value(arn) == OLD


def test_a_step_without_a_rotation_is_refused(vault: Vault) -> None:
    arn = vault.secret(OLD)
    with pytest.raises(handler.RotationError, match=r"rotation of .* is not enabled"):
        vault.step(arn, str(uuid4()), "createSecret")
    vault.begin(arn)
    with pytest.raises(handler.RotationError, match="is neither current nor pending"):
        vault.step(arn, str(uuid4()), "createSecret")
    external = vault.secret(OLD, tagged={tags.ROTATION: "external"})
    with pytest.raises(handler.RotationError, match="has the kind 'external'"):
        vault.step(external, vault.begin(external), "createSecret")
    with pytest.raises(KeyError):
        vault.step(arn, vault.begin(arn), "revealSecret")
    assert vault.value(arn) == vault.value(external) == OLD


def test_no_value_is_logged(
    vault: Vault, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """At the log level of Lambda."""
    caplog.set_level(logging.INFO)
    arn = vault.secret(OLD)
    vault.rotate(arn)
    out, err = capfd.readouterr()
    output = out + err + caplog.text
    assert output.count(f"of {arn}") == len(STEPS)
    assert vault.value(arn) not in output
    assert OLD not in output


def _age(vault: Vault, now: datetime = NOW) -> dict[str, Any]:
    return age.report(vault.client, "payments", now)


def test_secrets_that_are_due_are_counted(vault: Vault) -> None:
    vault.secret(OLD, days=30)
    vault.secret(OLD, days=60)
    assert _age(vault) == {"checked": 2, "overdue": 0, "secrets": []}
    later = _age(vault, NOW + timedelta(days=40, hours=1))
    assert (later["checked"], later["overdue"]) == (2, 1)
    assert later["secrets"][0].endswith("40 days old, of 30")


@pytest.mark.parametrize(("days", "overdue"), [(31, 0), (32, 1)])
def test_the_date_of_the_value_counts(days: int, overdue: int) -> None:
    """The date of the last change may be that of a tag; moto reports the present for both."""
    arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:payments-secret-x-AbCdEf"
    tagged = [
        {"Key": tags.ENVIRONMENT, "Value": "payments"},
        {"Key": tags.ROTATION_DAYS, "Value": "30"},
    ]
    secret = {"ARN": arn, "Name": "payments-secret-x", "LastChangedDate": NOW, "Tags": tagged}
    versions = [
        {"VersionStages": ["AWSPREVIOUS"], "CreatedDate": NOW - timedelta(days=300)},
        {"VersionStages": ["AWSCURRENT"], "CreatedDate": NOW - timedelta(days=days)},
        {"VersionStages": ["AWSPENDING"], "CreatedDate": NOW},
    ]
    client: Any = boto3.Session(region_name="eu-central-1").client("secretsmanager")
    with Stubber(client) as stub:
        stub.add_response("list_secrets", {"SecretList": [secret]})
        stub.add_response("list_secret_version_ids", {"ARN": arn, "Versions": versions})
        assert age.report(client, "payments", NOW)["overdue"] == overdue


def test_a_secret_without_a_value_is_due(vault: Vault) -> None:
    vault.secret()
    assert _age(vault)["secrets"][0].endswith("has no value")


def test_secrets_of_others_are_left_alone(vault: Vault) -> None:
    for other in ("payments-test", "billing"):
        vault.secret(tagged={tags.ENVIRONMENT: other})
    vault.client.create_secret(Name="no tags at all")
    assert _age(vault) == {"checked": 0, "overdue": 0, "secrets": []}


def test_one_line_tells_the_alarm(
    vault: Vault, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.secret(OLD)
    monkeypatch.setattr("boto3.client", lambda _: vault.client)
    monkeypatch.setenv("ENVIRONMENT", "payments")
    age.check({}, None)
    assert json.loads(capsys.readouterr().out) == {"checked": 1, "overdue": 0, "secrets": []}
