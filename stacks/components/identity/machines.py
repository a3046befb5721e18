"""A machine per host: launch template, role and Auto Scaling group (IAM-07)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import groups, machines, secrets, sessions
from ringfence.cloud.roles import workload_path, workloads_path
from ringfence.cloud.tags import tags
from ringfence.inventory import first_boot
from ringfence.manifest.model import DataClass, Environment, Host
from stacks.components.network.vpc import Network

CONTROLS = ("IAM-07", "NET-03", "DAT-02")
LEAST_PRIVILEGE, *_ = CONTROLS


@dataclass(frozen=True, kw_only=True)
class MachinesArgs:
    environment: Environment
    network: Network
    group_ids: Mapping[str, pulumi.Output[str]]
    key_arns: Mapping[DataClass, pulumi.Output[str]]
    secret_arns: Mapping[str, Mapping[str, pulumi.Output[str]]]
    """ARNs by server and name."""
    target_group_arns: Mapping[str, Sequence[pulumi.Output[str]]]
    """Target groups of load balancers, by host."""
    account: str
    region: str
    session_log_group_arn: pulumi.Output[str]
    session_key_arn: pulumi.Output[str]


class Machines(pulumi.ComponentResource):
    boundary_arn: pulumi.Output[str]
    role_arns: Mapping[str, pulumi.Output[str]]
    """ARNs by host."""

    def __init__(
        self, name: str, args: MachinesArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Machines", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self.boundary_arn = self._boundary()
        self.role_arns = {}
        for host in args.environment.hosts.values():
            role, profile = self._identity(host)
            self._group(host, self._template(host, profile))
            self.role_arns[host.name] = role.arn
        self.register_outputs({"boundary_arn": self.boundary_arn, "role_arns": self.role_arns})

    def _boundary(self) -> pulumi.Output[str]:
        args = self._args
        return aws.iam.Policy(
            f"{self._name}-boundary",
            description=f"The most that hosts of {args.environment.name} may do",
            path=workloads_path(args.environment),
            policy=pulumi.Output.all(
                session_log_group=args.session_log_group_arn,
                session_key=args.session_key_arn,
                keys=pulumi.Output.all(*args.key_arns.values()),
            ).apply(
                lambda found: machines.boundary(
                    args.environment, account=args.account, region=args.region, **found
                )
            ),
            tags=tags(args.environment, "boundary", control=LEAST_PRIVILEGE),
            opts=self._child,
        ).arn

    def _identity(self, host: Host) -> tuple[aws.iam.Role, aws.iam.InstanceProfile]:
        args, environment = self._args, self._args.environment
        name, own = f"{self._name}-{host.name}", groups.host_group(host)
        path = workload_path(environment, own)
        named = tags(
            environment,
            own,
            control=LEAST_PRIVILEGE,
            group=machines.role_group(environment, host),
            host=host.name,
        )
        role = aws.iam.Role(
            name,
            assume_role_policy=machines.trust(),
            description=f"Host {host.name} of {environment.name}",
            path=path,
            permissions_boundary=self.boundary_arn,
            # A policy that containment has added must not block the deletion of the role.
            force_detach_policies=True,
            tags=named,
            opts=self._child,
        )
        aws.iam.RolePolicy(
            f"{name}-agent",
            role=role.name,
            policy=machines.agent_permissions(account=args.account, region=args.region),
            opts=self._child,
        )
        aws.iam.RolePolicy(
            f"{name}-sessions",
            role=role.name,
            policy=pulumi.Output.all(
                log_group=args.session_log_group_arn, key=args.session_key_arn
            ).apply(
                lambda found: sessions.host_permissions(
                    log_group=found["log_group"],
                    key=found["key"],
                    account=args.account,
                    region=args.region,
                )
            ),
            opts=self._child,
        )
        if readable := machines.readable_secrets(environment, host):
            arns = [args.secret_arns[each.server.name][each.secret.name] for each in readable]
            keys = [args.key_arns[each.data_class] for each in readable]
            aws.iam.RolePolicy(
                f"{name}-secrets",
                role=role.name,
                policy=pulumi.Output.all(secrets=arns, keys=keys).apply(
                    lambda found: secrets.reader_permissions(
                        secrets=found["secrets"], keys=found["keys"], region=args.region
                    )
                ),
                opts=self._child,
            )
        profile = aws.iam.InstanceProfile(
            name, role=role.name, path=path, tags=named, opts=self._child
        )
        return role, profile

    def _template(self, host: Host, profile: aws.iam.InstanceProfile) -> aws.ec2.LaunchTemplate:
        args, environment = self._args, self._args.environment
        machine, data_class = (
            machines.machine(environment, host),
            machines.data_class(environment, host),
        )
        named = self._tags(host)
        return aws.ec2.LaunchTemplate(
            f"{self._name}-{host.name}",
            description=f"Host {host.name} of {environment.name}",
            image_id=machines.image(machines.architecture(environment, host)),
            instance_type=machine.type,
            iam_instance_profile={"arn": profile.arn},
            block_device_mappings=[
                {
                    "device_name": machines.ROOT_DEVICE,
                    "ebs": {
                        "volume_type": "gp3",
                        "volume_size": machine.disk_gib,
                        "encrypted": "true",
                        "kms_key_id": args.key_arns[data_class],
                        "delete_on_termination": str(not machines.keeps_data(host)).lower(),
                    },
                }
            ],
            metadata_options={
                "http_endpoint": "enabled",
                "http_tokens": "required",
                "http_put_response_hop_limit": 1,
                "instance_metadata_tags": "disabled",
            },
            network_interfaces=[
                {
                    "device_index": 0,
                    "associate_public_ip_address": "false",
                    "delete_on_termination": "true",
                    "security_groups": [
                        args.group_ids[each] for each in machines.security_groups(environment, host)
                    ],
                }
            ],
            monitoring={"enabled": True},
            user_data=first_boot.encoded(first_boot.user_data(environment, host)),
            tag_specifications=[
                {"resource_type": kind, "tags": named}
                for kind in ("instance", "volume", "network-interface")
            ],
            update_default_version=True,
            tags=named,
            opts=self._child,
        )

    def _group(self, host: Host, template: aws.ec2.LaunchTemplate) -> None:
        network = self._args.network
        aws.autoscaling.Group(
            f"{self._name}-{host.name}",
            min_size=1,
            max_size=1,
            desired_capacity=1,
            vpc_zone_identifiers=[each.id for each in network.subnets[host.segment.name].values()],
            launch_template={
                "id": template.id,
                "version": template.latest_version.apply(str),
            },
            target_group_arns=[*self._args.target_group_arns.get(host.name, ())],
            health_check_type="EC2",
            health_check_grace_period=300,
            protect_from_scale_in=True,
            suspended_processes=["ReplaceUnhealthy"] if machines.keeps_data(host) else None,
            tags=[
                {"key": key, "value": value, "propagate_at_launch": True}
                for key, value in self._tags(host).items()
            ],
            opts=pulumi.ResourceOptions(parent=self, protect=machines.keeps_data(host)),
        )

    def _tags(self, host: Host) -> dict[str, str]:
        environment = self._args.environment
        return tags(
            environment,
            host.name,
            control=LEAST_PRIVILEGE,
            data_class=machines.data_class(environment, host),
            segment=host.segment.name,
            group=groups.host_group(host),
            host=host.name,
        )
