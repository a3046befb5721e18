"""Network Firewall, NAT gateways and their addresses. moto emulates no rule groups or policies."""

from __future__ import annotations

from collections.abc import Mapping

from moto.networkfirewall.models import networkfirewall_backends

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.naming import physical, tagged, tags
from ringfence.rehearsal.record import Create, Created, Inputs


def address(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    made = aws.client("ec2").allocate_address(
        Domain=inputs.get("domain", "vpc"), TagSpecifications=tagged(inputs, "elastic-ip")
    )
    allocation = made["AllocationId"]
    return Created(allocation, {"allocationId": allocation, "publicIp": made["PublicIp"]})


def nat_gateway(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    made = aws.client("ec2").create_nat_gateway(
        SubnetId=inputs["subnetId"],
        AllocationId=inputs["allocationId"],
        ConnectivityType=inputs.get("connectivityType", "public"),
        TagSpecifications=tagged(inputs, "natgateway"),
    )["NatGateway"]
    return Created(made["NatGatewayId"], {})


def firewall(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    """Create a firewall and its endpoint in every subnet, which moto omits."""
    key, called = inputs.get("encryptionConfiguration", {}), physical(name, inputs)
    made = aws.client("network-firewall").create_firewall(
        FirewallName=called,
        FirewallPolicyArn=inputs["firewallPolicyArn"],
        VpcId=inputs["vpcId"],
        SubnetMappings=[{"SubnetId": each["subnetId"]} for each in inputs["subnetMappings"]],
        DeleteProtection=inputs.get("deleteProtection", False),
        SubnetChangeProtection=inputs.get("subnetChangeProtection", False),
        FirewallPolicyChangeProtection=inputs.get("firewallPolicyChangeProtection", False),
        EncryptionConfiguration={
            "Type": key.get("type", "AWS_OWNED_KMS_KEY"),
            "KeyId": key.get("keyId", "AWS_OWNED_KMS_KEY"),
        },
        Tags=tags(inputs),
    )["Firewall"]
    arn = made["FirewallArn"]
    attached = {
        zone: {"SubnetId": subnet, "EndpointId": _endpoint(aws, arn, inputs["vpcId"], subnet)}
        for mapping in inputs["subnetMappings"]
        for subnet, zone in (_place(aws, mapping["subnetId"]),)
    }
    model = networkfirewall_backends[aws.id][aws.region].firewalls[arn]
    states = {zone: {"Attachment": {**each, "Status": "READY"}} for zone, each in attached.items()}
    status: dict[str, object] = {**model.firewall_status, "SyncStates": states}
    vars(model)["firewall_status"] = status
    outputs = [
        {
            "availabilityZone": zone,
            "attachments": [{"subnetId": each["SubnetId"], "endpointId": each["EndpointId"]}],
        }
        for zone, each in attached.items()
    ]
    given = {"arn": arn, "name": called, "firewallStatuses": [{"syncStates": outputs}]}
    return Created(arn, given)


def _place(aws: EmulatedAccount, subnet: str) -> tuple[str, str]:
    (found,) = aws.client("ec2").describe_subnets(SubnetIds=[subnet])["Subnets"]
    return subnet, found["AvailabilityZone"]


def _endpoint(aws: EmulatedAccount, arn: str, vpc: str, subnet: str) -> str:
    """Tagged as AWS tags those of a firewall."""
    marks = [
        {"Key": "AWSNetworkFirewallManaged", "Value": "true"},
        {"Key": "Firewall", "Value": arn},
    ]
    made = aws.client("ec2").create_vpc_endpoint(
        VpcEndpointType="GatewayLoadBalancer",
        VpcId=vpc,
        ServiceName=f"com.amazonaws.vpce.{aws.region}.vpce-svc-0f1rewa11",
        SubnetIds=[subnet],
        TagSpecifications=[{"ResourceType": "vpc-endpoint", "Tags": marks}],
    )
    return made["VpcEndpoint"]["VpcEndpointId"]


def logging_configuration(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    arn = inputs["firewallArn"]
    aws.client("network-firewall").update_logging_configuration(
        FirewallArn=arn,
        LoggingConfiguration={
            "LogDestinationConfigs": [
                {
                    "LogType": each["logType"],
                    "LogDestinationType": each["logDestinationType"],
                    "LogDestination": each["logDestination"],
                }
                for each in inputs["loggingConfiguration"]["logDestinationConfigs"]
            ]
        },
    )
    return Created(arn, {})


RESOURCES: Mapping[str, Create] = {
    "aws:ec2/eip:Eip": address,
    "aws:ec2/natGateway:NatGateway": nat_gateway,
    "aws:networkfirewall/firewall:Firewall": firewall,
    "aws:networkfirewall/loggingConfiguration:LoggingConfiguration": logging_configuration,
}
