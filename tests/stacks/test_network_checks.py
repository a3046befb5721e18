"""Checks of the network in the cloud: each passes on our account and fails on an account with
defaults and on ours with exactly its property broken."""

from __future__ import annotations

import json
from typing import Any

from breaking import (  # noqa: F401 - collected here
    Aws,
    Broken,
    Exports,
    checks,
    failing,
    test_a_broken_property_turns_exactly_its_checks_red,
    test_every_check_is_broken_by_something,
)

from ringfence.cloud.tags import DATA_CLASS, ENVIRONMENT, SEGMENT
from ringfence.manifest.model import Environment
from ringfence.rehearsal.account import emulated
from ringfence.rehearsal.record import Rehearsal
from ringfence.verify.account.cloud import Cloud

ANYWHERE = "0.0.0.0/0"
CHECKS = checks("network")
ALARMS = ("an_undeclared_flow_raises_an_alarm", "usual_flows_raise_no_alarm")


def test_our_account_passes(rehearsal: Rehearsal, environment: Environment) -> None:
    assert failing(CHECKS, Cloud(rehearsal.account.session, environment)) == {}


def test_an_account_with_defaults_fails_everything_that_can_fail(environment: Environment) -> None:
    """AWS's default VPC, tagged as the environment's, with a key as the console creates it."""
    with emulated("eu-central-1") as account:
        ec2, kms = account.client("ec2"), account.client("kms")
        (vpc,) = ec2.describe_vpcs()["Vpcs"]
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc["VpcId"])
        (table,) = ec2.describe_route_tables()["RouteTables"]
        ec2.create_route(
            RouteTableId=table["RouteTableId"], DestinationCidrBlock=ANYWHERE, GatewayId=gateway
        )
        subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"]]
        mine = {"Key": ENVIRONMENT, "Value": environment.name}
        ec2.create_tags(Resources=[vpc["VpcId"], *subnets], Tags=[mine])
        ec2.create_tags(Resources=subnets, Tags=[{"Key": SEGMENT, "Value": "servers"}])
        ec2.create_network_interface(SubnetId=subnets[0])
        keys = [{"TagKey": ENVIRONMENT, "TagValue": environment.name}]
        kms.create_key(Tags=[*keys, {"TagKey": DATA_CLASS, "TagValue": "restricted"}])
        passing = CHECKS.keys() - failing(CHECKS, Cloud(account.session, environment)).keys()
    assert passing == {
        # No interface has an address yet: tried in BROKEN.
        "test_no_interface_has_a_public_address",
    }


def test_an_empty_account_names_what_is_missing(environment: Environment) -> None:
    with emulated("eu-central-1") as account:
        failed = failing(CHECKS, Cloud(account.session, environment))
    assert failed.keys() == CHECKS.keys()
    assert failed["test_segments_are_apart"].endswith(
        "has no VPC of payments-prod in eu-central-1 (tag ringfence:environment); "
        "provision it: pulumi up"
    )


BROKEN = Broken()


def _admit(aws: Aws, group: str, port: int, cidr: str) -> None:
    permission = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port}
    permission["IpRanges"] = [{"CidrIp": cidr}]
    aws("ec2").authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])


@BROKEN.by("segments_are_apart")
def a_port_is_opened_to_another_segment(aws: Aws, out: Exports) -> None:
    _admit(aws, out["group_ids"]["host-ledger-db-1"], 5432, "10.40.8.0/22")


@BROKEN.by("servers_reach_and_are_reached_as_declared")
def a_server_is_opened_to_its_neighbours(aws: Aws, out: Exports) -> None:
    _admit(aws, out["group_ids"]["server-time"], 2514, "10.40.16.0/20")


@BROKEN.by("segments_are_apart")
def a_group_of_somebody_else_is_let_in(aws: Aws, out: Exports) -> None:
    group = aws("ec2").create_security_group(
        GroupName="else", Description="else", VpcId=out["vpc_id"]
    )["GroupId"]
    aws("ec2").authorize_security_group_ingress(
        GroupId=out["group_ids"]["host-edge-1"],
        IpPermissions=[
            {
                "IpProtocol": "tcp",
                "FromPort": 443,
                "ToPort": 443,
                "UserIdGroupPairs": [{"GroupId": group}],
            }
        ],
    )


