"""A KMS key per data class, which rotates every year (DAT-02)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi

from ringfence.cloud import policies
from ringfence.cloud.services import DATA_CLASSES
from ringfence.cloud.tags import tags
from ringfence.manifest.model import DataClass, Environment
from stacks.components.data.key import protected_key

CONTROLS = ("DAT-02",)
(ENCRYPTION,) = CONTROLS


@dataclass(frozen=True, kw_only=True)
class KeysArgs:
    environment: Environment
    account: str
    region: str


class Keys(pulumi.ComponentResource):
    arns: Mapping[DataClass, pulumi.Output[str]]

    def __init__(
        self, name: str, args: KeysArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Keys", name, None, opts)
        environment = args.environment
        self.arns = {}
        for data_class in DATA_CLASSES:
            self.arns[data_class] = protected_key(
                self,
                f"{name}-{data_class}",
                description=f"{data_class} data of {environment.name}",
                policy=policies.key_policy(
                    account=args.account, region=args.region, log_groups=f"{environment.name}-"
                ),
                tags=tags(
                    environment, f"key-{data_class}", control=ENCRYPTION, data_class=data_class
                ),
            ).arn
        self.register_outputs({"arns": self.arns})
