"""Resource types that a rehearsal supports, and their status."""

from __future__ import annotations

from dataclasses import dataclass

from ringfence.rehearsal.handlers import (
    alerts,
    balancers,
    configuration,
    detection,
    dns,
    egress,
    functions,
    identity,
    keys,
    logs,
    machines,
    mirroring,
    network,
    secrets,
    sessions,
    storage,
    trail,
)
from ringfence.rehearsal.record import Create, Look, RehearsalError, Status


@dataclass(frozen=True)
class HandlerEntry:
    status: Status
    create: Create | None = None


RECORDED: tuple[str, ...] = (
    # moto 5.2.5 does not emulate these, or only in part.
    "aws:accessanalyzer/analyzer:Analyzer",
    "aws:ebs/snapshotBlockPublicAccess:SnapshotBlockPublicAccess",
    "aws:ec2/imageBlockPublicAccess:ImageBlockPublicAccess",
    "aws:ec2/instanceMetadataDefaults:InstanceMetadataDefaults",
    "aws:ec2/serialConsoleAccess:SerialConsoleAccess",
    "aws:ec2/trafficMirrorFilterRule:TrafficMirrorFilterRule",
    "aws:ec2/vpcBlockPublicAccessExclusion:VpcBlockPublicAccessExclusion",
    "aws:ec2/vpcBlockPublicAccessOptions:VpcBlockPublicAccessOptions",
    "aws:networkfirewall/firewallPolicy:FirewallPolicy",
    "aws:networkfirewall/ruleGroup:RuleGroup",
    "aws:route53/resolverFirewallConfig:ResolverFirewallConfig",
    "aws:route53/resolverFirewallDomainList:ResolverFirewallDomainList",
    "aws:route53/resolverFirewallRule:ResolverFirewallRule",
    "aws:route53/resolverFirewallRuleGroup:ResolverFirewallRuleGroup",
    "aws:route53/resolverFirewallRuleGroupAssociation:ResolverFirewallRuleGroupAssociation",
    "aws:securityhub/standardsSubscription:StandardsSubscription",
)

MODULES = (
    *(alerts, balancers, configuration, detection, dns, egress, functions, identity, keys, logs),
    *(machines, mirroring, network),
    *(secrets, sessions, storage, trail),
)

TYPES: dict[str, HandlerEntry] = {
    **{token: HandlerEntry(Status.RECORDED) for token in RECORDED},
    **{
        token: HandlerEntry(Status.MOTO, create)
        for module in MODULES
        for token, create in module.RESOURCES.items()
    },
}
FUNCTIONS: dict[str, Look] = {**identity.FUNCTIONS}


def entry(token: str, *, custom: bool) -> HandlerEntry:
    """Return the entry of a type. Raise `RehearsalError` for an unknown type."""
    if not custom or token.startswith("pulumi:providers:"):
        return HandlerEntry(Status.NONE)
    try:
        return TYPES[token]
    except KeyError:
        raise RehearsalError(
            f"{token} cannot be rehearsed; add a handler in ringfence/rehearsal/handlers, "
            "or its name to RECORDED in registry.py if moto does not emulate it"
        ) from None


def function(token: str) -> Look:
    try:
        return FUNCTIONS[token]
    except KeyError:
        raise RehearsalError(
            f"{token} cannot be rehearsed; add it to FUNCTIONS of a module in "
            "ringfence/rehearsal/handlers, or compute its result in the stack"
        ) from None
