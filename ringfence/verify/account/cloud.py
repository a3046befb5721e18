"""The AWS account of an environment, read with boto3; resources are found by their tags.

AWS_PROFILE, AWS_ENDPOINT_URL and similar variables select the account, as for every AWS tool.
`--rehearsed` provisions the stack in an emulated account instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from ringfence.cloud.tags import DATA_CLASS, ENVIRONMENT
from ringfence.manifest.model import Aws, Environment
from ringfence.report import UnverifiedError

if TYPE_CHECKING:
    import boto3

Document = Mapping[str, Any]


class Cloud:
    def __init__(
        self, session: boto3.Session, environment: Environment, *, emulated: bool = False
    ) -> None:
        self.environment = environment
        self.emulated = emulated
        make: Any = session.client  # boto3 generates its clients at run time, so they have no types
        self.client = cache(make)
        self._answers: dict[str, list[Document]] = {}

    @property
    def place(self) -> Aws:
        assert self.environment.provisioning  # else pytest collects no cloud check
        return self.environment.provisioning

    def all(self, service: str, operation: str, key: str, **arguments: Any) -> list[Document]:
        """Return all pages of an answer. Answers are cached: checks do not change the account."""
        question = json.dumps([service, operation, key, arguments], sort_keys=True)
        if question not in self._answers:
            pages = self.client(service).get_paginator(operation).paginate(**arguments)
            self._answers[question] = [each for page in pages for each in page[key]]
        return self._answers[question]

    @cached_property
    def account(self) -> str:
        return self.client("sts").get_caller_identity()["Account"]

    @cached_property
    def vpcs(self) -> list[Document]:
        own = [{"Name": f"tag:{ENVIRONMENT}", "Values": [self.environment.name]}]
        found = self.all("ec2", "describe_vpcs", "Vpcs", Filters=own)
        if not found:
            raise UnverifiedError(
                f"account {self.account} has no VPC of {self.environment.name} in "
                f"{self.place.region} (tag {ENVIRONMENT}); provision it: pulumi up"
            )
        return found

    def in_vpcs(self, operation: str, key: str, name: str = "vpc-id") -> list[Document]:
        """Return EC2 resources in the environment's VPCs."""
        ids = [vpc["VpcId"] for vpc in self.vpcs]
        return self.all("ec2", operation, key, Filters=[{"Name": name, "Values": ids}])

    @cached_property
    def endpoints(self) -> list[Document]:
        """Available VPC endpoints. AWS lists deleted and refused ones for some time."""
        found = self.in_vpcs("describe_vpc_endpoints", "VpcEndpoints")
        return [endpoint for endpoint in found if endpoint["State"].lower() == "available"]

    @cached_property
    def balancers(self) -> list[Document]:
        """Load balancers in the environment's VPCs, with their tags."""
        vpcs = {vpc["VpcId"] for vpc in self.vpcs}
        found = [
            each
            for each in self.all("elbv2", "describe_load_balancers", "LoadBalancers")
            if each["VpcId"] in vpcs
        ]
        tags = self.client("elbv2").describe_tags
        return [
            {**each, "Tags": tags(ResourceArns=[arn])["TagDescriptions"][0]["Tags"]}
            for each in found
            for arn in (each["LoadBalancerArn"],)
        ]

    @cached_property
    def firewalls(self) -> list[Document]:
        """Full descriptions of the Network Firewalls in the environment's VPCs."""
        ids = [vpc["VpcId"] for vpc in self.vpcs]
        found = self.all("network-firewall", "list_firewalls", "Firewalls", VpcIds=ids)
        describe = self.client("network-firewall").describe_firewall
        return [describe(FirewallArn=each["FirewallArn"]) for each in found]

    @cached_property
    def firewall_endpoints(self) -> frozenset[str]:
        """Ids of the endpoints through which routes lead to a firewall."""
        return frozenset(
            endpoint
            for firewall in self.firewalls
            for state in firewall["FirewallStatus"].get("SyncStates", {}).values()
            if (endpoint := state.get("Attachment", {}).get("EndpointId"))
        )

    @cached_property
    def published(self) -> list[Document]:
        """Endpoint services that lead to one of `balancers`."""
        own = {balancer["LoadBalancerArn"] for balancer in self.balancers}
        operation = "describe_vpc_endpoint_service_configurations"
        return [
            service
            for service in self.all("ec2", operation, "ServiceConfigurations")
            if own & {*service.get("NetworkLoadBalancerArns", ())}
        ]

    @cached_property
    def keys(self) -> Mapping[str, list[Document]]:
        """Metadata of the environment's KMS keys by data class."""
        kms = self.client("kms")
        found: dict[str, list[Document]] = {}
        for key in self.all("kms", "list_keys", "Keys"):
            listed = kms.list_resource_tags(KeyId=key["KeyId"])["Tags"]
            tags = {tag["TagKey"]: tag["TagValue"] for tag in listed}
            if tags.get(ENVIRONMENT) == self.environment.name and DATA_CLASS in tags:
                metadata = kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]
                found.setdefault(tags[DATA_CLASS], []).append(metadata)
        return found


def tag(thing: Document, key: str) -> str | None:
    return next((each["Value"] for each in thing.get("Tags", []) if each["Key"] == key), None)


def statements(policy: str | None) -> list[Document]:
    """Return the statements of a policy. A policy may have a single one without a list."""
    found = json.loads(policy or "{}").get("Statement", [])
    return [found] if isinstance(found, dict) else found


def texts(value: str | list[str] | None) -> list[str]:
    """Return a value of a policy, which is one text or a list, as a list."""
    return [value] if isinstance(value, str) else value or []


@contextmanager
def account_of(
    environment: Environment, *, rehearsed: bool, provisioned: bool = True
) -> Iterator[Cloud]:
    """Open the account. Raises `UnverifiedError` if there is none.

    A rehearsed account that is not `provisioned` has the defaults of a new AWS account.
    """
    # boto3 is an optional extra; an environment without AWS does not need it.
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ModuleNotFoundError as error:
        raise UnverifiedError(
            f"there is no Python package {error.name}; install it: pip install 'ringfence[aws]'"
        ) from None
    if rehearsed and not provisioned:
        from ringfence.rehearsal.account import emulated

        assert environment.provisioning  # else pytest collects no cloud check
        with emulated(environment.provisioning.region) as account:
            yield Cloud(account.session, environment, emulated=True)
        return
    if rehearsed:
        from ringfence.rehearsal.engine.stacks import rehearsed_stack
        from ringfence.rehearsal.record import RehearsalError

        try:
            with (
                rehearsed_stack(environment, "account") as shared,
                rehearsed_stack(environment, shared=shared),
            ):
                yield Cloud(shared.account.session, environment, emulated=True)
        except RehearsalError as error:
            raise UnverifiedError(str(error)) from None
        return
    place = environment.provisioning
    found = Cloud(boto3.Session(region_name=place.region if place else None), environment)
    try:
        _ = found.account
    except (BotoCoreError, ClientError) as error:
        raise UnverifiedError(
            f"AWS does not answer: {error}; log in (aws sso login) or choose another AWS_PROFILE, "
            "or check what would be provisioned: --rehearsed"
        ) from None
    yield found
