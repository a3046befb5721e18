"""Endpoints of AWS services inside the VPC, for this account only (NET-03)."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import policies
from ringfence.cloud.acls import endpoints_segment
from ringfence.cloud.services import GATEWAY_ENDPOINTS, interface_endpoints
from ringfence.cloud.tags import tags
from ringfence.manifest.model import Environment
from stacks.components.network.vpc import Network

CONTROLS = ("NET-03",)
(PRIVATE_ACCESS,) = CONTROLS


@dataclass(frozen=True, kw_only=True)
class GatewayEndpointsArgs:
    environment: Environment
    network: Network
    account: str
    region: str


class GatewayEndpoints(pulumi.ComponentResource):
    """Gateway endpoints of S3 and DynamoDB: routes, free of charge."""

    s3_prefix_list_id: pulumi.Output[str]

    def __init__(
        self, name: str, args: GatewayEndpointsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:GatewayEndpoints", name, None, opts)
        own = policies.endpoint_policy(args.account)
        by_zone = args.network.route_tables.values()
        tables = dict.fromkeys(table for zones in by_zone for table in zones.values())
        made = {
            service: aws.ec2.VpcEndpoint(
                f"{name}-{service}",
                vpc_id=args.network.vpc.id,
                service_name=f"com.amazonaws.{args.region}.{service}",
                vpc_endpoint_type="Gateway",
                route_table_ids=[table.id for table in tables],
                policy=policies.s3_endpoint_policy(account=args.account, region=args.region)
                if service == "s3"
                else own,
                tags=tags(args.environment, service, control=PRIVATE_ACCESS),
                opts=pulumi.ResourceOptions(parent=self),
            )
            for service in GATEWAY_ENDPOINTS
        }
        self.s3_prefix_list_id = made["s3"].prefix_list_id
        self.register_outputs({"ids": {service: each.id for service, each in made.items()}})


@dataclass(frozen=True, kw_only=True)
class InterfaceEndpointsArgs:
    environment: Environment
    network: Network
    account: str
    region: str
    group_id: pulumi.Input[str]


class InterfaceEndpoints(pulumi.ComponentResource):
    """Interface endpoints of the services that the manifest needs, in every zone."""

    def __init__(
        self, name: str, args: InterfaceEndpointsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:InterfaceEndpoints", name, None, opts)
        environment = args.environment
        subnets = args.network.subnets[endpoints_segment(environment).name].values()
        made = {
            service: aws.ec2.VpcEndpoint(
                f"{name}-{service}",
                vpc_id=args.network.vpc.id,
                service_name=f"com.amazonaws.{args.region}.{service}",
                vpc_endpoint_type="Interface",
                subnet_ids=[subnet.id for subnet in subnets],
                security_group_ids=[args.group_id],
                private_dns_enabled=True,
                policy=policies.endpoint_policy(args.account),
                tags=tags(environment, service, control=PRIVATE_ACCESS),
                opts=pulumi.ResourceOptions(parent=self),
            )
            for service in interface_endpoints(environment)
        }
        self.register_outputs({"ids": {service: each.id for service, each in made.items()}})
