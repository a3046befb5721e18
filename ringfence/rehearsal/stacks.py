"""The stacks of this repository, as programs to rehearse."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from contextlib import contextmanager

from ringfence.cloud import quotas
from ringfence.environment import Environment
from ringfence.rehearsal.account import Account
from ringfence.rehearsal.record import Rehearsal, RehearsalError
from ringfence.rehearsal.rehearse import rehearsed
from ringfence.ssh_authority import SshAuthorityError, ensure_authority


class NotProvisionableError(RehearsalError):
    """The manifest asks for nothing of AWS, or for more than it gives."""


@contextmanager
def rehearsed_stack(
    environment: Environment,
    stack: str = "environment",
    *,
    preview: bool = True,
    account: Account | None = None,
) -> Iterator[Rehearsal]:
    """The very program that `pulumi up` runs in `stacks/`, for this environment."""
    place = environment.provisioning
    if place is None:
        raise NotProvisionableError(
            f"{environment.name}: nothing of it is provisioned; add provisioning.aws to rehearse it"
        )
    if too_much := quotas.exceeded(environment):
        raise NotProvisionableError("\n".join(f"{environment.path}: {each}" for each in too_much))
    try:
        ensure_authority(environment)
    except SshAuthorityError as error:
        raise NotProvisionableError(str(error)) from error
    with rehearsed(
        lambda: runpy.run_module(f"stacks.{stack}", run_name="__main__"),
        project=stack,
        stack=environment.name,
        region=place.region,
        config={f"{stack}:manifest": str(environment.path)},
        preview=preview,
        account=account,
    ) as rehearsal:
        yield rehearsal