@BROKEN.by("servers_reach_and_are_reached_as_declared")
def a_server_may_open_anything(aws: Aws, out: Exports) -> None:
    aws("ec2").authorize_security_group_egress(
        GroupId=out["group_ids"]["server-time"],
        IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": ANYWHERE}]}],
    )


@BROKEN.by("segments_are_apart")
def a_load_balancer_lets_everybody_in(aws: Aws, out: Exports) -> None:
    _admit(aws, out["group_ids"]["balancer-gateway"], 443, "10.40.16.0/20")


@BROKEN.by("segments_are_apart")
def a_load_balancer_leads_elsewhere(aws: Aws, out: Exports) -> None:
    permission = {"IpProtocol": "tcp", "FromPort": 5432, "ToPort": 5432}
    permission["IpRanges"] = [{"CidrIp": "10.40.32.0/22"}]
    aws("ec2").authorize_security_group_egress(
        GroupId=out["group_ids"]["balancer-gateway"], IpPermissions=[permission]
    )
    _admit(aws, out["group_ids"]["host-ledger-db-1"], 5432, "10.40.8.0/22")


@BROKEN.by("declared_flows_are_possible")
def the_gateway_is_published_on_no_port(aws: Aws, out: Exports) -> None:
    elbv2 = aws("elbv2")
    found = elbv2.describe_load_balancers()["LoadBalancers"]
    arn = next(b["LoadBalancerArn"] for b in found if "gateway" in b["LoadBalancerName"])
    (listener,) = elbv2.describe_listeners(LoadBalancerArn=arn)["Listeners"]
    elbv2.delete_listener(ListenerArn=listener["ListenerArn"])


@BROKEN.by("declared_flows_are_possible")
def a_declared_rule_is_taken_away(aws: Aws, out: Exports) -> None:
    ec2, group = aws("ec2"), out["group_ids"]["server-time"]
    (found,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=found["IpPermissions"])


@BROKEN.by("no_gateway_leads_out_of_the_network")
def an_internet_gateway_is_attached(aws: Aws, out: Exports) -> None:
    gateway = aws("ec2").create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    aws("ec2").attach_internet_gateway(InternetGatewayId=gateway, VpcId=out["vpc_id"])


@BROKEN.by("no_gateway_leads_out_of_the_network")
def an_egress_only_gateway_is_attached(aws: Aws, out: Exports) -> None:
    aws("ec2").create_egress_only_internet_gateway(VpcId=out["vpc_id"])


@BROKEN.by("no_gateway_leads_out_of_the_network")
def a_nat_gateway_is_made(aws: Aws, out: Exports) -> None:
    subnet = out["subnet_ids"]["servers"]["eu-central-1a"]
    aws("ec2").create_nat_gateway(SubnetId=subnet, ConnectivityType="private")


@BROKEN.by(
    "no_gateway_leads_out_of_the_network",
    "no_route_leads_out_of_the_network",
    "segments_are_apart",
    "servers_reach_and_are_reached_as_declared",
)
def a_route_leads_out(aws: Aws, out: Exports) -> None:
    """Replace the firewall's route by one to the internet, which servers in the segment can use if
    the ACL permits it."""
    ec2, subnet = aws("ec2"), out["subnet_ids"]["servers"]["eu-central-1a"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=out["vpc_id"])
    filters = [{"Name": "association.subnet-id", "Values": [subnet]}]
    (table,) = ec2.describe_route_tables(Filters=filters)["RouteTables"]
    way = {"RouteTableId": table["RouteTableId"], "DestinationCidrBlock": ANYWHERE}
    ec2.delete_route(**way)  # through the firewall
    ec2.create_route(**way, GatewayId=gateway)
    ec2.authorize_security_group_egress(
        GroupId=out["group_ids"]["base"],
        IpPermissions=[
            {
                "IpProtocol": "tcp",
                "FromPort": 443,
                "ToPort": 443,
                "IpRanges": [{"CidrIp": "8.8.8.8/32"}],
            }
        ],
    )


