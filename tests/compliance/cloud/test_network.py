"""NET, DAT-02: the AWS account holds what the manifest says, and lets nothing else through."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import pytest

from ringfence.cloud import egress, event_alerts
from ringfence.cloud.flows import Path, declared
from ringfence.cloud.groups import interfaces, server_group
from ringfence.cloud.services import DATA_CLASSES, FLOW_LOG_CLASS, interface_endpoints
from ringfence.cloud.tags import GROUP, SEGMENT
from ringfence.manifest.model import Environment
from ringfence.report import UnverifiedError
from ringfence.verify.account import log_patterns, reachability, tagged_resources
from ringfence.verify.account.cloud import Cloud, Document, statements, tag, texts

UP = "remove it, and run pulumi up"
AGENT_BUCKET = "arn:aws:s3:::amazon-ssm-"
"""Amazon's own bucket with the SSM agent, which hosts read without signing."""
PROTOCOLS = {"icmp": "1", "tcp": "6", "udp": "17", "-": "-"}
FLAGS = {"opening": "2", "opening and reset": "6", "late": "1", "answer": "18"}
"""As flow logs add them up for a minute: FIN 1, SYN 2, RST 4, SYN with ACK 18."""
TRIED = (("tcp", "opening"), ("tcp", "opening and reset"), ("udp",), ("icmp",))
FIELD = re.compile(r"\$\{([\w-]+)\}")
AT_LEAST = "GreaterThanOrEqualToThreshold"
OUTSIDE, MULTICAST = "203.0.113.7", "224.0.0.251"
CRYPTOGRAPHY = ("kms:*", "kms:decrypt", "kms:encrypt", "kms:generatedatakey", "*")


@pytest.mark.control("NET-01")
def test_no_gateway_leads_out_of_the_network(cloud: Cloud):
    """A segment is one only while nothing connects it to the internet behind its back.

    A declared egress to domains has gateways; the checks of routes cover what passes them.
    """
    found = [
        *(
            gateway["InternetGatewayId"]
            for gateway in _attached(cloud, "internet_gateways")
            if not _is_egress(cloud, gateway)
        ),
        *(g["EgressOnlyInternetGatewayId"] for g in _egress_only(cloud)),
        *(
            gateway["NatGatewayId"]
            for gateway in cloud.in_vpcs("describe_nat_gateways", "NatGateways")
            if gateway["State"] != "deleted" and not _is_egress(cloud, gateway)
        ),
        *(
            attachment["TransitGatewayAttachmentId"]
            for attachment in cloud.in_vpcs(
                "describe_transit_gateway_vpc_attachments", "TransitGatewayVpcAttachments"
            )
        ),
    ]
    assert not found, f"{', '.join(found)} leads out of the network; {UP}"


@pytest.mark.control("NET-01")
def test_no_route_leads_out_of_the_network(cloud: Cloud):
    """Without a route nothing can be reached, whatever a security group says."""
    found = [
        f"{table['RouteTableId']} leads {route['DestinationCidrBlock']} out"
        for table in cloud.in_vpcs("describe_route_tables", "RouteTables")
        for route in table["Routes"]
        if "DestinationCidrBlock" in route
        and route.get("GatewayId") not in {"local", *cloud.firewall_endpoints}
        # Behind the firewall: a segment that has such a table is not held by it.
        and not (_is_egress(cloud, table) and not _holds_segments(cloud, table))
    ]
    assert not found, f"{', '.join(found)}; {UP}"


@pytest.mark.control("NET-01")
def test_segments_are_apart(cloud: Cloud, environment: Environment):
    """Groups alone must hold what nobody declared: ACLs are coarse, and for when groups fail."""
    found = _undeclared(cloud, servers=False)
    assert not found, f"possible and not declared: {_listed(found)}; {UP}"


@pytest.mark.control("NET-01")
def test_declared_flows_are_possible(cloud: Cloud, environment: Environment):
    """A firewall that blocks declared flows is turned off by the next person who needs them."""
    missing = declared(environment) - _network(cloud).paths()
    assert not missing, f"declared and not possible: {_listed(missing)}; run pulumi up"


@pytest.mark.control("NET-01")
def test_default_security_group_allows_nothing(cloud: Cloud):
    """An instance without a group gets this one, and would reach others like it."""
    found = [
        group["GroupId"]
        for group in cloud.in_vpcs("describe_security_groups", "SecurityGroups")
        if group["GroupName"] == "default"
        and (group["IpPermissions"] or group["IpPermissionsEgress"])
    ]
    assert not found, f"the default security group {', '.join(found)} has rules; {UP}"


