"""Egress: a firewall that filters by name, and a NAT gateway behind it, in every zone (NET-02).

Packets go from the segment through the firewall and the NAT gateway to the internet gateway, and
back the same way. Each zone has its own firewall: one that sees half of a connection drops it.
https://docs.aws.amazon.com/network-firewall/latest/developerguide/arch-igw-ngw.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from ringfence.cloud import acls, egress
from ringfence.cloud.tags import tags
from ringfence.manifest.model import Environment
from stacks.components.monitoring.log_group import evidence_log_group
from stacks.components.network.acls import network_acl
from stacks.components.network.vpc import Network

CONTROLS = ("NET-02", "NET-05")
FILTER, RECORD = CONTROLS

ANYWHERE = "0.0.0.0/0"


@dataclass(frozen=True, kw_only=True)
class EgressFirewallArgs:
    environment: Environment
    network: Network
    zones: tuple[str, ...]
    log_key_arn: pulumi.Input[str]
    """Key of the data class `ringfence.cloud.egress.LOG_CLASS`."""


class EgressFirewall(pulumi.ComponentResource):
    log_group_name: pulumi.Output[str]

    def __init__(
        self, name: str, args: EgressFirewallArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Egress", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._segments = egress.segments(args.environment)
        places = egress.places(args.environment, args.zones)
        firewalls = {
            zone: self._subnet("firewall", zone=zone, cidr=str(each.firewall))
            for zone, each in places.items()
        }
        nats = {
            zone: self._subnet("nat", zone=zone, cidr=str(each.nat))
            for zone, each in places.items()
        }
        network_acl(
            self,
            name,
            network=args.network,
            subnets=[*firewalls.values(), *nats.values()],
            entries=acls.egress_entries(args.environment),
            tags=self._tags("egress"),
        )
        gateway = self._gateway()
        firewall = self._firewall([subnet.id for subnet in firewalls.values()])
        self.log_group_name = self._logs(firewall)
        for zone in args.zones:
            endpoint = firewall.firewall_statuses.apply(lambda found, z=zone: _endpoint(found, z))
            nat = self._nat(zone, nats[zone], gateway)
            self._route(
                self._table("firewall", firewalls[zone], zone=zone), "out", nat_gateway_id=nat
            )
            back = self._table("nat", nats[zone], zone=zone)
            self._route(back, "out", gateway_id=gateway.id)
            for segment in self._segments:
                subnet = args.network.subnets[segment.name][zone]
                table = args.network.route_tables[segment.name][zone]
                self._route((f"{segment.name}-{zone}", table.id), "out", vpc_endpoint_id=endpoint)
                # More specific than the VPC's own route, so that answers pass the firewall too.
                self._route(back, segment.name, to=subnet.cidr_block, vpc_endpoint_id=endpoint)
        self.register_outputs({"log_group_name": self.log_group_name})

    def _tags(self, name: str) -> dict[str, str]:
        return tags(self._args.environment, name, control=FILTER, group=egress.GROUP_NAME)

    def _subnet(self, kind: str, *, zone: str, cidr: str) -> aws.ec2.Subnet:
        return aws.ec2.Subnet(
            f"{self._name}-{kind}-{zone}",
            vpc_id=self._args.network.vpc.id,
            cidr_block=cidr,
            availability_zone=zone,
            map_public_ip_on_launch=False,
            tags=self._tags(f"egress-{kind}-{zone}"),
            opts=self._child,
        )

    def _gateway(self) -> aws.ec2.InternetGateway:
        vpc = self._args.network.vpc
        # For the whole VPC: an exclusion of only the firewall's subnets leaves its traffic blocked.
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
        self, kind: str, subnet: aws.ec2.Subnet, *, zone: str
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
        name: str,
        *,
        to: pulumi.Input[str] = ANYWHERE,
        **target: pulumi.Input[str],
    ) -> None:
        options: dict[str, Any] = {**target}
        aws.ec2.Route(
            f"{self._name}-{table[0]}-{name}",
            route_table_id=table[1],
            destination_cidr_block=to,
            **options,
            opts=self._child,
        )

    def _firewall(self, subnet_ids: Sequence[pulumi.Output[str]]) -> aws.networkfirewall.Firewall:
        name, environment, named = self._name, self._args.environment, self._tags("egress")
        key = {"type": "CUSTOMER_KMS", "key_id": self._args.log_key_arn}
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
                    # Drop a connection whose start the firewall has not observed.
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
            firewall_policy_arn=policy.id,  # the id is the ARN
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
        log_group = evidence_log_group(
            self,
            self._name,
            environment=environment,
            data_class=egress.LOG_CLASS,
            key_arn=self._args.log_key_arn,
            tags=tags(environment, "egress", control=RECORD, data_class=egress.LOG_CLASS),
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
