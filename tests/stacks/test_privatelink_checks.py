"""Checks of private links and of the published gateway: each passes on our account and fails on an
account with defaults and on ours with exactly its property broken."""

from __future__ import annotations

from breaking import (  # noqa: F401 - collected here
    Aws,
    Broken,
    Exports,
    checks,
    failing,
    inapplicable,
    test_a_broken_property_turns_exactly_its_checks_red,
    test_every_check_is_broken_by_something,
)
from generated import BASE, manifest

from ringfence.cloud.tags import ENVIRONMENT, GROUP
from ringfence.manifest.model import Environment
from ringfence.rehearsal.account import emulated
from ringfence.rehearsal.engine.stacks import rehearsed_stack
from ringfence.rehearsal.record import Rehearsal
from ringfence.verify.account.cloud import Cloud

CHECKS = checks("privatelink")
REGION = "eu-central-1"
ELSEWHERE = f"com.amazonaws.vpce.{REGION}.vpce-svc-0eeeeeeeeeeeeeee0"
ACCEPTED = "arn:aws:iam::111122223333:root"
FX = f"com.amazonaws.vpce.{REGION}.vpce-svc-0123456789abcdef0"


def test_our_account_passes(rehearsal: Rehearsal, environment: Environment) -> None:
    assert failing(CHECKS, Cloud(rehearsal.account.session, environment)) == {}


def test_an_account_with_defaults_fails_everything_that_can_fail(environment: Environment) -> None:
    """A link as the console creates it, with the default group; an undeclared link; and the gateway
    offered to everybody, over a load balancer that the internet also reaches."""
    with emulated(REGION) as account:
        ec2 = account.client("ec2")
        (vpc,) = ec2.describe_vpcs()["Vpcs"]
        subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"]]
        mine = {"Key": ENVIRONMENT, "Value": environment.name}
        ec2.create_tags(Resources=[vpc["VpcId"]], Tags=[mine])
        _connect(account.client, vpc["VpcId"], subnets, FX, "link-fx")
        _connect(account.client, vpc["VpcId"], subnets, ELSEWHERE, "link-else")
        _publish(account.client, "everybody", subnets, "internet-facing", [], "*")
        passing = CHECKS.keys() - failing(CHECKS, Cloud(account.session, environment)).keys()
    # Both exist: tried in BROKEN.
    assert passing == {
        "test_private_links_lead_to_the_declared_services",
        "test_gateway_is_published_as_declared",
    }


def test_an_empty_account_names_what_is_missing(environment: Environment) -> None:
    with emulated(REGION) as account:
        failed = failing(CHECKS, Cloud(account.session, environment))
    assert failed.keys() == CHECKS.keys()


def test_without_links_only_the_absence_of_others_is_verified() -> None:
    with manifest(BASE) as environment, rehearsed_stack(environment, preview=False) as made:
        cloud = Cloud(made.account.session, environment)
        assert failing(CHECKS, cloud) == {}
        assert inapplicable(CHECKS, cloud) == {
            "test_private_links_lead_to_the_declared_services",
            "test_private_links_have_a_group_of_their_own",
            "test_only_accepted_principals_may_connect",
            "test_every_accepted_principal_may_connect",
        }


def test_what_is_offered_undeclared_is_noticed() -> None:
    with manifest(BASE) as environment, rehearsed_stack(environment, preview=False) as made:
        aws, out = made.account.client, made.exports
        subnets = [*out["subnet_ids"]["edge"].values()]
        groups = [out["group_ids"]["host-edge-1"]]
        _publish(aws, "else", subnets, "internal", groups, ACCEPTED)
        failed = failing(CHECKS, Cloud(made.account.session, environment))
    assert failed.keys() == {
        "test_gateway_is_published_as_declared",
        "test_only_accepted_principals_may_connect",
    }


BROKEN = Broken()


def _connect(
    aws: Aws,
    vpc: str,
    subnets: list[str],
    service: str,
    group: str,
    groups: list[str] | None = None,
) -> None:
    aws("ec2").create_vpc_endpoint(
        VpcId=vpc,
        ServiceName=service,
        VpcEndpointType="Interface",
        SubnetIds=subnets,
        SecurityGroupIds=groups or [],
        TagSpecifications=[
            {"ResourceType": "vpc-endpoint", "Tags": [{"Key": GROUP, "Value": group}]}
        ],
    )