@pytest.mark.control("NET-01")
def test_every_subnet_has_an_acl_of_its_own(cloud: Cloud):
    """The default ACL allows everything, and security groups would be all that is left."""
    found = [
        association["SubnetId"]
        for acl in cloud.in_vpcs("describe_network_acls", "NetworkAcls")
        for association in acl["Associations"]
        if acl["IsDefault"] or any(map(_allows_everything, acl["Entries"]))
    ]
    assert not found, f"the ACL of {', '.join(found)} is the default or allows all; run pulumi up"


@pytest.mark.control("NET-02")
def test_every_server_has_a_security_group(cloud: Cloud, environment: Environment):
    """Servers that share a group reach whatever one of them may reach."""
    groups = cloud.in_vpcs("describe_security_groups", "SecurityGroups")
    names = {tag(group, GROUP) for group in groups}
    missing = [s.name for s in environment.servers.values() if server_group(s) not in names]
    assert not missing, f"no security group for {', '.join(missing)}; run pulumi up"


@pytest.mark.control("NET-02")
def test_servers_reach_and_are_reached_as_declared(cloud: Cloud, environment: Environment):
    """A tool that was talked into it must not reach its neighbours, nor be reached by them."""
    found = _undeclared(cloud, servers=True)
    assert not found, f"possible and not declared: {_listed(found)}; {UP}"


@pytest.mark.control("NET-03")
def test_subnets_give_no_public_addresses(cloud: Cloud):
    """A host with a public address is one wrong route away from everybody."""
    subnets = cloud.in_vpcs("describe_subnets", "Subnets")
    found = [subnet["SubnetId"] for subnet in subnets if subnet["MapPublicIpOnLaunch"]]
    assert not found, f"{', '.join(found)} give public addresses; {UP}"


@pytest.mark.control("NET-03")
def test_no_interface_has_a_public_address(cloud: Cloud):
    """People come in through Session Manager, callers through private links.

    A NAT gateway has one, which lets nobody in.
    """
    gateways = {
        address.get("NetworkInterfaceId")
        for gateway in cloud.in_vpcs("describe_nat_gateways", "NatGateways")
        if _is_egress(cloud, gateway)
        for address in gateway["NatGatewayAddresses"]
    }
    found = [
        f"{interface['NetworkInterfaceId']} ({interface['Association']['PublicIp']})"
        for interface in cloud.in_vpcs("describe_network_interfaces", "NetworkInterfaces")
        if "PublicIp" in interface.get("Association", {})
        and interface["NetworkInterfaceId"] not in gateways
    ]
    assert not found, f"public addresses: {', '.join(found)}; release them"


@pytest.mark.control("NET-03")
def test_services_have_private_endpoints(cloud: Cloud, environment: Environment):
    """Without them the services that hosts need could only be reached over the internet."""
    present = {
        endpoint["ServiceName"].rsplit(".", 1)[1]
        for endpoint in cloud.endpoints
        if endpoint["VpcEndpointType"] == "Gateway" or endpoint.get("PrivateDnsEnabled")
    }
    missing = [s for s in (*interface_endpoints(environment), "s3") if s not in present]
    assert not missing, f"no private endpoint for {', '.join(missing)}; run pulumi up"


@pytest.mark.control("NET-03")
def test_endpoints_serve_this_account_only(cloud: Cloud):
    """With a default policy, a host could carry data to a bucket of somebody else's."""
    found = [
        f"{endpoint['VpcEndpointId']} ({endpoint['ServiceName']})"
        for endpoint in cloud.endpoints
        # One of another account takes no policy: test_privatelink.py.
        if not endpoint["ServiceName"].startswith("com.amazonaws.vpce.")
        and (
            not (said := statements(endpoint.get("PolicyDocument")))
            or any(not _is_held_to(cloud.account, statement) for statement in said)
        )
    ]
    if not cloud.endpoints:
        found = ["no endpoint is there"]
    assert not found, f"open to other accounts: {', '.join(found)}; run pulumi up"


@pytest.mark.control("NET-05")
def test_every_flow_is_recorded(cloud: Cloud):
    """An investigation needs accepted and refused connections, of every network."""
    recorded = {
        log["ResourceId"]
        for log in _flow_logs(cloud)
        if log["TrafficType"] == "ALL"
        and log["FlowLogStatus"] == "ACTIVE"
        and log.get("DeliverLogsStatus", "SUCCESS") == "SUCCESS"
    }
    missing = [vpc["VpcId"] for vpc in cloud.vpcs if vpc["VpcId"] not in recorded]
    assert not missing, f"no flow log, or not of all traffic: {', '.join(missing)}; run pulumi up"


@pytest.mark.control("NET-05")
@pytest.mark.parametrize("field", ["pkt-srcaddr", "pkt-dstaddr", "flow-direction", "reject-reason"])
def test_flow_records_tell_both_ends(cloud: Cloud, field: str):
    """The default fields hide who was really meant, and why a connection was refused."""
    formats = [log["LogFormat"] for log in _flow_logs(cloud)]
    without = [text for text in formats if f"${{{field}}}" not in text]
    assert formats, "there is no flow log; run pulumi up"
    assert not without, f"flow records have no {field}; run pulumi up"


