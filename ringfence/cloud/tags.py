"""Tags of every resource, so that bills, reviews and policies can ask whose and what it is."""

from __future__ import annotations

from ringfence.manifest.model import DataClass, Environment

ENVIRONMENT, CONTROL, DATA_CLASS = "ringfence:environment", "ringfence:control", "ringfence:class"
SCOPE = "ringfence:scope"
"""`account` on what all environments of an account share; nothing of one environment has it."""
STAGE, OWNER = "ringfence:stage", "ringfence:owner"
SEGMENT, GROUP, HOST = "ringfence:segment", "ringfence:group", "ringfence:host"
"""What checks find subnets, security groups and machines by, and the inventory finds hosts by."""

SECRET, ROTATION, ROTATION_DAYS = (
    f"ringfence:{word}" for word in ("secret", "rotation", "rotation-days")
)
"""What the rotation functions (stacks/functions/rotation) and checks find and judge secrets by."""


def tags(
    environment: Environment,
    name: str,
    control: str,
    data_class: DataClass | None = None,
    *,
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
    environment: Environment, name: str, control: str, data_class: DataClass | None = None
) -> dict[str, str]:
    """Of what exists once per account: it belongs to no environment of it."""
    return {
        "Name": f"account-{name}",
        SCOPE: "account",
        CONTROL: control,
        OWNER: environment.contacts["operations"].email,
        **({DATA_CLASS: data_class} if data_class else {}),
    }
