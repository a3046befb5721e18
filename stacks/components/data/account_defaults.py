"""What AWS does where nobody says otherwise: nothing public, everything encrypted."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud.tags import account_tags
from ringfence.manifest.model import Environment


@dataclass(frozen=True)
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
        self._lock_default_vpc(f"{name}-vpc", args.environment, child)
        self.register_outputs({"disks_key_arn": args.disks_key_arn})

    def _lock_default_vpc(
        self, name: str, environment: Environment, child: pulumi.ResourceOptions
    ) -> None:
        """It is there in a new account, open to the internet; whoever starts a host meets it.

        Taken over rather than deleted: AWS recreates it for whoever asks.
        """
        named = account_tags(environment, "default", "NET-01")
        vpc = aws.ec2.DefaultVpc(name, tags=named, opts=child)
        aws.ec2.DefaultSecurityGroup(name, vpc_id=vpc.id, tags=named, opts=child)
        aws.ec2.DefaultNetworkAcl(
            name,
            default_network_acl_id=vpc.default_network_acl_id,
            tags=named,
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["subnetIds"]),
        )
        aws.ec2.DefaultRouteTable(
            name,
            default_route_table_id=vpc.default_route_table_id,
            routes=[],
            tags=named,
            opts=child,
        )
