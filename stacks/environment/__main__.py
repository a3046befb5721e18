"""Wires the components of one environment together. `ringfence.cloud` decides what they contain."""

from __future__ import annotations

from functools import partial

import pulumi
import pulumi_aws as aws

from ringfence.cloud import addressing, balancers, containment, egress, event_alerts, quotas
from ringfence.cloud.dns import QUERY_CLASS
from ringfence.cloud.groups import ENDPOINTS
from ringfence.cloud.mirroring import MIRROR_CLASS
from ringfence.cloud.secrets import own_secrets
from ringfence.cloud.services import FLOW_LOG_CLASS
from ringfence.cloud.sessions import SESSION_CLASS
from ringfence.cloud.tags import tags
from ringfence.identity.ssh_authority import ensure_authority
from ringfence.identity.state import StateError
from ringfence.manifest.model import Environment
from stacks.components.data.keys import Keys, KeysArgs
from stacks.components.data.secrets import Secrets, SecretsArgs
from stacks.components.identity.machines import Machines, MachinesArgs
from stacks.components.identity.operators import Operators, OperatorsArgs
from stacks.components.identity.session_manager import SessionManager, SessionManagerArgs
from stacks.components.monitoring.environment_alerts import EnvironmentAlerts, EnvironmentAlertsArgs
from stacks.components.monitoring.flow_logs import FlowLogs, FlowLogsArgs
from stacks.components.monitoring.mirroring import Mirroring, MirroringArgs
from stacks.components.network.acls import Acls, AclsArgs
from stacks.components.network.dns import Dns, DnsArgs
from stacks.components.network.egress import EgressFirewall, EgressFirewallArgs
from stacks.components.network.endpoints import (
    GatewayEndpoints,
    GatewayEndpointsArgs,
    InterfaceEndpoints,
    InterfaceEndpointsArgs,
)
from stacks.components.network.groups import Groups, GroupsArgs
from stacks.components.network.private_links import PrivateLinks, PrivateLinksArgs
from stacks.components.network.published_gateway import PublishedGateway, PublishedGatewayArgs
from stacks.components.network.vpc import Network, NetworkArgs
from stacks.components.response.containment import Containment, ContainmentArgs

environment = Environment.load(pulumi.Config().require("manifest"))
place = environment.provisioning
if place is None:
    raise pulumi.RunError(f"{environment.path}: provisioning.aws is missing; add it")
if exceeded := quotas.exceeded(environment):
    raise pulumi.RunError("\n".join(f"{environment.path}: {each}" for each in exceeded))
try:
    ensure_authority(environment)  # every host starts with its public key
except StateError as error:
    raise pulumi.RunError(str(error)) from error
name, region = environment.name, place.region

# The manifest decides on the region, not the shell or the stack's configuration.
provider = aws.Provider("aws", region=region)
account = aws.get_caller_identity(opts=pulumi.InvokeOptions(provider=provider)).account_id
opts = pulumi.ResourceOptions(provider=provider)

shared = pulumi.StackReference("account", place.account_stack)

keys = Keys(f"{name}-key", KeysArgs(environment=environment, account=account, region=region), opts)
zones = addressing.zones(region, place.zones)
network = Network(name, NetworkArgs(environment=environment, zones=zones), opts)
Acls(f"{name}-acl", AclsArgs(environment=environment, network=network), opts)
gateways = GatewayEndpoints(
    f"{name}-gateway",
    GatewayEndpointsArgs(environment=environment, network=network, account=account, region=region),
    opts,
)
groups = Groups(
    f"{name}-group",
    GroupsArgs(
        environment=environment,
        vpc_id=network.vpc.id,
        s3_prefix_list_id=gateways.s3_prefix_list_id,
    ),
    opts,
)
InterfaceEndpoints(
    f"{name}-endpoint",
    InterfaceEndpointsArgs(
        environment=environment,
        network=network,
        account=account,
        region=region,
        group_id=groups.ids[ENDPOINTS],
    ),
    opts,
)
link_ids, link_names = {}, []
if place.private_links:
    links = PrivateLinks(
        f"{name}-link",
        PrivateLinksArgs(environment=environment, network=network, group_ids=groups.ids),
        opts,
    )
    link_ids, link_names = links.ids, links.names
names = Dns(
    f"{name}-dns",
    DnsArgs(
        environment=environment,
        vpc_id=network.vpc.id,
        log_key_arn=keys.arns[QUERY_CLASS],
        region=region,
        link_names=link_names,
    ),
    opts,
)
egress_logs = None
if egress.destinations(environment):
    egress_logs = EgressFirewall(
        f"{name}-egress",
        EgressFirewallArgs(
            environment=environment,
            network=network,
            zones=zones,
            log_key_arn=keys.arns[egress.LOG_CLASS],
        ),
        opts,
    ).log_group_name
