"""GuardDuty, Security Hub and Macie."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.record import Create, Created, Inputs


def detector(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    made = aws.client("guardduty").create_detector(
        Enable=inputs.get("enable", True),
        FindingPublishingFrequency=inputs.get("findingPublishingFrequency", "SIX_HOURS"),
        Tags=inputs.get("tags", {}),
    )["DetectorId"]
    arn = aws.arn("guardduty", f"detector/{made}")
    return Created(made, {"arn": arn, "accountId": aws.id})


def detector_feature(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    """AWS changes the features that are named; moto replaces them all."""
    guardduty = aws.client("guardduty")
    detector, name = inputs["detectorId"], inputs["name"]
    present = guardduty.get_detector(DetectorId=detector).get("Features", [])
    additional = [
        {"Name": each["name"], "Status": each["status"]}
        for each in inputs.get("additionalConfigurations", [])
    ]
    feature = {
        "Name": name,
        "Status": inputs["status"],
        **({"AdditionalConfiguration": additional} if additional else {}),
    }
    others = [each for each in present if each["Name"] != name]
    guardduty.update_detector(DetectorId=detector, Features=[*others, feature])
    return Created(f"{detector}/{name}", {})


def hub(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    securityhub = aws.client("securityhub")
    securityhub.enable_security_hub(
        EnableDefaultStandards=inputs.get("enableDefaultStandards", True)
    )
    return Created(aws.id, {"arn": securityhub.describe_hub()["HubArn"]})


def macie(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    client = aws.client("macie2")
    client.enable_macie(
        findingPublishingFrequency=inputs.get("findingPublishingFrequency", "FIFTEEN_MINUTES"),
        status=inputs.get("status", "ENABLED"),
    )
    session = client.get_macie_session()
    return Created(aws.id, {"serviceRole": session["serviceRole"]})


RESOURCES: Mapping[str, Create] = {
    "aws:guardduty/detector:Detector": detector,
    "aws:guardduty/detectorFeature:DetectorFeature": detector_feature,
    "aws:macie2/account:Account": macie,
    "aws:securityhub/account:Account": hub,
}
