"""The four steps of a rotation by Secrets Manager.

AWS may repeat a step, and a failed rotation restarts with another token: each step first checks
whether its work is done. No message contains a value.
https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .kinds import KINDS, Kind

TAG = "ringfence:rotation"
CURRENT, PENDING = "AWSCURRENT", "AWSPENDING"


class RotationError(Exception):
    """The rotation cannot continue."""


@dataclass(frozen=True)
class Rotation:
    client: Any
    secret: str
    token: str
    """Version of the new value."""
    stages: Mapping[str, list[str]]
    """Labels by version."""
    kind: Kind

    @property
    def current_version(self) -> str | None:
        return next((v for v, stages in self.stages.items() if CURRENT in stages), None)

    def value(self, version: str) -> str | None:
        try:
            return self.client.get_secret_value(SecretId=self.secret, VersionId=version)[
                "SecretString"
            ]
        except self.client.exceptions.ResourceNotFoundException:
            return None

    @property
    def current(self) -> str | None:
        """None before the first value."""
        return self.value(self.current_version) if self.current_version else None

    @property
    def pending(self) -> str:
        found = self.value(self.token)
        if found is None:
            raise RotationError(f"version {self.token} of {self.secret} has no value")
        return found


def create(rotation: Rotation) -> None:
    if rotation.value(rotation.token) is None:
        rotation.client.put_secret_value(
            SecretId=rotation.secret,
            ClientRequestToken=rotation.token,
            SecretString=rotation.kind.create(),
            VersionStages=[PENDING],
        )


def apply(rotation: Rotation) -> None:
    rotation.kind.apply(rotation.pending)


def test(rotation: Rotation) -> None:
    rotation.kind.test(rotation.pending, rotation.current)


def finish(rotation: Rotation) -> None:
    """Move AWSCURRENT to the new version; Secrets Manager labels the old one AWSPREVIOUS."""
    current = rotation.current_version
    rotation.client.update_secret_version_stage(
        SecretId=rotation.secret,
        VersionStage=CURRENT,
        MoveToVersionId=rotation.token,
        **({"RemoveFromVersionId": current} if current else {}),
    )


STEPS: Mapping[str, Callable[[Rotation], None]] = {
    "createSecret": create,
    "setSecret": apply,
    "testSecret": test,
    "finishSecret": finish,
}


def rotate(event: Mapping[str, str], _context: object) -> None:
    """Handle an event of Secrets Manager."""
    # Not at the top: tests import this module without boto3's region.
    import boto3

    make: Any = boto3.client
    step(make("secretsmanager"), event)


def step(client: Any, event: Mapping[str, str]) -> None:
    rotation = _rotation(client, event["SecretId"], event["ClientRequestToken"])
    if rotation.current_version != rotation.token:
        STEPS[event["Step"]](rotation)
    print(f"{event['Step']} of {rotation.secret}, version {rotation.token}: done")


def _rotation(client: Any, secret: str, token: str) -> Rotation:
    """Read the rotation; raise `RotationError` if Secrets Manager has none in progress."""
    found = client.describe_secret(SecretId=secret)
    stages: Mapping[str, list[str]] = found.get("VersionIdsToStages", {})
    tags: Mapping[str, str] = {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}
    kind = tags.get(TAG, "")
    if not found.get("RotationEnabled"):
        raise RotationError(f"rotation of {secret} is not enabled")
    if not {CURRENT, PENDING} & set(stages.get(token, [])):
        raise RotationError(f"version {token} of {secret} is neither current nor pending")
    if kind not in KINDS:
        raise RotationError(f"{secret} has the kind {kind!r}, which this function cannot create")
    return Rotation(client, secret, token, stages, KINDS[kind])
