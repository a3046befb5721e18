"""The VPC: subnets and route tables per segment, without a route to the internet (NET-01)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import addressing, egress
from ringfence.cloud.tags import tags
from ringfence.manifest.model import Environment, Segment
from stacks.components.network.default_resources import lock_defaults

CONTROLS = ("NET-01", "NET-03")
SEGMENTS, _ = CONTROLS


@dataclass(frozen=True, kw_only=True)
class NetworkArgs:
    environment: Environment
    zones: tuple[str, ...]


class Network(pulumi.ComponentResource):
    vpc: aws.ec2.Vpc
    subnets: Mapping[str, Mapping[str, aws.ec2.Subnet]]
    """Subnets by segment and zone."""
    route_tables: Mapping[str, Mapping[str, aws.ec2.RouteTable]]
    """Tables by segment and zone. A segment without egress has one table for all zones."""

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
            tags=tags(environment, "vpc", control=SEGMENTS),
            opts=pulumi.ResourceOptions(parent=self, protect=environment.stage == "production"),
        )
        lock_defaults(
            self,
            f"{name}-default",
            self.vpc,
            tags(environment, "default", control=SEGMENTS),
        )
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
                    tags=tags(environment, place, control=SEGMENTS, segment=segment.name),
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
        """Declare a table per zone where the segment has egress: each zone has its own firewall."""

        def table(place: str) -> aws.ec2.RouteTable:
            return aws.ec2.RouteTable(
                f"{name}-{place}",
                vpc_id=self.vpc.id,
                tags=tags(args.environment, place, control=SEGMENTS, segment=segment.name),
                opts=pulumi.ResourceOptions(parent=self),
            )

        if segment in egress.segments(args.environment):
            return {zone: table(f"{segment.name}-{zone}") for zone in args.zones}
        return dict.fromkeys(args.zones, table(segment.name))
