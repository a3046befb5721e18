"""AWS Config."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.naming import physical, tags
from ringfence.rehearsal.record import Create, Created, Inputs


def recorder(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    made = physical(name, inputs, 256)
    group = inputs.get("recordingGroup", {})
    aws.client("config").put_configuration_recorder(
        ConfigurationRecorder={
            "name": made,
            "roleARN": inputs["roleArn"],
            "recordingGroup": {
                "allSupported": group.get("allSupported", True),
                "includeGlobalResourceTypes": group.get("includeGlobalResourceTypes", False),
            },
        }
    )
    return Created(made, {"name": made})


def delivery_channel(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    made = physical(name, inputs, 256)
    frequency = inputs.get("snapshotDeliveryProperties", {}).get("deliveryFrequency")
    optional = {
        "s3KmsKeyArn": inputs.get("s3KmsKeyArn"),
        "configSnapshotDeliveryProperties": frequency and {"deliveryFrequency": frequency},
    }
    aws.client("config").put_delivery_channel(
        DeliveryChannel={
            "name": made,
            "s3BucketName": inputs["s3BucketName"],
            **{key: value for key, value in optional.items() if value is not None},
        }
    )
    return Created(made, {"name": made})


def recorder_status(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    config = aws.client("config")
    switch = config.start_configuration_recorder
    if not inputs["isEnabled"]:
        switch = config.stop_configuration_recorder
    switch(ConfigurationRecorderName=inputs["name"])
    return Created(inputs["name"], {})


def retention(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    made = aws.client("config").put_retention_configuration(
        RetentionPeriodInDays=inputs["retentionPeriodInDays"]
    )["RetentionConfiguration"]
    return Created(made["Name"], {"name": made["Name"]})


def rule(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    config = aws.client("config")
    made = physical(name, inputs, 128)
    source = inputs["source"]
    parameters = inputs.get("inputParameters")
    config.put_config_rule(
        ConfigRule={
            "ConfigRuleName": made,
            "Source": {"Owner": source["owner"], "SourceIdentifier": source["sourceIdentifier"]},
            **({"InputParameters": parameters} if parameters else {}),
        },
        Tags=tags(inputs),
    )
    (found,) = config.describe_config_rules(ConfigRuleNames=[made])["ConfigRules"]
    return Created(made, {"name": made, "arn": found["ConfigRuleArn"]})


RESOURCES: Mapping[str, Create] = {
    "aws:cfg/recorder:Recorder": recorder,
    "aws:cfg/deliveryChannel:DeliveryChannel": delivery_channel,
    "aws:cfg/recorderStatus:RecorderStatus": recorder_status,
    "aws:cfg/retentionConfiguration:RetentionConfiguration": retention,
    "aws:cfg/rule:Rule": rule,
}
