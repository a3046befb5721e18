"""Defaults of the account: AWS encrypts everything and publishes nothing (NET-01, DAT-02)."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud.tags import account_tags
from ringfence.manifest.model import Environment
from stacks.components.network.default_resources import lock_defaults

CONTROLS = ("NET-01", "NET-03", "DAT-02", "IAM-07")
SEGMENTS, *_ = CONTROLS


@dataclass(frozen=True, kw_only=True)
class AccountDefaultsArgs:
    environment: Environment
    disks_key_arn: pulumi.Input[str]


class AccountDefaults(pulumi.ComponentResource):
    def __init__(
        self, name: str, args: AccountDefaultsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:AccountDefaults", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        aws.s3.AccountPublicAccessBlock(
            name,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=child,
        )
        aws.ebs.EncryptionByDefault(name, enabled=True, opts=child)
        aws.ebs.DefaultKmsKey(name, key_arn=args.disks_key_arn, opts=child)
        aws.ebs.SnapshotBlockPublicAccess(name, state="block-all-sharing", opts=child)
        aws.ec2.ImageBlockPublicAccess(name, state="block-new-sharing", opts=child)
        aws.ec2.SerialConsoleAccess(name, enabled=False, opts=child)
        aws.ec2.InstanceMetadataDefaults(
            name,
            http_tokens="required",
            http_put_response_hop_limit=1,
            http_endpoint="enabled",
            instance_metadata_tags="disabled",
            opts=child,
        )
        aws.ec2.VpcBlockPublicAccessOptions(
            name, internet_gateway_block_mode="block-bidirectional", opts=child
        )
        self._lock_default_vpc(f"{name}-vpc", args.environment)
        self.register_outputs({"disks_key_arn": args.disks_key_arn})

    def _lock_default_vpc(self, name: str, environment: Environment) -> None:
        """Close the VPC that every new account has: it is open to the internet.

        Adopt it rather than delete it: AWS recreates it on request.
        """
        named = account_tags(environment, "default", control=SEGMENTS)
        vpc = aws.ec2.DefaultVpc(name, tags=named, opts=pulumi.ResourceOptions(parent=self))
        lock_defaults(self, name, vpc, named)
