"""DNS Firewall and query log: only declared names resolve (NET-02), queries are kept (NET-05)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import dns
from ringfence.cloud.tags import tags
from ringfence.manifest.model import Environment
from stacks.components.monitoring.log_group import evidence_log_group

CONTROLS = ("NET-02", "NET-05")
EGRESS, QUERIES = CONTROLS


@dataclass(frozen=True, kw_only=True)
class DnsArgs:
    environment: Environment
    vpc_id: pulumi.Input[str]
    log_key_arn: pulumi.Input[str]
    """Key of the data class `ringfence.cloud.dns.QUERY_CLASS`."""
    region: str
    link_names: Sequence[pulumi.Output[list[str]]]
    """DNS names of private links; AWS assigns them when it creates the endpoints."""


class Dns(pulumi.ComponentResource):
    log_group_name: pulumi.Output[str]

    def __init__(
        self, name: str, args: DnsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Dns", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._firewall()
        self.log_group_name = self._queries()
        self.register_outputs({"log_group_name": self.log_group_name})

    def _firewall(self) -> None:
        """Resolve declared names only: a query for any other name could carry data out.

        https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/resolver-dns-firewall.html
        """
        name, args, named = self._name, self._args, self._tags("dns-firewall")
        group = aws.route53.ResolverFirewallRuleGroup(name, tags=named, opts=self._child)
        known = dns.allowed(args.environment, args.region)
        allowed = pulumi.Output.all(*args.link_names).apply(
            lambda found: sorted({*known, *(each for names in found for each in names)})
        )
        for key, domains, priority, action in (
            ("allowed", allowed, dns.ALLOW_PRIORITY, "ALLOW"),
            ("others", [dns.EVERYTHING], dns.BLOCK_PRIORITY, "BLOCK"),
        ):
            listed = aws.route53.ResolverFirewallDomainList(
                f"{name}-{key}",
                domains=domains,
                tags=self._tags(f"dns-{key}"),
                opts=self._child,
            )
            aws.route53.ResolverFirewallRule(
                f"{name}-{key}",
                firewall_rule_group_id=group.id,
                firewall_domain_list_id=listed.id,
                # The owner of an allowed name decides where it redirects, as it does the address.
                firewall_domain_redirection_action="TRUST_REDIRECTION_DOMAIN"
                if action == "ALLOW"
                else None,
                priority=priority,
                action=action,
                block_response="NODATA" if action == "BLOCK" else None,
                opts=self._child,
            )
        aws.route53.ResolverFirewallRuleGroupAssociation(
            name,
            firewall_rule_group_id=group.id,
            vpc_id=args.vpc_id,
            priority=dns.GROUP_PRIORITY,
            mutation_protection="ENABLED" if args.environment.stage == "production" else "DISABLED",
            tags=named,
            opts=self._child,
        )
        # Fail closed: while the firewall is unavailable, no name resolves.
        aws.route53.ResolverFirewallConfig(
            name, resource_id=args.vpc_id, firewall_fail_open="DISABLED", opts=self._child
        )

    def _queries(self) -> pulumi.Output[str]:
        name, args = f"{self._name}-queries", self._args
        named = tags(args.environment, "dns-queries", control=QUERIES, data_class=dns.QUERY_CLASS)
        log_group = evidence_log_group(
            self,
            name,
            environment=args.environment,
            data_class=dns.QUERY_CLASS,
            key_arn=args.log_key_arn,
            tags=named,
        )
        config = aws.route53.ResolverQueryLogConfig(
            name, destination_arn=log_group.arn, tags=named, opts=self._child
        )
        aws.route53.ResolverQueryLogConfigAssociation(
            name,
            resolver_query_log_config_id=config.id,
            resource_id=args.vpc_id,
            opts=self._child,
        )
        return log_group.name

    def _tags(self, name: str) -> dict[str, str]:
        return tags(self._args.environment, name, control=EGRESS)