@BROKEN.by("private_links_lead_to_the_declared_services")
def the_link_goes(aws: Aws, out: Exports) -> None:
    aws("ec2").delete_vpc_endpoints(VpcEndpointIds=[out["private_link_ids"]["fx"]])


@BROKEN.by("private_links_lead_to_the_declared_services", "no_other_service_is_connected")
def the_link_leads_to_somebody_else(aws: Aws, out: Exports) -> None:
    the_link_goes(aws, out)
    subnets = [*out["subnet_ids"]["management"].values()]
    _connect(aws, out["vpc_id"], subnets, ELSEWHERE, "link-fx", [out["group_ids"]["link-fx"]])


@BROKEN.by("no_other_service_is_connected")
def another_service_is_connected(aws: Aws, out: Exports) -> None:
    subnets = [*out["subnet_ids"]["servers"].values()]
    _connect(aws, out["vpc_id"], subnets, ELSEWHERE, "x", [out["group_ids"]["link-fx"]])


@BROKEN.by("private_links_have_a_group_of_their_own")
def the_link_gets_the_group_of_every_interface(aws: Aws, out: Exports) -> None:
    aws("ec2").modify_vpc_endpoint(
        VpcEndpointId=out["private_link_ids"]["fx"],
        AddSecurityGroupIds=[out["group_ids"]["endpoints"]],
    )


def _publish(
    aws: Aws, name: str, subnets: list[str], scheme: str, groups: list[str], principal: str
) -> None:
    (balancer,) = aws("elbv2").create_load_balancer(
        Name=name, Type="network", Scheme=scheme, Subnets=subnets, SecurityGroups=groups
    )["LoadBalancers"]
    service = aws("ec2").create_vpc_endpoint_service_configuration(
        NetworkLoadBalancerArns=[balancer["LoadBalancerArn"]], AcceptanceRequired=principal != "*"
    )["ServiceConfiguration"]["ServiceId"]
    _allow(aws, service, principal)


def _allow(aws: Aws, service: str, principal: str) -> None:
    aws("ec2").modify_vpc_endpoint_service_permissions(
        ServiceId=service, AddAllowedPrincipals=[principal]
    )


@BROKEN.by("gateway_is_published_as_declared", "every_accepted_principal_may_connect")
def the_gateway_is_no_longer_offered(aws: Aws, out: Exports) -> None:
    service = out["published_gateway"]["service_id"]
    aws("ec2").delete_vpc_endpoint_service_configurations(ServiceIds=[service])


@BROKEN.by("only_accepted_principals_may_connect")
def another_principal_may_ask(aws: Aws, out: Exports) -> None:
    _allow(aws, out["published_gateway"]["service_id"], "arn:aws:iam::999900001111:root")


@BROKEN.by("only_accepted_principals_may_connect")
def whoever_asks_is_connected(aws: Aws, out: Exports) -> None:
    aws("ec2").modify_vpc_endpoint_service_configuration(
        ServiceId=out["published_gateway"]["service_id"], AcceptanceRequired=False
    )


@BROKEN.by("every_accepted_principal_may_connect")
def an_accepted_principal_is_taken_off(aws: Aws, out: Exports) -> None:
    aws("ec2").modify_vpc_endpoint_service_permissions(
        ServiceId=out["published_gateway"]["service_id"], RemoveAllowedPrincipals=[ACCEPTED]
    )


@BROKEN.by("load_balancers_are_internal")
def a_load_balancer_faces_the_internet(aws: Aws, out: Exports) -> None:
    aws("elbv2").create_load_balancer(
        Name="open",
        Type="network",
        Scheme="internet-facing",
        Subnets=[*out["subnet_ids"]["edge"].values()],
        SecurityGroups=[out["group_ids"]["balancer-gateway"]],
    )


@BROKEN.by("load_balancers_have_a_group")
def a_load_balancer_has_no_group(aws: Aws, out: Exports) -> None:
    aws("elbv2").create_load_balancer(
        Name="bare",
        Type="network",
        Scheme="internal",
        Subnets=[*out["subnet_ids"]["edge"].values()],
    )
