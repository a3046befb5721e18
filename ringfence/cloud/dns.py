"""Names that an environment may resolve, and the class of its query log (NET-02, NET-05)."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.cloud.services import GATEWAY_ENDPOINTS, interface_endpoints
from ringfence.manifest.model import DataClass, Environment

QUERY_CLASS: DataClass = "internal"
"""Class of flow logs: queries name both ends and contain no data."""
EVERYTHING = "*"
ALLOW_PRIORITY, BLOCK_PRIORITY = 100, 200
GROUP_PRIORITY = 101
"""AWS reserves 100 and lower, and 9900 and higher.

https://docs.aws.amazon.com/Route53/latest/APIReference/API_route53resolver_AssociateFirewallRuleGroup.html
"""


def allowed(environment: Environment, region: str) -> tuple[str, ...]:
    """The environment's own names, those of AWS services with an endpoint, and declared ones."""
    return tuple(sorted({*_allowed(environment, region)}))


def _allowed(environment: Environment, region: str) -> Iterator[str]:
    yield from (environment.domain, f"*.{environment.domain}")
    for service in (*interface_endpoints(environment), *GATEWAY_ENDPOINTS):
        yield f"{service}.{region}.amazonaws.com"
    yield f"*.s3.{region}.amazonaws.com"  # the name contains the bucket
    yield f"*.{region}.compute.internal"  # EC2's names of instances
    for server in environment.servers.values():
        yield from (egress.domain for egress in server.egress if egress.domain)
