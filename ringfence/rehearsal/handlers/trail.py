"""CloudTrail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.naming import physical, tags
from ringfence.rehearsal.record import Create, Created, Inputs

_OPERATORS = {
    "equals": "Equals",
    "notEquals": "NotEquals",
    "startsWiths": "StartsWith",
    "notStartsWiths": "NotStartsWith",
    "endsWiths": "EndsWith",
    "notEndsWiths": "NotEndsWith",
}
"""The provider's plurals, and AWS's names."""


def trail(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    client = aws.client("cloudtrail")
    optional = {
        "KmsKeyId": inputs.get("kmsKeyId"),
        "S3KeyPrefix": inputs.get("s3KeyPrefix"),
        "CloudWatchLogsLogGroupArn": inputs.get("cloudWatchLogsGroupArn"),
        "CloudWatchLogsRoleArn": inputs.get("cloudWatchLogsRoleArn"),
    }
    made = client.create_trail(
        Name=physical(name, inputs, 128),
        S3BucketName=inputs["s3BucketName"],
        IsMultiRegionTrail=inputs.get("isMultiRegionTrail", False),
        IncludeGlobalServiceEvents=inputs.get("includeGlobalServiceEvents", True),
        EnableLogFileValidation=inputs.get("enableLogFileValidation", False),
        TagsList=tags(inputs),
        **{key: value for key, value in optional.items() if value is not None},
    )
    if selectors := inputs.get("advancedEventSelectors"):
        client.put_event_selectors(
            TrailName=made["Name"], AdvancedEventSelectors=[_selector(each) for each in selectors]
        )
    # The provider starts logging by default; AWS does not.
    if inputs.get("enableLogging", True):
        client.start_logging(Name=made["Name"])
    arn = made["TrailARN"]
    return Created(made["Name"], {"arn": arn, "name": made["Name"], "homeRegion": aws.region})


def _selector(given: Mapping[str, Any]) -> dict[str, Any]:
    fields = [
        {_OPERATORS.get(key, "Field"): value for key, value in field.items()}
        for field in given["fieldSelectors"]
    ]
    return {"Name": given.get("name", ""), "FieldSelectors": fields}


RESOURCES: Mapping[str, Create] = {"aws:cloudtrail/trail:Trail": trail}
