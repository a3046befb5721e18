"""VPC, subnets, routes, ACLs, security groups and endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.naming import physical, tagged, tags
from ringfence.rehearsal.record import Create, Created, Inputs, RehearsalError


def vpc(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    ec2 = aws.client("ec2")
    made = ec2.create_vpc(
        CidrBlock=inputs["cidrBlock"],
        InstanceTenancy=inputs.get("instanceTenancy", "default"),
        TagSpecifications=tagged(inputs, "vpc"),
    )["Vpc"]["VpcId"]
    # The provider's defaults: https://www.pulumi.com/registry/packages/aws/api-docs/ec2/vpc/
    for attribute, default in (("enableDnsSupport", True), ("enableDnsHostnames", False)):
        setting = {"Value": inputs.get(attribute, default)}
        name = attribute[0].upper() + attribute[1:]
        ec2.modify_vpc_attribute(VpcId=made, **{name: setting})

    return Created(made, _outputs(aws, made))


def default_vpc(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    """The provider takes over the one that AWS made with the account."""
    ec2 = aws.client("ec2")
    filters = [{"Name": "is-default", "Values": ["true"]}]
    found = [vpc["VpcId"] for vpc in ec2.describe_vpcs(Filters=filters)["Vpcs"]]
    if not found:
        raise RehearsalError(f"{name}: the emulated account has no default VPC")
    if named := tags(inputs):
        ec2.create_tags(Resources=found, Tags=named)
    return Created(found[0], _outputs(aws, found[0]))


def _outputs(aws: EmulatedAccount, made: str) -> dict[str, str]:
    ec2 = aws.client("ec2")

    def its(find: Any, kind: str, key: str, **filters: str) -> str:
        query = {"vpc-id": made, **filters}
        found = find(Filters=[{"Name": name, "Values": [text]} for name, text in query.items()])
        return found[kind][0][key]

    main = {"association.main": "true"}
    route_table = its(ec2.describe_route_tables, "RouteTables", "RouteTableId", **main)
    acl = its(ec2.describe_network_acls, "NetworkAcls", "NetworkAclId", default="true")
    named = {"group-name": "default"}
    group = its(ec2.describe_security_groups, "SecurityGroups", "GroupId", **named)
    return {
        "arn": aws.arn("ec2", f"vpc/{made}"),
        "ownerId": aws.id,
        "mainRouteTableId": route_table,
        "defaultRouteTableId": route_table,
        "defaultNetworkAclId": acl,
        "defaultSecurityGroupId": group,
    }


def subnet(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    ec2 = aws.client("ec2")
    made = ec2.create_subnet(
        VpcId=inputs["vpcId"],
        CidrBlock=inputs["cidrBlock"],
        AvailabilityZone=inputs["availabilityZone"],
        TagSpecifications=tagged(inputs, "subnet"),
    )["Subnet"]
    public = {"Value": inputs.get("mapPublicIpOnLaunch", False)}
    ec2.modify_subnet_attribute(SubnetId=made["SubnetId"], MapPublicIpOnLaunch=public)
    return Created(
        made["SubnetId"],
        {"arn": made["SubnetArn"], "availabilityZoneId": made["AvailabilityZoneId"]},
    )


def internet_gateway(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    ec2 = aws.client("ec2")
    kind = "internet-gateway"
    made = ec2.create_internet_gateway(TagSpecifications=tagged(inputs, kind))
    gateway = made["InternetGateway"]["InternetGatewayId"]
    if "vpcId" in inputs:
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=inputs["vpcId"])
    return Created(gateway, {"arn": aws.arn("ec2", f"internet-gateway/{gateway}")})


def route_table(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    made = aws.client("ec2").create_route_table(
        VpcId=inputs["vpcId"], TagSpecifications=tagged(inputs, "route-table")
    )["RouteTable"]["RouteTableId"]
    for declared in inputs.get("routes", []):
        _route(aws, made, declared, declared["cidrBlock"])
    return Created(made, {"arn": aws.arn("ec2", f"route-table/{made}"), "ownerId": aws.id})


def route(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    table, destination = inputs["routeTableId"], inputs["destinationCidrBlock"]
    _route(aws, table, inputs, destination)
    return Created(f"r-{table}{destination}", {"state": "active"})


def _route(aws: EmulatedAccount, table: str, inputs: Inputs, destination: str) -> None:
    targets = {
        "GatewayId": inputs.get("gatewayId"),
        "NatGatewayId": inputs.get("natGatewayId"),
        "TransitGatewayId": inputs.get("transitGatewayId"),
        "VpcEndpointId": inputs.get("vpcEndpointId"),
        "VpcPeeringConnectionId": inputs.get("vpcPeeringConnectionId"),
    }
    aws.client("ec2").create_route(
        RouteTableId=table,
        DestinationCidrBlock=destination,
        **{key: value for key, value in targets.items() if value},
    )


def route_table_association(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    made = aws.client("ec2").associate_route_table(
        RouteTableId=inputs["routeTableId"], SubnetId=inputs["subnetId"]
    )
    return Created(made["AssociationId"], {})


def default_route_table(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    """The provider takes it over: every route but the local one goes."""
    ec2 = aws.client("ec2")
    table = inputs["defaultRouteTableId"]
    (found,) = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"]
    for present in found["Routes"]:
        if present.get("GatewayId") != "local":
            ec2.delete_route(
                RouteTableId=table, DestinationCidrBlock=present["DestinationCidrBlock"]
            )
    ec2.create_tags(Resources=[table], Tags=tags(inputs))
    return Created(table, {"arn": aws.arn("ec2", f"route-table/{table}"), "vpcId": found["VpcId"]})


def network_acl(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    ec2 = aws.client("ec2")
    made = ec2.create_network_acl(
        VpcId=inputs["vpcId"], TagSpecifications=tagged(inputs, "network-acl")
    )["NetworkAcl"]["NetworkAclId"]
    for subnet_id in inputs.get("subnetIds", []):
        filters = [{"Name": "association.subnet-id", "Values": [subnet_id]}]
        for present in ec2.describe_network_acls(Filters=filters)["NetworkAcls"]:
            for association in present["Associations"]:
                if association["SubnetId"] == subnet_id:
                    ec2.replace_network_acl_association(
                        AssociationId=association["NetworkAclAssociationId"], NetworkAclId=made
                    )
    return Created(made, {"arn": aws.arn("ec2", f"network-acl/{made}"), "ownerId": aws.id})


def network_acl_rule(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    acl, number = inputs["networkAclId"], inputs["ruleNumber"]
    egress = inputs.get("egress", False)
    ports = {"From": inputs["fromPort"], "To": inputs["toPort"]} if "fromPort" in inputs else None
    aws.client("ec2").create_network_acl_entry(
        NetworkAclId=acl,
        RuleNumber=number,
        Protocol={"tcp": "6", "udp": "17"}.get(inputs["protocol"], inputs["protocol"]),
        RuleAction=inputs["ruleAction"],
        Egress=egress,
        CidrBlock=inputs["cidrBlock"],
        **({"PortRange": ports} if ports else {}),
    )
    return Created(f"{acl}-{'egress' if egress else 'ingress'}-{number}", {})


def default_network_acl(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    """The provider takes it over: what it allows goes, and only AWS's last denial stays."""
    ec2 = aws.client("ec2")
    acl = inputs["defaultNetworkAclId"]
    (found,) = ec2.describe_network_acls(NetworkAclIds=[acl])["NetworkAcls"]
    for entry in found["Entries"]:
        if entry["RuleNumber"] <= 32766:
            ec2.delete_network_acl_entry(
                NetworkAclId=acl, RuleNumber=entry["RuleNumber"], Egress=entry["Egress"]
            )
    ec2.create_tags(Resources=[acl], Tags=tags(inputs))
    return Created(acl, {"arn": aws.arn("ec2", f"network-acl/{acl}"), "vpcId": found["VpcId"]})