@pytest.mark.control("NET-05")
def test_flow_records_are_kept_encrypted(cloud: Cloud, environment: Environment):
    """They tell who talks to whom; a copy must be worthless, and there when it is asked for."""
    found: list[str] = []
    for group in _flow_log_groups(cloud):
        if "kmsKeyId" not in group:
            found.append(f"{group['logGroupName']} has no key")
        # Without a number of days, records never expire.
        days = group.get("retentionInDays")
        if days is not None and days < environment.retention[FLOW_LOG_CLASS]:
            found.append(f"{group['logGroupName']} keeps {days} days")
    assert list(_flow_log_groups(cloud)), "no log group has the flow records; run pulumi up"
    assert not found, f"{', '.join(found)}; run pulumi up"


@pytest.mark.control("NET-05")
@pytest.mark.parametrize("tried", TRIED, ids=" ".join)
def test_an_undeclared_flow_raises_an_alarm(
    cloud: Cloud, environment: Environment, tried: Sequence[str]
):
    """An undeclared connection is refused, and one is enough: its sender is inside."""
    here, there = _two_addresses(environment)
    said = _alarming(cloud, "REJECT", here, there, *tried)
    assert said, f"a refused {' '.join(tried)} inside the network calls nobody; {UP}"


@pytest.mark.control("NET-05")
def test_usual_flows_raise_no_alarm(cloud: Cloud, environment: Environment):
    """An alarm that rings for nothing is switched off, and then for something, too."""
    here, there = _two_addresses(environment)
    usual = {
        "an accepted connection": ("ACCEPT", here, there, "tcp", "opening"),
        "a late packet": ("REJECT", here, there, "tcp", "late"),
        "an answer that nobody waits for": ("REJECT", there, here, "tcp", "answer"),
        "a probe from outside": ("REJECT", OUTSIDE, there, "tcp", "opening"),
        "a group's address": ("REJECT", here, MULTICAST, "udp"),
        "a minute without packets": ("-", "-", "-", "-"),
    }
    found = [what for what, given in usual.items() if _alarming(cloud, *given)]
    assert not found, f"called for nothing: {', '.join(found)}; {UP}"


@pytest.mark.control("DAT-02")
@pytest.mark.parametrize("data_class", DATA_CLASSES)
def test_every_data_class_has_a_key(cloud: Cloud, data_class: str):
    """With one key for all classes, permission for the lowest reads everything."""
    enabled = [key for key in cloud.keys.get(data_class, []) if key["KeyState"] == "Enabled"]
    ours = [key for key in enabled if key["KeyManager"] == "CUSTOMER"]
    assert ours, f"there is no enabled key for {data_class} data; run pulumi up"


@pytest.mark.control("DAT-02")
@pytest.mark.parametrize("data_class", DATA_CLASSES)
def test_keys_rotate(cloud: Cloud, data_class: str):
    """A key that leaks opens what was written under it; a year is enough for that."""
    kms, found = cloud.client("kms"), cloud.keys.get(data_class, [])
    stale = [
        key["KeyId"]
        for key in found
        if not kms.get_key_rotation_status(KeyId=key["KeyId"])["KeyRotationEnabled"]
    ]
    assert found, f"there is no key for {data_class} data; run pulumi up"
    assert not stale, f"{', '.join(stale)} do not rotate; run pulumi up"


@pytest.mark.control("DAT-02")
@pytest.mark.parametrize("data_class", DATA_CLASSES)
def test_keys_serve_through_services_only(cloud: Cloud, data_class: str):
    """A stolen credential that may call KMS directly decrypts whatever it has copied."""
    kms, found = cloud.client("kms"), cloud.keys.get(data_class, [])
    open_to_all = [
        f"{key['KeyId']} ({statement.get('Sid', 'a statement')})"
        for key in found
        for statement in statements(
            kms.get_key_policy(KeyId=key["KeyId"], PolicyName="default")["Policy"]
        )
        if _decrypts(statement) and not _is_through_a_service(statement)
    ]
    assert found, f"there is no key for {data_class} data; run pulumi up"
    assert not open_to_all, f"usable without a service: {', '.join(open_to_all)}; run pulumi up"


@cache
def _network(cloud: Cloud) -> reachability.NetworkResources:
    return reachability.read(cloud)


def _undeclared(cloud: Cloud, *, servers: bool) -> frozenset[Path]:
    """Possible flows that nobody declared: those of MCP servers, or the others."""
    ends = {
        interface.name
        for interface in interfaces(cloud.environment)
        if any(group.startswith("server-") for group in interface.groups)
    }
    found = _network(cloud).paths(acls=False) - declared(cloud.environment)
    return frozenset(p for p in found if bool({p.source, p.target} & ends) == servers)


