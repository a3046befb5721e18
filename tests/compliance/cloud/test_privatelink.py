"""NET-03: what other accounts are connected to, and nothing besides."""

from __future__ import annotations

import pytest

from ringfence.cloud.groups import link_group, private_links
from ringfence.cloud.tags import GROUP
from ringfence.manifest.model import PrivateLink
from ringfence.report import not_applicable
from ringfence.verify.account.cloud import Cloud, Document, tag

FOREIGN = "com.amazonaws.vpce."
"""How names of other people's endpoint services begin."""


@pytest.mark.control("NET-03")
def test_private_links_lead_to_the_declared_services(cloud: Cloud):
    """A server that finds its link missing is given a way through the internet next."""
    links = _declared(cloud)
    missing = [
        link.name for link in links if not any(_is(endpoint, link) for endpoint in cloud.endpoints)
    ]
    assert not missing, (
        f"not connected: {', '.join(missing)}; run pulumi up, and have the service's owner accept "
        "the endpoint"
    )


@pytest.mark.control("NET-03")
def test_no_other_service_is_connected(cloud: Cloud):
    """An endpoint of somebody's takes no policy: whatever reaches it carries data out."""
    links = private_links(cloud.environment)
    found = [
        f"{endpoint['VpcEndpointId']} ({endpoint['ServiceName']})"
        for endpoint in cloud.in_vpcs("describe_vpc_endpoints", "VpcEndpoints")
        if endpoint["ServiceName"].startswith(FOREIGN)
        and endpoint["VpcEndpointId"] not in cloud.firewall_endpoints
        and not any(_is(endpoint, link) for link in links)
    ]
    assert not found, f"not declared: {', '.join(found)}; remove it, or declare it"


@pytest.mark.control("NET-03")
def test_private_links_have_a_group_of_their_own(cloud: Cloud):
    """Only its own group says who may use a link: a policy is not to be had."""
    links = _declared(cloud)
    groups = cloud.in_vpcs("describe_security_groups", "SecurityGroups")
    own = {tag(group, GROUP): group["GroupId"] for group in groups}
    shared = [
        link.name
        for link in links
        for endpoint in cloud.endpoints
        if _is(endpoint, link)
        and {group["GroupId"] for group in endpoint["Groups"]} != {own.get(link_group(link))}
    ]
    assert not shared, f"with other groups: {', '.join(shared)}; run pulumi up"


@pytest.mark.control("NET-03")
def test_gateway_is_published_as_declared(cloud: Cloud):
    """A caller without the promised private access uses the internet instead."""
    place = cloud.place
    services, wanted = cloud.published, bool(place.accepted)
    names = [service["ServiceId"] for service in services]
    assert not services or wanted, f"offered and not declared: {', '.join(names)}; remove it"
    assert services or not wanted, "the gateway is not offered (provisioning.aws.publish)"


@pytest.mark.control("NET-03")
def test_only_accepted_principals_may_connect(cloud: Cloud):
    """Who may ask is the account's word; who is let in, a person's."""
    found: list[str] = []
    for service in _published(cloud):
        id_ = service["ServiceId"]
        query = ("ec2", "describe_vpc_endpoint_service_permissions", "AllowedPrincipals")
        for principal in cloud.all(*query, ServiceId=id_):
            if principal["Principal"] not in cloud.place.accepted:
                found.append(f"{id_} lets {principal['Principal']} ask")
        if not service["AcceptanceRequired"]:
            found.append(f"{id_} connects anybody")
    assert not found, f"{'; '.join(found)}; run pulumi up"


@pytest.mark.control("NET-03")
def test_every_accepted_principal_may_connect(cloud: Cloud):
    """A refused caller asks for access over the internet."""
    query = ("ec2", "describe_vpc_endpoint_service_permissions", "AllowedPrincipals")
    allowed = {
        principal["Principal"]
        for service in _published(cloud)
        for principal in cloud.all(*query, ServiceId=service["ServiceId"])
    }
    missing = [each for each in cloud.place.accepted if each not in allowed]
    assert not missing, f"may not ask to be connected: {', '.join(missing)}; run pulumi up"


@pytest.mark.control("NET-03")
def test_load_balancers_are_internal(cloud: Cloud):
    """One that faces the internet gives the gateway a public address."""
    found = [b["LoadBalancerName"] for b in cloud.balancers if b["Scheme"] != "internal"]
    assert not found, f"{', '.join(found)} face the internet; remove them, and run pulumi up"


@pytest.mark.control("NET-03")
def test_load_balancers_have_a_group(cloud: Cloud):
    """Without one, everything in the VPC reaches the gateway through it."""
    found = [b["LoadBalancerName"] for b in cloud.balancers if not b.get("SecurityGroups")]
    assert not found, f"{', '.join(found)} have no security group; remove them, and run pulumi up"


def _published(cloud: Cloud) -> list[Document]:
    if not cloud.place.accepted and not cloud.published:
        not_applicable("the gateway is not offered to other accounts (provisioning.aws.publish)")
    return cloud.published


def _declared(cloud: Cloud) -> tuple[PrivateLink, ...]:
    links = private_links(cloud.environment)
    if not links:
        not_applicable(
            "no server reaches a service of another account (provisioning.aws.private_links)"
        )
    return links


def _is(endpoint: Document, link: PrivateLink) -> bool:
    return (endpoint["ServiceName"], tag(endpoint, GROUP)) == (link.service, link_group(link))
