"""A key of ours in KMS, that rotates every year and is not deleted by accident (DAT-02)."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_aws as aws


def protected_key(
    parent: pulumi.Resource, name: str, description: str, policy: str, tags: Mapping[str, str]
) -> aws.kms.Key:
    key = aws.kms.Key(
        name,
        description=description,
        policy=policy,
        enable_key_rotation=True,
        deletion_window_in_days=30,
        tags=tags,
        # What is encrypted under a deleted key is gone.
        opts=pulumi.ResourceOptions(parent=parent, protect=True),
    )
    aws.kms.Alias(name, target_key_id=key.key_id, opts=pulumi.ResourceOptions(parent=parent))
    return key
