"""Tags of every resource, so that bills, reviews and policies can ask whose and what it is."""

from __future__ import annotations

from ringfence.environment import DataClass, Environment

ENVIRONMENT, CONTROL, DATA_CLASS = "ringfence:environment", "ringfence:control", "ringfence:class"
STAGE, OWNER = "ringfence:stage", "ringfence:owner"
SEGMENT, GROUP = "ringfence:segment", "ringfence:group"
"""What checks find subnets and security groups by."""


def tags(
    environment: Environment,
    name: str,
    control: str,
    data_class: DataClass | None = None,
    *,
    segment: str | None = None,
    group: str | None = None,
) -> dict[str, str]:
    optional = {DATA_CLASS: data_class, SEGMENT: segment, GROUP: group}
    return {
        "Name": f"{environment.name}-{name}",
        ENVIRONMENT: environment.name,
        CONTROL: control,
        STAGE: environment.stage,
        OWNER: environment.contacts["operations"].email,
        **{key: value for key, value in optional.items() if value},
    }
