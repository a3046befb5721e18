"""A KMS key that rotates every year and is protected from deletion (DAT-02)."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_aws as aws

CONTROLS = ("DAT-02",)


def protected_key(
    parent: pulumi.Resource, name: str, *, description: str, policy: str, tags: Mapping[str, str]
) -> aws.kms.Key:
    key = aws.kms.Key(
        name,
        description=description,
        policy=policy,
        enable_key_rotation=True,
        deletion_window_in_days=30,
        tags=tags,
        # Nobody can read what a deleted key has encrypted.
        opts=pulumi.ResourceOptions(parent=parent, protect=True),
    )
    aws.kms.Alias(name, target_key_id=key.key_id, opts=pulumi.ResourceOptions(parent=parent))
    return key