def _listed(paths: Iterable[Path]) -> str:
    shown = sorted(map(str, paths))
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if shown[8:] else "")


def _attached(cloud: Cloud, kind: str) -> list[Document]:
    return cloud.in_vpcs(f"describe_{kind}", "InternetGateways", "attachment.vpc-id")


def _is_egress(cloud: Cloud, thing: Document) -> bool:
    return bool(egress.destinations(cloud.environment)) and tag(thing, GROUP) == egress.GROUP_NAME


def _holds_segments(cloud: Cloud, table: Document) -> bool:
    own = {association.get("SubnetId") for association in table["Associations"]}
    found = cloud.in_vpcs("describe_subnets", "Subnets")
    return any(tag(subnet, SEGMENT) for subnet in found if subnet["SubnetId"] in own)


def _egress_only(cloud: Cloud) -> Iterator[Document]:
    """They cannot be asked for by VPC."""
    ids = {vpc["VpcId"] for vpc in cloud.vpcs}
    operation, key = "describe_egress_only_internet_gateways", "EgressOnlyInternetGateways"
    for gateway in cloud.all("ec2", operation, key):
        if any(attachment["VpcId"] in ids for attachment in gateway["Attachments"]):
            yield gateway


def _allows_everything(entry: Document) -> bool:
    everywhere = entry.get("CidrBlock") == "0.0.0.0/0"
    return entry["RuleAction"] == "allow" and entry["Protocol"] == "-1" and everywhere


def _flow_logs(cloud: Cloud) -> list[Document]:
    return cloud.in_vpcs("describe_flow_logs", "FlowLogs", "resource-id")


def _flow_log_groups(cloud: Cloud) -> Iterator[Document]:
    for log in _flow_logs(cloud):
        name = log.get("LogGroupName") or log.get("LogDestination", "").rpartition(":")[2]
        found = cloud.all("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=name)
        yield from (group for group in found if group["logGroupName"] == name)


def _two_addresses(environment: Environment) -> tuple[str, str]:
    """In the first segment and the last."""
    segments = [*environment.segments.values()]
    return str(segments[0].cidr[9]), str(segments[-1].cidr[10])


def _alarming(
    cloud: Cloud, action: str, source: str, target: str, protocol: str, flags: str = ""
) -> list[str]:
    """Alarms that one such record in the flow log is enough for.

    In the format that the log has, which need not be the one that a filter expects.
    """
    values = {
        "action": action,
        "srcaddr": source,
        "dstaddr": target,
        "pkt-srcaddr": source,
        "pkt-dstaddr": target,
        "protocol": PROTOCOLS[protocol],
        "tcp-flags": FLAGS.get(flags, "0"),
    }
    records = [
        " ".join(values.get(field, "-") for field in FIELD.findall(log["LogFormat"]))
        for log in _flow_logs(cloud)
    ]
    groups = {group["logGroupName"] for group in _flow_log_groups(cloud)}
    topic, space = tagged_resources.topic(cloud), event_alerts.namespace(cloud.environment)
    at_once = [
        (found, alarm)
        for found, alarm in tagged_resources.alarms_of_logs(cloud, topic, groups, space)
        if (alarm["Threshold"], alarm["ComparisonOperator"]) == (1, AT_LEAST)
    ]
    if not at_once:
        raise UnverifiedError(f"no flow that was refused raises an alarm by itself; {UP}")
    return [
        alarm["AlarmName"]
        for found, alarm in at_once
        if any(log_patterns.matches(found["filterPattern"], record) for record in records)
    ]


def _is_held_to(account: str, statement: Document) -> bool:
    if statement["Effect"] != "Allow":
        return True
    conditions = statement.get("Condition", {}).get("StringEquals", {})
    if {"aws:PrincipalAccount", "aws:ResourceAccount"} <= conditions.keys():
        return {account} == {
            *texts(conditions["aws:PrincipalAccount"]),
            *texts(conditions["aws:ResourceAccount"]),
        }
    reads = texts(statement.get("Action")) == ["s3:GetObject"]
    return reads and all(r.startswith(AGENT_BUCKET) for r in texts(statement.get("Resource")))


def _decrypts(statement: Document) -> bool:
    actions = {action.lower() for action in texts(statement.get("Action"))}
    return statement["Effect"] == "Allow" and bool(actions & set(CRYPTOGRAPHY))


def _is_through_a_service(statement: Document) -> bool:
    tests: dict[str, Document] = statement.get("Condition", {})
    keys = {key for test in tests.values() for key in test}
    service = "Service" in (p if isinstance(p := statement["Principal"], dict) else {})
    return "kms:ViaService" in keys or (service and bool(keys))