target_group_arns, published = {}, {}
if balancer := balancers.gateway(environment):
    service = PublishedGateway(
        f"{name}-gateway",
        PublishedGatewayArgs(
            environment=environment,
            network=network,
            balancer=balancer,
            group_id=groups.ids[balancer.group],
            accepted=place.accepted,
        ),
        opts,
    )
    target_group_arns = service.target_group_arns
    published = {"service_id": service.service_id, "service_name": service.service_name}
flow_logs = FlowLogs(
    f"{name}-flow-logs",
    FlowLogsArgs(
        environment=environment,
        vpc_id=network.vpc.id,
        key_arn=keys.arns[FLOW_LOG_CLASS],
        account=account,
        region=region,
    ),
    opts,
)
sessions = SessionManager(
    f"{name}-sessions",
    SessionManagerArgs(
        environment=environment,
        account=account,
        log_key_arn=keys.arns[SESSION_CLASS],
        tags=partial(tags, environment),
        owner=name,
    ),
    opts,
)
operators = Operators(
    f"{name}-operators",
    OperatorsArgs(
        environment=environment,
        account=account,
        region=region,
        document_arn=sessions.document_arn,
        key_arn=sessions.key_arn,
    ),
    opts,
)
secret_arns = {}
alarms = [(flow_logs.group_name, event_alerts.flow_alarms(environment))]
if own_secrets(environment):
    secrets = Secrets(
        f"{name}-secret",
        SecretsArgs(environment=environment, key_arns=keys.arns, account=account, region=region),
        opts,
    )
    alarms.append((secrets.age_log_group, event_alerts.age_alarms()))
    secret_arns = secrets.arns
alerts = EnvironmentAlerts(
    f"{name}-alerts",
    EnvironmentAlertsArgs(environment=environment, account=account, region=region, alarms=alarms),
    opts,
)
mirrored = {}
if balancer := balancers.sensors(environment):
    mirror = Mirroring(
        f"{name}-mirroring",
        MirroringArgs(
            environment=environment,
            network=network,
            balancer=balancer,
            group_id=groups.ids[balancer.group],
            log_key_arn=keys.arns[MIRROR_CLASS],
            topic_arn=alerts.topic_arn,
            topic_key_arn=alerts.key_arn,
            account=account,
            region=region,
        ),
        opts,
    )
    target_group_arns = {**target_group_arns, **mirror.target_group_arns}
    mirrored = {"target_id": mirror.target_id, "filter_id": mirror.filter_id}
machines = Machines(
    f"{name}-host",
    MachinesArgs(
        environment=environment,
        network=network,
        group_ids=groups.ids,
        key_arns=keys.arns,
        secret_arns=secret_arns,
        target_group_arns=target_group_arns,
        account=account,
        region=region,
        session_log_group_arn=sessions.log_group_arn,
        session_key_arn=sessions.key_arn,
    ),
    opts,
)
response = Containment(
    f"{name}-containment",
    ContainmentArgs(
        environment=environment,
        account=account,
        region=region,
        vpc_id=network.vpc.id,
        log_key_arn=keys.arns[containment.CLASS],
        topic_arn=alerts.topic_arn,
        topic_key_arn=alerts.key_arn,
        detector_id=shared.require_output("detector_id"),
        boundary_arn=machines.boundary_arn,
    ),
    opts,
)

pulumi.export("vpc_id", network.vpc.id)
pulumi.export(
    "subnet_ids",
    {
        segment: {zone: subnet.id for zone, subnet in subnets.items()}
        for segment, subnets in network.subnets.items()
    },
)
pulumi.export("group_ids", groups.ids)
pulumi.export("private_link_ids", link_ids)
pulumi.export("mirroring", mirrored)
pulumi.export("published_gateway", published)
pulumi.export("target_group_arns", target_group_arns)
pulumi.export("key_arns", keys.arns)
pulumi.export("host_role_arns", machines.role_arns)
pulumi.export("boundary_arn", machines.boundary_arn)
pulumi.export("flow_log_group", flow_logs.group_name)
pulumi.export("dns_log_group", names.log_group_name)
pulumi.export("egress_log_group", egress_logs)
pulumi.export("containment_function_arn", response.function_arn)
pulumi.export("quarantine_group_id", response.quarantine_group_id)
pulumi.export("failed_events_url", response.failed_events_url)
pulumi.export("secret_arns", secret_arns)
pulumi.export("session_document", sessions.document_name)
pulumi.export("session_log_group", sessions.log_group_name)
pulumi.export("session_key_arn", sessions.key_arn)
pulumi.export("operators_role_arn", operators.role_arn)
pulumi.export("alerts_topic_arn", alerts.topic_arn)
pulumi.export("alerts_key_arn", alerts.key_arn)
