"""Query logs of Route 53 Resolver. moto does not emulate its DNS Firewall."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.naming import physical, tags
from ringfence.rehearsal.record import Create, Created, Inputs


def query_log_config(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    made = aws.client("route53resolver").create_resolver_query_log_config(
        Name=physical(name, inputs),
        DestinationArn=inputs["destinationArn"],
        CreatorRequestId=name,
        Tags=tags(inputs),
    )["ResolverQueryLogConfig"]
    return Created(made["Id"], {"arn": made["Arn"], "name": made["Name"], "ownerId": aws.id})


def query_log_config_association(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    made = aws.client("route53resolver").associate_resolver_query_log_config(
        ResolverQueryLogConfigId=inputs["resolverQueryLogConfigId"],
        ResourceId=inputs["resourceId"],
    )["ResolverQueryLogConfigAssociation"]
    return Created(made["Id"], {})


RESOURCES: Mapping[str, Create] = {
    "aws:route53/resolverQueryLogConfig:ResolverQueryLogConfig": query_log_config,
    "aws:route53/resolverQueryLogConfigAssociation:ResolverQueryLogConfigAssociation": (
        query_log_config_association
    ),
}
