"""Tags of every resource: they tell bills, reviews and policies who owns it, and why it exists."""

from __future__ import annotations

from ringfence.manifest.model import DataClass, Environment

ENVIRONMENT, CONTROL, DATA_CLASS = "ringfence:environment", "ringfence:control", "ringfence:class"
SCOPE = "ringfence:scope"
"""Has the value `account` on resources that all environments of an account share, and no others."""
STAGE, OWNER = "ringfence:stage", "ringfence:owner"
SEGMENT, GROUP, HOST = "ringfence:segment", "ringfence:group", "ringfence:host"
"""Checks find subnets, security groups and hosts by these tags; the inventory finds hosts."""

SECRET, ROTATION, ROTATION_DAYS = (
    f"ringfence:{word}" for word in ("secret", "rotation", "rotation-days")
)
"""The functions in stacks/functions/rotation and the checks find secrets by these tags."""


def tags(
    environment: Environment,
    name: str,
    *,
    control: str,
    data_class: DataClass | None = None,
    segment: str | None = None,
    group: str | None = None,
    host: str | None = None,
) -> dict[str, str]:
    optional = {DATA_CLASS: data_class, SEGMENT: segment, GROUP: group, HOST: host}
    return {
        "Name": f"{environment.name}-{name}",
        ENVIRONMENT: environment.name,
        CONTROL: control,
        STAGE: environment.stage,
        OWNER: environment.contacts["operations"].email,
        **{key: value for key, value in optional.items() if value},
    }


def account_tags(
    environment: Environment, name: str, *, control: str, data_class: DataClass | None = None
) -> dict[str, str]:
    """Tags of a resource that exists once per account and belongs to no environment."""
    return {
        "Name": f"account-{name}",
        SCOPE: "account",
        CONTROL: control,
        OWNER: environment.contacts["operations"].email,
        **({DATA_CLASS: data_class} if data_class else {}),
    }
