"""The four steps in which Secrets Manager has a value replaced.

Each may come twice, and a rotation that failed begins anew under another token: a step looks
first whether its work is done. A value is in no message, neither of ours nor of an error.
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
    """This rotation cannot go on."""


@dataclass(frozen=True)
class Rotation:
    client: Any
    secret: str
    token: str
    """Version of the new value."""
    stages: Mapping[str, list[str]]
    """By version."""
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
    """AWSCURRENT moves, and Secrets Manager calls the version it leaves AWSPREVIOUS."""
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
    """What Lambda calls."""
    # Not at the top: the steps are tried where no region is set.
    import boto3

    make: Any = boto3.client
    step(make("secretsmanager"), event)


def step(client: Any, event: Mapping[str, str]) -> None:
    rotation = _begun(client, event["SecretId"], event["ClientRequestToken"])
    if rotation.current_version != rotation.token:
        STEPS[event["Step"]](rotation)
    print(f"{event['Step']} of {rotation.secret}, version {rotation.token}: done")


def _begun(client: Any, secret: str, token: str) -> Rotation:
    """Refuses what Secrets Manager did not ask for."""
    found = client.describe_secret(SecretId=secret)
    stages: Mapping[str, list[str]] = found.get("VersionIdsToStages", {})
    tags: Mapping[str, str] = {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}
    kind = tags.get(TAG, "")
    if not found.get("RotationEnabled"):
        raise RotationError(f"{secret} is not to be rotated")
    if not {CURRENT, PENDING} & set(stages.get(token, [])):
        raise RotationError(f"version {token} of {secret} is not the one that is being made")
    if kind not in KINDS:
        raise RotationError(f"{secret} is of the kind {kind!r}, which cannot be made here")
    return Rotation(client, secret, token, stages, KINDS[kind])