@BROKEN.by("default_security_group_allows_nothing")
def the_default_group_is_opened(aws: Aws, out: Exports) -> None:
    filters = [
        {"Name": "vpc-id", "Values": [out["vpc_id"]]},
        {"Name": "group-name", "Values": ["default"]},
    ]
    (group,) = aws("ec2").describe_security_groups(Filters=filters)["SecurityGroups"]
    _admit(aws, group["GroupId"], 443, "10.40.0.0/16")


@BROKEN.by("every_subnet_has_an_acl_of_its_own")
def an_acl_is_opened(aws: Aws, out: Exports) -> None:
    ec2, subnet = aws("ec2"), out["subnet_ids"]["data"]["eu-central-1a"]
    filters = [{"Name": "association.subnet-id", "Values": [subnet]}]
    (acl,) = ec2.describe_network_acls(Filters=filters)["NetworkAcls"]
    ec2.create_network_acl_entry(
        NetworkAclId=acl["NetworkAclId"],
        RuleNumber=1,
        Protocol="-1",
        RuleAction="allow",
        Egress=False,
        CidrBlock=ANYWHERE,
    )


@BROKEN.by("every_server_has_a_security_group", "declared_flows_are_possible")
def the_group_of_a_server_goes(aws: Aws, out: Exports) -> None:
    aws("ec2").delete_security_group(GroupId=out["group_ids"]["server-time"])


@BROKEN.by("subnets_give_no_public_addresses")
def a_subnet_gives_public_addresses(aws: Aws, out: Exports) -> None:
    subnet = out["subnet_ids"]["edge"]["eu-central-1a"]
    aws("ec2").modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})


@BROKEN.by("no_interface_has_a_public_address")
def a_host_gets_a_public_address(aws: Aws, out: Exports) -> None:
    ec2, subnet = aws("ec2"), out["subnet_ids"]["edge"]["eu-central-1a"]
    interface = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    ec2.associate_address(AllocationId=address, NetworkInterfaceId=interface["NetworkInterfaceId"])


def _endpoint(aws: Aws, service: str, out: Exports) -> str:
    filters = [
        {"Name": "service-name", "Values": [f"com.amazonaws.eu-central-1.{service}"]},
        {"Name": "vpc-id", "Values": [out["vpc_id"]]},
    ]
    (found,) = aws("ec2").describe_vpc_endpoints(Filters=filters)["VpcEndpoints"]
    return found["VpcEndpointId"]


@BROKEN.by("services_have_private_endpoints", "declared_flows_are_possible")
def an_endpoint_goes(aws: Aws, out: Exports) -> None:
    aws("ec2").delete_vpc_endpoints(VpcEndpointIds=[_endpoint(aws, "kms", out)])


@BROKEN.by("endpoints_serve_this_account_only")
def an_endpoint_serves_everybody(aws: Aws, out: Exports) -> None:
    policy = {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}
    aws("ec2").modify_vpc_endpoint(
        VpcEndpointId=_endpoint(aws, "s3", out), PolicyDocument=json.dumps({"Statement": policy})
    )


@BROKEN.by(
    *("every_flow_is_recorded", "flow_records_tell_both_ends", "flow_records_are_kept_encrypted"),
    *ALARMS,
)
def the_flow_log_is_turned_off(aws: Aws, out: Exports) -> None:
    ids = [log["FlowLogId"] for log in aws("ec2").describe_flow_logs()["FlowLogs"]]
    aws("ec2").delete_flow_logs(FlowLogIds=ids)


@BROKEN.by(
    *("every_flow_is_recorded", "flow_records_tell_both_ends"),
    "an_undeclared_flow_raises_an_alarm",
)
def only_refused_flows_are_recorded_in_brief(aws: Aws, out: Exports) -> None:
    ec2 = aws("ec2")
    (log,) = ec2.describe_flow_logs()["FlowLogs"]
    ec2.delete_flow_logs(FlowLogIds=[log["FlowLogId"]])
    ec2.create_flow_logs(
        ResourceIds=[out["vpc_id"]],
        ResourceType="VPC",
        TrafficType="REJECT",
        LogGroupName=log["LogGroupName"],
        DeliverLogsPermissionArn=log["DeliverLogsPermissionArn"],
    )


@BROKEN.by("flow_records_are_kept_encrypted")
def flow_records_are_kept_briefly(aws: Aws, out: Exports) -> None:
    aws("logs").put_retention_policy(logGroupName=out["flow_log_group"], retentionInDays=7)


