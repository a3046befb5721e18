"""The stacks of this repository, as programs to rehearse."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ringfence import STACKS
from ringfence.cloud import quotas
from ringfence.identity.ssh_authority import ensure_authority
from ringfence.identity.state import StateError
from ringfence.manifest.model import Environment
from ringfence.rehearsal.engine.rehearse import rehearsed
from ringfence.rehearsal.record import Rehearsal, RehearsalError


class NotProvisionableError(RehearsalError):
    """The manifest provisions nothing in AWS, or exceeds a quota."""


@contextmanager
def rehearsed_stack(
    environment: Environment,
    stack: str = "environment",
    *,
    preview: bool = True,
    shared: Rehearsal | None = None,
) -> Iterator[Rehearsal]:
    """Rehearse the program that `pulumi up` runs in `stacks/`, for this environment.

    The stack of an environment refers to the stack of its account: rehearse that first, in the same
    account, unless `shared` is its rehearsal.
    """
    place = environment.provisioning
    if place is None:
        raise NotProvisionableError(
            f"{environment.name}: provisioning.aws is missing; add it to rehearse the environment"
        )
    if exceeded := quotas.exceeded(environment):
        raise NotProvisionableError("\n".join(f"{environment.path}: {each}" for each in exceeded))
    if stack == "environment" and shared is None:
        with (
            rehearsed_stack(environment, "account", preview=False) as shared,
            rehearsed_stack(environment, preview=preview, shared=shared) as rehearsal,
        ):
            yield rehearsal
        return
    if stack == "environment":
        try:
            ensure_authority(environment)
        except StateError as error:
            raise NotProvisionableError(str(error)) from error
    with rehearsed(
        lambda: _run(stack),
        project=stack,
        stack=environment.name,
        region=place.region,
        config={f"{stack}:manifest": str(environment.path)},
        preview=preview,
        account=shared.account if shared else None,
        references={place.account_stack: shared.exports} if shared else {},
    ) as rehearsal:
        yield rehearsal


def _run(stack: str) -> None:
    # An installed wheel keeps the stacks among its data, where imports do not look.
    if (root := str(STACKS.parent)) not in sys.path:
        sys.path.append(root)
    runpy.run_module(f"stacks.{stack}", run_name="__main__")
