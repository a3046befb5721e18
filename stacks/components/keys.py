"""A KMS key per data class, that rotates every year (DAT-02)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import policies
from ringfence.cloud.services import DATA_CLASSES
from ringfence.cloud.tags import tags
from ringfence.environment import DataClass, Environment


@dataclass(frozen=True)
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
            key = aws.kms.Key(
                f"{name}-{data_class}",
                description=f"{data_class} data of {environment.name}",
                policy=policies.key_policy(args.account, args.region, f"{environment.name}-"),
                enable_key_rotation=True,
                deletion_window_in_days=30,
                tags=tags(environment, f"key-{data_class}", "DAT-02", data_class),
                # What is encrypted under a deleted key is gone.
                opts=pulumi.ResourceOptions(parent=self, protect=True),
            )
            aws.kms.Alias(
                f"{name}-{data_class}",
                target_key_id=key.key_id,
                opts=pulumi.ResourceOptions(parent=self),
            )
            self.arns[data_class] = key.arn
        self.register_outputs({"arns": self.arns})