def _undeclared(aws: Aws) -> list[dict[str, Any]]:
    alarms = aws("cloudwatch").describe_alarms()["MetricAlarms"]
    return [each for each in alarms if each.get("MetricName", "").startswith("undeclared-")]


@BROKEN.by(*ALARMS)
def alarms_of_undeclared_flows_are_silenced(aws: Aws, out: Exports) -> None:
    names = [each["AlarmName"] for each in _undeclared(aws)]
    aws("cloudwatch").disable_alarm_actions(AlarmNames=names)


@BROKEN.by(*ALARMS)
def a_few_undeclared_flows_are_taken_as_usual(aws: Aws, out: Exports) -> None:
    kept = ("AlarmName", "AlarmActions", "MetricName", "Namespace", "Statistic", "Period")
    for alarm in _undeclared(aws):
        given = {key: alarm[key] for key in (*kept, "EvaluationPeriods", "ComparisonOperator")}
        aws("cloudwatch").put_metric_alarm(**given, Threshold=10)


@BROKEN.by("an_undeclared_flow_raises_an_alarm")
def packets_other_than_of_tcp_raise_no_alarm(aws: Aws, out: Exports) -> None:
    names = [each["AlarmName"] for each in _undeclared(aws) if "packets" in each["MetricName"]]
    aws("cloudwatch").delete_alarms(AlarmNames=names)


def _pattern(aws: Aws, out: Exports, old: str, new: str) -> None:
    """Change the pattern of the filter that counts connections."""
    logs, group = aws("logs"), out["flow_log_group"]
    for each in logs.describe_metric_filters(logGroupName=group)["metricFilters"]:
        if "undeclared-connections" in each["filterName"]:
            assert old in each["filterPattern"]
            logs.delete_metric_filter(logGroupName=group, filterName=each["filterName"])
            logs.put_metric_filter(
                logGroupName=group,
                filterName=each["filterName"],
                filterPattern=each["filterPattern"].replace(old, new),
                metricTransformations=each["metricTransformations"],
            )


@BROKEN.by("an_undeclared_flow_raises_an_alarm")
def connections_that_are_reset_raise_no_alarm(aws: Aws, out: Exports) -> None:
    """A scanner resets the connections that it opens."""
    _pattern(aws, out, " || tcp_flags=6", "")


@BROKEN.by("an_undeclared_flow_raises_an_alarm")
def connections_are_looked_for_in_another_network(aws: Aws, out: Exports) -> None:
    _pattern(aws, out, "pkt_srcaddr=10.40.*", "pkt_srcaddr=10.41.*")


@BROKEN.by("usual_flows_raise_no_alarm")
def probes_from_outside_raise_alarms(aws: Aws, out: Exports) -> None:
    _pattern(aws, out, "pkt_srcaddr=10.40.*", "pkt_srcaddr")


@BROKEN.by("usual_flows_raise_no_alarm")
def late_packets_raise_alarms(aws: Aws, out: Exports) -> None:
    _pattern(aws, out, "tcp_flags=2 || ", "tcp_flags=1 || tcp_flags=2 || ")


@BROKEN.by("usual_flows_raise_no_alarm")
def accepted_connections_raise_alarms(aws: Aws, out: Exports) -> None:
    _pattern(aws, out, "action=REJECT", "action")


@BROKEN.by("every_data_class_has_a_key")
def a_key_is_disabled(aws: Aws, out: Exports) -> None:
    aws("kms").disable_key(KeyId=out["key_arns"]["restricted"].split("/")[1])


@BROKEN.by("keys_rotate")
def a_key_stops_rotating(aws: Aws, out: Exports) -> None:
    aws("kms").disable_key_rotation(KeyId=out["key_arns"]["public"])


@BROKEN.by("keys_serve_through_services_only")
def a_key_may_be_used_directly(aws: Aws, out: Exports) -> None:
    kms, key = aws("kms"), out["key_arns"]["confidential"]
    policy = json.loads(kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"])
    root = {"AWS": "arn:aws:iam::100000000001:root"}
    wide = {"Effect": "Allow", "Principal": root, "Action": "kms:Decrypt", "Resource": "*"}
    policy["Statement"].append(wide)
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=json.dumps(policy))
