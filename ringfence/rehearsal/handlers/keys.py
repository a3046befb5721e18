"""KMS keys and their aliases."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.naming import physical, tags
from ringfence.rehearsal.record import Create, Created, Inputs


def key(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    kms = aws.client("kms")
    policy = {"Policy": inputs["policy"]} if "policy" in inputs else {}
    made = kms.create_key(
        Description=inputs.get("description", ""),
        MultiRegion=inputs.get("multiRegion", False),
        Tags=tags(inputs, "TagKey", "TagValue"),
        **policy,
    )["KeyMetadata"]
    if inputs.get("enableKeyRotation"):
        period = inputs.get("rotationPeriodInDays", 365)
        kms.enable_key_rotation(KeyId=made["KeyId"], RotationPeriodInDays=period)
    return Created(made["KeyId"], {"arn": made["Arn"], "keyId": made["KeyId"]})


def alias(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    given = inputs.get("name") or f"alias/{physical(name, inputs, 250)}"
    aws.client("kms").create_alias(AliasName=given, TargetKeyId=inputs["targetKeyId"])
    return Created(given, {"name": given, "arn": aws.arn("kms", given)})


RESOURCES: Mapping[str, Create] = {
    "aws:kms/key:Key": key,
    "aws:kms/alias:Alias": alias,
}
