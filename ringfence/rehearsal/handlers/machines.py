"""Launch templates, Auto Scaling groups and their instances."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.naming import physical, tagged, tags
from ringfence.rehearsal.record import Create, Created, Inputs

BOOLEANS = ("associatePublicIpAddress", "deleteOnTermination", "encrypted")
"""Text in the provider, where Terraform tells three states apart."""
RENAMED = {"securityGroups": "Groups"}


def instance_profile(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    iam, named = aws.client("iam"), physical(name, inputs, 128)
    made = iam.create_instance_profile(
        InstanceProfileName=named, Path=inputs.get("path", "/"), Tags=tags(inputs)
    )["InstanceProfile"]
    iam.add_role_to_instance_profile(InstanceProfileName=named, RoleName=inputs["role"])
    outputs = {"arn": made["Arn"], "name": named, "uniqueId": made["InstanceProfileId"]}
    return Created(named, outputs)


def launch_template(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    made = aws.client("ec2").create_launch_template(
        LaunchTemplateName=physical(name, inputs, 128),
        VersionDescription=inputs.get("description", ""),
        LaunchTemplateData=_data(inputs),
        TagSpecifications=tagged(inputs, "launch-template"),
    )["LaunchTemplate"]
    id_ = made["LaunchTemplateId"]
    return Created(
        id_,
        {
            "arn": aws.arn("ec2", f"launch-template/{id_}"),
            "name": made["LaunchTemplateName"],
            "latestVersion": made["LatestVersionNumber"],
            "defaultVersion": made["DefaultVersionNumber"],
        },
    )


def _data(inputs: Inputs) -> dict[str, Any]:
    ignored = ("description", "name", "region", "tags", "updateDefaultVersion", "tagSpecifications")
    found = {key: value for key, value in inputs.items() if key not in ignored}
    specifications = [
        {"ResourceType": each["resourceType"], "Tags": tags(each)}
        for each in inputs.get("tagSpecifications", [])
    ]
    return {**_request(found), "TagSpecifications": specifications}


def _request(value: Any, key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {
            RENAMED.get(k, k[0].upper() + k[1:]): _request(each, k)
            for k, each in value.items()
            if each is not None
        }
    if isinstance(value, list):
        return [_request(each) for each in value]
    return value == "true" if key in BOOLEANS and isinstance(value, str) else value


def group(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    """Create a group and its instances.

    A group of moto ignores the template's interfaces, profile and metadata options. So start the
    instances by EC2 from the template's data, and attach them to the group.
    """
    client, named = aws.client("autoscaling"), physical(name, inputs, 255)
    template = _request(inputs["launchTemplate"])
    given = {"LaunchTemplateId": template["Id"], "Version": template["Version"]}
    subnets = inputs["vpcZoneIdentifiers"]
    client.create_auto_scaling_group(
        AutoScalingGroupName=named,
        LaunchTemplate=given,
        MinSize=0,
        MaxSize=inputs["maxSize"],
        DesiredCapacity=0,
        VPCZoneIdentifier=",".join(subnets),
        TargetGroupARNs=inputs.get("targetGroupArns") or [],
        HealthCheckType=inputs.get("healthCheckType", "EC2"),
        HealthCheckGracePeriod=inputs.get("healthCheckGracePeriod", 300),
        NewInstancesProtectedFromScaleIn=inputs.get("protectFromScaleIn", False),
        Tags=[
            {
                "Key": each["key"],
                "Value": each["value"],
                "PropagateAtLaunch": each["propagateAtLaunch"],
                "ResourceId": named,
                "ResourceType": "auto-scaling-group",
            }
            for each in inputs.get("tags", [])
        ],
    )
    count = inputs.get("desiredCapacity", inputs["minSize"])
    started = [
        _start(aws, given, subnets[number % len(subnets)], inputs) for number in range(count)
    ]
    if started:
        client.attach_instances(AutoScalingGroupName=named, InstanceIds=started)
    client.update_auto_scaling_group(AutoScalingGroupName=named, MinSize=inputs["minSize"])
    if suspended := inputs.get("suspendedProcesses"):
        client.suspend_processes(AutoScalingGroupName=named, ScalingProcesses=suspended)
    (made,) = client.describe_auto_scaling_groups(AutoScalingGroupNames=[named])[
        "AutoScalingGroups"
    ]
    return Created(named, {"arn": made["AutoScalingGroupARN"], "name": named})


def _start(aws: EmulatedAccount, template: Mapping[str, str], subnet: str, inputs: Inputs) -> str:
    ec2 = aws.client("ec2")
    (version,) = ec2.describe_launch_template_versions(
        LaunchTemplateId=template["LaunchTemplateId"], Versions=[template["Version"]]
    )["LaunchTemplateVersions"]
    data = {**version["LaunchTemplateData"]}
    propagated = [
        {"Key": each["key"], "Value": each["value"]}
        for each in inputs.get("tags", [])
        if each["propagateAtLaunch"]
    ]
    specifications = {
        each["ResourceType"]: each["Tags"] for each in data.pop("TagSpecifications", [])
    }
    specifications["instance"] = propagated or specifications.get("instance", [])
    interfaces = [{**each, "SubnetId": subnet} for each in data.pop("NetworkInterfaces", [])]
    where = {"NetworkInterfaces": interfaces} if interfaces else {"SubnetId": subnet}
    made = ec2.run_instances(
        **{**data, "ImageId": _resolved(data["ImageId"])},
        **where,
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[
            {"ResourceType": kind, "Tags": specifications[kind]} for kind in specifications
        ],
    )
    (instance,) = made["Instances"]
    return instance["InstanceId"]


def _resolved(image: str) -> str:
    """moto has no public parameters of Debian's: an id that stands for the image of that name."""
    if not image.startswith("resolve:ssm:"):
        return image
    return f"ami-{sha256(image.encode()).hexdigest()[:17]}"


RESOURCES: Mapping[str, Create] = {
    "aws:autoscaling/group:Group": group,
    "aws:ec2/launchTemplate:LaunchTemplate": launch_template,
    "aws:iam/instanceProfile:InstanceProfile": instance_profile,
}
