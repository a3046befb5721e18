"""A log group that serves as evidence: encrypted, kept as long as its class says (DAT-02)."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_aws as aws

from ringfence.cloud.services import retention_days
from ringfence.manifest.model import DataClass, Environment

CONTROLS = ("DAT-02",)


def evidence_log_group(
    parent: pulumi.Resource,
    name: str,
    *,
    environment: Environment,
    data_class: DataClass,
    key_arn: pulumi.Input[str],
    tags: Mapping[str, str],
) -> aws.cloudwatch.LogGroup:
    return aws.cloudwatch.LogGroup(
        name,
        kms_key_id=key_arn,
        retention_in_days=retention_days(environment, data_class),
        tags=tags,
        # Evidence must survive a stack that somebody destroys in haste.
        opts=pulumi.ResourceOptions(parent=parent, protect=True),
    )
