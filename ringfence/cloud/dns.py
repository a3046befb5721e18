"""Names that an environment may ask for, and which questions are recorded (NET-02, NET-05)."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.cloud.services import GATEWAY_ENDPOINTS, interface_endpoints
from ringfence.manifest.model import DataClass, Environment

QUERY_CLASS: DataClass = "internal"
"""As flow logs: who asked for whom, and nothing of what was said."""
EVERYTHING = "*"
ALLOW_PRIORITY, BLOCK_PRIORITY = 100, 200
GROUP_PRIORITY = 101
"""AWS keeps 100 and lower, and 9900 and higher, for itself.

https://docs.aws.amazon.com/Route53/latest/APIReference/API_route53resolver_AssociateFirewallRuleGroup.html
"""


def allowed(environment: Environment, region: str) -> tuple[str, ...]:
    """Its own names, those of AWS's services that it has doors to, and declared ones."""
    return tuple(sorted({*_allowed(environment, region)}))


def _allowed(environment: Environment, region: str) -> Iterator[str]:
    yield from (environment.domain, f"*.{environment.domain}")
    for service in (*interface_endpoints(environment), *GATEWAY_ENDPOINTS):
        yield f"{service}.{region}.amazonaws.com"
    yield f"*.s3.{region}.amazonaws.com"  # a bucket is part of the name
    yield f"*.{region}.compute.internal"  # what EC2 calls instances
    for server in environment.servers.values():
        yield from (egress.domain for egress in server.egress if egress.domain)
