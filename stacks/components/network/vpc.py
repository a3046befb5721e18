"""The VPC: subnets and routes per segment, and nothing that leads to the internet (NET-01)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import addressing, egress
from ringfence.cloud.tags import tags
from ringfence.manifest.model import Environment, Segment


@dataclass(frozen=True)
class NetworkArgs:
    environment: Environment
    zones: tuple[str, ...]


class Network(pulumi.ComponentResource):
    vpc: aws.ec2.Vpc
    subnets: Mapping[str, Mapping[str, aws.ec2.Subnet]]
    """By segment and zone."""
    route_tables: Mapping[str, Mapping[str, aws.ec2.RouteTable]]
    """By segment and zone: one for all zones, but where a way leads out of the segment."""

    def __init__(
        self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Network", name, None, opts)
        environment = args.environment
        child = pulumi.ResourceOptions(parent=self)
        self.vpc = aws.ec2.Vpc(
            name,
            cidr_block=str(addressing.vpc_network(environment)),
            enable_dns_support=True,
            enable_dns_hostnames=True,  # private names of endpoints need both
            tags=tags(environment, "vpc", "NET-01"),
            opts=pulumi.ResourceOptions(parent=self, protect=environment.stage == "production"),
        )
        self._lock_defaults(name, environment, child)
        self.subnets, self.route_tables = {}, {}
        for segment in environment.segments.values():
            tables = self._tables(name, args, segment)
            subnets: dict[str, aws.ec2.Subnet] = {}
            for zone, cidr in addressing.subnets(segment, args.zones).items():
                place = f"{segment.name}-{zone}"
                subnets[zone] = aws.ec2.Subnet(
                    f"{name}-{place}",
                    vpc_id=self.vpc.id,
                    cidr_block=str(cidr),
                    availability_zone=zone,
                    map_public_ip_on_launch=False,
                    tags=tags(environment, place, "NET-01", segment=segment.name),
                    opts=child,
                )
                aws.ec2.RouteTableAssociation(
                    f"{name}-{place}",
                    subnet_id=subnets[zone].id,
                    route_table_id=tables[zone].id,
                    opts=child,
                )
            self.subnets[segment.name], self.route_tables[segment.name] = subnets, tables
        self.register_outputs({"vpc_id": self.vpc.id})

    def _tables(
        self, name: str, args: NetworkArgs, segment: Segment
    ) -> Mapping[str, aws.ec2.RouteTable]:
        """A way out leads through the firewall of the same zone, and so needs a table in each."""

        def table(place: str) -> aws.ec2.RouteTable:
            return aws.ec2.RouteTable(
                f"{name}-{place}",
                vpc_id=self.vpc.id,
                tags=tags(args.environment, place, "NET-01", segment=segment.name),
                opts=pulumi.ResourceOptions(parent=self),
            )

        if segment in egress.segments(args.environment):
            return {zone: table(f"{segment.name}-{zone}") for zone in args.zones}
        return dict.fromkeys(args.zones, table(segment.name))

    def _lock_defaults(
        self, name: str, environment: Environment, child: pulumi.ResourceOptions
    ) -> None:
        """AWS gives a VPC a group, an ACL and a route table that apply where none is named."""
        default = f"{name}-default"
        named = tags(environment, "default", "NET-01")
        aws.ec2.DefaultSecurityGroup(default, vpc_id=self.vpc.id, tags=named, opts=child)
        aws.ec2.DefaultNetworkAcl(
            default,
            default_network_acl_id=self.vpc.default_network_acl_id,
            tags=named,
            # Subnets without an ACL of their own fall to it; none here, and AWS moves them.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["subnetIds"]),
        )
        aws.ec2.DefaultRouteTable(
            default,
            default_route_table_id=self.vpc.default_route_table_id,
            routes=[],
            tags=named,
            opts=child,
        )