def security_group(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    """AWS lets a new group open any connection; the provider takes that back.

    It is known what that is; to ask moto for it takes longer than all the rest.
    """
    ec2 = aws.client("ec2")
    group_name = physical(name, inputs, 255)
    made = ec2.create_security_group(
        GroupName=group_name,
        Description=inputs.get("description", "Managed by Pulumi"),
        VpcId=inputs["vpcId"],
        TagSpecifications=tagged(inputs, "security-group"),
    )["GroupId"]
    anything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.revoke_security_group_egress(GroupId=made, IpPermissions=[anything])
    arn = aws.arn("ec2", f"security-group/{made}")
    return Created(made, {"arn": arn, "name": group_name, "ownerId": aws.id})


def default_security_group(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    """The provider takes it over: every rule goes."""
    if inputs.get("ingress") or inputs.get("egress"):
        raise RehearsalError(f"{name}: a default security group must have no rules; remove them")
    ec2 = aws.client("ec2")
    filters = {"vpc-id": inputs["vpcId"], "group-name": "default"}
    (found,) = ec2.describe_security_groups(
        Filters=[{"Name": key, "Values": [value]} for key, value in filters.items()]
    )["SecurityGroups"]
    _empty(ec2, found["GroupId"])
    ec2.create_tags(Resources=[found["GroupId"]], Tags=tags(inputs))
    return Created(
        found["GroupId"],
        {"arn": aws.arn("ec2", f"security-group/{found['GroupId']}"), "ownerId": aws.id},
    )


def _empty(ec2: Any, group: str) -> None:
    (found,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    if inbound := found["IpPermissions"]:
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=inbound)
    if outbound := found["IpPermissionsEgress"]:
        ec2.revoke_security_group_egress(GroupId=group, IpPermissions=outbound)


def ingress_rule(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    return _rule(aws, inputs, aws.client("ec2").authorize_security_group_ingress)


def egress_rule(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    return _rule(aws, inputs, aws.client("ec2").authorize_security_group_egress)


def _rule(aws: EmulatedAccount, inputs: Inputs, authorize: Any) -> Created:
    text = {"Description": inputs["description"]} if "description" in inputs else {}
    peers = {
        "IpRanges": ("CidrIp", inputs.get("cidrIpv4")),
        "UserIdGroupPairs": ("GroupId", inputs.get("referencedSecurityGroupId")),
        "PrefixListIds": ("PrefixListId", inputs.get("prefixListId")),
    }
    permission = {
        "IpProtocol": inputs["ipProtocol"],
        **{kind: [{key: peer, **text}] for kind, (key, peer) in peers.items() if peer},
    }
    if "fromPort" in inputs:
        permission |= {"FromPort": inputs["fromPort"], "ToPort": inputs["toPort"]}
    made = authorize(
        GroupId=inputs["securityGroupId"],
        IpPermissions=[permission],
        TagSpecifications=tagged(inputs, "security-group-rule"),
    )
    (rule,) = made["SecurityGroupRules"]
    id_ = rule["SecurityGroupRuleId"]
    arn = aws.arn("ec2", f"security-group-rule/{id_}")
    return Created(id_, {"arn": arn, "securityGroupRuleId": id_})


def vpc_endpoint(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    ec2 = aws.client("ec2")
    kind = inputs.get("vpcEndpointType", "Gateway")
    optional = {
        "PolicyDocument": inputs.get("policy"),
        "RouteTableIds": inputs.get("routeTableIds"),
        "SubnetIds": inputs.get("subnetIds"),
        "SecurityGroupIds": inputs.get("securityGroupIds"),
        "PrivateDnsEnabled": inputs.get("privateDnsEnabled"),
    }
    made = ec2.create_vpc_endpoint(
        VpcId=inputs["vpcId"],
        ServiceName=inputs["serviceName"],
        VpcEndpointType=kind,
        TagSpecifications=tagged(inputs, "vpc-endpoint"),
        **{key: value for key, value in optional.items() if value is not None},
    )["VpcEndpoint"]
    outputs: dict[str, Any] = {
        "arn": aws.arn("ec2", f"vpc-endpoint/{made['VpcEndpointId']}"),
        "ownerId": aws.id,
        "state": made["State"],
        "networkInterfaceIds": made.get("NetworkInterfaceIds", []),
        "dnsEntries": [
            {"dnsName": entry["DnsName"], "hostedZoneId": entry["HostedZoneId"]}
            for entry in made.get("DnsEntries", [])
        ],
    }
    if kind == "Gateway":
        filters = [{"Name": "prefix-list-name", "Values": [inputs["serviceName"]]}]
        (found,) = ec2.describe_prefix_lists(Filters=filters)["PrefixLists"]
        outputs["prefixListId"] = found["PrefixListId"]
    return Created(made["VpcEndpointId"], outputs)


RESOURCES: Mapping[str, Create] = {
    "aws:ec2/vpc:Vpc": vpc,
    "aws:ec2/defaultVpc:DefaultVpc": default_vpc,
    "aws:ec2/subnet:Subnet": subnet,
    "aws:ec2/internetGateway:InternetGateway": internet_gateway,
    "aws:ec2/routeTable:RouteTable": route_table,
    "aws:ec2/route:Route": route,
    "aws:ec2/routeTableAssociation:RouteTableAssociation": route_table_association,
    "aws:ec2/defaultRouteTable:DefaultRouteTable": default_route_table,
    "aws:ec2/networkAcl:NetworkAcl": network_acl,
    "aws:ec2/networkAclRule:NetworkAclRule": network_acl_rule,
    "aws:ec2/defaultNetworkAcl:DefaultNetworkAcl": default_network_acl,
    "aws:ec2/securityGroup:SecurityGroup": security_group,
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": default_security_group,
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": ingress_rule,
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": egress_rule,
    "aws:ec2/vpcEndpoint:VpcEndpoint": vpc_endpoint,
}
