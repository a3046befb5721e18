"""The way out: a firewall that knows names, before a NAT gateway, in every zone (NET-02).

segment -> firewall -> NAT gateway -> internet gateway, and back the same way: each zone has its
own, as a firewall that sees half of a connection drops it.
https://docs.aws.amazon.com/network-firewall/latest/developerguide/arch-igw-ngw.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from ringfence.cloud import acls, egress
from ringfence.cloud.services import retention_days
from ringfence.cloud.tags import tags
from ringfence.manifest.model import Environment
from stacks.components.network.vpc import Network

ANYWHERE = "0.0.0.0/0"


@dataclass(frozen=True)
class EgressArgs:
    environment: Environment
    network: Network
    zones: tuple[str, ...]
    key_arn: pulumi.Input[str]
    """Of the class of the log: `ringfence.cloud.egress.LOG_CLASS`."""


class Egress(pulumi.ComponentResource):
    log_group_name: pulumi.Output[str]

    def __init__(
        self, name: str, args: EgressArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Egress", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._segments = egress.segments(args.environment)
        places = egress.places(args.environment, args.zones)
        firewalls = {z: self._subnet(z, "firewall", str(p.firewall)) for z, p in places.items()}
        nats = {z: self._subnet(z, "nat", str(p.nat)) for z, p in places.items()}
        self._acl([*firewalls.values(), *nats.values()])
        gateway = self._gateway()
        firewall = self._firewall([subnet.id for subnet in firewalls.values()])
        self.log_group_name = self._logs(firewall)
        for zone in args.zones:
            endpoint = firewall.firewall_statuses.apply(lambda found, z=zone: _endpoint(found, z))
            nat = self._nat(zone, nats[zone], gateway)
            self._route(self._table(zone, "firewall", firewalls[zone]), "out", nat_gateway_id=nat)
            back = self._table(zone, "nat", nats[zone])
            self._route(back, "out", gateway_id=gateway.id)
            for segment in self._segments:
                way = f"{segment.name}-{zone}"
                subnet = args.network.subnets[segment.name][zone]
                table = args.network.route_tables[segment.name][zone]
                self._route((way, table.id), "out", vpc_endpoint_id=endpoint)
                # More exact than the VPC's own route, or answers would pass the firewall by.
                self._route(back, segment.name, to=subnet.cidr_block, vpc_endpoint_id=endpoint)
        self.register_outputs({"log_group_name": self.log_group_name})

    def _tags(self, name: str) -> dict[str, str]:
        return tags(self._args.environment, name, "NET-02", group=egress.GROUP_NAME)

    def _subnet(self, zone: str, kind: str, cidr: str) -> aws.ec2.Subnet:
        return aws.ec2.Subnet(
            f"{self._name}-{kind}-{zone}",
            vpc_id=self._args.network.vpc.id,
            cidr_block=cidr,
            availability_zone=zone,
            map_public_ip_on_launch=False,
            tags=self._tags(f"egress-{kind}-{zone}"),
            opts=self._child,
        )

    def _acl(self, subnets: Sequence[aws.ec2.Subnet]) -> None:
        acl = aws.ec2.NetworkAcl(
            self._name,
            vpc_id=self._args.network.vpc.id,
            subnet_ids=[subnet.id for subnet in subnets],
            tags=self._tags("egress"),
            opts=self._child,
        )
        for entry in acls.egress_entries(self._args.environment):
            aws.ec2.NetworkAclRule(
                f"{self._name}-{entry.key}",
                network_acl_id=acl.id,
                rule_number=entry.number,
                egress=entry.direction == "egress",
                protocol=entry.protocol,
                rule_action="allow",
                cidr_block=str(entry.network),
                from_port=entry.first,
                to_port=entry.last,
                opts=self._child,
            )

    def _gateway(self) -> aws.ec2.InternetGateway:
        vpc = self._args.network.vpc
        # Of the whole VPC: traffic of a firewall stays blocked where its subnets alone are let.
        # https://docs.aws.amazon.com/vpc/latest/userguide/security-vpc-bpa-basics.html
        aws.ec2.VpcBlockPublicAccessExclusion(
            self._name,
            vpc_id=vpc.id,
            internet_gateway_exclusion_mode="allow-egress",
            tags=self._tags("egress"),
            opts=self._child,
        )
        return aws.ec2.InternetGateway(
            self._name, vpc_id=vpc.id, tags=self._tags("egress"), opts=self._child
        )

    def _nat(
        self, zone: str, subnet: aws.ec2.Subnet, gateway: aws.ec2.InternetGateway
    ) -> pulumi.Output[str]:
        name, named = f"{self._name}-{zone}", self._tags(f"egress-{zone}")
        after = pulumi.ResourceOptions(parent=self, depends_on=[gateway])
        address = aws.ec2.Eip(name, domain="vpc", tags=named, opts=after)
        return aws.ec2.NatGateway(
            name, allocation_id=address.id, subnet_id=subnet.id, tags=named, opts=after
        ).id

    def _table(
        self, zone: str, kind: str, subnet: aws.ec2.Subnet
    ) -> tuple[str, pulumi.Output[str]]:
        name = f"{kind}-{zone}"
        table = aws.ec2.RouteTable(
            f"{self._name}-{name}",
            vpc_id=self._args.network.vpc.id,
            tags=self._tags(f"egress-{name}"),
            opts=self._child,
        )
        aws.ec2.RouteTableAssociation(
            f"{self._name}-{name}", subnet_id=subnet.id, route_table_id=table.id, opts=self._child
        )
        return name, table.id

    def _route(
        self,
        table: tuple[str, pulumi.Output[str]],
        way: str,
        *,
        to: pulumi.Input[str] = ANYWHERE,
        **target: pulumi.Input[str],
    ) -> None:
        given: dict[str, Any] = {**target}
        aws.ec2.Route(
            f"{self._name}-{table[0]}-{way}",
            route_table_id=table[1],
            destination_cidr_block=to,
            **given,
            opts=self._child,
        )

    def _firewall(self, subnet_ids: Sequence[pulumi.Output[str]]) -> aws.networkfirewall.Firewall:
        name, environment, named = self._name, self._args.environment, self._tags("egress")
        key = {"type": "CUSTOMER_KMS", "key_id": self._args.key_arn}
        group = aws.networkfirewall.RuleGroup(
            f"{name}-names",
            type="STATEFUL",
            capacity=egress.CAPACITY,
            description=f"Names that servers of {environment.name} may reach",
            rule_group=aws.networkfirewall.RuleGroupRuleGroupArgs(
                rules_source=aws.networkfirewall.RuleGroupRuleGroupRulesSourceArgs(
                    rules_string=egress.rules(environment)
                ),
                stateful_rule_options=(
                    aws.networkfirewall.RuleGroupRuleGroupStatefulRuleOptionsArgs(
                        rule_order=egress.STRICT_ORDER
                    )
                ),
            ),
            encryption_configuration=aws.networkfirewall.RuleGroupEncryptionConfigurationArgs(
                **key
            ),
            tags=named,
            opts=self._child,
        )
        reference = aws.networkfirewall.FirewallPolicyFirewallPolicyStatefulRuleGroupReferenceArgs
        options = aws.networkfirewall.FirewallPolicyFirewallPolicyStatefulEngineOptionsArgs
        policy = aws.networkfirewall.FirewallPolicy(
            name,
            firewall_policy=aws.networkfirewall.FirewallPolicyFirewallPolicyArgs(
                stateless_default_actions=[egress.FORWARD],
                stateless_fragment_default_actions=[egress.FORWARD],
                stateful_default_actions=[*egress.DEFAULTS],
                stateful_engine_options=options(
                    rule_order=egress.STRICT_ORDER,
                    # A connection whose beginning the firewall has not seen is dropped.
                    stream_exception_policy="DROP",
                ),
                stateful_rule_group_references=[reference(priority=1, resource_arn=group.id)],
            ),
            encryption_configuration=aws.networkfirewall.FirewallPolicyEncryptionConfigurationArgs(
                **key
            ),
            tags=named,
            opts=self._child,
        )
        production = environment.stage == "production"
        mapping = aws.networkfirewall.FirewallSubnetMappingArgs
        return aws.networkfirewall.Firewall(
            name,
            vpc_id=self._args.network.vpc.id,
            firewall_policy_arn=policy.id,  # its ARN, as a rule group has its own
            subnet_mappings=[mapping(subnet_id=subnet_id) for subnet_id in subnet_ids],
            delete_protection=production,
            subnet_change_protection=production,
            firewall_policy_change_protection=production,
            encryption_configuration=aws.networkfirewall.FirewallEncryptionConfigurationArgs(**key),
            tags=named,
            opts=pulumi.ResourceOptions(parent=self, protect=production),
        )

    def _logs(self, firewall: aws.networkfirewall.Firewall) -> pulumi.Output[str]:
        environment = self._args.environment
        log_group = aws.cloudwatch.LogGroup(
            self._name,
            kms_key_id=self._args.key_arn,
            retention_in_days=retention_days(environment, egress.LOG_CLASS),
            tags=tags(environment, "egress", "NET-05", egress.LOG_CLASS),
            # Evidence: it outlives a stack that is torn down in haste.
            opts=pulumi.ResourceOptions(parent=self, protect=True),
        )
        nf = aws.networkfirewall
        nf.LoggingConfiguration(
            self._name,
            firewall_arn=firewall.arn,
            logging_configuration=nf.LoggingConfigurationLoggingConfigurationArgs(
                log_destination_configs=[
                    nf.LoggingConfigurationLoggingConfigurationLogDestinationConfigArgs(
                        log_type=log_type,
                        log_destination_type="CloudWatchLogs",
                        log_destination={"logGroup": log_group.name},
                    )
                    for log_type in egress.LOG_TYPES
                ]
            ),
            opts=self._child,
        )
        return log_group.name


def _endpoint(
    statuses: Sequence[aws.networkfirewall.outputs.FirewallFirewallStatus], zone: str
) -> str:
    for status in statuses:
        for state in status.sync_states or ():
            if state.availability_zone == zone:
                for attachment in state.attachments or ():
                    if attachment.endpoint_id:
                        return attachment.endpoint_id
    raise pulumi.RunError(f"the firewall has no endpoint in {zone}; run pulumi up again")
