"""Lambda functions, the rules that start them, and queues for failed events."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from pulumi import AssetArchive, FileAsset

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.naming import physical, tags
from ringfence.rehearsal.record import Create, Created, Inputs, RehearsalError


def function(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    """moto keeps no log group and no dead-letter queue of a function; they are in the record."""
    made = physical(name, inputs)
    optional = {
        "Description": inputs.get("description"),
        "Timeout": inputs.get("timeout"),
        "MemorySize": inputs.get("memorySize"),
        "Architectures": inputs.get("architectures"),
        "KMSKeyArn": inputs.get("kmsKeyArn"),
        "Environment": (
            {"Variables": inputs["environment"]["variables"]} if "environment" in inputs else None
        ),
        "TracingConfig": (
            {"Mode": inputs["tracingConfig"]["mode"]} if "tracingConfig" in inputs else None
        ),
    }
    client = aws.client("lambda")
    arn = client.create_function(
        FunctionName=made,
        Runtime=inputs["runtime"],
        Handler=inputs["handler"],
        Role=inputs["role"],
        Code={"ZipFile": _zipped(name, inputs["code"])},
        Tags=inputs.get("tags", {}),
        **{key: value for key, value in optional.items() if value is not None},
    )["FunctionArn"]
    reserved = inputs.get("reservedConcurrentExecutions", -1)
    if reserved >= 0:
        client.put_function_concurrency(FunctionName=made, ReservedConcurrentExecutions=reserved)
    return Created(made, {"arn": arn, "name": made})


def _zipped(name: str, code: object) -> bytes:
    """Build the archive that the provider uploads."""
    if not isinstance(code, AssetArchive):
        raise RehearsalError(f"{name}: its code is no AssetArchive; list its files in one")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, asset in code.assets.items():
            if not isinstance(asset, FileAsset):
                raise RehearsalError(f"{name}: {path} of its code is no FileAsset")
            archive.writestr(path, Path(asset.path).read_bytes())
    return packed.getvalue()


def permission(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    statement = inputs.get("statementId") or physical(name, inputs, 100)
    optional = {
        "SourceArn": inputs.get("sourceArn"),
        "SourceAccount": inputs.get("sourceAccount"),
    }
    aws.client("lambda").add_permission(
        FunctionName=inputs["function"],
        StatementId=statement,
        Action=inputs["action"],
        Principal=inputs["principal"],
        **{key: value for key, value in optional.items() if value},
    )
    return Created(statement, {"statementId": statement})


def event_invoke_config(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    destinations = {
        key: {"Destination": found["destination"]}
        for key, found in (
            ("OnFailure", inputs.get("destinationConfig", {}).get("onFailure")),
            ("OnSuccess", inputs.get("destinationConfig", {}).get("onSuccess")),
        )
        if found
    }
    optional = {
        "MaximumRetryAttempts": inputs.get("maximumRetryAttempts"),
        "MaximumEventAgeInSeconds": inputs.get("maximumEventAgeInSeconds"),
    }
    aws.client("lambda").put_function_event_invoke_config(
        FunctionName=inputs["functionName"],
        DestinationConfig=destinations,
        **{key: value for key, value in optional.items() if value is not None},
    )
    return Created(inputs["functionName"], {})


def queue(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    made = physical(name, inputs, 80)
    settings = {
        "KmsMasterKeyId": inputs.get("kmsMasterKeyId"),
        "KmsDataKeyReusePeriodSeconds": inputs.get("kmsDataKeyReusePeriodSeconds"),
        "MessageRetentionPeriod": inputs.get("messageRetentionSeconds"),
        "VisibilityTimeout": inputs.get("visibilityTimeoutSeconds"),
    }
    sqs = aws.client("sqs")
    url = sqs.create_queue(
        QueueName=made,
        Attributes={key: str(value) for key, value in settings.items() if value is not None},
        tags=inputs.get("tags", {}),
    )["QueueUrl"]
    return Created(url, {"arn": aws.arn("sqs", made), "url": url, "name": made})


def queue_policy(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    aws.client("sqs").set_queue_attributes(
        QueueUrl=inputs["queueUrl"], Attributes={"Policy": inputs["policy"]}
    )
    return Created(inputs["queueUrl"], {})


def event_rule(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    made = physical(name, inputs)
    optional = {
        "EventPattern": inputs.get("eventPattern"),
        "ScheduleExpression": inputs.get("scheduleExpression"),
        "EventBusName": inputs.get("eventBusName"),
    }
    arn = aws.client("events").put_rule(
        Name=made,
        Description=inputs.get("description", ""),
        State=inputs.get("state", "ENABLED"),
        Tags=tags(inputs),
        **{key: value for key, value in optional.items() if value},
    )["RuleArn"]
    return Created(made, {"arn": arn, "name": made})


def event_target(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    target = inputs.get("targetId") or physical(name, inputs)
    dead, retry = inputs.get("deadLetterConfig"), inputs.get("retryPolicy")
    optional = {
        "DeadLetterConfig": {"Arn": dead["arn"]} if dead else None,
        "RetryPolicy": {
            "MaximumRetryAttempts": retry["maximumRetryAttempts"],
            "MaximumEventAgeInSeconds": retry["maximumEventAgeInSeconds"],
        }
        if retry
        else None,
    }
    made = aws.client("events").put_targets(
        Rule=inputs["rule"],
        Targets=[
            {
                "Id": target,
                "Arn": inputs["arn"],
                **{key: value for key, value in optional.items() if value},
            }
        ],
    )
    if made["FailedEntryCount"]:
        raise RehearsalError(f"{name}: {made['FailedEntries'][0]['ErrorMessage']}")
    return Created(f"{inputs['rule']}-{target}", {"targetId": target})


RESOURCES: Mapping[str, Create] = {
    "aws:lambda/function:Function": function,
    "aws:lambda/permission:Permission": permission,
    "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig": event_invoke_config,
    "aws:sqs/queue:Queue": queue,
    "aws:sqs/queuePolicy:QueuePolicy": queue_policy,
    "aws:cloudwatch/eventRule:EventRule": event_rule,
    "aws:cloudwatch/eventTarget:EventTarget": event_target,
}
